"""What is seen of a running cutover: acks as they come, sessions closed, remaining and reconnected.

Everything is derived from the rows that the control stream keeps, so that nothing is lost by a restart of the
console; `observe` only notes what changed since it last looked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cutover.models import Cutover, CutoverEvent, ProgressSample
from msha.steering import wire
from msha.steering.phases import Phase
from msha.steering.ranges import MovedIds
from units.models import EdgeNode

#: The curve of a cutover has a point about this often, while there is anything to see.
SAMPLE_EVERY = timedelta(milliseconds=250)
#: Clients come back within their own retry time, long after the last step; they are counted this long.
WATCHED_AFTER_END = timedelta(seconds=30)
#: Nodes report what they closed with their next status, so within a second of the end.
SETTLES_WITHIN = timedelta(seconds=3)

State = Cutover.State

Figures = dict[str, Any]


def begun(now: datetime) -> Figures:
    """The figures of a cutover that starts now."""
    return {
        "sessions_closed": 0,
        "sessions_remaining": 0,
        "reconnected": 0,
        "frozen_ms": None,
        "freezes": [],
        "started": now.isoformat(),
    }


@dataclass(frozen=True, slots=True)
class News:
    """What nodes have said since the last look.

    Attributes:
        figures: those of the cutover with the news in them.
        events: acks, drains and the like, not stored yet.
        counted: whether numbers of sessions changed.
    """

    figures: Figures
    events: list[CutoverEvent]
    counted: bool

    def __bool__(self) -> bool:
        return bool(self.events) or self.counted


def news(cutover: Cutover, nodes: Sequence[EdgeNode], now: datetime) -> News:
    """What is new in the rows of the nodes; nothing is stored."""
    figures = dict(cutover.figures)
    return News(figures, _reports(cutover, nodes, figures, now), _count(cutover, nodes, figures))


def observe(cutover: Cutover, nodes: Sequence[EdgeNode], now: datetime) -> bool:
    """Whether there was news; it is stored: events for the timeline, figures, a point of the curve.

    Call it under the namespace's lock while the cutover is active; after its end nothing is judged any more.
    """
    found = news(cutover, nodes, now)
    CutoverEvent.objects.bulk_create(found.events)
    if found.counted and cutover.state != Cutover.State.PREPARE:  # nothing is closed before FREEZE
        _sample(cutover, nodes, found.figures, now)
    if found:
        cutover.figures = found.figures
        Cutover.objects.filter(pk=cutover.pk).update(figures=found.figures)
    return bool(found)


def _reports(
    cutover: Cutover, nodes: Sequence[EdgeNode], figures: Figures, now: datetime
) -> list[CutoverEvent]:
    """Events for the nodes that acked, drained or lost their workers in the running step."""
    if not cutover.active or cutover.state == Cutover.State.STARTING:
        return []
    epoch = cutover.epoch
    seen = figures.get("seen", {})
    if seen.get("epoch") != epoch:
        seen = {"epoch": epoch}
    moved = MovedIds.from_lists(cutover.moved)
    losing = moved.gaining_units if cutover.turned else moved.losing_units
    freezing = cutover.state == Cutover.State.FREEZE
    events = []
    for kind, reached in (
        ("acked", lambda node: node.applied_epoch >= epoch),
        ("drained", lambda node: freezing and node.drained_epoch >= epoch and node.unit.code in losing),
        ("exited", lambda node: node.workers_exited_epoch >= epoch),
        ("parked", lambda node: node.parked),
    ):
        known = set(seen.get(kind, []))
        new = [node for node in nodes if node.name not in known and reached(node)]
        if not new:
            continue
        seen = {**seen, kind: sorted(known | {node.name for node in new})}
        for node in new:
            data = {"node": node.name, "unit": node.unit.code, "epoch": epoch, "step": cutover.state}
            events.append(CutoverEvent(cutover=cutover, kind=kind, data=data, at=now))
    figures["seen"] = seen
    return events


def _count(cutover: Cutover, nodes: Sequence[EdgeNode], figures: Figures) -> bool:
    """The figures follow what the nodes report of this cutover.

    A node that starts again counts from zero; what it said before is not taken back.
    """
    key = wire.progress_key(str(cutover.pk))
    before: dict[str, dict[str, int]] = figures.get("nodes", {})
    reported = dict(before)
    for node in nodes:
        said = node.phase_progress or {}
        if said.get("cutover") != key:
            continue
        known = before.get(node.name, {})
        reported[node.name] = {
            "epoch": int(said.get("epoch", 0)),
            "closed": max(int(said.get("closed", 0)), known.get("closed", 0)),
            "remaining": int(said.get("remaining", 0)),
            "reconnected": max(int(said.get("reconnected", 0)), known.get("reconnected", 0)),
        }
    if reported == before:
        return False
    figures["nodes"] = reported
    for name, count in (
        ("sessions_closed", "closed"),
        ("sessions_remaining", "remaining"),
        ("reconnected", "reconnected"),
    ):
        figures[name] = sum(counts[count] for counts in reported.values())
    return True


def remaining(cutover: Cutover, nodes: Sequence[EdgeNode], figures: Figures) -> int | None:
    """How many sessions are still open on moved ids; None where nobody has counted them.

    A node counts what it must close when it applies FREEZE, and says 0 before; until every losing node has
    said more, what the preview counted stands in for it.
    """
    reported: int = figures.get("sessions_remaining", 0)
    if not _unheard(cutover, nodes, figures) and not _more_to_come(cutover):
        return reported
    known = bool(cutover.impact) and not cutover.impact.get("uncounted")
    return _at_least(cutover, figures) if known or reported else None


def _more_to_come(cutover: Cutover) -> bool:
    """Whether batches follow; nodes report what is left of the present one alone."""
    forward = cutover.active and not cutover.turned and not cutover.unwinding
    return forward and 0 < cutover.batch + 1 < len(cutover.plan.get("batches", []))


def _unheard(cutover: Cutover, nodes: Sequence[EdgeNode], figures: Figures) -> bool:
    """Whether a losing node has yet to say how many sessions it closes; none can be left after FREEZE."""
    if cutover.turns or cutover.state in (State.ACTIVATE, State.RELEASE, State.DONE):
        return False
    losing = MovedIds.from_lists(cutover.moved).losing_units
    freeze = cutover.events.filter(kind=Phase.FREEZE).order_by("at", "pk").first()
    said = figures.get("nodes", {})

    def told(node: EdgeNode) -> bool:
        counts = said.get(node.name, {})
        late = freeze is not None and counts.get("epoch", -1) >= freeze.data["epoch"]
        return bool(late or counts.get("closed") or counts.get("remaining"))

    return any(node.unit.code in losing and not told(node) for node in nodes)


def _at_least(cutover: Cutover, figures: Figures) -> int:
    closed, reported = figures.get("sessions_closed", 0), figures.get("sessions_remaining", 0)
    return max(reported, expected(cutover) - closed)


def expected(cutover: Cutover) -> int:
    """How many sessions of moved ids the preview counted."""
    return sum(count for _, _, count in cutover.impact.get("pairs", []))


def _sample(cutover: Cutover, nodes: Sequence[EdgeNode], figures: Figures, now: datetime) -> None:
    last = list(cutover.samples.order_by("-at").values_list("at", flat=True)[:2])
    point = _point(cutover, nodes, figures)
    if len(last) == 2 and now - last[0] < SAMPLE_EVERY:
        # The newest point follows the counts, so that the curve ends where the figures do; the first stays.
        cutover.samples.filter(at=last[0]).update(**point)
        return
    ProgressSample.objects.create(cutover=cutover, at=now, **point)


def begin_curve(cutover: Cutover, now: datetime) -> None:
    """The curve has its first point, where nothing is closed yet; the preview counted what remains."""
    ProgressSample.objects.create(cutover=cutover, at=now, remaining=expected(cutover))


def _point(cutover: Cutover, nodes: Sequence[EdgeNode], figures: Figures) -> dict[str, int]:
    left = remaining(cutover, nodes, figures)
    return {
        "closed": figures["sessions_closed"],
        "remaining": _at_least(cutover, figures) if left is None else left,
        "reconnected": figures["reconnected"],
    }


def frozen_since(figures: Figures, now: datetime) -> None:
    """Ids are frozen from now on; a freeze that runs already goes on."""
    figures.setdefault("frozen_from", now.isoformat())


def thawed(cutover: Cutover, figures: Figures, now: datetime) -> None:
    """The running freeze, if there is one, is over.

    From just before the FREEZE was committed to when the console knew the last answer that ends it: an upper
    bound of what any client saw, on the console's clock alone.
    """
    since = figures.pop("frozen_from", None)
    if since is None:
        return
    ms = round((now - datetime.fromisoformat(since)).total_seconds() * 1000)
    freeze = {"batch": cutover.batch, "turns": cutover.turns, "from": since, "ms": ms}
    figures["freezes"] = [*figures.get("freezes", []), freeze]
    figures["frozen_ms"] = max(entry["ms"] for entry in figures["freezes"])


def frozen_so_far(figures: Figures, now: datetime) -> int | None:
    """How many ms ids are frozen by now in the running freeze; None while none are."""
    since = figures.get("frozen_from")
    if since is None:
        return None
    return max(0, round((now - datetime.fromisoformat(since)).total_seconds() * 1000))
