"""WebSocket frames as far as a tunnel must know them: where one ends, and how a Close looks.

A tunnel passes bytes on unread. To put a frame of its own in, it must know whether a stream stands between
two frames; nothing else of a frame is looked at (RFC 6455 5.2).
"""

import os
from collections.abc import Iterable
from functools import lru_cache

#: The one extension beside which a message of ours may be put in. An uncompressed message between compressed
#: ones is its own case (RFC 7692 6): RSV1 is unset, and it never enters the window that later ones refer to.
_TRANSPARENT = b"permessage-deflate"

_SHORT, _LONG = 126, 127
_TEXT = 0x1
_CLOSE = 0x8

#: 2 bytes, an 8-byte length and a masking key.
_HEAD_LIMIT = 14


#: How long a frame is, by its second byte; 0 where its length stands in further bytes.
_SIZES = bytes(
    0 if second & 0x7F >= _SHORT else 2 + (second & 0x7F) + (4 if second & 0x80 else 0)
    for second in range(256)
)


class FrameTracker:
    """Follows one direction of a session, whatever pieces its bytes come in.

    Attributes:
        idle: between two frames, no message half sent, no Close seen. Then a chunk that is one short, whole,
            unfragmented data frame changes nothing, and the tunnel need not call :meth:`feed` for it.
        between: between two frames, so that a control frame may be put in.
        fragmented: a message has begun whose last fragment is still to come.
        closed: a Close frame has begun; the peer will send nothing after it.
    """

    __slots__ = ("_head", "_left", "between", "closed", "fragmented", "idle")

    def __init__(self) -> None:
        self.idle = True
        self.between = True
        self.fragmented = False
        self.closed = False
        self._left = 0
        self._head = b""

    def feed(self, data: bytes | memoryview) -> int:
        """Follow a chunk to its end; how many frames were whole in it, more or less: each costs its time."""
        return self._advance(data, stop=False)[1]

    def cut(self, data: bytes) -> int:
        """How much of the chunk belongs to the frame that is under way; follows only so far."""
        return 0 if self.between else self._advance(data, stop=True)[0]

    def cut_message(self, data: bytes) -> int:
        """How much of the chunk belongs to the message that is under way; follows only so far.

        That is all of it where the message does not end in the chunk, or a Close comes first.
        """
        view = memoryview(data)
        position = 0
        while position < len(view) and not self.idle:
            position += self._advance(view[position:], stop=True)[0]
        return position

    def _advance(self, data: bytes | memoryview, *, stop: bool) -> tuple[int, int]:
        """How far it was followed, and past how many whole frames."""
        position, end, passed = 0, len(data), 0
        left = self._left
        while True:
            if left:
                step = min(left, end - position)
                position += step
                left -= step
                if left or stop:
                    break
            if position == end:
                break
            if end - position >= _HEAD_LIMIT and position and not stop and not self._head:
                position, whole = self._pass_whole(data, position, end)
                passed += whole
            before = len(self._head)
            head = self._head + data[position : position + _HEAD_LIMIT - before]
            size = _head_size(head)
            if size > len(head):
                self._head = head
                position = end
                break
            self._head = b""
            position += size - before
            left = self._begin(head)
            if stop and not left:
                break
        self._left = left
        self.between = not left and not self._head
        self.idle = self.between and not self.fragmented and not self.closed
        return position, passed

    def _pass_whole(self, data: bytes | memoryview, position: int, end: int) -> tuple[int, int]:
        """The position behind the next frames that are whole in the chunk, and how many they are.

        It stops before a Close and before the end of the chunk. Of frames without payload there can be
        thousands in a chunk, so this is the short way through them.
        """
        sizes = _SIZES
        fragmented = self.fragmented
        passed = 0
        while end - position > _HEAD_LIMIT:
            first, second = data[position], data[position + 1]
            size = sizes[second]
            if not size:
                if second & 0x7F == _SHORT:
                    size = 4 + (data[position + 2] << 8 | data[position + 3])
                else:
                    size = 10 + int.from_bytes(data[position + 2 : position + 10])
                if second & 0x80:
                    size += 4
            if size >= end - position:
                break
            opcode = first & 0x0F
            if opcode < _CLOSE:
                fragmented = first < 0x80
            elif opcode == _CLOSE:
                break
            position += size
            passed += 1
        self.fragmented = fragmented
        return position, passed

    def _begin(self, head: bytes) -> int:
        """The payload length of the frame that begins with this whole head."""
        opcode = head[0] & 0x0F
        if opcode < _CLOSE:
            self.fragmented = not head[0] & 0x80
        elif opcode == _CLOSE:
            self.closed = True
        length = head[1] & 0x7F
        if length == _SHORT:
            return int.from_bytes(head[2:4])
        if length == _LONG:
            return int.from_bytes(head[2:10])
        return length


def _head_size(head: bytes) -> int:
    """How long the frame head is that begins so; at least one more than is there while that is unknown."""
    if len(head) < 2:
        return 2
    length = head[1] & 0x7F
    size = 4 if length == _SHORT else 10 if length == _LONG else 2
    return size + 4 if head[1] & 0x80 else size


def transparent(extensions: Iterable[bytes]) -> bool:
    """Whether a message of ours may be put between others under these ``Sec-WebSocket-Extensions``.

    A quoted comma cuts a value in two, of which one is no known name: the answer is no then.
    """
    names = (item.split(b";", 1)[0] for value in extensions for item in value.split(b","))
    return all(name.strip().lower() in (_TRANSPARENT, b"") for name in names)


def text_frame(payload: bytes) -> bytes:
    """A whole text message as a server sends it; at most 65,535 bytes of UTF-8."""
    size = len(payload)
    length = bytes((size,)) if size < _SHORT else bytes((_SHORT,)) + size.to_bytes(2)
    return bytes((0x80 | _TEXT,)) + length + payload


@lru_cache(maxsize=256)
def close_payload(code: int, reason: str) -> bytes:
    """Code and reason of a Close frame, the reason cut to what fits (123 bytes of whole characters)."""
    return code.to_bytes(2) + reason.encode()[:123].decode(errors="ignore").encode()


def close_frame(payload: bytes) -> bytes:
    """A Close as a server sends it."""
    return bytes((0x80 | _CLOSE, len(payload))) + payload


def masked_close_frame(payload: bytes) -> bytes:
    """A Close as a client sends it, under a fresh masking key."""
    size = len(payload)
    key = _keys.next()
    pad = (key * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(size)
    return bytes((0x80 | _CLOSE, 0x80 | size)) + key + masked


class _Keys:
    """Masking keys from the system's source of strong randomness (RFC 6455 5.3), fetched many at a time."""

    def __init__(self) -> None:
        self._bytes = b""
        self._used = 0

    def next(self) -> bytes:
        """Four bytes that were never given before."""
        if self._used == len(self._bytes):
            self._bytes, self._used = os.urandom(4096), 0
        self._used += 4
        return self._bytes[self._used - 4 : self._used]


_keys = _Keys()
