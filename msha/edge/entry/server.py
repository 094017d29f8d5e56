"""The server shell: takes connections and keeps the books."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msha.edge.entry.access_log import AccessLog, Address, HandshakeRecord
from msha.edge.entry.back_sources import BackSources
from msha.edge.entry.forwarded_opening import ForwardedOpening
from msha.edge.entry.listener import ACCEPTS_PER_TURN, HTTP, Listener, Spoken
from msha.edge.entry.opening import Opening
from msha.edge.entry.peers import Downgrades, Peers, too_many_connections
from msha.edge.entry.steering import Steering
from msha.edge.entry.tls_opening import TlsPort
from msha.edge.entry.waiting import WaitingRoom
from msha.edge.limits import Limits, Room
from msha.edge.port.balancers import Balancers
from msha.edge.reactor import Reactor
from msha.edge.session.sessions import Sessions
from msha.edge.session.tunnel import Tunnel
from msha.edge.wire.handshake import InvalidHead
from msha.edge.wire.switches import Switches

#: Addresses that have asked for nothing lately are forgotten so often (seconds).
_FORGET_EVERY_S = 1.0


class Shell:
    """One worker's listeners and everything that came through them.

    Attributes:
        steering: decides what to do with a handshake.
        back_sources: which servers are asked, and in which order.
        switches: what back-sources' 101s are known to be.
        waiting: handshakes that are held.
        opened: called with each new session.
        peers: what each client address has.
        downgrades: who sends handshakes that lost their Upgrade.
        balancers: whose word on the client's address is believed; None: nobody's.
        tls: what a port that speaks TLS needs; None: there is none.
    """

    def __init__(
        self,
        reactor: Reactor,
        sessions: Sessions,
        steering: Steering,
        access_log: AccessLog,
        limits: Limits,
        balancers: Balancers | None = None,
        tls: TlsPort | None = None,
    ) -> None:
        self.reactor = reactor
        self.sessions = sessions
        self.steering = steering
        self.back_sources = BackSources(
            reactor, sessions, retry_s=limits.retry_s, reach_s=limits.reach_s, answer_s=limits.connect_s
        )
        self.switches = Switches()
        self.waiting = WaitingRoom(reactor)
        self.log = access_log
        self.opened: Callable[[Tunnel], None] = _nothing
        self.peers = Peers(limits)
        self.downgrades = Downgrades(sessions.count)
        self.balancers = balancers
        self.tls = tls
        self.head_deadlines = reactor.deadlines(limits.head_s)
        self.connect_deadlines = reactor.deadlines(limits.connect_s)
        self.reach_deadlines = reactor.deadlines(limits.reach_s)
        self.linger_deadlines = reactor.deadlines(limits.linger_s)
        self._session_number = 0
        self._listeners: dict[Spoken, Listener] = {}
        # limits
        room = Room.of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._connections_limit = min(limits.connections or room.connections, room.connections)
        self._spare_descriptors = room.spare
        self._room = 0
        self._reserve = -1
        self._forget_at = 0.0
        if self.peers.connections_limit:
            reactor.on_close = self.peers.release
        sessions.on_finished = self._session_finished
        reactor.every_tick(self._tick)

    @property
    def listening(self) -> bool:
        """Whether new connections are taken."""
        return bool(self._listeners)

    @property
    def connections(self) -> int:
        """How many sockets are open beside the listeners, in whatever state."""
        return len(self.reactor) - len(self._listeners)

    def listen(self, host: str, port: int, spoken: Spoken = HTTP) -> int:
        """The port on which connections are taken from now on; other workers may share it.

        Raises:
            OSError: the address cannot be used.
        """
        if spoken not in self._listeners:
            self._listeners[spoken] = Listener(self, host, port, spoken)
            if self._reserve < 0:
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return self._listeners[spoken].port

    def stop_listening(self) -> None:
        """No further connection is taken. Those that the kernel has taken for us already are served."""
        if not self._listeners:
            return
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        self.back_sources.rest()
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def drop_openings(self, reason: str) -> None:
        """No handshake that is under way opens a tunnel; whoever has sent half a head is under way, too."""
        for opening in [*self.sessions.half_open, *self.head_deadlines]:
            assert isinstance(opening, Opening)
            opening.drop(reason)

    def run_dry(self) -> None:
        """The listeners take what is on its way to them and nothing new; others listen on the ports."""
        for listener in self._listeners.values():
            listener.run_dry()

    def yield_to_others(self, closing: int) -> None:
        """New connections go to others while the ``closing`` first listeners of each port are closed."""
        for listener in self._listeners.values():
            listener.yield_to_others(closing)

    def prefer(self, first: int, count: int) -> bool:
        """Whether new connections go to ``count`` listeners of each port after the ``first`` ones now.

        With a count of 0 they are spread over all.
        """
        preferring = [listener.prefer(first, count) for listener in self._listeners.values()]
        return self.listening and all(preferring)

    def next_session_number(self) -> int:
        """A number that no other session of this worker has."""
        self._session_number += 1
        return self._session_number

    def account(self, record: HandshakeRecord) -> None:
        """A handshake has had its answer."""
        answered = self.sessions.answered
        pair = (record.decision, record.reason)
        answered[pair] = answered.get(pair, 0) + 1
        if record.decision != "http" or record.status >= 400:  # health checks would fill the log
            self.log.handshake(record)

    # Limits

    def near_a_limit(self) -> bool:
        """Whether a connection that is taken in this turn of the loop may be one too many.

        Connections only come by being taken, so after a count a number of turns can do without another.
        """
        self._room -= ACCEPTS_PER_TURN
        if self._room < 0:
            limit = self.peers.connections_limit
            lower = limit if 0 < limit < self._connections_limit else self._connections_limit
            self._room = lower - self.clients - ACCEPTS_PER_TURN
        return self._room < 0 or self.peers.handshakes_limit > 0

    @property
    def clients(self) -> int:
        """How many connections of clients there are."""
        sessions = self.sessions
        opening = len(self.head_deadlines) + len(sessions.half_open) + len(self.waiting)
        return len(sessions) + opening + len(self.linger_deadlines)

    @property
    def patient(self) -> bool:
        """Whether there are descriptors for clients that are turned away and take their time to close."""
        return len(self.linger_deadlines) < self._spare_descriptors

    def excess(self, address: Address, opening: Opening) -> InvalidHead | None:
        """Why the connection is one too many, or None. A load balancer is many clients."""
        if self._room < 0 and self.clients >= self._connections_limit:
            return too_many_connections()
        if isinstance(opening, ForwardedOpening):
            return None
        return self.peers.excess(address[0], self.reactor.now())

    @contextmanager
    def reserve(self) -> Iterator[bool]:
        """Whether there is one descriptor for the time being, which is kept for when there is no other."""
        if self._reserve < 0:
            yield False
            return
        os.close(self._reserve)
        try:
            yield True
        finally:
            try:
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._reserve = -1  # somebody else took it: the listener falls silent for a while instead

    def _tick(self, now: float) -> None:
        if self.back_sources.down and self._listeners:
            self.back_sources.probe(now)
        for listener in self._listeners.values():
            listener.listen_again()
        if self.tls is not None and self.tls.late:
            self.tls.finish_late()
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_EVERY_S
            self.peers.forget(now)
        self.log.flush()

    def _session_finished(self, tunnel: Tunnel) -> None:
        self.log.session_end(tunnel)


def _nothing(tunnel: Tunnel) -> None:
    """Nobody asked to be told."""
