"""MSFE clusters: made from registered nodes of one unit; once joined, domains may choose them."""

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone
from django.utils.translation import gettext

from units import audit, enrolment
from units.errors import Refused
from units.in_use import Kind, Thing, sentences_against_removal
from units.models import Cluster, EdgeNode, Slb, Unit
from units.publishing import locked


def make(
    unit: Unit,
    name: str,
    *,
    actor: object,
    protocol: str = Cluster.Protocol.WEBSOCKET,
    nodes: Iterable[EdgeNode] = (),
    slbs: Iterable[Slb] = (),
) -> Cluster:
    """A new cluster of these nodes and load balancers; it has not joined the access layer yet.

    Raises:
        ValidationError: the name is taken or not a name.
        Refused: a node or load balancer is of another unit or in another cluster.
    """
    cluster = Cluster(unit=unit, name=name, protocol=protocol)
    cluster.full_clean()
    with transaction.atomic():
        cluster.save()
        _set_members(cluster, list(nodes), list(slbs), actor)
        audit.record(actor, "cluster.create", name, namespace=cluster.namespace, after=value(cluster))
    return cluster


def set_members(cluster: Cluster, *, actor: object, nodes: Iterable[EdgeNode], slbs: Iterable[Slb]) -> None:
    """The cluster has these nodes and load balancers and no others.

    Raises:
        Refused: one is of another unit or in another cluster.
        InUse: a running cutover counts on a node that would go.
    """
    with transaction.atomic():
        before = value(cluster)
        _set_members(cluster, list(nodes), list(slbs), actor)
        after = value(cluster)
        if before != after:
            audit.record(
                actor, "cluster.update", cluster.name, namespace=cluster.namespace, before=before, after=after
            )


def join(cluster: Cluster, *, actor: object) -> bool:
    """Whether the cluster joined the access layer now; False when it had before.

    Raises:
        Refused: it has no node.
    """
    if not cluster.nodes.exists():
        raise Refused(
            gettext("Cluster %(name)s has no edge node yet. Put at least one registered node into it first.")
            % {"name": cluster.name}
        )
    with transaction.atomic():
        joined = Cluster.objects.filter(pk=cluster.pk, joined_at=None).update(joined_at=timezone.now())
        if joined:
            audit.record(
                actor,
                "cluster.join",
                cluster.name,
                namespace=cluster.namespace,
                before={"joined": False},
                after={"joined": True},
            )
    return bool(joined)


def remove(cluster: Cluster, *, actor: object) -> None:
    """The cluster is gone; its nodes and load balancers belong to none.

    Raises:
        Refused: a domain has chosen it, or a running cutover uses it.
    """
    with transaction.atomic():
        namespace = locked(cluster.namespace_id)
        if sentences := obstacles(cluster):
            raise Refused(" ".join(sentences))
        before = value(cluster)
        EdgeNode.objects.filter(cluster=cluster).update(cluster=None)
        Slb.objects.filter(cluster=cluster).update(cluster=None)
        try:
            cluster.delete()
        except ProtectedError as error:  # chosen between the question and the answer
            raise Refused(str(error)) from error
        audit.record(actor, "cluster.delete", before["name"], namespace=namespace, before=before)


def obstacles(cluster: Cluster) -> list[str]:
    """Why the cluster cannot be removed now."""
    used = sentences_against_removal(
        cluster.namespace, [Thing(Kind.CLUSTER, cluster.name, cluster.unit.code)]
    )
    chosen = sorted({str(row) for row in cluster.domain_units.all()})
    if chosen:
        used.append(
            gettext("Cluster %(name)s is the effective cluster of %(domains)s. Choose another there first.")
            % {"name": cluster.name, "domains": ", ".join(chosen)}
        )
    return used


def value(cluster: Cluster) -> dict[str, Any]:
    """The cluster as the audit record has it."""
    return {
        "name": cluster.name,
        "unit": cluster.unit.code,
        "protocol": cluster.protocol,
        "joined": cluster.joined,
        "nodes": sorted(cluster.nodes.values_list("name", flat=True)),
        "slbs": sorted(cluster.slbs.values_list("name", flat=True)),
    }


def _set_members(cluster: Cluster, nodes: list[EdgeNode], slbs: list[Slb], actor: object) -> None:
    members: list[EdgeNode | Slb] = [*nodes, *slbs]
    for member in members:
        if member.unit_id != cluster.unit_id or member.cluster_id not in (None, cluster.pk):
            raise Refused(
                gettext("%(member)s belongs to another unit or cluster than %(cluster)s.")
                % {"member": member.name, "cluster": cluster.name}
            )
    wanted = {node.pk for node in nodes}
    for node in cluster.nodes.all():
        if node.pk not in wanted:
            enrolment.assign(node, None, actor=actor)
    for node in nodes:
        enrolment.assign(node, cluster, actor=actor)
    Slb.objects.filter(cluster=cluster).exclude(pk__in=[slb.pk for slb in slbs]).update(cluster=None)
    Slb.objects.filter(pk__in=[slb.pk for slb in slbs]).update(cluster=cluster)
