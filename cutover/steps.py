"""The steps of a cutover: judged and published under the namespace's lock, each at most once.

Every function reads everything anew under the lock, decides by `msha.steering.phases`, claims the step by one
conditional UPDATE on (state, epoch, batch, turns) and publishes it in the same transaction. So it does not
matter who calls, how often, or how late: an ack's receiver, a Celery task, the reconcile tick, a command.
Source: PROTOCOL 5 (C1-C8).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from cutover import alarms, jobs, plans, previews, progress, rules, sentences
from cutover.errors import InvalidChange, Refused, StalePreview
from cutover.models import Check, Cutover, CutoverEvent
from msha.steering import phases
from msha.steering.errors import InvalidStep
from msha.steering.phases import Ending, NodeView, Outcome, Phase, Plan, Step, Verdict
from msha.steering.ranges import MovedIds
from units import audit, publishing
from units.errors import PublishingStopped
from units.models import Namespace, UnitType

#: More steps than this in one call would be a loop; the next tick goes on.
STEPS_LIMIT = 50

State = Cutover.State

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Lost(Exception):
    """Somebody else has taken the step; nothing was changed."""

    cutover_id: int


def advance(cutover_id: int) -> str:
    """The state of the cutover, after every step was taken whose gate is passed by now.

    Harmless when repeated, late or concurrent: whoever loses a step's conditional UPDATE has no effect.
    """
    for _ in range(STEPS_LIMIT):
        try:
            if not _locked_on(cutover_id, _step_on):
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
    verdict = _verdict(cutover, plans.views(nodes), now)
    return verdict.outcome is not Outcome.WAIT or verdict.alarm or bool(progress.news(cutover, nodes, now))


def start(cutover: Cutover, actor: str, typed_namespace: str) -> Cutover:
    """The cutover holds the active place of its namespace, and its first step is on its way.

    Raises:
        StalePreview: the tables in effect are not those of the preview.
        Refused: the name was mistyped, checks are open, or another cutover is running; says what to do.
    """
    if typed_namespace.strip() != cutover.namespace.name:
        raise Refused(
            gettext("Type the name of the namespace, %(name)s, to start the cutover.")
            % {"name": cutover.namespace.name}
        )
    try:
        with transaction.atomic():
            _claim_start(Cutover.objects.select_related("namespace").get(pk=cutover.pk), actor)
    except IntegrityError as error:
        raise Refused(_another_runs(cutover)) from error
    jobs.start(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def abort(cutover: Cutover, actor: str, reason: str) -> Cutover:
    """The cutover is being undone; nothing has moved, or only the batches that are finished.

    Raises:
        Refused: no reason, or ids may be served by their new owners already: then turn it around.
    """
    return _commanded(cutover, actor, reason, _abort_on)


def turn_around(cutover: Cutover, actor: str, reason: str) -> Cutover:
    """The ids of the present batch are on their way back to the units they came from (PROTOCOL C4).

    Raises:
        Refused: no reason, or nothing has moved yet: then abort it.
    """
    return _commanded(cutover, actor, reason, _turn_on)


def finish_with_stragglers(cutover: Cutover, actor: str, reason: str) -> Cutover:
    """The cutover has ended although live nodes have not acked its last step.

    That is safe: stragglers of a losing unit still hold the ids, others obey a table that gives them none.

    Raises:
        Refused: no reason, or the step is not the last one.
    """
    return _commanded(cutover, actor, reason, _finish_on)


# -- under the lock -----------------------------------------------------------------------------------------


@dataclass
class Situation:
    """Everything a step is decided from, read under the namespace's lock."""

    namespace: Namespace
    cutover: Cutover
    plan: Plan
    step: Step
    views: Sequence[NodeView]
    verdict: Verdict
    now: datetime

    @property
    def lasted_s(self) -> float:
        """How long the step has lasted, on the console's clock."""
        began = self.cutover.phase_at or self.now
        return (self.now - began).total_seconds()


def _locked_on(cutover_id: int, act: Callable[[Namespace, Cutover], bool]) -> bool:
    """What the act says, done under the namespace's lock; False if the cutover does not run."""
    row = Cutover.objects.values("namespace_id", "state").get(pk=cutover_id)
    if row["state"] not in Cutover.ACTIVE:
        return False
    with transaction.atomic():
        namespace = publishing.locked(row["namespace_id"])
        cutover = Cutover.objects.select_related("namespace").get(pk=cutover_id)
        return cutover.active and act(namespace, cutover)


#: What an operator asks of a running cutover: namespace, cutover, actor, reason.
Act = Callable[[Namespace, Cutover, str, str], None]


def _commanded(cutover: Cutover, actor: str, reason: str, act: Act) -> Cutover:
    """An operator's act was done under the lock, and what follows from it, too."""
    reason = reason.strip()
    if not reason:
        raise Refused(gettext("Give a reason; it is kept in the audit trail."))

    def obey(namespace: Namespace, locked: Cutover) -> bool:
        if namespace.publishing_stopped:
            raise PublishingStopped(namespace.name, namespace.publishing_stopped)
        act(namespace, locked, actor, reason)
        return True

    try:
        obeyed = _locked_on(cutover.pk, obey)
    except InvalidStep as error:
        raise Refused(_not_now(cutover)) from error
    except Lost as error:
        raise Refused(gettext("The cutover took another step just now. Look at it again.")) from error
    if not obeyed:
        cutover.refresh_from_db()
        raise Refused(
            gettext("Cutover %(cutover)s is %(state)s: it does not run.")
            % {"cutover": cutover, "state": cutover.get_state_display()}
        )
    advance(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def _read(namespace: Namespace, cutover: Cutover) -> Situation:
    """The situation now; acks and counts that came since the last look are noted."""
    now = timezone.now()
    nodes = plans.enrolled_nodes(namespace.pk)
    progress.observe(cutover, nodes, now)
    views = plans.views(nodes)
    plan, step = plans.plan_of(cutover), plans.step_of(cutover)
    return Situation(namespace, cutover, plan, step, views, _verdict(cutover, views, now), now)


def _verdict(cutover: Cutover, views: Sequence[NodeView], now: datetime) -> Verdict:
    lasted_s = (now - (cutover.phase_at or now)).total_seconds()
    return phases.judge(plans.plan_of(cutover), plans.step_of(cutover), cutover.epoch, views, lasted_s)


def _step_on(namespace: Namespace, cutover: Cutover) -> bool:
    """Whether a step was taken whose own gate is passed already."""
    if cutover.state == State.STARTING:
        return _prepare(namespace, cutover)
    situation = _read(namespace, cutover)
    match situation.verdict.outcome:
        case Outcome.WAIT:
            if situation.verdict.alarm:
                alarms.overdue(cutover, situation.step, situation.verdict.missing)
            return False
        case Outcome.FINISH:
            assert situation.verdict.ending is not None
            _end(situation, situation.verdict.ending)
            return False
        case Outcome.ABORT:
            return _abort_overdue(situation)
        case _:
            assert situation.verdict.to is not None
            return _publish(situation, situation.verdict.to)


def _prepare(namespace: Namespace, cutover: Cutover) -> bool:
    """PREPARE is published, if the tables are still those of the preview; else the cutover has ended."""
    document = rules.in_effect(namespace)
    if previews.is_stale(cutover, document) or document["rule"]["cutover"] is not None:
        _mark_ended(cutover, State.ABORTED, {**cutover.figures, "ended": {"how": "stale"}})
        return False
    try:
        rules.checked(document, cutover.new_rule)
    except InvalidChange as error:  # a unit of the new rule was removed meanwhile
        facts = {"how": "invalid", "problem": str(error)}
        _mark_ended(cutover, State.ABORTED, {**cutover.figures, "ended": facts})
        return False
    now = timezone.now()
    cutover.plan = plans.fixed(cutover, document)
    cutover.figures = progress.begun(now)
    first = Step(Phase.PREPARE)
    views = plans.views(plans.enrolled_nodes(namespace.pk))
    verdict = Verdict(Outcome.ADVANCE, to=first)
    return _publish(Situation(namespace, cutover, plans.plan_of(cutover), first, views, verdict, now), first)


def _abort_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    facts = {"how": "aborted", "by": actor, "reason": reason}
    if cutover.state == State.STARTING:
        _audit_act(cutover, "cutover.abort", actor, reason)
        _mark_ended(cutover, State.ABORTED, {**cutover.figures, "ended": facts})
        return
    situation = _read(namespace, cutover)
    to = phases.aborted(situation.step)
    _audit_act(cutover, "cutover.abort", actor, reason)
    cutover.figures = {**cutover.figures, "ended": facts}
    _publish(situation, to, by=actor, reason=reason)


def _turn_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    if cutover.state == State.STARTING:
        raise Refused(gettext("The cutover has not published its first step yet: abort it instead."))
    situation = _read(namespace, cutover)
    to = phases.turned_around(situation.step)
    _audit_act(cutover, "cutover.turn_around", actor, reason)
    _publish(situation, to, by=actor, reason=reason)


def _finish_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    if cutover.state not in (State.RELEASE, State.ABORTING):
        raise Refused(
            gettext("Cutover %(cutover)s is in %(state)s: only its last step can be finished without nodes.")
            % {"cutover": cutover, "state": cutover.get_state_display()}
        )
    situation = _read(namespace, cutover)
    step = situation.step
    if step.phase is Phase.RELEASE and not step.backwards and step.batch + 1 < len(situation.plan.batches):
        raise Refused(gettext("More batches follow: turn this one around, or wait for its nodes."))
    _audit_act(cutover, "cutover.finish", actor, reason)
    ending = Ending.ABORTED if step.phase is Phase.ABORT else Ending.DONE
    if step.phase is Phase.RELEASE and step.backwards:
        ending = Ending.TURNED
    stragglers = list(situation.verdict.missing)
    _end(situation, ending, {"stragglers": stragglers, "finished_by": actor, "finish_reason": reason})


def _abort_overdue(situation: Situation) -> bool:
    """The cutover undoes itself, and says which nodes did not answer."""
    cutover, verdict = situation.cutover, situation.verdict
    assert verdict.to is not None
    facts = {"how": "overdue", "state": str(cutover.state), "missing": list(verdict.missing)}
    cutover.figures = {**cutover.figures, "ended": facts}
    passed = _publish(situation, verdict.to)
    if cutover.state == State.ABORTING:
        alarms.undone(cutover, verdict.missing)
    return passed


def _publish(situation: Situation, to: Step, *, by: str = "", reason: str = "") -> bool:
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
    if cutover.state == State.ACTIVATE and to.phase is Phase.RELEASE:
        progress.thawed(cutover, figures, now)
    if to.phase is Phase.FREEZE and situation.plan.batches:
        progress.frozen_since(figures, now)
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
    log.info(
        "cutover_step", cutover=str(cutover), phase=str(to.phase), version=snapshot.version, **_shape(to)
    )
    if to.phase is Phase.PREPARE:
        progress.begin_curve(cutover, now)
        jobs.disconnect(cutover.pk)
    return _verdict(cutover, situation.views, now).outcome is not Outcome.WAIT


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
        "figures": figures,
        "plan": cutover.plan,
        "phase_at": now,
        "updated": now,
    }
    if _as_read(cutover).update(**columns) != 1:
        raise Lost(cutover.pk)
    for name, value in columns.items():
        setattr(cutover, name, value)


def _as_read(cutover: Cutover) -> QuerySet[Cutover]:
    """The row, if it still stands where `cutover` was read: the compare of every compare-and-set (C1)."""
    return Cutover.objects.filter(
        pk=cutover.pk,
        state=cutover.state,
        epoch=cutover.epoch,
        batch=cutover.batch,
        turns=cutover.turns,
    )


def _end(situation: Situation, ending: Ending, facts: dict[str, Any] | None = None) -> None:
    """The cutover has ended; the saved rule is the one in effect."""
    cutover = situation.cutover
    figures = dict(cutover.figures)
    progress.thawed(cutover, figures, situation.now)
    ended = figures.get("ended", {}) if ending is Ending.ABORTED else {"how": str(ending)}
    facts = {**ended, **(facts or {})}
    frozen = _frozen_behind(situation, figures, [*facts.get("missing", []), *facts.get("stragglers", [])])
    figures.update(ending=str(ending), ended={**facts, "frozen": frozen} if frozen else facts)
    _mark_ended(cutover, State.DONE if ending is Ending.DONE else State.ABORTED, figures)
    if frozen:
        alarms.still_frozen(cutover, frozen)
    _settle_saved_rule(situation)


def _frozen_behind(situation: Situation, figures: dict[str, Any], told: Sequence[str]) -> list[str]:
    """Nodes that may hold moved ids for longer than the cutover lasts, and of which nobody was told yet.

    No gate waits for a node that is not live when ids are released; its clients wait all the same (I10).
    """
    cutover, moved = situation.cutover, MovedIds.from_lists(situation.cutover.moved)
    if not figures.get("freezes"):
        return []
    units = moved.losing_units | (moved.gaining_units if cutover.turns else frozenset())
    behind = (view for view in situation.views if view.unit in units and view.acked_epoch < cutover.epoch)
    return [view.name for view in behind if view.name not in told]


def _mark_ended(cutover: Cutover, state: Cutover.State, figures: dict[str, Any]) -> None:
    """The row has the state and how it came to it.

    Raises:
        Lost: the row says something else than `cutover` did.
    """
    now, before = timezone.now(), cutover.state
    running = _as_read(cutover)
    cutover.figures = figures
    with sentences.stored():
        sentence = sentences.outcome(cutover)
    if running.update(state=state, outcome=sentence, figures=figures, ended_at=now, updated=now) != 1:
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


# -- starting -----------------------------------------------------------------------------------------------


def _claim_start(cutover: Cutover, actor: str) -> None:
    namespace = publishing.locked(cutover.namespace_id)
    cutover.refresh_from_db()
    if not cutover.editable:
        raise Refused(
            gettext("Cutover %(cutover)s is %(state)s; it cannot be started again.")
            % {"cutover": cutover, "state": cutover.get_state_display()}
        )
    if cutover.state == State.DRAFT:
        raise Refused(gettext("Generate the preview of cutover %(cutover)s first.") % {"cutover": cutover})
    if previews.is_stale(cutover, rules.in_effect(namespace)):
        raise StalePreview(
            gettext(
                "The rule in effect has changed since the preview of cutover %(cutover)s."
                " Generate the preview again."
            )
            % {"cutover": cutover}
        )
    _refuse_open_checks(cutover)
    if Cutover.objects.filter(namespace=namespace, state__in=Cutover.ACTIVE).exists():
        raise Refused(_another_runs(cutover))
    now = timezone.now()
    rows = Cutover.objects.filter(pk=cutover.pk, state=State.CHECKED)
    if (
        rows.update(state=State.STARTING, started_by=actor[:150], started_at=now, phase_at=now, updated=now)
        != 1
    ):
        raise Refused(gettext("Run the checks of cutover %(cutover)s first.") % {"cutover": cutover})
    CutoverEvent.objects.create(cutover=cutover, kind="started", data={"by": actor}, at=now)
    audit.record(
        actor,
        "cutover.start",
        cutover,
        namespace=namespace,
        before={"state": cutover.state},
        after={"state": State.STARTING, "moved": cutover.moved},
        reason=cutover.reason,
    )
    alarms.clear_undone(namespace.pk)


def _refuse_open_checks(cutover: Cutover) -> None:
    checks = list(cutover.checks.all())
    open_ones = [c for c in checks if c.state not in (Check.State.PASSED, Check.State.SKIPPED)]
    if not checks:
        raise Refused(gettext("Run the checks of cutover %(cutover)s first.") % {"cutover": cutover})
    if open_ones:
        titles = ", ".join(check.title for check in open_ones)
        raise Refused(
            gettext("These checks are not passed: %(titles)s. Retry each of them, or skip it with a reason.")
            % {"titles": titles}
        )


def _another_runs(cutover: Cutover) -> str:
    other = Cutover.objects.filter(namespace=cutover.namespace_id, state__in=Cutover.ACTIVE).first()
    return gettext(
        "Another cutover of namespace %(namespace)s is running (%(other)s)."
        " Wait for its end, abort it or turn it around."
    ) % {"namespace": cutover.namespace.name, "other": other or "?"}


def _not_now(cutover: Cutover) -> str:
    """Why the way back that was asked for is not the one of the present step."""
    cutover.refresh_from_db()
    words = {"cutover": cutover, "state": cutover.get_state_display()}
    if cutover.state == State.ABORTING:
        return gettext("Cutover %(cutover)s is being undone already.") % words
    if cutover.state in (State.PREPARE, State.FREEZE) and cutover.turns == 0:
        return (
            gettext("Cutover %(cutover)s is in %(state)s: nothing has moved yet. Abort it instead.") % words
        )
    return (
        gettext(
            "Cutover %(cutover)s is in %(state)s: ids may be served by their new units already."
            " Turn it around instead."
        )
        % words
    )


def _audit_act(cutover: Cutover, action: str, actor: str, reason: str) -> None:
    audit.record(
        actor,
        action,
        cutover,
        namespace=cutover.namespace,
        before={"state": cutover.state, "epoch": cutover.epoch},
        reason=reason,
    )
