"""What a node says on its control stream, stored by conditional UPDATEs (PROTOCOL 4).

An ack counts only for the enrolment it names and only for a version and digest that were published; a drained
only for an epoch that was acked before. Whatever does not fit is ignored: it was late, or meant for another
time.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from msha.steering import wire
from units import fleet
from units.models import EdgeNode, Namespace, Snapshot
from units.signals import announce, node_reported

log = structlog.get_logger(__name__)

#: What the column holds; a clock that is further off than 24 days is shown as 24 days.
MOST_SKEW_MS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What the console makes of a status.

    Attributes:
        state: of the node's row, or None when a newer connection has taken over.
        version, digest: the newest ones, read in this transaction; 0 and empty when nothing is published, or
            when the database may not know the newest.
    """

    state: str | None
    version: int
    digest: str


def ack(node_id: int, namespace_id: int, message: wire.Ack) -> bool:
    """Whether the ack counts: under its enrolment the node has the version on disk and in every worker."""
    published = Snapshot.objects.filter(
        namespace_id=namespace_id, version=message.version, digest=message.digest, epoch=message.epoch
    )
    counted = _enrolled(node_id, message.enrolment).filter(
        Exists(published), applied_version__lte=message.version, applied_epoch__lte=message.epoch
    )
    with transaction.atomic():
        fits = counted.update(
            applied_version=message.version,
            applied_digest=message.digest,
            applied_epoch=message.epoch,
            reported_version=message.version,
            reported_digest=message.digest,
            reported_epoch=message.epoch,
        )
        _announce(node_id, namespace_id, "ack", fits)
    if not fits:
        fleet.notice(node_id, message.version, message.digest)
    return bool(fits)


def nack(node_id: int, namespace_id: int, message: wire.Nack) -> bool:
    """Whether the refusal is stored, with its reason, for the node's page."""
    with transaction.atomic():
        fits = _enrolled(node_id, message.enrolment).update(
            nack_version=message.version,
            nack_reason=message.reason[:2000],
            nack_at=timezone.now(),
            confirmed_at=None,
        )
        _announce(node_id, namespace_id, "nack", fits)
    log.warning("snapshot_refused", node_id=node_id, version=message.version, reason=message.reason)
    return bool(fits)


def drained(node_id: int, namespace_id: int, message: wire.Drained) -> bool:
    """Whether it counts: no session and no half-open handshake of an id frozen in this epoch is left."""
    with transaction.atomic():
        fits = (
            _enrolled(node_id, message.enrolment)
            .filter(drained_epoch__lt=message.epoch, applied_epoch__gte=message.epoch)
            .update(drained_epoch=message.epoch)
        )
        _announce(node_id, namespace_id, "drained", fits)
    return bool(fits)


def workers_exited(node_id: int, namespace_id: int, message: wire.WorkersExited) -> bool:
    """Whether it counts: with this epoch's snapshot on disk, the node has no worker left (PROTOCOL J4)."""
    published = Namespace.objects.filter(pk=OuterRef("namespace_id"), epoch__gte=message.epoch)
    with transaction.atomic():
        fits = (
            _enrolled(node_id, message.enrolment)
            .filter(Exists(published), workers_exited_epoch__lt=message.epoch)
            .update(workers_exited_epoch=message.epoch)
        )
        _announce(node_id, namespace_id, "workers_exited", fits)
    return bool(fits)


def status(node_id: int, namespace_id: int, connection_id: str, message: wire.Status) -> Answer:
    """The status is stored, and what to confirm was read in the same transaction: a SELECT, an UPDATE."""
    now = timezone.now()
    with transaction.atomic():
        row = _newest(node_id)
        fields = _observed(message, now)
        known = row["stopped"] == "" and row["state"] == EdgeNode.State.ENROLLED
        version, digest = (row["version"], row["digest"]) if known else (0, "")
        if version and (message.version, message.digest) == (version, digest):
            fields["confirmed_at"] = now
        mine = EdgeNode.objects.filter(pk=node_id, connection_id=connection_id).update(**fields)
        _announce(node_id, namespace_id, "status", mine)
    ahead = message.version > row["version"] or (
        message.version == row["version"] and message.digest != row["digest"]
    )
    if ahead and fleet.notice(node_id, message.version, message.digest):
        version, digest = 0, ""
    return Answer(row["state"] if mine else None, version, digest)


def _newest(node_id: int) -> dict[str, Any]:
    newest = Snapshot.objects.filter(
        namespace_id=OuterRef("namespace_id"), version=OuterRef("namespace__version")
    ).values("digest")
    return dict(
        EdgeNode.objects.values(
            "state",
            version=F("namespace__version"),
            stopped=F("namespace__publishing_stopped"),
            digest=Coalesce(Subquery(newest), Value("")),
        ).get(pk=node_id)
    )


def _observed(message: wire.Status, now: datetime) -> dict[str, Any]:
    skew_ms = message.clock_ms - round(now.timestamp() * 1000)
    return {
        "connected": True,
        "status_at": now,
        "reported_version": message.version,
        "reported_digest": message.digest[:64],
        "reported_epoch": max(message.epoch, 0),
        "workers": message.workers,
        "listening": message.listening,
        "parked": message.parked,
        "draining": message.draining,
        "sessions": message.sessions,
        "half_open": message.half_open,
        "clock_skew_ms": max(-MOST_SKEW_MS, min(MOST_SKEW_MS, skew_ms)),
        "counters": {**message.counters, "held": message.held},
        "phase_progress": message.progress,
    }


def _enrolled(node_id: int, enrolment: int) -> QuerySet[EdgeNode]:
    return EdgeNode.objects.filter(pk=node_id, state=EdgeNode.State.ENROLLED, enrolment=enrolment)


def _announce(node_id: int, namespace_id: int, kind: str, fits: int) -> None:
    """The apps above hear of what was stored, once it is committed."""
    if fits:
        said = partial(
            announce, node_reported, EdgeNode, node_id=node_id, namespace_id=namespace_id, kind=kind
        )
        transaction.on_commit(said, robust=True)
