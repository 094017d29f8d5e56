"""A TLS client whose ciphertext the test holds in its hands: sent in whatever pieces, or kept."""

import socket
import ssl
from collections.abc import Iterable


class TlsStream:
    """The methods of a socket that tests use, over a connected one."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str | None) -> None:
        self.sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    def hello(self) -> bytes:
        """The ClientHello, not sent yet."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def shake_hands(self, *, size: int = 1 << 16) -> None:
        """The handshake is over; everything is sent in pieces of this size."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send(size)
                self._read()
        self._send(size)

    def encrypted(self, data: bytes) -> bytes:
        """The data as records, not sent yet."""
        self.tls.write(data)
        return self._outgoing.read()

    def ended(self) -> bytes:
        """A close_notify, not sent yet."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        return self._outgoing.read()

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(self.encrypted(data))

    def recv(self, size: int) -> bytes:
        """Plaintext; nothing after a close_notify, and an error where TCP ends without one."""
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                self._read()
            except ssl.SSLZeroReturnError:
                return b""

    def settimeout(self, seconds: float | None) -> None:
        self.sock.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        """A close_notify and a FIN."""
        self.sock.sendall(self.ended())
        self.sock.shutdown(how)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        self.sock.setsockopt(level, option, value)

    def close(self) -> None:
        self.sock.close()

    def _send(self, size: int) -> None:
        for piece in pieces(self._outgoing.read(), size):
            self.sock.sendall(piece)

    def _read(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError("TCP ended, and TLS had not")
        self._incoming.write(data)


def pieces(data: bytes, size: int) -> Iterable[bytes]:
    """The data cut up."""
    return (data[at : at + size] for at in range(0, len(data), size))
