"""The topology file: one namespace as people write, keep and review it.

Reading is strict, because a misspelt key that is ignored would be a change that silently does not happen;
every complaint names the place and, where there is one, the line.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from msha.steering.diff import as_text
from msha.steering.errors import InvalidRule, InvalidSnapshot, Terminal
from msha.steering.ranges import KeySpace
from msha.steering.snapshot import (
    BALANCES,
    CORRECTIONS,
    DNS_TYPES,
    PROTOCOLS,
    REDIRECT_SCHEMES,
    UNTAGGED_POLICIES,
    check_config,
    check_rule,
)
from msha.steering.topology import (
    FILE_VERSION,
    Cluster,
    Domain,
    Topology,
    Unit,
    UnitType,
    Uri,
    config_part,
    document_of,
    normal,
    rule_part,
    split_servers,
)

SIZE_LIMIT_BYTES = 4 * 1024 * 1024

_SLUG = re.compile(r"[A-Za-z0-9_-]{1,63}")


@dataclass(eq=False)
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


def to_yaml(topology: Topology) -> str:
    """The text of the topology's file; :func:`parse` of it gives the topology back."""
    return as_text(document_of(topology))


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
            "protocol", "dns", "multi_unit", "correction", "redirect_scheme", "ports", "tls_ports",
            "clusters", "uris",
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
        tls_ports={unit: port.integer(1) for unit, port in _members(fields, "tls_ports")},
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
