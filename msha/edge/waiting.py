"""Held handshakes, each waiting for the next snapshot or for its time to be over."""

from collections import deque
from typing import Protocol

import structlog

from msha.edge.reactor import Reactor

#: Held handshakes that are decided anew in one turn of the loop.
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
        """Everybody's time is over."""
        self._expire(float("inf"))

    def on_turn(self) -> None:
        """Wake the next ones."""
        for _ in range(min(_WOKEN_PER_TURN, len(self._to_wake))):
            handshake = self._to_wake.popleft()
            if self._until.pop(handshake, None) is not None:
                try:
                    handshake.decide_held()
                except Exception:
                    log.exception("connection_failed", endpoint=type(handshake).__name__)
                    handshake.abort()
        if self._to_wake:
            self._reactor.again(self)

    def abort(self) -> None:
        """Go on after an error of ours."""
        if self._to_wake:
            self._reactor.again(self)

    def _expire(self, now: float) -> None:
        for handshake in [handshake for handshake, until in self._until.items() if until <= now]:
            del self._until[handshake]
            handshake.hold_over()
