"""A port on which a worker takes connections; its siblings may share it."""

import errno
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

import structlog

from msha.edge.entry import farewell
from msha.edge.entry.forwarded_opening import ForwardedOpening
from msha.edge.entry.opening import Opening
from msha.edge.entry.peers import too_many_connections
from msha.edge.entry.tls_opening import ForwardedTlsOpening, TlsOpening
from msha.edge.port import shared_port
from msha.edge.wire import handshake

if TYPE_CHECKING:
    from msha.edge.entry.server import Shell

log = structlog.get_logger("msha.edge")

#: Connections taken in one turn of the loop; the others wait in the kernel.
ACCEPTS_PER_TURN = 64

#: So long they are taken in one turn. A TLS handshake, or a head of 16 KiB, takes a millisecond.
_TAKING_S = 0.01

#: So long a listener that closes takes what waits in the kernel: those who keep coming must not keep it open.
_CLOSING_S = 1.0

_BACKLOG = 4096

#: The kernel tells us of a connection when its first bytes are there, or after about so long.
_DEFER_ACCEPT_S = 1

#: A client that vanished without a word is found after about two minutes.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class Spoken(NamedTuple):
    """What is spoken on a port: how connections open, of clients and of load balancers that we trust."""

    opening: type[Opening]
    forwarded: type[ForwardedOpening]


HTTP = Spoken(Opening, ForwardedOpening)
TLS = Spoken(TlsOpening, ForwardedTlsOpening)


class Listener:
    """Connections are taken as long as it is open.

    Raises:
        OSError: the address cannot be used.
    """

    def __init__(self, shell: "Shell", host: str, port: int, spoken: Spoken) -> None:
        self._shell = shell
        self._spoken = spoken
        self._sock: socket.socket | None = _listening(host, port)
        self._silent = False
        self.host: str = self._sock.getsockname()[0]
        self.port: int = self._sock.getsockname()[1]
        shell.reactor.watch_level(self._sock.fileno(), self)

    def close(self) -> None:
        """No further connection is taken. Those that the kernel has taken for us already are served."""
        if self._sock is not None:
            until = time.monotonic() + _CLOSING_S
            while self._accept_some() and time.monotonic() < until:
                pass
            sock, self._sock = self._sock, None
            self._shell.reactor.close(sock)

    def run_dry(self) -> None:
        """What is on its way is taken and nothing new; somebody else listens on the port."""
        if self._sock is not None:
            try:
                shared_port.run_dry(self._sock)
            except OSError as error:
                log.warning("cannot_run_dry", error=str(error))

    def yield_to_others(self, closing: int) -> None:
        """New connections to the port go to others while the ``closing`` first of its listeners are closed.

        Each that is closed gives its number to the last one, so that the highest numbers are in use no more;
        those chosen here remain, whichever is closed first.
        """
        there = shared_port.listeners()
        others = sum((each.host, each.port) == (self.host, self.port) for each in there) - closing
        self.prefer(closing, max(others - closing + 1, 1))

    def prefer(self, first: int, count: int) -> bool:
        """Whether new connections go to ``count`` listeners of the port after the ``first`` ones now.

        With a count of 0 they are spread over all.
        """
        if self._sock is None:
            return False
        try:
            if count:
                shared_port.prefer(self._sock, first, count)
            else:
                shared_port.prefer_none(self._sock)
        except OSError as error:
            log.warning("cannot_prefer_listeners", error=str(error))
            return False
        return True

    def listen_again(self) -> None:
        """Connections are taken again after they could not be."""
        if self._silent and self._sock is not None:
            self._silent = False
            self._shell.reactor.silence(self._sock.fileno(), silent=False)

    # As an endpoint of the reactor

    def on_event(self, descriptor: int, events: int) -> None:
        """Connections wait."""
        self._accept_some()

    def abort(self) -> None:
        """Go on listening after an error of ours with one connection."""

    def _accept_some(self) -> bool:
        """Whether more may be waiting."""
        sock, shell = self._sock, self._shell
        if sock is None:
            return False
        # What socket.accept() wraps: without its second object of Python, and its second call of the kernel.
        accept, family = sock._accept, sock.family  # type: ignore[attr-defined]
        balancers, near_a_limit = shell.balancers, shell.near_a_limit()
        make_opening, make_forwarded = self._spoken
        until = time.monotonic() + _TAKING_S
        for _ in range(ACCEPTS_PER_TURN):
            try:
                descriptor, address = accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == errno.EMFILE and self._turn_away():
                    continue
                self._accept_failed(error)
                return False
            client = socket.SocketType(family, socket.SOCK_STREAM, 0, descriptor)
            if balancers is None or address[0] not in balancers:
                opening = make_opening(shell, client, address)
            else:
                opening = make_forwarded(shell, client, address)
            try:
                if near_a_limit and (excess := shell.excess(address, opening)) is not None:
                    opening.turn_away(excess, patient=shell.patient)
                else:
                    opening.begin()
            except Exception:
                log.exception("connection_failed", endpoint="Opening")
                opening.abort()
            if time.monotonic() > until:
                break
        return True

    def _turn_away(self) -> bool:
        """Whether a connection for which there was no descriptor has been told so and is closed.

        It takes one that is kept for this; else it would wait in the kernel until its client gives up.
        """
        assert self._sock is not None
        with self._shell.reserve() as reserved:
            if not reserved:
                return False
            try:
                client = self._sock.accept()[0]
            except OSError:
                return False
            with client:
                answer = handshake.invalid(too_many_connections()) if self._spoken is HTTP else b""
                farewell.bid_at_once(client, answer)
            self._shell.sessions.count("limited_descriptors")
            return True

    def _accept_failed(self, error: OSError) -> None:
        """Out of memory or of descriptors, or the peer was gone already: look again at the next tick."""
        self._shell.sessions.count("accept_failed")
        if isinstance(error, ConnectionError):
            return
        log.warning("accept_failed", error=str(error))
        if self._sock is not None:
            self._silent = True
            self._shell.reactor.silence(self._sock.fileno(), silent=True)


def _listening(host: str, port: int) -> socket.socket:
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
