"""One edge node of the model and what it, its agent and its operator can do next.

An `Edge` holds both what the node is and what the console has stored of it. Every move is a pure function of
the edge, its unit and the newest snapshot, so that it is worked out once and looked up afterwards.
Source: PROTOCOL 3 and 4.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

from msha.edge.node.parking import must_park
from msha.steering.phases import NodeView, Phase
from msha.steering.snapshot import canonical
from tests.model.published import Published


class Broken(AssertionError):
    """An invariant of PROTOCOL 7 does not hold."""


class Standing(IntEnum):
    """What the console takes the node for."""

    REGISTERED = 0
    ENROLLED = 1
    LEFT = 2
    DEAD = 3


class Process(IntEnum):
    """What the node's processes are doing."""

    DOWN = 0
    IDLE = 1  # the agent runs, nothing is listened on
    SERVING = 2
    PARKED = 3
    DRAINING = 4  # after SIGTERM: it will come back
    LEAVING = 5


class Late(NamedTuple):
    """A message that was sent and may arrive at any time from now on, any number of times, or never."""

    kind: str
    enrolment: int
    epoch: int


class Edge(NamedTuple):
    """One node; snapshots by their number, -1 for none; masks have one bit per watched id."""

    # what the console has stored
    standing: Standing = Standing.ENROLLED
    enrolment: int = 1
    acked: int = 0
    drained: int = -1
    exited: int = -1
    live: bool = True
    told_parked: bool = False
    # the node
    process: Process = Process.SERVING
    connected: bool = True
    disk: int = 0
    disk_enrolment: int = 1
    tombstone: int = 0
    obeys: int = 0
    refused: int = -1
    in_sync: bool = False
    highest: int = 1
    # its clients
    sessions: int = 0
    closing: int = 0
    half_open: int = 0
    held: int = 0
    proxied: tuple[tuple[int, str], ...] = ()
    # what is on its way
    delivered: int = -1
    delivered_for: int = 0
    late: Late | None = None


class Move(NamedTuple):
    """Something that may happen to an edge.

    Attributes:
        words: what happens, after the name of the node.
        costs: the kind of fault it is, or None where the world needs no bad luck for it.
        fair: it happens sooner or later when no faults come any more.
    """

    words: str
    edge: Edge
    costs: str | None = None
    fair: bool = False


FAULTS = (
    "crash", "flap", "silence", "workers", "term", "leave", "dead", "refuse", "delay", "late", "torn",
    "publish", "abort", "turn", "rollback", "stop", "finish", "emergency", "overdue", "next", "driver",
    "connect", "stale-confirm", "unnoticed",
)  # fmt: skip


def view_of(name: str, unit: str, edge: Edge, wrongs: frozenset[str]) -> NodeView:
    """What the console's gates see of the edge."""
    gone = "a draining node counts as gone" in wrongs and edge.process in (
        Process.DRAINING,
        Process.LEAVING,
    )
    return NodeView(
        name,
        unit,
        f"ws-{unit}",
        enrolled=edge.standing is Standing.ENROLLED and not gone,
        live=edge.standing is Standing.ENROLLED and edge.live,
        parked=edge.told_parked,
        acked_epoch=edge.acked,
        drained_epoch=edge.drained,
        exited_epoch=edge.exited,
    )


class Edges:
    """The moves of edges.

    Attributes:
        wrongs: the mutations that are made, by name; none of them in an honest model.
        clients: ``saturated`` (whoever may be served is), ``sessions`` (they come one by one), ``handshakes``
            (half-open and held ones, too), or ``none``.
        sync: whether it matters which nodes are in sync.
    """

    def __init__(self, published: Published, clients: str, wrongs: frozenset[str], *, sync: bool) -> None:
        self.published = published
        self.clients = clients
        self.wrongs = wrongs
        self.sync = sync

    def first(self, unit: str, snapshot: int) -> Edge:
        """A node that has served under the first snapshot for a long time."""
        accepts = self.published.treatment(snapshot, unit).accepts
        epoch = self.published.epoch_of(snapshot)
        sessions = accepts if self.clients in ("saturated", "sessions") else 0
        return Edge(disk=snapshot, obeys=snapshot, acked=epoch, sessions=sessions, in_sync=self.sync)

    def outside(self) -> Edge:
        """A node that is registered and was never started."""
        return Edge(
            standing=Standing.REGISTERED, enrolment=0, acked=-1, live=False, process=Process.DOWN,
            connected=False, disk=-1, disk_enrolment=0, obeys=-1, highest=0,
        )  # fmt: skip

    # what it does at this moment

    def accepts(self, unit: str, edge: Edge) -> int:
        """The ids for which it would open a tunnel."""
        if edge.process is not Process.SERVING or edge.obeys < 0:
            return 0
        return self.published.treatment(edge.obeys, unit).accepts

    def open_for(self, unit: str, edge: Edge) -> dict[str, int]:
        """The ids with an open tunnel, by the unit whose back-source has its other end."""
        open_ones = {unit: edge.sessions | edge.closing}
        for bit, owner in edge.proxied:
            open_ones[owner] = open_ones.get(owner, 0) | bit
        return open_ones

    # moves

    def moves(self, unit: str, edge: Edge, newest: int, movable: int, faults: frozenset[str]) -> list[Move]:
        """Everything that may happen to the edge next.

        Args:
            movable: the ids that cutovers have moved or are moving; no other session may be closed.
            faults: the kinds of faults that may still happen.

        Raises:
            Broken: I4 or I6.
        """
        found = [
            *self._clients(unit, edge),
            *self._process(unit, edge, movable, faults),
            *self._stream(edge, newest, faults),
            *self._console(unit, edge, newest, movable, faults),
            *self._words(unit, edge, faults),
            *self._wrong(unit, edge, newest, movable),
        ]
        return [move for move in found if move.edge != edge and (move.costs is None or move.costs in faults)]

    def _clients(self, unit: str, edge: Edge) -> Iterator[Move]:
        for bit in self.bits(edge.closing):
            yield Move(
                f"has closed its session of {self.name_of(bit)}",
                edge._replace(closing=edge.closing & ~bit),
                fair=True,
            )
        if edge.process is not Process.SERVING or self.clients in ("none", "saturated"):
            return
        treatment = self.published.treatment(edge.obeys, unit)
        for bit in self.bits(treatment.accepts & ~(edge.sessions | edge.half_open)):
            if self.clients == "sessions":
                yield Move(
                    f"opens a session of {self.name_of(bit)}", edge._replace(sessions=edge.sessions | bit)
                )
            else:
                words = f"accepts a handshake of {self.name_of(bit)} and asks its back-source"
                yield Move(words, edge._replace(half_open=edge.half_open | bit))
        for bit in self.bits(edge.half_open):
            opened = edge._replace(half_open=edge.half_open & ~bit, sessions=edge.sessions | bit)
            yield Move(
                f"opens the session of {self.name_of(bit)} on the back-source's 101", opened, fair=True
            )
        if self.clients == "handshakes":
            for bit in self.bits(treatment.holds & ~edge.held):
                words = f"holds a handshake of {self.name_of(bit)}"
                yield Move(words, edge._replace(held=edge.held | bit))
            for bit in self.bits(edge.held):
                words = f"closes the held handshake of {self.name_of(bit)} after 5 s"
                yield Move(words, edge._replace(held=edge.held & ~bit), fair=True)

    def _process(self, unit: str, edge: Edge, movable: int, faults: frozenset[str]) -> Iterator[Move]:
        if edge.process is Process.DOWN:
            yield from self._starts(unit, edge, movable)
            if edge.tombstone and edge.standing is Standing.ENROLLED:
                yield from self._says_left(edge, faults)
            return
        yield Move("is killed", _dead(edge), "crash")
        if edge.process is Process.SERVING:
            gone = edge._replace(process=Process.IDLE, obeys=-1, sessions=0, closing=0, half_open=0, held=0)
            yield Move("loses its workers, while its agent lives", gone, "workers")
            for process, words, costs in (
                (Process.DRAINING, "is told to stop (SIGTERM) and drains", "term"),
                (Process.LEAVING, "is told to leave and drains", "leave"),
            ):
                closing = edge.closing | edge.sessions
                drains = edge._replace(process=process, closing=closing, sessions=0, half_open=0, held=0)
                yield Move(words, drains, costs)
        if edge.process is Process.IDLE and edge.obeys < 0:
            # With its stream up an agent that has just begun would wait for the console; one that has lost
            # its workers does not. What is safe for the one is safe for the other.
            yield from self._from_file(unit, edge, movable)
        if edge.process in (Process.DRAINING, Process.LEAVING) and not edge.closing:
            if edge.process is Process.LEAVING and edge.disk_enrolment:
                yield Move(
                    "has left: its tombstone is on disk",
                    _dead(edge)._replace(tombstone=edge.disk_enrolment),
                    fair=True,
                )
            else:
                yield Move("has stopped", _dead(edge), fair=True)

    def _starts(self, unit: str, edge: Edge, movable: int) -> Iterator[Move]:
        if edge.standing is Standing.DEAD:
            return  # fenced, as the operator said
        up = edge._replace(process=Process.IDLE, connected=True, live=True)
        if edge.tombstone >= edge.enrolment and edge.standing is Standing.ENROLLED:
            up = up._replace(standing=Standing.LEFT)  # the greeting tells of the tombstone
        yield Move("starts and reaches the console", up, fair=True)
        alone = edge._replace(process=Process.IDLE, connected=False)
        yield from self._from_file(unit, alone, movable, "starts without the console, from its own file")

    def _from_file(
        self, unit: str, edge: Edge, movable: int, words: str = "serves from its own file"
    ) -> Iterator[Move]:
        if edge.disk < 0 or (edge.tombstone and "a node starts after its tombstone" not in self.wrongs):
            return
        yield Move(words, self._obey(unit, edge, edge.disk, movable)._replace(process=Process.SERVING))

    def _stream(self, edge: Edge, newest: int, faults: frozenset[str]) -> Iterator[Move]:
        if edge.process is Process.DOWN:
            if edge.live:
                yield Move("is not live any more", edge._replace(live=False), fair=True)
            return
        if edge.connected:
            lost = edge._replace(connected=False, delivered=-1, delivered_for=0, in_sync=False)
            yield Move("loses its stream", lost, "flap")
            if self.sync:
                yield Move(
                    "loses its stream and has not noticed", lost._replace(in_sync=edge.in_sync), "unnoticed"
                )
            if edge.live:
                silent = edge._replace(live=False, in_sync=False)
                yield Move("is not heard of for 5 s", silent, "silence")
            said = edge._replace(live=True, told_parked=edge.process is Process.PARKED and not edge.closing)
            yield Move("sends a status", said, fair=True)
            if edge.delivered < 0 and self._wants(edge, newest):
                version = self.published.version_of(newest)
                sent = edge._replace(delivered=newest, delivered_for=edge.enrolment)
                yield Move(f"is sent version {version}, which takes its time", sent, "delay")
            current = newest == edge.obeys and edge.standing is Standing.ENROLLED
            if self.sync and not edge.in_sync and (current or "stale-confirm" in faults):
                costs = None if current else "stale-confirm"
                words = "is confirmed" if current else "is confirmed by a console that reads stale"
                yield Move(words, edge._replace(in_sync=True, live=True), costs, fair=current)
        else:
            again = edge._replace(connected=True, live=True, in_sync=False)
            yield Move("is connected again", again, fair=True)
            if edge.live:
                yield Move("is not live any more", edge._replace(live=False), fair=True)
        if edge.in_sync and edge.obeys != newest:
            yield Move("was not confirmed for 3 s", edge._replace(in_sync=False), fair=True)

    def _wants(self, edge: Edge, snapshot: int) -> bool:
        """Whether the console would send the snapshot, and the node apply it."""
        if edge.standing is not Standing.ENROLLED or edge.refused == snapshot:
            return False
        version = self.published.version_of(snapshot)
        if version < self.published.version_of(edge.disk):
            return "an older version is applied" in self.wrongs
        return edge.obeys != snapshot or edge.disk_enrolment != edge.enrolment

    def _console(
        self, unit: str, edge: Edge, newest: int, movable: int, faults: frozenset[str]
    ) -> Iterator[Move]:
        """Joining, declaring, and what is delivered."""
        if edge.standing is Standing.ENROLLED and not edge.connected:
            fenced = _dead(edge)._replace(standing=Standing.DEAD, live=False)
            yield Move("is fenced and declared dead", fenced, "dead")
        if not edge.connected or edge.process is Process.DOWN:
            return
        outside = edge.standing in (Standing.REGISTERED, Standing.LEFT)
        if outside and edge.process is Process.IDLE:
            number = max(edge.enrolment, edge.tombstone) + 1
            snapshot = edge.delivered if edge.delivered >= 0 else newest
            yield Move(
                f"is enrolled (number {number}) and handed version {self.published.version_of(snapshot)}",
                edge._replace(
                    standing=Standing.ENROLLED, enrolment=number, acked=0, drained=-1, exited=-1,
                    delivered=snapshot, delivered_for=number,
                ),
                fair=True,
            )  # fmt: skip
        target, number = newest, edge.enrolment
        if edge.delivered >= 0:
            target, number = edge.delivered, edge.delivered_for
        early = outside and "a node listens before it is enrolled" in self.wrongs
        if not (self._wants(edge, target) or early) or (number <= edge.tombstone and not early):
            if edge.delivered >= 0:
                words = "is delivered what it has, or what is older than that"
                yield Move(words, edge._replace(delivered=-1, delivered_for=0), fair=True)
            if edge.refused >= 0:
                yield Move("tries again what it refused", edge._replace(refused=-1), fair=True)
            return
        yield from self._applies(unit, edge, target, number, movable)
        yield from self._refuses(unit, edge, target)

    def _applies(self, unit: str, edge: Edge, target: int, number: int, movable: int) -> Iterator[Move]:
        version = self.published.version_of(target)
        written = edge._replace(
            disk=target, disk_enrolment=number, tombstone=0, delivered=-1, delivered_for=0, refused=-1
        )
        yield Move(f"stores version {version} and is killed", _dead(written), "torn")
        if "an ack comes before the disk" in self.wrongs:
            written = edge._replace(delivered=-1, delivered_for=0, refused=-1)
        obeys = self._obey(unit, written, target, movable)
        if edge.process in (Process.IDLE, Process.PARKED):
            obeys = self._saturated(unit, obeys._replace(process=Process.SERVING))
        yield Move(f"applies version {version} ({self._tells(target)})", obeys, fair=True)

    def _refuses(self, unit: str, edge: Edge, target: int) -> Iterator[Move]:
        has = edge.obeys if edge.obeys >= 0 else edge.disk
        if has < 0 or edge.process is not Process.SERVING:
            return
        words = f"refuses version {self.published.version_of(target)}"
        refused = edge._replace(refused=target, delivered=-1, delivered_for=0, in_sync=False)
        body = canonical(self.published.load(target).document).decode()
        if must_park(self.published.load(has), unit, body):
            closing = edge.closing | edge.sessions
            refused = refused._replace(
                process=Process.PARKED, closing=closing, sessions=0, half_open=0, held=0
            )
            words += " and parks"
        yield Move(words, refused, "refuse")

    # what it says

    def _words(self, unit: str, edge: Edge, faults: frozenset[str]) -> Iterator[Move]:
        if edge.late is not None:
            words = (
                f"is heard late: {edge.late.kind} of epoch {edge.late.epoch}, enrolment {edge.late.enrolment}"
            )
            yield Move(words, self._hear(edge, edge.late))
        if not edge.connected or edge.process is Process.DOWN:
            return
        for word in self._sayable(unit, edge):
            words = f"says {word.kind} (epoch {word.epoch})"
            yield Move(words, self._hear(edge, word), fair=True)
            if edge.late is None:
                yield Move(f"{words}, which is late", edge._replace(late=word), "late")

    def _sayable(self, unit: str, edge: Edge) -> Iterator[Late]:
        published = self.published
        if edge.disk >= 0 and edge.obeys >= 0:
            early = "an ack comes before the disk" in self.wrongs
            if edge.obeys == edge.disk or early:
                yield Late("ack", edge.disk_enrolment, published.epoch_of(edge.obeys))
            if published.phase_of(edge.obeys) is Phase.FREEZE and not edge.closing:
                keeps = published.treatment(edge.obeys, unit).keeps
                left = (edge.sessions | edge.half_open) & ~keeps
                if left and "drained forgets half-open handshakes" not in self.wrongs:
                    raise Broken(f"I6: drained is said although {edge} has something left")
                yield Late("drained", edge.disk_enrolment, published.epoch_of(edge.obeys))
        workerless = edge.process is Process.IDLE and edge.obeys < 0 and not edge.tombstone
        if workerless and edge.disk >= 0 and published.phase_of(edge.disk) is Phase.FREEZE:
            yield Late("exited", edge.disk_enrolment, published.epoch_of(edge.disk))

    def _says_left(self, edge: Edge, faults: frozenset[str]) -> Iterator[Move]:
        word = Late("left", edge.tombstone, 0)
        yield Move("says left", self._hear(edge, word), fair=True)
        if edge.late is None:
            yield Move("says left, which is late", edge._replace(late=word), "late")

    def _hear(self, edge: Edge, word: Late) -> Edge:
        """The console has stored the word, if it counts (units.reports, units.enrolment)."""
        wrongs = self.wrongs
        if edge.standing is not Standing.ENROLLED:
            return edge
        foreign = word.enrolment != edge.enrolment
        match word.kind:
            case "ack" if not foreign and word.epoch > edge.acked:
                return edge._replace(acked=word.epoch)
            case "drained" if not foreign or "a late drained is believed" in wrongs:
                if edge.drained < word.epoch <= edge.acked:
                    return edge._replace(drained=word.epoch)
            case "exited" if not foreign and word.epoch > edge.exited:
                return edge._replace(exited=word.epoch)
            case "left" if not foreign or "a late left is believed" in wrongs:
                return edge._replace(standing=Standing.LEFT)
        return edge

    # obeying

    def _obey(self, unit: str, edge: Edge, snapshot: int, movable: int) -> Edge:
        """The snapshot is in every worker: what it forbids has begun to end, what waited decides again."""
        version = self.published.version_of(snapshot)
        if version < edge.highest and edge.obeys != snapshot:
            wrong = {"an older version is applied", "a node starts below its own file"}
            if not (wrong & self.wrongs) and "an ack comes before the disk" not in self.wrongs:
                raise Broken(f"I6: version {version} is applied after {edge.highest}")
        treatment = self.published.treatment(snapshot, unit)
        unwanted = edge.sessions & ~treatment.keeps
        if unwanted & ~movable:
            raise Broken(
                f"I4: the session of {self.name_of(unwanted & ~movable)} is closed, which does not move"
            )
        half_open, withdrawn = edge.half_open & treatment.keeps, edge.half_open & ~treatment.keeps
        if "drained forgets half-open handshakes" in self.wrongs:
            half_open, withdrawn = edge.half_open, 0
        woken = edge.held & treatment.accepts
        if "a hold is answered from the snapshot of its arrival" in self.wrongs:
            woken = edge.held & ~treatment.holds
        served = tuple(one for one in edge.proxied if treatment.owners[one[0].bit_length() - 1] == one[1])
        obeying = edge._replace(
            obeys=snapshot,
            highest=max(version, edge.highest),
            in_sync=edge.in_sync and edge.obeys == snapshot,
            sessions=edge.sessions & treatment.keeps,
            closing=edge.closing | unwanted,
            half_open=half_open | woken,
            held=(edge.held | withdrawn) & treatment.holds,
            proxied=served,
        )
        return self._saturated(unit, obeying)

    def _saturated(self, unit: str, edge: Edge) -> Edge:
        """Where clients are many, everybody who may be served is."""
        if self.clients != "saturated" or edge.process is not Process.SERVING:
            return edge
        accepts = self.published.treatment(edge.obeys, unit).accepts
        return edge._replace(sessions=edge.sessions | accepts)

    # mutations

    def _wrong(self, unit: str, edge: Edge, newest: int, movable: int) -> Iterator[Move]:
        for name, make in _WRONG_MOVES.items():
            if name in self.wrongs:
                yield from make(self, unit, edge, newest, movable)

    def bits(self, mask: int) -> Iterator[int]:
        while mask:
            bit = mask & -mask
            yield bit
            mask ^= bit

    def name_of(self, mask: int) -> str:
        """The watched ids of a mask, for a sentence."""
        return " and ".join(str(self.published.ids[bit.bit_length() - 1]) for bit in self.bits(mask))

    def _tells(self, snapshot: int) -> str:
        phase = self.published.phase_of(snapshot)
        return str(phase) if phase else "no cutover"


def _dead(edge: Edge) -> Edge:
    """No process of the node is left; the disk and what is on its way are as they were."""
    return edge._replace(
        process=Process.DOWN, connected=False, obeys=-1, refused=-1, in_sync=False, sessions=0, closing=0,
        half_open=0, held=0, proxied=(), delivered=-1, delivered_for=0,
    )  # fmt: skip


WrongMove = Callable[[Edges, str, Edge, int, int], Iterator[Move]]


def _disk_is_late(edges: Edges, unit: str, edge: Edge, newest: int, movable: int) -> Iterator[Move]:
    if edge.obeys >= 0:
        yield Move("writes its snapshot to disk at last", edge._replace(disk=edge.obeys))


def _unfreezes(edges: Edges, unit: str, edge: Edge, newest: int, movable: int) -> Iterator[Move]:
    if edge.process is Process.SERVING:
        frozen = edges.published.treatment(edge.obeys, unit).holds
        yield Move("serves frozen ids again, on its timer", edge._replace(sessions=edge.sessions | frozen))


def _starts_older(edges: Edges, unit: str, edge: Edge, newest: int, movable: int) -> Iterator[Move]:
    if edge.process is Process.DOWN and edge.standing is Standing.ENROLLED and edge.disk > 0:
        back = edges._obey(unit, edge, 0, movable)._replace(process=Process.SERVING)
        yield Move("starts from a version below its own file", edges._saturated(unit, back))


def _is_read_to(edges: Edges, unit: str, edge: Edge, newest: int, movable: int) -> Iterator[Move]:
    outside = edge.standing in (Standing.REGISTERED, Standing.LEFT)
    if outside and edge.connected and edge.process is Process.IDLE and edge.delivered < 0:
        version = edges.published.version_of(newest)
        yield Move(f"is about to be enrolled: version {version} was read", edge._replace(delivered=newest))


def _applies_twice(edges: Edges, unit: str, edge: Edge, newest: int, movable: int) -> Iterator[Move]:
    """What is applied arrives once more, some time later; meanwhile newer ones come."""
    for target in {newest, edge.delivered} - {-1}:
        if edge.connected and edges._wants(edge, target):
            for move in edges._applies(unit, edge, target, edge.enrolment, movable):
                late = target if edge.delivered < 0 else edge.delivered
                yield move._replace(edge=move.edge._replace(delivered=late, delivered_for=edge.enrolment))


def _proxies(edges: Edges, unit: str, edge: Edge, newest: int, movable: int) -> Iterator[Move]:
    if edge.process is Process.SERVING:
        for bit, owner in enumerate(edges.published.treatment(edge.obeys, unit).owners):
            if owner is not None and not edge.proxied:
                words = f"tunnels {edges.name_of(1 << bit)} straight to a back-source of {owner}"
                yield Move(words, edge._replace(proxied=((1 << bit, owner),)))


_WRONG_MOVES: dict[str, WrongMove] = {
    "an ack comes before the disk": _disk_is_late,
    "frozen ids are served again on a timer": _unfreezes,
    "a node starts below its own file": _starts_older,
    "joining is not locked": _is_read_to,
    "an older version is applied": _applies_twice,
    "a stranger is proxied straight to a back-source": _proxies,
}
