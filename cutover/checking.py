"""Running the prechecks of a cutover, retrying and skipping them.

A check is claimed by a conditional UPDATE (pending to running, attempt + 1) and its result is written only
for that attempt, so that two workers, or a worker that was thought lost, cannot overwrite each other.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone, translation
from django.utils.translation import gettext

from cutover import jobs, plans, rules, sentences
from cutover.drafts import claim_editable
from cutover.errors import Refused
from cutover.models import Check, Cutover, CutoverEvent
from cutover.prechecks import BY_KEY, PRECHECKS, Precheck, Scene, Verdict
from msha.steering.errors import MshaError
from units import audit, probing, publishing

#: Nobody has begun with a pending check by then: no worker runs. The console does it itself.
PICKED_UP_WITHIN = timedelta(seconds=3)
#: A check that took longer to judge (it waited for DNS) is not judged once more for other languages.
SLOW_JUDGEMENT_S = 1.0
#: A check that runs longer than this was lost with its worker.
LOST_AFTER = timedelta(seconds=20)

State = Check.State
CutoverState = Cutover.State

log = structlog.get_logger(__name__)


def run_prechecks(cutover: Cutover, actor: str) -> None:
    """Every check is pending or running; skips of an earlier run are forgotten.

    Raises:
        Refused: there is no preview yet, or the cutover has started or ended.
    """
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        cutover.refresh_from_db()
        if cutover.state == CutoverState.DRAFT:
            raise Refused(
                gettext("Generate the preview of cutover %(cutover)s first.") % {"cutover": cutover}
            )
        claim_editable(cutover, state=CutoverState.CHECKING)
        cutover.checks.all().delete()
        now = timezone.now()
        with sentences.stored():
            Check.objects.bulk_create(
                [Check(cutover=cutover, key=c.key, title=str(c.title), started=now) for c in PRECHECKS]
            )
        CutoverEvent.objects.create(cutover=cutover, kind="checks", data={"by": actor})
        audit.record(actor, "cutover.check", cutover, namespace=cutover.namespace)
        jobs.prechecks(cutover.pk, [check.key for check in PRECHECKS])
    cutover.refresh_from_db()


def retry_check(cutover: Cutover, key: str, actor: str) -> None:
    """The check is pending again, unless it runs at this moment.

    Raises:
        Refused: the cutover has started or ended, or there is no such check.
    """
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        _the_check(cutover, key)
        claim_editable(cutover, state=CutoverState.CHECKING)
        now = timezone.now()
        lost = Q(state=State.RUNNING, started__lt=now - LOST_AFTER)
        again = cutover.checks.filter(~Q(state=State.RUNNING) | lost, key=key)
        if again.update(
            state=State.PENDING,
            reason="",
            reasons={},
            skipped_by="",
            skip_reason="",
            started=now,
            finished=None,
        ):
            audit.record(actor, "cutover.retry_check", f"{cutover} {key}", namespace=cutover.namespace)
            jobs.prechecks(cutover.pk, [key])
    cutover.refresh_from_db()


def skip_check(cutover: Cutover, key: str, actor: str, reason: str) -> None:
    """The failed check does not stand in the way any more; who skipped it, and why, is kept.

    Raises:
        Refused: no reason, the check has not failed, or it is one without which nothing can start.
    """
    reason = reason.strip()
    if not reason:
        raise Refused(gettext("Give a reason: why may this check be skipped?"))
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        check = _the_check(cutover, key)
        if not BY_KEY[key].skippable:
            raise Refused(
                gettext("“%(title)s” cannot be skipped: the start would be refused all the same.")
                % {"title": BY_KEY[key].title}
            )
        claim_editable(cutover)
        failed = cutover.checks.filter(key=key, state=State.FAILED)
        if not failed.update(state=State.SKIPPED, skipped_by=actor[:150], skip_reason=reason):
            raise Refused(
                gettext("Only a failed check can be skipped; “%(title)s” is %(state)s.")
                % {"title": BY_KEY[key].title, "state": check.get_state_display()}
            )
        data = {"by": actor, "key": key, "title": check.title, "reason": reason}
        CutoverEvent.objects.create(cutover=cutover, kind="skipped", data=data)
        audit.record(
            actor,
            "cutover.skip_check",
            f"{cutover} {key}",
            namespace=cutover.namespace,
            before={"state": State.FAILED, "reason": check.reason},
            after={"state": State.SKIPPED},
            reason=reason,
        )
        _settle(cutover.pk)
    cutover.refresh_from_db()


def run(cutover_id: int, keys: Sequence[str] | None = None) -> None:
    """The pending checks (of these keys) have been run; those that somebody else runs are left alone."""
    cutover = Cutover.objects.select_related("namespace").get(pk=cutover_id)
    claimed = [check for check in PRECHECKS if (keys is None or check.key in keys)]
    attempts = {check.key: _claim(cutover, check.key) for check in claimed}
    claimed = [check for check in claimed if attempts[check.key]]
    if not claimed:
        return
    with sentences.stored():
        for check, verdict in judged(cutover, claimed):
            _write(cutover, check.key, attempts[check.key], verdict)
    _settle(cutover_id)


def take_over() -> None:
    """Checks that no worker has begun with, or that were lost with one, are run by this process."""
    now = timezone.now()
    lost = Check.objects.filter(
        state=State.RUNNING, started__lt=now - LOST_AFTER, cutover__state=CutoverState.CHECKING
    )
    lost.update(state=State.PENDING, started=now - PICKED_UP_WITHIN * 2)
    waiting = Check.objects.filter(
        state=State.PENDING, started__lt=now - PICKED_UP_WITHIN, cutover__state=CutoverState.CHECKING
    )
    for cutover_id in set(waiting.values_list("cutover_id", flat=True)):
        jobs.in_background(partial(run, cutover_id))


def judged(cutover: Cutover, checks: Sequence[Precheck]) -> Iterable[tuple[Precheck, Verdict]]:
    """The verdicts as they become known: first, while nodes think, of the checks that ask them nothing."""
    document = rules.in_effect(cutover.namespace)
    newest = publishing.newest(cutover.namespace)
    assert newest is not None
    scene = Scene(cutover, document, newest, plans.enrolled_nodes(cutover.namespace_id))
    questions = {check.key: _contained_questions(check, scene) for check in checks}
    asked = probing.ask([question for check in checks for question in questions[check.key]])
    quiet = [check for check in checks if not questions[check.key]]
    for check in quiet:
        yield check, _contained(check, scene, [])
    answers = iter(asked.answers())
    for check in checks:
        if check not in quiet:
            answered = [(question, next(answers)) for question in questions[check.key]]
            yield check, _contained(check, scene, answered)


def _contained_questions(check: Precheck, scene: Scene) -> list[probing.Question]:
    try:
        return check.ask(scene)
    except MshaError as error:
        log.warning("check_cannot_ask", key=check.key, error=str(error))
        return []


def _contained(
    check: Precheck, scene: Scene, answers: Sequence[tuple[probing.Question, probing.Answer | None]]
) -> Verdict:
    """The verdict; a check that cannot be made has failed, and the others go on."""
    began = time.monotonic()
    try:
        verdict = check.judge(scene, answers)
        if time.monotonic() - began > SLOW_JUDGEMENT_S:
            return verdict
        return replace(verdict, reasons=_translated(check, scene, answers, verdict.passed))
    except Exception as error:
        log.error("check_broke", key=check.key, cutover=str(scene.cutover), exc_info=error)
        return Verdict(False, gettext("The check itself failed: %(error)s") % {"error": repr(error)})


def _translated(
    check: Precheck,
    scene: Scene,
    answers: Sequence[tuple[probing.Question, probing.Answer | None]],
    passed: bool,
) -> dict[str, str]:
    """The reason by language: judged again from the same answers, because it is made of many sentences."""
    reasons = {}
    for code, _name in settings.LANGUAGES:
        if code == translation.get_language():
            continue
        with translation.override(code):
            again = check.judge(scene, answers)
        if again.passed == passed:  # else the world changed between the two looks; the first one counts
            reasons[code] = again.reason
    return reasons


def _claim(cutover: Cutover, key: str) -> int:
    """The number of the attempt that is ours, or 0."""
    pending = Check.objects.filter(cutover=cutover, key=key, state=State.PENDING)
    if not pending.update(state=State.RUNNING, attempt=F("attempt") + 1, started=timezone.now()):
        return 0
    return Check.objects.values_list("attempt", flat=True).get(cutover=cutover, key=key)


def _write(cutover: Cutover, key: str, attempt: int, verdict: Verdict) -> None:
    mine = Check.objects.filter(cutover=cutover, key=key, state=State.RUNNING, attempt=attempt)
    state = State.PASSED if verdict.passed else State.FAILED
    said = {"reason": verdict.reason, "reasons": verdict.reasons, "amber": verdict.passed and verdict.amber}
    if mine.update(state=state, finished=timezone.now(), **said):
        log.info("check_done", cutover=str(cutover), key=key, state=str(state), reason=verdict.reason)


def _settle(cutover_id: int) -> None:
    """The cutover is checked once no check is open and none failed."""
    with transaction.atomic():
        open_ones = Check.objects.filter(cutover=cutover_id).exclude(state__in=(State.PASSED, State.SKIPPED))
        if not open_ones.exists():
            checked = Cutover.objects.filter(pk=cutover_id, state=CutoverState.CHECKING)
            checked.update(state=CutoverState.CHECKED, updated=timezone.now())


def _the_check(cutover: Cutover, key: str) -> Check:
    check = cutover.checks.filter(key=key).first()
    if check is None or key not in BY_KEY:
        raise Refused(gettext("Cutover %(cutover)s has no check %(key)s.") % {"cutover": cutover, "key": key})
    return check
