"""Which sessions this worker has, by what they were opened for."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol

from msha.edge.reactor import Reactor
from msha.edge.session.closing import CLOSE_S, SERVICE_RESTART, Closing, Why
from msha.edge.session.tunnel import EndedBy, Tunnel
from msha.steering.decision import Tunnel as Decided

#: After one peer has ended, the other has so long.
END_S = 5.0

#: Upper bounds of the histogram of decisions.
DECISION_BOUNDS_S = (2.5e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2)

Tunnels = Tunnel | set[Tunnel]
_NOBODY = (None,)


class HalfOpen(Protocol):
    """A handshake whose back-source is being asked.

    Attributes:
        wish: the tunnel that was decided.
    """

    wish: Decided | None

    def decide_again(self) -> None:
        """Let go of the back-source, then decide anew."""

    def drop(self, reason: str) -> None:
        """Close the connection without an answer."""

    def abort(self) -> None:
        """Let go of everything now."""


class Sessions:
    """The registry: sessions by router id within their unit type, and half-open handshakes.

    Attributes:
        half_open: handshakes that have, or are getting, a back-source socket but no 101 yet.
        by_server: how many sessions each back-source server has.
        unsaid: messages of ours that wait for a place in the stream of a session: how many, and their frames.
        counters: numbers since the start, by name.
        answered: how many handshakes and plain requests were, by decision and reason.
        decision_buckets: how many decisions took at most as long as each of ``DECISION_BOUNDS_S``,
            but longer than the one before; the last are those that took longer than all.
        decision_s: how long all of them took together.
        ended: how many sessions are over, by who ended them and, if that was us, why.
        failures: how often a back-source server failed a handshake, by server.
        moved_up, moved_down: bytes relayed since the start, as :meth:`measure` found them last.
        on_removed: called with each session that is one no longer.
        on_finished: called with each session when its sockets are closed.
    """

    def __init__(self, reactor: Reactor, *, close_s: float = CLOSE_S, end_s: float = END_S) -> None:
        self.reactor = reactor
        self.half_open: dict[HalfOpen, None] = {}
        self.by_server: dict[str, int] = {}
        self.unsaid: dict[Tunnel, tuple[int, bytes]] = {}
        self.counters: dict[str, int] = {}
        self.answered: dict[tuple[str, str], int] = {}
        self.decision_buckets = [0] * (len(DECISION_BOUNDS_S) + 1)
        self.decision_s = 0.0
        self.ended: dict[tuple[str, str], int] = {}
        self.failures: dict[str, int] = {}
        self.moved_up = 0
        self.moved_down = 0
        self.on_removed: Callable[[Tunnel], None] = _nothing
        self.on_finished: Callable[[Tunnel], None] = _nothing
        self._by_type: dict[str, dict[int | None, Tunnels]] = {}
        self._count = 0
        self._closing = Closing(reactor, close_s)
        self._endings = reactor.deadlines(end_s)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Tunnel]:
        for by_id in self._by_type.values():
            for found in by_id.values():
                if isinstance(found, Tunnel):
                    yield found
                else:
                    yield from found

    def count(self, name: str, by: int = 1) -> None:
        """One more of something."""
        self.counters[name] = self.counters.get(name, 0) + by

    def decided(self, seconds: float) -> None:
        """A decision took so long."""
        self.decision_buckets[bisect_left(DECISION_BOUNDS_S, seconds)] += 1
        self.decision_s += seconds

    def add(self, tunnel: Tunnel) -> None:
        """A session has begun."""
        by_id = self._by_type.setdefault(tunnel.unit_type, {})
        found = by_id.get(tunnel.router_id)
        # A set takes 200 bytes and most ids have one session, so one stands there by itself.
        if found is None:
            by_id[tunnel.router_id] = tunnel
        elif isinstance(found, Tunnel):
            by_id[tunnel.router_id] = {found, tunnel}
        else:
            found.add(tunnel)
        self._count += 1
        self.by_server[tunnel.server] = self.by_server.get(tunnel.server, 0) + 1

    def remove(self, tunnel: Tunnel) -> None:
        """It is a session no longer; at most its client's end is still awaited."""
        by_id = self._by_type[tunnel.unit_type]
        found = by_id[tunnel.router_id]
        if isinstance(found, Tunnel):
            del by_id[tunnel.router_id]
        else:
            found.remove(tunnel)
            if not found:
                del by_id[tunnel.router_id]
        self._count -= 1
        left = self.by_server[tunnel.server] - 1
        if left:
            self.by_server[tunnel.server] = left
        else:
            del self.by_server[tunnel.server]
        self.on_removed(tunnel)

    def finished(self, tunnel: Tunnel) -> None:
        """Its sockets are closed."""
        self._closing.gone(tunnel)
        self._endings.discard(tunnel)
        if self.unsaid:
            self.lose_unsaid(tunnel)
        self.count("bytes_up", tunnel.bytes_up)
        self.count("bytes_down", tunnel.bytes_down)
        ended = (tunnel.ended_by or EndedBy.EDGE, tunnel.reason)
        self.ended[ended] = self.ended.get(ended, 0) + 1
        self.on_finished(tunnel)

    def failed(self, server: str) -> None:
        """A back-source server failed a handshake."""
        self.failures[server] = self.failures.get(server, 0) + 1

    def measure(self, *, open_ones: bool) -> None:
        """The bytes relayed are known, those of open sessions too if asked: 0.1 ms for each thousand.

        What is no session any more but not finished counts nowhere for up to a second. The numbers must not
        go down meanwhile: Prometheus would take that for a restart and count everything again.
        """
        up, down = self.counters.get("bytes_up", 0), self.counters.get("bytes_down", 0)
        if open_ones:
            for tunnel in self:
                up += tunnel.bytes_up
                down += tunnel.bytes_down
        self.moved_up, self.moved_down = max(self.moved_up, up), max(self.moved_down, down)

    def outside(self, served: Callable[[str], Iterable[tuple[int, int]]]) -> list[Tunnel]:
        """The tagged sessions whose ids are not served; 0.2 us for each id that has sessions.

        Args:
            served: of a unit type, ids as ``(start, end)``: half-open, ascending and disjoint.
        """
        chosen: list[Tunnel] = []
        for unit_type, by_id in self._by_type.items():
            bounds = list(chain.from_iterable(served(unit_type)))
            for router_id, found in by_id.items():
                # Between a start and its end there is an odd number of them below.
                if router_id is None or bisect_right(bounds, router_id) & 1:
                    continue
                if isinstance(found, Tunnel):
                    chosen.append(found)
                else:
                    chosen.extend(found)
        return chosen

    def counts(self, unit_type: str, ranges: Sequence[Sequence[int]]) -> list[int]:
        """How many sessions have an id in each of the ranges ``[first, last]``, ascending and disjoint."""
        place = _place_in(ranges)
        counts = [0] * len(ranges)
        for router_id, found in self._by_type.get(unit_type, {}).items():
            index = place(router_id)
            if index is not None:
                counts[index] += 1 if isinstance(found, Tunnel) else len(found)
        return counts

    def of_ranges(self, unit_type: str, ranges: Sequence[Sequence[int]] | None) -> Iterator[Tunnel | None]:
        """The sessions with an id in the ranges; None as ranges is every session of the unit type.

        Sessions may come and go meanwhile. An id that is looked at in vain yields None, so that whoever takes
        turns can count those, too.

        Args:
            ranges: as for :meth:`counts`.
        """
        by_id = self._by_type.get(unit_type, {})
        if ranges is not None and sum(last - first + 1 for first, last in ranges) <= len(by_id):
            for number in chain.from_iterable(range(first, last + 1) for first, last in ranges):
                yield from _each(by_id.get(number))
            return
        place = None if ranges is None else _place_in(ranges)
        for router_id in list(by_id):
            wanted = place is None or place(router_id) is not None
            yield from _each(by_id.get(router_id)) if wanted else _NOBODY

    @property
    def closes_some(self) -> bool:
        """Whether sessions are still to be closed that have not got their Close yet."""
        return self._closing.has_begun

    def lose_unsaid(self, tunnel: Tunnel) -> None:
        """What waits to be said in the session will not be."""
        count, _ = self.unsaid.pop(tunnel, (0, b""))
        if count:
            self.count("messages_lost", count)

    def close(self, tunnels: Iterable[Tunnel], why: Why, code: int = SERVICE_RESTART) -> None:
        """Sessions end by a Close with this code and what ``why`` says.

        A few get it now, many from the next turn on. In 1 s all are gone, whatever their peers do.
        """
        self._closing.begin(tunnels, why, code)

    def await_close(self, tunnel: Tunnel) -> None:
        """It got a Close; aborted if it is not gone in time."""
        self._endings.discard(tunnel)
        self._closing.closed(tunnel)

    def await_end(self, tunnel: Tunnel) -> None:
        """One peer has ended; aborted if the other does not end in time."""
        self._endings.add(tunnel)


def _place_in(ranges: Sequence[Sequence[int]]) -> Callable[[int | None], int | None]:
    """Says which of the ranges has an id, if one has; they are ascending and disjoint."""
    starts = [first for first, _ in ranges]

    def place(router_id: int | None) -> int | None:
        if router_id is None:
            return None
        index = bisect_right(starts, router_id) - 1
        return index if index >= 0 and router_id <= ranges[index][1] else None

    return place


def _each(found: Tunnels | None) -> Sequence[Tunnel | None]:
    """What is registered for an id, as it is now."""
    if found is None:
        return _NOBODY
    return (found,) if isinstance(found, Tunnel) else tuple(found)


def _nothing(tunnel: Tunnel) -> None:
    """Nobody asked to be told."""
