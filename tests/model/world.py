"""The whole world of the model: a console that publishes and judges, its operator, and the edges.

A state is a tuple of small numbers: the `World` (everything but the edges), then each edge; nodes of one unit
are alike, so their order is forgotten. The moves come from `edges` and `consoles`; here they are joined, and
what must hold in every state is checked.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from msha.steering.phases import Phase, Step
from tests.model.clients import Client, Clients
from tests.model.consoles import Consoles, Turn, World
from tests.model.edges import Broken, Edge, Edges, Move, Process, Standing, view_of
from tests.model.published import Change, Published, Ranges

State = tuple[int, ...]

_BEGIN = Step(Phase.PREPARE)


@dataclass(frozen=True)
class Scenario:
    """A small configuration, with the faults that may happen in it.

    Attributes:
        nodes: how many edges each unit has.
        strangers: how many further nodes of a unit may join.
        faults: how often each kind of fault may happen.
        ids: the watched ids: one of each stretch that no table divides is enough.
        late_client: the client connects while a RELEASE runs, not at any time.
        heeded: up to how many turns an operator turns an ACTIVATE round whose alarm is raised.
        settles: whether a quiet end must be reachable from every state.
        wrongs: the mutations that are made in the model.
    """

    name: str
    ranges: Ranges
    changes: tuple[Change, ...]
    nodes: dict[str, int]
    ids: tuple[int, ...]
    faults: dict[str, int] = field(default_factory=dict)
    strangers: dict[str, int] = field(default_factory=dict)
    clients: str = "saturated"
    late_client: bool = False
    heeded: int = 0
    settles: bool = True
    wrongs: frozenset[str] = frozenset()


class Way(NamedTuple):
    """One step of the world, as a search needs it."""

    state: State
    fair: bool


class Machine:
    """The states that follow each other in a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.published = Published(scenario.ranges, scenario.changes, scenario.ids)
        self.walks = "connect" in scenario.faults
        self.edges = Edges(self.published, scenario.clients, scenario.wrongs, sync=self.walks)
        self.consoles = Consoles(self.published, scenario.wrongs, scenario.heeded)
        self.clients = Clients(self.published, scenario.wrongs)
        self.units: list[str] = []
        self.kinds = tuple(sorted(scenario.faults))
        self._edges: list[Edge] = []
        self._edge_numbers: dict[Edge, int] = {}
        self._worlds: list[World] = []
        self._world_numbers: dict[World, int] = {}
        # What an edge can see of a world; many worlds look alike to it.
        self._sights: list[int] = []
        self._sight_numbers: dict[object, int] = {}
        self._moves: dict[tuple[int, str, int], list[tuple[int, int, bool]]] = {}
        self._spent: dict[tuple[int, int], int] = {}
        self._openers: dict[tuple[int, str], tuple[int, ...]] = {}
        self._views: list[int] = []
        self._view_numbers: dict[object, int] = {}
        self._judged: dict[tuple[int, ...], list[tuple[int, bool, int]]] = {}
        self._groups: list[tuple[int, int]] = []

    def first(self) -> State:
        """Everything serves, and a cutover is about to begin."""
        snapshot = self.published.snapshot(self.published.first_rule, 1, 0)
        edges: list[int] = []
        for unit in self.published.units:
            start = len(self.units)
            here = [self.edges.first(unit, snapshot)] * self.scenario.nodes.get(unit, 0)
            here += [self.edges.outside()] * self.scenario.strangers.get(unit, 0)
            self.units += [unit] * len(here)
            edges += sorted(self._edge_number(edge) for edge in here)
            if len(here) > 1:
                self._groups.append((start + 1, start + 1 + len(here)))
        budget = tuple(self.scenario.faults[kind] for kind in self.kinds)
        return (self._world_number(World(snapshot, budget)), *edges)

    def world(self, state: State) -> World:
        return self._worlds[state[0]]

    def edges_of(self, state: State) -> list[tuple[str, Edge]]:
        """The edges with their units."""
        return [(unit, self._edges[number]) for unit, number in zip(self.units, state[1:], strict=True)]

    # what follows

    def after(self, state: State) -> list[Way]:
        """Every state that may follow.

        Raises:
            Broken: an invariant of a step does not hold.
        """
        found: list[Way] = []
        world_number = state[0]
        sight = self._sights[world_number]
        for place, unit in enumerate(self.units, 1):
            for after, kind, fair in self._moves_of(state[place], unit, sight, world_number):
                world = world_number if kind < 0 else self._spend(world_number, kind)
                follows = list(state)
                follows[0] = world
                follows[place] = after
                found.append(Way(self._alike(follows), fair))
        views = (world_number, *[self._views[number] for number in state[1:]])
        judged = self._judged.get(views)
        if judged is None:
            judged = self._judged[views] = self._judge(state)
        for world, fair, given in judged:
            if given:
                self._check_given(state, world)
            found.append(Way((world, *state[1:]), fair))
        if self.walks:
            found.extend(Way((world, *state[1:]), False) for world, _ in self._client_moves(state))
        return found

    def check(self, state: State) -> None:
        """I1 and I2.

        Raises:
            Broken: two units serve, or would serve, one id.
        """
        count = len(self.published.units)
        opened, accepting = [0] * count, [0] * count
        for unit, number in zip(self.units, state[1:], strict=True):
            masks = self._opener(number, unit)
            for index in range(count):
                opened[index] |= masks[index]
                accepting[index] |= masks[count + index]
        for name, of_units in (("I1", opened), ("I2", accepting)):
            seen = 0
            for mask in of_units:
                if seen & mask:
                    here = zip(self.published.units, of_units, strict=True)
                    both = " and ".join(unit for unit, other in here if other & seen & mask)
                    does = "have a tunnel open" if name == "I1" else "would open a tunnel"
                    raise Broken(f"{name}: {both} {does} for {self.edges.name_of(seen & mask)}")
                seen |= mask

    def settled(self, state: State) -> bool:
        """Whether no cutover runs and every enrolled node serves under the newest snapshot."""
        world = self.world(state)
        return world.step is None and all(
            edge.standing is not Standing.ENROLLED
            or (edge.process is Process.SERVING and edge.obeys == world.newest)
            for _, edge in self.edges_of(state)
        )

    def words(self, before: State, after: State) -> str:
        """What happened between two states, for a human."""
        for place, unit in enumerate(self.units, 1):
            for move in self._found(before[place], unit, before[0]):
                kind = -1 if move.costs is None else self.kinds.index(move.costs)
                world = before[0] if kind < 0 else self._spend(before[0], kind)
                follows = list(before)
                follows[0], follows[place] = world, self._edge_number(move.edge)
                if self._alike(follows) == after:
                    return f"{unit}-{place} {move.words}"
        for words, turned, _ in self._console_moves(before):
            if (self._world_number(turned), *before[1:]) == after:
                return words
        for number, words in self._client_moves(before):
            if (number, *before[1:]) == after:
                return words
        return "something that is not known"

    # inside

    def _moves_of(self, number: int, unit: str, sight: int, world_number: int) -> list[tuple[int, int, bool]]:
        key = (number, unit, sight)
        found = self._moves.get(key)
        if found is None:
            found = self._moves[key] = [
                (
                    self._edge_number(move.edge),
                    -1 if move.costs is None else self.kinds.index(move.costs),
                    move.fair,
                )
                for move in self._found(number, unit, world_number)
            ]
        return found

    def _found(self, number: int, unit: str, world_number: int) -> list[Move]:
        world = self._worlds[world_number]
        faults = frozenset(k for k, left in zip(self.kinds, world.budget, strict=True) if left)
        movable = 0
        for plan in range(world.plan + 1):
            movable |= self.published.moved_by(plan)
        return self.edges.moves(unit, self._edges[number], world.newest, movable, faults)

    def _spend(self, world_number: int, kind: int) -> int:
        key = (world_number, kind)
        spent = self._spent.get(key)
        if spent is None:
            spent = self._spent[key] = self._world_number(self._worlds[world_number].spent(kind))
        return spent

    def _alike(self, follows: list[int]) -> State:
        for start, end in self._groups:
            if end - start == 2:
                if follows[start] > follows[start + 1]:
                    follows[start], follows[start + 1] = follows[start + 1], follows[start]
            else:
                follows[start:end] = sorted(follows[start:end])
        return tuple(follows)

    def _edge_number(self, edge: Edge) -> int:
        number = self._edge_numbers.get(edge)
        if number is None:
            number = self._edge_numbers[edge] = len(self._edges)
            self._edges.append(edge)
            view = view_of("", "", edge, self.scenario.wrongs)
            self._views.append(self._view_numbers.setdefault(view, len(self._view_numbers)))
        return number

    def _world_number(self, world: World) -> int:
        number = self._world_numbers.get(world)
        if number is None:
            number = self._world_numbers[world] = len(self._worlds)
            self._worlds.append(world)
            seen = (world.newest, world.plan, tuple(map(bool, world.budget)))
            self._sights.append(self._sight_numbers.setdefault(seen, len(self._sight_numbers)))
        return number

    def _opener(self, number: int, unit: str) -> tuple[int, ...]:
        """Open tunnels per unit, then ids that would be accepted per unit."""
        key = (number, unit)
        masks = self._openers.get(key)
        if masks is None:
            edge, units = self._edges[number], self.published.units
            opened = self.edges.open_for(unit, edge)
            accepts = self.edges.accepts(unit, edge)
            masks = self._openers[key] = (
                *[opened.get(each, 0) for each in units],
                *[accepts if each == unit else 0 for each in units],
            )
        return masks

    def _console_moves(self, state: State) -> Iterator[Turn]:
        views = [
            view_of(f"{unit}-{place}", unit, edge, self.scenario.wrongs)
            for place, (unit, edge) in enumerate(self.edges_of(state), 1)
        ]
        world = self.world(state)
        kinds = {kind: i for i, kind in enumerate(self.kinds) if world.budget[i]}
        yield from self.consoles.moves(world, views, kinds)

    def _judge(self, state: State) -> list[tuple[int, bool, int]]:
        """What the console and its operator may do, given what is stored of the nodes."""
        found: list[tuple[int, bool, int]] = []
        before = self.world(state)
        for _, world, fair in self._console_moves(state):
            if world == before:
                continue
            given = 1 if world.newest != before.newest else 0
            found.append((self._world_number(world), fair, given))
        return found

    def _check_given(self, state: State, world_number: int) -> None:
        """I8: whoever may now accept an id follows a drain of everybody else who could have served it."""
        before, after = self.world(state), self._worlds[world_number]
        for unit in self.published.units:
            given = self.published.treatment(after.newest, unit).accepts
            given &= ~self.published.treatment(before.newest, unit).accepts
            if not given:
                continue
            for place, (other, edge) in enumerate(self.edges_of(state), 1):
                if other != unit and self._could_serve(other, edge) & given:
                    raise Broken(f"I8: {unit} is given ids that {other}-{place} may still serve")

    def _could_serve(self, unit: str, edge: Edge) -> int:
        """The ids that the node serves, or would if it started from its file."""
        if edge.standing is Standing.DEAD:
            return 0
        could = edge.sessions | edge.closing | edge.half_open | self.edges.accepts(unit, edge)
        handed = edge.delivered if edge.standing is Standing.ENROLLED else -1
        for snapshot in (edge.disk if not edge.tombstone else -1, handed):
            if snapshot >= 0 and edge.obeys < 0:
                could |= self.published.treatment(snapshot, unit).accepts
        return could

    def _client_moves(self, state: State) -> list[tuple[int, str]]:
        world = self.world(state)
        if world.client is None:
            kind = self.kinds.index("connect")
            if not world.budget[kind]:
                return []
            if self.scenario.late_client and (world.step or _BEGIN).phase is not Phase.RELEASE:
                return []
            begun = world.spent(kind)._replace(client=Client())
            return [(self._world_number(begun), "a client connects to the domain")]
        found = []
        for place, (unit, edge) in enumerate(self.edges_of(state), 1):
            if edge.process is Process.SERVING:
                stream_counts = "a node is in sync while its stream is up" in self.scenario.wrongs
                in_sync = edge.connected if stream_counts else edge.in_sync
                lost = in_sync and edge.obeys != world.newest
                lost = lost and (not edge.live or "stale-confirm" in self.kinds)
                client, words = self.clients.go(world.client, unit, edge.obeys, in_sync, lost)
                if client != world.client:
                    number = self._world_number(world._replace(client=client))
                    found.append((number, f"{unit}-{place} {words}"))
        return found
