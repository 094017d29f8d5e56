"""A drain: sessions end within a time, by themselves or by a Close."""

import math
from collections import deque

from msha.edge.session.sessions import Sessions
from msha.edge.session.tunnel import Tunnel

#: Sessions end by themselves for this part of the time, ...
_PATIENT_PART = 0.5
#: ... the rest is closed evenly until this part, and what remains is left to the peers' own ends.
_CLOSED_PART = 0.9


class Drain:
    """A plan for ending sessions within a time.

    It is asked at every tick, for a day if need be, so it goes through the sessions once, when the first of
    them are to be closed; and again at the end, for those that opened meanwhile.
    """

    def __init__(self, now: float, seconds: float, sessions: Sessions) -> None:
        self.patient_until = now + seconds * _PATIENT_PART
        self.closed_at = now + seconds * _CLOSED_PART
        self.over_at = now + max(seconds, 0.0)
        self._sessions = sessions
        self._plan: deque[Tunnel] | None = None
        self._planned = 0

    def due(self, now: float) -> list[Tunnel]:
        """Which sessions should be closed now."""
        if now < self.patient_until:
            return []
        if now >= self.closed_at:
            self._plan = None
            if self._sessions.closes_some:
                return []  # all that there were a moment ago
            return [tunnel for tunnel in self._sessions if not tunnel.closing]
        if self._plan is None:
            self._plan = deque(self._sessions)
            self._planned = len(self._plan)
        part = (now - self.patient_until) / (self.closed_at - self.patient_until)
        left = self._planned - math.ceil(self._planned * part)
        due = [self._plan.popleft() for _ in range(len(self._plan) - left)]
        return [tunnel for tunnel in due if not tunnel.closing]
