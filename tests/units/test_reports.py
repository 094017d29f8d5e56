import pytest

from msha.steering import wire
from tests.units.builders import (
    a_published_namespace,
    a_status,
    an_ack,
    an_enrolled_node,
    publish_config,
    publish_step,
)
from units import enrolment, fleet, publishing, reports
from units.models import Alarm, EdgeNode, Namespace, Snapshot
from units.signals import node_reported

pytestmark = pytest.mark.django_db


@pytest.fixture
def node() -> EdgeNode:
    return an_enrolled_node(a_published_namespace().units.get(code="unbj"))


def newest(node: EdgeNode) -> Snapshot:
    snapshot = publishing.newest(node.namespace_id)
    assert snapshot is not None
    return snapshot


def again(node: EdgeNode) -> EdgeNode:
    return EdgeNode.objects.get(pk=node.pk)


def test_an_ack_of_a_published_version_counts(node: EdgeNode) -> None:
    step = publish_step(node.namespace)
    assert reports.ack(node.pk, node.namespace_id, an_ack(node, step))
    now = again(node)
    assert (now.applied_version, now.applied_digest, now.applied_epoch) == (2, step.digest, 1)


def test_an_ack_for_another_enrolment_is_ignored(node: EdgeNode) -> None:
    assert not reports.ack(node.pk, node.namespace_id, an_ack(node, newest(node), 2))
    assert not reports.ack(node.pk, node.namespace_id, an_ack(node, newest(node), 0))
    assert again(node).applied_version == 0


def test_an_ack_with_another_digest_does_not_count(node: EdgeNode) -> None:
    ack = wire.Ack(node.enrolment, 1, "0" * 64, 0)
    assert not reports.ack(node.pk, node.namespace_id, ack)
    assert again(node).applied_version == 0


def test_an_ack_that_claims_another_epoch_does_not_count(node: EdgeNode) -> None:
    snapshot = newest(node)
    assert not reports.ack(node.pk, node.namespace_id, wire.Ack(1, 1, snapshot.digest, 7))


def test_a_late_ack_does_not_bring_a_node_back_to_an_older_version(node: EdgeNode) -> None:
    first, second = newest(node), publish_config(node.namespace)
    assert reports.ack(node.pk, node.namespace_id, an_ack(node, second))
    assert not reports.ack(node.pk, node.namespace_id, an_ack(node, first))
    assert again(node).applied_version == 2


def test_an_ack_of_a_node_that_left_does_not_count(node: EdgeNode) -> None:
    enrolment.left(node.pk, node.enrolment)
    assert not reports.ack(node.pk, node.namespace_id, an_ack(node, newest(node)))


def test_drained_counts_only_after_the_ack_of_its_epoch(node: EdgeNode) -> None:
    step = publish_step(node.namespace)
    drained = wire.Drained(node.enrolment, step.epoch)
    assert not reports.drained(node.pk, node.namespace_id, drained)
    reports.ack(node.pk, node.namespace_id, an_ack(node, step))
    assert reports.drained(node.pk, node.namespace_id, drained)
    assert again(node).drained_epoch == step.epoch


def test_drained_of_an_older_epoch_or_enrolment_is_ignored(node: EdgeNode) -> None:
    first, second = publish_step(node.namespace), publish_step(node.namespace)
    reports.ack(node.pk, node.namespace_id, an_ack(node, second))
    assert not reports.drained(node.pk, node.namespace_id, wire.Drained(2, second.epoch))
    assert reports.drained(node.pk, node.namespace_id, wire.Drained(1, first.epoch))
    assert again(node).drained_epoch < second.epoch


def test_workers_that_exited_count_for_a_published_epoch(node: EdgeNode) -> None:
    step = publish_step(node.namespace)
    assert not reports.workers_exited(node.pk, node.namespace_id, wire.WorkersExited(1, step.epoch + 1))
    assert not reports.workers_exited(node.pk, node.namespace_id, wire.WorkersExited(2, step.epoch))
    assert reports.workers_exited(node.pk, node.namespace_id, wire.WorkersExited(1, step.epoch))


def test_a_refusal_is_stored_with_its_reason(node: EdgeNode) -> None:
    reports.nack(node.pk, node.namespace_id, wire.Nack(1, 2, "d", "disk is full"))
    now = again(node)
    assert (now.nack_version, now.nack_reason) == (2, "disk is full")
    assert not now.in_sync


def test_a_status_of_the_newest_version_is_confirmed(node: EdgeNode) -> None:
    snapshot = newest(node)
    answer = reports.status(
        node.pk, node.namespace_id, "c1", a_status(1, 1, snapshot.digest, sessions=7, held=2)
    )
    assert (answer.version, answer.digest) == (1, snapshot.digest)
    now = again(node)
    assert (now.sessions, now.counters["held"], now.in_sync) == (7, 2, True)
    assert abs(now.clock_skew_ms) < 2000


def test_a_node_that_is_behind_hears_of_the_newest_version_and_is_not_in_sync(node: EdgeNode) -> None:
    first, second = newest(node), publish_config(node.namespace)
    answer = reports.status(node.pk, node.namespace_id, "c1", a_status(1, 1, first.digest))
    assert (answer.version, answer.digest) == (2, second.digest)
    assert not again(node).in_sync


def test_a_status_on_an_older_connection_changes_nothing(node: EdgeNode) -> None:
    answer = reports.status(node.pk, node.namespace_id, "c0", a_status(1, sessions=7))
    assert answer.state is None
    assert again(node).sessions == 0


def test_a_wild_clock_is_shown_and_breaks_nothing(node: EdgeNode) -> None:
    reports.status(node.pk, node.namespace_id, "c1", a_status(1, clock_ms=10**18))
    assert again(node).clock_skew_ms == 2**31 - 1


def test_a_status_costs_one_update(node: EdgeNode, django_assert_num_queries: object) -> None:
    snapshot = newest(node)
    with django_assert_num_queries(4) as captured:  # type: ignore[operator]
        reports.status(node.pk, node.namespace_id, "c1", a_status(1, 1, snapshot.digest))
    statements = [query["sql"].split()[0] for query in captured.captured_queries]
    assert sorted(statements) == ["RELEASE", "SAVEPOINT", "SELECT", "UPDATE"]


def test_a_node_that_is_ahead_stops_publishing_with_an_alarm(node: EdgeNode) -> None:
    answer = reports.status(node.pk, node.namespace_id, "c1", a_status(1, 9, "f" * 64, epoch=3))
    assert (answer.version, answer.digest) == (0, "")
    namespace = Namespace.objects.get()
    assert "after_restore" in namespace.publishing_stopped
    assert Alarm.objects.get(kind=fleet.AHEAD, cleared_at=None).subject == node.name
    reports.status(node.pk, node.namespace_id, "c1", a_status(1, 9, "f" * 64, epoch=3))
    assert Alarm.objects.count() == 1


def test_another_content_of_a_known_version_stops_publishing(node: EdgeNode) -> None:
    reports.status(node.pk, node.namespace_id, "c1", a_status(1, 1, "f" * 64))
    assert Namespace.objects.get().publishing_stopped


def test_nobody_is_confirmed_while_publishing_is_stopped(node: EdgeNode) -> None:
    Namespace.objects.update(publishing_stopped="restored")
    snapshot = newest(node)
    answer = reports.status(node.pk, node.namespace_id, "c1", a_status(1, 1, snapshot.digest))
    assert (answer.version, answer.digest) == (0, "")
    assert not again(node).in_sync


@pytest.mark.django_db(transaction=True)
def test_the_apps_above_hear_of_an_ack_after_its_commit_and_their_failure_hurts_nobody() -> None:
    node = an_enrolled_node(a_published_namespace().units.get(code="unbj"))
    heard: list[tuple[str, int]] = []

    def broken(**_: object) -> None:
        raise RuntimeError("a receiver's own fault")

    def listener(kind: str, node_id: int, **_: object) -> None:
        heard.append((kind, EdgeNode.objects.get(pk=node_id).applied_version))

    node_reported.connect(broken, weak=False)
    node_reported.connect(listener, weak=False)
    try:
        assert reports.ack(node.pk, node.namespace_id, an_ack(node, newest(node)))
        assert not reports.ack(node.pk, node.namespace_id, an_ack(node, newest(node), 9))
    finally:
        node_reported.disconnect(broken)
        node_reported.disconnect(listener)
    assert heard == [("ack", 1)]
