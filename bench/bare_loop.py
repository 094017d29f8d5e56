"""What no edge in Python can undercut: the system calls of the work, and nothing that thinks.

``python -m bench.bare_loop PORT BACK_SOURCE_PORT``: a handshake with an id of the other unit is redirected;
every other connection is joined with one to the back-source, and bytes pass unread. It parses nothing, keeps
no books, has no deadlines and loses what cannot be sent at once, so it is no proxy; it shows what the
interpreter and the kernel leave to one.
"""

import select
import socket
import sys
from socket import SocketType

_BATCH = 256
_CHUNK = memoryview(bytearray(81_920))

#: The generator's heads end in a routerId of four digits.
FOREIGN_FROM = 5998
_BEFORE = b"HTTP/1.1 302 Found\r\nLocation: http://unbj.websocket.test:8102"
_AFTER = b"\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_EVERYTHING = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class BareLoop:
    """A listener, and the pairs of sockets that bytes pass between."""

    def __init__(self, port: int, server_port: int) -> None:
        self._server = ("127.0.0.1", server_port)
        self._listener = listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(4096)
        listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        self._other: dict[int, tuple[SocketType, SocketType]] = {}

    def run(self) -> None:
        """Serve for ever."""
        listening = self._listener.fileno()
        other = self._other
        while True:
            for descriptor, _ in self._epoll.poll(maxevents=_BATCH):
                if descriptor == listening:
                    self._accept()
                    continue
                here, there = other[descriptor]
                try:
                    size = here.recv_into(_CHUNK)
                    if size:
                        there.send(_CHUNK[:size])
                        continue
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                self._end(here, there)

    def _accept(self) -> None:
        while True:
            try:
                descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            client = SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
            head = client.recv(16_384)
            if not head:  # somebody who only wanted to know whether we listen
                client.close()
            elif int(head[-8:-4]) < FOREIGN_FROM:
                self._join(client, head)
            else:
                client.send(_BEFORE + head[4 : head.index(b" ", 4)] + _AFTER, socket.MSG_MORE)
                client.close()

    def _join(self, client: SocketType, head: bytes) -> None:
        client.setblocking(False)
        server = SocketType()
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.connect(self._server)
        server.setblocking(False)
        server.send(head)
        for here, there in ((client, server), (server, client)):
            self._other[here.fileno()] = here, there
            self._epoll.register(here.fileno(), _EVERYTHING)

    def _end(self, *ends: SocketType) -> None:
        for end in ends:
            del self._other[end.fileno()]
            end.close()


if __name__ == "__main__":
    BareLoop(int(sys.argv[1]), int(sys.argv[2])).run()
