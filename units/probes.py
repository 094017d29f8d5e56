"""What becomes of a question to a node on its control stream: claimed, sent, answered, or too late.

A probe is a row: whoever asks (`units.probing`) creates it and looks at it again; whichever console holds the
node's stream sends it.
"""

from datetime import timedelta

from django.utils import timezone

from msha.steering import wire
from units.models import EdgeNode, Probe
from units.signals import announce, node_reported

#: A probe that nobody could send for so long is not sent any more.
SEND_WITHIN = timedelta(seconds=20)
#: Unanswered probes older than this are expired; rows older than `KEPT` are deleted.
EXPIRE_AFTER = timedelta(seconds=30)
KEPT = timedelta(days=1)
#: Of one node; the rest follows with the next look. A precheck asks a node about every back-source there is.
CLAIMED_AT_ONCE = 200


def claim(node_id: int) -> list[Probe]:
    """The pending probes of the node, each marked as sent: another connection does not send it again."""
    claimed = []
    young = timezone.now() - SEND_WITHIN
    waiting = Probe.objects.filter(node_id=node_id, state=Probe.State.PENDING, created__gte=young)
    for probe in waiting.order_by("pk")[:CLAIMED_AT_ONCE]:  # what was asked first is sent first
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
