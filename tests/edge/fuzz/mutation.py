"""Bytes that were once right: what a fuzzer does to them."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

#: What breaks parsers, beside single random bytes.
TOKENS = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\0", b" ", b"\t", b"\x0b", b"\x0c", b"\x7f", b"\x85",
    b"\xa0", b"\xff", b":", b",", b";", b"#", b"?", b"/", b"//", b"@", b"[", b"]", b"%00", b"%0d%0a", b"\\",
    b'"', b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9", b"RTSP/1.1", b"ICE/1.0", b"http://", b"ws://a",
    b"GET ", b"HEAD ", b"POST ", b"get ", b"Host: other.test\r\n", b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n", b"Connection: Sec-WebSocket-Key\r\n", b"Connection: Sec-WebSocket-Accept\r\n",
    b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b" folded\r\n", b"X-Msha-Unit: evil\r\n",
    b"X-Forwarded-For: 6.6.6.6\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"-1", b"99999999999999999999",
)  # fmt: skip

Edit = tuple[str, int, int, bytes]

_EDITS: st.SearchStrategy[list[Edit]] = st.lists(
    st.tuples(
        st.sampled_from(("insert", "delete", "replace", "double", "move")),
        st.integers(0, 1 << 16),
        st.integers(1, 24),
        st.one_of(st.sampled_from(TOKENS), st.binary(min_size=1, max_size=3)),
    ),
    min_size=1,
    max_size=4,
)


def mutated(good: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Some of ``good`` after a few edits."""
    return st.builds(_edited, good, _EDITS)


def _edited(data: bytes, edits: list[Edit]) -> bytes:
    for kind, place, size, token in edits:
        at = place % (len(data) + 1)
        part = data[at : at + size]
        match kind:
            case "insert":
                data = data[:at] + token + data[at:]
            case "delete":
                data = data[:at] + data[at + size :]
            case "replace":
                data = data[:at] + token + data[at + len(token) :]
            case "double":
                data = data[:at] + part + data[at:]
            case _:
                rest = data[:at] + data[at + size :]
                to = place * 7 % (len(rest) + 1)
                data = rest[:to] + part + rest[to:]
    return data


#: Where a stream is cut; taken modulo its length.
CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data cut at those places; no piece is empty."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]
