"""Alarms: what an operator must look at, raised once and cleared when it is over.

Raising and clearing also write down whom webhooks have to tell, in the same transaction; `units.alarm_calls`
tells them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from units.models import Alarm, AlarmDelivery, AlarmTarget

#: Makes the sentence of an alarm in the reader's language.
Sayer = Callable[[Alarm], str]

log = structlog.get_logger(__name__)

_sayers: dict[str, Sayer] = {}


def raise_alarm(
    namespace_id: int,
    kind: str,
    sentence: str,
    subject: str = "",
    *,
    facts: Mapping[str, Any] | None = None,
    except_to: AlarmTarget | None = None,
) -> Alarm:
    """The one uncleared alarm of this kind and subject, with the sentence it was first raised with.

    Args:
        sentence: in English; logs, metrics and webhooks have it.
        facts: what `said` makes the sentence from, for people.
        except_to: a target that is not told.
    """
    raised = Alarm.objects.filter(namespace_id=namespace_id, kind=kind, subject=subject, cleared_at=None)
    alarm = raised.first()
    if alarm is not None:
        return alarm
    try:
        with transaction.atomic():
            alarm = Alarm.objects.create(
                namespace_id=namespace_id,
                kind=kind,
                subject=subject,
                sentence=sentence,
                facts=dict(facts or {}),
            )
            targets = AlarmTarget.objects.filter(
                Q(namespace=None) | Q(namespace=namespace_id), enabled=True
            ).exclude(pk=0 if except_to is None else except_to.pk)
            _tell(alarm, targets, AlarmDelivery.Event.RAISED)
    except IntegrityError:  # somebody else was faster
        return raised.get()
    log.warning("alarm_raised", namespace_id=namespace_id, kind=kind, subject=subject, sentence=sentence)
    return alarm


def clear_alarm(namespace_id: int, kind: str, subject: str | None = None) -> int:
    """How many alarms of this kind (of all subjects, or of one) were uncleared and are cleared now."""
    alarms = Alarm.objects.filter(namespace_id=namespace_id, kind=kind, cleared_at=None)
    if subject is not None:
        alarms = alarms.filter(subject=subject)
    cleared = sum(_clear(alarm) for alarm in alarms)
    if cleared:
        log.info("alarm_cleared", namespace_id=namespace_id, kind=kind, subject=subject or "")
    return cleared


def _clear(alarm: Alarm) -> bool:
    """Whether it was uncleared until now; those who were told of it are told so."""
    with transaction.atomic():
        if not Alarm.objects.filter(pk=alarm.pk, cleared_at=None).update(cleared_at=timezone.now()):
            return False
        told = AlarmTarget.objects.filter(
            deliveries__alarm=alarm, deliveries__event=AlarmDelivery.Event.RAISED, enabled=True
        )
        _tell(alarm, told, AlarmDelivery.Event.CLEARED)
    return True


def _tell(alarm: Alarm, targets: Any, event: AlarmDelivery.Event) -> None:
    AlarmDelivery.objects.bulk_create(
        [AlarmDelivery(target=target, alarm=alarm, event=event) for target in targets]
    )


def register_sayer(kind: str, sayer: Sayer) -> None:
    """Alarms of this kind are said by the sayer."""
    _sayers[kind] = sayer


def said(alarm: Alarm) -> str:
    """The alarm in the reader's language where its facts are known; as it was stored otherwise."""
    sayer = _sayers.get(alarm.kind)
    return alarm.sentence if sayer is None else sayer(alarm)
