"""The batches of a cutover, each with what has become of it; told from the timeline, so for ever."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.utils.translation import gettext_lazy as _

from cutover.models import Cutover, CutoverEvent
from msha.steering.phases import Phase
from msha.steering.ranges import MovedIds


class BatchState(StrEnum):
    """Where the ids of a batch are."""

    WAITING = "waiting"  # at their old owners; their turn is to come
    MOVING = "moving"  # frozen, or being accepted by their new owners
    MOVED = "moved"
    GOING_BACK = "going_back"
    BACK = "back"  # at their old owners again
    LEFT = "left"  # at their old owners, and their turn never comes


TITLES: dict[BatchState, Any] = {
    BatchState.WAITING: _("waits for its turn"),
    BatchState.MOVING: _("moving"),
    BatchState.MOVED: _("moved"),
    BatchState.GOING_BACK: _("going back"),
    BatchState.BACK: _("back at its old owner"),
    BatchState.LEFT: _("never moved"),
}

_STATE_IN = {
    (Phase.FREEZE, False): BatchState.MOVING,
    (Phase.ACTIVATE, False): BatchState.MOVING,
    (Phase.RELEASE, False): BatchState.MOVED,
    (Phase.FREEZE, True): BatchState.GOING_BACK,
    (Phase.ACTIVATE, True): BatchState.GOING_BACK,
    (Phase.RELEASE, True): BatchState.BACK,
    (Phase.ABORT, False): BatchState.BACK,
    (Phase.ABORT, True): BatchState.BACK,
}


@dataclass(frozen=True, slots=True)
class Batch:
    """One slice of the moved ids.

    Attributes:
        number: from 1.
        began, settled: when its first FREEZE, and the last RELEASE or ABORT of it, was published.
        frozen_ms: how long its ids were held at most, both ways added; None before the first freeze is over.
    """

    number: int
    moved: MovedIds
    state: BatchState
    began: datetime | None = None
    settled: datetime | None = None
    frozen_ms: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            "number": self.number,
            "ids": self.moved.count,
            "text": self.moved.text(),
            "state": str(self.state),
            "state_title": str(TITLES[self.state]),
            "began": self.began.isoformat() if self.began else None,
            "settled": self.settled.isoformat() if self.settled else None,
            "frozen_ms": self.frozen_ms,
        }


def batches(cutover: Cutover) -> list[Batch]:
    """The batches of a cutover that has started, in their order; empty where no id moves."""
    events = list(cutover.events.filter(kind__in=[str(phase) for phase in Phase]).order_by("at", "pk"))
    return [
        _batch(
            cutover, index, MovedIds.from_lists(rows), [e for e in events if e.data.get("batch", 0) == index]
        )
        for index, rows in enumerate(cutover.plan.get("batches", []))
    ]


def kept(cutover: Cutover) -> MovedIds:
    """The ids that a cutover has left with their new owners: all of it, or of the batches that have moved."""
    moved = [one.moved for one in batches(cutover) if one.state is BatchState.MOVED]
    return MovedIds.from_lists(sorted(row for part in moved for row in part.as_lists()))


def _batch(cutover: Cutover, index: int, moved: MovedIds, events: list[CutoverEvent]) -> Batch:
    steps = [event for event in events if event.kind != Phase.PREPARE]
    freezes = [event.at for event in steps if event.kind == Phase.FREEZE]
    frozen = [entry["ms"] for entry in cutover.figures.get("freezes", []) if entry["batch"] == index]
    over = cutover.ended or cutover.unwinding
    if not steps:
        return Batch(index + 1, moved, BatchState.LEFT if over else BatchState.WAITING)
    last = steps[-1]
    state = _STATE_IN[Phase(last.kind), last.data.get("turns", 0) % 2 == 1]
    settled = last.at if last.kind in (Phase.RELEASE, Phase.ABORT) else None
    if state is BatchState.BACK and not freezes:  # aborted before it was frozen: it was never away
        state = BatchState.LEFT
    return Batch(
        index + 1,
        moved,
        state,
        freezes[0] if freezes else None,
        settled,
        sum(frozen) if frozen else None,
    )
