"""The state of a cutover as one JSON value: for pages, the live socket, the API and `mshactl`."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.utils import timezone

from cutover import alarms, plans, progress, rules, sentences
from cutover.batches import batches
from cutover.consequences import consequences, of_mode, possible
from cutover.drafts import has_moved
from cutover.hooks import shown as hooks
from cutover.losing import losing_units
from cutover.models import Check, Cutover
from cutover.pacing import sentences as pace
from cutover.pacing import shown
from cutover.prechecks import BY_KEY
from cutover.previews import command
from cutover.safety import approval, assessing
from msha.steering import phases
from msha.steering.phases import Phase
from msha.steering.ranges import MovedIds
from units.models import Alarm, EdgeNode

State = Cutover.State

Status = dict[str, Any]

#: The wizard's curve needs no more points than it has pixels.
SAMPLES_LIMIT = 600
EVENTS_LIMIT = 500


def status(cutover: Cutover) -> Status:
    """Everything that is known of the cutover now; fit for JSON.

    ``phase`` is the state's word, ``settled`` says that the figures will hardly change any more, ``actions``
    which acts would be accepted.
    """
    cutover = Cutover.objects.select_related("namespace", "rollback_of").get(pk=cutover.pk)
    moved = MovedIds.from_lists(cutover.moved)
    figures = cutover.figures
    nodes = plans.enrolled_nodes(cutover.namespace_id)
    judged = waiting_for(cutover, nodes)
    now = timezone.now()
    return {
        "id": cutover.pk,
        "number": cutover.number,
        "namespace": cutover.namespace.name,
        "unit_type": cutover.unit_type,
        "kind": cutover.kind,
        "asked": sentences.asked(cutover),
        "phase": cutover.state,
        "phase_title": str(cutover.get_state_display()),
        "direction": "backward" if cutover.turned else "forward",
        "turns": cutover.turns,
        "batch": cutover.batch,
        "batches": max(1, len(cutover.plan.get("batches", []))),
        "batch_list": [batch.as_dict() for batch in batches(cutover)],
        "epoch": cutover.epoch,
        "moved_ids": moved.count,
        "moved": [
            {
                "range": f"{move.start}~{move.end - 1}",
                "losing": move.losing,
                "gaining": move.gaining,
                "ids": move.end - move.start,
            }
            for move in moved
        ],
        "moved_text": moved.text(),
        "old": _table(cutover.old_rule),
        "new": _table(cutover.new_rule),
        "command": command(cutover),
        "sessions_expected": progress.expected(cutover),
        "sessions_closed": figures.get("sessions_closed", 0),
        "sessions_remaining": progress.remaining(cutover, nodes, figures),
        "reconnected": figures.get("reconnected", 0),
        "frozen_ms": figures.get("frozen_ms"),
        "frozen_now_ms": progress.frozen_so_far(figures, now),
        "freezes": figures.get("freezes", []),
        "waiting": sentences.waiting(judged[0], judged[1]) if judged else "",
        "missing": list(judged[1]) if judged else [],
        "alarm": _alarm(cutover),
        "outcome": sentences.outcome(cutover),
        "ending": figures.get("ending"),
        "stragglers": figures.get("ended", {}).get("stragglers", []),
        "reason": cutover.reason,
        "created_by": cutover.created_by,
        "started_by": cutover.started_by,
        "rollback_of": cutover.rollback_of.number if cutover.rollback_of else None,
        "started_at": _iso(cutover.started_at),
        "phase_at": _iso(cutover.phase_at),
        "ended_at": _iso(cutover.ended_at),
        "now": _iso(now),
        "settled": _settled(cutover, nodes),
        "held": sentences.held(cutover.hold),
        "paused": cutover.paused,
        "paused_by": cutover.paused_by,
        "hold": cutover.hold,
        "baking_since": _iso(cutover.baking_since),
        "unwinding": cutover.unwinding,
        "mode": cutover.mode,
        "losing": [unit.as_dict() for unit in losing_units(cutover)] if cutover.emergency else [],
        "pacing": cutover.pacing,
        "pacing_said": pace.said(cutover.pacing),
        "batches_detail": shown.batches_of(cutover),
        "actions": actions(cutover),
        "consequences": consequences(cutover),
        "findings": [asdict(finding) for finding in assessing.shown(cutover)],
        "overrides": assessing.told(cutover),
        "approval": approval.status(cutover),
        "checks": [_check(check) for check in cutover.checks.all()],
        "events": [
            {"at": _iso(row.at), "kind": row.kind, "data": row.data, "sentence": sentences.event(row)}
            for row in cutover.events.order_by("at", "pk")[:EVENTS_LIMIT]
        ],
        "samples": _samples(cutover),
        "hooks": hooks.calls(cutover),
        "nodes": _nodes(cutover, moved, nodes),
    }


def summary(cutover: Cutover) -> Status:
    """One line of a list of cutovers; fit for JSON."""
    return {
        "id": cutover.pk,
        "number": cutover.number,
        "unit_type": cutover.unit_type,
        "phase": cutover.state,
        "moved_ids": MovedIds.from_lists(cutover.moved).count,
        "created_by": cutover.created_by,
        "started_by": cutover.started_by,
        "started_at": _iso(cutover.started_at),
        "ended_at": _iso(cutover.ended_at),
        "outcome": sentences.outcome(cutover),
    }


def actions(cutover: Cutover) -> dict[str, bool]:
    """Which acts the present state allows; permissions are another matter."""
    state = cutover.state
    return {
        "edit": state in Cutover.BEFORE,
        "preview": state in Cutover.BEFORE,
        "check": state in (State.PREVIEWED, State.CHECKING, State.CHECKED),
        "start": state == State.CHECKED,
        "discard": state in Cutover.BEFORE,
        **possible(cutover),
        **of_mode(cutover),
        "rollback": has_moved(cutover),
    }


def waiting_for(
    cutover: Cutover, nodes: Sequence[EdgeNode] | None = None
) -> tuple[phases.Step, tuple[str, ...]] | None:
    """The running step and what it waits for, or None; `nodes` are read unless given."""
    if cutover.state not in plans.PHASE_OF:
        return None
    if nodes is None:
        nodes = plans.enrolled_nodes(cutover.namespace_id)
    step = plans.step_of(cutover)
    verdict = phases.judge(plans.plan_of(cutover), step, cutover.epoch, plans.views(nodes), 0.0)
    return step, verdict.missing


def _settled(cutover: Cutover, nodes: Sequence[EdgeNode]) -> bool:
    """Whether the cutover has ended and every losing node has reported how many sessions it closed."""
    if not cutover.ended:
        return False
    if cutover.ended_at is None or timezone.now() - cutover.ended_at > progress.SETTLES_WITHIN:
        return True
    freezes = cutover.events.filter(kind=Phase.FREEZE).values_list("data", flat=True)
    epochs = [data["epoch"] for data in freezes]
    if not epochs:
        return True
    moved = MovedIds.from_lists(cutover.moved)
    closing = moved.losing_units | (moved.gaining_units if cutover.turns else frozenset())
    reported = cutover.figures.get("nodes", {})
    return not cutover.figures.get("sessions_remaining") and all(
        reported.get(node.name, {}).get("epoch", -1) >= max(epochs)
        for node in nodes
        if node.live and node.unit.code in closing
    )


def _alarm(cutover: Cutover) -> str | None:
    alarm = Alarm.objects.filter(
        namespace=cutover.namespace_id,
        kind__startswith="cutover_",
        subject=f"#{cutover.number}",
        cleared_at=None,
    ).first()
    return alarms.said(alarm) if alarm else None


def _table(rule: rules.UnitTypeDict) -> dict[str, Any]:
    return {"ranges": rule.get("ranges", {}), "exact": rule.get("exact", {})}


def _check(check: Check) -> dict[str, Any]:
    known = BY_KEY.get(check.key)
    return {
        "key": check.key,
        "title": str(known.title) if known else check.title,
        "state": check.state,
        "amber": check.amber,
        "reason": check.said,
        "attempt": check.attempt,
        "skippable": known is not None and known.skippable,
        "skipped_by": check.skipped_by,
        "skip_reason": check.skip_reason,
        "ms": _ms_between(check.started, check.finished),
    }


def _samples(cutover: Cutover) -> list[dict[str, int]]:
    """The curve: ``ms`` since the start, and the three counts."""
    began = cutover.started_at or cutover.created
    points = cutover.samples.order_by("at", "pk")[:SAMPLES_LIMIT]
    return [
        {
            "ms": _ms_between(began, point.at) or 0,
            "closed": point.closed,
            "remaining": point.remaining,
            "reconnected": point.reconnected,
        }
        for point in points
    ]


def _nodes(cutover: Cutover, moved: MovedIds, nodes: Sequence[EdgeNode]) -> list[dict[str, Any]]:
    """The nodes that the gates look at, losing ones first."""
    order = {"losing": 0, "gaining": 1, "both": 1, "bystander": 2}
    rows = [_node(cutover, node, _role(node.unit.code, moved)) for node in nodes]
    return sorted(rows, key=lambda row: (order[row["role"]], row["name"]))


def _role(unit: str, moved: MovedIds) -> str:
    losing, gaining = unit in moved.losing_units, unit in moved.gaining_units
    if losing and gaining:
        return "both"
    return "losing" if losing else "gaining" if gaining else "bystander"


def _node(cutover: Cutover, node: EdgeNode, role: str) -> dict[str, Any]:
    counts = cutover.figures.get("nodes", {}).get(node.name, {})
    return {
        "pk": node.pk,
        "name": node.name,
        "unit": node.unit.code,
        "cluster": node.cluster.name if node.cluster else "",
        "role": role,
        "live": node.live,
        "acked": cutover.epoch > 0 and node.applied_epoch >= cutover.epoch,
        "drained": cutover.epoch > 0 and node.drained_epoch >= cutover.epoch,
        "parked": node.parked,
        "version": node.applied_version,
        "sessions": node.sessions,
        "closed": counts.get("closed", 0),
        "reconnected": counts.get("reconnected", 0),
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _ms_between(start: datetime | None, end: datetime | None) -> int | None:
    return round((end - start).total_seconds() * 1000) if start and end else None
