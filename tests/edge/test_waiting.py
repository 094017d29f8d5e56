"""The waiting room with handshakes that only remember."""

import time
from collections import Counter

from msha.edge.entry.waiting import WaitingRoom
from msha.edge.reactor import Reactor
from tests.edge.test_reactor import Stage, run


class Handshake:
    """Counts what it is told, and when."""

    def __init__(self, told: list[tuple[str, int]], turn: list[int]) -> None:
        self._told = told
        self._turn = turn

    def decide_held(self) -> None:
        """Remember it."""
        self._told.append(("decided", self._turn[0]))

    def hold_over(self) -> None:
        """Remember it."""
        self._told.append(("over", self._turn[0]))

    def abort(self) -> None:
        """Remember it."""
        self._told.append(("aborted", self._turn[0]))


def told_in_the_end(reactor: Reactor, told: list[tuple[str, int]], turn: list[int], count: int) -> None:
    """So many are told something before the deadline."""
    deadline = time.monotonic() + 5
    while len(told) < count:
        assert time.monotonic() < deadline, f"only {len(told)} were told"
        turn[0] += 1
        reactor.turn()


def test_thousands_whose_time_is_over_at_once_leave_turns_to_others() -> None:
    def scene(reactor: Stage) -> None:
        told: list[tuple[str, int]] = []
        turn = [0]
        room = WaitingRoom(reactor)
        for _ in range(1000):
            room.hold(Handshake(told, turn), time.monotonic() + 0.05)
        told_in_the_end(reactor, told, turn, 1000)
        assert {what for what, _ in told} == {"over"}
        assert max(Counter(when for _, when in told).values()) <= 100
        assert len(room) == 0
        reactor.run_for(0.25)
        assert len(told) == 1000

    run(scene)


def test_whoever_is_sent_away_does_not_decide_any_more() -> None:
    def scene(reactor: Stage) -> None:
        told: list[tuple[str, int]] = []
        turn = [0]
        room = WaitingRoom(reactor)
        for _ in range(250):
            room.hold(Handshake(told, turn), time.monotonic() + 5)
        room.wake()
        room.empty()
        told_in_the_end(reactor, told, turn, 250)
        assert {what for what, _ in told} == {"over"}

    run(scene)


def test_whoever_leaves_meanwhile_is_told_nothing() -> None:
    def scene(reactor: Stage) -> None:
        told: list[tuple[str, int]] = []
        turn = [0]
        room = WaitingRoom(reactor)
        handshakes = [Handshake(told, turn) for _ in range(250)]
        for handshake in handshakes:
            room.hold(handshake, time.monotonic() + 5)
        room.empty()
        room.leave(handshakes[-1])
        told_in_the_end(reactor, told, turn, 249)
        reactor.run_for(0.05)
        assert len(told) == 249

    run(scene)
