"""What either side says that it must not, or breaks off in the middle; by hand at both ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from tests.edge.conformance.catalogue import CLOSE, CONTINUATION, PING, sent
from tests.support.websocket_wire import frame


@dataclass(frozen=True)
class Act:
    """One side speaks and ends; then the other side speaks and ends.

    Attributes:
        by: ``client`` or ``server``.
        data: what it says first.
        end: ``fin`` or ``reset``.
        glued: the data comes in one piece with the handshake, the client's request or the server's 101.
        answer: what the other side says when it has heard the end; without one it ends at once.
    """

    by: str
    data: bytes
    end: str
    glued: bool = False
    answer: bytes = b""


def _of_a_server() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "a text": frame(b"hello"),
        "a text and a close": frame(b"hello") + frame(b"\x03\xe8bye", CLOSE),
        "a close and more": frame(b"\x03\xe8", CLOSE) + frame(b"late"),
        "two closes": frame(b"\x03\xe8", CLOSE) + frame(b"\x03\xe9", CLOSE),
        "a close of 1005": frame(b"\x03\xed", CLOSE),
        "a close of one byte": frame(b"\x03", CLOSE),
        "a masked text": frame(b"hello", mask=b"abcd"),
        "reserved bits": b"\xf1\x05hello",
        "reserved opcodes": b"\x83\x01x\x8b\x01y\x8f\x00",
        "a fragmented ping": frame(b"p", PING, fin=False) + frame(b"q", CONTINUATION),
        "a long ping": frame(b"p" * 200, PING),
        "half a frame": frame(b"hello")[:-2],
        "half a head": b"\x81\x7e\x01",
        "one byte": b"\x81",
        "half a message": frame(b"a", fin=False) + frame(b"b", CONTINUATION, fin=False),
        "a length with the top bit": b"\x82\x7f" + b"\xff" * 8 + b"hello",
        "text that is not UTF-8": frame(b"caf\xe9"),
        "an HTTP answer": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        "another 101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "ones": b"\xff" * 300,
        "nuls": bytes(300),
        "line ends": b"\r\n" * 20,
        "a thousand pings": frame(b"", PING) * 1000,
        "100 KiB": frame(b"x" * 102_400),
    }


def _of_a_client() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "a text": sent("hello"),
        "a text and a close": sent("hello") + sent(b"\x03\xe8bye", CLOSE),
        "a close and more": sent(b"\x03\xe8", CLOSE) + sent("late"),
        "a text without a mask": frame(b"hello"),
        "reserved bits and opcodes": b"\xff\x80abcd\xf3\x80abcd",
        "half a frame": sent("hello")[:-2],
        "half a mask": sent("hello")[:4],
        "one byte": b"\x81",
        "half a message": sent("a", fin=False),
        "a length with the top bit": b"\x82\xff" + b"\xff" * 8 + b"abcdhello",
        "another request": b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
        "ones": b"\xff" * 300,
        "100 KiB": sent(b"x" * 102_400),
    }


def _acts() -> Iterator[tuple[str, Act]]:
    speeches = {"server": _of_a_server(), "client": _of_a_client()}
    last_words = {"server": sent("last", CLOSE), "client": frame(b"last words") + frame(b"\x03\xe8", CLOSE)}
    for by, says in speeches.items():
        for (name, data), glued in product(says.items(), (False, True)):
            how = "at once" if glued else "later"
            yield f"{by}: {name}, {how}, FIN", Act(by, data, "fin", glued)
            if len(data) < 2000:
                yield f"{by}: {name}, {how}, RST", Act(by, data, "reset", glued)
        yield f"{by}: a text, FIN, and an answer", Act(by, says["a text"], "fin", answer=last_words[by])
        yield (
            f"{by}: half a frame, FIN, and an answer",
            Act(by, says["half a frame"], "fin", answer=last_words[by]),
        )
        yield (
            f"{by}: a close, FIN, and an answer",
            Act(by, says["a text and a close"], "fin", answer=last_words[by]),
        )


ACTS = dict(_acts())
