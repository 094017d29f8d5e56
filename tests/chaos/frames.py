"""As much of WebSocket as clients and back-sources of a campaign need, at little cost per frame."""

import base64
import hashlib
from collections.abc import Iterator

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_of(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a key."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def frame(payload: bytes, opcode: int = TEXT, *, masked: bool) -> bytes:
    """One whole frame with a payload of less than 64 KiB; a mask of zeros leaves it readable."""
    size = len(payload)
    mark = 0x80 if masked else 0
    length = bytes([mark | size]) if size < 126 else bytes([mark | 126]) + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + (b"\0\0\0\0" if masked else b"") + payload


def close_payload(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode()


def close_code(payload: bytes) -> int:
    """The code of a Close, 1005 for none."""
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005


class Unframed:
    """Frames out of bytes as they come."""

    def __init__(self) -> None:
        self._waiting = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of every frame that is whole by now."""
        self._waiting += data
        while (found := self._first()) is not None:
            yield found

    def _first(self) -> tuple[int, bytes] | None:
        data = self._waiting
        if len(data) < 2:
            return None
        size, begin = data[1] & 0x7F, 2
        if size == 126:
            size, begin = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, begin = int.from_bytes(data[2:10], "big"), 10
        mask = b""
        if data[1] & 0x80:
            mask, begin = data[begin : begin + 4], begin + 4
        if len(data) < begin + size:
            return None
        payload = data[begin : begin + size]
        if mask.strip(b"\0"):
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._waiting = data[begin + size :]
        return data[0] & 0x0F, payload


class Head:
    """A request's or response's first line and fields."""

    def __init__(self, raw: bytes) -> None:
        first, *rest = raw.decode("latin-1").split("\r\n")
        self.first = first
        self.fields = {
            name.strip().lower(): value.strip() for name, _, value in (r.partition(":") for r in rest)
        }

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.first.split(" ", 2)[1])

    @property
    def target(self) -> str:
        """Of a request."""
        return self.first.split(" ", 2)[1]
