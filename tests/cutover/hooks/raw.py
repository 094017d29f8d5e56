"""A server below HTTP: what it does with a connection is up to the test, as bytes and resets."""

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Gets the accepted connection after the request was read.
Manners = Callable[[socket.socket], None]


def reset(connection: socket.socket) -> None:
    """RST instead of an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def says(*pieces: bytes, every_s: float = 0.0) -> Manners:
    """These bytes, then the end of the connection."""

    def behave(connection: socket.socket) -> None:
        pause = threading.Event()
        for piece in pieces:
            connection.sendall(piece)
            pause.wait(every_s)

    return behave


def without_end(head: bytes, piece: bytes) -> Manners:
    """A head and pieces, as fast as they are taken, for ever."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return behave


def hang(connection: socket.socket) -> None:
    """Nothing, until the other side goes."""
    connection.settimeout(15)
    while connection.recv(4096):
        pass


@contextmanager
def serving(manners: Manners, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a server that treats every connection so."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        connection.settimeout(15)
        try:
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            _hear(connection)
            manners(connection)
        except OSError:
            pass  # the caller has had enough
        finally:
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        scheme = "http" if context is None else "https"
        yield f"{scheme}://localhost:{listener.getsockname()[1]}/hook"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _hear(connection: socket.socket) -> None:
    """The whole request has been read: to close with a part of it unread would reset the connection."""
    request = b""
    while b"\r\n\r\n" not in request:
        more = connection.recv(65536)
        if not more:
            return
        request += more
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while length is not None and len(body) < int(length[1]):
        more = connection.recv(65536)
        if not more:
            return
        body += more
