"""The reactor with real sockets and endpoints that only remember."""

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from msha.edge.reactor import INPUT, DeadlineQueue, Reactor


class Memory:
    """An endpoint that remembers what it was told, and does what the test says on its first event."""

    def __init__(self, react: Callable[[], object] = lambda: None) -> None:
        self.events: list[int] = []
        self.late = 0
        self.turns = 0
        self.aborted = False
        self._react: Callable[[], object] | None = react

    def on_event(self, descriptor: int, events: int) -> None:
        """Remember it."""
        self.events.append(events)
        react, self._react = self._react, None
        if react is not None:
            react()

    def on_deadline(self) -> None:
        """Remember it."""
        self.late += 1

    def on_turn(self) -> None:
        """Remember it."""
        self.turns += 1

    def abort(self) -> None:
        """Remember it."""
        self.aborted = True


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Makes connected sockets."""
    made: list[socket.socket] = []

    def make() -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        for sock in pair:
            sock.setblocking(False)
        made.extend(pair)
        return pair

    yield make
    for sock in made:
        sock.close()


class Stage(Reactor):
    """A reactor that a scene runs for as long as it wants."""

    def run_for(self, seconds: float) -> None:
        """Take turns for so long."""
        until = self.now() + seconds
        while self.now() < until:
            self.call_later(until - self.now(), int)  # a turn ends then, if nothing happens
            self.turn()


def run(scene: Callable[[Stage], None]) -> None:
    """The scene, with a reactor."""
    reactor = Stage()
    try:
        scene(reactor)
    finally:
        reactor.close_down()


Pairs = Callable[[], tuple[socket.socket, socket.socket]]


def test_an_event_of_a_closed_socket_is_not_told_to_its_successor(pairs: Pairs) -> None:
    def scene(reactor: Stage) -> None:
        ends = [pairs() for _ in range(2)]
        successor = Memory()

        def replace(closed: int) -> Callable[[], None]:
            def react() -> None:
                reactor.close(ends[closed][0])
                successors = pairs()
                reactor.watch(successors[0].fileno(), successor)

            return react

        memories = [Memory(replace(1)), Memory(replace(0))]
        for (ours, _), memory in zip(ends, memories, strict=True):
            reactor.watch(ours.fileno(), memory)
        for _, theirs in ends:
            theirs.send(b"x")  # both events are in one batch
        reactor.run_for(0.05)
        assert sum(bool(memory.events) for memory in memories) == 1
        assert successor.events
        assert not any(events & INPUT for events in successor.events)

    run(scene)


def test_an_error_of_ours_costs_one_connection(pairs: Pairs) -> None:
    def fail() -> None:
        raise RuntimeError("an error of ours")

    def scene(reactor: Stage) -> None:
        bad, good = Memory(fail), Memory()
        for memory in (bad, good):
            ours, theirs = pairs()
            reactor.watch(ours.fileno(), memory)
            theirs.send(b"x")
        reactor.run_for(0.05)
        assert bad.aborted
        assert good.events
        assert not good.aborted

    run(scene)


def test_an_error_while_letting_go_does_not_cost_the_others_their_events(pairs: Pairs) -> None:
    class Stubborn(Memory):
        def on_event(self, descriptor: int, events: int) -> None:
            raise RuntimeError("an error of ours")

        def abort(self) -> None:
            raise RuntimeError("another one")

    def scene(reactor: Stage) -> None:
        memories = [Stubborn(), Memory(), Memory()]
        kept = []
        for memory in memories:
            ours, theirs = pairs()
            reactor.watch(ours.fileno(), memory)
            theirs.send(b"x")
            kept.append(theirs)
        reactor.run_for(0.05)
        assert all(any(events & INPUT for events in memory.events) for memory in memories[1:])
        memories[0].__class__ = Memory

    run(scene)


def test_an_error_while_a_socket_is_closed_does_not_end_the_loop(pairs: Pairs) -> None:
    class Unclosable(socket.SocketType):
        def close(self) -> None:
            super().close()
            raise RuntimeError("an error of ours")

    def scene(reactor: Stage) -> None:
        (ours, theirs), (other, _) = pairs(), pairs()
        bad = Unclosable(ours.family, ours.type, 0, ours.detach())
        reactor.watch(other.fileno(), Memory())
        memory = Memory(lambda: (reactor.close(bad), reactor.close(other)))
        reactor.watch(bad.fileno(), memory)
        theirs.send(b"x")
        reactor.run_for(0.05)
        assert bad.fileno() == other.fileno() == -1
        assert len(reactor) == 0

    run(scene)


def test_an_error_in_a_tick_does_not_cost_the_others_theirs() -> None:
    def scene(reactor: Stage) -> None:
        def fail(now: float) -> None:
            raise RuntimeError("an error of ours")

        seen: list[float] = []
        reactor.every_tick(fail)
        reactor.every_tick(seen.append)
        reactor.run_for(0.35)
        assert len(seen) >= 2

    run(scene)


def test_thousands_of_deadlines_at_once_leave_turns_to_others() -> None:
    met: list[int] = []
    turn = 0

    class Late(Memory):
        def on_deadline(self) -> None:
            met.append(turn)

    def scene(reactor: Stage) -> None:
        nonlocal turn
        queue = reactor.deadlines(0.05)
        for _ in range(1000):
            queue.add(Late())
        while len(met) < 1000 and turn < 1000:
            turn += 1
            reactor.turn()
        assert len(met) == 1000
        assert max(Counter(met).values()) <= 200  # some of them at a tick in the same turn

    run(scene)


def test_an_error_in_a_deadline_does_not_stop_the_clock() -> None:
    class Failing(Memory):
        def on_deadline(self) -> None:
            raise RuntimeError("an error of ours")

    def scene(reactor: Stage) -> None:
        queue = reactor.deadlines(0.05)
        failing, good = Failing(), Memory()
        queue.add(failing)
        queue.add(good)
        reactor.run_for(0.3)
        assert failing.aborted
        assert good.late == 1
        queue.add(good)
        reactor.run_for(0.3)
        assert good.late == 2

    run(scene)


def test_a_deadline_that_was_taken_back_or_set_anew_does_not_come_early() -> None:
    queue = DeadlineQueue(10)
    first, second, third = Memory(), Memory(), Memory()
    for memory in (first, second, third):
        queue.add(memory)
    queue.add(first)
    queue.discard(second)
    queue.discard(second)
    assert queue.expired(0) == []
    assert queue.expired(float("inf")) == [third, first]
    assert len(queue) == 0


def test_work_put_off_is_done_after_what_waits(pairs: Pairs) -> None:
    def scene(reactor: Stage) -> None:
        ours, theirs = pairs()
        other = Memory()
        reactor.watch(ours.fileno(), other)
        reactor.run_for(0.01)
        other.events.clear()

        class Busy(Memory):
            def on_turn(self) -> None:
                self.turns += 1
                if not other.events and self.turns < 1000:
                    reactor.again(self)

        busy = Busy()
        reactor.again(busy)
        theirs.send(b"x")
        reactor.run_for(0.1)
        assert other.events
        assert busy.turns < 1000

    run(scene)


def test_who_asks_for_several_turns_gets_one(pairs: Pairs) -> None:
    def scene(reactor: Stage) -> None:
        class Greedy(Memory):
            def on_turn(self) -> None:
                self.turns += 1
                if self.turns < 5:
                    reactor.again(self)
                    reactor.again(self)

        greedy = Greedy()
        reactor.again(greedy)
        reactor.run_for(0.05)
        assert greedy.turns == 5

    run(scene)


def test_a_loop_that_was_busy_says_for_how_long_and_only_once() -> None:
    def scene(reactor: Stage) -> None:
        reactor.run_for(0.25)
        reactor.take_lag()
        time.sleep(0.3)
        reactor.run_for(0.15)
        assert 0.15 < reactor.take_lag() < 0.6
        assert reactor.take_lag() == 0.0

    run(scene)


def test_stopping_aborts_every_endpoint_once(pairs: Pairs) -> None:
    memory = Memory()

    def scene(reactor: Stage) -> None:
        for sock in pairs():
            reactor.watch(sock.fileno(), memory)

    run(scene)
    assert memory.aborted
