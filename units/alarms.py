"""Alarms: what an operator must look at, raised once and cleared when it is over."""

import structlog
from django.db import IntegrityError, transaction
from django.utils import timezone

from units.models import Alarm

log = structlog.get_logger(__name__)


def raise_alarm(namespace_id: int, kind: str, sentence: str, subject: str = "") -> Alarm:
    """The one uncleared alarm of this kind and subject, with the sentence it was first raised with."""
    raised = Alarm.objects.filter(namespace_id=namespace_id, kind=kind, subject=subject, cleared_at=None)
    alarm = raised.first()
    if alarm is not None:
        return alarm
    try:
        with transaction.atomic():
            alarm = Alarm.objects.create(
                namespace_id=namespace_id, kind=kind, subject=subject, sentence=sentence
            )
    except IntegrityError:  # somebody else was faster
        return raised.get()
    log.warning("alarm_raised", namespace_id=namespace_id, kind=kind, subject=subject, sentence=sentence)
    return alarm


def clear_alarm(namespace_id: int, kind: str, subject: str | None = None) -> int:
    """How many alarms of this kind (of all subjects, or of one) were uncleared and are cleared now."""
    alarms = Alarm.objects.filter(namespace_id=namespace_id, kind=kind, cleared_at=None)
    if subject is not None:
        alarms = alarms.filter(subject=subject)
    cleared = alarms.update(cleared_at=timezone.now())
    if cleared:
        log.info("alarm_cleared", namespace_id=namespace_id, kind=kind, subject=subject or "")
    return cleared
