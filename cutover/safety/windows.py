"""Blocked windows: whether the clock on the wall of a place stands inside one.

A window is meant by people who look at a clock, so it is judged on wall time. Where a clock is put back, an
hour inside a window is blocked both times; what a clock that is put forward leaves out never comes.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

#: As `BlockedWindow.Day` has it.
EVERY_DAY = 7


@dataclass(frozen=True, slots=True)
class Window:
    """From `begins` (included) to `ends` (excluded), which lies on the next day unless it is later.

    Attributes:
        day: of its beginning; 0 is Monday, 7 every day.
        zone: a name of the IANA time zone database.
    """

    day: int
    begins: time
    ends: time
    zone: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Opening:
    """One time that a window is open.

    Attributes:
        since: the day on which it began, there.
        until: the wall time at which it ends, there; None where nobody knows the time zone.
    """

    window: Window
    since: date
    until: datetime | None


def known_zone(name: str) -> ZoneInfo | None:
    """The time zone of that name, or None."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # a directory, a path that leaves the database, no such name
        return None


def opening(window: Window, now: datetime) -> Opening | None:
    """The time that the window is open now, or None; an unknown time zone counts as open."""
    zone = known_zone(window.zone)
    if zone is None:
        return Opening(window, now.date(), None)
    there = now.astimezone(zone).replace(tzinfo=None)
    overnight = window.ends <= window.begins
    for since in (there.date(), there.date() - timedelta(days=1)):
        if window.day not in (EVERY_DAY, since.weekday()):
            continue
        begins = datetime.combine(since, window.begins)
        ends = datetime.combine(since + timedelta(days=1) if overnight else since, window.ends)
        if begins <= there < ends:
            return Opening(window, since, ends)
    return None
