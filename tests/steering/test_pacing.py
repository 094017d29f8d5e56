"""Pacing as values: every id moves once, no batch is too large, and a rate is kept on average."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msha.steering.pacing import (
    BATCHES_LIMIT,
    Failing,
    Gate,
    Measure,
    Pacing,
    Seen,
    Slice,
    even_sizes,
    failing,
    joined,
    paced,
    rest_s,
    sizes_of,
    stages,
    to_count,
)
from msha.steering.ranges import MovedIds, MovedRange

PAIRS = [("a", "b"), ("a", "c"), ("b", "c"), ("c", "a")]


@st.composite
def moved_sets(draw: st.DrawFn) -> MovedIds:
    """Some ranges with holes between them, given and taken by three units."""
    rows, at = [], 0
    for _ in range(draw(st.integers(1, 6))):
        at += draw(st.integers(0, 5))
        width = draw(st.integers(1, 60))
        rows.append(MovedRange(at, at + width, *draw(st.sampled_from(PAIRS))))
        at += width
    return MovedIds(tuple(rows))


percents = st.lists(st.floats(0.01, 100), max_size=5).map(lambda some: tuple(sorted(set(some))))


def ids(moved: MovedIds) -> list[tuple[int, str, str]]:
    return [(number, m.losing, m.gaining) for m in moved for number in range(m.start, m.end)]


@given(moved_sets(), percents, st.integers(0, 80))
def test_the_stages_are_the_moved_set_once_and_in_order(
    moved: MovedIds, asked: tuple[float, ...], per_stage: int
) -> None:
    parts = stages(moved, Pacing(percents=asked, ids_per_stage=per_stage))
    assert [one for part in parts for one in ids(part)] == ids(moved)
    assert all(parts)


@given(st.integers(1, 10_000), percents)
def test_each_percent_is_reached_and_passed_by_less_than_one_id(count: int, asked: tuple[float, ...]) -> None:
    sizes = sizes_of(count, asked)
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    assert ends[-1] == count
    for percent in asked:
        wanted = count * percent / 100
        assert any(wanted <= end < wanted + 1 + 1e-6 for end in ends)


def test_one_ten_and_fifty_percent_are_four_stages() -> None:
    assert sizes_of(383, (1, 10, 50)) == [4, 35, 153, 191]
    assert sizes_of(3, (1, 10, 50)) == [1, 1, 1]
    assert sizes_of(100, (100,)) == [100]
    assert sizes_of(100, ()) == [100]


def test_even_stages_are_not_more_than_a_cutover_may_have() -> None:
    assert even_sizes(10, 4) == [4, 4, 2]
    assert len(even_sizes(10_000, 1)) == BATCHES_LIMIT


@given(moved_sets(), percents, st.integers(1, 50))
def test_sessions_are_counted_in_few_ranges_that_never_cross_a_stage(
    moved: MovedIds, asked: tuple[float, ...], limit: int
) -> None:
    parts = stages(moved, Pacing(percents=asked))
    ranges = to_count(parts, limit)
    assert [joined(some) for some in ranges] == [joined(part) for part in parts]
    pieces = sum(len(part.ranges) for part in parts)
    assert sum(len(some) for some in ranges) <= limit + pieces


@st.composite
def weighed(draw: st.DrawFn) -> list[list[Slice]]:
    parts = stages(draw(moved_sets()), Pacing(percents=draw(percents)))
    return [
        [Slice(one, draw(st.integers(0, 40))) for one in some]
        for some in to_count(parts, draw(st.integers(1, 60)))
    ]


rates = st.floats(1, 200)
capacities = st.dictionaries(st.sampled_from("abc"), rates)


@given(weighed(), rates, st.floats(0.5, 5), capacities)
def test_a_paced_drain_moves_every_id_once_stage_by_stage(
    parts: list[list[Slice]], rate: float, interval_s: float, accepts: dict[str, float]
) -> None:
    batches, _ = paced(parts, rate, interval_s, accepts)
    assert all(before.stage <= after.stage for before, after in pairwise(batches))
    assert all(batch.moved for batch in batches)
    for index, slices in enumerate(parts):
        told = sorted(one for batch in batches if batch.stage == index for one in ids(batch.moved))
        assert told == sorted(ids(joined(one.moved for one in slices)))


@given(weighed(), rates, st.floats(0.5, 5), capacities)
def test_no_batch_closes_or_brings_more_than_its_interval_allows(
    parts: list[list[Slice]], rate: float, interval_s: float, accepts: dict[str, float]
) -> None:
    batches, interval_s = paced(parts, rate, interval_s, accepts)
    largest = max(one.sessions for slices in parts for one in slices)
    for batch in batches:
        for count in batch.closes.values():
            assert count <= max(rate * interval_s, 1, largest)
        for unit, count in batch.brings.items():
            if unit in accepts:
                assert count <= max(accepts[unit] * interval_s, 1, largest)
        assert sum(batch.closes.values()) == sum(batch.brings.values())


@given(weighed(), rates, st.floats(0.5, 5), capacities)
def test_the_rate_is_kept_over_the_whole_drain(
    parts: list[list[Slice]], rate: float, interval_s: float, accepts: dict[str, float]
) -> None:
    batches, interval_s = paced(parts, rate, interval_s, accepts)
    assert len(batches) <= BATCHES_LIMIT
    took = sum(rest_s(batch.closes, batch.brings, rate, accepts) for batch in batches)
    for unit in "abc":
        closed = sum(batch.closes.get(unit, 0) for batch in batches)
        assert closed <= rate * took + 1e-6
        brought = sum(batch.brings.get(unit, 0) for batch in batches)
        if unit in accepts:
            assert brought <= accepts[unit] * took + 1e-6


def test_units_drain_side_by_side() -> None:
    slices = [Slice(MovedRange(n, n + 1, "a", "c"), 10) for n in range(4)]
    slices += [Slice(MovedRange(n, n + 1, "b", "c"), 10) for n in range(10, 14)]
    batches, _ = paced([slices], 10, 1.0, {})
    assert [batch.closes for batch in batches] == [{"a": 10, "b": 10}] * 4
    capped, _ = paced([slices], 10, 1.0, {"c": 10})
    assert [sum(batch.brings.values()) for batch in capped] == [10] * 8


def test_an_id_with_more_sessions_than_an_interval_goes_alone_and_is_rested_for() -> None:
    slices = [Slice(MovedRange(n, n + 1, "a", "b"), count) for n, count in enumerate((5, 90, 5))]
    batches, _ = paced([slices], 10, 1.0, {})
    assert [dict(batch.closes) for batch in batches] == [{"a": 5}, {"a": 90}, {"a": 5}]
    assert rest_s(batches[1].closes, batches[1].brings, 10, {}) == 9.0


def test_many_sessions_make_the_interval_longer_rather_than_the_batches_countless() -> None:
    slices = [Slice(MovedRange(n, n + 1, "a", "b"), 1) for n in range(1000)]
    batches, interval_s = paced([slices], 1, 1.0, {})
    assert len(batches) <= BATCHES_LIMIT
    assert interval_s == 8.0
    assert max(batch.closes["a"] for batch in batches) <= 8


def test_without_a_rate_nothing_is_waited_for() -> None:
    assert rest_s({"a": 1000}, {"b": 1000}, 0, {"b": 1}) == 0


# -- health --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "seen", "measures"),
    [
        (Gate(), Seen(), []),
        (Gate(), Seen(answered=100, refused=5), []),
        (Gate(), Seen(answered=100, refused=6), [Measure.REFUSED]),
        (Gate(refused=None), Seen(answered=100, refused=100), []),
        (Gate(), Seen(tried=10, unanswered=1), [Measure.BACK_SOURCE]),
        (Gate(), Seen(closed=10, back=8), []),
        (Gate(), Seen(closed=10, back=7), [Measure.RECONNECT]),
        (Gate(), Seen(closed=10, back=25), []),
        (Gate(stragglers=2), Seen(closed=100, back=98), []),
        (Gate(stragglers=2), Seen(closed=100, back=97), [Measure.STRAGGLERS]),
        (Gate(refused=None, reconnect=None), Seen(silent=("b",)), [Measure.SILENT]),
    ],
)
def test_a_gate_names_the_limits_that_are_not_kept(gate: Gate, seen: Seen, measures: list[Measure]) -> None:
    assert [one.measure for one in failing(gate, seen)] == measures


def test_a_failing_limit_has_its_figures() -> None:
    assert failing(Gate(reconnect=0.9), Seen(closed=20, back=3)) == [Failing(Measure.RECONNECT, 3, 20, 0.9)]


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0, 1))
def test_a_share_is_compared_without_dividing(closed: int, back: int, limit: float) -> None:
    found = failing(Gate(reconnect=limit), Seen(closed=closed, back=back))
    expected = closed > 0 and back < limit * closed
    assert bool(found) == expected
    assert math.isfinite(limit)
