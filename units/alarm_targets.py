"""Whom webhooks tell of alarms: kept, changed and removed, with an audit event that never has the secret."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from units import audit
from units.errors import Refused
from units.models import AlarmDelivery, AlarmTarget


def save(target: AlarmTarget, *, actor: object) -> None:
    """The target is told of alarms that are raised from now on.

    Raises:
        Refused: a value of it is none.
    """
    try:
        target.full_clean()
    except ValidationError as error:
        raise Refused("; ".join(f"{name}: {' '.join(told)}" for name, told in _told(error))) from error
    with transaction.atomic():
        before = AlarmTarget.objects.filter(pk=target.pk).first()
        target.save()
        was, now = (None if before is None else value(before)), value(target)
        changed = before is None or before.secret != target.secret
        if was != now or changed:
            audit.record(
                actor,
                f"alarm_target.{'create' if before is None else 'update'}",
                target.name,
                namespace=target.namespace,
                before=was,
                after={**now, "new_secret": changed},
            )


def remove(target: AlarmTarget, *, actor: object) -> None:
    """Nobody is told there any more; what was on its way is given up."""
    with transaction.atomic():
        before, name, namespace = value(target), target.name, target.namespace
        target.delete()
        audit.record(actor, "alarm_target.delete", name, namespace=namespace, before=before)


def value(target: AlarmTarget) -> dict[str, Any]:
    """The target as programs and the audit record have it."""
    return {
        "name": target.name,
        "namespace": target.namespace.name if target.namespace else "",
        "url": target.url,
        "enabled": target.enabled,
    }


def last_told(target: AlarmTarget) -> AlarmDelivery | None:
    """What was tried last there."""
    return target.deliveries.filter(calls__gt=0).order_by("-created").first()


def _told(error: ValidationError) -> list[tuple[str, list[str]]]:
    return [(name, list(told)) for name, told in error.message_dict.items()]
