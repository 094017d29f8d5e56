"""How a cutover ends: the row says how it came to it, the saved rule follows the one in effect."""

from collections.abc import Sequence
from typing import Any

import structlog
from django.utils import timezone
from django.utils.translation import gettext

from cutover import alarms, jobs, progress, rules, sentences
from cutover.hooks import runs as hooks
from cutover.models import Cutover, CutoverEvent
from cutover.situation import Lost, Situation, as_read
from msha.steering.phases import Ending
from msha.steering.ranges import MovedIds
from units import audit
from units.models import UnitType

State = Cutover.State

log = structlog.get_logger(__name__)


def end(situation: Situation, ending: Ending, facts: dict[str, Any] | None = None) -> None:
    """The cutover has ended; the saved rule is the one in effect."""
    cutover = situation.cutover
    figures = dict(cutover.figures)
    progress.thawed(cutover, figures, situation.now)
    ended = figures.get("ended", {})
    by_itself = ending is Ending.TURNED and ended.get("how") == "held"
    if ending is not Ending.ABORTED and not by_itself:
        ended = {"how": str(ending)}
    facts = {**ended, **(facts or {})}
    frozen = _frozen_behind(situation, figures, facts.get("missing", []))
    figures.update(ending=str(ending), ended={**facts, "frozen": frozen} if frozen else facts)
    hooks.ended(situation)
    mark_ended(cutover, State.DONE if ending in (Ending.DONE, Ending.STOPPED) else State.ABORTED, figures)
    if frozen:
        alarms.still_frozen(cutover, frozen)
    _settle_saved_rule(situation)


def _frozen_behind(situation: Situation, figures: dict[str, Any], told: Sequence[str]) -> list[str]:
    """Nodes that may hold moved ids for longer than the cutover lasts, and of which nobody was told yet.

    No gate waits for a node that is not live when ids are released, and an operator may finish without one
    that is: its clients wait all the same (I10).
    """
    cutover, moved = situation.cutover, MovedIds.from_lists(situation.cutover.moved)
    if not figures.get("freezes"):
        return []
    units = moved.losing_units | (moved.gaining_units if cutover.turns else frozenset())
    behind = (view for view in situation.views if view.unit in units and view.acked_epoch < cutover.epoch)
    return [view.name for view in behind if view.name not in told]


def mark_ended(cutover: Cutover, state: Cutover.State, figures: dict[str, Any]) -> None:
    """The row has the state and how it came to it.

    Raises:
        Lost: the row says something else than `cutover` did.
    """
    now, before = timezone.now(), cutover.state
    running = as_read(cutover)
    cutover.figures = figures
    with sentences.stored():
        sentence = sentences.outcome(cutover)
    over: dict[str, Any] = {"hold": {}, "paused_at": None, "baking_since": None}
    if running.update(state=state, outcome=sentence, figures=figures, ended_at=now, updated=now, **over) != 1:
        raise Lost(cutover.pk)
    cutover.state, cutover.outcome, cutover.ended_at = state, sentence, now
    CutoverEvent.objects.create(cutover=cutover, kind=str(state), data={"outcome": sentence}, at=now)
    audit.record(
        cutover.started_by,
        "cutover.end",
        cutover,
        namespace=cutover.namespace,
        before={"state": str(before)},
        after={"state": str(state), "outcome": sentence},
    )
    alarms.clear_overdue(cutover)
    alarms.clear_held(cutover)
    log.info("cutover_ended", cutover=str(cutover), state=str(state), frozen_ms=figures.get("frozen_ms"))
    jobs.report(cutover.pk)


def _settle_saved_rule(situation: Situation) -> None:
    """The saved rule is the one in effect, unless somebody has meanwhile saved a third one."""
    cutover, plan = situation.cutover, situation.plan
    row = UnitType.objects.filter(namespace=cutover.namespace_id, name=cutover.unit_type).first()
    if row is None:
        return
    saved = rules.entry_of(row)
    ours = (cutover.old_rule, cutover.new_rule)
    if not any(rules.same_rule(saved, rule, plan.key_space) for rule in ours):
        return
    effective = rules.unit_type_of(rules.in_effect(cutover.namespace)["rule"], cutover.unit_type)
    columns = {key: effective[key] for key in rules.KEYS if key != "name"}
    if columns == {key: saved[key] for key in columns}:
        return
    UnitType.objects.filter(pk=row.pk).update(**columns, updated=timezone.now())
    audit.record(
        cutover.started_by,
        "unit_type.update",
        row.name,
        namespace=cutover.namespace,
        before=saved,
        after=effective,
        reason=gettext("Cutover #%(number)d has ended") % {"number": cutover.number},
    )
