"""Range tables: which unit owns which routerId, and what moves between two tables.

Ranges are inclusive in text (``0~5997``) and half-open inside. A table covers its key space
exactly once; exact ids override ranges. Look-up is one bisection over the flattened table.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from msha.steering.errors import Gap, InvalidRange, InvalidRule, Overlap

#: Separators accepted between the two ids of a range; the first is the one we write.
#: The second is the full-width tilde that Chinese input methods produce.
RANGE_SEPARATORS = ("~", "\uff5e")

#: Router ids stay below this, so that they fit a signed 64-bit column and JSON numbers.
ROUTER_ID_LIMIT = 2**53


@dataclass(frozen=True, slots=True)
class KeySpace:
    """All router ids that exist: ``min`` to ``max``, both included."""

    min: int = 0
    max: int = 9999

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.max < ROUTER_ID_LIMIT:
            raise InvalidRange("key space", f"{self.min}~{self.max} is not a range of ids from 0 upwards")

    @property
    def size(self) -> int:
        """How many ids there are."""
        return self.max - self.min + 1

    def contains(self, router_id: int) -> bool:
        """Whether the id is one of this space."""
        return self.min <= router_id <= self.max

    def __str__(self) -> str:
        return format_range(self.min, self.max + 1)


@dataclass(frozen=True, slots=True, order=True)
class IdRange:
    """Router ids ``start <= id < end`` owned by one unit.

    Raises:
        InvalidRange: the range is empty or negative.
    """

    start: int
    end: int
    unit: str

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise InvalidRange(f"ranges.{self.unit}", f"{self.start}~{self.end - 1} is empty or negative")

    def __str__(self) -> str:
        return format_range(self.start, self.end)


def parse_range(text: str, place: str = "range") -> tuple[int, int]:
    """The inclusive bounds of ``"0~5997"``, or of a single id ``"42"``.

    Raises:
        InvalidRange: anything but one or two runs of ASCII digits, the first not above the second.
    """
    bounds = [text]
    for separator in RANGE_SEPARATORS:
        if separator in text:
            bounds = text.split(separator)
            break
    numbers = [_parse_id(bound.strip(), text, place) for bound in bounds]
    if len(numbers) > 2:
        raise InvalidRange(place, f"{text!r} has more than two bounds; write it as 0~5997")
    first, last = numbers[0], numbers[-1]
    if first > last:
        raise InvalidRange(place, f"{text!r} ends before it starts")
    return first, last


def _parse_id(digits: str, text: str, place: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 16):
        raise InvalidRange(place, f"{text!r} is not a range of ids; write it as 0~5997")
    return int(digits)


def format_range(start: int, end: int) -> str:
    """The text of the half-open range, inclusive: ``0~5997``."""
    return f"{start}{RANGE_SEPARATORS[0]}{end - 1}"


def _named(start: int, end: int) -> str:
    """The half-open range in a sentence: ``5998~6380``, or ``id 42`` for a single one."""
    return format_range(start, end) if end - start > 1 else f"id {start}"


@dataclass(frozen=True, slots=True, order=True)
class MovedRange:
    """Router ids ``start <= id < end`` whose owner changes from ``losing`` to ``gaining``.

    The two are equal only where the routerId itself is read differently afterwards: then every
    session has to be decided anew, also those whose number stays with its unit.
    """

    start: int
    end: int
    losing: str
    gaining: str

    def __str__(self) -> str:
        return f"{format_range(self.start, self.end)} {self.losing}→{self.gaining}"


@dataclass(frozen=True)
class MovedIds:
    """The moved set of a cutover: disjoint, ascending ranges with their losing and gaining unit."""

    ranges: tuple[MovedRange, ...] = ()
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for before, after in pairwise(self.ranges):
            if before.end > after.start:
                raise Overlap("moved", f"{before} and {after} are not ascending and disjoint")
        object.__setattr__(self, "_starts", tuple(moved.start for moved in self.ranges))

    def __iter__(self) -> Iterator[MovedRange]:
        return iter(self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    @property
    def count(self) -> int:
        """How many ids move."""
        return sum(moved.end - moved.start for moved in self.ranges)

    @property
    def losing_units(self) -> frozenset[str]:
        """Units from which at least one id goes away."""
        return frozenset(moved.losing for moved in self.ranges)

    @property
    def gaining_units(self) -> frozenset[str]:
        """Units to which at least one id comes."""
        return frozenset(moved.gaining for moved in self.ranges)

    def find(self, router_id: int) -> MovedRange | None:
        """The range that moves this id, or None when the id stays."""
        index = bisect_right(self._starts, router_id) - 1
        if index < 0 or router_id >= self.ranges[index].end:
            return None
        return self.ranges[index]

    def contains(self, router_id: int) -> bool:
        """Whether the id moves."""
        return self.find(router_id) is not None

    def swapped(self) -> "MovedIds":
        """The same ids on their way back."""
        return MovedIds(tuple(MovedRange(m.start, m.end, m.gaining, m.losing) for m in self.ranges))

    def as_lists(self) -> list[list[int | str]]:
        """``[[first, last, losing, gaining], ...]``, inclusive, as snapshots carry it."""
        return [[m.start, m.end - 1, m.losing, m.gaining] for m in self.ranges]

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int | str]]) -> "MovedIds":
        """The inverse of :meth:`as_lists`.

        Raises:
            InvalidRule: a row is not ``[first, last, losing, gaining]``, or rows overlap.
        """
        ranges = []
        for row in rows:
            match row:
                case [int(first), int(last), str(losing), str(gaining)] if 0 <= first <= last:
                    ranges.append(MovedRange(first, last + 1, losing, gaining))
                case _:
                    raise InvalidRule("moved", f"{row!r} is not [first, last, losing, gaining]")
        return cls(tuple(ranges))

    def text(self) -> str:
        """For people: ``5998~6380 unbj→center``, several joined by commas."""
        return ", ".join(str(moved) for moved in self.ranges)


@dataclass(frozen=True)
class RangeTable:
    """Which unit owns which id: ranges that cover the key space exactly once, and exact ids above them.

    Attributes:
        ranges: ascending.
        exact: ``(id, unit)`` ascending by id.

    Raises:
        Gap, Overlap: the ranges do not cover the key space exactly once; names the first place.
        InvalidRange: a range or an exact id leaves the key space, or an id is named twice.
    """

    key_space: KeySpace
    ranges: tuple[IdRange, ...]
    exact: tuple[tuple[int, str], ...] = ()
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _owners: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", tuple(sorted(self.ranges)))
        object.__setattr__(self, "exact", tuple(sorted(self.exact)))
        self._check_coverage()
        self._check_exact()
        segments = list(_overlay(self.ranges, self.exact))
        object.__setattr__(self, "_starts", tuple(start for start, _, _ in segments))
        object.__setattr__(self, "_owners", tuple(unit for _, _, unit in segments))

    @classmethod
    def parse(
        cls,
        key_space: KeySpace,
        ranges: Mapping[str, Sequence[str]],
        exact: Mapping[str, Sequence[int]] | None = None,
    ) -> "RangeTable":
        """The table of ``{"center": ["0~5997"], ...}`` and ``{"unbj": [42]}``.

        Raises:
            InvalidRule: as for the class, or text that is not a range; the place names the unit.
        """
        parsed = []
        for unit, texts in ranges.items():
            place = f"ranges.{unit}"
            for text in texts:
                first, last = parse_range(text, place)
                if not (key_space.contains(first) and key_space.contains(last)):
                    raise InvalidRange(place, f"{text} leaves the key space {key_space}")
                parsed.append(IdRange(first, last + 1, unit))
        singles = [(router_id, unit) for unit, ids in (exact or {}).items() for router_id in ids]
        return cls(key_space, tuple(parsed), tuple(singles))

    def owner(self, router_id: int) -> str:
        """The unit that owns the id, which must lie in the key space."""
        return self._owners[bisect_right(self._starts, router_id) - 1]

    def units(self) -> frozenset[str]:
        """Units that own at least one id."""
        return frozenset(self._owners)

    def segments(self) -> Iterator[tuple[int, int, str]]:
        """``(start, end, unit)``, half-open, ascending, exact ids included, neighbours of one unit joined."""
        ends = (*self._starts[1:], self.key_space.max + 1)
        return zip(self._starts, ends, self._owners, strict=True)

    def share(self) -> dict[str, int]:
        """How many ids each owning unit has."""
        counts: dict[str, int] = {}
        for start, end, unit in self.segments():
            counts[unit] = counts.get(unit, 0) + end - start
        return counts

    def ranges_text(self) -> dict[str, list[str]]:
        """``{"center": ["0~5997"], ...}``, the form :meth:`parse` takes."""
        texts: dict[str, list[str]] = {}
        for id_range in self.ranges:
            texts.setdefault(id_range.unit, []).append(str(id_range))
        return texts

    def exact_ids(self) -> dict[str, list[int]]:
        """``{"unbj": [42]}``, the form :meth:`parse` takes."""
        ids: dict[str, list[int]] = {}
        for router_id, unit in self.exact:
            ids.setdefault(unit, []).append(router_id)
        return ids

    def with_moved(self, moved: MovedIds) -> "RangeTable":
        """This table after the moved ids have gone to their gaining units, exact ids folded into ranges."""
        boundaries = {self.key_space.min, self.key_space.max + 1}
        boundaries.update(self._starts)
        for move in moved:
            boundaries.update((move.start, move.end))
        edges = sorted(edge for edge in boundaries if self.key_space.min <= edge <= self.key_space.max + 1)
        pieces = []
        for start, end in pairwise(edges):
            move_here = moved.find(start)
            pieces.append((start, end, move_here.gaining if move_here else self.owner(start)))
        return RangeTable(self.key_space, tuple(IdRange(*piece) for piece in _joined(pieces)))

    def _check_coverage(self) -> None:
        expected = self.key_space.min
        previous: IdRange | None = None
        for id_range in self.ranges:
            if id_range.start < expected:
                if previous is None:
                    raise InvalidRange(
                        f"ranges.{id_range.unit}", f"{id_range} leaves the key space {self.key_space}"
                    )
                shared = _named(id_range.start, min(previous.end, id_range.end))
                raise Overlap(
                    "ranges",
                    f"{shared} belongs to both {previous.unit} ({previous}) and {id_range.unit} ({id_range})",
                )
            if id_range.start > expected:
                raise Gap("ranges", f"no unit owns {_named(expected, id_range.start)}")
            expected = id_range.end
            previous = id_range
        if expected <= self.key_space.max:
            raise Gap("ranges", f"no unit owns {_named(expected, self.key_space.max + 1)}")
        if expected > self.key_space.max + 1:
            assert previous is not None
            raise InvalidRange(f"ranges.{previous.unit}", f"{previous} leaves the key space {self.key_space}")

    def _check_exact(self) -> None:
        seen: dict[int, str] = {}
        for router_id, unit in self.exact:
            if not self.key_space.contains(router_id):
                raise InvalidRange(f"exact.{unit}", f"id {router_id} leaves the key space {self.key_space}")
            if router_id in seen:
                raise Overlap("exact", f"id {router_id} is named for both {seen[router_id]} and {unit}")
            seen[router_id] = unit


def diff(old: RangeTable, new: RangeTable) -> MovedIds:
    """The ids whose owner differs between two tables over one key space."""
    return MovedIds(tuple(move for move in _refined(old, new) if move.losing != move.gaining))


def moved_everything(old: RangeTable, new: RangeTable) -> MovedIds:
    """Every id, with its owner before and after: for a change in how the routerId is read."""
    return MovedIds(tuple(_refined(old, new)))


def _refined(old: RangeTable, new: RangeTable) -> Iterator[MovedRange]:
    """The common refinement of two tables, neighbours with the same two owners joined."""
    if old.key_space != new.key_space:
        raise InvalidRule("key space", f"{old.key_space} and {new.key_space} cannot be compared")
    edges = sorted({start for start, _, _ in old.segments()} | {start for start, _, _ in new.segments()})
    ends = [*edges[1:], old.key_space.max + 1]
    current: MovedRange | None = None
    for start, end in zip(edges, ends, strict=True):
        losing, gaining = old.owner(start), new.owner(start)
        if current is not None and (current.losing, current.gaining) == (losing, gaining):
            current = MovedRange(current.start, end, losing, gaining)
            continue
        if current is not None:
            yield current
        current = MovedRange(start, end, losing, gaining)
    if current is not None:
        yield current


def _overlay(ranges: Sequence[IdRange], exact: Sequence[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    """Ranges with the exact ids cut out of them, neighbours of one unit joined."""
    pieces: list[tuple[int, int, str]] = []
    singles = iter([*exact, None])
    single = next(singles)
    for id_range in ranges:
        start = id_range.start
        while single is not None and single[0] < id_range.end:
            if start < single[0]:
                pieces.append((start, single[0], id_range.unit))
            pieces.append((single[0], single[0] + 1, single[1]))
            start = single[0] + 1
            single = next(singles)
        if start < id_range.end:
            pieces.append((start, id_range.end, id_range.unit))
    return _joined(pieces)


def _joined(pieces: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    current: tuple[int, int, str] | None = None
    for start, end, unit in pieces:
        if current is not None and current[2] == unit:
            current = (current[0], end, unit)
            continue
        if current is not None:
            yield current
        current = (start, end, unit)
    if current is not None:
        yield current
