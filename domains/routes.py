"""What every unit's edges would decide about a handshake."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext

from domains.errors import Misplaced, Refused
from msha.steering import snapshot as steering
from msha.steering.decision import Drop, Hold, Redirect, Refuse, Request, Tunnel, decide
from msha.steering.errors import InvalidRouterId
from msha.steering.router_id import SourceKind
from msha.steering.snapshot import Snapshot, UnitTypeRule
from units import publishing
from units.models import Namespace


@dataclass(frozen=True)
class Decision:
    """What the edges of one unit would do.

    Attributes:
        decision: ``tunnel``, ``redirect``, ``hold``, ``drop`` or ``refuse``.
        reason: the stable word of the core.
        to: of a redirect, the unit it leads to.
        servers: of a tunnel, the back-source servers in the order in which they are tried.
    """

    unit: str
    decision: str
    reason: str
    status: int = 0
    location: str = ""
    to: str = ""
    servers: Sequence[str] = ()
    sentence: str = ""


@dataclass(frozen=True)
class Routed:
    """The answer to "where does this routerId go".

    Attributes:
        router_id: after the transforms; None for untagged traffic or an unusable routerId.
        unit: the one unit that would serve it; "" where every unit or none would.
        refused: whether the edges of every unit refuse it.
        decision, reason: those of that unit's edges, or of the center's.
    """

    version: int
    host: str
    path: str
    unit_type: str
    given: str
    router_id: int | None
    unit: str
    decision: str
    reason: str
    decisions: Sequence[Decision]
    refused: bool = False


def in_effect(namespace: Namespace) -> Snapshot:
    """The newest published version, compiled.

    Raises:
        Refused: nothing has been published yet.
    """
    newest = publishing.newest(namespace)
    if newest is None:
        raise Refused(
            gettext("Nothing has been published in namespace %(name)s yet: put it into effect first.")
            % {"name": namespace.name}
        )
    return steering.load(newest.body.encode(), newest.digest)


def route(
    snapshot: Snapshot,
    router_id: str,
    *,
    unit_type: str = "",
    host: str = "",
    path: str = "",
    headers: Mapping[str, str] | None = None,
) -> Routed:
    """What the edges of every unit would decide.

    Args:
        router_id: as the client sends it, before the transforms; "" for untagged traffic.
        host: a domain or a unit sub-domain; "" means the first domain.
        path: with an optional query; "" means the first URI of the domain.

    Raises:
        Refused: there is no such unit type, or no domain yet.
        Misplaced: a value that cannot stand in a handshake.
    """
    name = unit_type or snapshot.default_unit_type
    rule = snapshot.unit_types.get(name)
    if rule is None:
        known = ", ".join(snapshot.unit_types)
        raise Misplaced(
            gettext("%(name)s is not a unit type in effect; there is %(known)s.")
            % {"name": name, "known": known},
            "unit_type",
        )
    host = host.strip() or _first_host(snapshot)
    target = path.strip() or _first_path(snapshot, host)
    if not target.startswith("/"):
        raise Misplaced(gettext("A path begins with a slash, as /chat."), "path")
    request = handshake(rule, router_id.strip(), host, target, {**(headers or {}), "unitType": name})
    decisions = [_decision(snapshot, code, request) for code in snapshot.units]
    number, owner = _owner(snapshot, rule, request)
    refused = all(decision.decision == "refuse" for decision in decisions)
    chosen = next((d for d in decisions if d.unit == (owner or snapshot.center)), decisions[0])
    return Routed(
        version=snapshot.version,
        host=host,
        path=target,
        unit_type=name,
        given=router_id,
        router_id=number,
        unit="" if refused else owner,
        decision=chosen.decision,
        reason=chosen.reason,
        decisions=decisions,
        refused=refused,
    )


def handshake(
    rule: UnitTypeRule, router_id: str, host: str, target: str, headers: Mapping[str, str]
) -> Request:
    """A handshake that carries the routerId where this unit type looks first.

    Raises:
        Misplaced: the host or the id cannot stand in a header.
    """
    sent = dict(headers)
    for place, text in (("host", host), ("router_id", router_id)):
        if not text.isprintable() or not text.isascii():
            raise Misplaced(gettext("Use printable ASCII characters only."), place)
    if router_id:
        source = rule.reader.sources[0]
        match source.kind:
            case SourceKind.HEADER:
                sent[source.name] = router_id
            case SourceKind.COOKIE:
                sent["Cookie"] = f"{source.name}={router_id}"
            case SourceKind.QUERY:
                target = f"{target}{'&' if '?' in target else '?'}{source.name}={router_id}"
            case SourceKind.PATH:
                target = _with_segment(target, int(source.name), router_id)
    return Request.of(host, target, sent)


def _with_segment(target: str, number: int, text: str) -> str:
    path, question, query = target.partition("?")
    segments = path.split("/")
    segments += ["x"] * (number + 1 - len(segments))
    segments[number] = text
    return "/".join(segments) + question + query


def _decision(snapshot: Snapshot, unit: str, request: Request) -> Decision:
    outcome = decide(snapshot, unit, request, in_sync=True)
    match outcome:
        case Tunnel():
            key = outcome.router_id if outcome.router_id is not None else 0
            servers = outcome.route.preference(key)
            return Decision(unit, "tunnel", outcome.reason, 101, servers=servers)
        case Redirect():
            return Decision(
                unit, "redirect", outcome.reason, outcome.status, outcome.location, to=outcome.unit
            )
        case Hold():
            return Decision(unit, "hold", outcome.reason)
        case Drop():
            return Decision(unit, "drop", outcome.reason)
        case Refuse():
            return Decision(unit, "refuse", outcome.reason, outcome.status, sentence=outcome.sentence)


def _owner(snapshot: Snapshot, rule: UnitTypeRule, request: Request) -> tuple[int | None, str]:
    """The id after the transforms, and the one unit that would serve it, or ""."""
    try:
        found = rule.reader.read(request)
    except InvalidRouterId:
        return None, ""
    if found is not None:
        return found.value, rule.table.owner(found.value)
    return None, snapshot.center if rule.untagged == "center" else ""


def _first_host(snapshot: Snapshot) -> str:
    domains = snapshot.document["config"].get("domains", [])
    if not domains:
        raise Refused(gettext("No domain is in effect in this namespace yet."))
    return str(domains[0]["name"])


def _first_path(snapshot: Snapshot, host: str) -> str:
    entry = snapshot.hosts.get(host.lower())
    if entry is None:
        return "/"
    paths = [route.uri for routes in entry[0].routes.values() for route in routes]
    return min(paths, key=len, default="/")


def reason_text(decision: Decision | Any) -> str:
    """Why, in words, for people."""
    texts = {
        "owned": gettext("the routerId belongs to this unit"),
        "untagged_local": gettext("there is no routerId, and untagged traffic is served where it arrives"),
        "untagged_center": gettext("there is no routerId, and untagged traffic goes to the center"),
        "wrong_unit": gettext("the routerId belongs to another unit"),
        "frozen": gettext("a running cutover holds this routerId for a moment"),
        "not_in_sync": gettext("the edge does not know whether its version is current"),
        "stale_version": gettext("the client was sent here by a newer version"),
        "unknown_host": gettext("the host is neither a domain nor a unit sub-domain in effect"),
        "unknown_uri": gettext("no URI of the domain matches the path"),
        "unknown_unit_type": gettext("there is no such unit type in effect"),
        "invalid_router_id": gettext("the routerId is not usable"),
        "untagged_rejected": gettext("there is no routerId, and untagged traffic is rejected"),
        "no_back_source": gettext("the unit has no back-source servers for this URI"),
    }
    return texts.get(str(decision.reason), str(decision.reason))
