"""What keeps the next batch back: a failing health of the gaining units, a bake, the pace of the drain."""

from dataclasses import asdict
from datetime import datetime, timedelta

from cutover import plans
from cutover.holds import Hold, Then, opens_a_batch
from cutover.models import Cutover
from cutover.pacing import health as observed
from cutover.pacing.asked import pacing_of
from cutover.pacing.planning import stage_of
from cutover.situation import Situation
from msha.steering.pacing import OnFailure, Pacing, failing, rest_s
from msha.steering.phases import Step


def health(situation: Situation, to: Step) -> Hold | None:
    """A gate that fails pauses the cutover or undoes it, unless an operator has resumed it all the same."""
    cutover = situation.cutover
    if not _follows_a_batch(to) or cutover.figures.get("gate_waived") == to.batch:
        return None
    pacing = pacing_of(cutover)
    seen = observed.seen(cutover, pacing.gate, plans.enrolled_nodes(cutover.namespace_id), situation.now)
    found = failing(pacing.gate, seen)
    if not found:
        return None
    facts = {
        "batch": to.batch,
        "batches": len(situation.plan.batches),
        "failing": [{**asdict(one), "measure": str(one.measure), "units": list(one.units)} for one in found],
    }
    return Hold("health", facts, Then.UNDO if pacing.on_failure is OnFailure.UNDO else Then.PAUSE)


def baking(situation: Situation, to: Step) -> Hold | None:
    """A stage is left alone for its bake, and until its clients have had the time to come back."""
    cutover = situation.cutover
    if not _follows_a_batch(to) or stage_of(cutover, to.batch) == stage_of(cutover, to.batch - 1):
        return None
    until = baked_at(cutover, pacing_of(cutover), situation.now)
    if situation.now >= until:
        return None
    return Hold("baking", {"batch": to.batch, "until": until.isoformat()})


def pace(situation: Situation, to: Step) -> Hold | None:
    """A batch begins when the sessions that the last one closed are within the rate."""
    cutover = situation.cutover
    pacing, began = pacing_of(cutover), cutover.figures.get("batch_began")
    if not _follows_a_batch(to) or not pacing.sessions_per_s or began is None:
        return None
    nodes = plans.enrolled_nodes(cutover.namespace_id)
    rest = rest_of(cutover, to.batch - 1, observed.closed_in_batch(cutover, nodes))
    until = datetime.fromisoformat(began["at"]) + timedelta(seconds=rest)
    if situation.now >= until:
        return None
    return Hold("pace", {"batch": to.batch, "until": until.isoformat(), "rate": pacing.sessions_per_s})


def rest_of(cutover: Cutover, batch: int, closed: dict[str, int]) -> float:
    """How long after its FREEZE the next batch begins, in s: by the sessions counted, or more if it has
    closed more.
    """
    stored = cutover.plan.get("pace", {})
    planned: dict[str, int] = (stored.get("closes") or [{}])[batch] if stored.get("closes") else {}
    brings: dict[str, int] = stored["brings"][batch] if planned else {}
    more = max([1.0, *(closed.get(unit, 0) / count for unit, count in planned.items() if count)])
    return rest_s(
        {unit: max(count, closed.get(unit, 0)) for unit, count in planned.items()},
        {unit: round(count * more) for unit, count in brings.items()},
        pacing_of(cutover).sessions_per_s,
        stored.get("accepts", {}),
    )


def baked_at(cutover: Cutover, pacing: Pacing, now: datetime) -> datetime:
    """When the bake of the last finished stage is over."""
    seconds = pacing.bake_s
    closed = cutover.figures.get("sessions_closed", 0)
    if pacing.gate.looks_at_clients and closed > cutover.figures.get("stage_began", {}).get("closed", 0):
        seconds = max(seconds, pacing.gate.retry_s)
    return (cutover.baking_since or now) + timedelta(seconds=seconds)


def _follows_a_batch(to: Step) -> bool:
    return opens_a_batch(to) and to.batch > 0
