"""The heart of the product: what an edge does with a handshake.

One function over a compiled snapshot. The edge, the route tester, the prechecks and the simulation call it.
"""

import re
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote

from msha.steering.errors import InvalidRouterId
from msha.steering.router_id import Request, SourceKind
from msha.steering.snapshot import DomainEntry, Route, Snapshot

__all__ = [
    "Decision",
    "Drop",
    "Hold",
    "Reason",
    "Redirect",
    "Refuse",
    "Request",
    "Tunnel",
    "decide",
    "host_key",
]

#: Query parameter that a redirect carries when it answers a handshake by unit sub-domain (PROTOCOL 6, M).
VERSION_PARAMETER = "msha-version"

_VERSION = re.compile(r"(?:^|&)msha-version=([^&]*)")


class Reason(StrEnum):
    """Why a decision was taken; stable words for logs, metrics and the API."""

    OWNED = "owned"
    UNTAGGED_LOCAL = "untagged_local"
    UNTAGGED_CENTER = "untagged_center"
    WRONG_UNIT = "wrong_unit"
    FROZEN = "frozen"
    NOT_IN_SYNC = "not_in_sync"
    STALE_VERSION = "stale_version"
    UNKNOWN_HOST = "unknown_host"
    UNKNOWN_URI = "unknown_uri"
    UNKNOWN_UNIT_TYPE = "unknown_unit_type"
    INVALID_ROUTER_ID = "invalid_router_id"
    UNTAGGED_REJECTED = "untagged_rejected"
    NO_BACK_SOURCE = "no_back_source"


# Looking a member up in its class costs as much as a range.
_OWNED, _WRONG_UNIT = Reason.OWNED, Reason.WRONG_UNIT


class Tunnel(NamedTuple):
    """Serve it here.

    Attributes:
        router_id: None for untagged traffic.
        target: path and query for the back-source, our own parameters stripped.
    """

    reason: Reason
    route: Route
    unit_type: str
    router_id: int | None
    target: str


class Redirect(NamedTuple):
    """Answer 302 to the unit that owns the id."""

    reason: Reason
    location: str
    unit: str
    unit_type: str
    router_id: int | None
    status: int = 302


class Hold(NamedTuple):
    """Wait for the next snapshot, at most 5 s from the first hold, then close without an answer."""

    reason: Reason
    unit_type: str
    router_id: int


class Drop(NamedTuple):
    """Close the connection without an answer (PROTOCOL 6, S and M)."""

    reason: Reason
    unit_type: str
    router_id: int | None


class Refuse(NamedTuple):
    """Answer with an error status and one sentence."""

    reason: Reason
    status: int
    sentence: str


Decision = Tunnel | Redirect | Hold | Drop | Refuse


def host_key(host: str) -> str:
    """The host name of a Host header for comparison: lower case, without port or final dot."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name = host
    return name.rstrip(".").lower()


def decide(snapshot: Snapshot, unit: str, request: Request, in_sync: bool = True) -> Decision:
    """What an edge of ``unit`` that obeys ``snapshot`` does with a handshake.

    Args:
        in_sync: whether the worker knows that the snapshot is current (PROTOCOL 1).
    """
    known = snapshot.hosts.compiled
    entry = known.get(request.host) or known.get(name := host_key(request.host)) or snapshot.hosts.get(name)
    if entry is None:
        return Refuse(Reason.UNKNOWN_HOST, 421, "This edge does not answer for the requested host.")
    domain, by_unit = entry
    route = domain.route(unit, request.path)
    if route is None and not _any_route(domain, request.path):
        return Refuse(Reason.UNKNOWN_URI, 404, "No URI of this domain matches the path.")
    named = request.fields.get(b"unittype")
    unit_type = snapshot.default_unit_type if named is None else named.decode("latin-1").strip()
    if b"unittype" in request.repeated and len(set(request.repeated[b"unittype"])) > 1:
        # The back-source gets both, and may believe the other one.
        return Refuse(Reason.UNKNOWN_UNIT_TYPE, 400, "The unitType header has two different values.")
    rule = snapshot.unit_types.get(unit_type)
    if rule is None:
        return Refuse(
            Reason.UNKNOWN_UNIT_TYPE, 400, "The unitType header names no unit type of this namespace."
        )
    try:
        found = rule.reader.read(request)
    except InvalidRouterId as error:
        return Refuse(Reason.INVALID_ROUTER_ID, 400, f"{error}.")

    query, issuer_version = request.query, None
    if VERSION_PARAMETER in query:
        query, issuer_version = _without_version(query)
    if found is None:
        match rule.untagged:
            case "reject":
                return Refuse(
                    Reason.UNTAGGED_REJECTED, 400, "This domain serves only handshakes with a routerId."
                )
            case "center" if unit != snapshot.center:
                owner, reason = snapshot.center, Reason.UNTAGGED_CENTER
            case _:
                owner, reason = unit, Reason.UNTAGGED_LOCAL
        router_id = None
    else:
        router_id = found.value
        if snapshot.cutover is not None and snapshot.frozen(unit, unit_type, router_id):
            return Hold(Reason.FROZEN, unit_type, router_id)
        owner = rule.table.owner(router_id)
        reason = _OWNED if owner == unit else _WRONG_UNIT

    if owner == unit:
        if route is None or not route.servers:
            return Refuse(Reason.NO_BACK_SOURCE, 503, "This unit has no back-source server for the URI.")
        return Tunnel(
            reason, route, unit_type, router_id, f"{request.path}?{query}" if query else request.path
        )
    if by_unit == unit and not in_sync:
        return Drop(Reason.NOT_IN_SYNC, unit_type, router_id)
    if issuer_version is not None and snapshot.version <= issuer_version:
        return Drop(Reason.STALE_VERSION, unit_type, router_id)
    if by_unit is not None:
        query = _joined(query, f"{VERSION_PARAMETER}={snapshot.version}")
    if found is not None and found.source.kind is SourceKind.COOKIE and rule.query_name is not None:
        # Clients drop cookies across hosts, so an id that came by cookie travels in the query.
        query = _joined(query, f"{rule.query_name}={quote(found.text, '', 'utf-8', 'surrogateescape')}")
    location = _location(domain, owner, request, query)
    return Redirect(reason, location, owner, unit_type, router_id)


def _any_route(domain: DomainEntry, path: str) -> bool:
    """Whether the path belongs to the domain at all (for a unit that is no longer configured)."""
    return any(domain.route(code, path) is not None for code in domain.routes)


def _without_version(query: str) -> tuple[str, int | None]:
    values = _VERSION.findall(query)
    kept = "&".join(pair for pair in query.split("&") if not pair.startswith(f"{VERSION_PARAMETER}="))
    versions = [int(value) for value in values if value.isascii() and value.isdigit() and len(value) <= 16]
    return kept, max(versions, default=None)


def _joined(query: str, pair: str) -> str:
    return f"{query}&{pair}" if query else pair


def _location(domain: DomainEntry, owner: str, request: Request, query: str) -> str:
    scheme = domain.redirect_scheme
    if scheme == "auto":
        scheme = "ws" if b"python" in request.fields.get(b"user-agent", b"").lower() else "http"
    authority = domain.authorities[owner]
    if request.secure:
        scheme += "s"  # a client that came by TLS is never sent on without
        authority = domain.tls_authorities[owner]
    return (
        f"{scheme}://{authority}{request.path}?{query}" if query else f"{scheme}://{authority}{request.path}"
    )
