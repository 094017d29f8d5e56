"""Snapshots: the immutable, numbered documents that the edges obey.

A document is a JSON object of a config part and a rule part (the schema stands in ``docs/snapshot.md``).
Its canonical form, UTF-8 without spaces and with sorted keys, is what is stored, sent, written to disk and
hashed; a version has one digest for ever.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from msha.steering.errors import InvalidRule, InvalidSnapshot
from msha.steering.phases import Phase
from msha.steering.ranges import KeySpace, MovedIds, MovedRange, RangeTable
from msha.steering.ring import Ring
from msha.steering.router_id import RouterIdReader, SourceKind, parse_sources, parse_transforms

SCHEMA = 1

UNTAGGED_POLICIES = ("local", "center", "reject")
BALANCES = ("consistent_hash", "round_robin", "least_sessions")
REDIRECT_SCHEMES = ("http", "ws", "auto")
CORRECTIONS = ("redirect",)
DNS_TYPES = ("none", "managed")
PROTOCOLS = ("websocket",)

#: Of a unit's sub-domain, where the domain names none; left out of a Location.
DEFAULT_PORT = 80
DEFAULT_TLS_PORT = 443

_CODE = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Published:
    """A snapshot ready to be stored: ``body`` is canonical, ``digest`` its SHA-256 in hex."""

    version: int
    digest: str
    body: bytes
    document: Document


@dataclass(frozen=True)
class Route:
    """A URI of a domain as one unit serves it.

    Attributes:
        servers: back-source servers, ``IP:PORT``; empty when the unit has none for this URI.
    """

    domain: str
    uri: str
    servers: tuple[str, ...]
    balance: str

    @cached_property
    def _ring(self) -> Ring:
        return Ring(dict.fromkeys(self.servers, 1))

    def preference(self, key: int) -> tuple[str, ...]:
        """The servers in the order in which they should be tried for this key."""
        return self._ring.preference(key)


@dataclass(frozen=True, slots=True)
class UnitTypeRule:
    """A routing dimension, compiled."""

    name: str
    reader: RouterIdReader
    untagged: str
    table: RangeTable
    query_name: str | None


@dataclass(frozen=True, slots=True)
class DomainEntry:
    """A domain, compiled: where its unit sub-domains point and what its URIs are.

    Attributes:
        authorities: host and port of each unit's sub-domain, as a Location names them.
        tls_authorities: the same for clients that came by TLS.
    """

    name: str
    redirect_scheme: str
    ports: Mapping[str, int]
    authorities: Mapping[str, str]
    tls_authorities: Mapping[str, str]
    routes: Mapping[str, tuple[Route, ...]]

    def route(self, unit: str, path: str) -> Route | None:
        """The route with the longest URI that is a prefix of the path on segment boundaries."""
        for route in self.routes.get(unit, ()):
            uri = route.uri
            if (
                uri == "/"
                or path == uri
                or (path.startswith(uri) and (uri[-1] == "/" or path[len(uri)] == "/"))
            ):
                return route
        return None


class Hosts(Mapping[str, tuple[DomainEntry, str | None]]):
    """Every host name that is answered for, with its domain and, for a unit sub-domain, the unit.

    A domain is compiled when it is asked for: there may be thousands, and while a worker compiles it serves
    nobody.

    Attributes:
        compiled: what was asked for so far.
    """

    __slots__ = ("_codes", "_domains", "compiled")

    def __init__(self, config: Document) -> None:
        self._codes = [unit["code"] for unit in config["units"]]
        self._domains: dict[str, Document] = {domain["name"]: domain for domain in config.get("domains", ())}
        self.compiled: dict[str, tuple[DomainEntry, str | None]] = {}

    def __getitem__(self, host: str) -> tuple[DomainEntry, str | None]:
        found = self.compiled.get(host)
        if found is None:
            domain, unit = self._domains.get(host), None
            if domain is None:
                unit, _, name = host.partition(".")
                if unit not in self._codes:
                    raise KeyError(host)
                domain = self._domains[name]
            found = self.compiled[host] = (self._entry(domain), unit)
        return found

    def __iter__(self) -> Iterator[str]:
        for name in self._domains:
            yield name
            yield from (f"{code}.{name}" for code in self._codes)

    def __len__(self) -> int:
        return len(self._domains) * (1 + len(self._codes))

    def _entry(self, domain: Document) -> DomainEntry:
        """The same one for all host names of the domain."""
        name = domain["name"]
        for host in (name, *(f"{code}.{name}" for code in self._codes)):
            if host in self.compiled:
                return self.compiled[host][0]
        return _compiled_domain(domain, self._codes)


@dataclass(frozen=True, slots=True)
class RunningCutover:
    """What a rule part says of the cutover that runs under it."""

    id: str
    unit_type: str
    phase: Phase
    both: bool
    moved: MovedIds

    def frozen_in(self, unit: str, router_id: int) -> bool:
        """Whether this unit neither accepts nor redirects the id now.

        In FREEZE the losing unit holds it, and in a turn-around the gaining one too; from ACTIVATE on the
        losing unit alone, until RELEASE.
        """
        if self.phase is Phase.PREPARE:
            return False
        move = self.moved.find(router_id)
        if move is None:
            return False
        if self.phase is Phase.FREEZE:
            return unit == move.losing or (self.both and unit == move.gaining)
        return unit == move.losing and move.losing != move.gaining

    def frozen_ranges(self, unit: str) -> list[tuple[int, int]]:
        """All ids that are frozen there, as ``(start, end)``: half-open, ascending and disjoint."""
        return [(move.start, move.end) for move in self.moved.ranges if self.frozen_in(unit, move.start)]


@dataclass(frozen=True)
class Snapshot:
    """A verified snapshot, compiled for decisions."""

    namespace_id: str
    namespace: str
    version: int
    digest: str
    epoch: int
    document: Document = field(repr=False)
    units: tuple[str, ...]
    center: str
    default_unit_type: str
    unit_types: Mapping[str, UnitTypeRule]
    hosts: Hosts
    cutover: RunningCutover | None

    def frozen(self, unit: str, unit_type: str, router_id: int) -> bool:
        """Whether the unit neither accepts nor redirects this id now."""
        running = self.cutover
        return running is not None and running.unit_type == unit_type and running.frozen_in(unit, router_id)

    def serves(self, unit: str, unit_type: str, router_id: int) -> bool:
        """Whether the unit may hold a tunnel of this id: it owns it and it is not frozen there."""
        rule = self.unit_types.get(unit_type)
        if rule is None or not rule.table.key_space.contains(router_id):
            return False
        return rule.table.owner(router_id) == unit and not self.frozen(unit, unit_type, router_id)

    def served(self, unit: str, unit_type: str) -> list[tuple[int, int]]:
        """The ids that :meth:`serves` says of, as ``(start, end)``: half-open, ascending and disjoint."""
        rule = self.unit_types.get(unit_type)
        if rule is None:
            return []
        running = self.cutover
        frozen = running.frozen_ranges(unit) if running and running.unit_type == unit_type else []
        left = []
        for first, end, owner in rule.table.segments():
            if owner != unit:
                continue
            start = first
            for cut_start, cut_end in frozen:
                if start < cut_end and cut_start < end:
                    if start < cut_start:
                        left.append((start, cut_start))
                    start = cut_end
            if start < end:
                left.append((start, end))
        return left

    def gained(self, unit: str, unit_type: str, router_id: int) -> bool:
        """Whether the id came to this unit by the cutover that is running now."""
        running = self.cutover
        if running is None or running.phase is not Phase.ACTIVATE or running.unit_type != unit_type:
            return False
        move: MovedRange | None = running.moved.find(router_id)
        return move is not None and move.gaining == unit


def canonical(document: object) -> bytes:
    """The one byte string of a JSON value: UTF-8, sorted keys, no spaces, no NaN."""
    return json.dumps(
        document, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def digest_of(body: bytes) -> str:
    """SHA-256 of a canonical body, in hex."""
    return hashlib.sha256(body).hexdigest()


def build(namespace_id: str, namespace: str, version: int, config: Document, rule: Document) -> Published:
    """A snapshot that :func:`load` accepts.

    Raises:
        InvalidSnapshot: names the place in the document and what is wrong there.
    """
    document = {
        "schema": SCHEMA,
        "namespace_id": namespace_id,
        "namespace": namespace,
        "version": version,
        "config": config,
        "rule": rule,
    }
    body = canonical(document)
    snapshot = load(body)
    return Published(version, snapshot.digest, body, snapshot.document)


def load(body: bytes, expected_digest: str | None = None) -> Snapshot:
    """The compiled snapshot of a canonical body.

    Raises:
        InvalidSnapshot: the digest differs, or the document is not one an edge may obey.
    """
    document, digest = _document(body, expected_digest)
    if canonical(document) != body:
        raise InvalidSnapshot("document", "is not in canonical form")
    check_config(_object(document.get("config"), "config"))
    return _compiled(document, digest)


def load_checked(body: bytes, digest: str) -> Snapshot:
    """The same of a body that :func:`load` has accepted before, in this process or another one.

    Its digest and its rule part are verified again, which costs nothing. What takes time with thousands of
    domains is not: their form, and that the body is canonical.

    Raises:
        InvalidSnapshot: the digest differs, or it never was accepted.
    """
    document, digest = _document(body, digest)
    try:
        return _compiled(document, digest)
    except (LookupError, TypeError, AttributeError, StopIteration) as error:
        raise InvalidSnapshot("document", f"was never checked ({error!r})") from error


def _document(body: bytes, expected_digest: str | None) -> tuple[Document, str]:
    digest = digest_of(body)
    if expected_digest is not None and digest != expected_digest:
        raise InvalidSnapshot("digest", f"is {digest[:12]}…, not the expected {expected_digest[:12]}…")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidSnapshot("document", f"is not JSON ({error})") from error
    top = _object(document, "document")
    if top.get("schema") != SCHEMA:
        raise InvalidSnapshot("schema", f"is {top.get('schema')!r}; this program understands {SCHEMA}")
    return top, digest


def _compiled(document: Document, digest: str) -> Snapshot:
    config, rule = document["config"], _object(document.get("rule"), "rule")
    compiled = check_rule(rule, [unit["code"] for unit in config["units"]])
    return Snapshot(
        namespace_id=_text(document.get("namespace_id"), "namespace_id"),
        namespace=_text(document.get("namespace"), "namespace"),
        version=_integer(document.get("version"), "version", 1),
        digest=digest,
        epoch=rule["epoch"],
        document=document,
        units=tuple(unit["code"] for unit in config["units"]),
        center=next(unit["code"] for unit in config["units"] if unit.get("center") is True),
        default_unit_type=rule["default_unit_type"],
        unit_types=compiled,
        hosts=Hosts(config),
        cutover=_running(rule),
    )


def check_config(config: Document) -> str:
    """The code of the center; the config part is one that an edge may obey.

    Raises:
        InvalidSnapshot: names the place and what is wrong there.
    """
    units = _objects(config.get("units"), "config.units")
    codes = _unique([unit.get("code") for unit in units], "config.units", "code")
    for index, unit in enumerate(units):
        place = f"config.units[{index}]"
        code = _text(unit.get("code"), f"{place}.code")
        if not _CODE.fullmatch(code):
            raise InvalidSnapshot(f"{place}.code", f"{code!r} is not a sub-domain label such as unbj")
        _text(unit.get("name"), f"{place}.name")
    centers = [unit["code"] for unit in units if unit.get("center") is True]
    if len(centers) != 1:
        raise InvalidSnapshot("config.units", f"exactly one unit must be the center, not {len(centers)}")
    clusters = _check_clusters(config, codes)
    _check_domains(config, codes, clusters)
    _object(config.get("limits", {}), "config.limits")
    return str(centers[0])


def _check_clusters(config: Document, codes: set[str]) -> dict[str, str]:
    clusters = _objects(config.get("clusters", []), "config.clusters")
    _unique([cluster.get("name") for cluster in clusters], "config.clusters", "name")
    unit_of = {}
    for index, cluster in enumerate(clusters):
        place = f"config.clusters[{index}]"
        name = _text(cluster.get("name"), f"{place}.name")
        if not _NAME.fullmatch(name):
            raise InvalidSnapshot(f"{place}.name", f"{name!r} is not a name such as ws-bj-2")
        _one_of(cluster.get("protocol"), PROTOCOLS, f"{place}.protocol")
        _known(cluster.get("unit"), codes, f"{place}.unit")
        unit_of[name] = cluster["unit"]
    return unit_of


def _check_domains(config: Document, codes: set[str], clusters: Mapping[str, str]) -> None:
    domains = _objects(config.get("domains", []), "config.domains")
    hosts: dict[str, str] = {}
    for index, domain in enumerate(domains):
        place = f"config.domains[{index}]"
        name = check_host_name(domain.get("name"), f"{place}.name")
        for host in (name, *(f"{code}.{name}" for code in codes)):
            if host in hosts:
                raise InvalidSnapshot(f"{place}.name", f"{host} belongs to {hosts[host]} already")
            hosts[host] = name
        _one_of(domain.get("protocol"), PROTOCOLS, f"{place}.protocol")
        _one_of(domain.get("dns", "none"), DNS_TYPES, f"{place}.dns")
        _one_of(domain.get("correction"), CORRECTIONS, f"{place}.correction")
        _one_of(domain.get("redirect_scheme"), REDIRECT_SCHEMES, f"{place}.redirect_scheme")
        for key in ("ports", "tls_ports"):
            _check_ports(domain.get(key, {}), codes, f"{place}.{key}")
        for unit, cluster in _object(domain.get("clusters", {}), f"{place}.clusters").items():
            _known(unit, codes, f"{place}.clusters")
            if not isinstance(cluster, str) or clusters.get(cluster) != unit:
                raise InvalidSnapshot(
                    f"{place}.clusters.{unit}", f"{cluster!r} is not a cluster of unit {unit}"
                )
        _check_uris(domain, codes, place)


def _check_ports(value: object, codes: set[str], place: str) -> None:
    for unit, port in _object(value, place).items():
        _known(unit, codes, place)
        if _integer(port, f"{place}.{unit}", 1) > 65535:
            raise InvalidSnapshot(f"{place}.{unit}", f"{port} is not a port (1-65535)")


def _check_uris(domain: Document, codes: set[str], place: str) -> None:
    uris = _objects(domain.get("uris", []), f"{place}.uris")
    _unique([uri.get("path") for uri in uris], f"{place}.uris", "path")
    for index, uri in enumerate(uris):
        where = f"{place}.uris[{index}]"
        check_uri_path(uri.get("path"), f"{where}.path")
        _one_of(uri.get("balance"), BALANCES, f"{where}.balance")
        for unit, servers in _object(uri.get("back_sources", {}), f"{where}.back_sources").items():
            _known(unit, codes, f"{where}.back_sources")
            if not isinstance(servers, list):
                raise InvalidSnapshot(f"{where}.back_sources.{unit}", "must be a list of IP:PORT")
            _unique(servers, f"{where}.back_sources.{unit}", "server")
            for server in servers:
                check_server(server, f"{where}.back_sources.{unit}")


def check_host_name(value: object, place: str) -> str:
    """The host name, lower case, without a dot at its end.

    Raises:
        InvalidSnapshot: not a DNS host name of at least two labels, or an IP address.
    """
    name = _text(value, place)
    labels = name.split(".")
    if len(name) > 220 or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidSnapshot(place, f"{name!r} is not a host name such as websocket.msha.tech")
    if labels[-1].isdigit():
        raise InvalidSnapshot(place, f"{name!r} is an address, not a host name")
    return name


def check_uri_path(value: object, place: str) -> str:
    """The URI: an absolute path in printable ASCII without query, fragment or dot segments.

    Raises:
        InvalidSnapshot: anything else.
    """
    path = _text(value, place)
    printable = all("!" <= char <= "~" for char in path)
    if not path.startswith("/") or not printable or set(path) & set('?#"<>\\^`{|}') or len(path) > 512:
        raise InvalidSnapshot(place, f"{path!r} is not a path such as /chat")
    if any(segment in ("", ".", "..") for segment in path[1:].rstrip("/").split("/")) and path != "/":
        raise InvalidSnapshot(place, f"{path!r} has an empty or dot segment")
    return path


def check_server(value: object, place: str) -> tuple[str, int]:
    """The address and port of a back-source server written ``IP:PORT`` or ``[IPv6]:PORT``.

    Raises:
        InvalidSnapshot: says whether separator, address or port is wrong.
    """
    text = _text(value, place)
    host, separator, digits = text.rpartition(":")
    if not separator or not host:
        hint = (
            "; write a colon before the port, and commas between servers"
            if ";" in text or " " in text
            else ""
        )
        raise InvalidSnapshot(place, f"{text!r} is not of the form IP:PORT{hint}")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 5 or not 1 <= int(digits) <= 65535:
        raise InvalidSnapshot(place, f"{text!r}: port {digits!r} is not a number from 1 to 65535")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise InvalidSnapshot(place, f"{text!r}: {host!r} is not an IP address") from None
    if (address.version == 6) != (bare != host):
        raise InvalidSnapshot(place, f"{text!r}: write an IPv6 address in brackets, [::1]:8080")
    if "%" in bare:
        raise InvalidSnapshot(
            place, f"{text!r}: write it without the interface, which has another name elsewhere"
        )
    return bare, int(digits)


def check_rule(rule: Document, codes: Sequence[str]) -> dict[str, UnitTypeRule]:
    """The compiled unit types by name; the rule part is one that an edge may obey.

    Args:
        codes: the codes of all units of the config part.

    Raises:
        InvalidSnapshot: names the place and what is wrong there.
    """
    known = set(codes)
    _integer(rule.get("epoch"), "rule.epoch", 0)
    space = _object(rule.get("key_space"), "rule.key_space")
    try:
        key_space = KeySpace(
            _integer(space.get("min"), "rule.key_space.min", 0),
            _integer(space.get("max"), "rule.key_space.max", 0),
        )
    except InvalidRule as error:
        raise InvalidSnapshot("rule.key_space", error.problem) from error
    unit_types = _objects(rule.get("unit_types"), "rule.unit_types")
    if not unit_types:
        raise InvalidSnapshot("rule.unit_types", "at least one unit type is needed")
    _unique([entry.get("name") for entry in unit_types], "rule.unit_types", "name")
    compiled = {}
    for index, entry in enumerate(unit_types):
        place = f"rule.unit_types[{index}]"
        compiled[_text(entry.get("name"), f"{place}.name")] = compile_unit_type(
            entry, key_space, known, place
        )
    default = _text(rule.get("default_unit_type"), "rule.default_unit_type")
    if default not in compiled:
        raise InvalidSnapshot("rule.default_unit_type", f"{default!r} is not one of the unit types")
    running = _running(rule)
    if running is not None:
        if running.unit_type not in compiled:
            raise InvalidSnapshot(
                "rule.cutover.unit_type", f"{running.unit_type!r} is not one of the unit types"
            )
        strangers = (running.moved.losing_units | running.moved.gaining_units) - known
        if strangers:
            raise InvalidSnapshot("rule.cutover.moved", f"unknown units: {', '.join(sorted(strangers))}")
    return compiled


def compile_unit_type(entry: Document, key_space: KeySpace, codes: set[str], place: str) -> UnitTypeRule:
    """One unit type of a rule part, compiled.

    Raises:
        InvalidSnapshot: names the place, under ``place``.
    """
    name = _text(entry.get("name"), f"{place}.name")
    if not _NAME.fullmatch(name):
        raise InvalidSnapshot(f"{place}.name", f"{name!r} is not a name such as unit_type")
    untagged = _one_of(entry.get("untagged"), UNTAGGED_POLICIES, f"{place}.untagged")
    ranges = _object(entry.get("ranges"), f"{place}.ranges")
    exact = _object(entry.get("exact", {}), f"{place}.exact")
    for unit in (*ranges, *exact):
        _known(unit, codes, f"{place}.ranges")
    for unit, texts in ranges.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InvalidSnapshot(f"{place}.ranges.{unit}", "must be a list of ranges such as 0~5997")
    for unit, ids in exact.items():
        if not isinstance(ids, list) or not all(type(router_id) is int for router_id in ids):
            raise InvalidSnapshot(f"{place}.exact.{unit}", "must be a list of ids")
    try:
        sources = parse_sources(entry.get("sources"))
        transforms = parse_transforms(entry.get("transform", []))
        table = RangeTable.parse(key_space, ranges, exact)
    except InvalidRule as error:
        raise InvalidSnapshot(f"{place}.{error.place}", error.problem) from error
    query = next((source.name for source in sources if source.kind is SourceKind.QUERY), None)
    return UnitTypeRule(name, RouterIdReader(sources, transforms, key_space), untagged, table, query)


def _running(rule: Document) -> RunningCutover | None:
    entry = rule.get("cutover")
    if entry is None:
        return None
    place = "rule.cutover"
    running = _object(entry, place)
    phase = _one_of(running.get("phase"), (Phase.PREPARE, Phase.FREEZE, Phase.ACTIVATE), f"{place}.phase")
    both = running.get("both")
    if not isinstance(both, bool):
        raise InvalidSnapshot(f"{place}.both", "must be true or false")
    rows = running.get("moved")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise InvalidSnapshot(f"{place}.moved", "must be a list of [first, last, losing, gaining]")
    try:
        moved = MovedIds.from_lists(rows)
    except InvalidRule as error:
        raise InvalidSnapshot(f"{place}.moved", error.problem) from error
    return RunningCutover(
        _text(running.get("id"), f"{place}.id"),
        _text(running.get("unit_type"), f"{place}.unit_type"),
        Phase(phase),
        both,
        moved,
    )


def _compiled_domain(domain: Document, codes: Sequence[str]) -> DomainEntry:
    uris = sorted(domain.get("uris", []), key=lambda uri: -len(uri["path"]))
    routes = {
        code: tuple(
            Route(
                domain["name"],
                uri["path"],
                tuple(uri.get("back_sources", {}).get(code, ())),
                uri["balance"],
            )
            for uri in uris
        )
        for code in codes
    }
    ports = domain.get("ports", {})
    return DomainEntry(
        domain["name"],
        domain["redirect_scheme"],
        ports,
        _authorities(domain["name"], codes, ports, DEFAULT_PORT),
        _authorities(domain["name"], codes, domain.get("tls_ports", {}), DEFAULT_TLS_PORT),
        routes,
    )


def _authorities(name: str, codes: Sequence[str], ports: Mapping[str, int], default: int) -> dict[str, str]:
    """Host and port of each unit's sub-domain; the port is left out when it is the default of the scheme."""
    found = {code: ports.get(code, default) for code in codes}
    return {
        code: f"{code}.{name}" if port == default else f"{code}.{name}:{port}" for code, port in found.items()
    }


def _object(value: object, place: str) -> Document:
    if not isinstance(value, dict):
        raise InvalidSnapshot(place, "must be an object")
    return value


def _objects(value: object, place: str) -> list[Document]:
    if not isinstance(value, list):
        raise InvalidSnapshot(place, "must be a list")
    return [_object(item, f"{place}[{index}]") for index, item in enumerate(value)]


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidSnapshot(place, "must be a non-empty text")
    return value


def _integer(value: object, place: str, least: int) -> int:
    if type(value) is not int or value < least:
        raise InvalidSnapshot(place, f"must be a whole number from {least}, not {value!r}")
    return value


def _one_of(value: object, choices: Sequence[str], place: str) -> str:
    if value not in choices:
        raise InvalidSnapshot(place, f"{value!r} is not one of {', '.join(choices)}")
    return str(value)


def _known(unit: object, codes: set[str], place: str) -> None:
    if not isinstance(unit, str) or unit not in codes:
        raise InvalidSnapshot(place, f"{unit!r} is not a unit of this namespace")


def _unique(values: Sequence[object], place: str, what: str) -> set[Any]:
    seen: set[Any] = set()
    for value in values:
        if not isinstance(value, str):
            raise InvalidSnapshot(place, f"every {what} must be text")
        if value in seen:
            raise InvalidSnapshot(place, f"{what} {value!r} is named twice")
        seen.add(value)
    return seen
