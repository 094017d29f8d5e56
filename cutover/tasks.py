"""What Celery carries: short, repeatable tasks that take ids and read everything else.

Losing any of them loses nothing: acks advance a cutover in the console's process, and `reconcile` looks every
second at all that is unfinished.
"""

import time

import structlog
from celery import shared_task

from cutover import checking, driving, jobs, steps
from cutover.checks import second_look as look
from cutover.hooks import calling
from cutover.models import Cutover
from cutover.practice import running

#: A task accompanies a cutover for so long, then hands over to the next.
ACCOMPANY_S = 8.0
TICK_S = 0.25
#: Between two looks at clients that come back late; no worker is held meanwhile.
REPORT_EVERY_S = 1.0
#: The last call of a hook begins no later, so that it ends within the time of a task.
HOOK_S = 1.0

log = structlog.get_logger(__name__)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def run_prechecks(cutover_id: int, keys: list[str] | None = None) -> None:
    """Every check of the cutover (or those of the keys) that is still pending has been run."""
    checking.run(cutover_id, keys)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def start(cutover_id: int) -> None:
    """PREPARE is published, or the cutover has ended because its preview is stale."""
    steps.advance(cutover_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def second_look(cutover_id: int, epoch: int) -> None:
    """The checks were made once more for the batch that begins after this epoch."""
    look.make(cutover_id, epoch)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def practise(practice_id: int) -> None:
    """The practice run has its findings."""
    running.make(practice_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def disconnect(cutover_id: int) -> None:
    """The sessions of the moved ids are closed and on their way back, or the next task goes on with it.

    FREEZE is published as soon as PREPARE's gate is passed, and what nodes report is sampled.
    """
    deadline = time.monotonic() + ACCOMPANY_S
    while time.monotonic() < deadline:
        if steps.look(cutover_id) not in Cutover.ACTIVE:
            return
        time.sleep(TICK_S)
    jobs.disconnect(cutover_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def report(cutover_id: int) -> None:
    """Clients that came back after the last step are in the figures; looked at again while more may come."""
    if driving.count_late(cutover_id):
        jobs.report(cutover_id, in_s=REPORT_EVERY_S)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def call_hook(run_id: int) -> None:
    """The hook was called, or it is not due yet; while its run is open, the next task goes on with it."""
    again_s = calling.go_on(run_id, for_s=HOOK_S)
    if again_s is not None:
        jobs.hook(run_id, in_s=again_s)


@shared_task(acks_late=True, reject_on_worker_lost=True, expires=1)
def reconcile() -> None:
    """Whatever is unfinished has been looked at once."""
    driving.look_at_everything()
