"""What is seen of the gaining units since a stage began, from what nodes report and the curve of the cutover.

The counters of a node never go down while it runs; one that starts again counts from zero, and then what it
says is all since then.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cutover.models import Cutover
from cutover.pacing.planning import stage_of
from msha.steering.pacing import Gate, Seen
from msha.steering.ranges import MovedIds
from units.models import EdgeNode

Figures = dict[str, Any]

#: What is kept of a node's counters.
_COUNTERS = (
    "handshakes",
    "decision_http",
    "decision_refuse",
    "decision_tunnel",
    "reason_back_source_failed",
    "reason_back_source_answer",
)


def begin_stage(
    cutover: Cutover, batch: int, figures: Figures, nodes: Sequence[EdgeNode], now: datetime
) -> None:
    """The figures say where all counts stood when the batch was frozen, and when its stage began."""
    figures["batch_began"] = {
        "batch": batch,
        "at": now.isoformat(),
        "closed": {name: counts.get("closed", 0) for name, counts in figures.get("nodes", {}).items()},
    }
    if batch and stage_of(cutover, batch) == stage_of(cutover, batch - 1):
        return
    gaining = MovedIds.from_lists(cutover.moved).gaining_units
    figures["stage_began"] = {
        "stage": stage_of(cutover, batch),
        "at": now.isoformat(),
        "closed": figures.get("sessions_closed", 0),
        "back": figures.get("reconnected", 0),
        "counters": {node.name: _kept(node.counters) for node in nodes if node.unit.code in gaining},
    }


def seen(cutover: Cutover, gate: Gate, nodes: Sequence[EdgeNode], now: datetime) -> Seen:
    """What the gate is judged by now."""
    began = cutover.figures.get("stage_began", {})
    gaining = MovedIds.from_lists(cutover.moved).gaining_units
    here = [node for node in nodes if node.unit.code in gaining]
    since = _summed(here, began.get("counters", {}))
    unanswered = since["reason_back_source_failed"] + since["reason_back_source_answer"]
    return Seen(
        answered=max(0, since["handshakes"] - since["decision_http"]),
        refused=max(0, since["decision_refuse"] - since["reason_back_source_failed"]),
        tried=since["decision_tunnel"] + since["reason_back_source_failed"],
        unanswered=unanswered,
        closed=max(0, _closed_by(cutover, now - timedelta(seconds=gate.retry_s)) - began.get("closed", 0)),
        back=max(0, cutover.figures.get("reconnected", 0) - began.get("back", 0)),
        silent=tuple(sorted(gaining - {node.unit.code for node in here if node.live})),
    )


def closed_in_batch(cutover: Cutover, nodes: Sequence[EdgeNode]) -> dict[str, int]:
    """How many sessions each unit has closed since the running batch was frozen."""
    before: Mapping[str, int] = cutover.figures.get("batch_began", {}).get("closed", {})
    units = {node.name: node.unit.code for node in nodes}
    closed: dict[str, int] = {}
    for name, counts in cutover.figures.get("nodes", {}).items():
        if name in units:
            more = max(0, counts.get("closed", 0) - before.get(name, 0))
            closed[units[name]] = closed.get(units[name], 0) + more
    return closed


def _closed_by(cutover: Cutover, moment: datetime) -> int:
    """How many sessions were closed by then, from the cutover's curve."""
    point = cutover.samples.filter(at__lte=moment).order_by("-at", "-pk").first()
    return point.closed if point is not None else 0


def _kept(counters: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(counters.get(name, 0)) for name in _COUNTERS}


def _summed(nodes: Sequence[EdgeNode], before: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The counters of all nodes since `before`; a node that was not there then has no part in it."""
    total = dict.fromkeys(_COUNTERS, 0)
    for node in nodes:
        if node.name not in before:
            continue
        now, then = _kept(node.counters), before[node.name]
        restarted = now["handshakes"] < then.get("handshakes", 0)
        for name in _COUNTERS:
            total[name] += now[name] if restarted else max(0, now[name] - then.get(name, 0))
    return total
