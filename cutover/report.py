"""The report of a cutover as one JSON value: who did what when, what was checked, and what it cost.

Made from stored rows each time it is read, so that it says the same for ever; sentences are in the language
of whoever reads it, everything else is data.
"""

from datetime import datetime
from typing import Any

from django.utils import timezone

from cutover import sentences
from cutover.batches import kept
from cutover.models import Cutover, Practice
from cutover.previews import stored_preview
from cutover.status import status
from msha.steering.phases import Phase
from units.models import Alarm

Report = dict[str, Any]

_PHASES = tuple(str(phase) for phase in Phase)

#: What a report takes from the status as it stands there.
_FROM_STATUS = (
    "number",
    "namespace",
    "unit_type",
    "phase",
    "phase_title",
    "outcome",
    "ending",
    "reason",
    "created_by",
    "started_by",
    "started_at",
    "ended_at",
    "rollback_of",
    "command",
    "checks",
    "nodes",
    "samples",
)


def report(cutover: Cutover) -> Report:
    """Everything that happened in a cutover; fit for JSON."""
    cutover = Cutover.objects.select_related("namespace", "rollback_of").get(pk=cutover.pk)
    now = timezone.now()
    state = status(cutover)
    return {
        "made_at": now.isoformat(),
        **{name: state[name] for name in _FROM_STATUS},
        "title": cutover.namespace.title,
        "kind": cutover.kind,
        "kind_title": str(cutover.get_kind_display()),
        "mode": cutover.mode,
        "mode_title": str(cutover.get_mode_display()),
        "ms": _ms(cutover.started_at, cutover.ended_at),
        "rolled_back_by": list(
            cutover.rollbacks.exclude(state=Cutover.State.DISCARDED).values_list("number", flat=True)
        ),
        "asked": {"ids": state["moved_ids"], "text": state["moved_text"], "ranges": state["moved"]},
        "moved": _moved(cutover),
        "rule": _rule(cutover),
        "phases": _phases(cutover),
        "pacing": cutover.pacing,
        "batches": state["batch_list"],
        "frozen": {"ms": state["frozen_ms"], "freezes": state["freezes"]},
        "sessions": {
            "expected": state["sessions_expected"],
            "uncounted": cutover.impact.get("uncounted", []),
            "closed": state["sessions_closed"],
            "remaining": state["sessions_remaining"],
            "reconnected": state["reconnected"],
        },
        "stragglers": {"nodes": state["stragglers"], "ids": cutover.figures.get("stragglers")},
        "approval": _approval(cutover),
        "overrides": [
            {"rule": row.rule, "said": row.sentence, "by": row.by, "reason": row.reason, "at": _iso(row.at)}
            for row in cutover.overrides.all()
        ],
        "hooks": state["hooks"],
        "alarms": _alarms(cutover),
        "practices": [_practice(row) for row in cutover.practices.all()],
        "timeline": [{key: event[key] for key in ("at", "kind", "sentence")} for event in state["events"]],
    }


def _moved(cutover: Cutover) -> dict[str, Any]:
    """The ids that are with their new owners; fewer than asked for where it was stopped or undone."""
    moved = kept(cutover)
    return {"ids": moved.count, "text": moved.text(), "ranges": moved.as_lists()}


def _rule(cutover: Cutover) -> dict[str, Any]:
    """The rule text before and after."""
    preview = stored_preview(cutover)
    return {
        "version": cutover.base_version,
        "before": preview.old_text if preview else "",
        "after": preview.new_text if preview else "",
        "impact": preview.impact if preview else "",
    }


def _phases(cutover: Cutover) -> list[dict[str, Any]]:
    """Each published step: when, for how long it was the newest one, and by whom if somebody asked for it."""
    steps = list(cutover.events.filter(kind__in=_PHASES).order_by("at", "pk"))
    ends = [*(step.at for step in steps[1:]), cutover.ended_at]
    return [
        {
            "phase": step.kind,
            "title": sentences.event(step),
            "batch": step.data.get("batch", 0) + 1,
            "backward": step.data.get("turns", 0) % 2 == 1,
            "at": _iso(step.at),
            "ms": _ms(step.at, end),
            "version": step.data.get("version"),
            "epoch": step.data.get("epoch"),
            "by": step.data.get("by", ""),
            "reason": step.data.get("reason", ""),
        }
        for step, end in zip(steps, ends, strict=False)
    ]


def _approval(cutover: Cutover) -> dict[str, Any]:
    return {
        "needed": cutover.approval_needed,
        "requested_by": cutover.requested_by,
        "approved_by": cutover.approved_by,
        "approved_at": _iso(cutover.approved_at),
        "comment": cutover.approval_comment,
    }


def _alarms(cutover: Cutover) -> list[dict[str, Any]]:
    """The alarms that the cutover raised, and when each was over."""
    found = []
    raised = Alarm.objects.filter(namespace=cutover.namespace_id, subject=f"#{cutover.number}")
    cleared = {alarm.sentence: alarm.cleared_at for alarm in raised}
    for event in cutover.events.filter(kind="alarm").order_by("at", "pk"):
        over = cleared.get(event.data.get("sentence", ""))
        found.append(
            {"at": _iso(event.at), "sentence": sentences.alarm(cutover, event.data), "cleared_at": _iso(over)}
        )
    return found


def _practice(row: Practice) -> dict[str, Any]:
    return {
        "by": row.by,
        "state": row.state,
        "state_title": str(row.get_state_display()),
        "started": _iso(row.started),
        "ms": _ms(row.started, row.finished),
        "findings": row.findings,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _ms(start: datetime | None, end: datetime | None) -> int | None:
    return round((end - start).total_seconds() * 1000) if start and end else None
