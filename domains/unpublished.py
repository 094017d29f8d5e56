"""What is saved and not in effect: the difference between two truths that operators must never mistake."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.utils.translation import gettext

from domains.saved import topology_of
from msha.steering import snapshot as steering
from msha.steering import topology
from msha.steering.diff import Line, Row, compare, document_text, rule_text, side_by_side
from msha.steering.errors import InvalidRule, InvalidSnapshot
from msha.steering.phases import moved_between, table_of
from msha.steering.ranges import KeySpace, MovedIds
from msha.steering.topology import Topology
from units import publishing
from units.models import Namespace

Document = dict[str, Any]


def compose_config(namespace: Namespace) -> Document:
    """The config part that what is saved amounts to; not checked yet."""
    return topology.config_part(topology_of(namespace))


def compose_rule_from_saved(namespace: Namespace) -> Document:
    """The rule part of the saved unit types: for the first publish, and to compare with the one in effect."""
    return topology.rule_part(topology_of(namespace), epoch=namespace.epoch + 1)


RulesUnderWay = Callable[[Namespace, str], Iterable[Document]]
"""The rules of a unit type between which a running cutover moves; none when there is no such cutover."""

_under_way: RulesUnderWay | None = None


def register_rules_under_way(rules: RulesUnderWay) -> None:
    """From now on a saved rule that is one of ``rules`` is no unpublished change: its cutover settles it."""
    global _under_way
    _under_way = rules


@dataclass(frozen=True)
class RuleDifference:
    """A unit type whose saved rule is not the one in effect; one of the two may be missing."""

    name: str
    key_space: KeySpace
    in_effect: Document | None
    saved: Document | None

    @cached_property
    def moved(self) -> MovedIds | None:
        """The ids that would change their owner; None when the saved rule is missing, new or not valid."""
        if self.in_effect is None or self.saved is None:
            return None
        try:
            return moved_between(self.in_effect, self.saved, self.key_space)
        except InvalidRule:
            return None

    def rows(self, namespace: str) -> list[Row]:
        """The two rule texts side by side."""
        space = {"min": self.key_space.min, "max": self.key_space.max}
        texts = [
            rule_text(namespace, space, entry) if entry else "" for entry in (self.in_effect, self.saved)
        ]
        return side_by_side(texts[0], texts[1])

    def __str__(self) -> str:
        if self.in_effect is None:
            return gettext("unit type %(name)s is new") % {"name": self.name}
        if self.saved is None:
            return gettext("unit type %(name)s is removed") % {"name": self.name}
        if not self.moved:
            return gettext("the rule of %(name)s changes") % {"name": self.name}
        return gettext("the rule of %(name)s moves %(count)d ids: %(moved)s") % {
            "name": self.name,
            "count": self.moved.count,
            "moved": _shortened(self.moved),
        }


@dataclass(frozen=True)
class Unpublished:
    """What is saved beside what is in effect.

    Attributes:
        version: the version compared with; 0 when nothing was published yet.
        rules: only unit types that differ.
        obstacles: sentences about what cannot come into effect as it is saved.
    """

    namespace: Namespace
    version: int
    config_in_effect: Document | None
    config_saved: Document
    rule_saved: Document
    rules: Sequence[RuleDifference] = ()
    obstacles: Sequence[str] = field(default_factory=list)

    @property
    def first(self) -> bool:
        """Whether nothing has been published yet."""
        return self.config_in_effect is None

    @cached_property
    def config_changed(self) -> bool:
        return self.config_in_effect is None or not _same(self.config_in_effect, self.config_saved)

    @cached_property
    def seen(self) -> str:
        """Stands for all of this: whoever publishes can say what he has looked at."""
        rules = [] if self.first else [[rule.name, rule.saved] for rule in self.rules]
        looked_at = [self.version, self.config_saved, rules or self.rule_saved]
        return steering.digest_of(steering.canonical(looked_at))[:16]

    @property
    def nothing(self) -> bool:
        return not (self.config_changed or self.rules or self.obstacles)

    def lines(self) -> list[Line]:
        """The config part in effect and the saved one, line by line as YAML."""
        return compare(_text_or_empty(self.config_in_effect), document_text(self.config_saved))

    def rows(self) -> list[Row]:
        """The same, side by side."""
        return side_by_side(_text_or_empty(self.config_in_effect), document_text(self.config_saved))

    def sentences(self) -> list[str]:
        """Each change in a few words."""
        return [*self.changes_but(()), *self.obstacles]

    def changes_but(self, things: Collection[tuple[str, str]]) -> list[str]:
        """Each change of anything else than these, which are named by kind and name."""
        if self.first:
            return [gettext("nothing of this namespace is in effect yet")]
        assert self.config_in_effect is not None
        changed = _config_changes(self.config_in_effect, self.config_saved)
        return [
            *(sentence for thing, sentence in changed if thing not in things),
            *(str(rule) for rule in self.rules if ("unit type", rule.name) not in things),
        ]


def unpublished_changes(namespace: Namespace, wanted: Topology | None = None) -> Unpublished:
    """What putting into effect would change, or leave to a cutover, or refuse.

    Args:
        wanted: compared with what is in effect as if it had been saved already; None means what is saved.
    """
    document = publishing.in_effect(namespace)
    saved = topology_of(namespace) if wanted is None else wanted
    config, rule = topology.config_part(saved), topology.rule_part(saved, namespace.epoch + 1)
    if document is None:
        return Unpublished(namespace, 0, None, config, rule, (), _faults(config, rule))
    obstacles = [*_fixed_since_first_publish(document["rule"], rule), *_still_owning(document, config)]
    return Unpublished(
        namespace,
        document["version"],
        document["config"],
        config,
        rule,
        tuple(unsettled_rules(namespace, document["rule"], rule)),
        obstacles or _faults(config, document["rule"]),
    )


def has_unpublished_changes(namespace: Namespace) -> list[str]:
    """Each saved change that is not in effect, in a few words; empty when all is in effect.

    A namespace in which there is nothing to publish yet has no unpublished changes either.
    """
    changes = unpublished_changes(namespace)
    if changes.first and not changes.config_saved["units"]:
        return []
    return changes.sentences()


def pending_domains(namespace: Namespace) -> set[str]:
    """Names of saved domains that are not in effect as they are saved."""
    document = publishing.in_effect(namespace)
    config = compose_config(namespace)
    published = {} if document is None else {d["name"]: d for d in document["config"]["domains"]}
    return {d["name"] for d in config["domains"] if not _same(published.get(d["name"]), d)}


def unsettled_rules(namespace: Namespace, in_effect: Document, saved: Document) -> Iterator[RuleDifference]:
    """Unit types whose saved rule is not in effect, and is not left to a running cutover either."""
    for difference in rule_differences(in_effect, saved):
        assert difference.saved is not None
        under_way = _under_way(namespace, difference.name) if _under_way is not None else ()
        if not any(_same_rule(entry, difference.saved, difference.key_space) for entry in under_way):
            yield difference


def rule_differences(in_effect: Document, saved: Document) -> Iterator[RuleDifference]:
    """Unit types on both sides that are not the same rule; others are obstacles."""
    key_space = KeySpace(in_effect["key_space"]["min"], in_effect["key_space"]["max"])
    published = {entry["name"]: {"transform": [], "exact": {}, **entry} for entry in in_effect["unit_types"]}
    for entry in saved["unit_types"]:
        if entry["name"] in published and not _same_rule(published[entry["name"]], entry, key_space):
            yield RuleDifference(entry["name"], key_space, published[entry["name"]], entry)


def _same_rule(one: Document, other: Document, key_space: KeySpace) -> bool:
    """Whether two unit types steer alike, however their ranges are written."""
    if any(one.get(key) != other.get(key) for key in ("sources", "transform", "untagged")):
        return False
    try:
        tables = [list(table_of(entry, key_space).segments()) for entry in (one, other)]
    except InvalidRule:
        return one == other
    return tables[0] == tables[1]


def _fixed_since_first_publish(in_effect: Document, saved: Document) -> Iterator[str]:
    """What no publish and no cutover changes once a namespace has been published."""
    if in_effect["key_space"] != saved["key_space"]:
        yield gettext(
            "The key space is %(in_effect)s in effect and %(saved)s saved. It is fixed by the first publish,"
            " because every id would change its owner: set it back, or make a new namespace."
        ) % {"in_effect": _space(in_effect), "saved": _space(saved)}
    now = {entry["name"] for entry in in_effect["unit_types"]}
    wanted = {entry["name"] for entry in saved["unit_types"]}
    for name in sorted(wanted ^ now):
        happens = gettext("added") if name in wanted else gettext("removed")
        yield gettext(
            "Unit type %(name)s was %(happens)s after the first publish. The unit types of a namespace are"
            " fixed by it, because an edge that lags behind would serve their ids by another table."
        ) % {"name": name, "happens": happens}
    default = saved["default_unit_type"]
    if default != in_effect["default_unit_type"] and now == wanted:
        yield gettext(
            "The default unit type is %(in_effect)s in effect and %(saved)s saved. It is fixed by the first"
            " publish: set it back to %(in_effect)s."
        ) % {"in_effect": in_effect["default_unit_type"], "saved": default}


def _still_owning(document: Document, config: Document) -> Iterator[str]:
    """Units that would be removed although ids lead to them."""
    staying = {unit["code"] for unit in config["units"]}
    rule = document["rule"]
    key_space = KeySpace(rule["key_space"]["min"], rule["key_space"]["max"])
    for entry in rule["unit_types"]:
        for unit, count in table_of(entry, key_space).share().items():
            if unit not in staying:
                yield gettext(
                    "Unit %(unit)s owns %(count)d ids of %(name)s in effect: cut it to zero before it is"
                    " removed."
                ) % {"unit": unit, "count": count, "name": entry["name"]}


def _faults(config: Document, rule: Document) -> list[str]:
    """The first thing an edge could not obey."""
    if not config["units"]:
        return [gettext("There are no units yet. Add the units of this namespace, one of them the center.")]
    if not rule["unit_types"]:
        return [gettext("There is no unit type yet. Add one, with a rule that gives every id a unit.")]
    try:
        steering.check_config(config)
        steering.check_rule(rule, [unit["code"] for unit in config["units"]])
    except InvalidSnapshot as error:
        return [as_sentence(f"{_named_place(error.place, config, rule)}: {error.problem}")]
    return []


_ORDER = {"units": "code", "clusters": "name", "domains": "name", "unit_types": "name", "uris": "path"}


def _named_place(place: str, config: Document, rule: Document) -> str:
    """The place with names instead of numbers: ``domains[0].uris[1]`` becomes ``domain a.b, URI /x``."""
    words = {
        "units": gettext("unit"),
        "clusters": gettext("cluster"),
        "domains": gettext("domain"),
        "unit_types": gettext("unit type"),
        "uris": gettext("URI"),
    }
    value: Any = {"config": config, "rule": rule}
    said = []
    for step in place.split("."):
        key, _, index = step.partition("[")
        value = value.get(key) if isinstance(value, dict) else None
        if index and isinstance(value, list) and key in words:
            value = value[int(index.rstrip("]"))]
            said.append(f"{words[key]} {value.get(_ORDER[key], '')}")
        elif key not in ("config", "rule"):
            said.append(step)
    return ", ".join(said)


def _config_changes(before: Document, after: Document) -> Iterator[tuple[tuple[str, str], str]]:
    """Which units, clusters and domains differ between two config parts: kind and name, and a sentence."""
    kinds = {"units": "unit", "clusters": "cluster", "domains": "domain"}
    words = {"units": gettext("unit"), "clusters": gettext("cluster"), "domains": gettext("domain")}
    for key, word in words.items():
        old = {entry[_ORDER[key]]: entry for entry in before.get(key, [])}
        new = {entry[_ORDER[key]]: entry for entry in after.get(key, [])}
        for name in dict.fromkeys([*new, *old]):
            thing = (kinds[key], name)
            if name not in old:
                yield thing, gettext("%(kind)s %(name)s is new") % {"kind": word, "name": name}
            elif name not in new:
                yield thing, gettext("%(kind)s %(name)s is removed") % {"kind": word, "name": name}
            elif not _same(old[name], new[name]):
                yield thing, gettext("%(kind)s %(name)s changes") % {"kind": word, "name": name}
    orders = [[unit["code"] for unit in config["units"]] for config in (before, after)]
    if orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]):
        first = next(new for old, new in zip(*orders, strict=True) if old != new)
        yield ("unit", first), gettext("the order of the units changes")


def _same(one: object, other: object) -> bool:
    return steering.canonical(one) == steering.canonical(other)


def _text_or_empty(config: Document | None) -> str:
    return "" if config is None else document_text(config)


def _space(rule: Document) -> str:
    return f"{rule['key_space']['min']}~{rule['key_space']['max']}"


def _shortened(moved: MovedIds, limit: int = 120) -> str:
    text = moved.text()
    return text if len(text) <= limit else f"{text[:limit].rpartition(',')[0]}, …"


def as_sentence(problem: str) -> str:
    """A complaint of the core as a sentence of its own."""
    return problem if problem.endswith((".", "!", "?")) else f"{problem}."
