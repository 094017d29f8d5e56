"""Answers to plain GETs: the edge's own addresses, and a sentence for people who took a wrong door."""

import json
from typing import NamedTuple
from urllib.parse import unquote_plus

from msha.edge.entry.steering import Steering
from msha.edge.wire.handshake import WELL_KNOWN, Field, RequestHead
from msha.steering.decision import host_key
from msha.steering.errors import InvalidRouterId
from msha.steering.router_id import Parameter, Request, RouterId, RouterIdReader, Source, SourceKind
from msha.steering.snapshot import Snapshot, UnitTypeRule

_JSON: Field = (b"content-type", b"application/json")
_TEXT: Field = (b"content-type", b"text/plain; charset=utf-8")
_NO_STORE: Field = (b"cache-control", b"no-store")
_CORS: Field = (b"access-control-allow-origin", b"*")

_ASKED = Source(SourceKind.QUERY, "routerId")
_HOST, _UNIT_TYPE = Parameter("host"), Parameter("unitType")
_NAME_LIMIT = 1_024
_NO_SNAPSHOT = "This edge has no routing snapshot yet."


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    fields: tuple[Field, ...]
    body: bytes


def answer(steering: Steering, head: RequestHead) -> Answer:
    """What is said to a request that is no WebSocket handshake."""
    snapshot = steering.snapshot
    if head.path == f"{WELL_KNOWN}status":
        return _status(steering)
    if head.path == f"{WELL_KNOWN}locate":
        return _locate(steering, head)
    if head.path.startswith(WELL_KNOWN):
        return _sentence(404, "Known here are status and locate.")
    if snapshot is None:
        return _sentence(503, _NO_SNAPSHOT)
    if _domain_name(snapshot, head.host) is None:
        return _sentence(421, "This edge does not answer for the requested host.")
    text = "This is a WebSocket address; connect to it with a WebSocket client."
    return _sentence(426, text, (b"upgrade", b"websocket"))


def _status(steering: Steering) -> Answer:
    snapshot = steering.snapshot
    state = "draining" if steering.draining else "no snapshot" if snapshot is None else "serving"
    body = {"status": state, "unit": steering.unit, "version": snapshot.version if snapshot else None}
    return _object(200 if state == "serving" else 503, body)


def _locate(steering: Steering, head: RequestHead) -> Answer:
    """Where a client should connect to: for browsers, which never follow a redirect of a WebSocket.

    Whoever asks by TLS, as a page that came by it must, is told an address for TLS.
    """
    status, body = _location(steering, head.query, secure=head.secure)
    return _object(status, body, _CORS)


def _location(steering: Steering, query: str, *, secure: bool) -> tuple[int, dict[str, object]]:
    snapshot = steering.snapshot
    if snapshot is None:
        return 503, {"error": _NO_SNAPSHOT}
    name = _domain_name(snapshot, _last(_HOST, query, ""))
    if name is None:
        return 404, {"error": "Name a domain of this edge in the parameter host."}
    rule = snapshot.unit_types.get(_last(_UNIT_TYPE, query, snapshot.default_unit_type))
    if rule is None:
        return 400, {"error": "The parameter unitType names no unit type of this namespace."}
    router_id: int | None = None
    owner = snapshot.center if rule.untagged == "center" else steering.unit
    try:
        found = _read_id(rule, query)
    except InvalidRouterId as error:
        return 400, {"error": f"{error}."}
    if found is not None:
        router_id = found.value
        owner = rule.table.owner(router_id)
    domain = snapshot.hosts[name][0]
    url = f"wss://{domain.tls_authorities[owner]}/" if secure else f"ws://{domain.authorities[owner]}/"
    return 200, {"unit": owner, "url": url, "router_id": router_id}


def _domain_name(snapshot: Snapshot, host: str) -> str | None:
    """The domain that a host name belongs to, itself or as a unit sub-domain."""
    entry = snapshot.hosts.get(host_key(host))
    return entry[0].name if entry else None


def _last(parameter: Parameter, query: str, otherwise: str) -> str:
    """What the query says of a parameter; no name is as long as what is cut off."""
    values = parameter.values(query)
    return unquote_plus(values[-1][:_NAME_LIMIT]) if values else otherwise


def _read_id(rule: UnitTypeRule, query: str) -> RouterId | None:
    """The routerId of a client that carries this one, wherever it will carry it.

    Raises:
        InvalidRouterId: the text is not usable as one.
    """
    reader = RouterIdReader((_ASKED,), rule.reader.transforms, rule.reader.key_space)
    return reader.read(Request("", "/", query))


def _sentence(status: int, text: str, *fields: Field) -> Answer:
    return Answer(status, (_TEXT, _NO_STORE, *fields), f"{text}\n".encode())


def _object(status: int, value: object, *fields: Field) -> Answer:
    return Answer(status, (_JSON, _NO_STORE, *fields), json.dumps(value, ensure_ascii=False).encode() + b"\n")
