"""The two ends of an edge by hand: a client and a back-source on plain sockets, byte by byte."""

import base64
import hashlib
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Self

TIMEOUT_S = 5.0
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Frame:
    """A WebSocket frame, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def close_code(self) -> int:
        """Of a Close frame."""
        assert self.opcode == 8
        return int.from_bytes(self.payload[:2])

    @property
    def close_reason(self) -> str:
        """Of a Close frame."""
        assert self.opcode == 8
        return self.payload[2:].decode()


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True, mask: bytes | None = None) -> bytes:
    """The bytes of a frame; a mask makes it a client's."""
    size = len(payload)
    marked = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([marked | size])
    elif size < 65536:
        head += bytes([marked | 126]) + struct.pack(">H", size)
    else:
        head += bytes([marked | 127]) + struct.pack(">Q", size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class Wire:
    """A socket with a buffer, reading with deadlines."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT_S)
        self.sock = sock
        self.buffer = b""

    def send(self, data: bytes) -> None:
        """All of it."""
        self.sock.sendall(data)

    def _more(self) -> bool:
        data = self.sock.recv(1 << 18)
        self.buffer += data
        return bool(data)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        while len(self.buffer) < size:
            if not self._more():
                raise EOFError(f"ended after {self.buffer!r}")
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_head(self) -> bytes:
        """Up to and with the empty line."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                raise EOFError(f"ended after {self.buffer!r}")
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def read_frame(self) -> Frame:
        """The next frame, unmasked if need be."""
        first, second = self.read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self.read(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self.read(8))
        mask = self.read(4) if second & 0x80 else None
        payload = self.read(size)
        if mask is not None:
            repeated = (mask * (size // 4 + 1))[:size]
            payload = (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)
        return Frame(first & 0x0F, payload, bool(first & 0x80))

    def read_to_end(self) -> bytes:
        """Everything up to a proper end; a reset raises ConnectionResetError."""
        while self._more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def ended(self) -> bool:
        """Whether the peer has properly ended and nothing was left to read."""
        return self.read_to_end() == b""

    def half_close(self) -> None:
        """Send a FIN; reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Let go."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Response:
    """The head of a response, and the connection it came on."""

    status: int
    headers: dict[str, str]
    raw: bytes = field(repr=False)


def parse_response(head: bytes) -> Response:
    """The response of a head."""
    lines = head.decode("latin-1").split("\r\n")
    fields = [line.partition(": ") for line in lines[1:] if line]
    return Response(int(lines[0].split(" ")[1]), {name.lower(): value for name, _, value in fields}, head)


def accept_key(key: str) -> str:
    """The Sec-WebSocket-Accept of a key, computed by itself."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def handshake_head(
    host: str = "websocket.test",
    router_id: int | str | None = None,
    target: str = "/",
    *,
    key: str = "dGhlIHNhbXBsZSBub25jZQ==",
    extra: str = "",
) -> bytes:
    """A good handshake, with further header lines if given."""
    tag = "" if router_id is None else f"routerId: {router_id}\r\n"
    return (
        f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{tag}{extra}\r\n"
    ).encode("latin-1")


class Client(Wire):
    """A WebSocket client."""

    @classmethod
    def connect(cls, port: int, *, receive_buffer: int | None = None, source: str = "") -> Self:
        """Connected, nothing sent yet; from this address if one is given."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(TIMEOUT_S)
        try:
            if source:
                sock.bind((source, 0))
            sock.connect(("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    def ask(self, head: bytes) -> Response:
        """Send a head and read the head of the answer."""
        self.send(head)
        return self.answer()

    def answer(self) -> Response:
        """The head of the answer."""
        return parse_response(self.read_head())

    def body(self, response: Response) -> bytes:
        """The body, to the end of the connection, which must be as long as was announced."""
        body = self.read_to_end()
        assert len(body) == int(response.headers["content-length"])
        return body

    def send_frame(self, payload: bytes, opcode: int = 1, *, fin: bool = True) -> None:
        """As a client: masked."""
        self.send(frame(payload, opcode, fin=fin, mask=os.urandom(4)))


class BackSourceSession(Wire):
    """A connection that a back-source has taken."""

    head: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        """Of the request; the last one of a name."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}

    @property
    def request_line(self) -> str:
        """The first line of the request."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    def switch(self, *, accept: str | None = None, extra: str = "", rest: bytes = b"") -> None:
        """Answer 101."""
        accept = accept if accept is not None else accept_key(self.headers["sec-websocket-key"])
        self.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{extra}\r\n".encode()
            + rest
        )


class BackSource:
    """A back-source that does what the test says."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.listener.settimeout(TIMEOUT_S)
        self.taken: list[BackSourceSession] = []

    @property
    def address(self) -> str:
        """``IP:PORT``."""
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self) -> BackSourceSession:
        """The next connection."""
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = BackSourceSession(sock)
        self.taken.append(session)
        return session

    def take(self) -> BackSourceSession:
        """The next connection, its request head read."""
        session = self.accept()
        session.head = session.read_head()
        return session

    def idle(self) -> bool:
        """Whether nobody has connected."""
        self.listener.settimeout(0.2)
        try:
            self.taken.append(BackSourceSession(self.listener.accept()[0]))
        except TimeoutError:
            return True
        finally:
            self.listener.settimeout(TIMEOUT_S)
        return False

    def close(self) -> None:
        """The listener and every connection."""
        self.listener.close()
        for session in self.taken:
            session.close()
