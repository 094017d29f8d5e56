"""What holds for every request head, whoever sends it."""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final

from msha.edge.wire import handshake
from msha.edge.wire.handshake import InvalidHead, RequestHead
from tests.edge.fuzz.mutation import pieces
from tests.edge.fuzz.reference import RequestReading, lone_request, read_handshake, read_request

PEER = "192.0.2.7"
OURS: Final = ((b"X-Msha-Unit", b"center"), (b"X-Msha-Router-Id", b"1111"))

_HOST_NAME = re.compile(r"([0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def read(data: bytes, cuts: list[int] | None = None) -> tuple[str, RequestHead | None, bytes]:
    """The edge's verdict, the head if there is one, and what is behind it.

    The verdict is ``websocket``, ``http``, ``more``, or status and reason of the refusal.
    """
    buffer, seen, end = b"", 0, None
    try:
        for piece in pieces(data, cuts or []):
            seen, buffer = len(buffer), buffer + piece
            end = handshake.head_end(buffer, seen)
            if end is not None:
                break
        if end is None:
            return "more", None, data
        head = handshake.parse_request(data[:end])
        kind = "websocket" if handshake.asks_for_websocket(head) else "http"
    except InvalidHead as error:
        return f"{error.status} {error.reason}", None, b""
    return kind, head, data[end:]


# Where we are stricter than h11 and wsproto, and why: one predicate per verdict, over the head's bytes and
# h11's reading. A refusal of what both accept must be justified by the predicate of its own verdict.


def _bare_line_feed(data: bytes, _: RequestReading) -> bool:
    """RFC 9112 2.2 lets a server take a bare LF for a line end; two that disagree can be fooled."""
    return re.search(rb"(?<!\r)\n", data) is not None


def _too_long(data: bytes, _: RequestReading) -> bool:
    """DESIGN 7: 16 KiB."""
    return len(data) > 16_384


def _too_many(data: bytes, reading: RequestReading) -> bool:
    """DESIGN 7: 100 fields."""
    return len(reading.fields) > 100 or data.count(b"\r\n") > 101


def _body(data: bytes, reading: RequestReading) -> bool:
    """A handshake has none; Content-Length may say so, once and plainly."""
    lengths = re.findall(rb"(?i)\ncontent-length:[ \t]*([^\r\n]*?)[ \t]*\r", data)
    return bool(reading.values(b"transfer-encoding")) or lengths not in ([], [b"0"])


def _malformed(data: bytes, reading: RequestReading) -> bool:
    """What httptools finds itself, before we look.

    Folded lines (RFC 9112 5.2), control characters (RFC 9110 5.5), versions of HTTP that do not exist,
    targets that are neither a path nor a URI, two lengths.
    """
    return (
        re.search(rb"\n[ \t]", data) is not None
        or any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value) for _, value in reading.fields)
        or reading.version not in ("0.9", "1.0", "1.1", "2.0")
        or _body(data, reading)
        or _target(data, reading)
    )


def _host(_: bytes, reading: RequestReading) -> bool:
    """One host name or address with an optional port, in Host and in an absolute target."""
    named = [value.decode("latin-1") for value in reading.values(b"host")]
    return not all(_HOST_NAME.fullmatch(name) for name in (*named, reading.place[1]))


def _target(_: bytes, reading: RequestReading) -> bool:
    """A path, or an absolute URI of HTTP or WebSocket with a host; no fragment (RFC 9112 3.2)."""
    scheme, authority, _, _ = reading.place
    path = reading.target.startswith(b"/")
    return b"#" in reading.target or not (
        path or (scheme.lower() in ("http", "https", "ws", "wss") and authority)
    )


def _key(_: bytes, reading: RequestReading) -> bool:
    """Once, 16 bytes in base64 (RFC 6455 4.2.1); wsproto takes any, and the last of several."""
    keys = reading.values(b"sec-websocket-key")
    try:
        return len(keys) != 1 or len(base64.b64decode(keys[0], validate=True)) != 16
    except binascii.Error:
        return True


def _version(_: bytes, reading: RequestReading) -> bool:
    """Once; wsproto takes the last of several."""
    return len(reading.values(b"sec-websocket-version")) != 1


STRICTER: dict[str, Callable[[bytes, RequestReading], bool]] = {
    "400 bare_line_feed": _bare_line_feed,
    "431 head_too_long": _too_long,
    "431 too_many_fields": _too_many,
    "400 body": _body,
    "400 malformed": _malformed,
    "400 host": _host,
    "400 target": _target,
    "400 websocket_key": _key,
    "426 websocket_version": _version,
    "505 http_version": lambda _, reading: reading.version not in ("1.0", "1.1"),
    # nginx's default proxying (document 003): 1.0 with a key.
    "400 downgraded": lambda _, reading: reading.version != "1.1",
    # Our own addresses are no WebSocket, whatever is asked of them.
    "http": lambda _, reading: reading.place[2].startswith("/.well-known/msha/"),
}


def wsproto_is_stricter(reading: RequestReading) -> bool:
    """wsproto looks at one line of each list, and knows no list in Upgrade; RFC 9110 5.3 and 7.8 do.

    It also fails on a subprotocol or an extension beyond ASCII, which a tunnel passes on unread, and on a
    host that IDNA does not know, which no snapshot has.
    """
    ascii_only = (b"connection", b"sec-websocket-protocol", b"sec-websocket-extensions")
    connection = reading.values(b"connection")[-1]
    try:
        reading.values(b"host")[-1].decode("idna")
    except UnicodeError:
        return True
    return (
        reading.values(b"upgrade")[-1].lower() != b"websocket"
        or b"upgrade" not in [token.strip().lower() for token in connection.split(b",")]
        or any(not value.isascii() for name, value in reading.fields if name in ascii_only)
    )


def check_same_reading(data: bytes, _: list[int]) -> None:
    """What the edge accepts, h11 and wsproto accept, and read the same."""
    verdict, head, rest = read(data)
    if head is None:
        return
    reading = read_request(data)
    assert reading is not None, f"the edge says {verdict}, h11 refuses"
    assert (head.method.encode(), head.version) == (reading.method, reading.version)
    assert [(name.lower(), value) for name, value in head.sent] == reading.fields
    assert [name for name, _ in head.sent] == reading.names
    assert all(list(head.values(name)) == reading.values(name) for name, _ in reading.fields)
    assert (head.host, head.path, head.query) == reading.place[1:]
    assert [head.key] == (reading.values(b"sec-websocket-key") or [b""])
    assert rest == reading.rest
    if verdict == "websocket" and not wsproto_is_stricter(reading):
        taken = read_handshake(data)
        assert taken is not None, "the edge accepts, wsproto refuses"
        assert taken.target.encode() == reading.target
        assert (b"sec-websocket-key", head.key) in taken.extra_headers


def check_stricter_by_rule(data: bytes, _: list[int]) -> None:
    """What h11 and wsproto accept, the edge accepts, unless the rule that it names forbids it."""
    if read_handshake(data) is None:
        return
    reading = read_request(data)
    assert reading is not None
    verdict, _, _ = read(data)
    if verdict == "websocket":
        return
    assert verdict in STRICTER, f"h11 and wsproto accept, the edge says {verdict}"
    head = data[: len(data) - len(reading.rest)]
    assert STRICTER[verdict](head, reading), f"the edge says {verdict}, but nothing justifies it"


def check_any_cut(data: bytes, cuts: list[int]) -> None:
    """However the bytes are cut, the verdict is that of all at once."""
    whole = _outcome(data, None)
    assert _outcome(data, cuts) == whole
    assert _outcome(data, [*range(min(len(data), 400))]) == whole


def _outcome(data: bytes, cuts: list[int] | None) -> tuple[object, ...]:
    verdict, head, rest = read(data, cuts)
    return verdict, rest, head and (head.host, head.path, head.query, head.sent)


#: As RFC 9110 7.6.1 has it, and what describes a body.
_ONE_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"content-length", b"proxy-authorization", b"proxy-authenticate",
}  # fmt: skip


def check_forwarded(data: bytes, _: list[int]) -> None:
    """What the back-source gets is exactly one request, with the fields that are meant and no more."""
    verdict, head, _ = read(data)
    if verdict != "websocket" or head is None:
        return
    target = head.path + (f"?{head.query}" if head.query else "")
    built = handshake.back_source_request(head, target, PEER, OURS)
    assert lone_request(built), "h11 reads something else than one request"
    reading = read_request(built)
    assert reading is not None
    assert (reading.method, reading.target, reading.version) == (b"GET", target.encode(), "1.1")
    sent = read_request(data)
    assert sent is not None
    assert sorted(reading.fields) == sorted(_meant(sent, head.host.encode()))
    if not wsproto_is_stricter(reading):
        assert read_handshake(built) is not None, "wsproto refuses what the edge sends on"


def _meant(sent: RequestReading, host: bytes) -> list[tuple[bytes, bytes]]:
    """The client's own fields, and ours."""
    named = {token.strip().lower() for value in sent.values(b"connection") for token in value.split(b",")}
    kept = [
        (name, value)
        for name, value in sent.fields
        if name not in _ONE_HOP
        and (name not in named or name.startswith(b"sec-websocket-"))
        and name not in (b"host", b"forwarded")
        and not name.replace(b"_", b"-").startswith((b"x-forwarded-", b"x-msha-"))
    ]
    return [
        *kept,
        (b"host", host),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"x-forwarded-for", PEER.encode()),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", host),
        *((name.lower(), value) for name, value in OURS),
    ]
