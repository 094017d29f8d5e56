"""Hooks and their calls as JSON values, for pages, API and reports; secrets are in none of them."""

from datetime import datetime
from typing import Any

from cutover.hooks import wording
from cutover.hooks.acts import skippable
from cutover.models import Cutover, Hook, HookRun

Shown = dict[str, Any]


def calls(cutover: Cutover) -> list[Shown]:
    """Every call that the cutover wanted, in order."""
    return [call(run) for run in cutover.hook_runs.filter(practice=False).select_related("cutover")]


def call(run: HookRun) -> Shown:
    """One run: where it stands, what was answered, when it is called next."""
    may_skip = skippable(run)
    return {
        "id": run.pk,
        "key": str(run.key),
        "name": run.name,
        "moment": run.moment,
        "moment_title": str(run.get_moment_display()),
        "outcome": run.outcome,
        "practice": run.practice,
        "batch": run.batch + 1,
        "turns": run.turns,
        "direction": "backward" if run.backwards else "forward",
        "backward": run.backwards,
        "epoch": run.epoch,
        "must_succeed": run.must_succeed,
        "state": run.state,
        "state_title": str(run.get_state_display()),
        "stuck": run.stuck,
        "calls": run.calls,
        "answer": run.answer,
        "sentence": wording.stands(run),
        "started": _iso(run.started),
        "finished": _iso(run.finished),
        "next_at": _iso(run.next_at) if run.open else None,
        "deadline": _iso(run.give_up_at),
        "ms": _ms(run.started, run.finished),
        "skippable": may_skip,
        "skip_means": wording.skip_means(run) if may_skip else "",
        "skipped_by": run.skipped_by,
        "skip_reason": run.skip_reason,
    }


def hook(row: Hook) -> Shown:
    """One hook as it is set up."""
    return {
        "name": row.name,
        "moment": row.moment,
        "url": row.url,
        "must_succeed": row.must_succeed,
        "timeout_s": row.timeout_s,
        "deadline_s": row.deadline_s,
        "enabled": row.enabled,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _ms(start: datetime | None, end: datetime | None) -> int | None:
    return round((end - start).total_seconds() * 1000) if start and end else None
