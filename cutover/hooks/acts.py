"""What an operator may do about a call that does not come to its end."""

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from cutover import alarms
from cutover.errors import Refused
from cutover.hooks import calling
from cutover.models import Cutover, HookRun
from cutover.steps import advance
from units import audit, publishing

State = HookRun.State


def skippable(run: HookRun) -> bool:
    """Whether skipping it would change anything."""
    return not run.practice and (
        run.open or (run.state == State.FAILED and run.must_succeed and run.cutover.active)
    )


def skip_hook(cutover: Cutover, name: str, actor: str, reason: str) -> Cutover:
    """Nothing waits for the open calls of this hook any more, and no further one is made.

    Raises:
        Refused: no reason, or the hook has no open call in this cutover.
    """
    reason = reason.strip()
    if not reason:
        raise Refused(gettext("Give a reason: why may this hook be skipped?"))
    with transaction.atomic():
        namespace = publishing.locked(cutover.namespace_id)
        cutover = Cutover.objects.select_related("namespace").get(pk=cutover.pk)
        runs = cutover.hook_runs.select_related("cutover").filter(name=name, practice=False)
        skipped = [run for run in runs if skippable(run) and _skipped(run, actor, reason)]
        if not skipped:
            raise Refused(_nothing_to_skip(cutover, name))
        for run in skipped:
            calling.note(run, State.SKIPPED, run.said, by=actor, reason=reason)
            audit.record(
                actor,
                "cutover.skip_hook",
                f"{cutover} {name}",
                namespace=namespace,
                before={"state": run.state, "moment": run.moment, "batch": run.batch, "calls": run.calls},
                after={"state": State.SKIPPED},
                reason=reason,
            )
    alarms.settle_hooks()
    if cutover.active:
        advance(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def _skipped(run: HookRun, actor: str, reason: str) -> bool:
    """Whether the row is skipped by this; a call that is under way keeps its lease until it has ended."""
    rows = HookRun.objects.filter(pk=run.pk, state__in=(*HookRun.OPEN, State.FAILED))
    updated = rows.update(
        state=State.SKIPPED,
        stuck=False,
        next_at=None,
        skipped_by=actor[:150],
        skip_reason=reason,
        finished=timezone.now(),
    )
    return updated == 1


def _nothing_to_skip(cutover: Cutover, name: str) -> str:
    words = {"cutover": cutover, "name": name}
    waiting = sorted({run.name for run in cutover.hook_runs.select_related("cutover") if skippable(run)})
    if waiting:
        return gettext("Hook “%(name)s” is not waited for in cutover %(cutover)s; %(waiting)s is.") % {
            **words,
            "waiting": ", ".join(f"“{one}”" for one in waiting),
        }
    return gettext("Hook “%(name)s” is not waited for in cutover %(cutover)s.") % words
