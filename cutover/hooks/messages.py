"""What a hook is told: the JSON body of its calls, fixed when the call is first wanted."""

from typing import Any

from cutover.models import Cutover, Hook, HookRun
from msha.steering import phases
from msha.steering.phases import Plan, Step
from msha.steering.ranges import MovedIds

Body = dict[str, Any]

#: Of the body's form; receivers may refuse one that they do not know.
FORM = 1


def about(cutover: Cutover, plan: Plan, step: Step, hook: Hook, *, outcome: str = "") -> Body:
    """What every call of one run says, from the diff of the batch and direction that moves.

    Ranges are inclusive and hold every moved id; ``exact_ids`` are those among them that the rule names one
    by one, before or after.
    """
    moving = plan.moving(step)
    named = _named(plan, moving)
    return {
        "form": FORM,
        "hook": hook.name,
        "moment": hook.moment,
        "outcome": outcome,
        "namespace": cutover.namespace.name,
        "cutover": cutover.number,
        "unit_type": plan.unit_type,
        "batch": step.batch + 1,
        "batches": max(1, len(plan.batches)),
        "turns": step.turns,
        "direction": "back" if step.backwards else "forward",
        "epoch": cutover.epoch,
        "must_succeed": hook.must_succeed,
        "practice": False,
        "reading_changes": phases.reads_differently(plan.old, plan.new),
        "moved_ids": moving.count,
        "moved": grouped(moving, named),
    }


def grouped(moving: MovedIds, named: frozenset[int] = frozenset()) -> list[Body]:
    """The moved ids by losing and gaining unit."""
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for move in moving:
        groups.setdefault((move.losing, move.gaining), []).append((move.start, move.end))
    return [
        {
            "losing": losing,
            "gaining": gaining,
            "ids": sum(end - start for start, end in rows),
            "ranges": [[start, end - 1] for start, end in rows],
            "exact_ids": sorted(one for one in named if any(start <= one < end for start, end in rows)),
        }
        for (losing, gaining), rows in sorted(groups.items())
    ]


def _named(plan: Plan, moving: MovedIds) -> frozenset[int]:
    ids = [one for rule in (plan.old, plan.new) for owned in rule.get("exact", {}).values() for one in owned]
    return frozenset(one for one in ids if moving.contains(one))


def of_call(run: HookRun) -> Body:
    """The body of the call that the run was claimed for."""
    return {**run.told, "id": str(run.key), "attempt": run.calls, "practice": run.practice}
