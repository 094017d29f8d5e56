"""What the rules find, from values alone, and when an override of it still holds."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.safety.findings import (
    COUNTED_WITHIN,
    FLAP_WITHIN,
    Asked,
    Finding,
    Limits,
    Past,
    Rule,
    Severity,
    covers,
    judged,
)
from cutover.safety.sentences import said
from cutover.safety.windows import EVERY_DAY, Window
from msha.steering.ranges import MovedIds, MovedRange

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MOVED = MovedIds((MovedRange(5998, 6381, "unbj", "center"),))
ASKED = Asked(10_000, {"center": (5998, 6381), "unbj": (4002, 3619)}, MOVED, 40, (), NOW)


def found(limits: Limits, asked: Asked = ASKED, *past: Past, now: datetime = NOW) -> list[Finding]:
    return judged(limits, asked, past, now)


def rules_of(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(str(one.rule), str(one.severity)) for one in findings]


def ended(minutes: float, moved: MovedIds = MOVED, number: int = 7) -> Past:
    return Past(number, NOW - timedelta(minutes=minutes), moved)


def test_without_rules_nothing_is_found() -> None:
    assert found(Limits()) == []


@pytest.mark.parametrize(
    ("percent", "after", "violated"),
    [(36, 3619, False), (37, 3619, True), (0, 1, False), (0, 0, True), (1, 99, True), (1, 100, False)],
)
def test_a_unit_keeps_its_least_share_and_never_nothing(percent: int, after: int, violated: bool) -> None:
    asked = replace(ASKED, shares={"unbj": (4002, after)})
    assert bool(found(Limits(min_share_percent=percent), asked)) is violated


@pytest.mark.parametrize("shares", [(0, 0), (10, 10), (10, 20)])
def test_a_unit_that_loses_nothing_keeps_no_cutover_waiting(shares: tuple[int, int]) -> None:
    assert found(Limits(min_share_percent=50), replace(ASKED, shares={"unbj": shares})) == []


@given(
    st.integers(0, 100),
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 50), st.integers(0, 50))),
)
def test_exactly_the_units_that_shrink_below_their_share_are_named(
    percent: int, shares: dict[str, tuple[int, int]]
) -> None:
    findings = found(Limits(min_share_percent=percent), Asked(50, shares, MovedIds()))
    named = {unit for one in findings for unit, _, _ in one.facts["units"]}
    assert named == {
        unit
        for unit, (before, after) in shares.items()
        if before > 0 and after < before and (after == 0 or after / 50 < percent / 100 - 1e-9)
    }


def test_so_many_ids_may_move_and_no_more() -> None:
    assert found(Limits(max_ids=383)) == []
    (one,) = found(Limits(max_ids=382))
    assert (one.rule, one.facts, one.overridable) == (Rule.MAX_IDS, {"limit": 382, "ids": 383}, True)


def test_so_many_sessions_may_be_closed_and_no_more() -> None:
    assert found(Limits(max_sessions=40)) == []
    assert rules_of(found(Limits(max_sessions=39))) == [("max_sessions", "violation")]


def test_sessions_that_nobody_could_count_may_be_too_many() -> None:
    (one,) = found(Limits(max_sessions=100), replace(ASKED, uncounted=("edge-1",)))
    assert one.facts["uncounted"] == ["edge-1"]
    assert "could not be counted on edge-1" in said(one)


def test_sessions_counted_long_ago_have_to_be_counted_again() -> None:
    assert found(Limits(max_sessions=100), now=NOW + COUNTED_WITHIN) == []
    (one,) = found(Limits(max_sessions=100), now=NOW + COUNTED_WITHIN + timedelta(seconds=1))
    assert (one.rule, one.overridable) == (Rule.COUNTED, False)
    assert "Generate the preview again" in said(one)


def test_a_draft_without_a_preview_is_not_judged_by_its_sessions() -> None:
    assert found(Limits(max_sessions=0), replace(ASKED, sessions=None, counted_at=None)) == []


def test_no_cutover_starts_inside_a_blocked_window() -> None:
    noon = Window(EVERY_DAY, time(11), time(13), "UTC", "lunch")
    (one,) = found(Limits(windows=(noon,)))
    assert said(one) == "No cutover starts before 2026-03-02 13:00 (UTC): lunch. Wait until then."
    assert found(Limits(windows=(noon,)), now=NOW + timedelta(hours=1)) == []


def test_after_a_cutover_there_is_a_quiet_period() -> None:
    elsewhere = MovedIds((MovedRange(0, 10, "center", "unbj"),))
    (one,) = found(Limits(quiet_s=600), ASKED, ended(5, elsewhere), ended(200, elsewhere))
    assert (one.rule, one.severity) == (Rule.QUIET, Severity.VIOLATION)
    assert said(one) == (
        "After cutover #7 there is a quiet period of 600 s. Wait until 2026-03-02 12:05:00 UTC."
    )
    assert found(Limits(quiet_s=600), ASKED, ended(10, elsewhere)) == []


def test_the_way_back_from_the_last_cutover_need_not_wait() -> None:
    back = ended(1, MOVED.swapped())
    assert rules_of(found(Limits(quiet_s=600), ASKED, back)) == [("quiet", "warning"), ("flap", "warning")]
    further = replace(ASKED, moved=MovedIds((MovedRange(5998, 6382, "unbj", "center"),)))
    assert rules_of(found(Limits(quiet_s=600), further, back))[0] == ("quiet", "violation")
    other_way = ended(1, MOVED)
    assert rules_of(found(Limits(quiet_s=600), ASKED, other_way))[0] == ("quiet", "violation")


def test_ids_that_have_just_moved_are_warned_of() -> None:
    some = MovedIds((MovedRange(6000, 6010, "center", "unbj"), MovedRange(7000, 7010, "center", "unbj")))
    (one,) = found(Limits(), ASKED, ended(5, some, 7), ended(9, some, 6))
    assert one.severity is Severity.WARNING
    assert one.facts["ids"] == 10
    assert said(one).startswith(
        "10 of these ids have just moved (6000~6009) by #7 (ended at 2026-03-02 11:55:00 UTC), #6"
    )
    assert found(Limits(), ASKED, ended(FLAP_WITHIN.total_seconds() / 60 + 1, some)) == []


def test_violations_are_said_before_warnings() -> None:
    findings = found(Limits(max_ids=1, quiet_s=9999), ASKED, ended(1))
    assert [one.severity for one in findings] == ["violation", "violation", "warning"]


SESSIONS = {"limit": 100, "sessions": 200, "uncounted": ["a"]}
WINDOW = {"since": "2026-03-02", "until": "2026-03-02T13:00", "zone": "UTC", "note": ""}


@pytest.mark.parametrize(
    ("rule", "then", "now", "holds"),
    [
        (Rule.MIN_SHARE, {"limit": 20, "units": [["a", 9, 1]]}, {"limit": 20, "units": [["a", 9, 1]]}, True),
        (Rule.MIN_SHARE, {"limit": 20, "units": [["a", 9, 1]]}, {"limit": 21, "units": [["a", 9, 1]]}, False),
        (Rule.MIN_SHARE, {"limit": 20, "units": [["a", 9, 1]]}, {"limit": 10, "units": []}, True),
        (Rule.MIN_SHARE, {"limit": 20, "units": [["a", 9, 1]]}, {"limit": 20, "units": [["b", 9, 1]]}, False),
        (Rule.MAX_IDS, {"limit": 5, "ids": 9}, {"limit": 5, "ids": 8}, True),
        (Rule.MAX_IDS, {"limit": 5, "ids": 9}, {"limit": 5, "ids": 10}, False),
        (Rule.MAX_IDS, {"limit": 5, "ids": 9}, {"limit": 4, "ids": 9}, False),
        (Rule.MAX_SESSIONS, SESSIONS, {**SESSIONS, "sessions": 220}, True),
        (Rule.MAX_SESSIONS, SESSIONS, {**SESSIONS, "sessions": 221}, False),
        (Rule.MAX_SESSIONS, SESSIONS, {**SESSIONS, "uncounted": []}, True),
        (Rule.MAX_SESSIONS, SESSIONS, {**SESSIONS, "uncounted": ["a", "b"]}, False),
        (Rule.MAX_SESSIONS, SESSIONS, {**SESSIONS, "limit": 99}, False),
        (Rule.WINDOW, {"windows": [WINDOW]}, {"windows": [WINDOW]}, True),
        (Rule.WINDOW, {"windows": [WINDOW]}, {"windows": [{**WINDOW, "since": "2026-03-03"}]}, False),
        (Rule.QUIET, {"until": "2026-03-02T12:05:00+00:00"}, {"until": "2026-03-02T12:05:00+00:00"}, True),
        (Rule.QUIET, {"until": "2026-03-02T12:05:00+00:00"}, {"until": "2026-03-02T12:06:00+00:00"}, False),
        (Rule.COUNTED, {"minutes": 20}, {"minutes": 20}, False),
    ],
)
def test_an_override_holds_until_it_gets_worse(
    rule: Rule, then: dict[str, Any], now: dict[str, Any], holds: bool
) -> None:
    assert covers(rule, then, now) is holds
