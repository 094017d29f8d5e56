"""The rule in effect and the rule asked for, as unit-type dicts of the snapshot's shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext

from cutover.errors import InvalidChange, Refused
from msha.steering import snapshot as steering
from msha.steering.errors import InvalidRule, InvalidSnapshot
from msha.steering.phases import moved_between, table_of
from msha.steering.ranges import KeySpace, MovedIds
from units import publishing
from units.models import Namespace, UnitType

UnitTypeDict = dict[str, Any]
Document = dict[str, Any]

#: The keys of a unit type; a rule part holds exactly these.
KEYS = ("name", "sources", "transform", "untagged", "ranges", "exact")


@dataclass(frozen=True, slots=True)
class Change:
    """One unit type before and after, and the ids that change their owner between the two."""

    old: UnitTypeDict
    new: UnitTypeDict
    moved: MovedIds


def in_effect(namespace: Namespace) -> Document:
    """The newest published document.

    Raises:
        Refused: nothing has been published yet.
    """
    document = publishing.in_effect(namespace)
    if document is None:
        raise Refused(
            gettext("Nothing has been published in namespace %(name)s yet: put it into effect first.")
            % {"name": namespace.name}
        )
    return document


def key_space_of(rule: Document) -> KeySpace:
    """The key space of a rule part."""
    return KeySpace(rule["key_space"]["min"], rule["key_space"]["max"])


def unit_type_of(rule: Document, name: str) -> UnitTypeDict:
    """The unit type as it stands in a rule part.

    Raises:
        Refused: the rule part has none of this name.
    """
    for entry in rule["unit_types"]:
        if entry["name"] == name:
            return {"transform": [], "exact": {}, **entry}
    known = ", ".join(entry["name"] for entry in rule["unit_types"])
    raise Refused(
        gettext("Unit type %(name)s is not in effect; there is %(known)s.") % {"name": name, "known": known}
    )


def digest_of_tables(rule: Document) -> str:
    """The digest of all that decides about owners: equal digests mean that a preview still holds.

    Epoch and running cutover stay out of it: a cutover that was undone leaves every table as it was.
    """
    tables = {key: rule[key] for key in ("key_space", "default_unit_type", "unit_types")}
    return steering.digest_of(steering.canonical(tables))


def change(
    document: Document,
    unit_type: str,
    *,
    ranges: Mapping[str, Sequence[str]] | None = None,
    exact: Mapping[str, Sequence[int]] | None = None,
    entry: UnitTypeDict | None = None,
) -> Change:
    """What the asked-for rule changes in the unit type that is in effect.

    Args:
        ranges, exact: replace those of the rule in effect; None leaves them as they are.
        entry: replaces the whole unit type instead.

    Raises:
        InvalidChange: the new rule is not valid, or changes nothing; names the place.
        Refused: there is no such unit type in effect.
    """
    rule = document["rule"]
    old = unit_type_of(rule, unit_type)
    asked = dict(old) if entry is None else {**old, **{key: entry[key] for key in KEYS if key in entry}}
    if ranges is not None:
        asked["ranges"] = {unit: list(texts) for unit, texts in ranges.items()}
    if exact is not None:
        asked["exact"] = {unit: list(ids) for unit, ids in exact.items()}
    asked["name"] = unit_type
    new = checked(document, asked)
    moved = moved_between(old, new, key_space_of(rule))
    if not moved and old["untagged"] == new["untagged"]:
        raise InvalidChange(
            gettext(
                "Nothing moves: every id keeps the owner it has now. Change at least one range or exact id."
            )
        )
    return Change(old, new, moved)


def checked(document: Document, entry: UnitTypeDict) -> UnitTypeDict:
    """The unit type in the form in which it is published; it fits the units and the key space in effect.

    Raises:
        InvalidChange: names the place, for example ``ranges.center``.
    """
    codes = [unit["code"] for unit in document["config"]["units"]]
    key_space = key_space_of(document["rule"])
    try:
        steering.compile_unit_type(entry, key_space, set(codes), "rule")
        table = table_of(entry, key_space)
    except (InvalidSnapshot, InvalidRule) as error:
        raise InvalidChange(error.problem, error.place.removeprefix("rule.")) from error
    return {**entry, "ranges": table.ranges_text(), "exact": table.exact_ids()}


def entry_of(row: UnitType) -> UnitTypeDict:
    """The saved rule of a unit type, in the shape of the snapshot."""
    return {
        "name": row.name,
        "sources": row.sources,
        "transform": row.transform,
        "untagged": row.untagged,
        "ranges": row.ranges,
        "exact": row.exact,
    }


def same_rule(one: UnitTypeDict, other: UnitTypeDict, key_space: KeySpace) -> bool:
    """Whether two unit types say the same, however their ranges are written; False if one is not valid."""
    try:
        moved = moved_between(one, other, key_space)
    except InvalidRule:
        return False
    return not moved and one["untagged"] == other["untagged"]
