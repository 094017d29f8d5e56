"""What a namespace still lacks before it steers anything: the steps of the first set-up, in their order."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext_lazy as _

from cutover.pages.bars import table_or_none
from cutover.rules import entry_of
from domains.models import BackSources, DomainUnit
from msha.steering.ranges import KeySpace
from units.models import Cluster, EdgeNode, Namespace


@dataclass(frozen=True, slots=True)
class Step:
    """One step; done or not, what it is for, and where it is done."""

    done: bool
    title: Any
    hint: Any
    link: str
    act: Any


def checklist(namespace: Namespace) -> list[Step]:
    """The steps that make the namespace complete; empty once they are all done."""
    steps = [
        *_platform(namespace),
        *_access_layer(namespace),
        *_domains(namespace),
    ]
    return [] if all(step.done for step in steps) else steps


def _platform(namespace: Namespace) -> list[Step]:
    units = namespace.units.count()
    center = namespace.units.filter(is_center=True).exists()
    space = KeySpace(namespace.key_min, namespace.key_max)
    tables = [table_or_none(entry_of(row), space) for row in namespace.unit_types.all()]
    return [
        Step(
            units >= 2 and center,
            _("Units"),
            _("At least two data centres, one of them the center."),
            _admin("units_unit_changelist" if units >= 2 else "units_unit_add"),
            _("Add a unit"),
        ),
        Step(
            bool(tables) and all(table is not None for table in tables),
            _("Unit type and its rule"),
            _("Where the routerId is found, and which unit owns which range."),
            _admin("units_unittype_changelist" if tables else "units_unittype_add"),
            _("Add a unit type"),
        ),
    ]


def _access_layer(namespace: Namespace) -> list[Step]:
    units = set(namespace.units.values_list("pk", flat=True))
    enrolled = EdgeNode.objects.filter(namespace=namespace, cluster__isnull=False)
    staffed = set(
        enrolled.exclude(state__in=(EdgeNode.State.LEFT, EdgeNode.State.DEAD)).values_list("unit", flat=True)
    )
    started = set(enrolled.filter(state=EdgeNode.State.ENROLLED).values_list("unit", flat=True))
    clusters = Cluster.objects.filter(namespace=namespace)
    made = set(clusters.values_list("unit", flat=True))
    joined = set(clusters.filter(joined_at__isnull=False).values_list("unit", flat=True))
    return [
        Step(
            bool(units) and made >= units,
            _("An MSFE cluster in each unit"),
            _("The edge nodes of a unit for the WebSocket protocol."),
            _admin("units_cluster_add"),
            _("Create a cluster"),
        ),
        Step(
            bool(units) and staffed >= units,
            _("Edge nodes"),
            _("Register each node and put it into its unit's cluster."),
            _admin("units_edgenode_add"),
            _("Add an edge node"),
        ),
        Step(
            bool(units) and joined >= units,
            _("Clusters join the access layer"),
            _("Only a cluster that has joined may be chosen by a domain."),
            _admin("units_cluster_changelist"),
            _("Join clusters"),
        ),
        Step(
            bool(units) and started >= units,
            _("Edge nodes started"),
            _("Run the join command of each node; it is enrolled when it first connects."),
            _admin("units_edgenode_changelist"),
            _("Look at the nodes"),
        ),
    ]


def _domains(namespace: Namespace) -> list[Step]:
    units = namespace.units.count()
    domains = namespace.domains.count()
    complete = (
        DomainUnit.objects.filter(domain__namespace=namespace)
        .values("domain")
        .annotate(chosen=Count("pk", filter=Q(cluster__isnull=False)))
        .filter(chosen__gte=max(units, 1))
        .count()
    )
    served = BackSources.objects.filter(uri__domain__namespace=namespace).values("unit").distinct().count()
    return [
        Step(
            domains > 0 and complete == domains,
            _("Domain with its effective clusters"),
            _("The host name that clients use; each unit gets a sub-domain of it."),
            _admin("domains_domain_changelist" if domains else "domains_domain_add"),
            _("Add a domain"),
        ),
        Step(
            units > 0 and served >= units,
            _("URIs with back-source servers"),
            _("Per unit, the servers behind a path as IP:PORT."),
            _admin("domains_domain_changelist"),
            _("Configure URIs"),
        ),
        Step(
            namespace.version > 0,
            _("Put into effect"),
            _("Publishes the first version; the edge nodes obey it from then on."),
            _link("domains:put_into_effect", namespace.name) or _admin("domains_domain_changelist"),
            _("Put into effect"),
        ),
    ]


def _link(name: str, *args: str) -> str:
    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return ""


def _admin(name: str) -> str:
    return _link(f"admin:{name}")
