from datetime import timedelta

import pytest
from django.utils import timezone

from msha.steering import wire
from tests.units.builders import a_published_namespace, an_enrolled_node
from units import probes, probing
from units.models import EdgeNode, Probe

pytestmark = pytest.mark.django_db


def ask(node: EdgeNode, kind: Probe.Kind = Probe.Kind.ECHO) -> Probe:
    (probe,) = probing.ask([probing.Question(node, kind)]).probes
    return probe


@pytest.fixture
def node() -> EdgeNode:
    return an_enrolled_node(a_published_namespace().units.get(code="unbj"))


def test_a_probe_is_claimed_once(node: EdgeNode) -> None:
    asked = ask(node)
    assert probes.claim(node.pk) == [asked]
    assert probes.claim(node.pk) == []


def test_what_was_asked_first_is_sent_first(node: EdgeNode) -> None:
    asked = [ask(node) for _ in range(3)]
    assert probes.claim(node.pk) == asked


def test_a_node_is_asked_about_dozens_of_back_sources_at_once(node: EdgeNode) -> None:
    asked = [ask(node) for _ in range(100)]
    assert probes.claim(node.pk) == asked


def test_a_probe_that_waited_too_long_is_not_sent_any_more(node: EdgeNode) -> None:
    ask(node)
    Probe.objects.update(created=timezone.now() - timedelta(seconds=25))
    assert probes.claim(node.pk) == []


def test_asking_expires_what_nobody_answered_and_forgets_what_is_old(node: EdgeNode) -> None:
    late, old = ask(node), ask(node)
    Probe.objects.filter(pk=late.pk).update(created=timezone.now() - timedelta(seconds=40))
    Probe.objects.filter(pk=old.pk).update(created=timezone.now() - timedelta(days=2))
    ask(node)
    late.refresh_from_db()
    assert late.state == Probe.State.EXPIRED
    assert not Probe.objects.filter(pk=old.pk).exists()


def test_an_answer_after_the_time_is_ignored(node: EdgeNode) -> None:
    asked = ask(node)
    Probe.objects.update(state=Probe.State.EXPIRED)
    assert not probes.answered(node.pk, node.namespace_id, wire.ProbeResult(asked.pk, {"ok": True}))
