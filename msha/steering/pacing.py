"""How a cutover is paced, as values: which ids go together, how long to wait in between, what stops it.

A *stage* is what an operator asks for (the first 1 %, then up to 10 %, ...): after each the gaining units are
given time and looked at. A *batch* is what moves at once. Without drain pacing a stage is one batch; with it
a stage is cut further, so that no batch closes more sessions than its interval has time for.

Everything here is pure: sessions are counted and health is observed by whoever calls.
Source: PROTOCOL C5.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from msha.steering.phases import sliced
from msha.steering.ranges import MovedIds, MovedRange

#: Every batch is three publishes; more of them would say less and less about the rate.
BATCHES_LIMIT = 200
#: Sessions are counted in at most so many ranges: the answer of a node stays small.
SLICES_LIMIT = 2000
#: Between two batches of a paced drain, unless asked otherwise.
INTERVAL_S = 2.0


class OnFailure(StrEnum):
    """What a failing gate does."""

    PAUSE = "pause"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class Gate:
    """What the health of the gaining units must be before the next stage; None is not looked at.

    Attributes:
        refused: most handshakes that the gaining units refuse, as a share of those they answer.
        back_source: most handshakes that no back-source answers with a 101, as a share of those tried.
        reconnect: fewest sessions that come back, as a share of those closed.
        stragglers: most closed sessions that do not come back.
        retry_s: a closed session that is not back after so long is a straggler.
    """

    refused: float | None = 0.05
    back_source: float | None = 0.05
    reconnect: float | None = 0.8
    stragglers: int | None = None
    retry_s: float = 5.0

    @property
    def looks_at_clients(self) -> bool:
        """Whether it can be judged only when clients have had the time to come back."""
        return self.reconnect is not None or self.stragglers is not None


@dataclass(frozen=True, slots=True)
class Pacing:
    """How a cutover is to be divided; the default is everything at once.

    Attributes:
        percents: where stages end, in percent of the moved ids, ascending; the rest is one more stage.
        ids_per_stage: stages of so many ids instead; 0 for none.
        bake_s: how long a stage is left alone before the next.
        sessions_per_s: most sessions that one losing unit closes per second, on average; 0 for no limit.
        interval_s: the time that a batch of a paced drain is sized for.
    """

    percents: tuple[float, ...] = ()
    ids_per_stage: int = 0
    bake_s: float = 0.0
    gate: Gate = field(default_factory=Gate)
    on_failure: OnFailure = OnFailure.PAUSE
    sessions_per_s: float = 0.0
    interval_s: float = INTERVAL_S

    @property
    def divides(self) -> bool:
        """Whether the cutover may have more than one batch."""
        return bool(self.percents or self.ids_per_stage or self.sessions_per_s)


@dataclass(frozen=True, slots=True)
class Slice:
    """Ids that are never torn apart, and how many live sessions they have."""

    moved: MovedRange
    sessions: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What moves at once.

    Attributes:
        stage: index of the stage that it is a part of.
        closes: sessions counted at each losing unit; empty where nobody counted.
        brings: the same sessions by the unit that gains them.
    """

    moved: MovedIds
    stage: int
    closes: Mapping[str, int] = field(default_factory=dict)
    brings: Mapping[str, int] = field(default_factory=dict)


# -- stages --------------------------------------------------------------------------------------------------


def stages(moved: MovedIds, pacing: Pacing) -> tuple[MovedIds, ...]:
    """The moved set in the stages that were asked for; never an empty one."""
    if not moved:
        return ()
    if pacing.ids_per_stage:
        return sliced(moved, even_sizes(moved.count, pacing.ids_per_stage))
    return sliced(moved, sizes_of(moved.count, pacing.percents))


def sizes_of(count: int, percents: Sequence[float]) -> list[int]:
    """How many ids each stage has; a stage that would have none is left out.

    Args:
        percents: cumulative and ascending; a stage that is asked for has at least one id if any is left.
    """
    sizes: list[int] = []
    for percent in percents:
        size = min(count, math.ceil(count * percent / 100)) - sum(sizes)
        if size > 0:
            sizes.append(size)
    rest = count - sum(sizes)
    return [*sizes, rest] if rest else sizes


def even_sizes(count: int, size: int) -> list[int]:
    """Stages of ``size`` ids, the last with what is left; not more than :data:`BATCHES_LIMIT`."""
    size = max(size, math.ceil(count / BATCHES_LIMIT))
    whole, rest = divmod(count, size)
    return [size] * whole + ([rest] if rest else [])


# -- drain pacing --------------------------------------------------------------------------------------------


def to_count(parts: Sequence[MovedIds], limit: int = SLICES_LIMIT) -> list[list[MovedRange]]:
    """The ranges in which sessions are to be counted, by stage: single ids where these are not too many."""
    ids = sum(part.count for part in parts)
    width = max(1, math.ceil(ids / limit))
    return [[piece for move in part for piece in _pieces(move, width)] for part in parts]


def _pieces(move: MovedRange, width: int) -> Iterable[MovedRange]:
    for start in range(move.start, move.end, width):
        yield MovedRange(start, min(start + width, move.end), move.losing, move.gaining)


def paced(
    parts: Sequence[Sequence[Slice]],
    sessions_per_s: float,
    interval_s: float,
    accepts_per_s: Mapping[str, float],
) -> tuple[tuple[Batch, ...], float]:
    """The batches of all stages, and the interval they are sized for.

    No batch closes more sessions of a losing unit than ``sessions_per_s`` times the interval, or brings a
    gaining unit more than it accepts in that time; unless a single slice has more, which then goes without
    another of its units. The interval grows where there would be more than :data:`BATCHES_LIMIT` batches.

    Args:
        parts: the slices of each stage.
        accepts_per_s: measured capacity by gaining unit; a unit that is missing is not capped.
    """
    while True:
        most = max(1, math.floor(sessions_per_s * interval_s))
        caps = {
            unit: max(1, math.floor(min(rate, sessions_per_s) * interval_s))
            for unit, rate in accepts_per_s.items()
        }
        batches = tuple(
            batch for index, slices in enumerate(parts) for batch in _cut(slices, index, most, caps)
        )
        if len(batches) <= max(BATCHES_LIMIT, len(parts)):
            return batches, interval_s
        interval_s *= 2


def _cut(slices: Sequence[Slice], stage: int, most: int, caps: Mapping[str, int]) -> Iterable[Batch]:
    """One stage; every pair of units gives from its own queue, so that units drain side by side."""
    queues: dict[tuple[str, str], list[Slice]] = {}
    for one in reversed(slices):
        queues.setdefault((one.moved.losing, one.moved.gaining), []).append(one)
    while any(queues.values()):
        taken: list[Slice] = []
        closes: dict[str, int] = {}
        brings: dict[str, int] = {}
        for (losing, gaining), queue in sorted(queues.items()):
            while (
                queue
                and _fits(queue[-1].sessions, closes.get(losing, 0), most)
                and (gaining not in caps or _fits(queue[-1].sessions, brings.get(gaining, 0), caps[gaining]))
            ):
                one = queue.pop()
                taken.append(one)
                closes[losing] = closes.get(losing, 0) + one.sessions
                brings[gaining] = brings.get(gaining, 0) + one.sessions
        yield Batch(joined(one.moved for one in taken), stage, closes, brings)


def _fits(sessions: int, so_far: int, most: int) -> bool:
    """Whether they may go along; what is too large by itself goes where it has no company."""
    return sessions == 0 or so_far == 0 or so_far + sessions <= most


def joined(moves: Iterable[MovedRange]) -> MovedIds:
    """The ranges as a moved set, neighbours of one pair of units in one."""
    rows: list[MovedRange] = []
    for move in sorted(moves):
        last = rows[-1] if rows else None
        if last and last.end == move.start and (last.losing, last.gaining) == (move.losing, move.gaining):
            rows[-1] = MovedRange(last.start, move.end, move.losing, move.gaining)
        else:
            rows.append(move)
    return MovedIds(tuple(rows))


def rest_s(
    closed: Mapping[str, int],
    brought: Mapping[str, int],
    sessions_per_s: float,
    accepts_per_s: Mapping[str, float],
) -> float:
    """How long after a batch's FREEZE the next one begins, so that on average no rate is exceeded, in s."""
    if not sessions_per_s:
        return 0.0
    losing = [count / sessions_per_s for count in closed.values()]
    gaining = [
        count / max(1.0, min(accepts_per_s[unit], sessions_per_s))
        for unit, count in brought.items()
        if unit in accepts_per_s
    ]
    return max([*losing, *gaining], default=0.0)


# -- health --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of the gaining units since a stage began.

    Attributes:
        answered, refused: handshakes of the gaining units.
        tried, unanswered: handshakes given to back-sources, and those that got no 101.
        closed: sessions closed so long ago that their clients should be back.
        back: sessions that have come back.
        silent: gaining units without a node that is connected.
    """

    answered: int = 0
    refused: int = 0
    tried: int = 0
    unanswered: int = 0
    closed: int = 0
    back: int = 0
    silent: tuple[str, ...] = ()


class Measure(StrEnum):
    """What a gate looks at."""

    REFUSED = "refused"
    BACK_SOURCE = "back_source"
    RECONNECT = "reconnect"
    STRAGGLERS = "stragglers"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Failing:
    """One limit that is not kept.

    Attributes:
        count, of: the figures, as 3 of 20 handshakes; `of` is 0 where there is no such whole.
        limit: the share or number asked for.
    """

    measure: Measure
    count: int
    of: int = 0
    limit: float = 0.0
    units: tuple[str, ...] = ()


def failing(gate: Gate, seen: Seen) -> list[Failing]:
    """The limits that are not kept, the worst kind first; empty where all is well."""
    found = []
    if seen.silent:
        found.append(Failing(Measure.SILENT, len(seen.silent), units=seen.silent))
    if gate.refused is not None and seen.refused > gate.refused * seen.answered:
        found.append(Failing(Measure.REFUSED, seen.refused, seen.answered, gate.refused))
    if gate.back_source is not None and seen.unanswered > gate.back_source * seen.tried:
        found.append(Failing(Measure.BACK_SOURCE, seen.unanswered, seen.tried, gate.back_source))
    if gate.reconnect is not None and seen.back < gate.reconnect * seen.closed:
        found.append(Failing(Measure.RECONNECT, seen.back, seen.closed, gate.reconnect))
    missing = max(0, seen.closed - seen.back)
    if gate.stragglers is not None and missing > gate.stragglers:
        found.append(Failing(Measure.STRAGGLERS, missing, seen.closed, gate.stragglers))
    return found
