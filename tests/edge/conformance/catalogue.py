"""What clients say, well and badly; the groups are those of the Autobahn test suite."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.websocket_wire import frame

#: Of every client frame, so that two conversations are the same bytes.
MASK = b"\x12\x34\x56\x78"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

MEBIBYTE = 1 << 20

#: Messages larger than this are refused by the servers with 1009.
MAX_MESSAGE_BYTES = 8 * MEBIBYTE


@dataclass(frozen=True)
class Say:
    """One step of a conversation.

    Attributes:
        data: what the client sends.
        hear: so many further frames are waited for before the next step.
        chop: bytes of one send; 0 for all at once.
    """

    data: bytes
    hear: int = 0
    chop: int = 0


@dataclass(frozen=True)
class Case:
    """A conversation from the 101 on; when the last step has been answered, the client closes it with 1000.

    Attributes:
        offer: the Sec-WebSocket-Extensions of the handshake.
        closes: one of the steps has a Close, so that the server's need not be answered.
    """

    name: str
    steps: tuple[Say, ...]
    offer: str = ""
    closes: bool = False


def sent(payload: bytes | str, opcode: int = TEXT, *, fin: bool = True, rsv: int = 0) -> bytes:
    """A client's frame."""
    data = payload.encode() if isinstance(payload, str) else payload
    whole = masked(data, opcode, fin=fin)
    return bytes((whole[0] | rsv << 4,)) + whole[1:]


def masked(payload: bytes, opcode: int, *, fin: bool) -> bytes:
    """As `frame`, but fast for large payloads."""
    head = frame(b"", opcode, fin=fin, mask=MASK)
    if len(payload) < 1000:
        return frame(payload, opcode, fin=fin, mask=MASK)
    size = len(payload)
    length = b"\xfe" + size.to_bytes(2) if size < 65_536 else b"\xff" + size.to_bytes(8)
    pad = (MASK * (size // 4 + 1))[:size]
    return head[:1] + length + MASK + (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(size)


def close(code: int, reason: bytes = b"") -> bytes:
    """A client's Close."""
    return sent(code.to_bytes(2) + reason, CLOSE)


def one(name: str, data: bytes, hear: int = 0, *, chop: int = 0, offer: str = "") -> Case:
    """A case of one step; those of the seventh group close."""
    return Case(name, (Say(data, hear, chop),), offer, closes=name.startswith("7"))


def _framing() -> Iterator[Case]:
    for kind, opcode in (("text", TEXT), ("binary", BINARY)):
        for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536):
            yield one(f"1 {kind} of {size}", sent(b"*" * size, opcode), 1)
        yield one(f"1 {kind} of 65536 in chops of 997", sent(b"*" * 65_536, opcode), 1, chop=997)
        yield one(f"1 {kind} of 300 byte by byte", sent(b"*" * 300, opcode), 1, chop=1)
    yield one("1 three messages at once", sent("a") + sent("b") + sent(b"c", BINARY), 3)
    yield one("1 a length of 5 in 2 bytes", b"\x81\xfe\x00\x05" + MASK + sent("hello")[6:], 1)
    yield one("1 a length of 5 in 8 bytes", b"\x81\xff" + bytes(7) + b"\x05" + MASK + sent("hello")[6:], 1)
    yield one("1 a length with the top bit", b"\x81\xff\x80" + bytes(7) + MASK + b"x")
    yield one("1 not masked", frame(b"hello"))
    yield one("1 not masked after a good one", sent("good") + frame(b"hello"), 1)


def _pings() -> Iterator[Case]:
    yield one("2 an empty ping", sent(b"", PING), 1)
    yield one("2 a ping with a payload", sent("payload", PING), 1)
    yield one("2 a ping of all bytes", sent(bytes(range(255, 130, -1)), PING), 1)
    yield one("2 a ping of 126", sent(b"x" * 126, PING))
    yield one("2 a ping byte by byte", sent(b"x" * 125, PING), 1, chop=1)
    yield one("2 ten pings", b"".join(sent(f"{n}", PING) for n in range(10)), 10)
    yield one("2 a pong that nobody asked for", sent("payload", PONG) + sent("then", PING), 1)


def _reserved() -> Iterator[Case]:
    for rsv in range(1, 8):
        yield one(f"3 reserved bits {rsv} in a text", sent("x", rsv=rsv))
    yield Case(
        "3 a reserved bit after a good one", (Say(sent("good"), 1), Say(sent("x", rsv=2) + sent("", PING)))
    )
    yield one("3 a reserved bit in a ping", sent("x", PING, rsv=4))
    yield Case("3 a reserved bit in a close", (Say(sent(b"\x03\xe8", CLOSE, rsv=1)),), closes=True)
    yield one("3 a reserved bit in a continuation", sent("x", fin=False) + sent("y", CONTINUATION, rsv=4))
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield one(f"4 opcode {opcode}", sent("x", opcode))
        yield Case(
            f"4 opcode {opcode} after a good one",
            (Say(sent("good"), 1), Say(sent("", opcode) + sent("", PING))),
        )


def _fragments() -> Iterator[Case]:
    halves = sent("frag", fin=False) + sent("ments", CONTINUATION)
    yield one("5 a fragmented ping", sent("x", PING, fin=False) + sent("y", CONTINUATION))
    yield one("5 a fragmented pong", sent("x", PONG, fin=False) + sent("y", CONTINUATION))
    yield one("5 two fragments", halves, 1)
    yield Case(
        "5 two fragments, two sends", (Say(sent("frag", fin=False)), Say(sent("ments", CONTINUATION), 1))
    )
    yield one("5 two fragments byte by byte", halves, 1, chop=1)
    yield one("5 a ping between", sent("a", fin=False) + sent("p", PING) + sent("b", CONTINUATION), 2)
    yield Case(
        "5 pings between, each by itself",
        (
            Say(sent("a", fin=False)),
            Say(sent("p", PING), 1),
            Say(sent("b", CONTINUATION, fin=False)),
            Say(sent("q", PING), 1),
            Say(sent("c", CONTINUATION), 1),
        ),
    )
    yield one("5 a pong between", sent("a", fin=False) + sent("p", PONG) + sent("b", CONTINUATION), 1)
    yield one(
        "5 empty fragments",
        sent("", fin=False) + sent("", CONTINUATION, fin=False) + sent("", CONTINUATION),
        1,
    )
    yield one(
        "5 many fragments",
        sent("a", fin=False) + sent("b", CONTINUATION, fin=False) * 200 + sent("c", CONTINUATION),
        1,
    )
    yield one("5 a continuation of nothing", sent("x", CONTINUATION))
    yield one("5 a continuation of nothing, not the last", sent("x", CONTINUATION, fin=False) + sent("y"))
    yield Case("5 a continuation after the end", (Say(halves, 1), Say(sent("x", CONTINUATION) + sent("y"))))
    yield one("5 a new message within one", sent("a", fin=False) + sent("b"))


def _texts() -> Iterator[Case]:
    good = {
        "ascii": b"Hello", "greek": "κόσμε".encode(), "chinese": "切流预览".encode(),
        "four bytes": "\U0001f680".encode(), "the last": "\U0010ffff".encode(),
        "noncharacters": "\ufffe\uffff\U0001fffe".encode(), "a bom": b"\xef\xbb\xbfx", "nul": b"\0",
    }  # fmt: skip
    bad = {
        "a lone continuation": b"\x80", "overlong slash": b"\xc0\xaf", "overlong nul": b"\xc0\x80",
        "surrogate": b"\xed\xa0\x80", "beyond unicode": b"\xf4\x90\x80\x80",
        "five bytes": b"\xf8\x88\x80\x80\x80", "fe": b"\xfe", "ff": b"\xff", "cut off": "κ".encode()[:1],
        "cut off, four bytes": b"\xf0\x9f\x9a", "in the middle": b"Hello\xed\xa0\x80edited",
        "latin-1": b"caf\xe9",
    }  # fmt: skip
    for name, text in good.items():
        yield one(f"6 good: {name}", sent(text), 1)
        if len(text) > 1:
            yield one(f"6 good, in two: {name}", sent(text[:1], fin=False) + sent(text[1:], CONTINUATION), 1)
    for name, text in bad.items():
        yield one(f"6 bad: {name}", sent(text))
        yield one(f"6 bad, in two: {name}", sent(text[:1], fin=False) + sent(text[1:], CONTINUATION))
        yield one(f"6 binary: {name}", sent(text, BINARY), 1)


def _closes() -> Iterator[Case]:
    yield one("7 a close without a code", sent(b"", CLOSE))
    yield one("7 a close of one byte", sent(b"\x03", CLOSE))
    yield one("7 a close with a reason", close(1000, b"bye"))
    yield one("7 a close with the longest reason", close(1000, b"x" * 123))
    yield one("7 a close with too long a reason", close(1000, b"x" * 124))
    yield one("7 a close with a bad reason", close(1000, b"caf\xe9"))
    yield one("7 a close with a chinese reason", close(1000, "切流".encode()))
    yield one("7 a fragmented close", sent(b"\x03\xe8", CLOSE, fin=False))
    yield one("7 a text after the close", close(1000) + sent("late"))
    yield one("7 a ping after the close", close(1000) + sent("late", PING))
    yield one("7 a close within a message", sent("a", fin=False) + close(1000))
    yield one("7 two closes", close(1000) + close(1001))
    yield Case("7 a close after an echo", (Say(sent("x"), 1), Say(close(1000, b"done"))), closes=True)
    yield one("7 a close byte by byte", close(1000, b"bye"), chop=1)
    codes = (
        0,
        999,
        1000,
        1001,
        1002,
        1003,
        1004,
        1005,
        1006,
        1007,
        1008,
        1009,
        1010,
        1011,
        1012,
        1013,
        1014,
        1015,
    )
    for code in (*codes, 1016, 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65_535):
        yield one(f"7 code {code}", close(code))


def _limits() -> Iterator[Case]:
    for size in (1, 4):
        yield one(f"9 a text of {size} MiB", sent(b"*" * (size * MEBIBYTE)), 1)
    yield one("9 a binary of 2 MiB in chops of 65521", sent(b"\xfe" * (2 * MEBIBYTE), BINARY), 1, chop=65_521)
    part = b"*" * 16_384
    fragments = sent(part, fin=False) + sent(part, CONTINUATION, fin=False) * 62 + sent(part, CONTINUATION)
    yield one("9 a text of 1 MiB in fragments", fragments, 1)
    yield one("9 a text beyond the limit", sent(b"*" * (MAX_MESSAGE_BYTES + 1)))
    yield Case("9 a thousand messages", tuple(Say(sent(f"{n}") * 50, 50) for n in range(20)))


def _compressed() -> Iterator[Case]:
    offer = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
    text = _deflated(b"Hello, hello, hello, hello")
    half = len(text) // 2
    yield one("12 compression that is not used", sent("plain"), 1, offer=offer)
    yield one("12 a compressed text", sent(text, rsv=4), 1, offer=offer)
    yield one(
        "12 a compressed text in fragments",
        sent(text[:half], fin=False, rsv=4) + sent("p", PING) + sent(text[half:], CONTINUATION),
        2,
        offer=offer,
    )
    yield one(
        "12 a compressed message of 1 MiB", sent(_deflated(b"*" * MEBIBYTE), BINARY, rsv=4), 1, offer=offer
    )
    yield one("12 bytes that are not compressed", sent(b"\xff\xff\xff\xff", rsv=4), offer=offer)
    yield one("12 a compressed text that is not UTF-8", sent(_deflated(b"caf\xe9"), rsv=4), offer=offer)
    yield one(
        "12 a compressed continuation",
        sent(text[:half], fin=False, rsv=4) + sent(text[half:], CONTINUATION, rsv=4),
        offer=offer,
    )
    yield one("12 a bomb", sent(_deflated(bytes(MAX_MESSAGE_BYTES + 1)), BINARY, rsv=4), offer=offer)
    yield one("12 an offer that nobody knows", sent("plain"), 1, offer="x-unknown; a=1")


def _deflated(data: bytes) -> bytes:
    """RFC 7692 7.2.1."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


CASES = {
    case.name: case
    for group in (_framing, _pings, _reserved, _fragments, _texts, _closes, _limits, _compressed)
    for case in group()
}
