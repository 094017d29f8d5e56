"""Range bars: a range table as rows and as segments to draw, with the names and colours of its units."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msha.steering.errors import InvalidRule
from msha.steering.phases import table_of
from msha.steering.ranges import KeySpace, MovedIds, RangeTable
from units.models import UNIT_COLOURS, Namespace

#: A segment narrower than this share of the bar shows its unit without the range, or nothing.
_ROOM_FOR_RANGE, _ROOM_FOR_NAME = 24.0, 8.0


@dataclass(frozen=True, slots=True)
class UnitLook:
    """How a unit appears on pages; ``unit-N`` is its colour."""

    code: str
    name: str
    colour: int
    center: bool = False

    @property
    def label(self) -> str:
        """What people call it: the name, or the code while it has none."""
        return self.name or self.code

    @property
    def css(self) -> str:
        return f"unit-{self.colour}"

    def __str__(self) -> str:
        return f"{self.name} ({self.code})" if self.name else self.code


class Looks(dict[str, UnitLook]):
    """The looks of a namespace's units by code, in their order."""

    def at(self, code: str) -> UnitLook:
        """The unit's look; a plain one if it is gone. (Not ``__missing__``: templates look there first.)"""
        return self.get(code) or UnitLook(code, "", len(self) % UNIT_COLOURS)

    @classmethod
    def of(cls, namespace: Namespace) -> "Looks":
        units = list(namespace.units.order_by("position", "code"))
        # Units whose order nobody has set would all have the colour of position 0.
        distinct = len({unit.colour for unit in units}) == len(units)
        return cls(
            (
                unit.code,
                UnitLook(
                    unit.code, unit.name, unit.colour if distinct else index % UNIT_COLOURS, unit.is_center
                ),
            )
            for index, unit in enumerate(units)
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive ids of one unit, and where they lie on the bar in percent."""

    unit: UnitLook
    first: int
    last: int
    x: float
    width: float

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    @property
    def text(self) -> str:
        return f"{self.first}~{self.last}"

    @property
    def label(self) -> str:
        """What fits into the segment."""
        if self.width >= _ROOM_FOR_RANGE:
            return f"{self.unit.label} {self.text}"
        return self.unit.label if self.width >= _ROOM_FOR_NAME else ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A range table to draw.

    Attributes:
        segments: the ranges, ascending, neighbours of one unit joined; exact ids apart.
        exact: exact ids as segments of one id.
        moved: what is hatched.
    """

    key_space: KeySpace
    segments: tuple[Segment, ...]
    exact: tuple[Segment, ...] = ()
    moved: tuple[Segment, ...] = field(default=())

    @property
    def text(self) -> str:
        """The bar for those who cannot see it."""
        return "; ".join(f"{segment.unit.label} {segment.text}" for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Share:
    """What one unit owns in a table."""

    unit: UnitLook
    ranges: tuple[str, ...]
    exact: tuple[int, ...]
    count: int
    percent: float


def draw(table: RangeTable, looks: Looks, moved: MovedIds | None = None) -> Bar:
    """The bar of a table, the moved ids hatched in it."""
    space = table.key_space
    joined: list[tuple[int, int, str]] = []
    for id_range in table.ranges:
        if joined and joined[-1][2] == id_range.unit:
            joined[-1] = (joined[-1][0], id_range.end, id_range.unit)
        else:
            joined.append((id_range.start, id_range.end, id_range.unit))
    return Bar(
        space,
        tuple(_segment(space, looks.at(unit), start, end) for start, end, unit in joined),
        tuple(_segment(space, looks.at(unit), single, single + 1) for single, unit in table.exact),
        tuple(_segment(space, looks.at(move.gaining), move.start, move.end) for move in moved or ()),
    )


def _segment(space: KeySpace, unit: UnitLook, start: int, end: int) -> Segment:
    scale = 100 / space.size
    return Segment(
        unit, start, end - 1, round((start - space.min) * scale, 4), round((end - start) * scale, 4)
    )


def shares(table: RangeTable, looks: Looks) -> list[Share]:
    """What every unit of the namespace owns, also those that own nothing."""
    counts, texts, exact = table.share(), table.ranges_text(), table.exact_ids()
    codes = [*looks, *(code for code in {**texts, **exact} if code not in looks)]
    return [
        Share(
            looks.at(code),
            tuple(texts.get(code, ())),
            tuple(exact.get(code, ())),
            counts.get(code, 0),
            100 * counts.get(code, 0) / table.key_space.size,
        )
        for code in codes
    ]


def table_or_none(unit_type: Mapping[str, Any], key_space: KeySpace) -> RangeTable | None:
    """The table of a unit type, or None where what is saved is not valid (yet)."""
    try:
        return table_of(dict(unit_type), key_space)
    except (InvalidRule, KeyError, TypeError, AttributeError):
        return None


def segments_data(table: RangeTable) -> list[list[Any]]:
    """The table, exact ids included, for the script of the bar: ``[[first, last, code], ...]``."""
    return [[start, end - 1, code] for start, end, code in table.segments()]


def looks_data(looks: Iterable[UnitLook]) -> dict[str, list[str]]:
    """Code to label and class, for the script of the bar."""
    return {unit.code: [unit.label, unit.css] for unit in looks}
