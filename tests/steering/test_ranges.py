"""Range tables against a dictionary that maps every id to its owner."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msha.steering.errors import Gap, InvalidRange, InvalidRule, Overlap
from msha.steering.ranges import (
    IdRange,
    KeySpace,
    MovedIds,
    MovedRange,
    RangeTable,
    diff,
    moved_everything,
    parse_range,
)

SPACE = KeySpace(0, 9999)
SMALL = KeySpace(3, 40)
UNITS = ("center", "unbj", "unsh")


@st.composite
def tables(draw: st.DrawFn, space: KeySpace = SMALL) -> RangeTable:
    """Valid tables over a small key space, with exact ids."""
    inner = st.sets(st.integers(space.min + 1, space.max), max_size=6)
    edges = [space.min, *sorted(draw(inner)), space.max + 1]
    ranges = tuple(IdRange(start, end, draw(st.sampled_from(UNITS))) for start, end in pairwise(edges))
    exact = draw(st.dictionaries(st.integers(space.min, space.max), st.sampled_from(UNITS), max_size=5))
    return RangeTable(space, draw(st.permutations(ranges)), tuple(exact.items()))


def naive_owners(table: RangeTable) -> dict[int, str]:
    owners = {i: r.unit for r in table.ranges for i in range(r.start, r.end)}
    return owners | dict(table.exact)


@given(tables())
def test_every_id_has_the_owner_that_the_ranges_and_exact_ids_say(table: RangeTable) -> None:
    assert {i: table.owner(i) for i in range(3, 41)} == naive_owners(table)


@given(tables(), tables())
def test_the_diff_is_exactly_the_ids_whose_owner_differs(old: RangeTable, new: RangeTable) -> None:
    before, after = naive_owners(old), naive_owners(new)
    moved = diff(old, new)
    expected = {i: (before[i], after[i]) for i in before if before[i] != after[i]}
    assert {i: (m.losing, m.gaining) for m in moved for i in range(m.start, m.end)} == expected
    assert moved.count == len(expected)
    assert {i for i in before if moved.contains(i)} == set(expected)


@given(tables(), tables())
def test_moving_the_diff_gives_the_new_owners_and_swapping_it_gives_the_old_ones(
    old: RangeTable, new: RangeTable
) -> None:
    moved = diff(old, new)
    there = old.with_moved(moved)
    assert naive_owners(there) == naive_owners(new)
    assert naive_owners(there.with_moved(moved.swapped())) == naive_owners(old)


@given(tables(), tables())
def test_moving_everything_names_every_id_once(old: RangeTable, new: RangeTable) -> None:
    moved = moved_everything(old, new)
    assert moved.count == SMALL.size
    assert all(
        (m.losing, m.gaining) == (old.owner(i), new.owner(i)) for m in moved for i in range(m.start, m.end)
    )


@given(tables())
def test_text_and_exact_ids_read_back_as_the_same_table(table: RangeTable) -> None:
    assert RangeTable.parse(SMALL, table.ranges_text(), table.exact_ids()) == table


@given(tables(), tables())
def test_moved_ids_survive_their_list_form(old: RangeTable, new: RangeTable) -> None:
    moved = diff(old, new)
    assert MovedIds.from_lists(moved.as_lists()) == moved


@given(tables())
def test_shares_add_up_to_the_key_space(table: RangeTable) -> None:
    assert sum(table.share().values()) == SMALL.size


@given(st.lists(st.tuples(st.integers(0, 45), st.integers(0, 45), st.sampled_from(UNITS)), max_size=6))
def test_a_table_is_accepted_exactly_when_each_id_is_covered_once(rows: list[tuple[int, int, str]]) -> None:
    ranges = [IdRange(min(a, b), max(a, b) + 1, unit) for a, b, unit in rows]
    covered = sorted(i for r in ranges for i in range(r.start, r.end))
    if covered == list(range(SMALL.min, SMALL.max + 1)):
        assert naive_owners(RangeTable(SMALL, tuple(ranges)))
    else:
        with pytest.raises(InvalidRule):
            RangeTable(SMALL, tuple(ranges))


def test_the_walk_through_moves_383_ids_from_beijing_to_hangzhou() -> None:
    old = RangeTable.parse(SPACE, {"center": ["0~5997"], "unbj": ["5998~9999"]})
    new = RangeTable.parse(SPACE, {"center": ["0~6380"], "unbj": ["6381~9999"]})
    moved = diff(old, new)
    assert moved.ranges == (MovedRange(5998, 6381, "unbj", "center"),)
    assert moved.count == 383
    assert moved.text() == "5998~6380 unbj→center"


@pytest.mark.parametrize(
    ("ranges", "error", "sentence"),
    [
        ({"center": ["0~5997"], "unbj": ["6000~9999"]}, Gap, "no unit owns 5998~5999"),
        ({"center": ["1~5997"], "unbj": ["5998~9999"]}, Gap, "no unit owns id 0$"),
        ({"center": ["0~5997"], "unbj": ["5998~9998"]}, Gap, "no unit owns id 9999"),
        ({}, Gap, "no unit owns 0~9999"),
        ({"center": ["0~6000"], "unbj": ["5998~9999"]}, Overlap, "5998~6000 belongs to both center"),
        ({"center": ["0~9999"], "unbj": ["10~20"]}, Overlap, "10~20 belongs to both"),
        ({"center": ["0~5997"], "unbj": ["5998~10000"]}, InvalidRange, "leaves the key space 0~9999"),
        ({"center": ["abc"]}, InvalidRange, "write it as 0~5997"),
        ({"center": ["0~1~2"]}, InvalidRange, "more than two bounds"),
        ({"center": ["٣~٤"]}, InvalidRange, "is not a range"),
        ({"center": ["9~3"]}, InvalidRange, "ends before it starts"),
        ({"center": ["-1~3"]}, InvalidRange, "is not a range"),
    ],
)
def test_a_wrong_table_is_refused_with_the_first_place(
    ranges: dict[str, list[str]], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        RangeTable.parse(SPACE, ranges)


def test_an_exact_id_outside_the_key_space_or_named_twice_is_refused() -> None:
    ranges = {"center": ["0~9999"]}
    with pytest.raises(InvalidRange, match="id 10000 leaves the key space"):
        RangeTable.parse(SPACE, ranges, {"unbj": [10000]})
    with pytest.raises(Overlap, match="id 42 is named for both"):
        RangeTable.parse(SPACE, ranges, {"unbj": [42], "center": [42]})


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 5)])
def test_an_empty_or_negative_range_is_refused(start: int, end: int) -> None:
    with pytest.raises(InvalidRange, match="center"):
        IdRange(start, end, "center")


def test_a_full_width_tilde_and_spaces_are_read() -> None:
    assert parse_range("0～5997") == parse_range(" 0 ~ 5997 ") == (0, 5997)
    assert parse_range("42") == (42, 42)
