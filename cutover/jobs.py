"""Handing work to Celery, without ever depending on it.

Enqueuing happens after the commit, in a thread of its own, because a broker that is down or silent must
neither fail nor hold up the act that wanted the work. What could not be handed over is done in that thread;
what got lost later is found by the reconcile tick or by the console's own watch.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from django.conf import settings
from django.db import connections, transaction

log = structlog.get_logger(__name__)

Task = Any


def prechecks(cutover_id: int, keys: list[str]) -> None:
    """The checks are being run."""
    from cutover import checking, tasks

    _hand_over(tasks.run_prechecks, (cutover_id, keys), partial(checking.run, cutover_id, keys))


def start(cutover_id: int) -> None:
    """The first step is being taken."""
    from cutover import steps, tasks

    _hand_over(tasks.start, (cutover_id,), partial(steps.advance, cutover_id))


def second_look(cutover_id: int, epoch: int) -> None:
    """The checks are being made once more."""
    from cutover import tasks
    from cutover.checks import second_look as look

    _hand_over(tasks.second_look, (cutover_id, epoch), partial(look.make, cutover_id, epoch))


def practise(practice_id: int) -> None:
    """The practice run is being made."""
    from cutover import tasks
    from cutover.practice import running

    _hand_over(tasks.practise, (practice_id,), partial(running.make, practice_id))


def disconnect(cutover_id: int) -> None:
    """The disconnect is accompanied: FREEZE as soon as it may follow, and the curve of its progress."""
    from cutover import tasks

    _hand_over(tasks.disconnect, (cutover_id,), _nothing)  # acks and the watch do the same by themselves


def report(cutover_id: int, in_s: float = 0.0) -> None:
    """Clients that come back after the end are counted, too, beginning so much later."""
    from cutover import tasks

    _hand_over(tasks.report, (cutover_id,), _nothing, in_s)


def hook(run_id: int, in_s: float = 0.0) -> None:
    """The hook is being called, beginning so much later, and again until its run is settled."""
    from cutover import tasks
    from cutover.hooks import calling

    _hand_over(tasks.call_hook, (run_id,), partial(calling.go_on, run_id), in_s)


def _nothing() -> None:
    return None


def _hand_over(task: Task, args: tuple[Any, ...], otherwise: Callable[[], object], in_s: float = 0.0) -> None:
    transaction.on_commit(partial(in_background, partial(send, task, args, otherwise, in_s)))


def in_background(work: Callable[[], object]) -> None:
    """The work is being done in a thread of its own; what it raises is logged."""
    threading.Thread(target=_contained, args=(work,), name="cutover-job", daemon=True).start()


def _contained(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:  # the end of a thread: nobody above could hear of it
        log.error("cutover_job_failed", error=repr(error), exc_info=error)
    finally:
        connections.close_all()


def send(task: Task, args: tuple[Any, ...], otherwise: Callable[[], object], in_s: float = 0.0) -> None:
    """The broker has the task, or `otherwise` was done here."""
    if settings.CELERY_BROKER_URL.startswith("memory:"):  # no broker is configured
        otherwise()
        return
    try:
        task.apply_async(args=args, countdown=in_s or None, retry=False)
    except Exception as error:  # noqa: BLE001  whatever the broker does, the act that wanted this is done
        log.warning("job_not_enqueued", task=task.name, args=args, error=repr(error))
        otherwise()
