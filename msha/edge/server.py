"""The server shell: takes connections and keeps the books."""

import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from msha.edge import shared_port
from msha.edge.access_log import AccessLog, HandshakeRecord
from msha.edge.opening import Opening
from msha.edge.reactor import Reactor
from msha.edge.sessions import Sessions
from msha.edge.steering import Steering
from msha.edge.tunnel import Tunnel
from msha.edge.waiting import WaitingRoom

log = structlog.get_logger("msha.edge")

#: Connections taken in one turn of the loop; the others wait in the kernel.
_ACCEPTS_PER_TURN = 64

_BACKLOG = 4096

#: The kernel tells us of a connection when its first bytes are there, or after about so long.
_DEFER_ACCEPT_S = 1

#: A client that vanished without a word is found after about two minutes.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a peer may take; seconds.

    Attributes:
        head_s: a client, for its request head.
        connect_s: a back-source, from the connect to its whole answer; then the next one is asked.
        linger_s: a client, to close after an answer.
        close_s: both, to end a session after a Close of ours.
        end_s: a peer, to end a session after the other did.
        hold_s: a held handshake, from the first hold on.
    """

    head_s: float = 5.0
    connect_s: float = 5.0
    linger_s: float = 1.0
    close_s: float = 0.9
    end_s: float = 5.0
    hold_s: float = 5.0


class Shell:
    """One worker's listener and everything that came through it.

    Attributes:
        steering: decides what to do with a handshake.
        waiting: handshakes that are held.
        opened: called with each new session.
    """

    def __init__(
        self,
        reactor: Reactor,
        sessions: Sessions,
        steering: Steering,
        access_log: AccessLog,
        limits: Limits,
    ) -> None:
        self.reactor = reactor
        self.sessions = sessions
        self.steering = steering
        self.waiting = WaitingRoom(reactor)
        self.log = access_log
        self.opened: Callable[[Tunnel], None] = _nothing
        self.head_deadlines = reactor.deadlines(limits.head_s)
        self.connect_deadlines = reactor.deadlines(limits.connect_s)
        self.linger_deadlines = reactor.deadlines(limits.linger_s)
        self._session_number = 0
        self._listener: socket.socket | None = None
        self._silent = False
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
            self.reactor.watch_level(listener.fileno(), self)
        return int(self._listener.getsockname()[1])

    def stop_listening(self) -> None:
        """No further connection is taken. Those that the kernel has taken for us already are served."""
        if self._listener is not None:
            while self._accept_some():
                pass
            listener, self._listener = self._listener, None
            self.reactor.close(listener)

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
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                descriptor, address = accept()
            except BlockingIOError:
                return False
            except OSError as error:
                self._accept_failed(error)
                return False
            client = socket.SocketType(family, socket.SOCK_STREAM, 0, descriptor)
            opening = Opening(self, client, address)
            try:
                opening.begin()
            except Exception:
                log.exception("connection_failed", endpoint="Opening")
                opening.abort()
        return True

    def _accept_failed(self, error: OSError) -> None:
        """Out of descriptors or memory, or the peer was gone already: look again at the next tick."""
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
