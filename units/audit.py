"""The append-only record of who did what to what."""

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from units.models import AuditEvent, Namespace


def record(
    actor: object,
    action: str,
    target: object,
    *,
    namespace: Namespace | None = None,
    before: Any = None,
    after: Any = None,
    reason: str = "",
) -> AuditEvent:
    """The event, stored; call it in the transaction that makes the change, so that neither is there alone.

    Args:
        actor: a user, or the name of a part of the product that acts by itself (``"node edge-bj-1"``).
        action: noun and verb, as ``domain.update``; a stable word for searches.
        before, after: JSON values; dates and UUIDs are written as text.
    """
    return AuditEvent.objects.create(
        actor=str(actor)[:150],
        action=action,
        target=str(target)[:300],
        namespace=namespace,
        before=_plain(before),
        after=_plain(after),
        reason=reason,
    )


def _plain(value: Any) -> Any:
    return None if value is None else json.loads(json.dumps(value, cls=DjangoJSONEncoder))
