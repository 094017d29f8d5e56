"""Request and answer heads by grammar: mostly right, often with one thing that is not."""

from hypothesis import strategies as st

from tests.support.websocket_wire import accept_key

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = accept_key(KEY)


Choice = tuple[bytes, st.SearchStrategy[bytes]]


def _mostly(usual: str, *others: str) -> Choice:
    """What a part of a head is, and what it is when it is odd."""
    return usual.encode(), st.sampled_from([text.encode("latin-1") for text in others])


class _Parts:
    """Draws the parts of a head, of which at most two are odd."""

    def __init__(self, draw: st.DrawFn, count: int) -> None:
        self._draw = draw
        self._odd = draw(st.sets(st.integers(0, count - 1), max_size=2))
        self._next = 0

    def odd(self) -> bool:
        """Whether the next part is to be odd."""
        self._next += 1
        return self._next - 1 in self._odd

    def take(self, choice: Choice) -> bytes:
        """The next part."""
        usual, others = choice
        return self._draw(others) if self.odd() else usual


_METHODS = _mostly(
    "GET", "HEAD", "POST", "OPTIONS", "CONNECT", "PRI", "BREW", "get", "GE T", "GET\t", "", "M-SEARCH"
)
_VERSIONS = _mostly(
    "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/1.10", "HTTP/01.1", "http/1.1",
    "HTTP/1,1", "HTTP /1.1", "HTTP/1.1 ", "RTSP/1.0", "RTSP/1.1", "ICE/1.1", "",
)  # fmt: skip
_HOSTS = _mostly(
    "websocket.test", "websocket.test:80", "WEBSOCKET.test.", "[::1]", "[::1]:8080", "10.0.0.1:1", "", "a b",
    "a,b", "a@b", "a/b", "a?b", "a:", "a:b", "a:123456", "[::1", "w\xe9b", "xn--", "xn--zz.test", "a..b",
    ".", "-", "_", "a" * 64, "a." * 130, "a%20b", "[v1.x]", "a:80:80", "[]", "a\tb", "a;b", "a\\b",
)  # fmt: skip
_TARGETS = _mostly(
    "/", "/ws/chat?routerId=7000", "/ ", " /", "/?", "//", "//other.test/x", "/a//b/../c;d=e", "/%2e%2e/%00",
    "/?a=b?c=d#", "/#f", "*", "?a=b", "a", "http://websocket.test/x?y", "HTTPS://websocket.test",
    "ws://websocket.test?x", "wss://[::1]:1/", "http://a@websocket.test/", "http:///x", "http://", "http:/x",
    "ftp://websocket.test/", "websocket.test:80", "/\xe9", "/\x7f", "/\x01", "/a b", "/a\tb",
    "/.well-known/msha/status", "/.well-known/msha/", "/.well-known/msha", '/<>"{}|\\^`', "/" + "x" * 16_000,
    "/?" + "y" * 20_000,
)  # fmt: skip
_UPGRADES = _mostly(
    "websocket", "WebSocket", "h2c, websocket", "websocket, h2c", "websocket/13", "h2c", "", "web socket",
    "websocket,", ",websocket", "websocket;q=1", "\xe9, websocket",
)  # fmt: skip
_CONNECTIONS = _mostly(
    "Upgrade", "upgrade", "keep-alive, Upgrade", "Upgrade,close", "close", "keep-alive", "",
    "Upgrade, X-Secret", "Upgrade, Sec-WebSocket-Key", "Upgrade, Host, Cookie", "Upgrade, X-Forwarded-For",
    "\xe9, Upgrade", "up grade", ",,Upgrade,,", "Upgrade;x",
    "Upgrade, Sec-WebSocket-Accept, Sec-WebSocket-Version",
)  # fmt: skip
_KEYS = _mostly(
    KEY, "AAAAAAAAAAAAAAAAAAAAAA==", "dGhlIHNhbXBsZSBub25jZR==", "c2hvcnQ=", "", "####################==",
    KEY[:-1], KEY + "=", KEY + ", " + KEY, "AAAAAAAAAAAAAAAAAAAAAAA=", "\xe9" * 22 + "==",
    "dGhl HNhbXBsZSBub25jZQ==",
)  # fmt: skip
_WS_VERSIONS = _mostly("13", "8", "013", "13, 8", "", "\xb2", "13.0", "+13")

_NAMES = st.sampled_from(
    (
        "X-A", "x-secret", "Cookie", "Origin", "routerId", "unitType", "Accept", "User-Agent",
        "X-Forwarded-For", "x-forwarded-host", "Forwarded", "X-Msha-Unit", "x-MSHA-Router-Id", "X-Msha",
        "X_Msha_Unit", "X_Forwarded_For", "Keep-Alive", "TE", "Trailer", "Proxy-Connection",
        "Proxy-Authorization", "Expect", "HTTP2-Settings", "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions", "Sec-WebSocket-Accept", "Content-Length", "Transfer-Encoding",
        "Content-Encoding", "Host", "Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version",
        "Date", "!#$%&'*+-.^_`|~09", "X A", "X(A", "X\xe9", "X\0", "", " X-A", "\tX-A", "X-A ",
    )
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from(
        (
            "", "b", "0", "5", "0, 0", "1111", "7000", "b c", "b\tc", "chunked", "Chunked", "gzip, chunked",
            "identity", "100-continue", "trailers", "X-A", "close", "upgrade", "websocket", "h2c", "chat",
            "chat, other", "permessage-deflate; client_max_window_bits", "routerId=7000; a=b",
            "b\r\n folded", "b\r\n\tfolded", "b\r\nX-Injected: c", "b\nX-Injected: c", "b\rX-Injected: c",
            "b\r\n\r\nGET / HTTP/1.1", "b\0c", "\x0bb", "b\x0c", "b\x7f", "\x01", "\x1fb", "b\x85",
            "\xa0b\xa0", "\xe9", "\xff\xfe", '"a, b"', ":", " : ", "\\", "99999999999999999999", "-1", "+5",
            "0x5", "websocket.test", "13",
        )
    ),
    st.binary(max_size=12).map(lambda data: data.decode("latin-1")),
)  # fmt: skip
_SEPARATORS = _mostly(": ", ":", ":\t", ":  \t ", " : ", "\t:", " ", "")
_ENDS = _mostly("\r\n", "\n", "\r", "\r\r\n", "\n\r\n", " \r\n", "\t\r\n", "")

_HARMLESS = st.sampled_from(
    (
        b"X-A: b", b"x-a:  \tb c \t", b"Cookie: routerId=7000; a=b", b"Origin: http://a", b"routerId: 1111",
        b"X-Empty:", b"X-Forwarded-For: 6.6.6.6", b"x-forwarded-host: evil", b"Forwarded: for=6.6.6.6",
        b"X-MSHA-Unit: evil", b"X_Msha_Unit: evil", b"X_Forwarded-For: 6.6.6.6", b"X-Msha: kept",
        b"Keep-Alive: 5", b"TE: trailers", b"Proxy-Connection: x", b"Proxy-Authorization: x",
        b"Expect: 100-continue", b"HTTP2-Settings: x", b"Sec-WebSocket-Protocol: chat, other",
        b"Sec-WebSocket-Extensions: permessage-deflate", b"Content-Length: 0",
        b"X-Latin: \xe9\xff\x80\x85\xa0", b"!#$%&'*+-.^_`|~09: token", b"X-Secret: s", b"X-Quoted: \"a, b\"",
        b"Set-Cookie: a=b", b"Location: http://a/", b"Content-Type: text/plain",
        b"Sec-WebSocket-Version: 13", b"Connection: X-Secret", b"Connection: close", b"Connection: Upgrade",
        b"Upgrade: h2c", b"Upgrade: websocket", b"Date: now", b"Proxy-Authenticate: x", b"Trailer: x",
        b"Content-Encoding: gzip",
    )
)  # fmt: skip
_HOSTILE = st.builds(
    lambda name, separator, value: name.encode("latin-1") + separator.encode() + value.encode("latin-1"),
    _NAMES,
    st.sampled_from((": ", ": ", ":", ":\t", " : ", "\t:", " ", "")),
    _VALUES,
)
_MANY = st.sampled_from((93, 94, 95, 96, 97, 98, 300))
_MORE = st.sampled_from((b"\x81\x80abcd", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"\n\n\0x"))
_ENDS = st.sampled_from(
    (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b" \r\n", b"\t\r\n", b"", b"\r\n\r\n", b"\r\n \r\n")
)


def _head(draw: st.DrawFn, parts: _Parts, first: bytes, lines: list[bytes]) -> bytes:
    """The head: with further fields, and perhaps without one, in another order, ended oddly, too long."""
    if parts.odd():
        del lines[draw(st.integers(0, len(lines) - 1))]
    lines = lines + draw(st.lists(_HARMLESS, max_size=3))
    if parts.odd():
        lines += draw(st.lists(_HOSTILE, min_size=1, max_size=2))
    if parts.odd():
        lines = [*lines, *[b"X-Many: y"] * draw(_MANY)]
    elif draw(st.booleans()):
        lines = draw(st.permutations(lines))
    whole = [first, *lines]
    at = draw(st.integers(0, len(whole) - 1)) if parts.odd() else -1
    end = draw(_ENDS) if at >= 0 else b""
    if parts.odd():
        room = 16_384 - sum(map(len, whole)) - 2 * len(whole) - 6
        whole.append(b"X: " + b"y" * (max(room, 0) + draw(st.sampled_from((-1, 0, 1, 2, 9000)))))
    return b"".join(line + (end if index == at else b"\r\n") for index, line in enumerate(whole)) + b"\r\n"


@st.composite
def request_heads(draw: st.DrawFn) -> bytes:
    """A handshake, or what somebody could send instead, and what comes behind it."""
    parts = _Parts(draw, 20)
    first = b" ".join((parts.take(_METHODS), parts.take(_TARGETS), parts.take(_VERSIONS)))
    lines = [
        b"Host: " + parts.take(_HOSTS),
        b"Upgrade: " + parts.take(_UPGRADES),
        b"Connection: " + parts.take(_CONNECTIONS),
        b"Sec-WebSocket-Key: " + parts.take(_KEYS),
        b"Sec-WebSocket-Version: " + parts.take(_WS_VERSIONS),
    ]
    head = _head(draw, parts, first, lines)
    return head + draw(_MORE) if parts.odd() else head


_STATUSES = _mostly(
    "101 Switching Protocols", "101", "101 ", "101 \0", "200", "404 \xe9", "500 a\tb", "503 \0", "503 \x0b",
    "503 \x01", "503 \x7f", "100 Continue", "103 Early", "099 x", "999 x", "600 x", "1010 x", "20 x",
    " 200 OK", "200OK", "+200 x",
)  # fmt: skip
_OTHERS = st.sampled_from(
    (
        b"200 OK",
        b"204 None",
        b"205 Reset",
        b"302 Found",
        b"304 Not Modified",
        b"401 Proof",
        b"403 No",
        b"426 Upgrade",
    )
)
_ANSWER_VERSIONS = _mostly(
    "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "http/1.1", "RTSP/1.1", "ICE/1.0",
    "\r\nHTTP/1.1", " HTTP/1.1", "SSH-2.0-x", "",
)  # fmt: skip
_ACCEPTS = _mostly(ACCEPT, ACCEPT.lower(), "c29tZXRoaW5nIGVsc2U=", "", ACCEPT + ", " + ACCEPT, f'"{ACCEPT}"')
_BODIES = st.one_of(
    st.sampled_from(
        (
            b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
            b"5\r\nhel", b"5\r\nhelloX\r\n", b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"FFFFFFFFFFFFFFFFF\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"-5\r\nhello", b"x" * 70_000,
            b"10000\r\n" + b"y" * 65_536 + b"\r\n0\r\n\r\n", b"\x81\x05hello",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        )
    ),
    st.binary(max_size=20),
)  # fmt: skip


_FRAMINGS = st.sampled_from(
    (
        [], [b"Content-Length: 5"], [b"Content-Length: 5"], [b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked"], [b"Content-Length: 70000"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"], [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5, 5"], [b"Transfer-Encoding: gzip"], [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip, chunked"], [b"Content-Length: 99999999999999999999"],
        [b"Content-Length: -1"],
    )
)  # fmt: skip


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """What a back-source may answer: a 101 or something else, with what follows."""
    parts = _Parts(draw, 14)
    switch = draw(st.booleans())
    version, status = parts.take(_ANSWER_VERSIONS), parts.take(_STATUSES)
    first = version + b" " + (status if switch else draw(_OTHERS))
    lines = [
        b"Upgrade: " + parts.take(_UPGRADES),
        b"Connection: " + parts.take(_CONNECTIONS),
        b"Sec-WebSocket-Accept: " + parts.take(_ACCEPTS),
    ]
    if not switch:
        lines = [b"Server: x"]
    if not switch or parts.odd():
        lines += draw(_FRAMINGS)
    return _head(draw, parts, first, lines) + draw(_BODIES)
