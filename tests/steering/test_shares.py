"""Shifts and cuts to zero against an oracle that tries every set of ids."""

from fractions import Fraction
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msha.steering import shares
from msha.steering.errors import InvalidRule
from msha.steering.ranges import IdRange, KeySpace, RangeTable

SPACE = KeySpace(0, 9999)
SMALL = KeySpace(3, 13)
UNITS = ("center", "unbj", "unsh")


@st.composite
def tables(draw: st.DrawFn, space: KeySpace = SMALL) -> RangeTable:
    inner = draw(st.sets(st.integers(space.min + 1, space.max), max_size=8))
    edges = [space.min, *sorted(inner), space.max + 1]
    ranges = tuple(IdRange(start, end, draw(st.sampled_from(UNITS))) for start, end in pairwise(edges))
    exact = draw(st.dictionaries(st.integers(space.min, space.max), st.sampled_from(UNITS), max_size=4))
    return RangeTable(space, ranges, tuple(exact.items()))


def table(ranges: dict[str, list[str]], exact: dict[str, list[int]] | None = None) -> RangeTable:
    return RangeTable.parse(SPACE, ranges, exact)


def owners(of: RangeTable) -> dict[int, str]:
    """Who owns what, by looking at every id."""
    by_range = {i: one.unit for one in of.ranges for i in range(one.start, one.end)}
    return by_range | dict(of.exact)


def fewest_ranges(of: RangeTable, losing: str, gaining: str, ids: int) -> int:
    """The least number of ranges, by trying every set of the losing unit's places."""
    by_range = {i: one.unit for one in of.ranges for i in range(one.start, one.end)}
    exact = dict(of.exact)
    places = [i for i, unit in by_range.items() if unit == losing]
    free = [i for i in places if i not in exact]
    covered = [i for i in places if i in exact]
    best = len(by_range)
    for some in combinations(free, ids):
        for number in range(len(covered) + 1):
            for others in combinations(covered, number):
                after = by_range | dict.fromkeys((*some, *others), gaining)
                row = [after[i] for i in sorted(after)]
                best = min(best, 1 + sum(one != other for one, other in pairwise(row)))
    return best


@settings(max_examples=250, deadline=None)
@given(tables(), st.data())
def test_a_shift_moves_exactly_so_many_ids_and_leaves_the_fewest_ranges(
    before: RangeTable, data: st.DataObject
) -> None:
    losing, gaining = data.draw(st.permutations(UNITS))[:2]
    owned = shares.movable(before, losing)
    if not owned:
        return
    ids = data.draw(st.integers(1, owned))
    after = shares.shift(before, losing, gaining, ids)
    was, now = owners(before), owners(after)
    moved = {i: (was[i], now[i]) for i in was if was[i] != now[i]}
    assert len(moved) == ids
    assert set(moved.values()) == {(losing, gaining)}
    assert after.exact == before.exact
    assert len(after.ranges) == fewest_ranges(before, losing, gaining, ids)


@settings(max_examples=500, deadline=None)
@given(tables(KeySpace(3, 30)), st.sampled_from(UNITS), st.sampled_from(["shares", "one", "weights"]))
def test_a_cut_to_zero_moves_the_ids_of_its_unit_alone_and_divides_them_by_share(
    before: RangeTable, unit: str, way: str
) -> None:
    share = before.share()
    others = {other: ids for other, ids in share.items() if other != unit}
    if unit not in share or not others:
        return
    one = next(other for other in UNITS if other != unit)
    to = {"shares": None, "one": one, "weights": {other: 1 for other in UNITS if other != unit}}[way]
    after = shares.cut_to_zero(before, unit, to)
    was, now = owners(before), owners(after)
    assert {was[i] for i in was if was[i] != now[i]} == {unit}
    assert unit not in after.share()
    assert unit not in after.units() | {one.unit for one in after.ranges} | {u for _, u in after.exact}
    weights = others if to is None else {one: 1} if isinstance(to, str) else to
    for other, weight in weights.items():
        got = after.share().get(other, 0) - others.get(other, 0)
        assert abs(got - Fraction(share[unit] * weight, sum(weights.values()))) < 1


def test_a_shift_takes_the_border_next_to_the_gaining_unit() -> None:
    after = shares.shift(table({"center": ["0~5997"], "unbj": ["5998~9999"]}), "unbj", "center", 383)
    assert after.ranges_text() == {"center": ["0~6380"], "unbj": ["6381~9999"]}
    after = shares.shift(table({"center": ["0~5997"], "unbj": ["5998~9999"]}), "center", "unbj", 98)
    assert after.ranges_text() == {"center": ["0~5899"], "unbj": ["5900~9999"]}


def test_exact_ids_stay_and_count_for_nobody_else() -> None:
    before = table({"center": ["0~4999"], "unbj": ["5000~9999"]}, {"center": [5001], "unbj": [5002, 7]})
    after = shares.shift(before, "unbj", "center", 3)
    assert after.exact == before.exact
    assert after.ranges_text() == {"center": ["0~5004"], "unbj": ["5005~9999"]}
    assert before.share()["unbj"] - after.share()["unbj"] == 3


def test_an_island_is_taken_whole_before_a_border_is_moved() -> None:
    before = table({"center": ["0~999", "1100~4999"], "unbj": ["1000~1099", "5000~9999"]})
    after = shares.shift(before, "unbj", "center", 150)
    assert after.ranges_text() == {"center": ["0~5049"], "unbj": ["5050~9999"]}


def test_without_a_border_the_end_nearer_to_the_gaining_unit_is_taken() -> None:
    before = table({"center": ["0~2999"], "unsh": ["3000~5999"], "unbj": ["6000~9999"]})
    assert shares.shift(before, "unbj", "center", 10).ranges_text()["center"] == ["0~2999", "6000~6009"]
    assert shares.shift(before, "center", "unbj", 10).ranges_text()["unbj"] == ["2990~2999", "6000~9999"]


def test_a_unit_that_owned_nothing_gets_one_range() -> None:
    before = table({"center": ["0~5997"], "unbj": ["5998~9999"]})
    assert shares.shift(before, "unbj", "unsh", 400).ranges_text()["unsh"] == ["9600~9999"]


def test_a_cut_to_zero_lets_the_neighbours_grow() -> None:
    before = table({"center": ["0~3999"], "unbj": ["4000~5999"], "unsh": ["6000~9999"]})
    assert shares.cut_to_zero(before, "unbj").ranges_text() == {"center": ["0~4999"], "unsh": ["5000~9999"]}
    assert shares.cut_to_zero(before, "unbj", "unsh").ranges_text() == {
        "center": ["0~3999"],
        "unsh": ["4000~9999"],
    }


def test_exact_ids_of_a_unit_that_is_cut_to_zero_go_to_the_unit_that_was_named() -> None:
    before = table({"center": ["0~5997"], "unbj": ["5998~9999"]}, {"unbj": [42], "center": [7000]})
    after = shares.cut_to_zero(before, "unbj", "unsh")
    assert after.exact == ((42, "unsh"), (7000, "center"))
    assert shares.cut_to_zero(before, "unbj").exact == ((7000, "center"),)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda t: shares.shift(t, "unbj", "unbj", 1), "to itself"),
        (lambda t: shares.shift(t, "unbj", "center", 4003), "owns 4002 ids by ranges, so 4003"),
        (lambda t: shares.shift(t, "unbj", "center", 0), "so 0 cannot"),
        (lambda t: shares.cut_to_zero(t, "unsh"), "unsh owns no id"),
        (lambda t: shares.cut_to_zero(t, "unbj", "unbj"), "its own ids"),
        (lambda t: shares.cut_to_zero(t, "unbj", {"center": 0}), "above 0"),
        (lambda _: shares.cut_to_zero(table({"unbj": ["0~9999"]}), "unbj"), "say which one gets"),
        (lambda _: shares.portion(10, Fraction(0)), "not a percentage"),
        (lambda _: shares.portion(10, Fraction(101)), "not a percentage"),
        (lambda _: shares.portion(0, Fraction(1)), "no ids"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(act: object, said: str) -> None:
    with pytest.raises(InvalidRule, match=said):
        act(table({"center": ["0~5997"], "unbj": ["5998~9999"]}))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("ids", "percent", "expected"), [(4002, 10, 400), (4005, 10, 401), (3, 1, 1), (10, 100, 10)]
)
def test_a_percentage_is_rounded_half_up_and_never_to_nothing(ids: int, percent: int, expected: int) -> None:
    assert shares.portion(ids, Fraction(percent)) == expected
