"""How far this worker has come with a cutover."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from msha.edge.session.sessions import Sessions
from msha.edge.session.tunnel import Tunnel
from msha.steering.ranges import MovedIds
from msha.steering.snapshot import Snapshot
from msha.steering.wire import progress_key

#: More ids are counted, not remembered: the list of those that stay away is for people.
REMEMBERED_LIMIT = 20_000
#: So many ids are told in one answer.
TOLD_LIMIT = 2_000

Runs = list[list[int]]


def runs(ids: Iterable[int]) -> Runs:
    """Ascending ids as ``[[first, last], ...]``."""
    found: Runs = []
    for router_id in ids:
        if found and found[-1][1] == router_id - 1:
            found[-1][1] = router_id
        else:
            found.append([router_id, router_id])
    return found


def _among(ids: Iterable[int], ranges: Sequence[Sequence[int]]) -> list[int]:
    """Those of the ids that lie in one of the ranges, which ascend."""
    starts = [first for first, _last in ranges]
    found = []
    for router_id in ids:
        at = bisect_right(starts, router_id) - 1
        if at >= 0 and router_id <= ranges[at][1]:
            found.append(router_id)
    return found


class CutoverProgress:
    """Counts since the newest cutover began: its steps follow each other faster than they are reported.

    Attributes:
        epoch: the applied one; -1 before the first snapshot.
        remaining: sessions that the applied table does not give to this unit and that are not gone yet.
        closed: those that have gone.
        reconnected: sessions accepted here whose id came to this unit by the cutover. Its ids are remembered
            when the cutover has ended, because most clients come back after that.
        gone: ids whose session was closed here and that nobody has opened here since.
        back: ids that were accepted here because of the cutover, or again after they were closed here.
    """

    def __init__(self, unit: str) -> None:
        self.epoch = -1
        self.closed = 0
        self.reconnected = 0
        self.remaining: set[Tunnel] = set()
        self.gone: set[int] = set()
        self.back: set[int] = set()
        self._forgotten = 0
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
                self.gone.clear()
                self.back.clear()
                self._forgotten = 0
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
        if tunnel.router_id in self.gone:
            self.gone.discard(tunnel.router_id)
            self._remember(self.back, tunnel.router_id)
        for moved in self._moved:
            move = moved.find(tunnel.router_id)
            if move is not None and move.gaining == self._unit != move.losing:
                self.reconnected += 1
                self._remember(self.back, tunnel.router_id)
                return

    def removed(self, tunnel: Tunnel) -> bool:
        """Whether this was the last session that had to end."""
        if tunnel not in self.remaining:
            return False
        self.remaining.remove(tunnel)
        self.closed += 1
        if tunnel.router_id is not None and tunnel.unit_type == self._unit_type:
            self.back.discard(tunnel.router_id)
            self._remember(self.gone, tunnel.router_id)
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

    def returns(self, cutover: int, among: Sequence[Sequence[int]] | None) -> dict[str, object] | None:
        """Who is gone, or who of some ids is back; None if this worker has not seen the whole cutover.

        Args:
            cutover: its `progress_key`.
            among: ``[[first, last], ...]`` of which those that are back are told; None for the gone ones.
        """
        if not self._cutover or progress_key(self._cutover) != cutover:
            return None
        if among is None:
            found = sorted(self.gone)
        else:
            found = sorted(_among(self.back, among))
        told = found[:TOLD_LIMIT]
        return {"ids": runs(told), "left_out": len(found) - len(told) + self._forgotten}

    def _remember(self, ids: set[int], router_id: int) -> None:
        if router_id not in ids and len(self.gone) + len(self.back) >= REMEMBERED_LIMIT:
            self._forgotten += 1
            return
        ids.add(router_id)
