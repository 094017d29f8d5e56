"""Ending many sessions in time: the plan by a clock of the test's own, and real silent peers."""

import heapq
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest

from msha.edge.reactor import Patient, Reactor
from msha.edge.session.closing import CLOSE_S, SERVICE_RESTART, Closing
from msha.edge.session.sessions import Sessions
from msha.edge.session.tunnel import Tunnel
from tests.edge.test_sessions import Peers, open_sessions

#: What PROTOCOL 5 gives the sessions of frozen ids.
GONE_WITHIN_S = 1.0


class Clock:
    """A reactor whose time passes only by work and by waiting."""

    def __init__(self) -> None:
        self.time = 0.0
        self.longest_turn_s = 0.0
        self._later: list[tuple[float, int, Patient]] = []

    def now(self) -> float:
        return self.time

    def again(self, endpoint: Patient) -> None:
        self.again_in(endpoint, 0.0)

    def again_in(self, endpoint: Patient, seconds: float) -> None:
        heapq.heappush(self._later, (self.time + seconds, len(self._later), endpoint))

    def run(self) -> None:
        """Until nobody wants another turn."""
        while self._later:
            due, _, endpoint = heapq.heappop(self._later)
            began = self.time = max(self.time, due)
            endpoint.on_turn()
            self.longest_turn_s = max(self.longest_turn_s, self.time - began)


class Peerless:
    """A session whose peers say nothing, or answer their Close after a time."""

    def __init__(self, scene: "Scene") -> None:
        self._scene = scene
        self.closed_at = self.gone_at = -1.0
        self.aborted = False

    def close(self, payload: bytes, reason: str) -> None:
        scene = self._scene
        scene.clock.time += scene.cost_s
        self.closed_at = scene.clock.now()
        scene.closing.closed(cast(Tunnel, self))
        if scene.answer_s is not None:
            scene.clock.again_in(cast(Any, self), scene.answer_s)

    def on_turn(self) -> None:
        """Its peers have answered."""
        self._gone()

    def on_deadline(self) -> None:
        self.aborted = True
        self._gone()

    def _gone(self) -> None:
        if self.gone_at < 0:
            self._scene.clock.time += self._scene.cost_s
            self.gone_at = self._scene.clock.now()
            self._scene.closing.gone(cast(Tunnel, self))


class Scene:
    """So many sessions, each of which costs so much to close and so much to end."""

    def __init__(self, count: int, *, cost_s: float, answer_s: float | None = None) -> None:
        self.clock = Clock()
        self.cost_s = cost_s
        self.answer_s = answer_s
        self.closing = Closing(cast(Reactor, self.clock), CLOSE_S)
        self.sessions = [Peerless(self) for _ in range(count)]

    def end(self) -> None:
        self.closing.begin(cast(list[Tunnel], self.sessions), lambda _: "moved", SERVICE_RESTART)
        self.clock.run()


@pytest.mark.parametrize("count", [1, 2, 128, 129, 1_000, 9_000])
@pytest.mark.parametrize("cost_s", [5e-6, 20e-6, 40e-6])
def test_silent_sessions_are_gone_in_time_however_many_there_are(count: int, cost_s: float) -> None:
    scene = Scene(count, cost_s=cost_s)
    scene.end()
    assert all(session.aborted for session in scene.sessions)
    assert all(0 <= session.closed_at < 0.5 for session in scene.sessions)
    assert max(session.gone_at for session in scene.sessions) < GONE_WITHIN_S
    assert scene.clock.longest_turn_s < 0.004
    assert not scene.closing.has_begun


def test_every_silent_session_is_given_about_the_same_time_to_answer() -> None:
    scene = Scene(9_000, cost_s=20e-6)
    scene.end()
    times = [session.gone_at - session.closed_at for session in scene.sessions]
    assert min(times) > 0.35


def test_a_single_session_has_all_the_time() -> None:
    scene = Scene(1, cost_s=20e-6)
    scene.end()
    assert scene.sessions[0].gone_at - scene.sessions[0].closed_at == pytest.approx(CLOSE_S, abs=0.01)


def test_sessions_whose_peers_answer_are_never_cut_off() -> None:
    scene = Scene(9_000, cost_s=20e-6, answer_s=0.05)
    scene.end()
    assert not any(session.aborted for session in scene.sessions)
    assert max(session.gone_at for session in scene.sessions) < GONE_WITHIN_S


def test_a_second_batch_is_gone_in_time_as_well() -> None:
    scene = Scene(4_000, cost_s=20e-6)
    first, second = scene.sessions[:2_000], scene.sessions[2_000:]
    scene.closing.begin(cast(list[Tunnel], first), lambda _: "moved", SERVICE_RESTART)
    scene.closing.begin(cast(list[Tunnel], second), lambda _: "restarting", SERVICE_RESTART)
    scene.clock.run()
    assert max(session.gone_at for session in scene.sessions) < GONE_WITHIN_S


def test_sessions_on_a_machine_that_is_too_slow_have_a_moment_to_answer_all_the_same() -> None:
    scene = Scene(9_000, cost_s=200e-6)
    scene.end()
    assert min(session.gone_at - session.closed_at for session in scene.sessions) > 0.09
    assert scene.clock.longest_turn_s < 0.004


def test_an_error_with_one_session_that_is_cut_off_keeps_no_other() -> None:
    scene = Scene(300, cost_s=20e-6)
    broken = scene.sessions[7]

    def fail() -> None:
        raise RuntimeError("an error of ours")

    broken.on_deadline = fail  # type: ignore[method-assign]
    broken.abort = broken._gone  # type: ignore[attr-defined]
    scene.end()
    assert all(session.gone_at > 0 for session in scene.sessions)


# Real peers


@contextmanager
def many_descriptors() -> Iterator[int]:
    """How many may be open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield before[1] % (1 << 63)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def kept_waiting_s() -> float:
    """How long this thread could have run so far, but others had the processor."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def run_until(reactor: Reactor, fact: Callable[[], bool], seconds: float) -> float:
    """How long it takes until the fact, but for the time that the machine had none for us."""
    began, waited_s = time.monotonic(), kept_waiting_s()
    while not fact():
        assert time.monotonic() < began + seconds
        reactor.turn()
    return time.monotonic() - began - (kept_waiting_s() - waited_s)


@pytest.fixture
def peers() -> Iterator[list[Peers]]:
    """The far ends of sessions, client's and back-source's."""
    ends: list[Peers] = []
    yield ends
    for end in chain.from_iterable(ends):
        end.close()


def test_thousands_of_real_sessions_with_silent_peers_are_gone_within_a_second(peers: list[Peers]) -> None:
    with many_descriptors() as descriptors:
        count = min(4_000, (descriptors - 500) // 4)
        sessions = open_sessions(count, peers, close_s=CLOSE_S)
        sessions.close(list(sessions), lambda _: "moved to unbj")
        took_s = run_until(sessions.reactor, lambda: not sessions, 30)
        sessions.reactor.close_down()
    assert sessions.counters["close_aborted"] == count
    assert took_s < GONE_WITHIN_S


def test_an_ended_session_is_forgotten_by_those_that_close(peers: list[Peers]) -> None:
    sessions: Sessions = open_sessions(3, peers, close_s=10)
    sessions.close(list(sessions), lambda _: "moved to unbj")
    for _, server in peers:
        server.shutdown(socket.SHUT_RDWR)
    run_until(sessions.reactor, lambda: not sessions, 5)
    assert "close_aborted" not in sessions.counters
    sessions.reactor.close_down()
