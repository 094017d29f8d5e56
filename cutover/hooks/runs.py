"""Which calls a cutover wants: made when a step is published or asked for, overtaken by the next one.

A run belongs to the epoch of the step that wanted it. Publishing a step overtakes what earlier epochs still
wanted, in the same transaction, so that no call begins for a freeze that was undone; a call that is on its
way by then is waited for before the next one about the same ids begins. Every function here is called under
the namespace's lock.
"""

from collections.abc import Iterable
from datetime import timedelta

from django.db.models import Q, QuerySet
from django.utils import timezone

from cutover import jobs
from cutover.hooks import messages
from cutover.models import Cutover, Hook, HookRun
from cutover.situation import Situation
from msha.steering.phases import Phase, Step

State, Outcome, Moment = HookRun.State, HookRun.Outcome, Hook.Moment


def follow(situation: Situation, to: Step) -> None:
    """The step was claimed: what it overtakes is no longer wanted, and what belongs to it is called.

    At FREEZE that are the hooks that forbid writes; at ABORT everybody learns that the ids stay.
    """
    cutover = situation.cutover
    _overtake(_of(cutover).exclude(~Q(batch=to.batch), moment=Moment.AFTER_RELEASE))
    match to.phase:
        case Phase.PREPARE:
            # What an earlier cutover still tells, if it may fail, must not arrive in the midst of this one.
            others = HookRun.objects.filter(cutover__namespace=cutover.namespace_id, practice=False)
            _overtake(others.exclude(cutover=cutover))
        case Phase.FREEZE:
            wanted(situation, Moment.AT_FREEZE, to)
        case Phase.ABORT:
            _tell_of_the_abort(situation, to)


def ended(situation: Situation) -> None:
    """The cutover has ended: the hooks after its last RELEASE are called."""
    if situation.step.phase is Phase.RELEASE:
        released(situation)


def released(situation: Situation) -> list[HookRun]:
    """The calls that say that the ids of the step's batch have moved."""
    return wanted(situation, Moment.AFTER_RELEASE, situation.step, outcome=Outcome.MOVED)


def wanted(situation: Situation, moment: str, step: Step, *, outcome: str = "") -> list[HookRun]:
    """The calls of this moment of the present step; those that were missing are on their way now."""
    cutover = situation.cutover
    runs = list(_of(cutover).filter(moment=moment, epoch=cutover.epoch))
    known = {run.name for run in runs}
    hooks = Hook.objects.filter(namespace=cutover.namespace_id, moment=moment, enabled=True)
    made = [_made(situation, hook, step, outcome=outcome) for hook in hooks if hook.name not in known]
    return [*runs, *made]


def _of(cutover: Cutover) -> QuerySet[HookRun]:
    return HookRun.objects.filter(cutover=cutover, practice=False)


def _overtake(runs: QuerySet[HookRun]) -> None:
    """None of them is called any more; one that is being called gets no further call."""
    pks = list(runs.filter(state__in=HookRun.OPEN).values_list("pk", flat=True))
    mine = HookRun.objects.filter(pk__in=pks)
    mine.filter(state=State.PENDING).update(
        state=State.CANCELLED, finished=timezone.now(), next_at=None, stuck=False
    )
    mine.filter(state=State.RUNNING).update(next_at=None, stuck=False)


def _tell_of_the_abort(situation: Situation, to: Step) -> None:
    """Whoever was told that the ids of this batch would move learns that they stay.

    The hooks after RELEASE, if any hook was called for the batch; and each that was called at FREEZE, because
    what it forbade must be allowed again although no RELEASE follows.
    """
    cutover = situation.cutover
    called = _of(cutover).filter(batch=to.batch, turns=to.turns, calls__gt=0)
    called = called.exclude(moment=Moment.AFTER_RELEASE)
    if not called.exists():
        return
    wanted(situation, Moment.AFTER_RELEASE, to, outcome=Outcome.ABORTED)
    frozen: Iterable[HookRun] = called.filter(moment=Moment.AT_FREEZE).select_related("hook").order_by("pk")
    for hook in {run.hook.pk: run.hook for run in frozen if run.hook is not None}.values():
        hook.moment = Moment.AFTER_RELEASE  # of this call; nothing is saved
        _made(situation, hook, to, outcome=Outcome.ABORTED)


def _made(situation: Situation, hook: Hook, step: Step, *, outcome: str = "") -> HookRun:
    """A run that is wanted now; the call begins after the commit."""
    cutover, now = situation.cutover, timezone.now()
    run = HookRun.objects.create(
        cutover=cutover,
        hook=hook,
        name=hook.name,
        moment=hook.moment,
        outcome=outcome,
        batch=step.batch,
        turns=step.turns,
        epoch=cutover.epoch,
        must_succeed=hook.must_succeed,
        told=messages.about(cutover, situation.plan, step, hook, outcome=outcome),
        started=now,
        next_at=now,
        give_up_at=now + timedelta(seconds=hook.deadline_s),
    )
    jobs.hook(run.pk)
    return run
