"""Blocked windows by the clock on the wall: over midnight, at both changes of the clock, in every zone."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.safety.windows import EVERY_DAY, Window, opening

ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe")


def at(text: str, zone: str = "UTC", fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def window(begins: str, ends: str, day: int = EVERY_DAY, zone: str = "UTC") -> Window:
    return Window(day, time.fromisoformat(begins), time.fromisoformat(ends), zone)


@pytest.mark.parametrize(
    ("begins", "ends", "day", "now", "open_"),
    [
        ("09:00", "18:00", EVERY_DAY, "2026-03-02T09:00", True),
        ("09:00", "18:00", EVERY_DAY, "2026-03-02T17:59:59", True),
        ("09:00", "18:00", EVERY_DAY, "2026-03-02T18:00", False),
        ("09:00", "18:00", EVERY_DAY, "2026-03-02T08:59:59", False),
        ("22:00", "06:00", EVERY_DAY, "2026-03-02T23:00", True),
        ("22:00", "06:00", EVERY_DAY, "2026-03-02T05:59", True),
        ("22:00", "06:00", EVERY_DAY, "2026-03-02T06:00", False),
        ("22:00", "06:00", 4, "2026-03-06T22:00", True),  # Friday evening
        ("22:00", "06:00", 4, "2026-03-07T05:00", True),  # still Friday's
        ("22:00", "06:00", 4, "2026-03-06T05:00", False),  # that would be Thursday's
        ("22:00", "06:00", 6, "2026-03-09T01:00", True),  # Sunday's, on Monday
        ("00:00", "00:00", 5, "2026-03-07T00:00", True),  # the whole of Saturday
        ("00:00", "00:00", 5, "2026-03-07T23:59:59", True),
        ("00:00", "00:00", 5, "2026-03-08T00:00", False),
        ("12:00", "12:00", 5, "2026-03-08T11:59", True),
    ],
)
def test_a_window_is_open_from_its_beginning_to_its_end(
    begins: str, ends: str, day: int, now: str, open_: bool
) -> None:
    assert (opening(window(begins, ends, day), at(now)) is not None) is open_


def test_a_window_says_until_when_it_lasts_there() -> None:
    found = opening(window("22:00", "06:00", zone="Asia/Shanghai"), at("2026-03-02T15:00"))
    assert found is not None
    assert found.since.isoformat() == "2026-03-02"
    assert found.until == datetime.fromisoformat("2026-03-03T06:00")


def test_the_day_is_the_one_of_the_place_not_of_utc() -> None:
    monday = window("00:00", "08:00", 0, "Asia/Shanghai")
    assert opening(monday, at("2026-03-01T17:00")) is not None  # Sunday in UTC, Monday in Shanghai
    assert opening(monday, at("2026-03-02T17:00")) is None


def test_an_hour_that_comes_twice_is_blocked_both_times() -> None:
    late = window("02:00", "03:00", zone="Europe/Berlin")
    for fold in (0, 1):
        assert opening(late, at("2026-10-25T02:30", "Europe/Berlin", fold)) is not None
    assert opening(late, at("2026-10-25T03:00", "Europe/Berlin")) is None


def test_a_window_ends_with_an_hour_that_never_comes() -> None:
    early = window("01:00", "02:30", zone="Europe/Berlin")
    change = datetime(2026, 3, 29, 1, tzinfo=UTC)  # 02:00 there, which becomes 03:00
    assert opening(early, change - timedelta(seconds=1)) is not None
    assert opening(early, change) is None
    assert opening(window("02:00", "03:00", zone="Europe/Berlin"), change) is None


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", "Europe"])
def test_a_window_whose_time_zone_nobody_knows_blocks(zone: str) -> None:
    found = opening(window("09:00", "10:00", zone=zone), at("2026-03-02T00:00"))
    assert found is not None
    assert found.until is None


@given(
    st.times().map(lambda one: one.replace(microsecond=0)),
    st.times().map(lambda one: one.replace(microsecond=0)),
    st.integers(0, 7),
    st.sampled_from(ZONES),
    st.datetimes(*map(datetime.fromisoformat, ("2025-01-01", "2027-12-31")), timezones=st.just(UTC)),
)
def test_a_window_is_open_exactly_while_the_wall_clock_is_inside(
    begins: time, ends: time, day: int, zone: str, now: datetime
) -> None:
    there = now.astimezone(ZoneInfo(zone))
    wall = there.time()
    inside = begins <= wall < ends if begins < ends else wall >= begins or wall < ends
    began_on = there.weekday() if wall >= begins else (there.weekday() - 1) % 7
    expected = inside and day in (EVERY_DAY, began_on)
    assert (opening(Window(day, begins, ends, zone), now) is not None) is expected
