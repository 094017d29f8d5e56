"""What hooks keep back: FREEZE before they agreed to it, ACTIVATE until the databases are ready."""

from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext

from cutover.errors import Refused
from cutover.holds import Hold, Then
from cutover.hooks import runs
from cutover.models import Cutover, Hook, HookRun
from cutover.situation import Situation
from msha.steering.phases import Phase, Step

Moment, State = Hook.Moment, HookRun.State

KIND = "hook"


def awaited(situation: Situation, to: Step) -> Hold | None:
    """Until the hooks before this step have answered, it is not taken; their calls begin here.

    Registered last, so that hooks are called only when nothing else holds the step.
    """
    match to.phase:
        case Phase.FREEZE:
            return _batch_before(situation, to) or _moment(situation, Moment.BEFORE_FREEZE, to)
        case Phase.ACTIVATE:
            step = situation.step
            return _moment(situation, Moment.AT_FREEZE, step) or _moment(
                situation, Moment.BEFORE_ACTIVATE, step
            )
        case _:
            return None


def _batch_before(situation: Situation, to: Step) -> Hold | None:
    """The batch that has moved is known to everybody who must know it, before the next one begins.

    On the way back nothing is kept waiting for it.
    """
    if situation.step.phase is not Phase.RELEASE:
        return None
    told = runs.released(situation)
    return None if to.backwards else _hold(situation, [run for run in told if run.must_succeed])


def _moment(situation: Situation, moment: str, step: Step) -> Hold | None:
    return _hold(situation, runs.wanted(situation, moment, step))


def _hold(situation: Situation, of: Iterable[HookRun]) -> Hold | None:
    """The hold of those that are not settled; what failed undoes the batch while that is possible."""
    waiting = [run for run in of if _unsettled(run)]
    failed = [run for run in waiting if run.state == State.FAILED]
    if failed and undoable(situation.cutover, situation.step):
        return Hold(KIND, _facts(failed, answers=True), Then.ABORT)
    return Hold(KIND, _facts(waiting)) if waiting else None


def _unsettled(run: HookRun) -> bool:
    return run.open or (run.state == State.FAILED and run.must_succeed)


def _facts(of: list[HookRun], *, answers: bool = False) -> dict[str, Any]:
    """Who is waited for; without what changes from call to call, because the timeline has it."""
    first = of[0]
    facts = {"hooks": [run.name for run in of], "moment": first.moment, "batch": first.batch}
    return {**facts, "answers": [run.said for run in of]} if answers else facts


def undoable(cutover: Cutover, step: Step) -> bool:
    """Whether a hook that fails in this step makes the cutover undo the batch.

    In an emergency it does not: the unit that would get its ids back is gone.
    """
    return step.phase in (Phase.PREPARE, Phase.FREEZE) and step.turns == 0 and not cutover.emergency


def refuse_while_calls_are_open(cutover: Cutover) -> None:
    """A start is refused while somebody has yet to learn that an earlier cutover is over.

    Raises:
        Refused: names the hook, and says what to do.
    """
    late = (
        HookRun.objects.filter(
            cutover__namespace=cutover.namespace_id,
            practice=False,
            must_succeed=True,
            state__in=HookRun.OPEN,
        )
        .exclude(cutover=cutover)
        .select_related("cutover__namespace")
        .first()
    )
    if late is not None and not late.cutover.active:
        raise Refused(
            gettext(
                "Hook “%(hook)s” has not taken in yet how cutover %(cutover)s ended."
                " Wait for it, or skip the call with a reason."
            )
            % {"hook": late.name, "cutover": late.cutover}
        )
