"""Alarms reach their targets by webhooks: tried until they are taken, for a day, by whoever looks first.

Every console looks once a second, and Celery where there is one. A claim with a lease sees to it that no two
of them call at once; who dies while he calls leaves the rest to the next, under the same id.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db import connections
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone, translation
from django.utils.translation import gettext

from units import webhooks
from units.alarms import clear_alarm, raise_alarm, register_sayer
from units.models import Alarm, AlarmDelivery, AlarmTarget, Namespace
from units.webhooks import CallFailed

State, Event = AlarmDelivery.State, AlarmDelivery.Event

#: The kind of the alarm that a target could not be told of another one.
UNTOLD = "alarm_not_delivered"

CALL_S = 10.0
#: Longer than a call can take.
LEASE = timedelta(seconds=30)
FIRST_RETRY = timedelta(seconds=5)
LONGEST_WAIT = timedelta(hours=1)
GIVES_UP_AFTER = timedelta(days=1)
#: Targets that are called at the same time by one process.
AT_ONCE = 8

log = structlog.get_logger(__name__)

_busy: set[int] = set()
_busy_lock = threading.Lock()


def look() -> int:
    """How many targets had something due; each was called in turn, in this thread."""
    targets = _due_by_target()
    for pks in targets.values():
        _call_all(pks)
    return len(targets)


def look_beside(pool: ThreadPoolExecutor) -> None:
    """As `look`, but nobody waits, and a target that is slow holds up no other one."""
    for target, pks in _due_by_target().items():
        with _busy_lock:
            if target in _busy:
                continue
            _busy.add(target)
        pool.submit(_one_target, target, pks)


def _one_target(target: int, pks: list[UUID]) -> None:
    try:
        _call_all(pks)
    except Exception as error:  # whatever it was, the row is still there and the next look finds it
        log.error("alarm_call_failed", target_id=target, exc_info=error)
    finally:
        with _busy_lock:
            _busy.discard(target)
        connections.close_all()


def _due_by_target() -> dict[int, list[UUID]]:
    now = timezone.now()
    unclaimed = Q(claimed_until=None) | Q(claimed_until__lt=now)
    #: That an alarm is over is told after that it was raised.
    earlier = AlarmDelivery.objects.filter(
        target=OuterRef("target"), alarm=OuterRef("alarm"), event=Event.RAISED, state=State.PENDING
    )
    rows = AlarmDelivery.objects.filter(
        unclaimed, state=State.PENDING, next_at__lte=now, target__enabled=True
    ).exclude(Exists(earlier), event=Event.CLEARED)
    due: dict[int, list[UUID]] = {}
    for target, pk in rows.order_by("created").values_list("target", "pk"):
        due.setdefault(target, []).append(pk)
    return due


def _call_all(pks: Iterable[UUID]) -> None:
    """One after the other, to the first that fails: the rest would not fare better, and waits its turn."""
    for pk in pks:
        if not attempt(pk):
            return


def attempt(pk: UUID) -> bool:
    """Whether the delivery is at its target now, after one call at most."""
    now = timezone.now()
    until = now + LEASE
    free = Q(claimed_until=None) | Q(claimed_until__lt=now)
    mine = AlarmDelivery.objects.filter(free, pk=pk, state=State.PENDING)
    if mine.update(claimed_until=until, calls=F("calls") + 1) != 1:
        return False  # somebody else calls, or has called
    delivery = AlarmDelivery.objects.select_related("target", "alarm__namespace").get(pk=pk)
    try:
        answer = webhooks.call(
            delivery.target.url,
            delivery.target.secret,
            payload(delivery),
            delivery=str(delivery.pk),
            timeout_s=CALL_S,
        )
        taken, told = answer.ok, str(answer)
    except CallFailed as error:
        taken, told = False, str(error)
    _settle(delivery, until, taken, told)
    return taken


def payload(delivery: AlarmDelivery) -> dict[str, Any]:
    """What the target is told; the same at every attempt."""
    alarm = delivery.alarm
    told: dict[str, Any] = {"delivery": str(delivery.pk), "event": delivery.event, "alarm": None}
    if alarm is not None:
        cleared = alarm.cleared_at if delivery.event == Event.CLEARED else None
        told["alarm"] = {
            "id": alarm.pk,
            "namespace": alarm.namespace.name,
            "kind": alarm.kind,
            "subject": alarm.subject,
            "sentence": alarm.sentence,
            "raised_at": alarm.raised_at.isoformat(),
            "cleared_at": None if cleared is None else cleared.isoformat(),
        }
    return told


def test(target: AlarmTarget) -> AlarmDelivery:
    """A test that was sent to the target just now, once; its row says what came of it."""
    delivery = AlarmDelivery.objects.create(target=target, event=Event.TEST)
    attempt(delivery.pk)
    delivery.refresh_from_db()
    return delivery


def _settle(delivery: AlarmDelivery, claimed_until: Any, taken: bool, told: str) -> None:
    """The row says what came of the call, unless the claim has meanwhile gone to somebody else."""
    now = timezone.now()
    mine = AlarmDelivery.objects.filter(pk=delivery.pk, claimed_until=claimed_until, state=State.PENDING)
    last_at = delivery.created + GIVES_UP_AFTER
    if taken:
        done = mine.update(state=State.DELIVERED, answer=told, claimed_until=None, finished=now)
        if done and delivery.alarm is not None:
            _reachable(delivery.target)
    elif now >= last_at or delivery.event == Event.TEST:
        done = mine.update(state=State.GAVE_UP, answer=told, claimed_until=None, finished=now)
        if done and delivery.alarm is not None:
            _given_up(delivery, told)
    else:
        next_at = min(now + wait_after(delivery.calls), last_at)
        mine.update(answer=told, claimed_until=None, next_at=next_at)
        log.warning(
            "alarm_not_delivered",
            target=delivery.target.name,
            calls=delivery.calls,
            answer=told,
            again=next_at,
        )


def wait_after(calls: int) -> timedelta:
    """How long nothing is tried after so many calls."""
    return min(FIRST_RETRY * 2 ** min(calls - 1, 20), LONGEST_WAIT)


def _given_up(delivery: AlarmDelivery, told: str) -> None:
    """That nobody was told of an alarm is an alarm itself; the other targets and the pages have it."""
    assert delivery.alarm is not None
    facts = {"target": delivery.target.name, "alarm": delivery.alarm.sentence, "answer": told}
    with translation.override("en"):
        sentence = _sentence(facts)
    log.error("alarm_given_up", target=delivery.target.name, calls=delivery.calls, answer=told)
    raise_alarm(
        delivery.alarm.namespace_id,
        UNTOLD,
        sentence,
        delivery.target.name,
        facts=facts,
        except_to=delivery.target,
    )


def _reachable(target: AlarmTarget) -> None:
    named = Namespace.objects.filter(
        alarms__kind=UNTOLD, alarms__subject=target.name, alarms__cleared_at=None
    )
    for pk in set(named.values_list("pk", flat=True)):
        clear_alarm(pk, UNTOLD, target.name)


def _sentence(facts: dict[str, Any]) -> str:
    return gettext(
        "Alarm target %(target)s was not told for a day, and is not tried any more: it %(answer)s."
        " What it was not told: %(alarm)s"
    ) % {"target": facts["target"], "answer": facts["answer"], "alarm": facts["alarm"]}


def _said(alarm: Alarm) -> str:
    return _sentence(alarm.facts) if alarm.facts else alarm.sentence


register_sayer(UNTOLD, _said)

#: What a thread of its own runs once a second.
Look = Callable[[], object]


def looking_beside() -> Look:
    """What to call once a second in a process that serves: it never waits for a target."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="alarm-call")
    return lambda: look_beside(pool)
