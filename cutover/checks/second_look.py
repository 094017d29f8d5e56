"""The checks once more, right before ids are frozen: what was true at the precheck may not be any more.

A look is asked for by the first driver that finds a batch ready to begin, made by a job outside every lock,
and kept in the cutover's figures under the epoch of the step it was made in. Who makes it does not matter,
nor how often: the first result of an epoch counts.
"""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import get_language, gettext, gettext_lazy

from cutover import checking, jobs, sentences
from cutover.holds import Hold, Then, opens_a_batch
from cutover.models import Check, Cutover, CutoverEvent
from cutover.prechecks import BY_KEY, PRECHECKS, Precheck
from cutover.situation import Situation, as_read
from msha.steering.phases import Phase, Step
from units import publishing

#: The rule is compared again when a step is published, and the cutover that runs is this one.
NOT_AGAIN = frozenset({"rule", "exclusive"})

#: What failed is looked at again after so long: an ordinary publish in between, which no node obeys in its
#: first moment, and a status that was late, which makes a clock look wrong, undo no cutover (PROTOCOL C2).
AGAIN_AFTER_S = 1.0

#: A look that nobody has made by then is made by whoever notices; nodes have 4 s for their answers.
_MADE_WITHIN = timedelta(seconds=6)

KIND = "checks"


def looked(situation: Situation, to: Step) -> Hold | None:
    """A batch begins when the checks have passed once more; the first one is undone if they have not.

    A later one waits for an operator: what has moved by then should not go back for a check's sake.
    """
    if not opens_a_batch(to):
        return None
    cutover, look = situation.cutover, situation.cutover.figures.get("look")
    if look is None or look["epoch"] != cutover.epoch:
        _ask(situation, partial(jobs.second_look, cutover.pk, cutover.epoch))
        return Hold(KIND)
    match look["state"]:
        case "passed":
            return None
        case "failed":
            first = situation.step.phase is Phase.PREPARE
            if not first:
                _forget(situation)  # who resumes wants another look
            return Hold(KIND, {"failed": look["failed"]}, Then.ABORT if first else Then.PAUSE)
        case _:
            if situation.now - datetime.fromisoformat(look["at"]) > _MADE_WITHIN:
                again = partial(make, cutover.pk, cutover.epoch)
                _ask(situation, lambda: transaction.on_commit(partial(jobs.in_background, again)))
            return Hold(KIND)


def make(cutover_id: int, epoch: int) -> None:
    """The look of this epoch has a result, and the cutover goes on from it."""
    from cutover.driving import advance_safely
    from cutover.steps import advance

    cutover = Cutover.objects.select_related("namespace").get(pk=cutover_id)
    if not _wanted(cutover, epoch):
        return
    skipped = set(cutover.checks.filter(state=Check.State.SKIPPED).values_list("key", flat=True))
    checks = [check for check in PRECHECKS if check.key not in NOT_AGAIN | skipped]
    failed = _failed(cutover, checks)
    if failed:
        time.sleep(AGAIN_AFTER_S)
        failed = _failed(cutover, [BY_KEY[one["key"]] for one in failed])
    _keep(cutover, epoch, failed)
    advance_safely(cutover_id, advance)


def _failed(cutover: Cutover, checks: Sequence[Precheck]) -> list[dict[str, Any]]:
    """What the checks that do not pass now say."""
    with sentences.stored():
        verdicts = list(checking.judged(cutover, checks))
    return [
        {"key": check.key, "reason": verdict.reason, "reasons": verdict.reasons}
        for check, verdict in verdicts
        if not verdict.passed
    ]


def said(facts: dict[str, Any]) -> str:
    """What the look found, or that it is being made."""
    if not facts.get("failed"):
        return gettext("The checks are made once more before ids are frozen.")
    told = "; ".join(
        f"{BY_KEY[one['key']].title if one['key'] in BY_KEY else one['key']}:"
        f" {one['reasons'].get(get_language() or '', one['reason'])}"
        for one in facts["failed"]
    )
    return gettext("Checked once more before ids are frozen, and not passed: %(told)s") % {"told": told}


def _wanted(cutover: Cutover, epoch: int) -> bool:
    look = cutover.figures.get("look", {})
    return cutover.active and cutover.epoch == epoch == look.get("epoch") and look["state"] == "asked"


def _ask(situation: Situation, hand_over: Any) -> None:
    _store(situation.cutover, {"epoch": situation.cutover.epoch, "state": "asked", "at": _iso(situation.now)})
    hand_over()


def _forget(situation: Situation) -> None:
    _store(situation.cutover, None)


def _keep(cutover: Cutover, epoch: int, failed: list[dict[str, Any]]) -> None:
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        cutover.refresh_from_db()
        if not _wanted(cutover, epoch):
            return
        state = "failed" if failed else "passed"
        _store(cutover, {"epoch": epoch, "state": state, "at": _iso(timezone.now()), "failed": failed})
        CutoverEvent.objects.create(cutover=cutover, kind="looked", data={"failed": failed})


def _store(cutover: Cutover, look: dict[str, Any] | None) -> None:
    """Under the namespace's lock."""
    figures = {name: value for name, value in cutover.figures.items() if name != "look"}
    cutover.figures = figures if look is None else {**figures, "look": look}
    as_read(cutover).update(figures=cutover.figures)


def _iso(moment: datetime) -> str:
    return moment.isoformat()


#: The line of the timeline for a look that found nothing wrong.
PASSED = gettext_lazy("Checked once more: nothing has changed for the worse")
