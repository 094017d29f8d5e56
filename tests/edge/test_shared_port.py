import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from msha.edge.port import shared_port
from msha.edge.port.shared_port import Listener


@pytest.fixture
def port() -> Iterator[list[socket.socket]]:
    """Four listeners of one port, in the order in which they joined it."""
    with ExitStack() as stack:
        made: list[socket.socket] = []
        for _ in range(4):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(made[0].getsockname() if made else ("127.0.0.1", 0))
            listener.listen(512)
            listener.setblocking(False)
            made.append(listener)
        yield made


def counts(listeners: list[socket.socket], connects: int = 100) -> list[int]:
    """How many of new connections each listener got."""
    address = listeners[0].getsockname()
    clients = [socket.create_connection(address, timeout=5) for _ in range(connects)]
    found = []
    for listener in listeners:
        found.append(0)
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
            found[-1] += 1
    for client in clients:
        client.close()
    return found


def test_new_connections_go_to_those_that_joined_last_until_they_are_spread_again(
    port: list[socket.socket],
) -> None:
    shared_port.prefer(port[3], 2, 2)
    first, second, third, fourth = counts(port)
    assert (first, second, third + fourth) == (0, 0, 100)
    assert min(third, fourth) > 20
    shared_port.prefer_none(port[2])
    assert all(counts(port))
    shared_port.prefer_none(port[2])  # a second time there is nothing to detach


def test_what_the_closing_listeners_prefer_stays_valid_while_they_close(port: list[socket.socket]) -> None:
    shared_port.prefer(port[0], 2, 1)
    port[1].close()
    left = [port[0], port[2], port[3]]
    assert counts(left)[0] == 0
    port[0].close()
    assert sum(counts(port[2:])) == 100


def test_a_listener_that_runs_dry_gets_nothing_new_and_keeps_what_it_has(port: list[socket.socket]) -> None:
    address = port[0].getsockname()
    for listener in port[1:]:
        listener.close()
    with socket.create_connection(address, timeout=5) as before, socket.socket() as after:
        shared_port.run_dry(port[0])
        after.settimeout(0.3)
        with pytest.raises(TimeoutError):
            after.connect(address)
        taken, _ = port[0].accept()
        with taken:
            before.sendall(b"still here")
            taken.settimeout(5)
            assert taken.recv(100) == b"still here"
        with pytest.raises(BlockingIOError):
            port[0].accept()


def test_listeners_are_known_by_address_and_owner() -> None:
    mine = shared_port.sockets_of(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as four, socket.socket(socket.AF_INET6) as six:
        six.bind(("::1", 0))
        six.listen()
        new = shared_port.sockets_of(os.getpid()) - mine
        found = {(it.host, it.port) for it in shared_port.listeners() if it.inode in new}
        assert found == {four.getsockname()[:2], six.getsockname()[:2]}


@pytest.mark.parametrize(
    ("host", "asked", "answers"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("::", "127.0.0.1", True),
    ],
)
def test_a_listener_answers_for_its_address_and_one_on_every_address_for_all(
    host: str, asked: str, answers: bool
) -> None:
    assert Listener(host, 80, 1).answers_for(asked, 80) is answers
    assert not Listener(host, 80, 1).answers_for(asked, 81)
