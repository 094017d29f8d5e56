"""The back-source servers that a snapshot names: those that workers ask, and that the agent tells of."""

from msha.steering.snapshot import Snapshot


def servers_of(snapshot: Snapshot, unit: str) -> frozenset[str]:
    """Every back-source server of the unit."""
    return frozenset(
        server
        for domain, _ in snapshot.hosts.values()
        for route in domain.routes.get(unit, ())
        for server in route.servers
    )
