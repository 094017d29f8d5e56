"""Shares: the table in which a unit has given some of its ids to another one, or all of them to the others.

No id moves that was not asked for; of the tables that are left, one with the fewest ranges is made. Exact ids
say more than ranges do: a shift leaves them where they are, a cut to zero hands on those of its unit, too.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, combinations

from msha.steering.errors import InvalidRule
from msha.steering.ranges import IdRange, RangeTable

#: So many ranges without a border to the gaining unit are tried in all combinations for an exact fit.
_COMBINED = 12


def portion(ids: int, percent: Fraction) -> int:
    """So many percent of a number of ids, rounded half up, but at least one of them.

    Raises:
        InvalidRule: the percentage is not above 0 and at most 100, or there are no ids.
    """
    if not 0 < percent <= 100:
        raise InvalidRule("percent", f"{float(percent):g} is not a percentage above 0 and up to 100")
    if ids <= 0:
        raise InvalidRule("percent", "there are no ids of which to take a share")
    return max(1, int(ids * percent / 100 + Fraction(1, 2)))


def apportioned(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """The total divided by weight, each part within one of its exact share (largest remainders).

    Raises:
        InvalidRule: no weight is above 0, or one is below.
    """
    whole = sum(weights.values())
    if whole <= 0 or any(weight < 0 for weight in weights.values()):
        raise InvalidRule("shares", "at least one share has to be above 0, and none below")
    parts = {unit: total * weight // whole for unit, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda unit: (-(total * weights[unit] % whole), unit))
    for unit in by_remainder[: total - sum(parts.values())]:
        parts[unit] += 1
    return parts


def movable(table: RangeTable, unit: str) -> int:
    """How many ids the unit owns by its ranges: those that a shift can take from it."""
    return sum(piece.free for piece in _pieces(table, unit, ""))


def shift(table: RangeTable, losing: str, gaining: str, ids: int) -> RangeTable:
    """The table in which exactly so many ids have gone from one unit to another.

    They are taken from the border next to the gaining unit's ranges; a range of the losing unit that lies
    between others is taken whole where that leaves fewer ranges.

    Raises:
        InvalidRule: the two are one unit, or the losing one does not own so many ids by its ranges.
    """
    if losing == gaining:
        raise InvalidRule("shift", f"{losing} cannot give ids to itself")
    pieces = _pieces(table, losing, gaining)
    owned = sum(piece.free for piece in pieces)
    if not 1 <= ids <= owned:
        raise InvalidRule("shift", f"{losing} owns {owned} ids by ranges, so {ids} cannot be taken from it")
    bordering = [piece for piece in pieces if piece.borders]
    taken = _whole_ones(bordering, ids)
    rest = ids - sum(piece.free for piece in taken)
    parts = [(piece.start, piece.end) for piece in taken]
    left = [piece for piece in bordering if piece not in taken]
    if rest and left:
        parts.append(max(left, key=lambda piece: piece.free).partly(rest))  # one of them has more than that
    elif rest:
        low = any(one.unit == gaining and one.start < pieces[0].start for one in table.ranges)
        parts += _far_ones([piece for piece in pieces if not piece.borders], rest, low=low)
    return _given(table, parts, gaining)


def cut_to_zero(table: RangeTable, unit: str, to: str | Mapping[str, int] | None = None) -> RangeTable:
    """The table in which the unit owns nothing, and the others what it had, its exact ids included.

    Args:
        to: one unit that gets everything, or weights by unit; None: the others in proportion to their shares.

    Raises:
        InvalidRule: the unit owns nothing, or nobody is there to get its ids.
    """
    share = table.share()
    if unit not in share:
        raise InvalidRule("to_zero", f"{unit} owns no id")
    if to is None:
        to = {other: ids for other, ids in share.items() if other != unit}
        if not to:
            raise InvalidRule("to_zero", f"no other unit owns ids; say which one gets those of {unit}")
    weights = {to: 1} if isinstance(to, str) else dict(to)
    if unit in weights:
        raise InvalidRule("to_zero", f"{unit} cannot get its own ids")
    quota = {one: ids for one, ids in apportioned(share[unit], weights).items() if ids}
    table = RangeTable(table.key_space, table.ranges, _exact_handed_on(table, unit, quota))
    for gaining in _nearest_first(table, unit, quota):
        table = shift(table, unit, gaining, quota[gaining])
    return _without_remains(table, unit, next(iter(quota)))


# -- the ranges of a unit ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    """One range of the losing unit, as long as it can be.

    Attributes:
        singles: the exact ids in it, whomever they belong to.
        left, right: whether the gaining unit's range lies there.
    """

    start: int
    end: int
    singles: tuple[int, ...]
    left: bool
    right: bool

    @property
    def free(self) -> int:
        """How many of its ids are not exact ones."""
        return self.end - self.start - len(self.singles)

    @property
    def borders(self) -> int:
        """By how many ranges the table has fewer once this one is taken whole."""
        return self.left + self.right

    def partly(self, ids: int, *, low: bool = True) -> tuple[int, int]:
        """So many free ids at its border, or else at its lower or upper end; fewer than it has."""
        if self.left or (low and not self.right):
            end = self.start + ids
            for single in self.singles:
                if single >= end:
                    break
                end += 1
            return self.start, end
        start = self.end - ids
        for single in reversed(self.singles):
            if single < start:
                break
            start -= 1
        return start, self.end


def _pieces(table: RangeTable, losing: str, gaining: str) -> list[_Piece]:
    singles = [single for single, _unit in table.exact]
    ranges = _joined(table.ranges)
    pieces = []
    for before, one, after in zip((None, *ranges), ranges, (*ranges[1:], None), strict=False):
        if one.unit == losing:
            inside = singles[bisect_left(singles, one.start) : bisect_left(singles, one.end)]
            left = before is not None and before.unit == gaining
            right = after is not None and after.unit == gaining
            pieces.append(_Piece(one.start, one.end, tuple(inside), left, right))
    return pieces


def _whole_ones(bordering: Sequence[_Piece], ids: int) -> list[_Piece]:
    """Those that fit into so many ids and leave the fewest ranges; of equally good ones, the fewest."""
    twos, ones = (
        sorted((piece for piece in bordering if piece.borders == n), key=lambda piece: piece.free)
        for n in (2, 1)
    )
    of_twos = list(accumulate((piece.free for piece in twos), initial=0))
    of_ones = list(accumulate((piece.free for piece in ones), initial=0))
    best = (0, 0)
    for i, sum_i in enumerate(of_twos):
        if sum_i > ids:
            break
        j = bisect_right(of_ones, ids - sum_i) - 1
        best = max(best, (i, j), key=lambda pair: (2 * pair[0] + pair[1], pair[0]))
    return [*twos[: best[0]], *ones[: best[1]]]


def _far_ones(pieces: Sequence[_Piece], ids: int, *, low: bool) -> list[tuple[int, int]]:
    """So many ids of ranges without a border: whole ones where that fits, else a part of one at an end."""
    if len(pieces) <= _COMBINED:
        for number in range(1, len(pieces) + 1):
            for some in combinations(pieces, number):
                if sum(piece.free for piece in some) == ids:
                    return [(piece.start, piece.end) for piece in some]
    parts = []
    for piece in sorted(pieces, key=lambda piece: piece.free, reverse=True):
        if piece.free > ids:
            parts.append(piece.partly(ids, low=low))
            break
        parts.append((piece.start, piece.end))
        ids -= piece.free
        if not ids:
            break
    return parts


def _given(table: RangeTable, parts: Sequence[tuple[int, int]], unit: str) -> RangeTable:
    """The table in which the unit's ranges have these parts, too; exact ids stay."""
    ranges = [IdRange(start, end, unit) for start, end in parts]
    for one in table.ranges:
        start = one.start
        for first, after in sorted(parts):
            if first < one.end and after > start:
                if first > start:
                    ranges.append(IdRange(start, first, one.unit))
                start = after
        if start < one.end:
            ranges.append(IdRange(start, one.end, one.unit))
    return RangeTable(table.key_space, tuple(_joined(sorted(ranges))), table.exact)


def _joined(ranges: Sequence[IdRange]) -> list[IdRange]:
    joined: list[IdRange] = []
    for one in ranges:
        if joined and joined[-1].unit == one.unit:
            joined[-1] = IdRange(joined[-1].start, one.end, one.unit)
        else:
            joined.append(one)
    return joined


# -- what a cut to zero needs beside -------------------------------------------------------------------------


def _exact_handed_on(table: RangeTable, unit: str, quota: dict[str, int]) -> tuple[tuple[int, str], ...]:
    """The exact ids without those of the unit; `quota` says afterwards what its ranges still have to give.

    One that lies in the range of a unit that gets ids anyway belongs to that one from now on; one in a range
    of its own goes where the range goes; any other is named for the unit that has most to get.
    """
    ranges = RangeTable(table.key_space, table.ranges)
    kept, homeless = [], []
    for single, owner in table.exact:
        below = ranges.owner(single)
        if owner != unit:
            kept.append((single, owner))
        elif quota.get(below, 0):
            quota[below] -= 1
        elif below != unit:
            homeless.append(single)
    for single in homeless:
        gaining = max(sorted(quota), key=lambda one: quota[one])
        kept.append((single, gaining))
        quota[gaining] -= 1
    return tuple(kept)


def _nearest_first(table: RangeTable, unit: str, quota: Mapping[str, int]) -> list[str]:
    """Units that have ids to get: those with a border first, so that the others get what lies between."""
    near = {one: any(piece.borders for piece in _pieces(table, unit, one)) for one in quota}
    return sorted((one for one in quota if quota[one]), key=lambda one: (not near[one], one))


def _without_remains(table: RangeTable, unit: str, heir: str) -> RangeTable:
    """Ranges of the unit in which every id is an exact one of somebody else go to a neighbour."""
    ranges: list[IdRange] = []
    for index, one in enumerate(table.ranges):
        owner = one.unit
        if owner == unit:
            after = table.ranges[index + 1].unit if index + 1 < len(table.ranges) else heir
            owner = ranges[-1].unit if ranges else after if after != unit else heir
        ranges.append(IdRange(one.start, one.end, owner))
    return RangeTable(table.key_space, tuple(_joined(ranges)), table.exact)
