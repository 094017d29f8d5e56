"""The server shell: takes connections and keeps the books."""

import errno
import os
import resource
import socket
from collections.abc import Callable

import structlog

from msha.edge import farewell, handshake, shared_port
from msha.edge.access_log import AccessLog, Address, HandshakeRecord
from msha.edge.balancers import Balancers
from msha.edge.forwarded_opening import ForwardedOpening
from msha.edge.handshake import InvalidHead
from msha.edge.limits import Limits, Room
from msha.edge.opening import Opening
from msha.edge.peers import Downgrades, Peers, too_many_connections
from msha.edge.reactor import Reactor
from msha.edge.sessions import Sessions
from msha.edge.steering import Steering
from msha.edge.tunnel import Tunnel
from msha.edge.waiting import WaitingRoom

log = structlog.get_logger("msha.edge")

#: Connections taken in one turn of the loop; the others wait in the kernel.
_ACCEPTS_PER_TURN = 64

_BACKLOG = 4096

#: Addresses that have asked for nothing lately are forgotten so often (seconds).
_FORGET_EVERY_S = 1.0

#: The kernel tells us of a connection when its first bytes are there, or after about so long.
_DEFER_ACCEPT_S = 1

#: A client that vanished without a word is found after about two minutes.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class Shell:
    """One worker's listener and everything that came through it.

    Attributes:
        steering: decides what to do with a handshake.
        waiting: handshakes that are held.
        opened: called with each new session.
        peers: what each client address has.
        downgrades: who sends handshakes that lost their Upgrade.
        balancers: whose word on the client's address is believed; None: nobody's.
    """

    def __init__(
        self,
        reactor: Reactor,
        sessions: Sessions,
        steering: Steering,
        access_log: AccessLog,
        limits: Limits,
        balancers: Balancers | None = None,
    ) -> None:
        self.reactor = reactor
        self.sessions = sessions
        self.steering = steering
        self.waiting = WaitingRoom(reactor)
        self.log = access_log
        self.opened: Callable[[Tunnel], None] = _nothing
        self.peers = Peers(limits)
        self.downgrades = Downgrades(sessions)
        self.balancers = balancers
        self.head_deadlines = reactor.deadlines(limits.head_s)
        self.connect_deadlines = reactor.deadlines(limits.connect_s)
        self.linger_deadlines = reactor.deadlines(limits.linger_s)
        self._session_number = 0
        self._listener: socket.socket | None = None
        self._silent = False
        # limits
        room = Room.of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._connections_limit = min(limits.connections or room.connections, room.connections)
        self._spare_descriptors = room.spare
        self._reserve = -1
        self._forget_at = 0.0
        if self.peers.connections_limit:
            reactor.on_close = self.peers.release
        sessions.on_finished = self._session_finished
        reactor.every_tick(self._tick)

    @property
    def listening(self) -> bool:
        """Whether new connections are taken."""
        return self._listener is not None

    @property
    def connections(self) -> int:
        """How many sockets are open beside the listener, in whatever state."""
        return len(self.reactor) - self.listening

    def listen(self, host: str, port: int) -> int:
        """The port on which connections are taken from now on; other workers may share it.

        Raises:
            OSError: the address cannot be used.
        """
        if self._listener is None:
            listener = _listener(host, port)
            self._listener = listener
            self._silent = False
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self.reactor.watch_level(listener.fileno(), self)
        return int(self._listener.getsockname()[1])

    def stop_listening(self) -> None:
        """No further connection is taken. Those that the kernel has taken for us already are served."""
        if self._listener is not None:
            while self._accept_some():
                pass
            listener, self._listener = self._listener, None
            self.reactor.close(listener)
            if self._reserve >= 0:
                os.close(self._reserve)

    def run_dry(self) -> None:
        """The listener takes what is on its way to it and nothing new; somebody else listens on the port."""
        if self._listener is not None:
            try:
                shared_port.run_dry(self._listener)
            except OSError as error:
                log.warning("cannot_run_dry", error=str(error))

    def yield_to_others(self, closing: int) -> None:
        """New connections to the port go to others while the ``closing`` first of its listeners are closed.

        Each that is closed gives its number to the last one, so that the highest numbers are in use no more;
        those chosen here remain, whichever is closed first.
        """
        if self._listener is not None:
            host, port = self._listener.getsockname()[:2]
            there = shared_port.listeners()
            others = sum((each.host, each.port) == (host, port) for each in there) - closing
            self.prefer(closing, max(others - closing + 1, 1))

    def prefer(self, first: int, count: int) -> bool:
        """Whether new connections go to ``count`` listeners of the port after the ``first`` ones now.

        With a count of 0 they are spread over all.
        """
        if self._listener is None:
            return False
        try:
            if count:
                shared_port.prefer(self._listener, first, count)
            else:
                shared_port.prefer_none(self._listener)
        except OSError as error:
            log.warning("cannot_prefer_listeners", error=str(error))
            return False
        return True

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

    # As an endpoint of the reactor

    def on_event(self, descriptor: int, events: int) -> None:
        """Connections wait."""
        self._accept_some()

    def abort(self) -> None:
        """Go on listening after an error of ours with one connection."""

    def _accept_some(self) -> bool:
        """Whether more may be waiting."""
        listener = self._listener
        if listener is None:
            return False
        # What socket.accept() wraps: without its second object of Python, and its second call of the kernel.
        accept, family = listener._accept, listener.family  # type: ignore[attr-defined]
        balancers, near_a_limit = self.balancers, self._near_a_limit()
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                descriptor, address = accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == errno.EMFILE and self._turn_away_by_reserve():
                    continue
                self._accept_failed(error)
                return False
            client = socket.SocketType(family, socket.SOCK_STREAM, 0, descriptor)
            if balancers is None or address[0] not in balancers:
                opening = Opening(self, client, address)
            else:
                opening = ForwardedOpening(self, client, address)
            try:
                if near_a_limit and (excess := self._excess(address, opening)) is not None:
                    opening.turn_away(excess, patient=len(self.linger_deadlines) < self._spare_descriptors)
                else:
                    opening.begin()
            except Exception:
                log.exception("connection_failed", endpoint="Opening")
                opening.abort()
        return True

    def _near_a_limit(self) -> bool:
        """Whether a connection that is taken in this turn of the loop may be one too many."""
        peers = self.peers
        if peers.handshakes_limit:
            return True
        limit = peers.connections_limit
        lower = limit if 0 < limit < self._connections_limit else self._connections_limit
        return self.clients > lower - _ACCEPTS_PER_TURN

    @property
    def clients(self) -> int:
        """How many connections of clients there are."""
        sessions = self.sessions
        opening = len(self.head_deadlines) + len(sessions.half_open) + len(self.waiting)
        return len(sessions) + opening + len(self.linger_deadlines)

    def _excess(self, address: Address, opening: Opening) -> InvalidHead | None:
        """Why the connection is one too many, or None. A load balancer is many clients."""
        if self.clients >= self._connections_limit:
            return too_many_connections()
        if isinstance(opening, ForwardedOpening):
            return None
        return self.peers.excess(address[0], self.reactor.now())

    def _turn_away_by_reserve(self) -> bool:
        """Whether a connection for which there was no descriptor has been told so and is closed.

        It takes one that is kept for this; else it would wait in the kernel until its client gives up.
        """
        assert self._listener is not None
        if self._reserve < 0:
            return False
        os.close(self._reserve)
        try:
            client = self._listener.accept()[0]
        except OSError:
            client = None
        if client is not None:
            with client:
                farewell.bid_at_once(client, handshake.invalid(too_many_connections()))
            self.sessions.count("limited_descriptors")
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._reserve = -1  # somebody else took it: the listener falls silent for a while instead
        return client is not None

    def _accept_failed(self, error: OSError) -> None:
        """Out of memory or of descriptors, or the peer was gone already: look again at the next tick."""
        self.sessions.count("accept_failed")
        if isinstance(error, ConnectionError):
            return
        log.warning("accept_failed", error=str(error))
        if self._listener is not None:
            self._silent = True
            self.reactor.silence(self._listener.fileno(), silent=True)

    def _tick(self, now: float) -> None:
        if self._silent and self._listener is not None:
            self._silent = False
            self.reactor.silence(self._listener.fileno(), silent=False)
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_EVERY_S
            self.peers.forget(now)
        self.log.flush()

    def _session_finished(self, tunnel: Tunnel) -> None:
        self.log.session_end(tunnel)


def _listener(host: str, port: int) -> socket.socket:
    """A listening socket; what can be inherited by its connections is set here, once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_ACCEPT_S)
        for option, value in _KEEPALIVE:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _nothing(tunnel: Tunnel) -> None:
    """Nobody asked to be told."""
