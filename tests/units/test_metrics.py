"""The metrics endpoint: who may read it, and that it says what the database says."""

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from tests.units.builders import make_namespace, make_node, make_unit
from units.alarms import clear_alarm, raise_alarm
from units.models import ApiToken, EdgeNode
from units.tokens import API_PREFIX, make_token

pytestmark = pytest.mark.django_db


def token_of(*groups: str) -> str:
    user = User.objects.create_user("prometheus")
    user.groups.set(Group.objects.filter(name__in=groups))
    token = make_token(API_PREFIX)
    ApiToken.objects.create(user=user, name="scrape", token_hash=token.hash)
    return token.text


def scraped(client: Client, token: str) -> dict[str, dict[frozenset[str], float]]:
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.content
    families = text_string_to_metric_families(answer.content.decode())
    return {
        family.name: {frozenset(sample.labels.values()): sample.value for sample in family.samples}
        for family in families
    }


def test_a_scrape_without_a_token_or_without_the_permission_is_refused(client: Client) -> None:
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer msha_api_wrong"}).status_code == 401
    token = token_of()
    assert client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 403


def test_nodes_are_told_as_live_and_in_sync_only_while_they_are(client: Client) -> None:
    namespace = make_namespace("metered")
    node, _ = make_node(make_unit(namespace), "edge-1")
    token = token_of("viewer")
    names = frozenset({"metered", "center", "edge-1"})
    assert names not in scraped(client, token)["msha_node_live"]
    columns = {"connected": True, "status_at": timezone.now(), "sessions": 7, "applied_version": 3}
    EdgeNode.objects.filter(pk=node.pk).update(state=EdgeNode.State.ENROLLED, **columns)
    told = scraped(client, token)
    assert told["msha_node_live"][names] == 1
    assert told["msha_node_in_sync"][names] == 0
    assert told["msha_node_sessions"][names] == 7
    assert told["msha_node_version"][names] == 3
    EdgeNode.objects.filter(pk=node.pk).update(connected=False)
    assert scraped(client, token)["msha_node_live"][names] == 0


def test_an_alarm_is_counted_until_it_is_cleared_and_shown_as_zero_afterwards(client: Client) -> None:
    namespace = make_namespace("metered")
    token, ahead = token_of("viewer"), frozenset({"metered", "node_ahead"})
    raise_alarm(namespace.pk, "node_ahead", "A node is ahead.", subject="edge-1")
    raise_alarm(namespace.pk, "node_ahead", "Another one, too.", subject="edge-2")
    assert scraped(client, token)["msha_alarms"][ahead] == 2
    clear_alarm(namespace.pk, "node_ahead")
    assert scraped(client, token)["msha_alarms"][ahead] == 0


def test_the_figures_of_all_apps_stand_in_one_answer(client: Client) -> None:
    told = scraped(client, token_of("viewer"))
    assert {"msha_version", "msha_publishing_stopped", "msha_cutovers", "msha_cutover_frozen_seconds"} <= set(
        told
    )
