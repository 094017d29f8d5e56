"""What a worker decides by: the snapshot in force, and how far to trust it."""

from msha.steering.snapshot import Snapshot


class Steering:
    """The state behind every decision of a worker.

    Attributes:
        snapshot: swapped as a whole; None until the first one is applied.
        sync_until: monotonic time until which the snapshot is known to be current (PROTOCOL 1).
        draining: whether load balancers should look elsewhere.
        hold_s: how long a handshake is held, from the first hold on (PROTOCOL C6).
    """

    __slots__ = ("draining", "hold_s", "snapshot", "sync_until", "unit", "unit_field")

    def __init__(self, unit: str, *, hold_s: float) -> None:
        self.unit = unit
        self.unit_field = (b"X-Msha-Unit", unit.encode("ascii"))
        self.snapshot: Snapshot | None = None
        self.sync_until = 0.0
        self.draining = False
        self.hold_s = hold_s
