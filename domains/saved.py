"""What is saved of a namespace, as one value: the same `Topology` that a file holds."""

from domains.models import Domain, Uri
from msha.steering import topology
from msha.steering.topology import Topology
from units.models import Cluster, Namespace, Unit, UnitType


def topology_of(namespace: Namespace) -> Topology:
    """Everything saved of the namespace, in normal form; unchecked, for it may be unfinished."""
    units = Unit.objects.filter(namespace=namespace).order_by("position", "code")
    clusters = Cluster.objects.filter(namespace=namespace).select_related("unit").prefetch_related("slbs")
    domains = Domain.objects.filter(namespace=namespace).prefetch_related(
        "domain_units__unit", "domain_units__cluster", "uris__back_sources__unit"
    )
    return topology.normal(
        Topology(
            namespace=namespace.name,
            title=namespace.title,
            key_min=namespace.key_min,
            key_max=namespace.key_max,
            default_unit_type=namespace.default_unit_type,
            units=tuple(topology.Unit(unit.code, unit.name, unit.is_center) for unit in units),
            unit_types=tuple(
                unit_type_value(row) for row in UnitType.objects.filter(namespace=namespace).order_by("name")
            ),
            clusters=tuple(cluster_value(cluster) for cluster in clusters),
            domains=tuple(domain_value(domain) for domain in domains),
        )
    )


def unit_type_value(row: UnitType) -> topology.UnitType:
    """A saved unit type."""
    return topology.UnitType(
        row.name, row.sources, row.ranges, transform=row.transform, untagged=row.untagged, exact=row.exact
    )


def cluster_value(cluster: Cluster) -> topology.Cluster:
    """A saved cluster."""
    slbs = tuple(sorted(slb.name for slb in cluster.slbs.all()))
    return topology.Cluster(cluster.name, cluster.unit.code, cluster.protocol, slbs, cluster.joined)


def domain_value(domain: Domain) -> topology.Domain:
    """A saved domain with its units and URIs, in normal form."""
    rows = sorted(domain.domain_units.all(), key=lambda row: (row.unit.position, row.unit.code))
    return topology.normal_domain(
        topology.Domain(
            domain.name,
            domain.protocol,
            domain.dns,
            domain.multi_unit,
            domain.correction,
            domain.redirect_scheme,
            ports={row.unit.code: row.port for row in rows},
            clusters={row.unit.code: row.cluster.name for row in rows if row.cluster is not None},
            uris=tuple(uri_value(uri) for uri in domain.uris.all()),
            tls_ports={row.unit.code: row.tls_port for row in rows if row.tls_port is not None},
        )
    )


def uri_value(uri: Uri) -> topology.Uri:
    """A saved URI; servers as they were typed, split at commas."""
    rows = sorted(uri.back_sources.all(), key=lambda row: (row.unit.position, row.unit.code))
    servers = {
        row.unit.code: tuple(part.strip() for part in row.servers.split(",") if part.strip()) for row in rows
    }
    return topology.Uri(uri.path, uri.balance, servers)
