"""Who makes a cutover go on: the nodes' own words, and a look at everything once a second.

The words drive it: `heard` runs in the console's process right after the commit of an ack, so that a step
follows at once and needs no broker. The look catches what no word announces, above all deadlines; Celery's
beat, the console's own `watch` and ``manage.py advance_cutovers`` take it, however many of them there are.
"""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog
from django.db import DatabaseError
from django.utils import timezone

from cutover import alarms, checking, plans, progress, steps, stragglers
from cutover.hooks import calling
from cutover.models import Cutover
from cutover.practice import running as practising
from msha.steering.errors import MshaError

#: Statuses come every second from every node; between them a cutover is not looked at more often than this.
STATUS_EVERY_S = 0.2

log = structlog.get_logger(__name__)

_last_look: dict[int, float] = {}
_last_look_lock = threading.Lock()


def heard(sender: object, *, namespace_id: int, kind: str, **_: Any) -> None:
    """What a node said is judged at once: the receiver of `units.signals.node_reported`."""
    if kind == "probe":
        return
    if kind == "status" and not _due(namespace_id):
        return
    for cutover_id in _running(namespace_id):
        # A status seldom passes a gate; looking first spares the lock.
        advance_safely(cutover_id, steps.look if kind == "status" else steps.advance)
    if kind == "status":
        for cutover_id in _lately_ended(namespace_id):
            count_late(cutover_id)


def look_at_everything() -> int:
    """How many cutovers are still running after each was advanced as far as its gates allow."""
    running = 0
    for cutover_id in _running():
        running += advance_safely(cutover_id, steps.look) in Cutover.ACTIVE
    for cutover_id in _lately_ended():
        count_late(cutover_id)
    alarms.settle_undone()
    checking.take_over()
    calling.take_over()
    practising.take_over()
    stragglers.look()
    return running


def advance_safely(cutover_id: int, advance: Callable[[int], str]) -> str:
    """The state after advancing, or "" when that failed: logged, and tried again at the next look."""
    try:
        return advance(cutover_id)
    except (MshaError, DatabaseError, Cutover.DoesNotExist) as error:
        log.error("cutover_not_advanced", cutover_id=cutover_id, error=str(error), exc_info=error)
        return ""


def count_late(cutover_id: int) -> bool:
    """Whether the cutover ended so lately that clients may still be coming back; they have been counted."""
    cutover = Cutover.objects.get(pk=cutover_id)
    if cutover.active:
        return True
    if cutover.ended_at is None or timezone.now() - cutover.ended_at > progress.WATCHED_AFTER_END:
        return False
    progress.observe(cutover, plans.enrolled_nodes(cutover.namespace_id), timezone.now())
    return True


def _running(namespace_id: int | None = None) -> list[int]:
    rows = Cutover.objects.filter(state__in=Cutover.ACTIVE)
    if namespace_id is not None:
        rows = rows.filter(namespace=namespace_id)
    return list(rows.values_list("pk", flat=True))


def _lately_ended(namespace_id: int | None = None) -> list[int]:
    since: timedelta = progress.WATCHED_AFTER_END
    rows = Cutover.objects.filter(
        state__in=(Cutover.State.DONE, Cutover.State.ABORTED), ended_at__gte=timezone.now() - since
    )
    if namespace_id is not None:
        rows = rows.filter(namespace=namespace_id)
    return list(rows.values_list("pk", flat=True))


def _due(namespace_id: int) -> bool:
    """Whether the namespace was not looked at just now by this process because of a status."""
    now = time.monotonic()
    with _last_look_lock:
        if now - _last_look.get(namespace_id, 0.0) < STATUS_EVERY_S:
            return False
        _last_look[namespace_id] = now
        return True
