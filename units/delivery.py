"""What a console still owes a node: the newest snapshot, the news that it was declared dead, probes."""

from dataclasses import dataclass, field

from units import probes
from units.enrolment import Delivery
from units.models import EdgeNode, Probe, Snapshot


@dataclass(frozen=True, slots=True)
class Due:
    """What to send now.

    Attributes:
        superseded: a newer connection has taken over; this one should end.
        outside: the node is not enrolled.
        revoked: the reason it was declared dead, or None.
        delivery: the newest snapshot, if it is newer than what the node acked and what was sent.
    """

    superseded: bool = False
    outside: bool = False
    revoked: str | None = None
    delivery: Delivery | None = None
    probes: list[Probe] = field(default_factory=list)


def due(node_id: int, connection_id: str, sent: int) -> Due:
    """Everything that this connection should send now, judged from the database alone.

    Args:
        sent: the newest version that need not be sent (again) on this connection.
    """
    node = EdgeNode.objects.select_related("namespace").get(pk=node_id)
    if node.state == EdgeNode.State.DEAD:
        return Due(revoked=node.declared_dead_reason)
    if node.connection_id != connection_id:
        return Due(superseded=True)
    asked = probes.claim(node_id)
    if not node.enrolled:
        return Due(outside=True, probes=asked)
    newest = node.namespace.version
    # What it acked once it may have lost since: a torn file, an emptied directory.
    has = min(node.applied_version, node.reported_version)
    if node.namespace.publishing_stopped or newest <= max(sent, has):
        return Due(probes=asked)
    snapshot = Snapshot.objects.get(namespace_id=node.namespace_id, version=newest)
    return Due(delivery=Delivery(node.enrolment, newest, snapshot.digest, snapshot.body), probes=asked)
