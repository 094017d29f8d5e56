"""Which back-sources a worker holds for down, whom it asks then, and how they come up again."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from select import select
from typing import Any

import pytest

from msha.edge.entry import asking
from msha.edge.entry.back_sources import FAILURES_LIMIT
from tests.edge.test_opening import closed_port
from tests.support.edge_worker import QUICK, EdgeWorker, make_config, make_rule
from tests.support.switching_server import SwitchingServer, switching_server
from tests.support.websocket_wire import TIMEOUT_S, BackSource, Client, handshake_head

#: A server that is down is tried again soon, ...
SOON = replace(QUICK, reach_s=0.3, retry_s=0.2)
#: ... or not before the test is over.
LATE = replace(SOON, retry_s=20)


class Mortal(BackSource):
    """A back-source that can stop listening and listen again."""

    def __init__(self) -> None:
        super().__init__()
        self._address = f"127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def address(self) -> str:
        return self._address

    def die(self) -> None:
        """Whoever connects now is refused."""
        self.listener.close()

    def rise(self) -> None:
        """It listens again."""
        self.listener = listening_on(self._address)


def worker_of(limits: Any) -> Iterator[EdgeWorker]:
    worker = EdgeWorker(limits=limits).start()
    try:
        yield worker
    finally:
        worker.stop()


@pytest.fixture
def soon() -> Iterator[EdgeWorker]:
    """A worker that tries servers again soon."""
    yield from worker_of(SOON)


@pytest.fixture
def late() -> Iterator[EdgeWorker]:
    """A worker that does not."""
    yield from worker_of(LATE)


@pytest.fixture
def more() -> Iterator[Callable[[], Mortal]]:
    """Makes back-sources, as many as the test wants."""
    with contextlib.ExitStack() as stack:

        def make() -> Mortal:
            return stack.enter_context(contextlib.closing(Mortal()))

        yield make


def serve(worker: EdgeWorker, servers: Sequence[str], balance: str = "round_robin") -> None:
    """The worker serves its unit by these servers."""
    worker.apply(make_config({"center": list(servers), "unbj": []}, balance=balance), make_rule())
    worker.listen()


def ask(worker: EdgeWorker, back_sources: Sequence[BackSource] = (), router_id: int | None = 5) -> int:
    """The status that one client gets; whichever of the back-sources is asked answers 101."""
    with worker.connect() as client:
        client.send(handshake_head(router_id=router_id))
        client.sock.settimeout(0.02)
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            for back_source in back_sources:
                if select([back_source.listener], [], [], 0.01)[0]:
                    back_source.take().switch()
            with contextlib.suppress(TimeoutError):
                return client.answer().status
    raise AssertionError("no answer")


def down(worker: EdgeWorker, *servers: str) -> bool:
    """Whether exactly these servers are said to be down, soon."""
    worker.agent.stats(lambda said: said["down"] == sorted(servers))
    return True


def failures(worker: EdgeWorker) -> dict[str, int]:
    """How often which server failed, so far."""
    worker.agent.say("report", id=(number := time.monotonic_ns()))
    return dict(worker.agent.stats(lambda said: said["report"] == number)["tally"]["failures"])


def listening_on(address: str) -> socket.socket:
    """Somebody listens there again."""
    host, _, port = address.rpartition(":")
    sock = socket.create_server((host, int(port)))
    sock.settimeout(TIMEOUT_S)
    return sock


@contextlib.contextmanager
def swallowing() -> Iterator[str]:
    """The address of a server whose queue is full, so that the kernel ignores who wants to connect."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        time.sleep(0.05)
        yield f"127.0.0.1:{address[1]}"


# Going down


def test_a_server_that_refuses_connections_is_soon_asked_last(
    late: EdgeWorker, back_source: BackSource
) -> None:
    dead = closed_port()
    serve(late, [dead, back_source.address])
    for _ in range(10):
        assert ask(late, [back_source]) == 101
    assert down(late, dead)
    assert failures(late) == {dead: FAILURES_LIMIT}
    assert late.agent.stats()["counters"]["back_source_down"] == 1


def test_a_server_that_takes_connections_but_gives_no_answer_is_soon_asked_last(
    late: EdgeWorker, back_source: BackSource, more: Callable[[], Mortal]
) -> None:
    hung = more()
    serve(late, [hung.address, back_source.address])
    began = time.monotonic()
    for _ in range(12):
        assert ask(late, [back_source]) == 101
    assert down(late, hung.address)
    assert failures(late) == {hung.address: FAILURES_LIMIT}
    assert time.monotonic() - began < (FAILURES_LIMIT + 2) * SOON.connect_s


def test_a_host_that_swallows_connections_is_passed_over_before_the_time_for_an_answer_is_over(
    back_source: BackSource,
) -> None:
    with swallowing() as silent:
        for worker in worker_of(replace(LATE, connect_s=60)):
            serve(worker, [silent, back_source.address])
            for _ in range(2 * FAILURES_LIMIT + 4):
                assert ask(worker, [back_source]) == 101
            assert down(worker, silent)
            assert failures(worker) == {silent: FAILURES_LIMIT}


def test_the_last_server_has_the_whole_time_to_take_a_connection(late: EdgeWorker) -> None:
    with swallowing() as silent:
        serve(late, [silent])
        began = time.monotonic()
        assert ask(late) == 504
        assert time.monotonic() - began >= LATE.connect_s


def test_a_client_is_not_sent_to_one_server_after_the_other_for_ever(
    late: EdgeWorker, more: Callable[[], Mortal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_FAILING_S", 0.1)
    hung = [more() for _ in range(3)]
    serve(late, [server.address for server in hung])
    assert ask(late) == 504
    assert [server.idle() for server in hung] == [False, False, True]


@pytest.mark.parametrize("status", [200, 403, 503])
def test_an_http_answer_is_no_failure(late: EdgeWorker, back_source: BackSource, status: int) -> None:
    serve(late, [back_source.address, closed_port()], "consistent_hash")
    router_id = next(number for number in range(100) if first_of(late, number) == back_source.address)
    for _ in range(FAILURES_LIMIT + 1):
        with late.connect() as client:
            client.send(handshake_head(router_id=router_id))
            back_source.take().send(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
            assert client.answer().status == status
    assert failures(late) == {}
    assert down(late)


def first_of(worker: EdgeWorker, router_id: int) -> str:
    """The server that the snapshot prefers for an id."""
    assert worker.worker is not None
    snapshot = worker.worker.steering.snapshot
    assert snapshot is not None
    route = snapshot.hosts["websocket.test"][0].route("center", "/")
    assert route is not None
    return route.preference(router_id)[0]


def test_an_answer_between_failures_starts_the_row_again(
    late: EdgeWorker, more: Callable[[], Mortal]
) -> None:
    server = more()
    serve(late, [server.address])
    for _ in range(2):
        server.die()
        for _ in range(FAILURES_LIMIT - 1):
            assert ask(late) == 502
        server.rise()
        assert ask(late, [server]) == 101
    assert failures(late) == {server.address: 2 * (FAILURES_LIMIT - 1)}
    assert "back_source_down" not in late.agent.stats()["counters"]


def test_a_request_that_no_server_answers_says_nothing_of_the_servers(
    late: EdgeWorker, more: Callable[[], Mortal]
) -> None:
    servers = [more(), more()]
    serve(late, [server.address for server in servers])
    for turn in range(2 * FAILURES_LIMIT):
        with late.connect() as client:
            client.send(handshake_head(router_id=5, extra="X-Poison: 1\r\n"))
            for number in (turn, turn + 1):
                servers[number % 2].take().close()
            assert client.answer().status == 502
    assert sum(failures(late).values()) == 4 * FAILURES_LIMIT
    assert down(late)


# Who is asked meanwhile


def test_nobody_is_refused_because_every_server_is_down(late: EdgeWorker) -> None:
    dead = [closed_port(), closed_port()]
    serve(late, dead)
    for _ in range(FAILURES_LIMIT + 2):
        assert ask(late) == 502
    assert down(late, *dead)
    assert failures(late) == dict.fromkeys(dead, FAILURES_LIMIT + 2)


def test_a_server_that_is_down_is_asked_when_the_others_fail_and_is_up_if_it_answers(
    late: EdgeWorker, more: Callable[[], Mortal]
) -> None:
    first, second = more(), more()
    second.die()
    serve(late, [first.address, second.address])
    for _ in range(2 * FAILURES_LIMIT):
        assert ask(late, [first]) == 101
    assert down(late, second.address)
    first.die()
    second.rise()
    assert ask(late, [second]) == 101
    assert down(late)


def test_only_the_ids_of_a_server_that_is_down_move_and_they_come_back(
    soon: EdgeWorker, more: Callable[[], Mortal]
) -> None:
    servers = [more() for _ in range(3)]
    serve(soon, [server.address for server in servers], "consistent_hash")
    assert soon.worker is not None
    order, snapshot = soon.worker.shell.back_sources.order, soon.worker.steering.snapshot
    assert snapshot is not None
    route = snapshot.hosts["websocket.test"][0].route("center", "/")
    assert route is not None
    before = {router_id: route.preference(router_id) for router_id in range(200)}
    dead = servers[1]
    dead.die()
    theirs = [router_id for router_id, servers_of in before.items() if servers_of[0] == dead.address]
    for router_id in theirs[:FAILURES_LIMIT]:
        assert ask(soon, [servers[0], servers[2]], router_id) == 101
    assert down(soon, dead.address)
    for router_id, preferred in before.items():
        others = [server for server in preferred if server != dead.address]
        assert list(order(route, router_id)) == [*others, dead.address]
    dead.rise()
    assert down(soon)
    assert {router_id: order(route, router_id) for router_id in range(200)} == before


def test_the_share_of_a_server_that_is_down_is_spread_evenly(
    late: EdgeWorker, more: Callable[[], Mortal]
) -> None:
    servers = [more() for _ in range(4)]
    servers[1].die()
    serve(late, [server.address for server in servers])
    rest = [servers[0], servers[2], servers[3]]
    while not late.worker or not late.worker.shell.back_sources.down:
        assert ask(late, rest) == 101
    before = [len(server.taken) for server in rest]
    for _ in range(9):
        assert ask(late, rest) == 101
    assert [len(server.taken) - taken for server, taken in zip(rest, before, strict=True)] == [3, 3, 3]


# Coming up


def test_a_server_that_could_not_be_reached_is_up_when_it_takes_a_connection_and_no_client_is_needed(
    soon: EdgeWorker, back_source: BackSource
) -> None:
    dead = closed_port()
    serve(soon, [dead, back_source.address])
    while ask(soon, [back_source]) == 101 and failures(soon)[dead] < FAILURES_LIMIT:
        pass
    assert down(soon, dead)
    with contextlib.closing(listening_on(dead)) as again:
        probe, _ = again.accept()
        with probe:
            probe.settimeout(TIMEOUT_S)
            assert probe.recv(1) == b""  # it says nothing, and makes no session
        assert down(soon)
        assert soon.agent.stats()["counters"]["back_source_up"] == 1


def test_the_time_between_tries_grows(soon: EdgeWorker, back_source: BackSource) -> None:
    with swallowing() as silent:
        serve(soon, [silent, back_source.address])
        while ask(soon, [back_source]) == 101 and failures(soon)[silent] < FAILURES_LIMIT:
            pass
        assert down(soon, silent)
        assert soon.worker is not None
        trouble = soon.worker.shell.back_sources._known[silent]
        deadline = time.monotonic() + TIMEOUT_S
        while trouble.wait_s < 4 * SOON.retry_s:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert down(soon, silent)


def test_no_client_waits_for_a_server_that_could_not_be_reached_while_it_is_tried(
    soon: EdgeWorker, back_source: BackSource
) -> None:
    with swallowing() as silent:
        serve(soon, [silent, back_source.address])
        while not soon.worker or not soon.worker.shell.back_sources.down:
            assert ask(soon, [back_source]) == 101
        until = time.monotonic() + 4 * SOON.retry_s
        while time.monotonic() < until:
            assert ask(soon, [back_source]) == 101
        assert failures(soon) == {silent: FAILURES_LIMIT}


def test_handshakes_that_were_under_way_when_a_server_went_down_do_not_put_off_its_try(
    late: EdgeWorker, back_source: BackSource, more: Callable[[], Mortal]
) -> None:
    hung = more()
    serve(late, [hung.address, back_source.address])
    clients = [late.connect() for _ in range(8 * FAILURES_LIMIT)]
    for client in clients:
        client.send(handshake_head(router_id=5))
    for _ in clients:
        back_source.take().switch()
    assert [client.answer().status for client in clients] == [101] * len(clients)
    assert failures(late)[hung.address] == 4 * FAILURES_LIMIT
    assert late.worker is not None
    trouble = late.worker.shell.back_sources._known[hung.address]
    assert trouble.wait_s == LATE.retry_s


def test_one_handshake_at_a_time_is_tried_on_a_server_that_gave_no_answer(
    soon: EdgeWorker, back_source: BackSource, more: Callable[[], Mortal]
) -> None:
    hung = more()
    serve(soon, [hung.address, back_source.address])
    while not soon.worker or not soon.worker.shell.back_sources.down:
        assert ask(soon, [back_source]) == 101
    for _ in range(FAILURES_LIMIT):
        hung.take()
    time.sleep(SOON.retry_s * 1.5)
    assert hung.idle(), "a connection proves nothing of a server that takes connections"
    first, *others = [soon.connect() for _ in range(4)]
    for client in (first, *others):
        client.send(handshake_head(router_id=5))
    trial = hung.take()
    for _ in others:
        back_source.take().switch()
    assert [client.answer().status for client in others] == [101] * 3
    assert hung.idle()
    trial.switch()
    assert first.answer().status == 101
    assert down(soon)


def test_a_client_on_trial_is_served_by_another_server_if_it_fails(
    soon: EdgeWorker, back_source: BackSource, more: Callable[[], Mortal]
) -> None:
    hung = more()
    serve(soon, [hung.address, back_source.address])
    while not soon.worker or not soon.worker.shell.back_sources.down:
        assert ask(soon, [back_source]) == 101
    time.sleep(SOON.retry_s * 1.5)
    known = failures(soon)[hung.address]
    assert ask(soon, [back_source]) == 101
    assert ask(soon, [back_source]) == 101
    assert failures(soon)[hung.address] == known + 1, "the next one waits for its time"


def test_a_client_that_leaves_while_on_trial_leaves_the_server_to_another(
    soon: EdgeWorker, back_source: BackSource, more: Callable[[], Mortal]
) -> None:
    hung = more()
    serve(soon, [hung.address, back_source.address])
    while not soon.worker or not soon.worker.shell.back_sources.down:
        assert ask(soon, [back_source]) == 101
    for _ in range(FAILURES_LIMIT):
        hung.take()
    time.sleep(SOON.retry_s * 1.5)
    with soon.connect() as client:
        client.send(handshake_head(router_id=5))
        hung.take()
    deadline = time.monotonic() + TIMEOUT_S
    while soon.worker.shell.back_sources.down:
        assert time.monotonic() < deadline
        assert ask(soon, [back_source, hung]) == 101


# Snapshots and ends


def test_a_mark_survives_a_snapshot_that_keeps_the_server_and_no_other(
    late: EdgeWorker, back_source: BackSource
) -> None:
    dead = closed_port()
    serve(late, [dead, back_source.address])
    while not late.worker or not late.worker.shell.back_sources.down:
        assert ask(late, [back_source]) == 101
    late.apply(make_config({"center": [back_source.address, dead, "127.0.0.1:9"]}), make_rule())
    assert down(late, dead)
    late.apply(make_config({"center": [back_source.address]}), make_rule())
    assert down(late)
    late.apply(make_config({"center": [back_source.address, dead]}), make_rule())
    assert down(late)


def test_a_probe_does_not_hold_up_a_drain(back_source: BackSource) -> None:
    with swallowing() as silent:
        for worker in worker_of(replace(SOON, reach_s=TIMEOUT_S * 2, connect_s=0.3)):
            serve(worker, [silent, back_source.address])
            assert worker.worker is not None
            shell = worker.worker.shell
            for _ in range(FAILURES_LIMIT):
                shell.back_sources.failed(silent, "test", reached=False)
            deadline = time.monotonic() + TIMEOUT_S
            while not shell.connections:
                assert time.monotonic() < deadline, "no probe"
                time.sleep(0.01)
            worker.agent.say("drain", seconds=0)
            worker.agent.hear("empty")


# Under load


@pytest.fixture
def three() -> Iterator[list[SwitchingServer]]:
    """Three back-sources in processes of their own."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(switching_server()) for _ in range(3)]


@pytest.mark.parametrize("balance", ["consistent_hash", "round_robin", "least_sessions"])
def test_when_one_of_three_dies_under_load_every_client_is_served(
    soon: EdgeWorker, three: list[SwitchingServer], balance: str
) -> None:
    serve(soon, [server.address for server in three], balance)
    statuses: list[int | str] = []
    killed = threading.Event()

    def connect(first: int) -> None:
        for number in range(60):
            if number == 20 and first == 0:
                three[1].kill()
                killed.set()
            try:
                with Client.connect(soon.port) as client:
                    statuses.append(client.ask(handshake_head(router_id=first * 60 + number)).status)
            except (OSError, EOFError) as error:
                statuses.append(repr(error))

    clients = [threading.Thread(target=connect, args=(first,)) for first in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert killed.is_set()
    assert statuses == [101] * (8 * 60)
    assert down(soon, three[1].address)
    assert set(failures(soon)) == {three[1].address}
