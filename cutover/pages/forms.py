"""The forms of the wizard.

The table form covers the key space by construction: of each range only the last id is asked for, and the next
one begins behind it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cutover.models import Cutover
from cutover.pages.bars import Looks, UnitLook
from cutover.pages.shifting import ShiftForm
from msha.steering.errors import InvalidRule
from msha.steering.ranges import IdRange, KeySpace, MovedIds, MovedRange, RangeTable, parse_range

UnitTypeDict = dict[str, Any]


@dataclass(slots=True)
class Row:
    """One range as it stands in the form; ``text`` is what was typed as its last id."""

    unit: UnitLook
    first: int
    text: str
    error: str = ""

    @property
    def last(self) -> int | None:
        digits = self.text.strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 16 else None


@dataclass(slots=True)
class ExactRow:
    """The exact ids of one unit as typed."""

    unit: UnitLook
    text: str
    error: str = ""


@dataclass
class TableForm:
    """A range table being edited.

    Attributes:
        rows: ascending; the last one always ends with the key space.
        refusal: what is wrong with the whole, "" when nothing is.
        assign_text, assign_unit, assign_error: the line that gives some ids to a unit.
    """

    key_space: KeySpace
    looks: Looks
    rows: list[Row]
    exact: list[ExactRow]
    refusal: str = ""
    assign_text: str = ""
    assign_unit: str = ""
    assign_error: str = ""
    reason: str = ""
    shift: ShiftForm = field(default_factory=ShiftForm)
    _exact_ids: dict[str, list[int]] = field(default_factory=dict)

    # -- making one ----------------------------------------------------------------------------------------

    @classmethod
    def of_rule(cls, entry: UnitTypeDict, key_space: KeySpace, looks: Looks, reason: str = "") -> "TableForm":
        """The form filled with a valid rule."""
        table = RangeTable.parse(key_space, entry["ranges"], entry.get("exact", {}))
        return cls.of_table(table, looks, reason)

    @classmethod
    def of_table(cls, table: RangeTable, looks: Looks, reason: str = "") -> "TableForm":
        rows: list[Row] = []
        for one in table.ranges:
            if rows and rows[-1].unit.code == one.unit:
                rows[-1].text = str(one.end - 1)
            else:
                rows.append(Row(looks.at(one.unit), one.start, str(one.end - 1)))
        exact = table.exact_ids()
        return cls(
            table.key_space,
            looks,
            rows,
            [ExactRow(unit, ", ".join(map(str, exact.get(code, ())))) for code, unit in looks.items()],
            reason=reason,
        )

    @classmethod
    def of_post(cls, data: QueryDict, key_space: KeySpace, looks: Looks) -> "TableForm":
        """The form as it was sent; ask `is_valid` next."""
        codes, lasts = data.getlist("unit"), data.getlist("last")
        rows: list[Row] = []
        first = key_space.min
        for code, text in zip(codes, lasts, strict=False):
            row = Row(looks.at(code), first, text)
            rows.append(row)
            first = (row.last if row.last is not None else first) + 1
        if rows:
            rows[-1].text = str(key_space.max)
        return cls(
            key_space,
            looks,
            rows,
            [ExactRow(unit, data.get(f"exact-{code}", "")) for code, unit in looks.items()],
            assign_text=data.get("assign_ids", "").strip(),
            assign_unit=data.get("assign_unit", ""),
            reason=data.get("reason", "").strip(),
            shift=ShiftForm.of(data.dict()),
        )

    # -- checking ------------------------------------------------------------------------------------------

    def is_valid(self) -> bool:
        """Whether the rows are a table; every fault is a sentence at its row."""
        if not self.rows:
            self.refusal = _("The form was sent without ranges. Open the page again.")
            return False
        unknown = [row.unit.code for row in self.rows if row.unit.code not in self.looks]
        if unknown:
            self.refusal = _("There is no unit %(code)s. Open the page again.") % {"code": unknown[0]}
            return False
        previous = self.key_space.min - 1
        for index, row in enumerate(self.rows):
            previous = self._check_row(row, previous, rest=len(self.rows) - 1 - index)
        self._check_exact()
        errors = [*(row.error for row in self.rows), *(row.error for row in self.exact)]
        return not (self.refusal or any(errors))

    def _check_row(self, row: Row, previous: int, rest: int) -> int:
        if row.last is None:
            row.error = _("Write the last id of this range as a number, for example %(example)d.") % {
                "example": previous + 1
            }
            return previous
        if row.last > self.key_space.max or (rest and row.last > self.key_space.max - rest):
            row.error = _("%(id)d leaves no id for what follows: ids go up to %(max)d.") % {
                "id": row.last,
                "max": self.key_space.max,
            }
        elif row.last <= previous:
            row.error = _(
                "%(id)d lies before this range begins (%(first)d). To take all its ids, cut the unit to zero."
            ) % {
                "id": row.last,
                "first": previous + 1,
            }
        return row.last

    def _check_exact(self) -> None:
        seen: dict[int, str] = {}
        self._exact_ids = {}
        for row in self.exact:
            ids: list[int] = []
            for word in row.text.replace("，", ",").replace(",", " ").split():
                if not (word.isascii() and word.isdigit() and len(word) <= 16):
                    row.error = _("“%(word)s” is not an id; write single ids, separated by commas.") % {
                        "word": word
                    }
                elif not self.key_space.contains(int(word)):
                    row.error = _("Id %(id)s leaves the key space %(space)s.") % {
                        "id": word,
                        "space": self.key_space,
                    }
                elif int(word) in seen:
                    row.error = _("Id %(id)s is already an exact id of %(unit)s.") % {
                        "id": word,
                        "unit": seen[int(word)],
                    }
                else:
                    ids.append(int(word))
                    seen[int(word)] = row.unit.label
            if ids:
                self._exact_ids[row.unit.code] = ids

    # -- what it says ----------------------------------------------------------------------------------------

    def table(self) -> RangeTable:
        """The table of a valid form."""
        ranges, first = [], self.key_space.min
        for row in self.rows:
            assert row.last is not None
            ranges.append(IdRange(first, row.last + 1, row.unit.code))
            first = row.last + 1
        exact = [(single, unit) for unit, ids in self._exact_ids.items() for single in ids]
        return RangeTable(self.key_space, tuple(_joined(ranges)), tuple(exact))

    def table_or_none(self) -> RangeTable | None:
        """The table, if the form says one; a refusal that it already bears stays."""
        borne, self.refusal = self.refusal, ""
        valid = self.is_valid()
        self.refusal = borne or self.refusal
        return self.table() if valid else None

    # -- acts on the table ----------------------------------------------------------------------------------

    def assigned(self) -> RangeTable | None:
        """The table after the ids of the assign line went to its unit; None with the fault at the line."""
        try:
            first, last = parse_range(self.assign_text)
        except InvalidRule:
            self.assign_error = _("Write the ids as a range, for example 6000~6380, or as one id.")
            return None
        if not (self.key_space.contains(first) and self.key_space.contains(last)):
            self.assign_error = _("%(ids)s leaves the key space %(space)s.") % {
                "ids": self.assign_text,
                "space": self.key_space,
            }
            return None
        if self.assign_unit not in self.looks:
            self.assign_error = _("Choose the unit that gets these ids.")
            return None
        return self._given(self.table(), [(first, last + 1)], self.assign_unit)

    @staticmethod
    def _given(table: RangeTable, parts: Sequence[tuple[int, int]], unit: str) -> RangeTable:
        plain = RangeTable(table.key_space, table.ranges)
        moves = [
            MovedRange(max(start, first), min(end, after), owner, unit)
            for first, after in parts
            for start, end, owner in plain.segments()
            if start < after and first < end and owner != unit
        ]
        moved = plain.with_moved(MovedIds(tuple(moves)))
        return RangeTable(table.key_space, moved.ranges, table.exact)


def _joined(ranges: Sequence[IdRange]) -> list[IdRange]:
    joined: list[IdRange] = []
    for one in ranges:
        if joined and joined[-1].unit == one.unit:
            joined[-1] = IdRange(joined[-1].start, one.end, one.unit)
        else:
            joined.append(one)
    return joined


def rule_of(base: UnitTypeDict, table: RangeTable) -> UnitTypeDict:
    """The unit type with the table; how the routerId is read stays as it was."""
    return {**base, "ranges": table.ranges_text(), "exact": table.exact_ids()}


class HistoryFilter(forms.Form):
    """What the history shows; an unusable value shows everything."""

    state = forms.ChoiceField(label=gettext_lazy("State"), required=False)
    unit_type = forms.ChoiceField(label=gettext_lazy("Unit type"), required=False)
    who = forms.CharField(label=gettext_lazy("Started by"), required=False, max_length=150)

    def __init__(self, data: Mapping[str, Any], *, unit_types: Sequence[str], states: Sequence[str]) -> None:
        super().__init__(data)
        anything = [("", gettext_lazy("all"))]
        labels = dict(Cutover.State.choices)
        self.fields["state"].choices = [*anything, *((state, labels[state]) for state in states)]  # type: ignore[attr-defined]
        self.fields["unit_type"].choices = [*anything, *((name, name) for name in unit_types)]  # type: ignore[attr-defined]
        for one in self.fields.values():
            one.widget.attrs["class"] = "input"
