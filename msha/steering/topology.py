"""One namespace as a value: its normal form, its snapshot, and what two of them differ in.

A `Topology` in normal form is sorted, its ranges ascend and its servers are tuples, so that equal values
mean equal things. The file it is read from is in ``topology_file``.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import yaml

from msha.steering.errors import InvalidRule, InvalidSnapshot
from msha.steering.phases import table_of
from msha.steering.ranges import KeySpace
from msha.steering.router_id import parse_sources, parse_transforms
from msha.steering.snapshot import (
    DEFAULT_PORT,
    DEFAULT_TLS_PORT,
    Document,
    Published,
    build,
    check_server,
)

FILE_VERSION = 1

#: Offline snapshots need a namespace id; this one is the same wherever the same file is compiled.
_OFFLINE_IDS = uuid.UUID("5d1b0c1e-6b0d-4a34-9a53-2f5a3b0e4c11")

#: What people put between servers instead of a comma.
_STRAY_SEPARATORS = (";", "；", "，", "、", "|", " ")


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
    """A domain; every unit that has a cluster or a port for TLS has a port.

    Attributes:
        tls_ports: of those units whose port for TLS is another one than 443.
    """

    name: str
    protocol: str = "websocket"
    dns: str = "none"
    multi_unit: bool = True
    correction: str = "redirect"
    redirect_scheme: str = "http"
    ports: Mapping[str, int] = field(default_factory=dict)
    clusters: Mapping[str, str] = field(default_factory=dict)
    uris: tuple[Uri, ...] = ()
    tls_ports: Mapping[str, int] = field(default_factory=dict)


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


# -- the snapshot of a topology -----------------------------------------------------------------------------


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
        # A document without any stays as it was when there were none: a digest is for ever.
        **({"tls_ports": dict(domain.tls_ports)} if domain.tls_ports else {}),
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


def compiled(
    topology: Topology, version: int = 1, namespace_id: str = "", rule: Document | None = None
) -> Published:
    """The snapshot of the topology, for edges that run without a console.

    Args:
        rule: its rule part; default: what the topology says, at epoch 0.

    Raises:
        InvalidSnapshot: the topology cannot be obeyed.
    """
    identity = namespace_id or str(uuid.uuid5(_OFFLINE_IDS, topology.namespace))
    part = rule_part(topology) if rule is None else rule
    return build(identity, topology.namespace, version, config_part(topology), part)


# -- normal form --------------------------------------------------------------------------------------------


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
    tls_ports = {unit: port for unit, port in domain.tls_ports.items() if port != DEFAULT_TLS_PORT}
    ports = dict.fromkeys([*domain.clusters, *tls_ports], DEFAULT_PORT) | dict(domain.ports)
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
        tls_ports,
    )


def split_servers(text: str, place: str = "") -> tuple[str, ...]:
    """The servers of ``IP:PORT,IP:PORT``, in their order; blanks around them and a comma at the end are fine.

    Raises:
        InvalidSnapshot: a server is malformed or named twice; says which and what is wrong with it.
    """
    lines = [line.strip().removesuffix(",") for line in text.splitlines()]
    servers = [part.strip() for line in lines if line for part in line.split(",")]
    for server in servers:
        if not server:
            raise InvalidSnapshot(place, "nothing stands between two commas; write IP:PORT,IP:PORT")
        stray = next((mark for mark in _STRAY_SEPARATORS if mark in server), None)
        if stray is not None and ":" in server:
            raise InvalidSnapshot(place, f"{server!r}: write a comma between servers, not {stray!r}")
        check_server(server, place)
        if servers.count(server) > 1:
            raise InvalidSnapshot(place, f"{server} is named twice")
    return tuple(servers)


# -- as it stands in the file -------------------------------------------------------------------------------


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


# -- comparing ----------------------------------------------------------------------------------------------


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
