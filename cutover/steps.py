"""The steps of a cutover: judged and published under the namespace's lock, each at most once.

Every function reads everything anew under the lock, decides by `msha.steering.phases`, claims the step by one
conditional UPDATE on (state, epoch, batch, turns) and publishes it in the same transaction. So it does not
matter who calls, how often, or how late: an ack's receiver, a Celery task, the reconcile tick, a command.
Source: PROTOCOL 5 (C1-C8).
"""

from datetime import datetime
from typing import Any

import structlog
from django.utils import timezone
from django.utils.translation import gettext

from cutover import alarms, jobs, plans, previews, progress, rules, sentences
from cutover.ending import end, mark_ended
from cutover.errors import InvalidChange
from cutover.holds import Hold, Then, holding, opens_a_batch
from cutover.hooks import runs as hooks
from cutover.models import Cutover, CutoverEvent
from cutover.pacing import health
from cutover.situation import Lost, Situation, as_read, locked_on, read, verdict_on
from msha.steering import phases
from msha.steering.phases import Outcome, Phase, Step, Verdict
from units import audit, publishing
from units.models import Namespace

#: More steps than this in one call would be a loop; the next tick goes on.
STEPS_LIMIT = 50

State = Cutover.State

log = structlog.get_logger(__name__)


def advance(cutover_id: int) -> str:
    """The state of the cutover, after every step was taken whose gate is passed by now.

    Harmless when repeated, late or concurrent: whoever loses a step's conditional UPDATE has no effect.
    """
    for _ in range(STEPS_LIMIT):
        try:
            if not locked_on(cutover_id, _step_on):
                break
        except Lost:
            continue
    return str(Cutover.objects.values_list("state", flat=True).get(pk=cutover_id))


def look(cutover_id: int) -> str:
    """The state of the cutover; it was advanced if there was anything to do or to note.

    For drivers that look often and seldom find anything: they take no lock then.
    """
    cutover = Cutover.objects.get(pk=cutover_id)
    if not cutover.active or (cutover.state != State.STARTING and not _calls_for_a_step(cutover)):
        return cutover.state
    return advance(cutover_id)


def _calls_for_a_step(cutover: Cutover) -> bool:
    now = timezone.now()
    nodes = plans.enrolled_nodes(cutover.namespace_id)
    verdict = verdict_on(cutover, plans.views(nodes), now)
    return verdict.outcome is not Outcome.WAIT or verdict.alarm or bool(progress.news(cutover, nodes, now))


def _step_on(namespace: Namespace, cutover: Cutover) -> bool:
    """Whether a step was taken whose own gate is passed already."""
    if cutover.state == State.STARTING:
        return _prepare(namespace, cutover)
    situation = read(namespace, cutover)
    match situation.verdict.outcome:
        case Outcome.WAIT:
            if situation.verdict.alarm:
                alarms.overdue(cutover, situation.step, situation.verdict.missing)
            return False
        case Outcome.FINISH:
            assert situation.verdict.ending is not None
            end(situation, situation.verdict.ending)
            return False
        case Outcome.ABORT:
            return _abort_overdue(situation)
        case _:
            assert situation.verdict.to is not None
            return _go_on(situation, situation.verdict.to)


def _go_on(situation: Situation, to: Step) -> bool:
    """The step that the gate allows is published, unless something holds it back."""
    cutover = situation.cutover
    if opens_a_batch(to) and to.batch > 0 and cutover.baking_since is None:
        cutover.baking_since = situation.now
        as_read(cutover).update(baking_since=situation.now)
    hold = holding(situation, to)
    if hold is None:
        return publish_step(situation, to)
    _note(cutover, hold)
    match hold.then:
        case Then.UNDO | Then.ABORT:
            return _undo_held(situation, hold)
        case Then.PAUSE if not cutover.paused:
            _pause_held(situation, hold)
        case _ if situation.step.phase is Phase.FREEZE and situation.lasted_s > phases.GATE_DEADLINE_S:
            alarms.held_too_long(cutover, situation.step, hold.as_dict())
    return False


def _pause_held(situation: Situation, hold: Hold) -> None:
    """The cutover has paused by itself, and says why; an operator resumes it or takes it back."""
    cutover, now = situation.cutover, situation.now
    as_read(cutover).update(paused_at=now, paused_by="", pause_reason="")
    cutover.paused_at, cutover.paused_by, cutover.pause_reason = now, "", ""
    _audit_held(cutover, "cutover.pause", hold)
    alarms.held(cutover, hold.as_dict())


def _undo_held(situation: Situation, hold: Hold) -> bool:
    """The cutover undoes by itself what it has moved, and says why."""
    cutover, epoch = situation.cutover, situation.cutover.epoch
    facts = {"how": "held", "hold": hold.as_dict()}
    cutover.figures = {**cutover.figures, "ended": facts}
    back = phases.aborted if hold.then is Then.ABORT else phases.rolled_back
    passed = publish_step(situation, back(situation.step))
    if cutover.epoch != epoch:  # it was not, if publishing is stopped
        _audit_held(cutover, "cutover.roll_back", hold)
        alarms.undone(cutover, ())
    return passed


def _audit_held(cutover: Cutover, action: str, hold: Hold) -> None:
    with sentences.stored():
        reason = sentences.held(hold.as_dict())
    audit.record(
        f"cutover {cutover}",
        action,
        cutover,
        namespace=cutover.namespace,
        after=hold.as_dict(),
        reason=reason,
    )


def _note(cutover: Cutover, hold: Hold) -> None:
    """The row says what holds the cutover, and its timeline since when."""
    if cutover.hold == hold.as_dict():
        return
    if cutover.hold.get("kind") != hold.kind:
        CutoverEvent.objects.create(cutover=cutover, kind="held", data=hold.as_dict())
    cutover.hold = hold.as_dict()
    as_read(cutover).update(hold=cutover.hold)


def _prepare(namespace: Namespace, cutover: Cutover) -> bool:
    """PREPARE is published, if the tables are still those of the preview; else the cutover has ended."""
    document = rules.in_effect(namespace)
    if previews.is_stale(cutover, document) or document["rule"]["cutover"] is not None:
        mark_ended(cutover, State.ABORTED, {**cutover.figures, "ended": {"how": "stale"}})
        return False
    try:
        rules.checked(document, cutover.new_rule)
    except InvalidChange as error:  # a unit of the new rule was removed meanwhile
        facts = {"how": "invalid", "problem": str(error)}
        mark_ended(cutover, State.ABORTED, {**cutover.figures, "ended": facts})
        return False
    now = timezone.now()
    cutover.plan = plans.fixed(cutover, document)
    cutover.figures = progress.begun(now)
    first = Step(Phase.PREPARE)
    views = plans.views(plans.enrolled_nodes(namespace.pk))
    verdict = Verdict(Outcome.ADVANCE, to=first)
    return publish_step(
        Situation(namespace, cutover, plans.plan_of(cutover), first, views, verdict, now), first
    )


def _abort_overdue(situation: Situation) -> bool:
    """The cutover undoes itself, and says which nodes did not answer."""
    cutover, verdict = situation.cutover, situation.verdict
    assert verdict.to is not None
    facts = {"how": "overdue", "state": str(cutover.state), "missing": list(verdict.missing)}
    cutover.figures = {**cutover.figures, "ended": facts}
    passed = publish_step(situation, verdict.to)
    if cutover.state == State.ABORTING:
        alarms.undone(cutover, verdict.missing)
    return passed


def publish_step(situation: Situation, to: Step, *, by: str = "", reason: str = "") -> bool:
    """Whether the step was published and its gate is passed already; if not, an ack will say so.

    Nothing is published while publishing is stopped.

    Raises:
        Lost: the conditional UPDATE did not find the step that this one follows.
    """
    namespace, cutover, now = situation.namespace, situation.cutover, situation.now
    if namespace.publishing_stopped:
        if situation.lasted_s > phases.GATE_DEADLINE_S:
            alarms.overdue(cutover, situation.step, (namespace.publishing_stopped,))
        return False
    author = by or cutover.started_by
    figures = dict(cutover.figures)
    released = cutover.state == State.ACTIVATE and to.phase is Phase.RELEASE
    if released or cutover.state == State.ABORTING:  # what was frozen is not; another batch may be next
        progress.thawed(cutover, figures, now)
    if to.phase is Phase.FREEZE and situation.plan.batches:
        progress.frozen_since(figures, now)
    if opens_a_batch(to):
        health.begin_stage(cutover, to.batch, figures, plans.enrolled_nodes(namespace.pk), now)
    before = (cutover.state, cutover.epoch, cutover.batch, cutover.turns)

    def compute(_: Namespace, document: rules.Document | None) -> publishing.Change:
        assert document is not None
        rule = phases.rule_part(situation.plan, to, document["rule"])
        _claim_step(cutover, to, rule["epoch"], figures, now)
        return publishing.Change(rule=rule)

    snapshot = publishing.publish(
        namespace.pk,
        author=author,
        comment=gettext("Cutover #%(number)d: %(phase)s") % {"number": cutover.number, "phase": to.phase},
        compute=compute,
    )
    data = {
        "version": snapshot.version,
        "epoch": snapshot.epoch,
        "batch": to.batch,
        "turns": to.turns,
        "by": by,
        "reason": reason,
    }
    CutoverEvent.objects.create(cutover=cutover, kind=str(to.phase), data=data, at=now)
    hooks.follow(situation, to)
    audit.record(
        author,
        "cutover.step",
        cutover,
        namespace=namespace,
        before={"state": before[0], "epoch": before[1], "batch": before[2], "turns": before[3]},
        after={"state": cutover.state, **data},
        reason=reason,
    )
    alarms.clear_overdue(cutover)
    alarms.clear_held(cutover)
    log.info(
        "cutover_step", cutover=str(cutover), phase=str(to.phase), version=snapshot.version, **_shape(to)
    )
    if to.phase is Phase.PREPARE:
        progress.begin_curve(cutover, now)
        jobs.disconnect(cutover.pk)
    return verdict_on(cutover, situation.views, now).outcome is not Outcome.WAIT


def _shape(step: Step) -> dict[str, int]:
    return {"batch": step.batch, "turns": step.turns}


def _claim_step(cutover: Cutover, to: Step, epoch: int, figures: dict[str, Any], now: datetime) -> None:
    """The row says that the step runs, and so does `cutover`.

    Raises:
        Lost: the row says something else than `cutover` did.
    """
    columns = {
        "state": plans.STATE_OF[to.phase],
        "epoch": epoch,
        "batch": to.batch,
        "turns": to.turns,
        "unwinding": to.unwinding,
        "figures": figures,
        "plan": cutover.plan,
        "hold": {},
        "baking_since": None,
        "phase_at": now,
        "updated": now,
    }
    if as_read(cutover).update(**columns) != 1:
        raise Lost(cutover.pk)
    for name, value in columns.items():
        setattr(cutover, name, value)
