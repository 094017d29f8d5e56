"""Closing many sessions at once, without making everybody else wait."""

import socket
import time
from collections.abc import Iterator

import pytest

from msha.edge.reactor import Reactor
from msha.edge.session.closing import CLOSED_PER_TURN, SERVICE_RESTART
from msha.edge.session.sessions import Sessions
from msha.edge.session.tunnel import Tunnel
from msha.edge.wire.frames import close_frame, close_payload

Peers = tuple[socket.socket, socket.socket]

CLOSE = close_frame(close_payload(SERVICE_RESTART, "moved to unbj"))


@pytest.fixture
def peers() -> Iterator[list[Peers]]:
    """The far ends of sessions, client's and back-source's."""
    ends: list[Peers] = []
    yield ends
    for pair in ends:
        for end in pair:
            end.close()


def open_sessions(count: int, peers: list[Peers], *, close_s: float = 60.0) -> Sessions:
    """So many sessions of a new reactor."""
    reactor = Reactor()
    sessions = Sessions(reactor, close_s=close_s)
    for number in range(count):
        client, ours = socket.socketpair()
        server, theirs = socket.socketpair()
        peers.append((client, server))
        near, far = (socket.SocketType(fileno=sock.detach()) for sock in (ours, theirs))
        near.setblocking(False)
        far.setblocking(False)
        tunnel = Tunnel(
            sessions, near, far, unit_type="u", router_id=number, server="s", number=number, label=""
        )
        sessions.add(tunnel)
        reactor.watch(near.fileno(), tunnel)
        reactor.watch(far.fileno(), tunnel)
    return sessions


def closing(sessions: Sessions) -> int:
    return sum(tunnel.closing for tunnel in sessions)


def test_peers_that_do_not_answer_keep_nobody_from_getting_a_close(peers: list[Peers]) -> None:
    sessions = open_sessions(600, peers)
    sessions.close(list(sessions), lambda tunnel: "moved to unbj")
    assert closing(sessions) == 0
    sessions.reactor.turn()
    assert 0 < closing(sessions) <= CLOSED_PER_TURN
    deadline = time.monotonic() + 5
    while closing(sessions) < 600:
        assert time.monotonic() < deadline
        sessions.reactor.turn()
    assert all(client.recv(100) == CLOSE for client, _ in peers)
    sessions.reactor.close_down()


def test_an_error_with_one_session_costs_no_other_its_close(peers: list[Peers]) -> None:
    def why(tunnel: Tunnel) -> str:
        if tunnel.number in (3, 99):
            raise RuntimeError("an error of ours")
        return "moved to unbj"

    sessions = open_sessions(300, peers)
    sessions.close(list(sessions), why)
    deadline = time.monotonic() + 5
    while closing(sessions) < 298:
        assert time.monotonic() < deadline
        sessions.reactor.turn()
    assert len(sessions) == 298
    assert not sessions.closes_some
    for number, (client, server) in enumerate(peers):
        client.settimeout(1)
        assert client.recv(100) == (b"" if number in (3, 99) else CLOSE)
        if number in (3, 99):
            assert server.recv(100) == b""
    sessions.reactor.close_down()


def test_the_sessions_outside_of_what_is_served_are_found(peers: list[Peers]) -> None:
    sessions = open_sessions(12, peers)
    by_id = {tunnel.router_id: tunnel for tunnel in sessions}
    untagged = by_id[11]
    sessions.remove(untagged)
    untagged.router_id = None
    sessions.add(untagged)
    found = sessions.outside(lambda unit_type: [(1, 4), (4, 6), (8, 9)] if unit_type == "u" else [])
    assert sorted(tunnel.router_id or 0 for tunnel in found) == [0, 6, 7, 9, 10]
    assert len(sessions.outside(lambda unit_type: [])) == 11
    sessions.reactor.close_down()
