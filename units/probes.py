"""Questions that the console asks a node over its control stream: prechecks use them, the node answers.

A probe is a row: whoever asks creates it and looks at it again; whichever console holds the node's stream
sends it.
"""

from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone

from msha.steering import wire
from units.models import EdgeNode, Probe
from units.nudge import nudge_namespace
from units.signals import announce, node_reported

#: A probe that nobody could send for so long is not sent any more.
SEND_WITHIN = timedelta(seconds=20)
#: Unanswered probes older than this are expired; rows older than `KEPT` are deleted.
EXPIRE_AFTER = timedelta(seconds=30)
KEPT = timedelta(days=1)


def ask(node: EdgeNode, kind: Probe.Kind, params: dict[str, Any] | None = None) -> Probe:
    """The probe, pending; it is sent at once if the node's stream is up."""
    expire()  # here, because nothing else makes rows: no sweep of its own is needed
    probe = Probe.objects.create(node=node, kind=kind, params=params or {})
    transaction.on_commit(partial(nudge_namespace, node.namespace_id), robust=True)
    return probe


def claim(node_id: int) -> list[Probe]:
    """The pending probes of the node, each marked as sent: another connection does not send it again."""
    claimed = []
    young = timezone.now() - SEND_WITHIN
    for probe in Probe.objects.filter(node_id=node_id, state=Probe.State.PENDING, created__gte=young)[:20]:
        if Probe.objects.filter(pk=probe.pk, state=Probe.State.PENDING).update(state=Probe.State.SENT):
            claimed.append(probe)
    return claimed


def answered(node_id: int, namespace_id: int, message: wire.ProbeResult) -> bool:
    """Whether the answer is stored: it is to a probe of this node that waits for one."""
    waiting = Probe.objects.filter(pk=message.probe, node_id=node_id, state=Probe.State.SENT)
    stored = waiting.update(state=Probe.State.DONE, result=message.result, finished=timezone.now())
    if stored:
        announce(node_reported, EdgeNode, node_id=node_id, namespace_id=namespace_id, kind="probe")
    return bool(stored)


def expire() -> int:
    """How many probes nobody answered in time; those and older ones do not pile up."""
    now = timezone.now()
    waiting = Probe.objects.filter(
        state__in=(Probe.State.PENDING, Probe.State.SENT), created__lt=now - EXPIRE_AFTER
    )
    expired = waiting.update(state=Probe.State.EXPIRED, finished=now)
    Probe.objects.filter(created__lt=now - KEPT).delete()
    return expired
