from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from msha.steering import wire
from tests.units.builders import (
    a_hello,
    a_published_namespace,
    a_status,
    an_ack,
    an_enrolled_node,
    make_cluster,
    make_namespace,
    make_node,
    make_unit,
    publish_config,
    publish_first,
)
from units import enrolment, publishing, reports
from units.delivery import due
from units.enrolment import CLOSE_LATER, TurnedAway
from units.errors import Refused
from units.models import AuditEvent, EdgeNode, Namespace, Unit

pytestmark = pytest.mark.django_db


@pytest.fixture
def unit() -> Unit:
    return a_published_namespace().units.get(code="unbj")


def again(node: EdgeNode) -> EdgeNode:
    return EdgeNode.objects.get(pk=node.pk)


def test_registering_keeps_only_the_hash_of_the_token(unit: Unit) -> None:
    node, token = make_node(unit, "edge-bj-1")
    assert token.text not in {str(value) for value in EdgeNode.objects.values().get().values()}
    assert enrolment.known(token.hash) == node.pk
    assert AuditEvent.objects.filter(action="node.register", target="edge-bj-1").exists()


def test_two_nodes_of_a_namespace_cannot_share_a_name(unit: Unit) -> None:
    make_node(unit, "edge-1")
    with pytest.raises(ValidationError, match="already has"):
        make_node(unit.namespace.units.get(code="center"), "edge-1")


def test_a_node_cannot_be_put_into_a_cluster_of_another_unit(unit: Unit) -> None:
    cluster = make_cluster(unit.namespace.units.get(code="center"))
    with pytest.raises(Refused, match="another unit"):
        make_node(unit, "edge-1", cluster)


def test_an_unknown_token_is_turned_away() -> None:
    with pytest.raises(TurnedAway) as turned:
        enrolment.known("0" * 64)
    assert turned.value.code == wire.CLOSE_BAD_TOKEN


def test_a_node_is_enrolled_by_what_hands_it_its_first_snapshot(unit: Unit) -> None:
    node, _ = make_node(unit)
    greeted = enrolment.greet(node.pk, a_hello(), "c1")
    assert greeted.enrolment is None
    assert not again(node).enrolled
    delivery = enrolment.join(node.pk, "c1")
    assert delivery is not None
    assert (delivery.enrolment, delivery.version) == (1, 1)
    assert (again(node).state, again(node).enrolment) == (EdgeNode.State.ENROLLED, 1)


def test_a_node_is_not_enrolled_before_anything_is_published() -> None:
    namespace = make_namespace()
    unit = make_unit(namespace, "center")
    make_unit(namespace, "unbj")
    node, _ = make_node(unit)
    enrolment.greet(node.pk, a_hello(), "c1")
    assert enrolment.join(node.pk, "c1") is None
    assert not again(node).enrolled
    publish_first(namespace)
    assert enrolment.join(node.pk, "c1") is not None


def test_a_node_is_not_enrolled_while_publishing_is_stopped(unit: Unit) -> None:
    Namespace.objects.update(publishing_stopped="restored")
    node, _ = make_node(unit)
    enrolment.greet(node.pk, a_hello(), "c1")
    assert enrolment.join(node.pk, "c1") is None


def test_an_older_connection_enrols_nobody(unit: Unit) -> None:
    node, _ = make_node(unit)
    hello = a_hello()
    enrolment.greet(node.pk, hello, "c1")
    enrolment.greet(node.pk, hello, "c2")
    assert enrolment.join(node.pk, "c1") is None
    assert not again(node).enrolled


def test_a_restarted_node_keeps_its_enrolment(unit: Unit) -> None:
    hello = a_hello()
    node = an_enrolled_node(unit, instance=hello.instance)
    greeted = enrolment.greet(node.pk, a_hello(instance=hello.instance, enrolment=1), "c2")
    assert greeted.enrolment == 1
    assert greeted.welcome.enrolment == 1
    assert enrolment.join(node.pk, "c2") is None


def test_an_enrolled_node_with_another_state_directory_is_turned_away(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    with pytest.raises(TurnedAway, match="another state directory") as turned:
        enrolment.greet(node.pk, a_hello(), "c2")
    assert turned.value.code == wire.CLOSE_OTHER_INSTANCE
    assert again(node).connection_id == "c1"


def test_a_copy_of_a_running_node_is_turned_away_while_the_other_speaks(unit: Unit) -> None:
    node = an_enrolled_node(unit, instance="same", pid=10)
    reports.status(node.pk, node.namespace_id, "c1", a_status(1))
    copy = a_hello(instance="same", pid=11, enrolment=1)
    with pytest.raises(TurnedAway, match="Another process") as turned:
        enrolment.greet(node.pk, copy, "c2")
    assert turned.value.code == CLOSE_LATER
    enrolment.disconnected(node.pk, "c1")
    assert enrolment.greet(node.pk, copy, "c2").enrolment == 1


def test_the_same_process_may_dial_again_at_once(unit: Unit) -> None:
    node = an_enrolled_node(unit, instance="same", pid=10)
    reports.status(node.pk, node.namespace_id, "c1", a_status(1))
    assert enrolment.greet(node.pk, a_hello(instance="same", pid=10), "c2").enrolment == 1


def test_a_late_disconnect_of_an_older_connection_changes_nothing(unit: Unit) -> None:
    node = an_enrolled_node(unit, instance="same")
    enrolment.greet(node.pk, a_hello(instance="same"), "c2")
    enrolment.disconnected(node.pk, "c1")
    assert again(node).connected
    enrolment.disconnected(node.pk, "c2")
    assert not again(node).connected


def test_a_disconnected_node_stays_enrolled(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    enrolment.disconnected(node.pk, "c1")
    assert again(node).enrolled
    assert not again(node).live


def test_a_node_that_left_is_enrolled_anew_with_the_next_number(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    snapshot = publishing.newest(node.namespace)
    assert snapshot is not None
    assert reports.ack(node.pk, node.namespace_id, an_ack(node, snapshot))
    assert enrolment.left(node.pk, 1)
    assert again(node).state == EdgeNode.State.LEFT
    enrolment.greet(node.pk, a_hello(left=1), "c2")
    delivery = enrolment.join(node.pk, "c2")
    assert delivery is not None
    assert delivery.enrolment == 2
    assert again(node).applied_version == 0  # what it acked before was for another enrolment


def test_a_new_node_in_the_directory_of_a_dead_one_is_enrolled_above_its_tombstone(unit: Unit) -> None:
    node, _ = make_node(unit)
    enrolment.greet(node.pk, a_hello(left=4), "c1")
    delivery = enrolment.join(node.pk, "c1")
    assert delivery is not None
    assert delivery.enrolment == 5


def test_a_late_left_does_not_count_for_a_newer_enrolment(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    enrolment.left(node.pk, 1)
    enrolment.greet(node.pk, a_hello(left=1), "c2")
    enrolment.join(node.pk, "c2")
    assert not enrolment.left(node.pk, 1)
    assert again(node).enrolled


def test_a_tombstone_in_the_hello_counts_as_left_when_that_word_was_lost(unit: Unit) -> None:
    node = an_enrolled_node(unit, instance="same")
    greeted = enrolment.greet(node.pk, a_hello(instance="same", left=1), "c2")
    assert greeted.enrolment is None
    assert again(node).state == EdgeNode.State.LEFT


def test_a_tombstone_of_an_older_enrolment_does_not_count(unit: Unit) -> None:
    node = an_enrolled_node(unit, instance="same")
    enrolment.left(node.pk, 1)
    enrolment.greet(node.pk, a_hello(instance="same", left=1), "c2")
    enrolment.join(node.pk, "c2")
    assert enrolment.greet(node.pk, a_hello(instance="same", left=1), "c3").enrolment == 2
    assert again(node).enrolled


def test_a_declaration_needs_the_typed_name_and_a_reason(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    with pytest.raises(Refused, match="Type the name"):
        enrolment.declare_dead(node, actor="ann", typed_name="other", reason="power is off")
    with pytest.raises(Refused, match="reason"):
        enrolment.declare_dead(node, actor="ann", typed_name=node.name, reason=" ")
    assert again(node).enrolled


def test_a_node_declared_dead_is_only_told_that_it_was_revoked(unit: Unit) -> None:
    node, token = make_node(unit)
    enrolment.greet(node.pk, a_hello(instance="same"), "c1")
    enrolment.join(node.pk, "c1")
    enrolment.declare_dead(node, actor="ann", typed_name=node.name, reason="power is off")
    assert again(node).state == EdgeNode.State.DEAD
    assert due(node.pk, "c1", 0).revoked == "power is off"
    for attempt in (
        lambda: enrolment.known(token.hash),
        lambda: enrolment.greet(node.pk, a_hello(instance="same"), "c2"),
    ):
        with pytest.raises(TurnedAway) as turned:
            attempt()
        assert turned.value.code == wire.CLOSE_REVOKED
    event = AuditEvent.objects.get(action="node.declare_dead")
    assert (event.actor, event.reason) == ("ann", "power is off")


def test_a_dead_node_cannot_get_a_new_token_or_join_again(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    enrolment.declare_dead(node, actor="ann", typed_name=node.name, reason="power is off")
    with pytest.raises(Refused, match="declared dead"):
        enrolment.replace_token(node, actor="ann")
    assert enrolment.join(node.pk, "c1") is None
    with pytest.raises(Refused, match="can be removed only"):
        enrolment.remove(again(node), actor="ann")


def test_a_replaced_token_opens_nothing_any_more(unit: Unit) -> None:
    node, old = make_node(unit)
    new = enrolment.replace_token(node, actor="ann")
    assert enrolment.known(new.hash) == node.pk
    with pytest.raises(TurnedAway):
        enrolment.known(old.hash)


def test_an_enrolled_node_cannot_be_removed(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    with pytest.raises(Refused, match="after it has left"):
        enrolment.remove(node, actor="ann")
    enrolment.left(node.pk, 1)
    enrolment.remove(again(node), actor="ann")
    assert not EdgeNode.objects.filter(pk=node.pk).exists()


def test_a_peer_of_another_protocol_is_told_to_upgrade(unit: Unit) -> None:
    node, _ = make_node(unit)
    with pytest.raises(TurnedAway, match="Upgrade") as turned:
        enrolment.greet(node.pk, a_hello(protocol=99), "c1")
    assert turned.value.code == wire.CLOSE_PROTOCOL


def test_the_newest_snapshot_is_due_until_it_is_acked(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    newest = publish_config(node.namespace)
    delivery = due(node.pk, "c1", 1).delivery
    assert delivery is not None
    assert (delivery.version, delivery.body) == (2, newest.body)
    assert due(node.pk, "c1", 2).delivery is None  # sent already on this connection
    assert reports.ack(node.pk, node.namespace_id, an_ack(node, newest))
    assert due(node.pk, "c1", 0).delivery is None


def test_nothing_is_due_on_an_older_connection(unit: Unit) -> None:
    node = an_enrolled_node(unit, instance="same")
    enrolment.greet(node.pk, a_hello(instance="same"), "c2")
    assert due(node.pk, "c1", 0).superseded


def test_nothing_is_sent_while_publishing_is_stopped(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    publish_config(node.namespace)
    Namespace.objects.update(publishing_stopped="restored")
    assert due(node.pk, "c1", 0).delivery is None


def test_a_node_is_live_while_it_is_enrolled_connected_and_heard_of(unit: Unit) -> None:
    node = an_enrolled_node(unit)
    assert not again(node).live  # it has said nothing yet
    reports.status(node.pk, node.namespace_id, "c1", a_status(1))
    assert again(node).live
    EdgeNode.objects.update(status_at=timezone.now() - timedelta(seconds=6))
    assert not again(node).live
