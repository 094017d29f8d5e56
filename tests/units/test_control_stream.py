"""The control stream of a real console (Daphne), spoken to over a real WebSocket."""

import json
import time
from collections.abc import Callable

import pytest

from msha.demo.ports import free_ports
from msha.steering import snapshot as steering
from msha.steering import wire
from tests.units.builders import (
    a_published_namespace,
    make_namespace,
    make_node,
    make_unit,
    publish_config,
    publish_first,
)
from tests.units.conftest import Consoles
from tests.units.node_client import NodeClient
from units import enrolment, probing
from units.consumers import CLOSE_NOT_UNDERSTOOD, CLOSE_SILENT
from units.enrolment import CLOSE_LATER
from units.models import EdgeNode, Probe, Unit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def unit() -> Unit:
    return a_published_namespace().units.get(code="unbj")


def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def test_a_bad_token_is_closed_with_a_sentence(console_url: str) -> None:
    for token in ("", "msha_node_" + "x" * 43, "something else"):
        with NodeClient(console_url, token) as client:
            assert client.close_code() == wire.CLOSE_BAD_TOKEN
            (refused,) = client.received
            assert isinstance(refused, wire.Refused)
            assert "Register the node" in refused.reason


def test_a_new_node_is_welcomed_enrolled_and_handed_the_newest_snapshot(console_url: str, unit: Unit) -> None:
    node, token = make_node(unit, "edge-bj-1")
    with NodeClient(console_url, token.text) as client:
        welcome = client.hello()
        assert (welcome.node, welcome.unit, welcome.enrolment) == ("edge-bj-1", "unbj", None)
        assert welcome.namespace_id == str(unit.namespace.uuid)
        client.status()
        delivery = client.expect(wire.Deliver)
        assert (delivery.enrolment, delivery.version) == (1, 1)
        steering.load(delivery.body.encode(), delivery.digest)
        client.ack(delivery)
        confirm = client.status(1, 1, delivery.digest)
        assert (confirm.version, confirm.digest) == (1, delivery.digest)
        node.refresh_from_db()
        assert (node.applied_version, node.live, node.in_sync) == (1, True, True)
    until(lambda: not EdgeNode.objects.get().connected)
    assert EdgeNode.objects.get().enrolled


def test_a_node_that_waits_for_the_first_publish_is_handed_it(console_url: str) -> None:
    namespace = make_namespace()
    unit = make_unit(namespace, "center")
    make_unit(namespace, "unbj")
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello()
        assert client.status().version == 0
        client.nothing_of(wire.Deliver, 0.3)
        publish_first(namespace)
        client.status()
        assert client.expect(wire.Deliver).version == 1


def test_a_node_with_an_older_version_is_handed_the_newest_on_its_next_status(
    console_url: str, unit: Unit
) -> None:
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello()
        client.status()
        first = client.expect(wire.Deliver)
        client.ack(first)
        publish_config(unit.namespace)
        confirm = client.status(1, 1, first.digest)
        assert confirm.version == 2
        assert client.expect(wire.Deliver).version == 2


def test_a_node_that_has_lost_what_it_acked_is_handed_it_again(console_url: str, unit: Unit) -> None:
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello(instance="same")
        client.status()
        first = client.expect(wire.Deliver)
        client.ack(first)
        client.status(1, 1, first.digest)
    with NodeClient(console_url, token.text) as client:
        client.hello(instance="same", enrolment=1)  # its file is torn
        client.status(1)
        assert client.expect(wire.Deliver) == first


def test_what_a_node_has_is_not_sent_again_after_a_reconnect(console_url: str, unit: Unit) -> None:
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello(instance="same")
        client.status()
        first = client.expect(wire.Deliver)
        client.ack(first)
        client.status(1, 1, first.digest)
    with NodeClient(console_url, token.text) as client:
        welcome = client.hello(instance="same", enrolment=1, version=1, digest=first.digest, epoch=0)
        assert welcome.enrolment == 1
        client.status(1, 1, first.digest)
        client.nothing_of(wire.Deliver, 0.5)


def test_what_was_never_acked_is_sent_again_after_a_reconnect(console_url: str, unit: Unit) -> None:
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello(instance="same")
        client.status()
        client.expect(wire.Deliver)
    with NodeClient(console_url, token.text) as client:
        client.hello(instance="same")
        client.status(1)
        assert client.expect(wire.Deliver).enrolment == 1


def test_a_snapshot_that_is_not_acked_is_sent_again_on_the_same_connection(
    console_url: str, unit: Unit
) -> None:
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello()
        client.status()
        first = client.expect(wire.Deliver)
        deadline = time.monotonic() + 9
        while time.monotonic() < deadline:
            client.status(1)
            again = [message for message in client.received[1:] if isinstance(message, wire.Deliver)]
            if len(again) > 1:
                break
            time.sleep(0.5)
        assert again == [first, first]


def test_a_node_on_its_way_out_is_not_enrolled_anew(console_url: str, unit: Unit) -> None:
    node, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello()
        client.status()
        client.ack(client.expect(wire.Deliver))
        client.say(wire.Left(1))
        client.status(1)  # the last words of a process that is about to end
        client.nothing_of(wire.Deliver, 0.5)
    node.refresh_from_db()
    assert node.state == EdgeNode.State.LEFT


def test_a_draining_process_that_only_says_goodbye_is_not_enrolled_anew(console_url: str, unit: Unit) -> None:
    node, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello(instance="same")
        client.status()
        client.ack(client.expect(wire.Deliver))
    with NodeClient(console_url, token.text) as client:
        client.hello(instance="same", left=1)
        client.status(1, draining=True)
        client.nothing_of(wire.Deliver, 0.5)
    node.refresh_from_db()
    assert node.state == EdgeNode.State.LEFT


def test_another_state_directory_is_refused_while_the_node_is_enrolled(console_url: str, unit: Unit) -> None:
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello(instance="one")
        client.status()
        client.expect(wire.Deliver)
        with NodeClient(console_url, token.text) as other:
            other.say(wire.Hello("two", "test", "127.0.0.1:2", 1, 2))
            assert other.close_code() == wire.CLOSE_OTHER_INSTANCE
            (refused,) = other.received
            assert isinstance(refused, wire.Refused)
            assert "another state directory" in refused.reason


def test_a_newer_connection_of_the_same_process_takes_over(console_url: str, unit: Unit) -> None:
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as older:
        older.hello(instance="same")
        older.status()
        with NodeClient(console_url, token.text) as newer:
            newer.hello(instance="same")
            newer.status()
            assert older.close_code() == CLOSE_LATER
            newer.status()
            assert EdgeNode.objects.get().connected


def test_a_node_declared_dead_is_told_at_once_and_on_every_return(console_url: str, unit: Unit) -> None:
    node, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello()
        client.status()
        client.expect(wire.Deliver)
        enrolment.declare_dead(node, actor="ann", typed_name=node.name, reason="power is off")
        assert client.expect(wire.Revoked).reason == "power is off"
        assert client.close_code() == wire.CLOSE_REVOKED
    with NodeClient(console_url, token.text) as client:
        assert client.expect(wire.Revoked).reason == "power is off"
        assert client.close_code() == wire.CLOSE_REVOKED


def test_a_probe_is_sent_once_and_its_answer_stored(console_url: str, unit: Unit) -> None:
    node, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello()
        client.status()
        (asked,) = probing.ask([probing.Question(node, Probe.Kind.ECHO, {"a": 1})]).probes
        request = client.expect(wire.ProbeRequest)
        assert (request.probe, request.kind, request.params) == (asked.pk, "echo", {"a": 1})
        client.say(wire.ProbeResult(asked.pk, {"ok": True, "ms": 1}))
        client.status()
        client.nothing_of(wire.ProbeRequest, 0.3)
    asked.refresh_from_db()
    assert (asked.state, asked.result) == (Probe.State.DONE, {"ok": True, "ms": 1})


def test_a_node_cannot_answer_the_probe_of_another(console_url: str, unit: Unit) -> None:
    node, _ = make_node(unit)
    _, token = make_node(unit)
    asked = Probe.objects.create(node=node, kind=Probe.Kind.ECHO, state=Probe.State.SENT)
    with NodeClient(console_url, token.text) as client:
        client.hello()
        client.say(wire.ProbeResult(asked.pk, {"ok": True}))
        client.status()
    asked.refresh_from_db()
    assert asked.state == Probe.State.SENT


@pytest.mark.parametrize("frame", ["not json", json.dumps({"type": "confirm"}), b"\x00", '{"type":"status"}'])
def test_a_frame_that_is_not_a_message_ends_the_connection(
    frame: str | bytes, console_url: str, unit: Unit
) -> None:
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        client.hello()
        client.say_text(frame)
        assert client.close_code() == CLOSE_NOT_UNDERSTOOD
    until(lambda: not EdgeNode.objects.get().connected)


def test_a_node_that_does_not_say_hello_is_closed(console_url: str, unit: Unit) -> None:
    _, token = make_node(unit)
    with NodeClient(console_url, token.text) as client:
        assert client.close_code(timeout_s=8) == CLOSE_SILENT


def test_an_address_that_leads_nowhere_is_refused(console_url: str) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    for path in ("/nothing", "/live/nothing/"):
        with pytest.raises(InvalidStatus, match="403"):
            connect(console_url.replace("/control/", path), origin="http://127.0.0.1", proxy=None)


def test_a_publish_elsewhere_reaches_a_node_at_once_through_redis(
    consoles: Consoles, redis_url: str, unit: Unit, settings: object
) -> None:
    _, token = make_node(unit)
    url = consoles.start(redis_url)
    settings.CHANNEL_LAYERS = {  # type: ignore[attr-defined]
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [{"address": redis_url}], "prefix": "msha"},
        }
    }
    with NodeClient(url, token.text) as client:
        client.hello()
        client.status()
        client.ack(client.expect(wire.Deliver))
        client.status()
        time.sleep(0.2)  # let the console's own look of this second pass
        began = time.monotonic()
        publish_config(unit.namespace)
        delivery = client.expect(wire.Deliver)
        assert delivery.version == 2
        assert time.monotonic() - began < 0.5


def test_the_control_stream_goes_on_without_redis(consoles: Consoles, unit: Unit) -> None:
    (nobody_listens,) = free_ports(1)
    url = consoles.start(f"redis://127.0.0.1:{nobody_listens}/0")
    _, token = make_node(unit)
    with NodeClient(url, token.text) as client:
        client.hello()
        client.status()
        first = client.expect(wire.Deliver)
        client.ack(first)
        publish_config(unit.namespace)
        assert client.status(1, 1, first.digest).version == 2
        assert client.expect(wire.Deliver).version == 2
