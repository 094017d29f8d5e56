"""A worker's loop: one epoll, deadlines, and work put off to the next turn.

Nothing in a worker waits in the middle of something, so it has no use for coroutines, and an event loop that
serves them would be asked twice for each event.

Every socket is registered once, edge-triggered, for everything. RDHUP is part of that: a FIN that arrives
together with data makes no event of its own, and a short read looks like "nothing more for now".
"""

import heapq
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Protocol

import structlog

INPUT = select.EPOLLIN
READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITABLE = select.EPOLLOUT
HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
BROKEN = select.EPOLLERR
_EVERYTHING = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

#: How often deadlines are looked at; a deadline is late by at most this.
TICK_S = 0.1

#: Events taken from the kernel at once; the rest is taken in the loop's next turn, after other work.
_BATCH = 256

#: Deadlines of one kind that are met in one turn of the loop; thousands may be due at once.
_MET_PER_TURN = 100

log = structlog.get_logger("msha.edge")


class Abortable(Protocol):
    """Something that must not outlive an error of ours."""

    def abort(self) -> None:
        """Let go of everything now; called when one of the other calls has failed."""


class Endpoint(Abortable, Protocol):
    """What owns one or two registered sockets."""

    def on_event(self, descriptor: int, events: int) -> None:
        """React to what epoll says of one of the sockets; an event may be spurious."""


class Expiring(Abortable, Protocol):
    """What can have a deadline."""

    def on_deadline(self) -> None:
        """React to the time being over."""


class Patient(Abortable, Protocol):
    """What can put work off."""

    def on_turn(self) -> None:
        """Go on with it."""


class DeadlineQueue:
    """Endpoints that have the same time for the same thing; the one that began first is due first."""

    __slots__ = ("_due", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._due: dict[Expiring, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[Expiring]:
        return iter(self._due)

    def add(self, endpoint: Expiring) -> None:
        """Give the endpoint its full time from now on."""
        self._due.pop(endpoint, None)
        self._due[endpoint] = time.monotonic() + self.seconds

    def discard(self, endpoint: Expiring) -> None:
        """Take the endpoint out, if it is in."""
        self._due.pop(endpoint, None)

    def expired(self, now: float, limit: int = _MET_PER_TURN) -> list[Expiring]:
        """Take out and return those whose time is over, as many as the limit allows."""
        late = []
        for endpoint, due in islice(self._due.items(), limit):
            if due > now:
                break
            late.append(endpoint)
        for endpoint in late:
            del self._due[endpoint]
        return late


class _Bell:
    """Wakes a loop that waits; other threads and signal handlers ring it."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def on_event(self, descriptor: int, events: int) -> None:
        os.eventfd_read(descriptor)

    def abort(self) -> None:
        """Nothing to let go of."""


class Reactor:
    """Tells endpoints what happens on their sockets, fairly and in one thread: the one that runs it.

    Attributes:
        on_close: called with each descriptor that was watched and will be closed.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._endpoints: dict[int, Endpoint] = {}
        self._again: dict[Patient, None] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._in_batch = False
        self._closed: list[socket.SocketType] = []
        self._bell = _Bell()
        self._inner: dict[int, Endpoint] = {}
        self.watch_inner(self._bell.descriptor, self._bell)
        self.on_close: Callable[[int], None] | None = None
        self._queues: list[DeadlineQueue] = []
        self._on_tick: list[Callable[[float], None]] = []
        self._ended = False
        self._tick_due = time.monotonic() + TICK_S
        self._lag_s = 0.0

    def __len__(self) -> int:
        """How many sockets are registered."""
        return len(self._endpoints)

    def now(self) -> float:
        """Monotonic time."""
        return time.monotonic()

    def run(self) -> None:
        """Serve until :meth:`end`."""
        while not self._ended:
            self.turn()

    def end(self) -> None:
        """The loop runs no further; to be called in its thread."""
        self._ended = True

    def close_down(self) -> None:
        """Every endpoint is aborted, and nothing arrives any more."""
        self.abort_all()
        self._epoll.close()
        os.close(self._bell.descriptor)

    def turn(self) -> None:
        """Wait for what happens next or is due, and do all there is to do."""
        wait_s = 0.0 if self._again or self._calls else self._due() - time.monotonic()
        batch = self._epoll.poll(wait_s if wait_s > 0 else 0, _BATCH)
        if batch:
            self._hear(batch)
        if self._again:
            self._turns()
        if self._calls:
            self._call(len(self._calls))
        now = time.monotonic()
        if now >= self._due():
            self._clock(now)

    def call_soon(self, call: Callable[[], None]) -> None:
        """It is called in the next turn."""
        self._calls.append(call)

    def call_from_outside(self, call: Callable[[], None]) -> None:
        """The same, asked for by another thread or a signal handler."""
        self._calls.append(call)
        self._bell.ring()

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """It is called after so long."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), call))

    def abort_all(self) -> None:
        """Every endpoint lets go of its sockets."""
        for endpoint in set(self._endpoints.values()):
            endpoint.abort()

    def deadlines(self, seconds: float) -> DeadlineQueue:
        """A new queue that this reactor looks after."""
        queue = DeadlineQueue(seconds)
        self._queues.append(queue)
        return queue

    def every_tick(self, call: Callable[[float], None]) -> None:
        """Call it with the monotonic time at every tick."""
        self._on_tick.append(call)

    def take_lag(self) -> float:
        """How late the latest tick since the last call was, in seconds: so long nobody was served."""
        worst, self._lag_s = self._lag_s, 0.0
        return worst

    def watch(self, descriptor: int, endpoint: Endpoint) -> None:
        """The endpoint hears of the socket, first of what is ready already."""
        self._epoll.register(descriptor, _EVERYTHING)
        self._endpoints[descriptor] = endpoint

    def remind(self, descriptor: int) -> None:
        """The endpoint hears once more of what is ready; it will anyway if it is not watched yet."""
        if descriptor in self._endpoints:
            self._epoll.modify(descriptor, _EVERYTHING)

    def watch_level(self, descriptor: int, endpoint: Endpoint) -> None:
        """The same for a listener: again and again while connections wait."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._endpoints[descriptor] = endpoint

    def watch_inner(self, descriptor: int, endpoint: Endpoint) -> None:
        """The endpoint hears again and again while there is something to read; it is no connection."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._inner[descriptor] = endpoint

    def want_room(self, descriptor: int, *, wanted: bool) -> None:
        """An inner endpoint hears, or hears no more, when it can write."""
        self._epoll.modify(descriptor, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def leave_inner(self, descriptor: int) -> None:
        """An inner endpoint hears nothing any more."""
        del self._inner[descriptor]
        self._epoll.unregister(descriptor)

    def silence(self, descriptor: int, *, silent: bool) -> None:
        """A listener is not heard while silent; connections wait in its backlog."""
        self._epoll.modify(descriptor, 0 if silent else select.EPOLLIN)

    def endpoint_of(self, descriptor: int) -> Endpoint | None:
        """Who hears of the socket."""
        return self._endpoints.get(descriptor)

    def highest_descriptor(self) -> int:
        """Of all that are registered."""
        return max(self._endpoints, default=0)

    def hand_over(self, descriptor: int, endpoint: Endpoint) -> None:
        """Another endpoint hears of the socket from now on."""
        self._endpoints[descriptor] = endpoint

    def close(self, sock: socket.SocketType) -> None:
        """The socket is closed and nobody hears of it.

        While a batch of events is being handled its descriptor stays taken, so that a later event of the
        batch cannot be told to a new connection that happens to get the same number.
        """
        descriptor = sock.fileno()
        if self._endpoints.pop(descriptor, None) is None:
            sock.close()
            return
        if self.on_close is not None:
            self.on_close(descriptor)
        if self._in_batch:
            self._closed.append(sock)
        else:
            sock.close()

    def again(self, endpoint: Patient) -> None:
        """The endpoint gets another turn after the others had theirs; one, however often it asks.

        A session that floods in both directions asks twice in each turn. Twice as many turns for it each time
        would soon leave none to others.
        """
        self._again[endpoint] = None

    def again_in(self, endpoint: Patient, seconds: float) -> None:
        """The endpoint gets another turn a little later."""
        self.call_later(seconds, lambda: self.again(endpoint))

    def _hear(self, batch: list[tuple[int, int]]) -> None:
        endpoints = self._endpoints
        self._in_batch = True
        for descriptor, events in batch:
            endpoint = endpoints.get(descriptor)
            if endpoint is None:
                endpoint = self._inner.get(descriptor)
                if endpoint is None:
                    continue  # closed by an earlier event of this batch
            try:
                endpoint.on_event(descriptor, events)
            except Exception as error:  # noqa: BLE001  one connection dies of our error, no other
                self._failed(endpoint, error)
        self._in_batch = False
        for sock in self._closed:
            try:
                sock.close()
            except Exception:
                log.exception("connection_failed", endpoint=type(sock).__name__)
        self._closed.clear()

    def _turns(self) -> None:
        waiting, self._again = self._again, {}
        for endpoint in waiting:
            try:
                endpoint.on_turn()
            except Exception as error:  # noqa: BLE001  as above
                self._failed(endpoint, error)

    def _call(self, most: int) -> None:
        for _ in range(most):
            call = self._calls.popleft()
            try:
                call()
            except Exception:
                log.exception("call_failed")

    def _due(self) -> float:
        """When the clock has something to do."""
        later = self._later
        return later[0][0] if later and later[0][0] < self._tick_due else self._tick_due

    def _clock(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            self._calls.append(heapq.heappop(self._later)[2])
        if now >= self._tick_due:
            self._tick(now)

    def _tick(self, now: float) -> None:
        self._lag_s = max(self._lag_s, now - self._tick_due)
        self._tick_due = now + TICK_S
        self._expire(now)
        for call in self._on_tick:
            try:
                call(now)
            except Exception:
                log.exception("tick_failed")

    def _expire(self, now: float) -> None:
        """Meet the deadlines that are over, the rest of them after others had their turn."""
        more = False
        for queue in self._queues:
            late = queue.expired(now)
            for endpoint in late:
                try:
                    endpoint.on_deadline()
                except Exception as error:  # noqa: BLE001  as above
                    self._failed(endpoint, error)
            more = more or len(late) == _MET_PER_TURN
        if more:
            self.call_soon(lambda: self._expire(now))

    def _failed(self, endpoint: Abortable, error: Exception) -> None:
        log.error("connection_failed", endpoint=type(endpoint).__name__, exc_info=error)
        try:
            endpoint.abort()
        except Exception:  # the other events of the batch must be told, they will not come again
            log.exception("connection_failed", endpoint=type(endpoint).__name__)
