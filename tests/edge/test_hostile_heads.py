"""Heads that are as long as they may be, and made of what must be looked at one by one."""

import gc
import time
import tracemalloc
from contextlib import suppress

import pytest

from msha.edge.entry import plain_http
from msha.edge.entry.steering import Steering
from msha.edge.wire import handshake
from msha.edge.wire.handshake import HEAD_LIMIT_BYTES, InvalidHead
from msha.steering.decision import Tunnel, decide
from msha.steering.snapshot import load
from tests.support.edge_worker import make_config, make_rule, make_snapshot
from tests.support.websocket_wire import handshake_head

STEERING = Steering("center", hold_s=5.0)
STEERING.snapshot = load(make_snapshot(1, make_config({"center": ["127.0.0.1:9"]}), make_rule()).body)


def filled(head: bytes, unit: str) -> bytes:
    """The head with its ``@`` replaced by as many of the units as may be."""
    room = HEAD_LIMIT_BYTES - len(head) + 1
    return head.replace(b"@", (unit * (room // len(unit))).encode())


def upgraded(field: str, value: str) -> bytes:
    """A handshake that has more to say in one of its fields."""
    head = handshake_head(router_id=1111)
    return head.replace(f"{field}: ".encode(), f"{field}: {value}, ".encode())


def locating(query: str) -> bytes:
    return f"GET /.well-known/msha/locate?{query} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode()


HOSTILE = {
    "encoded names in the query": filled(handshake_head(target="/?@"), "%&"),
    "encoded routerIds": filled(handshake_head(target="/?@"), "%72outerId=1&"),
    "one routerId": filled(handshake_head(target="/?routerId=@"), "%31"),
    "ampersands": filled(handshake_head(target="/?@"), "&"),
    "versions": filled(handshake_head(target="/?@"), "msha-version=1&"),
    "cookies": filled(handshake_head(extra="Cookie: @\r\n"), ";"),
    "connections": filled(upgraded("Connection", "@"), ","),
    "named fields": filled(upgraded("Connection", "@"), "a ,"),
    "upgrades": filled(upgraded("Upgrade", "@"), ","),
    "segments": filled(handshake_head(target="/@"), "a/"),
    "host": filled(handshake_head(host="@"), "a."),
    "fields": filled(handshake_head(extra="@"), "a:\r\n"),
    "parameters to locate": filled(locating("host=websocket.test&routerId=1&@"), "&%"),
    "a host to locate": filled(locating("host=@"), "%41"),
}


def answer(data: bytes) -> None:
    """All that is made of a head before its answer goes out."""
    assert STEERING.snapshot is not None
    with suppress(InvalidHead):
        end = handshake.head_end(data)
        assert end is not None
        head = handshake.parse_request(data[:end])
        if not handshake.asks_for_websocket(head):
            plain_http.answer(STEERING, head)
            return
        decision = decide(STEERING.snapshot, STEERING.unit, head)
        if isinstance(decision, Tunnel):
            handshake.back_source_request(head, decision.target, "127.0.0.1", ())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_long_head_stops_nobody_for_long(name: str) -> None:
    assert len(HOSTILE[name]) > HEAD_LIMIT_BYTES - 20
    best_s = 1.0
    for _ in range(5):
        began = time.process_time()
        answer(HOSTILE[name])
        best_s = min(best_s, time.process_time() - began)
    assert best_s < 0.003  # it was up to 18 ms


def test_long_names_leave_nothing_behind() -> None:
    def names(number: int) -> None:
        answer(handshake_head(host=f"{number:05}" + "a" * 8_000))
        answer(handshake_head(router_id=1111, extra=f"{number:05}{'a' * 8_000}: x\r\n"))

    names(0)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1, 1_100):
            names(number)
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 1_000_000  # it was 21 MB


def test_whoever_invents_names_does_not_make_those_of_others_dearer() -> None:
    for number in range(2_000):
        answer(handshake_head(router_id=1111, extra=f"invented-{number}: x\r\n"))
    plain = handshake_head(router_id=1111, extra="User-Agent: a\r\nOrigin: b\r\nCookie: c\r\n")
    head = handshake.parse_request(plain)
    handshake.back_source_request(head, "/", "127.0.0.1", ())
    assert all(name in handshake._GOES_UP for name, _ in head.sent)
