"""How a node becomes one that every gate waits for, and the only ways it stops being one (PROTOCOL 3).

    registered ──► enrolled ──► left ──► enrolled (a new enrolment)
                      └───────► dead

Enrolling happens under the namespace's lock, in the transaction that reads the snapshot which the node is
handed. Everything a node says names the enrolment it is for; for another one it is ignored.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext

from msha.steering import wire
from units import audit, fleet
from units.errors import Refused
from units.in_use import Kind, Thing, refuse_removal_if_used
from units.models import Cluster, EdgeNode, Snapshot, Unit
from units.nudge import nudge_namespace
from units.publishing import locked
from units.signals import announce, node_reported
from units.tokens import NODE_PREFIX, Token, make_token

log = structlog.get_logger(__name__)

#: Close code for "try again later": the node comes back by itself.
CLOSE_LATER = 4503

#: Another process with the same identity is refused while the present one spoke so recently.
TAKEOVER_AFTER = timedelta(seconds=wire.LIVE_S)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The newest snapshot, and the enrolment under which the node gets it."""

    enrolment: int
    version: int
    digest: str
    body: str


@dataclass(frozen=True, slots=True)
class Greeted:
    """The node may talk on this connection.

    Attributes:
        enrolment: the one it has; None until it is handed its first snapshot.
        acked: the newest version it acked under that enrolment.
    """

    node_id: int
    namespace_id: int
    welcome: wire.Welcome
    enrolment: int | None
    acked: int


@dataclass(eq=False)
class TurnedAway(Exception):
    """The node may not talk; ``reason`` is said before the connection is closed with ``code``."""

    code: int
    reason: str


# -- registering and declaring -------------------------------------------------------------------------------


def register(
    unit: Unit, name: str, *, actor: object, cluster: Cluster | None = None
) -> tuple[EdgeNode, Token]:
    """A new node of the unit, and its token, whose text exists only now.

    Raises:
        ValidationError: the name is taken or not a name.
        Refused: the cluster belongs to another unit.
    """
    _check_cluster(unit, cluster)
    token = make_token(NODE_PREFIX)
    node = EdgeNode(unit=unit, name=name, cluster=cluster, token_hash=token.hash)
    node.namespace_id = unit.namespace_id
    node.full_clean(exclude=["token_hash"])
    with transaction.atomic():
        node.save()
        audit.record(
            actor,
            "node.register",
            name,
            namespace=unit.namespace,
            after={"unit": unit.code, "cluster": None if cluster is None else cluster.name},
        )
    return node, token


def replace_token(node: EdgeNode, *, actor: object) -> Token:
    """A new token; the old one opens nothing any more. The node keeps its place and its enrolment.

    Raises:
        Refused: the node was declared dead; its old token must go on telling it so.
    """
    token = make_token(NODE_PREFIX)
    with transaction.atomic():
        alive = EdgeNode.objects.filter(pk=node.pk).exclude(state=EdgeNode.State.DEAD)
        if alive.update(token_hash=token.hash) != 1:
            raise Refused(
                gettext("Node %(name)s was declared dead. Register a new node instead.") % {"name": node.name}
            )
        audit.record(actor, "node.replace_token", node.name, namespace=node.namespace)
    return token


def assign(node: EdgeNode, cluster: Cluster | None, *, actor: object) -> None:
    """The node belongs to the cluster, or to none. A node never changes its unit.

    Raises:
        Refused: the cluster belongs to another unit.
        InUse: a running cutover counts on the node's present cluster.
    """
    _check_cluster(node.unit, cluster)
    with transaction.atomic():
        namespace = locked(node.namespace_id)
        now = EdgeNode.objects.select_related("cluster").get(pk=node.pk)
        if now.cluster == cluster:
            return
        if now.cluster is not None:
            refuse_removal_if_used(namespace, Thing(Kind.NODE, node.name, node.unit.code))
        EdgeNode.objects.filter(pk=node.pk).update(cluster=cluster)
        audit.record(
            actor,
            "node.assign",
            node.name,
            namespace=namespace,
            before={"cluster": None if now.cluster is None else now.cluster.name},
            after={"cluster": None if cluster is None else cluster.name},
        )


def declare_dead(node: EdgeNode, *, actor: object, typed_name: str, reason: str) -> None:
    """The node counts as dead on the operator's word; its token only tells it ``revoked`` from now on.

    The promise rests on that word: the node must have been fenced, so that it cannot start again from its
    file before it is told.

    Raises:
        Refused: the name was not typed, no reason was given, or the node is not enrolled.
    """
    if typed_name.strip() != node.name:
        raise Refused(
            gettext("Type the name of the node, %(name)s, to declare it dead.") % {"name": node.name}
        )
    if not reason.strip():
        raise Refused(gettext("Give a reason: why can this node not start again from its file?"))
    with transaction.atomic():
        declared = EdgeNode.objects.filter(pk=node.pk, state=EdgeNode.State.ENROLLED).update(
            state=EdgeNode.State.DEAD,
            declared_dead_by=str(actor)[:150],
            declared_dead_reason=reason.strip(),
            declared_dead_at=timezone.now(),
        )
        if declared != 1:
            raise Refused(
                gettext("Node %(name)s is not enrolled (any more), so nothing waits for it.")
                % {"name": node.name}
            )
        audit.record(
            actor,
            "node.declare_dead",
            node.name,
            namespace=node.namespace,
            before={"state": str(EdgeNode.State.ENROLLED), "enrolment": node.enrolment},
            after={"state": str(EdgeNode.State.DEAD)},
            reason=reason.strip(),
        )
        transaction.on_commit(partial(nudge_namespace, node.namespace_id), robust=True)
        _announce(node.pk, node.namespace_id, "dead")
    log.warning("node_declared_dead", node=node.name, by=str(actor), reason=reason)


def remove(node: EdgeNode, *, actor: object) -> None:
    """The node's row is gone.

    Raises:
        Refused: it is enrolled, or was declared dead: then its row is what tells it so when it comes back.
    """
    with transaction.atomic():
        removable = EdgeNode.objects.filter(
            pk=node.pk, state__in=(EdgeNode.State.REGISTERED, EdgeNode.State.LEFT)
        )
        if not removable.exists():
            raise Refused(
                gettext(
                    "Node %(name)s can be removed only after it has left, or before it was first started."
                    " Let it leave (python -m msha.edge leave), or declare it dead."
                )
                % {"name": node.name}
            )
        removable.delete()
        audit.record(
            actor,
            "node.remove",
            node.name,
            namespace=node.namespace,
            before={"unit": node.unit.code, "state": node.state, "enrolment": node.enrolment},
        )


def _check_cluster(unit: Unit, cluster: Cluster | None) -> None:
    if cluster is not None and cluster.unit_id != unit.pk:
        raise Refused(
            gettext("Cluster %(cluster)s belongs to another unit than %(unit)s.")
            % {"cluster": cluster.name, "unit": unit.code}
        )


# -- what the control stream asks ----------------------------------------------------------------------------


def known(token_hash: str) -> int:
    """The id of the node that holds the token.

    Raises:
        TurnedAway: nobody holds it, or its node was declared dead.
    """
    row = EdgeNode.objects.filter(token_hash=token_hash).values("pk", "state", "declared_dead_reason").first()
    if row is None:
        raise TurnedAway(
            wire.CLOSE_BAD_TOKEN,
            "This console knows no node with this token. Register the node there and use the token it shows.",
        )
    if row["state"] == EdgeNode.State.DEAD:
        raise TurnedAway(wire.CLOSE_REVOKED, row["declared_dead_reason"])
    return int(row["pk"])


def greet(node_id: int, hello: wire.Hello, connection_id: str) -> Greeted:
    """The connection is the node's present one; an older connection of it counts no more.

    Raises:
        TurnedAway: it is another node that uses this one's name, or it was declared dead.
    """
    if hello.protocol != wire.PROTOCOL:
        raise TurnedAway(
            wire.CLOSE_PROTOCOL,
            f"This console speaks control protocol {wire.PROTOCOL}, the node {hello.protocol}."
            " Upgrade the older one.",
        )
    with transaction.atomic():
        node = (
            EdgeNode.objects.select_for_update(of=("self",), no_key=True)
            .select_related("unit", "namespace")
            .get(pk=node_id)
        )
        _check_identity(node, hello)
        _settle_tombstone(node, hello)
        EdgeNode.objects.filter(pk=node_id).update(
            connected=True,
            connection_id=connection_id,
            instance=hello.instance,
            address=hello.address[:200],
            software=hello.software[:60],
            workers=hello.workers,
            pid=hello.pid,
            reported_version=hello.version,
            reported_digest=hello.digest[:64],
            reported_epoch=max(hello.epoch, 0),
        )
        _announce(node_id, node.namespace_id, "connected")
    ended = hello.enrolment is None or (hello.left is not None and hello.left >= hello.enrolment)
    fleet.notice(node_id, hello.version, hello.digest, None if ended else hello.enrolment)
    node.refresh_from_db(fields=["state", "enrolment", "applied_version"])
    enrolment = node.enrolment if node.enrolled else None
    welcome = wire.Welcome(
        node=node.name,
        unit=node.unit.code,
        namespace=node.namespace.name,
        namespace_id=str(node.namespace.uuid),
        enrolment=enrolment,
    )
    return Greeted(
        node_id, node.namespace_id, welcome, enrolment, node.applied_version if node.enrolled else 0
    )


def _check_identity(node: EdgeNode, hello: wire.Hello) -> None:
    if node.state == EdgeNode.State.DEAD:
        raise TurnedAway(wire.CLOSE_REVOKED, node.declared_dead_reason)
    if node.enrolled and node.instance and node.instance != hello.instance:
        raise TurnedAway(
            wire.CLOSE_OTHER_INSTANCE,
            f"Node {node.name} is enrolled with another state directory (instance {node.instance})."
            " Start it with that directory, let it leave, or declare it dead and register a new node.",
        )
    speaking = (
        node.connected and node.status_at is not None and timezone.now() - node.status_at < TAKEOVER_AFTER
    )
    if speaking and (node.pid, node.address) != (hello.pid, hello.address[:200]):
        raise TurnedAway(
            CLOSE_LATER,
            f"Another process of node {node.name} is connected (pid {node.pid}, {node.address})."
            " Two nodes must not share a token and a copy of one state directory.",
        )


def _settle_tombstone(node: EdgeNode, hello: wire.Hello) -> None:
    """The node has left if its directory says so: then its word ``left`` was lost on the way.

    The number in the tombstone may be of another node, whose directory is used again: the next enrolment must
    be above it, or the node would take it for the one that ended.
    """
    if hello.left is None or hello.left < node.enrolment:
        return
    mine = EdgeNode.objects.filter(pk=node.pk, enrolment=node.enrolment)
    if node.enrolled:
        mine.update(state=EdgeNode.State.LEFT, enrolment=hello.left)
        _record_left(node, hello.left)
    else:
        mine.update(enrolment=hello.left)


def join(node_id: int, connection_id: str) -> Delivery | None:
    """The node is enrolled and this is its first snapshot; None if nothing is published, or not for it.

    One transaction under the namespace's lock (PROTOCOL J1): no gate is passed between the reading of the
    snapshot and the counting of the node.
    """
    namespace_id = EdgeNode.objects.values_list("namespace_id", flat=True).get(pk=node_id)
    with transaction.atomic():
        namespace = locked(namespace_id)
        if namespace.version == 0 or namespace.publishing_stopped:
            return None
        snapshot = Snapshot.objects.get(namespace=namespace, version=namespace.version)
        outside = Q(state=EdgeNode.State.REGISTERED) | Q(state=EdgeNode.State.LEFT)
        enrolled = EdgeNode.objects.filter(outside, pk=node_id, connection_id=connection_id).update(
            state=EdgeNode.State.ENROLLED,
            enrolment=F("enrolment") + 1,
            applied_version=0,
            applied_digest="",
            applied_epoch=0,
            drained_epoch=0,
            workers_exited_epoch=0,
            nack_version=0,
            nack_reason="",
            confirmed_at=None,
        )
        if enrolled != 1:
            return None
        node = EdgeNode.objects.get(pk=node_id)
        audit.record(
            f"node {node.name}",
            "node.enrol",
            node.name,
            namespace=namespace,
            after={"enrolment": node.enrolment, "version": snapshot.version, "instance": node.instance},
        )
    log.info("node_enrolled", node=node.name, enrolment=node.enrolment, version=snapshot.version)
    return Delivery(node.enrolment, snapshot.version, snapshot.digest, snapshot.body)


def left(node_id: int, enrolment: int) -> bool:
    """Whether the node was enrolled so and has left now; no gate waits for it any more."""
    with transaction.atomic():
        gone = EdgeNode.objects.filter(pk=node_id, state=EdgeNode.State.ENROLLED, enrolment=enrolment)
        if gone.update(state=EdgeNode.State.LEFT) != 1:
            return False
        _record_left(EdgeNode.objects.select_related("namespace").get(pk=node_id), enrolment)
    return True


def _record_left(node: EdgeNode, enrolment: int) -> None:
    audit.record(
        f"node {node.name}", "node.leave", node.name, namespace=node.namespace, after={"enrolment": enrolment}
    )
    _announce(node.pk, node.namespace_id, "left")
    log.info("node_left", node=node.name, enrolment=enrolment)


def disconnected(node_id: int, connection_id: str) -> None:
    """The node is not connected, unless a newer connection of it is."""
    gone = EdgeNode.objects.filter(pk=node_id, connection_id=connection_id, connected=True)
    if gone.update(connected=False):
        namespace_id = EdgeNode.objects.values_list("namespace_id", flat=True).get(pk=node_id)
        announce(node_reported, EdgeNode, node_id=node_id, namespace_id=namespace_id, kind="disconnected")


def _announce(node_id: int, namespace_id: int, kind: str) -> None:
    """The apps above hear of it, once it is committed."""
    said = partial(announce, node_reported, EdgeNode, node_id=node_id, namespace_id=namespace_id, kind=kind)
    transaction.on_commit(said, robust=True)
