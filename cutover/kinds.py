"""What a cutover may be asked for beside a whole rule: a share of a unit's ids, or a unit cut to zero.

What is asked for is turned into a rule against the one in effect, under the namespace's lock; from then on
the cutover is like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from django.utils.translation import gettext, ngettext

from cutover import rules
from cutover.errors import InvalidChange
from cutover.models import Cutover
from cutover.rules import Document, UnitTypeDict
from msha.steering import shares
from msha.steering.errors import InvalidRule
from msha.steering.phases import table_of
from msha.steering.ranges import RangeTable

Kind = Cutover.Kind


@dataclass(frozen=True, slots=True)
class Shift:
    """Some ids of one unit go to another: a number of them, or a percentage.

    Attributes:
        of_all: the percentage is one of the key space, not of the ids that the losing unit owns.
    """

    losing: str
    gaining: str
    ids: int | None = None
    percent: Fraction | None = None
    of_all: bool = False


@dataclass(frozen=True, slots=True)
class ToZero:
    """A unit gives away everything, exact ids included.

    Attributes:
        to: the unit that gets it, or weights by unit; None: the others in proportion to their shares.
    """

    unit: str
    to: str | Mapping[str, int] | None = None


Wish = Sequence[Shift] | ToZero


@dataclass(frozen=True, slots=True)
class Granted:
    """The rule that a wish amounts to.

    Attributes:
        said: the wish and what it came to as facts; `words` makes sentences of them.
    """

    entry: UnitTypeDict
    kind: Cutover.Kind
    said: list[dict[str, Any]]


def granted(document: Document, unit_type: str, wish: Wish) -> Granted:
    """The rule in effect, changed as wished.

    Raises:
        InvalidChange: there is no such unit, or it does not own so many ids.
        Refused: there is no such unit type in effect.
    """
    rule = document["rule"]
    entry = rules.unit_type_of(rule, unit_type)
    table = table_of(entry, rules.key_space_of(rule))
    codes = [unit["code"] for unit in document["config"]["units"]]
    said: list[dict[str, Any]]
    if isinstance(wish, ToZero):
        kind, table, said = Kind.ZERO, *_cut(table, wish, codes)
    else:
        kind, said = Kind.SHIFT, []
        for shift in wish:
            table, facts = shifted(table, shift, codes)
            said.append(facts)
    return Granted({**entry, "ranges": table.ranges_text(), "exact": table.exact_ids()}, kind, said)


def shifted(table: RangeTable, shift: Shift, codes: Sequence[str]) -> tuple[RangeTable, dict[str, Any]]:
    """The table after the shift, and what it came to.

    Raises:
        InvalidChange: as `granted`.
    """
    _refuse_unknown(codes, shift.losing, shift.gaining)
    if shift.losing == shift.gaining:
        raise InvalidChange(gettext("Choose another unit that gets the ids."), "shift")
    ids, owned = ids_of(shift, table), table.share().get(shift.losing, 0)
    if ids > shares.movable(table, shift.losing):
        raise InvalidChange(
            gettext(
                "%(unit)s owns %(owned)d ids by its ranges, so %(ids)d cannot be taken from it; its exact ids"
                " stay. To take everything, cut the unit to zero."
            )
            % {"unit": shift.losing, "owned": shares.movable(table, shift.losing), "ids": ids},
            "shift",
        )
    facts = {
        "act": "shift",
        "losing": shift.losing,
        "gaining": shift.gaining,
        "ids": ids,
        "percent": None if shift.percent is None else float(shift.percent),
        "of": table.key_space.size if shift.of_all else owned,
        "of_all": shift.of_all,
    }
    return shares.shift(table, shift.losing, shift.gaining, ids), facts


def ids_of(shift: Shift, table: RangeTable) -> int:
    """How many ids a shift moves.

    A percentage is one of the losing unit's ids, unless it is said to be one of all: that can never ask for
    more than there is, and of the two it is the one that moves less.

    Raises:
        InvalidChange: it is neither one number nor one percentage, or nothing can be meant by it.
    """
    if (shift.ids is None) == (shift.percent is None):
        raise InvalidChange(gettext("Say how much is to move: a number of ids, or a percentage."), "shift")
    if shift.ids is not None:
        if shift.ids < 1:
            raise InvalidChange(gettext("At least one id has to move."), "shift")
        return shift.ids
    assert shift.percent is not None
    if not 0 < shift.percent <= 100:
        raise InvalidChange(gettext("Write a percentage above 0 and up to 100."), "shift")
    owned = table.share().get(shift.losing, 0)
    if not owned:
        raise InvalidChange(gettext("%(unit)s owns no id.") % {"unit": shift.losing}, "shift")
    return shares.portion(table.key_space.size if shift.of_all else owned, shift.percent)


def words(said: Sequence[Mapping[str, Any]]) -> str:
    """What was asked for and what it came to, in the reader's language; "" for a plain rule."""
    return "; ".join(_words(facts) for facts in said)


def _words(facts: Mapping[str, Any]) -> str:
    if facts["act"] == "to_zero":
        if facts["to"]:
            return gettext("%(unit)s is cut to zero: its %(ids)d ids go to %(to)s") % facts
        return (
            gettext("%(unit)s is cut to zero: its %(ids)d ids go to the others in proportion to their shares")
            % facts
        )
    if facts["percent"] is None:
        return ngettext(
            "%(ids)d id of %(losing)s goes to %(gaining)s",
            "%(ids)d ids of %(losing)s go to %(gaining)s",
            facts["ids"],
        ) % {**facts}
    values = {**facts, "percent": f"{facts['percent']:g}"}
    if facts["of_all"]:
        return (
            gettext("%(percent)s %% of all %(of)d ids, which is %(ids)d, go from %(losing)s to %(gaining)s")
            % values
        )
    return (
        gettext("%(percent)s %% of the %(of)d ids of %(losing)s, which is %(ids)d, go to %(gaining)s")
        % values
    )


def _cut(table: RangeTable, wish: ToZero, codes: Sequence[str]) -> tuple[RangeTable, list[dict[str, Any]]]:
    named = [wish.to] if isinstance(wish.to, str) else list(wish.to or ())
    _refuse_unknown(codes, wish.unit, *named)
    owned = table.share().get(wish.unit, 0)
    if not owned:
        raise InvalidChange(gettext("%(unit)s owns no id.") % {"unit": wish.unit}, "to_zero")
    if wish.unit in named:
        raise InvalidChange(gettext("Choose another unit that gets the ids."), "to_zero")
    if not named and owned == table.key_space.size:
        raise InvalidChange(
            gettext("No other unit owns ids: say which one gets those of %(unit)s.") % {"unit": wish.unit},
            "to_zero",
        )
    try:
        after = shares.cut_to_zero(table, wish.unit, wish.to)
    except InvalidRule as error:
        raise InvalidChange(error.problem, "to_zero") from error
    said = [{"act": "to_zero", "unit": wish.unit, "ids": owned, "to": ", ".join(named)}]
    return after, said


def _refuse_unknown(codes: Sequence[str], *named: str) -> None:
    for code in named:
        if code not in codes:
            raise InvalidChange(
                gettext("There is no unit %(unit)s in effect; there is %(known)s.")
                % {"unit": code, "known": ", ".join(codes)}
            )
