"""A listener to which more connections come than it can take."""

import select
import time
from collections.abc import Iterator

import pytest

from msha.edge.entry.access_log import NoAccessLog
from msha.edge.entry.forwarded_opening import ForwardedOpening
from msha.edge.entry.listener import Listener, Spoken
from msha.edge.entry.opening import Opening
from msha.edge.entry.server import Shell
from msha.edge.entry.steering import Steering
from msha.edge.reactor import Reactor
from msha.edge.session.sessions import Sessions
from tests.support.edge_worker import QUICK
from tests.support.websocket_wire import Client


class Slow(Opening):
    """Takes its time, which nobody else has meanwhile."""

    __slots__ = ()
    seconds = 0.0
    begun = 0

    def begin(self) -> None:
        """Take it, and end."""
        type(self).begun += 1
        time.sleep(self.seconds)
        self.abort()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """One that listens in this thread."""
    reactor = Reactor()
    steering = Steering("center", hold_s=QUICK.hold_s)
    shell = Shell(reactor, Sessions(reactor), steering, NoAccessLog(), QUICK)
    Slow.begun = 0
    listener = Listener(shell, "127.0.0.1", 0, Spoken(Slow, ForwardedOpening))
    yield listener
    listener.close()
    reactor.close_down()


def connect(listener: Listener, count: int) -> list[Client]:
    """Clients that wait to be taken."""
    clients = [Client.connect(listener.port) for _ in range(count)]
    for client in clients:
        client.send(b"G")
    assert listener._sock is not None
    assert select.select([listener._sock], [], [], 5)[0]
    time.sleep(0.1)
    return clients


def test_connections_that_take_long_are_taken_a_few_at_a_time(listener: Listener) -> None:
    Slow.seconds = 0.005
    clients = connect(listener, 40)
    listener.on_event(0, 0)
    assert 1 <= Slow.begun <= 4
    listener.close()
    assert Slow.begun == 40
    for client in clients:
        client.close()


def test_a_listener_closes_however_many_wait(listener: Listener) -> None:
    Slow.seconds = 0.1
    clients = connect(listener, 40)
    began = time.monotonic()
    listener.close()
    assert time.monotonic() - began < 2.5
    assert 1 <= Slow.begun < 40
    for client in clients:
        client.close()
