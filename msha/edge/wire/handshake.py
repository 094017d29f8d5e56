"""HTTP heads as values: what a client asked for, what a back-source answered, what we say to either.

No sockets here. A head is parsed only once it is whole, so that bytes that come one at a time get the same
verdict as bytes that come at once. httptools does the grammar; what it lets through and RFC 9112 or RFC 6455
do not is checked here.
"""

import re
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus
from typing import Any

import httptools

from msha.edge.wire.proxy_protocol import V1_BEGINNING
from msha.steering.errors import Terminal
from msha.steering.router_id import NONE_REPEATED, Indexed, Request, indexed

#: A request or response head may be this long, and no longer.
HEAD_LIMIT_BYTES = 16_384

#: A head may have this many fields.
FIELD_LIMIT = 100


def take_heads_of(size_bytes: int, fields: int) -> None:
    """No head in this process may be longer, or have more fields.

    Numbers of the module, because every head needs them; to be called before there is one.
    """
    global HEAD_LIMIT_BYTES, FIELD_LIMIT
    HEAD_LIMIT_BYTES, FIELD_LIMIT = size_bytes, fields


#: Of an answer other than 101, at most so much body is passed on.
ANSWER_LIMIT_BYTES = 65_536

#: Under this path the edge answers by itself, on whatever host.
WELL_KNOWN = "/.well-known/msha/"

Field = tuple[bytes, bytes]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ACCEPT = b"sec-websocket-accept"
_EXTENSIONS = b"sec-websocket-extensions"
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
#: Method, authority of an absolute target, path, query, minor version; printable ASCII without ``#``.
_REQUEST_LINE = re.compile(
    rb"(GET|HEAD) (?=[/HWhw])(?:(?i:https?|wss?)://([^/?# ]*)(?=[/? ]))?"
    rb"(/[!-\"$->@-~]*)?(?:\?([!-\"$-~]*))? HTTP/1\.([01])\r\n"
)
#: Whether a comma-separated list has the token; a pattern, because such a list can be as long as a head.
_TOKEN = {
    token: re.compile(rb"(?i:(?:^|,)[ \t]*%b[ \t]*(?:,|\Z))" % token).search
    for token in (b"upgrade", b"websocket")
}
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode("ascii") for status in HTTPStatus
}

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

#: Clients choose the names of their fields, so not all can be remembered.
_REMEMBERED_NAMES = 512
_REMEMBERED_NAME_BYTES = 64

#: A host name has at most 253 characters; with brackets, a port and a dot at its end it has this many.
_HOST_LIMIT_BYTES = 262


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


class RequestHead(Request):
    """A request head that follows the grammar, ready to be decided on.

    Attributes:
        version: ``1.0`` or ``1.1``.
        host: of the target when that is absolute, else of the Host field; empty if neither is there.
        sent: names and values of the fields as they came, in their order.
        key: the Sec-WebSocket-Key, or empty.
    """

    __slots__ = ("key", "method", "sent", "version")

    def __init__(self, line: re.Match[bytes], sent: Collection[Field]) -> None:
        method, authority, path, query, version = line.groups()
        self.method = "GET" if method == b"GET" else "HEAD"
        self.version = "1.1" if version == b"1" else "1.0"
        self.secure = False
        self.sent = sent
        self.fields, self.repeated = _lower(sent)
        self.key = self.fields.get(b"sec-websocket-key", b"")
        self.path = path.decode("ascii") if path else "/"
        self.query = query.decode("ascii") if query else ""
        self.host = _host_of(self, authority)


class ResponseHead(Indexed):
    """A response head that follows the grammar; attributes as in :class:`RequestHead`."""

    __slots__ = ("phrase", "sent", "status", "version")

    def __init__(self, status: int, version: str, phrase: bytes, sent: Collection[Field]) -> None:
        self.status = status
        self.version = version
        self.phrase = phrase
        self.sent = sent
        self.fields, self.repeated = _lower(sent)


def _lower(sent: Collection[Field]) -> tuple[dict[bytes, bytes], Mapping[bytes, Sequence[bytes]]]:
    """The fields by their lower-case names, as a :class:`Request` has them."""
    fields = {name.lower(): value for name, value in sent}
    if len(fields) == len(sent):
        return fields, NONE_REPEATED
    return indexed([(name.lower(), value) for name, value in sent])


class _Collector:
    """Receives what httptools finds."""

    __slots__ = ("body", "complete", "phrase", "sent", "size")

    def __init__(self) -> None:
        self.sent: list[Field] = []
        self.phrase = b""
        self.body: list[bytes] = []
        self.size = 0
        self.complete = False

    def on_status(self, phrase: bytes) -> None:
        self.phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        self.sent.append((name, value.strip(b" \t")))

    def on_body(self, data: bytes) -> None:
        if not self.complete and self.size < ANSWER_LIMIT_BYTES:
            self.body.append(data[: ANSWER_LIMIT_BYTES - self.size])
        self.size += len(data)

    def on_message_complete(self) -> None:
        self.complete = True


class _Shortcut:
    """Receives the fields of nearly every head, at half the cost of a :class:`_Collector`.

    The callback is a method of the container itself, so no Python code runs for a field. A dict keeps one of
    several fields of the same name, which :func:`_whole` notices.
    """

    __slots__ = ("on_header",)

    def __init__(self, fields: dict[bytes, bytes]) -> None:
        self.on_header = fields.__setitem__


def _whole(fields: dict[bytes, bytes], data: bytes) -> bool:
    """Whether these are the fields of the head as they are to be read: none twice, no space after a value.

    A tab anywhere is rare enough to look closer; to find one byte is much cheaper than to find two.
    """
    return len(fields) == data.count(b"\n") - 2 and b" \r" not in data and b"\t" not in data


def head_end(data: bytes, seen: int = 0) -> int | None:
    """Where the head ends and what was pipelined begins, or None while it is not whole.

    Args:
        seen: how many bytes were there at the last call.

    Raises:
        InvalidHead: it can only become worse: too long, or not HTTP by its first byte or line end.
    """
    found = data.find(b"\r\n\r\n", seen - 3 if seen > 3 else 0)
    end = found + 4 if found >= 0 else len(data)
    if not 65 <= data[0] <= 90:
        raise InvalidHead(400, "not_http", "The connection does not begin with an HTTP request.")
    begin = 0
    if seen:
        begin = seen if data[seen - 1 : seen] == b"\n" else seen - 1
    stop = end if end < HEAD_LIMIT_BYTES else HEAD_LIMIT_BYTES
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
    fields: dict[bytes, bytes] = {}
    _feed_request(_Shortcut(fields), data)
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise _invalid_line(data)
    sent: Collection[Field] = fields.items()
    if not _whole(fields, data):
        every = _Collector()
        _feed_request(every, data)
        sent = every.sent
    if len(sent) > FIELD_LIMIT:
        raise InvalidHead(431, "too_many_fields", f"The request has more than {FIELD_LIMIT} header fields.")
    head = RequestHead(line, sent)
    if b"transfer-encoding" in head.fields or head.fields.get(b"content-length", b"0") != b"0":
        raise InvalidHead(400, "body", "The request must not have a body.")
    if head.repeated:
        _check_repeated(head)
    return head


def _invalid_line(data: bytes) -> InvalidHead:
    """What is wrong with a request line that httptools lets pass."""
    line = data[: data.find(b"\r\n")]
    if line[-9:-1] != b" HTTP/1." or line[-1] not in b"01":
        return InvalidHead(505, "http_version", "Use HTTP/1.1.")
    if not line.startswith((b"GET ", b"HEAD ")):
        return InvalidHead(405, "method", "Only GET is answered here.", ((b"Allow", b"GET, HEAD"),))
    if line.count(b" ") != 2:
        return InvalidHead(400, "malformed", "One space must stand on either side of the target.")
    if not line.isascii():
        return InvalidHead(400, "target", "The request target must be ASCII.")
    if b"#" in line:
        return InvalidHead(400, "target", "The request target must not have a fragment.")
    return InvalidHead(400, "target", "The request target must be a path.")


def _feed_request(found: _Collector | _Shortcut, data: bytes) -> None:
    try:
        httptools.HttpRequestParser(found).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # how httptools says that the head is whole and asks for another protocol
    except httptools.HttpParserInvalidMethodError:
        if data.startswith(V1_BEGINNING):
            raise InvalidHead(
                400, "proxy_protocol", "No PROXY header is expected from your address."
            ) from None
        raise InvalidHead(405, "method", "Only GET is answered here.", ((b"Allow", b"GET, HEAD"),)) from None
    except httptools.HttpParserError as error:
        raise InvalidHead(400, "malformed", f"The request head is malformed: {error}.") from None


def _check_repeated(head: RequestHead) -> None:
    """No field is there twice of which there may be one."""
    if any(value != b"0" for value in head.values(b"content-length")):
        raise InvalidHead(400, "body", "The request must not have a body.")
    if b"sec-websocket-key" in head.repeated:
        raise InvalidHead(400, "websocket_key", "Sec-WebSocket-Key must be given once.")


def _host_of(head: RequestHead, authority: bytes | None) -> str:
    """The host of a request. An absolute target overrides the Host field (RFC 9112 3.2.2)."""
    given = head.fields.get(b"host")
    if given is None:
        if head.version == "1.1":
            raise InvalidHead(400, "host", "The request must have exactly one Host field.")
        given = b""
    elif b"host" in head.repeated:
        raise InvalidHead(400, "host", "The request must have exactly one Host field.")
    given = given if authority is None else authority
    host = _host(given) if len(given) <= _HOST_LIMIT_BYTES else None
    if host is None:
        raise InvalidHead(400, "host", "The Host field is not a host name with an optional port.")
    if not host and head.version == "1.1":
        raise InvalidHead(400, "host", "The Host field is empty.")
    return host


def host_in(value: bytes) -> str:
    """The host name, with its port if there is one, that is the whole value; empty if it is none."""
    return "" if len(value) > _HOST_LIMIT_BYTES else _host(value) or ""


@lru_cache(maxsize=1024)
def _host(given: bytes) -> str | None:
    """The text of a Host field, empty if it is empty; None if it cannot be a host name with a port.

    What comes is remembered, so nothing that is long may come.
    """
    text = given.decode("latin-1")
    return text if not text or _HOST.fullmatch(text) else None


def asks_for_websocket(head: RequestHead) -> bool:
    """Whether this is a WebSocket handshake, and one that RFC 6455 4.2.1 allows.

    Raises:
        InvalidHead: it was meant to be one, but something is missing or was taken away on the way.
    """
    if head.path.startswith(WELL_KNOWN):
        return False
    upgrade = _names(head, b"upgrade", b"websocket")
    if not head.key:
        if upgrade:
            raise InvalidHead(400, "websocket_key", "The handshake lacks a Sec-WebSocket-Key.")
        return False
    if head.version != "1.1" or not upgrade or not _names(head, b"connection", b"upgrade"):
        raise InvalidHead(
            400,
            "downgraded",
            "The handshake has a Sec-WebSocket-Key but is not an HTTP/1.1 upgrade: a load balancer or proxy "
            "on the way downgraded it. Let that proxy speak HTTP/1.1 to this address and pass the fields "
            "Upgrade and Connection on.",
        )
    if head.method != "GET":
        raise InvalidHead(405, "method", "A handshake is a GET.", ((b"Allow", b"GET"),))
    if head.fields.get(b"sec-websocket-version") != b"13" or b"sec-websocket-version" in head.repeated:
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
    fields: dict[bytes, bytes] = {}
    try:
        httptools.HttpResponseParser(_Shortcut(fields)).feed_data(data)
    except httptools.HttpParserUpgrade:
        if data.startswith(b"HTTP/1.1 101") and _whole(fields, data):
            return ResponseHead(101, "1.1", b"", fields.items())
    except httptools.HttpParserError:
        pass  # told below
    return _parse_any_response(data)


def _parse_any_response(data: bytes) -> ResponseHead:
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
    if not data.startswith(b"HTTP/1.") or _CONTROL.search(found.phrase):
        raise InvalidAnswer("its answer does not begin with a status line")
    if len(found.sent) > FIELD_LIMIT:
        raise InvalidAnswer(f"its answer has more than {FIELD_LIMIT} header fields")
    head = ResponseHead(status, version, found.phrase, found.sent)
    # Nobody asked for another coding, and a client could not know of it: the field ends here.
    codings = [coding.lower() for coding in head.values(b"transfer-encoding")]
    if status != 101 and codings not in ([], [b"chunked"]):
        raise InvalidAnswer("its answer has a transfer coding other than chunked")
    return head


def check_switch(head: ResponseHead, key: bytes) -> None:
    """The 101 is one that a client with this key must accept (RFC 6455 4.1), so that a tunnel may open.

    Raises:
        InvalidAnswer: it is not.
    """
    if head.version != "1.1":
        raise InvalidAnswer("its 101 is not HTTP/1.1")
    if len(head.sent) > FIELD_LIMIT:
        raise InvalidAnswer(f"its answer has more than {FIELD_LIMIT} header fields")
    if not _names(head, b"upgrade", b"websocket"):
        raise InvalidAnswer("its 101 lacks Upgrade: websocket")
    if not _names(head, b"connection", b"upgrade"):
        raise InvalidAnswer("its 101 lacks Connection: Upgrade")
    if head.fields.get(_ACCEPT) != accept_for(key) or _ACCEPT in head.repeated:
        raise InvalidAnswer("its 101 has a wrong Sec-WebSocket-Accept")


def extensions(head: ResponseHead) -> Sequence[bytes]:
    """What a 101 says of extensions, one value for each line."""
    return head.values(_EXTENSIONS)


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
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):  # the latter in a second answer
            self._found.complete = True

    @property
    def complete(self) -> bool:
        """Whether the body has ended or has reached the bound."""
        return self._found.complete or self._found.size >= ANSWER_LIMIT_BYTES

    @property
    def body(self) -> bytes:
        """What has come so far."""
        return b"".join(self._found.body)


class _GoesOn(dict[bytes, bool]):
    """Whether a field of a name, as sent, goes on to the other side; remembered for as many as there is room.

    Args:
        dropped: lower-case names of those that do not.
    """

    def __init__(self, dropped: frozenset[bytes], dropped_prefixes: tuple[bytes, ...]) -> None:
        super().__init__()
        self._dropped = dropped
        self._prefixes = dropped_prefixes

    def __missing__(self, name: bytes) -> bool:
        lower = name.lower()
        # To CGI, and what came after it, "_" and "-" in a name are the same.
        goes_on = lower not in self._dropped and not lower.replace(b"_", b"-").startswith(self._prefixes)
        if len(name) <= _REMEMBERED_NAME_BYTES:
            if len(self) >= _REMEMBERED_NAMES:
                self.clear()  # else whoever fills it with nonsense once would make every later head dearer
            self[name] = goes_on
        return goes_on


_GOES_UP = _GoesOn(_HOP_BY_HOP | {b"host", b"forwarded"}, _OURS)
_GOES_DOWN = _GoesOn(_HOP_BY_HOP, ())


def back_source_request(
    head: RequestHead, target: str, peer: str, ours: Iterable[Field], *, asked_host: str = ""
) -> bytes:
    """The request head for the back-source: the client's, with hop-by-hop fields and our statements anew.

    Args:
        target: path and query.
        peer: the address of the client, and after it what it passed that is ours.
        ours: further fields that only an edge may send.
        asked_host: what the client asked for where a load balancer of ours has written another Host.
    """
    scheme = "https" if head.secure else "http"
    lines = [
        f"GET {target} HTTP/1.1\r\nHost: {head.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"X-Forwarded-For: {peer}\r\nX-Forwarded-Proto: {scheme}\r\n"
        f"X-Forwarded-Host: {asked_host or head.host}".encode("ascii")
    ]
    lines += [b": ".join(field) for field in _going_on(head, _GOES_UP)]
    lines += [b": ".join(field) for field in ours]
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def switching_protocols(head: ResponseHead) -> bytes:
    """The 101 for the client, from a back-source's that passed :func:`check_switch`."""
    lines = [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"]
    lines += [b": ".join(field) for field in _going_on(head, _GOES_DOWN)]
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def passed_on(head: ResponseHead, body: bytes) -> bytes:
    """A back-source's answer other than 101, for the client; the connection closes after it."""
    fields = _going_on(head, _GOES_DOWN)
    # Of this hop, but without them the client could not make sense of the status (RFC 9110 11.7.1, 15.5.22).
    kept = (b"proxy-authenticate", b"upgrade" if head.status == HTTPStatus.UPGRADE_REQUIRED else b"")
    fields += [field for field in head.sent if field[0].lower() in kept]
    return response(head.status, fields, body, phrase=head.phrase)


def _going_on(head: RequestHead | ResponseHead, goes_on: _GoesOn) -> list[Field]:
    """The fields for the other side, without those that Connection declares to be for this hop only."""
    fields = [field for field in head.sent if goes_on[field[0]]]
    if head.fields.get(b"connection", b"").lower() == b"upgrade" and b"connection" not in head.repeated:
        return fields
    named = b",".join(head.values(b"connection")).lower()
    # A name has no blanks, so none need be looked for at its ends: there may be thousands of them.
    listed = set(named.translate(None, b" \t").split(b","))
    listed = {name for name in listed if not name.startswith(b"sec-websocket-")}  # they are the handshake
    return [field for field in fields if field[0].lower() not in listed]


def refusal(status: int, sentence: str, fields: Sequence[Field] = ()) -> bytes:
    """An error with one sentence as its body."""
    text = (b"Content-Type", b"text/plain; charset=utf-8")
    return response(status, [text, (b"Cache-Control", b"no-store"), *fields], f"{sentence}\n".encode())


def invalid(error: InvalidHead) -> bytes:
    """The answer to a request that is not served."""
    return refusal(error.status, error.sentence, error.fields)


def redirection(status: int, location: str) -> bytes:
    """An answer that sends the client elsewhere, to ask there every time."""
    return (
        b"%b\r\nLocation: %b\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        % (_STATUS_LINES[status], location.encode("ascii"))
    )


def response(
    status: int, fields: Sequence[Field], body: bytes = b"", *, phrase: bytes = b"", with_body: bool = True
) -> bytes:
    """A whole response, after which the connection closes.

    Args:
        with_body: False in answer to a HEAD, which tells the length of the body but does not send it.
    """
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Answer" % status]
    if phrase:
        lines = [b"HTTP/1.1 %d %b" % (status, phrase)]
    lines += [b": ".join(field) for field in fields]
    if status != HTTPStatus.NO_CONTENT:
        lines.append(b"Content-Length: %d" % len(body))
    upgrade = status == HTTPStatus.UPGRADE_REQUIRED and any(name.lower() == b"upgrade" for name, _ in fields)
    lines.append(b"Connection: close, Upgrade\r\n\r\n" if upgrade else b"Connection: close\r\n\r\n")
    if with_body:
        lines[-1] += body
    return b"\r\n".join(lines)


def _names(head: RequestHead | ResponseHead, name: bytes, token: bytes) -> bool:
    """Whether the comma-separated list of a field, over all its lines, has the token."""
    first = head.fields.get(name)
    if first is None:
        return False
    return first.lower() == token or any(_TOKEN[token](value) for value in head.values(name))
