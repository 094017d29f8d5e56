"""The back-source servers that a snapshot names: those that workers ask, and that the agent tells of."""

from msha.steering.snapshot import Snapshot


def servers_of(snapshot: Snapshot, unit: str) -> frozenset[str]:
    """Every back-source server of the unit."""
    # Not from the compiled domains: there may be thousands, of which few are ever asked for.
    return frozenset(
        server
        for domain in snapshot.document["config"].get("domains", ())
        for uri in domain.get("uris", ())
        for server in uri.get("back_sources", {}).get(unit, ())
    )
