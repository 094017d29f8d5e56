"""A practice run from the asking to its findings; the cutover itself stays as it is."""

from datetime import timedelta
from functools import partial

import structlog
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from cutover import jobs, previews, rules
from cutover.errors import Refused, StalePreview
from cutover.models import Cutover, Practice
from cutover.practice import parts
from units import audit, publishing

#: Nobody has begun by then: no worker runs. Whoever looks makes the run.
_PICKED_UP_WITHIN = timedelta(seconds=3)
#: A run that takes longer was lost with its worker.
_LOST_AFTER = timedelta(minutes=2)

State = Practice.State

log = structlog.get_logger(__name__)


def practise(cutover: Cutover, actor: str) -> Practice:
    """A practice run of the cutover is on its way.

    Raises:
        StalePreview: the tables in effect are not those of the preview.
        Refused: there is no preview, the cutover has started, or another practice of it runs.
    """
    with transaction.atomic():
        namespace = publishing.locked(cutover.namespace_id)
        cutover.refresh_from_db()
        if not cutover.editable or cutover.state == Cutover.State.DRAFT:
            raise Refused(
                gettext("Cutover %(cutover)s is %(state)s: only one with a preview can be practised.")
                % {"cutover": cutover, "state": cutover.get_state_display()}
            )
        if previews.is_stale(cutover, rules.in_effect(namespace)):
            raise StalePreview(
                gettext("The rule in effect has changed since the preview. Generate the preview again.")
            )
        if cutover.practices.filter(state=State.RUNNING).exists():
            raise Refused(gettext("A practice run of this cutover is under way. Wait for its findings."))
        practice = Practice.objects.create(cutover=cutover, by=actor[:150])
        audit.record(actor, "cutover.practise", cutover, namespace=namespace)
        jobs.practise(practice.pk)
    return practice


def make(practice_id: int) -> None:
    """The run has its findings; whoever comes second does nothing."""
    mine = Practice.objects.filter(pk=practice_id, state=State.RUNNING, findings={})
    if mine.update(findings={"begun": timezone.now().isoformat()}) != 1:
        return
    practice = Practice.objects.select_related("cutover__namespace").get(pk=practice_id)
    try:
        findings = parts.found(practice.cutover)
    except Exception as error:  # whatever broke is a finding; nothing was moved
        log.error("practice_broke", practice=practice_id, exc_info=error)
        findings = {"error": repr(error), "obstacles": 1}
    state = State.FAILED if findings["obstacles"] else State.DONE
    running = Practice.objects.filter(pk=practice_id, state=State.RUNNING)
    running.update(state=state, findings=findings, finished=timezone.now())
    log.info("practice_done", cutover=str(practice.cutover), state=str(state))


def take_over() -> None:
    """Runs that no worker has begun with are made by this process; those that were lost have failed."""
    now = timezone.now()
    running = Practice.objects.filter(state=State.RUNNING)
    lost = {"error": gettext("The run was lost with its worker. Practise again."), "obstacles": 1}
    running.filter(started__lt=now - _LOST_AFTER).update(state=State.FAILED, findings=lost, finished=now)
    waiting = running.filter(started__lt=now - _PICKED_UP_WITHIN, findings={})
    for practice_id in waiting.values_list("pk", flat=True):
        jobs.in_background(partial(make, practice_id))
