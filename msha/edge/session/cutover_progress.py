"""How far this worker has come with a cutover."""

from msha.edge.session.sessions import Sessions
from msha.edge.session.tunnel import Tunnel
from msha.steering.ranges import MovedIds
from msha.steering.snapshot import Snapshot
from msha.steering.wire import progress_key


class CutoverProgress:
    """Counts since the newest cutover began: its steps follow each other faster than they are reported.

    Attributes:
        epoch: the applied one; -1 before the first snapshot.
        remaining: sessions that the applied table does not give to this unit and that are not gone yet.
        closed: those that have gone.
        reconnected: sessions accepted here whose id came to this unit by the cutover. Its ids are remembered
            when the cutover has ended, because most clients come back after that.
    """

    def __init__(self, unit: str) -> None:
        self.epoch = -1
        self.closed = 0
        self.reconnected = 0
        self.remaining: set[Tunnel] = set()
        self._unit = unit
        self._cutover = ""
        self._unit_type = ""
        self._moved: list[MovedIds] = []

    @property
    def drained(self) -> bool:
        """Whether nothing is left that the applied table does not give to this unit."""
        return not self.remaining

    def applied(self, snapshot: Snapshot, sessions: Sessions) -> list[Tunnel]:
        """The sessions that must end under the new snapshot; counts follow it from now on."""
        self.epoch = snapshot.epoch
        running = snapshot.cutover
        if running is not None:
            if running.id != self._cutover:
                self._cutover = running.id
                self._moved = []
                self.closed = 0
                self.reconnected = 0
            self._unit_type = running.unit_type
            if running.moved not in self._moved:
                self._moved.append(running.moved)
        unwanted = sessions.outside(lambda unit_type: snapshot.served(self._unit, unit_type))
        self.remaining.update(unwanted)
        return unwanted

    def opened(self, tunnel: Tunnel) -> None:
        """A session was accepted. Before ACTIVATE a gaining unit accepts no moved id, so none is counted."""
        if tunnel.router_id is None or tunnel.unit_type != self._unit_type:
            return
        for moved in self._moved:
            move = moved.find(tunnel.router_id)
            if move is not None and move.gaining == self._unit != move.losing:
                self.reconnected += 1
                return

    def removed(self, tunnel: Tunnel) -> bool:
        """Whether this was the last session that had to end."""
        if tunnel not in self.remaining:
            return False
        self.remaining.remove(tunnel)
        self.closed += 1
        return not self.remaining

    def numbers(self) -> dict[str, int]:
        """As the agent reports them."""
        return {
            "cutover": progress_key(self._cutover) if self._cutover else 0,
            "epoch": self.epoch,
            "closed": self.closed,
            "remaining": len(self.remaining),
            "reconnected": self.reconnected,
        }
