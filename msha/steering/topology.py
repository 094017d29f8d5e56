"""The topology file: one namespace as people write, keep and review it.

Reading is strict, because a misspelt key that is ignored would be a change that silently does not happen;
every complaint names the place and, where there is one, the line. A `Topology` is in normal form (sorted,
ranges ascending, servers as tuples), so that equal values mean equal things.
"""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

import yaml

from msha.steering.diff import as_text
from msha.steering.errors import InvalidRule, InvalidSnapshot, Terminal
from msha.steering.phases import table_of
from msha.steering.ranges import KeySpace
from msha.steering.router_id import parse_sources, parse_transforms
from msha.steering.snapshot import (
    BALANCES,
    CORRECTIONS,
    DNS_TYPES,
    PROTOCOLS,
    REDIRECT_SCHEMES,
    UNTAGGED_POLICIES,
    Document,
    Published,
    build,
    check_config,
    check_rule,
    check_server,
)

FILE_VERSION = 1
SIZE_LIMIT_BYTES = 4 * 1024 * 1024
DEFAULT_PORT = 80

#: Offline snapshots need a namespace id; this one is the same wherever the same file is compiled.
_OFFLINE_IDS = uuid.UUID("5d1b0c1e-6b0d-4a34-9a53-2f5a3b0e4c11")

#: What people put between servers instead of a comma.
_STRAY_SEPARATORS = (";", "；", "，", "、", "|", " ")

_SLUG = re.compile(r"[A-Za-z0-9_-]{1,63}")


@dataclass
class InvalidTopology(Terminal):
    """A topology file that cannot be used.

    Attributes:
        place: path into the file, for example ``domains[0].uris[1].path``.
        line: from 1; 0 when the complaint is about no line.
    """

    place: str
    problem: str
    line: int = 0

    def __str__(self) -> str:
        sentence = f"{self.place}: {self.problem}" if self.place else self.problem
        return f"line {self.line}: {sentence}" if self.line else sentence


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit; ``name`` is "" when people call it by its code."""

    code: str
    name: str = ""
    center: bool = False


@dataclass(frozen=True)
class UnitType:
    """A unit type with its rule, in the shapes that a snapshot's rule part has."""

    name: str
    sources: list[dict[str, Any]]
    ranges: dict[str, list[str]]
    transform: list[dict[str, Any]] = field(default_factory=list)
    untagged: str = "local"
    exact: dict[str, list[int]] = field(default_factory=dict)

    def entry(self) -> Document:
        """The unit type as it stands in a rule part."""
        return {
            "name": self.name,
            "sources": self.sources,
            "transform": self.transform,
            "untagged": self.untagged,
            "ranges": self.ranges,
            "exact": self.exact,
        }


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster; only one that has joined the access layer reaches the edges' configuration."""

    name: str
    unit: str
    protocol: str = "websocket"
    slbs: tuple[str, ...] = ()
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Uri:
    """A URI and, per unit, its servers as ``IP:PORT``; a unit without servers is left out."""

    path: str
    balance: str = "consistent_hash"
    back_sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain; every unit that has a cluster has a port."""

    name: str
    protocol: str = "websocket"
    dns: str = "none"
    multi_unit: bool = True
    correction: str = "redirect"
    redirect_scheme: str = "http"
    ports: Mapping[str, int] = field(default_factory=dict)
    clusters: Mapping[str, str] = field(default_factory=dict)
    uris: tuple[Uri, ...] = ()


@dataclass(frozen=True)
class Topology:
    """A whole namespace, units in their order, everything else by name."""

    namespace: str
    title: str = ""
    key_min: int = 0
    key_max: int = 9999
    default_unit_type: str = ""
    units: tuple[Unit, ...] = ()
    unit_types: tuple[UnitType, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    domains: tuple[Domain, ...] = ()

    @cached_property
    def default(self) -> str:
        """The unit type of a handshake that names none."""
        return self.default_unit_type or (self.unit_types[0].name if self.unit_types else "")


# -- the snapshot of a topology ------------------------------------------------------------------------------


def config_part(topology: Topology) -> Document:
    """The config part of the namespace's snapshots."""
    return {
        "units": [
            {"code": unit.code, "name": unit.name or unit.code, "center": unit.center}
            for unit in topology.units
        ],
        "clusters": [
            {"name": c.name, "unit": c.unit, "protocol": c.protocol, "slbs": list(c.slbs)}
            for c in topology.clusters
            if c.joined
        ],
        "domains": [_domain_config(domain) for domain in topology.domains],
        "limits": {},
    }


def _domain_config(domain: Domain) -> Document:
    return {
        "name": domain.name,
        "protocol": domain.protocol,
        "dns": domain.dns,
        "multi_unit": domain.multi_unit,
        "correction": domain.correction,
        "redirect_scheme": domain.redirect_scheme,
        "ports": dict(domain.ports),
        "clusters": dict(domain.clusters),
        "uris": [
            {
                "path": uri.path,
                "balance": uri.balance,
                "back_sources": {unit: list(servers) for unit, servers in uri.back_sources.items()},
            }
            for uri in domain.uris
        ],
    }


def rule_part(topology: Topology, epoch: int = 0) -> Document:
    """The rule part as it would be published without a cutover: for a first publish, or offline."""
    return {
        "epoch": epoch,
        "key_space": {"min": topology.key_min, "max": topology.key_max},
        "default_unit_type": topology.default,
        "unit_types": [unit_type.entry() for unit_type in topology.unit_types],
        "cutover": None,
    }


def compiled(topology: Topology, version: int = 1, namespace_id: str = "") -> Published:
    """The snapshot of the topology, for edges that run without a console.

    Raises:
        InvalidSnapshot: the topology cannot be obeyed.
    """
    identity = namespace_id or str(uuid.uuid5(_OFFLINE_IDS, topology.namespace))
    return build(identity, topology.namespace, version, config_part(topology), rule_part(topology))


# -- reading -------------------------------------------------------------------------------------------------


def parse(text: str) -> Topology:
    """The topology of a file's text, complete and consistent in itself.

    Raises:
        InvalidTopology: names the place, the line and what is wrong there.
    """
    if len(text.encode(errors="replace")) > SIZE_LIMIT_BYTES:
        raise InvalidTopology("", f"the file is larger than {SIZE_LIMIT_BYTES // 1024} KiB")
    value, lines = _load(text)
    root = _Node(value, "", lines)
    fields = root.fields(
        required=("version", "namespace", "units", "unit_types"),
        optional=("title", "router_id", "default_unit_type", "clusters", "domains"),
    )
    if (number := fields["version"].integer(0)) != FILE_VERSION:
        raise fields["version"].wrong(f"is {number}; this program reads version {FILE_VERSION}")
    name = fields["namespace"].text()
    if not _SLUG.fullmatch(name):
        raise fields["namespace"].wrong(f"{name!r} is not a name such as demo: letters, digits, dash, _")
    key_space = _key_space(fields.get("router_id"))
    read = Topology(
        namespace=name,
        title=_optional(fields, "title", _Node.text, ""),
        key_min=key_space.min,
        key_max=key_space.max,
        default_unit_type=_optional(fields, "default_unit_type", _Node.text, ""),
        units=tuple(_unit(node) for node in fields["units"].items()),
        unit_types=tuple(_unit_type(node) for node in fields["unit_types"].items()),
        clusters=tuple(_cluster(node) for node in _items(fields, "clusters")),
        domains=tuple(_domain(node) for node in _items(fields, "domains")),
    )
    _check_whole(read, root)
    return normal(read)


def normal(topology: Topology) -> Topology:
    """The same topology in normal form; parts that are not valid stay as they are."""
    key_space = KeySpace(topology.key_min, topology.key_max)
    unit_types = [_normal_unit_type(unit_type, key_space) for unit_type in topology.unit_types]
    return Topology(
        namespace=topology.namespace,
        title=topology.title,
        key_min=topology.key_min,
        key_max=topology.key_max,
        default_unit_type=topology.default,
        units=topology.units,
        unit_types=tuple(sorted(unit_types, key=lambda unit_type: unit_type.name)),
        clusters=tuple(sorted(map(_normal_cluster, topology.clusters), key=lambda cluster: cluster.name)),
        domains=tuple(sorted(map(normal_domain, topology.domains), key=lambda domain: domain.name)),
    )


def _normal_unit_type(unit_type: UnitType, key_space: KeySpace) -> UnitType:
    try:
        table = table_of(unit_type.entry(), key_space)
        sources = parse_sources(unit_type.sources)
        transforms = parse_transforms(unit_type.transform)
    except InvalidRule:
        return unit_type
    return UnitType(
        name=unit_type.name,
        sources=[{str(s.kind): int(s.name) if s.kind == "path" else s.name} for s in sources],
        transform=[{str(t.kind): t.argument} for t in transforms],
        untagged=unit_type.untagged,
        ranges=table.ranges_text(),
        exact=table.exact_ids(),
    )


def _normal_cluster(cluster: Cluster) -> Cluster:
    return Cluster(cluster.name, cluster.unit, cluster.protocol, tuple(sorted(cluster.slbs)), cluster.joined)


def normal_domain(domain: Domain) -> Domain:
    """The same domain in normal form."""
    ports = dict.fromkeys(domain.clusters, DEFAULT_PORT) | dict(domain.ports)
    uris = [
        Uri(uri.path, uri.balance, {unit: servers for unit, servers in uri.back_sources.items() if servers})
        for uri in domain.uris
    ]
    return Domain(
        domain.name,
        domain.protocol,
        domain.dns,
        domain.multi_unit,
        domain.correction,
        domain.redirect_scheme,
        ports,
        dict(domain.clusters),
        tuple(sorted(uris, key=lambda uri: uri.path)),
    )


def split_servers(text: str, place: str = "") -> tuple[str, ...]:
    """The servers of ``IP:PORT,IP:PORT``, in their order; blanks around them and a comma at the end are fine.

    Raises:
        InvalidSnapshot: a server is malformed or named twice; says which and what is wrong with it.
    """
    servers = [part.strip() for part in text.replace("\n", ",").split(",")]
    servers = [server for server in servers if server]
    for server in servers:
        stray = next((mark for mark in _STRAY_SEPARATORS if mark in server), None)
        if stray is not None and server.count(":") > 1:
            raise InvalidSnapshot(place, f"{server!r}: write a comma between servers, not {stray!r}")
        check_server(server, place)
        if servers.count(server) > 1:
            raise InvalidSnapshot(place, f"{server} is named twice")
    return tuple(servers)


def _key_space(node: "_Node | None") -> KeySpace:
    if node is None:
        return KeySpace()
    bounds = node.fields(required=("min", "max"))
    try:
        return KeySpace(bounds["min"].integer(0), bounds["max"].integer(0))
    except InvalidRule as error:
        raise node.wrong(error.problem) from error


def _unit(node: "_Node") -> Unit:
    fields = node.fields(required=("code",), optional=("name", "center"))
    return Unit(
        fields["code"].text(),
        _optional(fields, "name", _Node.text, ""),
        _optional(fields, "center", _Node.boolean, False),
    )


def _unit_type(node: "_Node") -> UnitType:
    fields = node.fields(required=("name", "sources", "ranges"), optional=("transform", "untagged", "exact"))
    return UnitType(
        name=fields["name"].text(),
        sources=[entry.pair() for entry in fields["sources"].items()],
        transform=[entry.pair() for entry in _items(fields, "transform")],
        untagged=_choice(fields, "untagged", UNTAGGED_POLICIES, "local"),
        ranges={unit: texts.texts() for unit, texts in fields["ranges"].members()},
        exact={unit: [entry.integer(0) for entry in ids.items()] for unit, ids in _members(fields, "exact")},
    )


def _cluster(node: "_Node") -> Cluster:
    fields = node.fields(required=("name", "unit"), optional=("protocol", "slbs", "joined"))
    slbs = fields["slbs"].texts() if "slbs" in fields else []
    if repeated := next((slb for slb in slbs if slbs.count(slb) > 1), None):
        raise fields["slbs"].wrong(f"SLB {repeated!r} is named twice")
    return Cluster(
        fields["name"].text(),
        fields["unit"].text(),
        _choice(fields, "protocol", PROTOCOLS, "websocket"),
        tuple(slbs),
        _optional(fields, "joined", _Node.boolean, True),
    )


def _domain(node: "_Node") -> Domain:
    fields = node.fields(
        required=("name",),
        optional=(
            "protocol", "dns", "multi_unit", "correction", "redirect_scheme", "ports", "clusters", "uris",
        ),
    )  # fmt: skip
    return Domain(
        name=fields["name"].text(),
        protocol=_choice(fields, "protocol", PROTOCOLS, "websocket"),
        dns=_choice(fields, "dns", DNS_TYPES, "none"),
        multi_unit=_optional(fields, "multi_unit", _Node.boolean, True),
        correction=_choice(fields, "correction", CORRECTIONS, "redirect"),
        redirect_scheme=_choice(fields, "redirect_scheme", REDIRECT_SCHEMES, "http"),
        ports={unit: port.integer(1) for unit, port in _members(fields, "ports")},
        clusters={unit: cluster.text() for unit, cluster in _members(fields, "clusters")},
        uris=tuple(_uri(uri) for uri in _items(fields, "uris")),
    )


def _uri(node: "_Node") -> Uri:
    fields = node.fields(required=("path",), optional=("balance", "back_sources"))
    return Uri(
        fields["path"].text(),
        _choice(fields, "balance", BALANCES, "consistent_hash"),
        {unit: servers.servers() for unit, servers in _members(fields, "back_sources")},
    )


def _check_whole(topology: Topology, root: "_Node") -> None:
    """What the snapshot's own checks find, at its place in the file."""
    known_slbs: dict[str, str] = {}
    for index, cluster in enumerate(topology.clusters):
        for slb in cluster.slbs:
            if slb in known_slbs:
                raise root.wrong(
                    f"SLB {slb!r} stands in front of {known_slbs[slb]} already", f"clusters[{index}].slbs"
                )
            known_slbs[slb] = cluster.name
    everything_joined = Topology(
        topology.namespace,
        units=topology.units,
        clusters=tuple(Cluster(c.name, c.unit, c.protocol, c.slbs) for c in topology.clusters),
        domains=topology.domains,
    )
    try:
        check_config(config_part(everything_joined))
        check_rule(rule_part(topology), [unit.code for unit in topology.units])
    except InvalidSnapshot as error:
        place = error.place.removeprefix("config.").removeprefix("rule.")
        raise root.wrong(error.problem, place.replace("key_space", "router_id")) from error
    joined = {cluster.name for cluster in topology.clusters if cluster.joined}
    for index, domain in enumerate(topology.domains):
        for unit, name in domain.clusters.items():
            if name not in joined:
                raise root.wrong(
                    f"cluster {name} has not joined the access layer", f"domains[{index}].clusters.{unit}"
                )


class _Node:
    """A value of the file with its place, for readers that complain well."""

    def __init__(self, value: object, place: str, lines: Mapping[str, int]) -> None:
        self.value = value
        self.place = place
        self._lines = lines

    def wrong(self, problem: str, place: str | None = None) -> InvalidTopology:
        """The complaint about this value, or about another place of the same file."""
        place = self.place if place is None else place
        nearest = place
        while nearest and nearest not in self._lines:
            nearest = nearest[: max(nearest.rfind("."), nearest.rfind("["), 0)]
        return InvalidTopology(place, problem, self._lines.get(nearest, 0) if nearest else 0)

    def fields(self, required: Sequence[str], optional: Sequence[str] = ()) -> "dict[str, _Node]":
        """The members of a mapping that has all required keys and none but these."""
        members = dict(self.members())
        for key, member in members.items():
            if key not in required and key not in optional:
                known = ", ".join((*required, *optional))
                raise member.wrong(f"is not a key that belongs here; the keys are {known}")
        for key in required:
            if key not in members:
                raise self.wrong(f"{key} is missing")
        return members

    def members(self) -> "list[tuple[str, _Node]]":
        if not isinstance(self.value, dict):
            raise self.wrong("must be a mapping of keys to values")
        found = []
        for key, value in self.value.items():
            if not isinstance(key, str):
                raise self.wrong(f"key {key!r} must be text; put it in quotes")
            found.append((key, _Node(value, f"{self.place}.{key}" if self.place else key, self._lines)))
        return found

    def items(self) -> "list[_Node]":
        if not isinstance(self.value, list):
            raise self.wrong("must be a list")
        return [_Node(v, f"{self.place}[{index}]", self._lines) for index, v in enumerate(self.value)]

    def pair(self) -> dict[str, Any]:
        """A mapping; what it may say is checked by the core."""
        if not isinstance(self.value, dict):
            raise self.wrong("must be one pair such as {header: routerId}")
        return dict(self.value)

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            hint = "" if self.value is None or isinstance(self.value, (dict, list)) else "; put it in quotes"
            raise self.wrong(f"must be a text{hint}")
        return self.value

    def texts(self) -> list[str]:
        return [item.text() for item in self.items()]

    def integer(self, least: int) -> int:
        if type(self.value) is not int or self.value < least:
            raise self.wrong(f"must be a whole number from {least}, not {self.value!r}")
        return self.value

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.wrong(f"must be true or false, not {self.value!r}")
        return self.value

    def choice(self, allowed: Sequence[str]) -> str:
        if self.value not in allowed:
            raise self.wrong(f"{self.value!r} is not one of {', '.join(allowed)}")
        return str(self.value)

    def servers(self) -> tuple[str, ...]:
        """Servers written as one text, or as a list."""
        if self.value is None and ":" in self.place.rpartition(".back_sources.")[2]:
            raise self.wrong("looks like a server; put all servers of a unit in one pair of quotes")
        text = ",".join(self.texts()) if isinstance(self.value, list) else self.value
        if not isinstance(text, str):
            raise self.wrong('must be a text such as "10.0.0.5:8080,10.0.0.6:8080"')
        try:
            return split_servers(text, self.place)
        except InvalidSnapshot as error:
            raise self.wrong(error.problem) from error


_T = TypeVar("_T")


def _optional(fields: Mapping[str, _Node], key: str, read: Callable[[_Node], _T], default: _T) -> _T:
    return read(fields[key]) if key in fields else default


def _choice(fields: Mapping[str, _Node], key: str, allowed: Sequence[str], default: str) -> str:
    return fields[key].choice(allowed) if key in fields else default


def _items(fields: Mapping[str, _Node], key: str) -> list[_Node]:
    return fields[key].items() if key in fields else []


def _members(fields: Mapping[str, _Node], key: str) -> list[tuple[str, _Node]]:
    return fields[key].members() if key in fields else []


def _load(text: str) -> tuple[object, dict[str, int]]:
    """The value of a YAML text, and the line of every place in it."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        raise InvalidTopology("", f"is not YAML: {error}") from error
    try:
        root = loader.get_single_node()
        if root is None:
            raise InvalidTopology("", "the file is empty")
        lines = dict(_lines(root, "", set()))
        return loader.construct_document(root), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidTopology(
            "", f"is not YAML: {error.problem or error.context}", mark.line + 1 if mark else 0
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidTopology("", f"is not YAML: {error}") from error
    except RecursionError:
        raise InvalidTopology("", "is nested too deeply") from None
    finally:
        loader.dispose()


def _lines(node: yaml.Node, place: str, seen: set[int]) -> Iterator[tuple[str, int]]:
    line = node.start_mark.line + 1
    if id(node) in seen:
        raise InvalidTopology(place, "repeats another place by an alias; write it out", line)
    seen.add(id(node))
    if place:
        yield place, line
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, f"{place}[{index}]", seen)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise InvalidTopology(place, "keys must be plain texts", key.start_mark.line + 1)
            where = f"{place}.{key.value}" if place else str(key.value)
            if key.value in keys:
                raise InvalidTopology(where, "stands here twice", key.start_mark.line + 1)
            keys.add(key.value)
            yield from _lines(value, where, seen)


# -- writing -------------------------------------------------------------------------------------------------


def document_of(topology: Topology) -> Document:
    """The topology as the value of its file."""
    document: Document = {"version": FILE_VERSION, "namespace": topology.namespace}
    if topology.title:
        document["title"] = topology.title
    document["router_id"] = {"min": topology.key_min, "max": topology.key_max}
    if topology.default and [u.name for u in topology.unit_types] != [topology.default]:
        document["default_unit_type"] = topology.default
    document["units"] = [unit_document(unit) for unit in topology.units]
    document["unit_types"] = [unit_type_document(unit_type) for unit_type in topology.unit_types]
    document["clusters"] = [cluster_document(cluster) for cluster in topology.clusters]
    document["domains"] = [domain_document(domain) for domain in topology.domains]
    return document


def unit_document(unit: Unit) -> Document:
    """A unit as it stands in the file."""
    named = {"name": unit.name} if unit.name else {}
    return {"code": unit.code, **named, **({"center": True} if unit.center else {})}


def unit_type_document(unit_type: UnitType) -> Document:
    """A unit type as it stands in the file."""
    entry = unit_type.entry()
    for key in ("transform", "exact"):
        if not entry[key]:
            del entry[key]
    return entry


def cluster_document(cluster: Cluster) -> Document:
    """A cluster as it stands in the file."""
    document: Document = {"name": cluster.name, "unit": cluster.unit, "protocol": cluster.protocol}
    if cluster.slbs:
        document["slbs"] = list(cluster.slbs)
    if not cluster.joined:
        document["joined"] = False
    return document


def domain_document(domain: Domain) -> Document:
    """A domain as it stands in the file."""
    document = _domain_config(domain)
    for uri in document["uris"]:
        uri["back_sources"] = {unit: ",".join(servers) for unit, servers in uri["back_sources"].items()}
    return document


def to_yaml(topology: Topology) -> str:
    """The text of the topology's file; :func:`parse` of it gives the topology back."""
    return as_text(document_of(topology))


# -- comparing -----------------------------------------------------------------------------------------------


class Act(StrEnum):
    """What happens to something."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True)
class Difference:
    """Something that is not as it should be.

    Attributes:
        kind: ``namespace``, ``unit``, ``unit type``, ``cluster`` or ``domain``.
        before, after: as they stand in the file; None where the thing is absent.
    """

    act: Act
    kind: str
    name: str
    before: Document | None
    after: Document | None

    def details(self) -> list[str]:
        """For an update: each value that changes, by its place under the thing."""
        if self.before is None or self.after is None:
            return []
        return list(_value_changes(self.before, self.after, ""))

    def __str__(self) -> str:
        sign = {Act.CREATE: "+", Act.UPDATE: "~", Act.DELETE: "-"}[self.act]
        return "\n".join([f"{sign} {self.kind} {self.name}", *(f"    {text}" for text in self.details())])


def differences(before: Topology | None, after: Topology) -> list[Difference]:
    """What has to happen to make ``before`` (None: nothing is there) into ``after``; deletions last."""
    old = _things(before) if before is not None else {}
    new = _things(after)
    changed = [
        Difference(Act.UPDATE if key in old else Act.CREATE, *key, old.get(key), document)
        for key, document in new.items()
        if old.get(key) != document
    ]
    gone = [Difference(Act.DELETE, *key, document, None) for key, document in old.items() if key not in new]
    return changed + gone[::-1]


def _things(topology: Topology) -> dict[tuple[str, str], Document]:
    """Everything in the topology by kind and name, in the order in which it can be created."""
    namespace = {
        "title": topology.title,
        "router_id": f"{topology.key_min}~{topology.key_max}",
        "default_unit_type": topology.default,
    }
    things: dict[tuple[str, str], Document] = {("namespace", topology.namespace): namespace}
    for position, unit in enumerate(topology.units, 1):
        things["unit", unit.code] = {**unit_document(unit), "position": position}
    for cluster in topology.clusters:
        things["cluster", cluster.name] = cluster_document(cluster)
    for unit_type in topology.unit_types:
        things["unit type", unit_type.name] = unit_type_document(unit_type)
    for domain in topology.domains:
        things["domain", domain.name] = domain_document(domain)
    return things


def _value_changes(before: Any, after: Any, place: str) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _value_changes(before.get(key), after.get(key), f"{place}.{key}" if place else key)
    elif _by_path(before) is not None and _by_path(after) is not None:
        yield from _value_changes(_by_path(before), _by_path(after), place)
    else:
        yield f"{place}: {_short(before)} → {_short(after)}"


def _by_path(value: Any) -> dict[str, Any] | None:
    """URIs by their path; None when the value is not a list of URIs."""
    if isinstance(value, list) and value and all(isinstance(v, dict) and "path" in v for v in value):
        return {str(v["path"]): {k: w for k, w in v.items() if k != "path"} for v in value}
    return None


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=10_000).strip()
    return text.removesuffix("\n...").strip()
