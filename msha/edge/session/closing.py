"""Ending many sessions by a Close, in time, and without making everybody else wait."""

from collections import deque
from collections.abc import Callable, Iterable

import structlog

from msha.edge.reactor import Reactor
from msha.edge.session.tunnel import Tunnel
from msha.edge.wire.frames import close_payload

#: "Service restart": the client should connect again. Never 1000, after which some do not.
SERVICE_RESTART = 1012

#: Sessions closed, or aborted, in one turn of the loop: so many, ...
CLOSED_PER_TURN = 100
#: ... or as many as can be within this time, on a slower machine.
_TURN_S = 0.003

#: Sessions that have their Close and whose peers' ends are awaited. Each end is up to four events: with
#: thousands of them at once everybody else would wait until all are through.
_CLOSING_AT_ONCE = 128

#: Peers that do not answer their Close must not keep others from getting theirs: so many get it anyway ...
_CLOSED_PER_S = 15_000
#: ... and, if they are more than that, all of them within this time. They are cut off as fast.
_CLOSED_WITHIN_S = 0.45

_PAUSE_S = 0.002

#: A turn may come so much before the time that it was asked for.
_EARLY_S = 0.0001

#: Peers have at least so long to answer, however many there are and however slow we are.
_ANSWER_S = 0.1

#: From being told to end, a session has so long. What is left of 1 s (PROTOCOL 5) is for us to be late in.
CLOSE_S = 0.9

#: Why a session ends, for its client and the log.
Why = Callable[[Tunnel], str]

log = structlog.get_logger("msha.edge")


class _Batch:
    """Sessions that were told to end at the same time.

    The last ones get their Close later than the first ones, and are cut off later by as much, so that all are
    given the same time to answer, and neither is done to all at once.

    Attributes:
        send_at, abort_at: when the next one should get its Close, and when it is cut off.
    """

    __slots__ = ("_step_s", "abort_at", "code", "left", "send_at", "why")

    def __init__(self, tunnels: deque[Tunnel], why: Why, code: int, now: float, close_s: float) -> None:
        spread_s = min(len(tunnels) / _CLOSED_PER_S, _CLOSED_WITHIN_S, close_s / 2)
        self.left = tunnels
        self.why = why
        self.code = code
        self.send_at = now
        self.abort_at = now + close_s - spread_s
        self._step_s = spread_s / len(tunnels)

    def take(self) -> Tunnel:
        """The next one."""
        self.send_at += self._step_s
        self.abort_at += self._step_s
        return self.left.popleft()


class Closing:
    """Sessions that are to end, from being told so until they are gone.

    Args:
        close_s: how long that may take.
    """

    def __init__(self, reactor: Reactor, close_s: float) -> None:
        self._reactor = reactor
        self._close_s = close_s
        self._batches: deque[_Batch] = deque()
        #: Those that have got their Close, and when they are cut off; the first of them is due first.
        self._due: dict[Tunnel, float] = {}
        self._last_due = 0.0
        self._wake_at = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether there are sessions that have not got their Close yet."""
        return bool(self._batches)

    def begin(self, tunnels: Iterable[Tunnel], why: Why, code: int) -> None:
        """They end: a few get their Close now, many from the next turn on."""
        told = deque(tunnels)
        if not told:
            return
        idle = not self._batches
        self._batches.append(_Batch(told, why, code, self._reactor.now(), self._close_s))
        if idle and len(self._batches[0].left) <= CLOSED_PER_TURN:
            self.on_turn()
        elif idle:
            self._reactor.again(self)  # whoever tells so many to end has used this turn up already

    def closed(self, tunnel: Tunnel) -> None:
        """It has got its Close."""
        self._due[tunnel] = self._last_due

    def gone(self, tunnel: Tunnel) -> None:
        """It has ended, however; or it was never to be closed."""
        self._due.pop(tunnel, None)

    def on_turn(self) -> None:
        """Close the next ones that are to be closed, and cut off those whose time is over."""
        now = self._reactor.now()
        until = now + _TURN_S
        self._cut_off(now, until)
        self._close(now, until)
        self._go_on()

    def abort(self) -> None:
        """Go on after an error of ours with one session."""
        self._go_on()

    def _close(self, now: float, until: float) -> None:
        room = _CLOSING_AT_ONCE - len(self._due)
        for number in range(CLOSED_PER_TURN):
            if not self._batches:
                return
            batch = self._batches[0]
            if (number >= room and batch.send_at > now) or self._reactor.now() > until:
                return
            # A batch that had to wait for another one is due after it.
            self._last_due = max(self._last_due, batch.abort_at, now + min(_ANSWER_S, self._close_s))
            tunnel = batch.take()
            if not batch.left:
                self._batches.popleft()
            try:
                reason = batch.why(tunnel)
                tunnel.close(close_payload(batch.code, reason), reason)
            except Exception:  # one session dies of our error, and all others get their Close
                log.exception("connection_failed", endpoint="Tunnel")
                tunnel.abort()

    def _cut_off(self, now: float, until: float) -> None:
        late: list[Tunnel] = []
        for tunnel, due in self._due.items():
            if due > now or len(late) == CLOSED_PER_TURN:
                break
            late.append(tunnel)
        for tunnel in late:
            if self._reactor.now() > until:
                return
            del self._due[tunnel]
            try:
                tunnel.on_deadline()
            except Exception:
                log.exception("connection_failed", endpoint="Tunnel")
                tunnel.abort()

    def _go_on(self) -> None:
        """Have another turn in time."""
        now = self._reactor.now()
        wake_at = next(iter(self._due.values()), float("inf"))
        if self._batches:
            wake_at = min(wake_at, max(self._batches[0].send_at, now + _PAUSE_S))
        if self._batches and self._batches[0].send_at <= now:
            wake_at = now
        if wake_at == float("inf") or now + _EARLY_S < self._wake_at <= wake_at:
            return  # there is nothing to do, or there will be a turn before it
        self._wake_at = wake_at
        if wake_at <= now:
            self._reactor.again(self)
        else:
            self._reactor.again_in(self, wake_at - now)
