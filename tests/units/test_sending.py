"""Messages to sessions as the console sends them: to whom, by whom, and what is answered and remembered."""

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from msha.steering.wire import TEXT_LIMIT_BYTES
from tests.support.answering import answering
from tests.units.builders import a_published_namespace, a_status, an_enrolled_node, make_namespace, make_node
from units import probing, reports
from units.groups import OPERATOR, VIEWER
from units.models import ApiToken, AuditEvent, EdgeNode, Namespace, Probe
from units.tokens import API_PREFIX, make_token

pytestmark = pytest.mark.django_db(transaction=True)

Answer = tuple[int, dict[str, Any]]


@pytest.fixture(autouse=True)
def _nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "DEADLINE_S", 2.0)


@pytest.fixture
def namespace() -> Namespace:
    """With a live node in each of its two units."""
    made = a_published_namespace()
    for code in ("center", "unbj"):
        live(an_enrolled_node(made.units.get(code=code)))
    return made


def live(node: EdgeNode) -> EdgeNode:
    reports.status(node.pk, node.namespace_id, "c1", a_status(node.enrolment))
    return node


def post(namespace: Namespace, group: str = OPERATOR, **body: Any) -> Answer:
    user, _ = User.objects.get_or_create(username=f"{group}-olga")
    user.groups.set(Group.objects.filter(name=group))
    token = make_token(API_PREFIX)
    ApiToken.objects.create(user=user, name="test", token_hash=token.hash)
    response = Client().post(
        f"/api/v1/namespaces/{namespace.name}/messages",
        json.dumps(body),
        content_type="application/json",
        headers={"authorization": f"Bearer {token.text}"},
    )
    return response.status_code, response.json()


def told(delivered: int = 0, queued: int = 0, **skipped: int) -> dict[str, Any]:
    return {"ok": True, "ms": 1, "delivered": delivered, "queued": queued, "skipped": skipped}


def by_unit(**answers: Mapping[str, Any] | None) -> Any:
    return lambda probe: answers[probe.node.unit.code]


def test_every_node_is_asked_and_the_answers_are_summed(namespace: Namespace) -> None:
    answers = by_unit(center=told(2, 1, closing=1), unbj=told(3, 0, closing=1, full=2))
    with answering(answers) as asked:
        status, sent = post(namespace, text="hello 路", ranges=["500", "0~99", "90~120"])
    assert status == 200
    assert {probe.kind for probe in asked} == {"send"}
    expected = {"unit_type": "unit_type", "ranges": [[0, 120], [500, 500]], "text": "hello 路"}
    assert [probe.params for probe in asked] == [expected, expected]
    assert (sent["delivered"], sent["queued"], sent["skipped"]) == (5, 1, {"closing": 2, "full": 2})
    assert sent["to"] == "0~120+500 of unit_type"
    assert sorted((node["unit"], node["reached"], node["delivered"]) for node in sent["nodes"]) == [
        ("center", True, 2),
        ("unbj", True, 3),
    ]


def test_ids_and_everybody_can_be_named(namespace: Namespace) -> None:
    with answering(by_unit(center=told(), unbj=told())) as asked:
        assert post(namespace, text="x", ids=[6249, 7, 8])[1]["to"] == "7~8+6249 of unit_type"
        assert post(namespace, text="x", all=True, unit_type="unit_type")[1]["to"] == "all of unit_type"
    assert asked[0].params["ranges"] == [[7, 8], [6249, 6249]]
    assert (asked[2].params["all"], "ranges" in asked[2].params) == (True, False)


def test_a_node_that_cannot_be_asked_or_does_not_answer_is_named(namespace: Namespace) -> None:
    EdgeNode.objects.filter(unit__code="center").update(status_at=timezone.now() - timedelta(seconds=10))
    with answering(by_unit(unbj=None)) as asked:
        status, sent = post(namespace, text="x", all=True)
    assert status == 200
    assert len(asked) == 1
    problems = {node["unit"]: (node["reached"], node["problem"]) for node in sent["nodes"]}
    assert problems == {
        "center": (False, "It is not connected, so it was not asked."),
        "unbj": (False, "It did not say in time whether it sent the message."),
    }
    assert set(Probe.objects.values_list("state", flat=True)) == {"expired"}


def test_what_some_workers_of_a_node_did_counts_although_it_was_not_all_of_them(namespace: Namespace) -> None:
    half = {**told(4), "ok": False, "error": "Not every worker said in time what became of the text."}
    with answering(by_unit(center=half, unbj={"ok": False, "ms": 0, "error": "It knows no probe 'send'."})):
        _, sent = post(namespace, text="x", all=True)
    assert sent["delivered"] == 4
    assert [node["reached"] for node in sent["nodes"]] == [False, False]
    assert "probe 'send'" in str(sent["nodes"])


def test_nodes_that_have_left_or_never_started_are_not_missed(namespace: Namespace) -> None:
    unit = namespace.units.get(code="unbj")
    make_node(unit)
    gone = an_enrolled_node(unit)
    EdgeNode.objects.filter(pk=gone.pk).update(state=EdgeNode.State.LEFT)
    with answering(by_unit(center=told(1), unbj=told(1))):
        _, sent = post(namespace, text="x", all=True)
    assert len(sent["nodes"]) == 2


def test_the_order_is_on_the_audit_record_and_the_text_nowhere(namespace: Namespace) -> None:
    text = "the codeword is 路由"
    with answering(by_unit(center=told(1), unbj=told())):
        post(namespace, text=text, ids=[6249])
    event = AuditEvent.objects.get(action="message.send")
    assert (event.actor, event.target) == ("operator-olga", "6249 of unit_type")
    assert event.after == {
        "to": "6249 of unit_type",
        "bytes": len(text.encode()),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    assert "codeword" not in str(list(Probe.objects.values()))


def test_a_viewer_may_not_send(namespace: Namespace) -> None:
    status, refused = post(namespace, VIEWER, text="x", all=True)
    assert (status, refused["error"]["code"]) == (403, "forbidden")
    assert "units.send_message" in refused["error"]["sentence"]
    assert not Probe.objects.exists()


@pytest.mark.parametrize(
    ("body", "place", "problem"),
    [
        ({"text": ""}, "text", "1 to 16384 bytes"),
        ({"text": "x" * (TEXT_LIMIT_BYTES + 1)}, "text", "this one has 16385"),
        ({"text": "路" * 6000}, "text", "this one has 18000"),
        ({"text": "\ud800"}, "text", "not Unicode"),
        ({"unit_type": "nope"}, "unit_type", "nope is not a unit type in effect; there is unit_type."),
        ({"all": False}, "ids", "either ids, or ranges, or all"),
        ({"ids": [1]}, "ids", "either ids, or ranges, or all"),
        ({"all": False, "ids": [10_000]}, "ids", "leaves the key space"),
        ({"all": False, "ids": [-1]}, "ids", "leaves the key space"),
        ({"all": False, "ranges": ["0~10000"]}, "ranges", "leaves the key space"),
        ({"all": False, "ranges": ["x"]}, "ranges", "not a range of ids"),
        ({"all": False, "ranges": [""]}, "ranges", "not a range of ids"),
        ({"all": False, "ids": list(range(0, 4000, 2))}, "ids", "at most 1000"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_nobody_is_asked(
    namespace: Namespace, body: dict[str, Any], place: str, problem: str
) -> None:
    status, refused = post(namespace, **{"text": "x", "all": True, **body})
    assert (status, refused["error"]["place"]) == (422, place)
    assert problem in refused["error"]["sentence"]
    assert not Probe.objects.exists()
    assert not AuditEvent.objects.filter(action="message.send").exists()


def test_before_the_first_publish_there_is_nobody_to_send_to() -> None:
    status, refused = post(make_namespace(), text="x", all=True)
    assert (status, "Nothing is in effect" in refused["error"]["sentence"]) == (409, True)
