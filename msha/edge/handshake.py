"""HTTP heads as values: what a client asked for, what a back-source answered, what we say to either.

No sockets here. A head is parsed only once it is whole, so that bytes that come one at a time get the same
verdict as bytes that come at once. httptools does the grammar; what it lets through and RFC 9112 or RFC 6455
do not is checked here.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from http import HTTPStatus
from typing import Any

import httptools

from msha.steering.errors import Terminal

#: A request or response head may be this long, and no longer.
HEAD_LIMIT_BYTES = 16_384

#: A head may have this many fields.
FIELD_LIMIT = 100

#: Of an answer other than 101, at most so much body is passed on.
ANSWER_LIMIT_BYTES = 65_536

#: Under this path the edge answers by itself, on whatever host.
WELL_KNOWN = "/.well-known/msha/"

Field = tuple[bytes, bytes]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(r"(?:https?|wss?)://([^/?]*)(/[^?]*)?(\?.*)?", re.IGNORECASE)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}

#: Fields of which we need every value.
_WATCHED = frozenset(
    (
        b"connection",
        b"content-length",
        b"host",
        b"sec-websocket-accept",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"transfer-encoding",
        b"upgrade",
    )
)

#: Fields that belong to one connection (RFC 9110 7.6.1) or describe a body, and are written anew.
_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)

#: Statements that only an edge may make; a client's own are dropped.
_OURS = (b"x-msha-", b"x-forwarded-")


@dataclass(eq=False)
class InvalidHead(Terminal):
    """A request that is answered with an error, whatever the snapshot says.

    Attributes:
        reason: one word for logs and counters.
        sentence: for whoever reads the answer; says what to do.
        fields: further fields of the answer.
    """

    status: int
    reason: str
    sentence: str
    fields: tuple[Field, ...] = ()

    def __str__(self) -> str:
        return f"{self.status} {self.sentence}"


@dataclass(eq=False)
class InvalidAnswer(Terminal):
    """A back-source answered something that is not HTTP, or a 101 that RFC 6455 4.1 does not allow."""

    problem: str

    def __str__(self) -> str:
        return self.problem


class RequestHead:
    """A request head that follows the grammar.

    Attributes:
        version: ``1.0`` or ``1.1``.
        host: of the target when that is absolute, else of the Host field; empty if neither is there.
        path, query: of the target as sent, ASCII, still percent-encoded.
        fields: ``(lower-case name, value)`` in the order they came, as in an ASGI scope.
        names: the names of the fields as sent.
        key: the Sec-WebSocket-Key, or empty.
        watched: all values of the fields that decide what kind of request this is.
    """

    __slots__ = ("fields", "host", "key", "method", "names", "path", "query", "version", "watched")

    def __init__(self, method: str, version: str, found: "_Collector") -> None:
        self.method = method
        self.version = version
        self.fields = found.fields
        self.names = found.names
        self.watched = _watched(found.fields)
        self.host, self.path, self.query = _place(found.target, self.watched, version)
        self.key = self.watched.get(b"sec-websocket-key", [b""])[0]


class ResponseHead:
    """A response head that follows the grammar; attributes as in :class:`RequestHead`."""

    __slots__ = ("fields", "names", "phrase", "status", "version", "watched")

    def __init__(self, status: int, version: str, found: "_Collector") -> None:
        self.status = status
        self.version = version
        self.phrase = found.phrase
        self.fields = found.fields
        self.names = found.names
        self.watched = _watched(found.fields)


class _Collector:
    """Receives what httptools finds."""

    __slots__ = ("body", "complete", "fields", "names", "phrase", "size", "target")

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.fields: list[Field] = []
        self.target = b""
        self.phrase = b""
        self.body: list[bytes] = []
        self.size = 0
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_status(self, phrase: bytes) -> None:
        self.phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        self.names.append(name)
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_body(self, data: bytes) -> None:
        if self.size < ANSWER_LIMIT_BYTES:
            self.body.append(data[: ANSWER_LIMIT_BYTES - self.size])
        self.size += len(data)

    def on_message_complete(self) -> None:
        self.complete = True


def head_end(data: bytes, seen: int = 0) -> int | None:
    """Where the head ends and what was pipelined begins, or None while it is not whole.

    Args:
        seen: how many bytes were there at the last call.

    Raises:
        InvalidHead: it can only become worse: too long, or not HTTP by its first byte or line end.
    """
    found = data.find(b"\r\n\r\n", max(0, seen - 3))
    end = found + 4 if found >= 0 else len(data)
    if not 65 <= data[0] <= 90:
        raise InvalidHead(400, "not_http", "The connection does not begin with an HTTP request.")
    begin = max(0, seen - 1)
    if data[begin : begin + 1] == b"\n":
        begin += 1
    stop = min(end, HEAD_LIMIT_BYTES)
    if data.count(b"\n", begin, stop) != data.count(b"\r\n", begin, stop):
        raise InvalidHead(400, "bare_line_feed", "The lines of the request must end with CR LF.")
    if end > HEAD_LIMIT_BYTES or (found < 0 and end == HEAD_LIMIT_BYTES):
        raise InvalidHead(431, "head_too_long", f"The request head is longer than {HEAD_LIMIT_BYTES} bytes.")
    return end if found >= 0 else None


def parse_request(data: bytes) -> RequestHead:
    """The request of a whole head.

    Raises:
        InvalidHead: the grammar or one of the rules for every request is broken.
    """
    found = _Collector()
    parser: Any = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # how httptools says that the head is whole and asks for another protocol
    except httptools.HttpParserInvalidMethodError:
        raise InvalidHead(405, "method", "Only GET is answered here.", ((b"Allow", b"GET, HEAD"),)) from None
    except httptools.HttpParserError as error:
        raise InvalidHead(400, "malformed", f"The request head is malformed: {error}.") from None
    method = parser.get_method().decode("ascii")
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise InvalidHead(505, "http_version", "Use HTTP/1.1.")
    if method not in ("GET", "HEAD"):
        raise InvalidHead(405, "method", "Only GET is answered here.", ((b"Allow", b"GET, HEAD"),))
    if data[len(method) + 1 : len(method) + 2] == b" ":
        raise InvalidHead(400, "malformed", "One space must stand between method and target.")
    if len(found.fields) > FIELD_LIMIT:
        raise InvalidHead(431, "too_many_fields", f"The request has more than {FIELD_LIMIT} header fields.")
    head = RequestHead(method, version, found)
    watched = head.watched
    if b"transfer-encoding" in watched or watched.get(b"content-length", [b"0"]) != [b"0"]:
        raise InvalidHead(400, "body", "The request must not have a body.")
    if len(watched.get(b"sec-websocket-key", ())) > 1:
        raise InvalidHead(400, "websocket_key", "Sec-WebSocket-Key must be given once.")
    return head


def _place(target: bytes, watched: dict[bytes, list[bytes]], version: str) -> tuple[str, str, str]:
    """Host, path and query. An absolute target overrides the Host field (RFC 9112 3.2.2)."""
    hosts = watched.get(b"host", [])
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise InvalidHead(400, "host", "The request must have exactly one Host field.")
    host = hosts[0].decode("latin-1") if hosts else ""
    try:
        text = target.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidHead(400, "target", "The request target must be ASCII.") from None
    if not text.startswith("/"):
        absolute = _ABSOLUTE.fullmatch(text)
        if absolute is None:
            raise InvalidHead(400, "target", "The request target must be a path.")
        host = absolute[1]
        text = (absolute[2] or "/") + (absolute[3] or "")
    if host and not _HOST.fullmatch(host):
        raise InvalidHead(400, "host", "The Host field is not a host name with an optional port.")
    if not host and version == "1.1":
        raise InvalidHead(400, "host", "The Host field is empty.")
    if "#" in text:
        raise InvalidHead(400, "target", "The request target must not have a fragment.")
    path, _, query = text.partition("?")
    return host, path, query


def asks_for_websocket(head: RequestHead) -> bool:
    """Whether this is a WebSocket handshake, and one that RFC 6455 4.2.1 allows.

    Raises:
        InvalidHead: it was meant to be one, but something is missing or was taken away on the way.
    """
    if head.path.startswith(WELL_KNOWN):
        return False
    watched = head.watched
    upgrade = _names(watched, b"upgrade", b"websocket")
    if not head.key:
        if upgrade:
            raise InvalidHead(400, "websocket_key", "The handshake lacks a Sec-WebSocket-Key.")
        return False
    if head.version != "1.1" or not upgrade or not _names(watched, b"connection", b"upgrade"):
        raise InvalidHead(
            400,
            "downgraded",
            "The handshake has a Sec-WebSocket-Key but is not an HTTP/1.1 upgrade: a load balancer or proxy "
            "on the way downgraded it. Let that proxy speak HTTP/1.1 to this address and pass the fields "
            "Upgrade and Connection on.",
        )
    if head.method != "GET":
        raise InvalidHead(405, "method", "A handshake is a GET.", ((b"Allow", b"GET"),))
    if watched.get(b"sec-websocket-version") != [b"13"]:
        raise InvalidHead(
            426,
            "websocket_version",
            "This edge speaks version 13 of the WebSocket protocol.",
            ((b"Sec-WebSocket-Version", b"13"), (b"Upgrade", b"websocket")),
        )
    if not _KEY.fullmatch(head.key):
        raise InvalidHead(400, "websocket_key", "Sec-WebSocket-Key must be 16 bytes in base64.")
    return True


def accept_for(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that proves that the server understood this key (RFC 6455 4.2.2)."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def parse_response(data: bytes) -> ResponseHead:
    """The response of a whole head.

    Raises:
        InvalidAnswer: it is not one.
    """
    found = _Collector()
    parser: Any = httptools.HttpResponseParser(found)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # a 101
    except httptools.HttpParserError as error:
        if parser.get_status_code() != 101 or not found.complete:
            raise InvalidAnswer(f"its answer is malformed: {error}") from None
    status = parser.get_status_code()
    version = parser.get_http_version()
    if not 100 <= status <= 599 or version not in ("1.0", "1.1"):
        raise InvalidAnswer(f"its answer has status {status} and HTTP version {version}")
    if len(found.fields) > FIELD_LIMIT:
        raise InvalidAnswer(f"its answer has more than {FIELD_LIMIT} header fields")
    return ResponseHead(status, version, found)


def check_switch(head: ResponseHead, key: bytes) -> None:
    """The 101 is one that a client with this key must accept (RFC 6455 4.1), so that a tunnel may open.

    Raises:
        InvalidAnswer: it is not.
    """
    watched = head.watched
    if head.version != "1.1":
        raise InvalidAnswer("its 101 is not HTTP/1.1")
    if not _names(watched, b"upgrade", b"websocket"):
        raise InvalidAnswer("its 101 lacks Upgrade: websocket")
    if not _names(watched, b"connection", b"upgrade"):
        raise InvalidAnswer("its 101 lacks Connection: Upgrade")
    if watched.get(b"sec-websocket-accept") != [accept_for(key)]:
        raise InvalidAnswer("its 101 has a wrong Sec-WebSocket-Accept")


class AnswerReader:
    """Collects the body of an answer other than 101, bounded."""

    __slots__ = ("_found", "_parser")

    def __init__(self, head: bytes) -> None:
        self._found = _Collector()
        self._parser: Any = httptools.HttpResponseParser(self._found)
        self.feed(head)

    def feed(self, data: bytes) -> None:
        """Take further bytes; what breaks the framing ends the body."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._found.complete = True

    @property
    def complete(self) -> bool:
        """Whether the body has ended or has reached the bound."""
        return self._found.complete or self._found.size >= ANSWER_LIMIT_BYTES

    @property
    def body(self) -> bytes:
        """What has come so far."""
        return b"".join(self._found.body)


def back_source_request(head: RequestHead, target: str, peer: str, ours: Iterable[Field]) -> bytes:
    """The request head for the back-source: the client's, with hop-by-hop fields and our statements anew.

    Args:
        target: path and query.
        peer: the address of the client.
        ours: further fields that only an edge may send.
    """
    dropped = _HOP_BY_HOP | _listed(head.fields) if _lists_more(head.fields) else _HOP_BY_HOP
    lines = [
        b"GET %b HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        % (target.encode("ascii"), head.host.encode("ascii"))
    ]
    for name, (lower, value) in zip(head.names, head.fields, strict=True):
        if lower in dropped or lower == b"host" or lower == b"forwarded" or lower.startswith(_OURS):
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: %b\r\n"
        % (peer.encode("ascii"), head.host.encode("ascii"))
    )
    lines.extend(b"%b: %b\r\n" % field for field in ours)
    lines.append(b"\r\n")
    return b"".join(lines)


def switching_protocols(head: ResponseHead) -> bytes:
    """The 101 for the client, from a back-source's that passed :func:`check_switch`."""
    dropped = _HOP_BY_HOP | _listed(head.fields) if _lists_more(head.fields) else _HOP_BY_HOP
    lines = [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"]
    for name, (lower, value) in zip(head.names, head.fields, strict=True):
        if lower not in dropped:
            lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"\r\n")
    return b"".join(lines)


def passed_on(head: ResponseHead, body: bytes) -> bytes:
    """A back-source's answer other than 101, for the client; the connection closes after it."""
    dropped = _HOP_BY_HOP | _listed(head.fields)
    fields = [
        (name, value)
        for name, (lower, value) in zip(head.names, head.fields, strict=True)
        if lower not in dropped or lower == b"proxy-authenticate"
    ]
    return response(head.status, fields, body, phrase=head.phrase)


def refusal(status: int, sentence: str, fields: Sequence[Field] = ()) -> bytes:
    """An error with one sentence as its body."""
    text = (b"Content-Type", b"text/plain; charset=utf-8")
    return response(status, [text, (b"Cache-Control", b"no-store"), *fields], f"{sentence}\n".encode())


def response(
    status: int, fields: Iterable[Field], body: bytes = b"", *, phrase: bytes = b"", with_body: bool = True
) -> bytes:
    """A whole response, after which the connection closes.

    Args:
        with_body: False in answer to a HEAD, which tells the length of the body but does not send it.
    """
    fields = list(fields)
    upgrade = b", Upgrade" if any(name.lower() == b"upgrade" for name, _ in fields) else b""
    phrase = phrase or _PHRASES.get(status, "Answer").encode("ascii")
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, phrase)]
    lines.extend(b"%b: %b\r\n" % field for field in fields)
    if status != HTTPStatus.NO_CONTENT:
        lines.append(b"Content-Length: %d\r\n" % len(body))
    lines.append(b"Connection: close%b\r\n\r\n" % upgrade)
    if with_body:
        lines.append(body)
    return b"".join(lines)


def _watched(fields: Iterable[Field]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name in _WATCHED:
            found.setdefault(name, []).append(value)
    return found


def _names(watched: dict[bytes, list[bytes]], name: bytes, token: bytes) -> bool:
    """Whether the comma-separated list of a field, over all its lines, has the token."""
    for value in watched.get(name, ()):
        lower = value.lower()
        if lower == token or token in [item.strip() for item in lower.split(b",")]:
            return True
    return False


def _lists_more(fields: Iterable[Field]) -> bool:
    """Whether Connection names a field beside Upgrade."""
    return any(name == b"connection" and value.lower() != b"upgrade" for name, value in fields)


def _listed(fields: Iterable[Field]) -> frozenset[bytes]:
    """The fields that Connection declares to be for this hop only."""
    return frozenset(
        token.strip().lower()
        for name, value in fields
        if name == b"connection"
        for token in value.split(b",")
    )
