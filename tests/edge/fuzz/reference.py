"""What h11 and wsproto read of a head, as plain values."""

import re
from dataclasses import dataclass

import h11
import wsproto
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, Request
from wsproto.handshake import H11Handshake

Field = tuple[bytes, bytes]

#: RFC 3986, appendix B.
_URI = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)


@dataclass(frozen=True)
class RequestReading:
    """A request as h11 reads it.

    Attributes:
        fields: lower-case name and value.
        names: as sent.
        rest: what is behind the head.
    """

    method: bytes
    target: bytes
    version: str
    fields: list[Field]
    names: list[bytes]
    rest: bytes

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field."""
        return [value for known, value in self.fields if known == name]

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Scheme, authority (of the target or of Host), path and query."""
        text = self.target.decode("ascii")
        if text.startswith("/"):  # RFC 9112 3.2.1: then it is a path, also if it looks like an authority
            path, _, query = text.partition("?")
            return "", self.values(b"host")[0].decode("latin-1") if self.values(b"host") else "", path, query
        found = _URI.fullmatch(text)
        assert found is not None
        return found[1] or "", found[2] or "", found[3] or "/", found[4] or ""


def read_request(data: bytes) -> RequestReading | None:
    """What h11 makes of it; None if it refuses or waits for more."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request):
        return None
    return RequestReading(
        event.method,
        event.target,
        event.http_version.decode("ascii"),
        [(bytes(name), bytes(value)) for name, value in event.headers],
        [bytes(name) for name, _ in event.headers.raw_items()],
        connection.trailing_data[0],
    )


def read_handshake(data: bytes) -> Request | None:
    """What wsproto makes of it as a server; None if it refuses."""
    server = H11Handshake(ConnectionType.SERVER)
    try:
        server.receive_data(data)
    except (wsproto.utilities.ProtocolError, UnicodeError):
        return None  # UnicodeError is how it fails on a host or a list that is not ASCII
    found = next(iter(server.events()), None)
    return found if isinstance(found, Request) else None


def lone_request(data: bytes) -> bool:
    """Whether h11 reads exactly one request without a body, and nothing behind it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    events = [connection.next_event() for _ in range(3)]
    return (
        isinstance(events[0], h11.Request)
        and isinstance(events[1], h11.EndOfMessage)
        and events[2] is h11.PAUSED
        and connection.trailing_data[0] == b""
    )


@dataclass(frozen=True)
class AnswerReading:
    """An answer as h11 reads it; attributes as in :class:`RequestReading`.

    Attributes:
        body: as far as it came; None where there is none, as behind a 101.
        broken: the framing of the body was broken, or it ended too early.
        rest: what is behind the whole answer.
    """

    status: int
    version: str
    phrase: bytes
    fields: list[Field]
    body: bytes | None
    broken: bool
    rest: bytes

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field."""
        return [value for known, value in self.fields if known == name]


def read_answer(data: bytes, *, ended: bool = True) -> AnswerReading | None:
    """What h11 makes of it as the client of a handshake; None if it refuses or waits for more.

    Args:
        ended: whether the server has closed behind it.
    """
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a"), ("Upgrade", "websocket")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    try:
        event = connection.next_event()
        if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            return _reading(event, None, False, connection.trailing_data[0])
    except h11.RemoteProtocolError:
        return None
    if isinstance(event, h11.InformationalResponse):
        return _reading(event, None, False, connection.trailing_data[0])
    if not isinstance(event, h11.Response):
        return None
    body = b""
    try:
        if ended:
            connection.receive_data(b"")
        while True:
            more = connection.next_event()
            if not isinstance(more, h11.Data):
                whole = isinstance(more, h11.EndOfMessage)
                return _reading(event, body, not whole, connection.trailing_data[0])
            body += bytes(more.data)
    except h11.RemoteProtocolError:
        return _reading(event, body, True, b"")


def _reading(
    event: h11.InformationalResponse | h11.Response, body: bytes | None, broken: bool, rest: bytes
) -> AnswerReading:
    return AnswerReading(
        event.status_code,
        event.http_version.decode("ascii"),
        event.reason,
        [(bytes(name), bytes(value)) for name, value in event.headers],
        body,
        broken,
        rest,
    )


def switches(data: bytes, accept: str) -> bool:
    """Whether wsproto, as a client whose key has this ``accept``, takes it for a good 101."""
    client = H11Handshake(ConnectionType.CLIENT)
    asked = client.send(Request(host="a", target="/"))
    reading = read_request(asked)
    assert reading is not None
    (key,) = reading.values(b"sec-websocket-key")
    fresh = wsproto.utilities.generate_accept_token(key)
    try:
        client.receive_data(data.replace(accept.encode(), fresh))
    except (wsproto.utilities.ProtocolError, UnicodeError):
        return False
    return isinstance(next(iter(client.events()), None), AcceptConnection)
