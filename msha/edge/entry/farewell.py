"""The end of a connection that gets an answer, or none: never a reset.

A socket that is closed with bytes unread makes the kernel send RST, which can take the answer away from the
client before it is read; the reference client then fires ``close`` beside ``unexpected-response``, and
connects twice. So: send, shut down writing, discard what still comes, then close.
"""

import socket

from msha.edge.reactor import DeadlineQueue, Reactor

_DISCARD_BYTES = 65_536

_WITH_FIN = socket.MSG_DONTWAIT | socket.MSG_MORE


def bid(
    reactor: Reactor,
    linger: DeadlineQueue,
    sock: socket.SocketType,
    answer: bytes,
    *,
    unread: bool,
    watched: bool,
) -> None:
    """The answer goes out and the connection ends; at once if all was read and sent.

    Args:
        linger: how long to discard.
        unread: whether the client has sent, or has announced, more than was read.
        watched: whether the reactor knows the socket.
    """
    # What is told to wait for more goes out with the FIN, as one segment instead of two.
    try:
        sent = sock.send(answer, _WITH_FIN) if answer else 0
    except BlockingIOError:
        sent = 0
    except OSError:
        reactor.close(sock)
        return
    if sent == len(answer) and not unread:
        if watched:
            reactor.close(sock)
        else:
            sock.close()
        return
    farewell = Farewell(reactor, linger, sock, answer[sent:])
    if watched:
        reactor.hand_over(sock.fileno(), farewell)
    else:
        sock.setblocking(False)
        reactor.watch(sock.fileno(), farewell)
    farewell.on_turn()


def bid_at_once(sock: socket.socket, answer: bytes) -> None:
    """The answer is on its way if there is room for it; what has come is read, so that no reset follows."""
    try:
        sock.recv(_DISCARD_BYTES, socket.MSG_DONTWAIT)
    except OSError:
        pass  # nothing has come, or nobody is there
    try:
        sock.send(answer, socket.MSG_DONTWAIT)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # there is nobody to tell


class Farewell:
    """A connection of which only the end is left to do."""

    __slots__ = ("_left", "_linger", "_reactor", "_shut", "_sock")

    def __init__(self, reactor: Reactor, linger: DeadlineQueue, sock: socket.SocketType, left: bytes) -> None:
        self._reactor = reactor
        self._linger = linger
        self._sock = sock
        self._left = left
        self._shut = False
        linger.add(self)

    def on_event(self, descriptor: int, events: int) -> None:
        """Send what is left, discard what comes."""
        self.on_turn()

    def on_turn(self) -> None:
        """As far as it goes now."""
        try:
            if self._left:
                try:
                    self._left = self._left[self._sock.send(self._left) :]
                    self._linger.add(self)  # a slow reader of a long answer gets its time anew
                except BlockingIOError:
                    pass
            if not self._left and not self._shut:
                self._shut = True
                self._sock.shutdown(socket.SHUT_WR)
            for _ in range(4):
                if not self._sock.recv(_DISCARD_BYTES):
                    self.abort()
                    return
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        self._reactor.again(self)

    def on_deadline(self) -> None:
        """The client did not close its end in time."""
        self.abort()

    def abort(self) -> None:
        """Close now."""
        self._linger.discard(self)
        if self._sock.fileno() >= 0:
            self._reactor.close(self._sock)
