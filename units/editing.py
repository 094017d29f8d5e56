"""Changing what is saved of a namespace, its units and its unit types: checked, locked and audited."""

from typing import Any

from django.db import transaction
from django.db.models import ProtectedError
from django.utils.translation import gettext

from msha.steering.errors import InvalidRule, InvalidSnapshot
from msha.steering.ranges import KeySpace
from msha.steering.snapshot import compile_unit_type
from units import audit
from units.errors import Refused
from units.in_use import Kind, Thing, refuse_removal_if_used
from units.models import Namespace, Unit, UnitType
from units.publishing import in_effect, locked

Row = Namespace | Unit | UnitType

_FIELDS: dict[type, tuple[str, ...]] = {
    Namespace: ("name", "title", "key_min", "key_max", "default_unit_type"),
    Unit: ("code", "name", "is_center", "position"),
    UnitType: ("name", "sources", "transform", "untagged", "ranges", "exact"),
}
_NOUNS: dict[type, str] = {Namespace: "namespace", Unit: "unit", UnitType: "unit_type"}


def value(row: Row) -> dict[str, Any]:
    """The row as the audit record has it."""
    return {name: getattr(row, name) for name in _FIELDS[type(row)]}


def save(row: Row, *, actor: object) -> None:
    """The row is saved; it takes effect when it is put into effect, and owners change only by a cutover.

    Raises:
        Refused: the namespace was published, which fixes what would change.
    """
    kind = type(row)
    with transaction.atomic():
        before = None if row.pk is None else value(kind.objects.get(pk=row.pk))
        namespace = None
        if not (isinstance(row, Namespace) and row.pk is None):
            namespace = locked(row.pk if isinstance(row, Namespace) else row.namespace_id)
            _check_fixed(namespace, row, before)
        row.save()
        after = value(row)
        if before != after:
            audit.record(
                actor,
                f"{_NOUNS[kind]}.{'create' if before is None else 'update'}",
                _name(row),
                namespace=row if isinstance(row, Namespace) else namespace,
                before=before,
                after=after,
            )


def remove(row: Unit | UnitType, *, actor: object) -> None:
    """The row is gone from what is saved.

    Raises:
        Refused: something needs it.
        InUse: a running cutover uses it.
    """
    with transaction.atomic():
        namespace = locked(row.namespace_id)
        kind = Kind.UNIT if isinstance(row, Unit) else Kind.UNIT_TYPE
        unit = row.code if isinstance(row, Unit) else ""
        refuse_removal_if_used(namespace, Thing(kind, _name(row), unit))
        if sentences := obstacles(row):
            raise Refused(" ".join(sentences))
        before, name = value(row), _name(row)
        try:
            row.delete()
        except ProtectedError as error:
            raise Refused(_protected(name, error)) from error
        audit.record(actor, f"{_NOUNS[type(row)]}.delete", name, namespace=namespace, before=before)


def obstacles(row: Unit | UnitType) -> list[str]:
    """Why the row cannot be removed now, as far as rules say so."""
    if isinstance(row, UnitType):
        if not row.namespace.version:
            return []
        return [
            gettext(
                "Unit type %(name)s cannot be removed: the unit types of a namespace are fixed since it was"
                " first published."
            )
            % {"name": row.name}
        ]
    return [
        gettext(
            "Unit %(unit)s owns ids of %(unit_type)s %(where)s. Move them to other units by a cutover first."
        )
        % {"unit": row.code, "unit_type": name, "where": where}
        for name, where in _owned(row)
    ]


def check_rule(unit_type: UnitType, codes: set[str]) -> None:
    """The saved rule is one that an edge could obey.

    Raises:
        InvalidRule: its place is a field: ``sources``, ``transform``, ``untagged``, ``ranges``,
            ``ranges.center`` or ``exact.center``.
    """
    namespace = unit_type.namespace
    try:
        space = KeySpace(namespace.key_min, namespace.key_max)
        compile_unit_type(value(unit_type), space, codes, "rule")
    except InvalidSnapshot as error:
        raise InvalidRule(error.place.removeprefix("rule").lstrip("."), error.problem) from error


def _owned(unit: Unit) -> list[tuple[str, str]]:
    """The unit types of which the unit owns ids, and where that is written."""
    found = []
    for row in unit.namespace.unit_types.all():
        if row.ranges.get(unit.code) or row.exact.get(unit.code):
            found.append((row.name, gettext("in the saved rule")))
    document = in_effect(unit.namespace_id)
    for entry in [] if document is None else document["rule"]["unit_types"]:
        if entry["ranges"].get(unit.code) or entry.get("exact", {}).get(unit.code):
            found.append((entry["name"], gettext("in the rule in effect")))
    return found


def _check_fixed(namespace: Namespace, row: Row, before: dict[str, Any] | None) -> None:
    """Nothing changes that the first publish has fixed."""
    if not namespace.version:
        return
    if isinstance(row, Namespace):
        fixed: tuple[str, ...] = ("name", "key_min", "key_max", "default_unit_type")
    elif isinstance(row, UnitType):
        fixed = ("name",)
    else:
        fixed = ()
    if isinstance(row, UnitType) and before is None:
        raise Refused(
            gettext("No unit type can be added: they are fixed since the namespace was first published.")
        )
    for name in fixed:
        if before is not None and before[name] != getattr(row, name):
            raise Refused(
                gettext("%(field)s is fixed since the namespace was first published.")
                % {"field": row._meta.get_field(name).verbose_name}  # type: ignore[union-attr]
            )
    if isinstance(row, Unit) and before is not None and before["code"] != row.code:
        raise Refused(gettext("The code of a unit never changes: it is part of host names and of the rule."))


def _protected(name: str, error: ProtectedError) -> str:
    holders = sorted({f"{held._meta.verbose_name} {held}" for held in error.protected_objects})
    return gettext("%(name)s cannot be removed while it has: %(holders)s.") % {
        "name": name,
        "holders": ", ".join(holders[:5]),
    }


def _name(row: Row) -> str:
    return row.code if isinstance(row, Unit) else row.name
