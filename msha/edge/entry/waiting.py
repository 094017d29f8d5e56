"""Held handshakes, each waiting for the next snapshot or for its time to be over."""

from collections import deque
from typing import Protocol

import structlog

from msha.edge.reactor import Reactor

#: Held handshakes that are decided anew, or end, in one turn of the loop.
_WOKEN_PER_TURN = 100

log = structlog.get_logger("msha.edge")


class Held(Protocol):
    """A handshake that can wait."""

    def decide_held(self) -> None:
        """Decide again: the snapshot has changed."""

    def hold_over(self) -> None:
        """End without an answer."""

    def abort(self) -> None:
        """Let go of everything now."""


class WaitingRoom:
    """Whom to tell of the next snapshot."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._until: dict[Held, float] = {}
        self._to_wake: deque[Held] = deque()
        self._over: deque[Held] = deque()
        reactor.every_tick(self._expire)

    def __len__(self) -> int:
        return len(self._until)

    def hold(self, handshake: Held, until: float) -> None:
        """The handshake hears of the next snapshot, or that the monotonic time ``until`` has come."""
        self._until[handshake] = until

    def leave(self, handshake: Held) -> None:
        """The handshake has ended otherwise."""
        self._until.pop(handshake, None)

    def wake(self) -> None:
        """Everybody here now decides again, some in each turn of the loop."""
        idle = not self._to_wake
        self._to_wake.extend(self._until)
        if idle and self._to_wake:
            self._reactor.again(self)

    def empty(self) -> None:
        """Everybody's time is over, and nobody decides again before the end."""
        self._to_wake.clear()
        self._over.extend(self._until)
        self.abort()

    def on_turn(self) -> None:
        """Wake the next ones, and end the next ones whose time is over."""
        for waiting, call in ((self._to_wake, _decide), (self._over, _end)):
            for _ in range(min(_WOKEN_PER_TURN, len(waiting))):
                handshake = waiting.popleft()
                if self._until.pop(handshake, None) is not None:
                    try:
                        call(handshake)
                    except Exception:
                        log.exception("connection_failed", endpoint=type(handshake).__name__)
                        handshake.abort()
        self.abort()

    def abort(self) -> None:
        """Go on, also after an error of ours."""
        if self._to_wake or self._over:
            self._reactor.again(self)

    def _expire(self, now: float) -> None:
        if not self._over:  # else they are being seen to
            self._over.extend(handshake for handshake, until in self._until.items() if until <= now)
            self.abort()


def _decide(handshake: Held) -> None:
    handshake.decide_held()


def _end(handshake: Held) -> None:
    handshake.hold_over()
