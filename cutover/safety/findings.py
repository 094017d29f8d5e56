"""What the safety rules of a namespace say about a cutover: values in, findings out, no database, no clock.

A finding holds facts; `cutover.safety.sentences` makes the words from them in the reader's language.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from cutover.safety.windows import Window, opening
from msha.steering.ranges import MovedIds, format_range

#: Ids that moved so recently are named, whether or not there is a quiet period.
FLAP_WITHIN = timedelta(hours=1)
#: Sessions come and go; where their number is limited, one that is older than this does not count.
COUNTED_WITHIN = timedelta(minutes=15)
#: So many more sessions, by which an override still holds, come by themselves between two looks.
ABOUT_AS_MANY = 1.1
#: A sentence names so many ranges.
NAMED = 5

Facts = dict[str, Any]


class Rule(StrEnum):
    """What a finding is about; also the name by which it is overridden."""

    MIN_SHARE = "min_share"
    MAX_IDS = "max_ids"
    MAX_SESSIONS = "max_sessions"
    COUNTED = "counted"
    WINDOW = "window"
    QUIET = "quiet"
    FLAP = "flap"


class Severity(StrEnum):
    VIOLATION = "violation"  # keeps the cutover from starting, unless overridden
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Limits:
    """The safety rules; None limits nothing."""

    min_share_percent: int | None = None
    max_ids: int | None = None
    max_sessions: int | None = None
    quiet_s: int | None = None
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a cutover would do.

    Attributes:
        shares: ids of each unit before and after.
        sessions: live sessions that would be closed, as counted at `counted_at`; None: not counted yet.
        uncounted: nodes that did not count theirs.
    """

    key_space_size: int
    shares: Mapping[str, tuple[int, int]]
    moved: MovedIds
    sessions: int | None = None
    uncounted: tuple[str, ...] = ()
    counted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """A cutover that has ended and whose ids had to reconnect."""

    number: int
    ended_at: datetime
    moved: MovedIds


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule says; its facts are fit for JSON.

    Attributes:
        overridable: whether a reason is enough to start nevertheless.
    """

    rule: Rule
    facts: Facts
    severity: Severity = Severity.VIOLATION
    overridable: bool = True


def judged(limits: Limits, asked: Asked, past: Sequence[Past], now: datetime) -> list[Finding]:
    """Everything that the rules have to say, violations first.

    Args:
        past: cutovers of the namespace that disturbed somebody; those of other unit types have moved no id
            of this one, but count for the quiet period.
    """
    found = [
        *_min_share(limits, asked),
        *_max_ids(limits, asked),
        *_max_sessions(limits, asked, now),
        *_windows(limits, now),
        *_quiet(limits, asked, past, now),
        *_flap(limits, asked, past, now),
    ]
    return sorted(found, key=lambda finding: finding.severity is not Severity.VIOLATION)


def covers(rule: str, then: Facts, now: Facts) -> bool:
    """Whether what was overridden `then` was at least as bad as what is found now."""
    match rule:
        case Rule.MIN_SHARE:
            units = {unit for unit, _before, _after in then["units"]}
            return now["limit"] <= then["limit"] and all(unit in units for unit, _, _ in now["units"])
        case Rule.MAX_IDS:
            return bool(now["ids"] <= then["ids"] and now["limit"] >= then["limit"])
        case Rule.MAX_SESSIONS:
            return (
                now["limit"] >= then["limit"]
                and now["sessions"] <= max(now["limit"], then["sessions"] * ABOUT_AS_MANY)
                and set(now["uncounted"]) <= set(then["uncounted"])
            )
        case Rule.WINDOW:
            return all(window in then["windows"] for window in now["windows"])
        case Rule.QUIET:
            return datetime.fromisoformat(now["until"]) <= datetime.fromisoformat(then["until"])
        case _:
            return False


def _min_share(limits: Limits, asked: Asked) -> Iterator[Finding]:
    """Units that lose some of what they owned and keep too little; nothing at all is always too little."""
    percent = limits.min_share_percent
    if percent is None:
        return
    short = [
        [unit, before, after]
        for unit, (before, after) in sorted(asked.shares.items())
        if after < before and (after == 0 or after * 100 < percent * asked.key_space_size)
    ]
    if short:
        yield Finding(Rule.MIN_SHARE, {"limit": percent, "size": asked.key_space_size, "units": short})


def _max_ids(limits: Limits, asked: Asked) -> Iterator[Finding]:
    if limits.max_ids is not None and asked.moved.count > limits.max_ids:
        yield Finding(Rule.MAX_IDS, {"limit": limits.max_ids, "ids": asked.moved.count})


def _max_sessions(limits: Limits, asked: Asked, now: datetime) -> Iterator[Finding]:
    """Sessions that nobody could count may be too many; those counted long ago may have become so."""
    limit = limits.max_sessions
    if limit is None or asked.sessions is None or asked.counted_at is None:
        return
    if now - asked.counted_at > COUNTED_WITHIN:
        minutes = int((now - asked.counted_at).total_seconds() // 60)
        yield Finding(Rule.COUNTED, {"minutes": minutes}, overridable=False)
    if asked.sessions > limit or asked.uncounted:
        facts = {"limit": limit, "sessions": asked.sessions, "uncounted": sorted(asked.uncounted)}
        yield Finding(Rule.MAX_SESSIONS, facts)


def _windows(limits: Limits, now: datetime) -> Iterator[Finding]:
    openings = [found for window in limits.windows if (found := opening(window, now)) is not None]
    if openings:
        windows = [
            {
                "since": one.since.isoformat(),
                "until": one.until.isoformat(timespec="minutes") if one.until else None,
                "zone": one.window.zone,
                "note": one.window.note,
            }
            for one in openings
        ]
        yield Finding(Rule.WINDOW, {"windows": windows})


def _quiet(limits: Limits, asked: Asked, past: Sequence[Past], now: datetime) -> Iterator[Finding]:
    """Too soon after the last cutover; the way back from that one is warned of, but not kept waiting."""
    last = max(past, key=lambda one: one.ended_at, default=None)
    if limits.quiet_s is None or last is None:
        return
    until = last.ended_at + timedelta(seconds=limits.quiet_s)
    if now < until:
        facts = {"seconds": limits.quiet_s, "number": last.number, "until": until.isoformat()}
        back = bool(asked.moved) and _leads_back(asked.moved, last.moved)
        yield Finding(Rule.QUIET, facts, Severity.WARNING if back else Severity.VIOLATION)


def _flap(limits: Limits, asked: Asked, past: Sequence[Past], now: datetime) -> Iterator[Finding]:
    """Ids that would move again although they have just moved."""
    horizon = max(FLAP_WITHIN, timedelta(seconds=limits.quiet_s or 0))
    cutovers, parts = [], set()
    for one in sorted(past, key=lambda one: one.ended_at, reverse=True):
        common = list(_common(asked.moved, one.moved))
        if common and now - one.ended_at <= horizon:
            ids = sum(end - start for start, end in common)
            cutovers.append({"number": one.number, "ended_at": one.ended_at.isoformat(), "ids": ids})
            parts.update(common)
    if cutovers:
        merged = list(_merged(sorted(parts)))
        facts = {
            "ids": sum(end - start for start, end in merged),
            "ranges": [format_range(start, end) for start, end in merged[:NAMED]],
            "more": max(0, len(merged) - NAMED),
            "cutovers": cutovers,
        }
        yield Finding(Rule.FLAP, facts, Severity.WARNING, overridable=False)


def _leads_back(moved: MovedIds, before: MovedIds) -> bool:
    """Whether every id goes back to where the other cutover took it from."""
    for move in moved:
        start = move.start
        while start < move.end:
            was = before.find(start)
            if was is None or (was.gaining, was.losing) != (move.losing, move.gaining):
                return False
            start = was.end
    return True


def _common(one: MovedIds, other: MovedIds) -> Iterator[tuple[int, int]]:
    """The ids of both, half-open and ascending."""
    mine, others = iter(one), iter(other)
    a, b = next(mine, None), next(others, None)
    while a is not None and b is not None:
        start, end = max(a.start, b.start), min(a.end, b.end)
        if start < end:
            yield start, end
        if a.end <= b.end:
            a = next(mine, None)
        else:
            b = next(others, None)


def _merged(parts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ascending parts with overlaps and neighbours joined."""
    current: tuple[int, int] | None = None
    for start, end in parts:
        if current is not None and start <= current[1]:
            current = (current[0], max(current[1], end))
            continue
        if current is not None:
            yield current
        current = (start, end)
    if current is not None:
        yield current
