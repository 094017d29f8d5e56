"""What an operator may ask of a running cutover; each act gives its reason and is audited."""

from collections.abc import Callable
from dataclasses import replace

from django.utils import timezone
from django.utils.translation import gettext

from cutover import alarms
from cutover.ending import end, mark_ended
from cutover.errors import Refused
from cutover.models import Cutover, CutoverEvent
from cutover.situation import Lost, as_read, locked_on, read
from cutover.steps import advance, publish_step
from msha.steering import phases
from msha.steering.errors import InvalidStep
from msha.steering.phases import Ending, Phase
from units import audit, stopped
from units.errors import PublishingStopped
from units.models import Namespace

State = Cutover.State

#: Namespace, cutover, actor, reason.
Act = Callable[[Namespace, Cutover, str, str], None]


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


def roll_back(cutover: Cutover, actor: str, reason: str) -> Cutover:
    """Every id that the running cutover has moved is on its way back, batch by batch, the last one first.

    Raises:
        Refused: no reason, or nothing of it is left to go back.
    """
    return _commanded(cutover, actor, reason, _roll_back_on)


def stop_here(cutover: Cutover, actor: str, reason: str) -> Cutover:
    """The cutover has ended between two batches: what has moved stays, the rest never moves.

    Raises:
        Refused: no reason, or a batch is under way.
    """
    return _commanded(cutover, actor, reason, _stop_on)


def pause(cutover: Cutover, actor: str, reason: str) -> Cutover:
    """No further batch begins until `resume`; one that is under way is brought to its end.

    Raises:
        Refused: no reason, or it is paused already.
    """
    return _commanded(cutover, actor, reason, _pause_on)


def resume(cutover: Cutover, actor: str, reason: str) -> Cutover:
    """The next batch may begin.

    Raises:
        Refused: no reason, or it is not paused.
    """
    return _commanded(cutover, actor, reason, _resume_on)


def finish_with_stragglers(cutover: Cutover, actor: str, reason: str) -> Cutover:
    """The cutover has ended although live nodes have not acked its last step.

    That is safe: stragglers of a losing unit still hold the ids, others obey a table that gives them none.

    Raises:
        Refused: no reason, or the step is not the last one.
    """
    return _commanded(cutover, actor, reason, _finish_on)


def _commanded(cutover: Cutover, actor: str, reason: str, act: Act) -> Cutover:
    """An operator's act was done under the lock, and what follows from it, too."""
    reason = reason.strip()
    if not reason:
        raise Refused(gettext("Give a reason; it is kept in the audit trail."))

    def obey(namespace: Namespace, locked: Cutover) -> bool:
        if namespace.publishing_stopped:
            raise PublishingStopped(namespace.name, stopped.why(namespace))
        act(namespace, locked, actor, reason)
        return True

    try:
        obeyed = locked_on(cutover.pk, obey)
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


def _abort_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    facts = {"how": "aborted", "by": actor, "reason": reason}
    if cutover.state == State.STARTING:
        _audit_act(cutover, "cutover.abort", actor, reason)
        mark_ended(cutover, State.ABORTED, {**cutover.figures, "ended": facts})
        return
    situation = read(namespace, cutover)
    to = phases.aborted(situation.step)
    _audit_act(cutover, "cutover.abort", actor, reason)
    cutover.figures = {**cutover.figures, "ended": facts}
    publish_step(situation, to, by=actor, reason=reason)


def _turn_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    if cutover.state == State.STARTING:
        raise Refused(gettext("The cutover has not published its first step yet: abort it instead."))
    situation = read(namespace, cutover)
    to = phases.turned_around(situation.step)
    _audit_act(cutover, "cutover.turn_around", actor, reason)
    publish_step(situation, to, by=actor, reason=reason)


def _roll_back_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    if cutover.state == State.STARTING:
        raise Refused(gettext("The cutover has not published its first step yet: abort it instead."))
    situation = read(namespace, cutover)
    to = phases.rolled_back(situation.step)
    _audit_act(cutover, "cutover.roll_back", actor, reason)
    if to.phase is Phase.ABORT:
        cutover.figures = {**cutover.figures, "ended": {"how": "aborted", "by": actor, "reason": reason}}
    if to == replace(situation.step, unwinding=True):  # on its way back already; now the earlier batches, too
        as_read(cutover).update(unwinding=True)
        return
    publish_step(situation, to, by=actor, reason=reason)


def _stop_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    situation = read(namespace, cutover)
    phases.refuse_to_stop_in(situation.plan, situation.step)
    _audit_act(cutover, "cutover.stop", actor, reason)
    end(situation, Ending.STOPPED, {"by": actor, "reason": reason, "batches": cutover.batch + 1})


def _pause_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    if cutover.paused:
        raise Refused(gettext("Cutover %(cutover)s is paused already.") % {"cutover": cutover})
    _audit_act(cutover, "cutover.pause", actor, reason)
    now = timezone.now()
    as_read(cutover).update(paused_at=now, paused_by=actor[:150], pause_reason=reason)
    data = {"by": actor, "reason": reason}
    CutoverEvent.objects.create(cutover=cutover, kind="paused", data=data, at=now)


def _resume_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    if not cutover.paused:
        raise Refused(gettext("Cutover %(cutover)s is not paused.") % {"cutover": cutover})
    _audit_act(cutover, "cutover.resume", actor, reason)
    figures = dict(cutover.figures)
    if cutover.hold.get("kind") == "health":  # the operator has seen these figures and goes on all the same
        figures["gate_waived"] = cutover.hold["batch"]
    as_read(cutover).update(paused_at=None, paused_by="", pause_reason="", hold={}, figures=figures)
    alarms.clear_held(cutover)
    CutoverEvent.objects.create(cutover=cutover, kind="resumed", data={"by": actor, "reason": reason})


def _finish_on(namespace: Namespace, cutover: Cutover, actor: str, reason: str) -> None:
    if cutover.state not in (State.RELEASE, State.ABORTING):
        raise Refused(
            gettext("Cutover %(cutover)s is in %(state)s: only its last step can be finished without nodes.")
            % {"cutover": cutover, "state": cutover.get_state_display()}
        )
    situation = read(namespace, cutover)
    step = situation.step
    if phases.goes_on(situation.plan, step):
        if step.unwinding:
            raise Refused(gettext("Earlier batches are still to go back: wait for its nodes."))
        raise Refused(gettext("More batches follow: turn this one around, or wait for its nodes."))
    _audit_act(cutover, "cutover.finish", actor, reason)
    ending = Ending.ABORTED if step.phase is Phase.ABORT else Ending.DONE
    if step.phase is Phase.RELEASE and step.backwards:
        ending = Ending.TURNED
    stragglers = list(situation.verdict.missing)
    end(situation, ending, {"stragglers": stragglers, "finished_by": actor, "finish_reason": reason})


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
