"""What a worker decides by: the snapshot in force, how far to trust it, and how servers are chosen."""

from msha.steering.snapshot import Route, Snapshot


class Steering:
    """The state behind every decision of a worker.

    Attributes:
        snapshot: swapped as a whole; None until the first one is applied.
        sync_until: monotonic time until which the snapshot is known to be current (PROTOCOL 1).
        draining: whether load balancers should look elsewhere.
        hold_s: how long a handshake is held, from the first hold on (PROTOCOL C6).
    """

    __slots__ = ("_sessions", "_turns", "draining", "hold_s", "snapshot", "sync_until", "unit", "unit_field")

    def __init__(self, unit: str, sessions_by_server: dict[str, int], *, hold_s: float) -> None:
        self.unit = unit
        self.unit_field = (b"X-Msha-Unit", unit.encode("ascii"))
        self.snapshot: Snapshot | None = None
        self.sync_until = 0.0
        self.draining = False
        self.hold_s = hold_s
        self._sessions = sessions_by_server
        self._turns: dict[tuple[str, str], int] = {}

    def servers(self, route: Route, router_id: int | None) -> tuple[str, ...]:
        """All servers of the route, in the order in which they are to be tried.

        Untagged traffic has no id to hash and goes round.
        """
        servers = route.servers
        if len(servers) < 2:
            return servers
        if route.balance == "consistent_hash" and router_id is not None:
            return route.preference(router_id)
        key = (route.domain, route.uri)
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        first = turn % len(servers)
        turned = servers[first:] + servers[:first]
        if route.balance == "least_sessions":
            return tuple(sorted(turned, key=lambda server: self._sessions.get(server, 0)))
        return turned
