"""Sessions in which nothing moves: asked by a ping whether their client is there, and closed in the end.

Nothing is done for a chunk and little is kept for a session: a walk over the descriptors, some in each tick,
compares the bytes that every session has moved with what the last walk found.
"""

import math
from array import array

from msha.edge.limits import Limits
from msha.edge.reactor import TICK_S, Reactor
from msha.edge.session.sessions import Sessions
from msha.edge.session.tunnel import Tunnel

#: "Going away": what servers say that give a silent connection up. Clients connect again, as after 1012.
GOING_AWAY = 1001

#: A walk takes this part of the idle time, and of the time between pings, ...
_IDLE_PART, _PING_PART = 16, 4
#: ... but no longer than so many seconds.
_LONGEST_WALK_S = 30.0


class IdleWatch:
    """Looks after the sessions of a worker.

    Without pings a session is idle while nothing moves in either direction. With pings it is idle while its
    client says nothing: whoever is there answers (RFC 6455 5.5.2).
    """

    def __init__(self, reactor: Reactor, sessions: Sessions, limits: Limits) -> None:
        self._reactor = reactor
        self._sessions = sessions
        self._idle_s, self._ping_s = limits.idle_s, limits.ping_s
        parts = [limits.idle_s / _IDLE_PART] if limits.idle_s else []
        parts += [limits.ping_s / _PING_PART] if limits.ping_s else []
        self._ticks = max(math.floor(min([*parts, _LONGEST_WALK_S]) / TICK_S), 1)
        #: Both times in walks. Two looks may be up to a walk nearer to each other than a walk takes.
        self._idle_walks = self._walks(limits.idle_s) + 1
        self._ping_walks = self._walks(limits.ping_s)
        # this walk
        self._walk = 0
        self._tick_of_walk = 0
        self._next = self._highest = 0
        # by descriptor of the client: what had moved at the last look, and in which walk that was first seen
        self._moved = array("Q")
        self._since = array("I")
        if parts:
            reactor.every_tick(self._tick)

    def _walks(self, seconds: float) -> int:
        return math.ceil(seconds / (self._ticks * TICK_S))

    def _tick(self, now: float) -> None:
        """Look at the next descriptors."""
        if self._tick_of_walk == 0:
            self._walk += 1
            self._next, self._highest = 0, self._reactor.highest_descriptor()
            missing = self._highest + 1 - len(self._moved)
            if missing > 0:
                self._moved.extend([0] * missing)
                self._since.extend([self._walk] * missing)
        self._tick_of_walk = (self._tick_of_walk + 1) % self._ticks
        # All of it comes to its turn in the last tick at the latest.
        end = self._highest + 1 if self._tick_of_walk == 0 else self._next + self._share
        endpoint_of = self._reactor.endpoint_of
        idle = []
        for descriptor in range(self._next, min(end, self._highest + 1)):
            endpoint = endpoint_of(descriptor)
            if type(endpoint) is not Tunnel or endpoint.client_descriptor != descriptor:
                continue
            if self._look(descriptor, endpoint, now):
                idle.append(endpoint)
        self._next = end
        if idle:
            self._sessions.count("limited_idle", len(idle))
            self._sessions.close(idle, lambda _: "idle", GOING_AWAY)

    @property
    def _share(self) -> int:
        """How many descriptors there are for each tick of a walk."""
        return self._highest // self._ticks + 1

    def _look(self, descriptor: int, tunnel: Tunnel, now: float) -> bool:
        """Whether the session has been idle for too long; its client is sent a ping when that is due."""
        moved = tunnel.bytes_up if self._ping_s else tunnel.bytes_up + tunnel.bytes_down
        if moved != self._moved[descriptor]:
            self._moved[descriptor] = moved
            self._since[descriptor] = self._walk
            return False
        # The number may be that of an earlier session on this descriptor.
        age_s = now - tunnel.opened_at
        quiet = min(self._walk - self._since[descriptor], int(age_s / (self._ticks * TICK_S)))
        if self._idle_s and quiet >= self._idle_walks and not tunnel.closing:
            return True
        if self._ping_s and quiet and quiet % self._ping_walks == 0 and tunnel.ping():
            self._sessions.count("pings")
        return False
