"""An exhaustive search: every state that a scenario can reach, breadth first, each once.

A state that breaks an invariant ends the search with the shortest way to it, told in words.
"""

import gc
import time
from array import array
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from tests.model.edges import Broken
from tests.model.world import Machine, Scenario, State


class Violation(AssertionError):
    """A state breaks an invariant; its text tells how it is reached."""


class TooMany(AssertionError):
    """The scenario has more states than the search was allowed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search went through, without finding anything wrong."""

    scenario: str
    states: int
    transitions: int
    seconds: float
    endings: frozenset[str]


def search(scenario: Scenario, limit: int = 3_000_000) -> Found:
    """Every reachable state was looked at, and from each a quiet end can be reached.

    Raises:
        Violation: with the shortest way to a state that breaks an invariant.
        TooMany: more than ``limit`` states.
    """
    collects = gc.isenabled()
    gc.disable()  # nothing here is ever garbage, and looking for some would take a third of the time
    try:
        return _search(scenario, limit)
    finally:
        if collects:
            gc.enable()


def _search(scenario: Scenario, limit: int) -> Found:
    began = time.monotonic()
    machine = Machine(scenario)
    first = machine.first()
    numbers: dict[State, int] = {first: 0}
    states = [first]
    parents = array("l", [-1])
    fair_from, fair_to = array("l"), array("l")
    queue = deque([0])
    transitions = 0
    endings = set()
    settles = scenario.settles
    while queue:
        number = queue.popleft()
        state = states[number]
        try:
            ways = machine.after(state)
        except Broken as broken:
            raise Violation(_told(machine, states, parents, number, str(broken))) from broken
        transitions += len(ways)
        for after, fair in ways:
            known = numbers.get(after)
            if known is None:
                known = numbers[after] = len(states)
                states.append(after)
                parents.append(number)
                try:
                    machine.check(after)
                except Broken as broken:
                    raise Violation(_told(machine, states, parents, known, str(broken))) from broken
                if known >= limit:
                    raise TooMany(f"{scenario.name} has more than {limit} states")
                queue.append(known)
            if fair and settles:
                fair_from.append(number)
                fair_to.append(known)
        ending = machine.world(state).ending
        if ending is not None:
            endings.add(str(ending))
    if settles:
        stuck = _stuck(machine, states, fair_from, fair_to)
        if stuck is not None:
            text = "from here no quiet end can be reached, although no fault comes any more"
            raise Violation(_told(machine, states, parents, stuck, text))
    seconds = time.monotonic() - began
    return Found(scenario.name, len(states), transitions, seconds, frozenset(endings))


def _stuck(
    machine: Machine, states: list[State], fair_from: "array[int]", fair_to: "array[int]"
) -> int | None:
    """The first state from which the fair moves do not lead to a quiet end, or None."""
    counts = array("l", [0]) * (len(states) + 1)
    for target in fair_to:
        counts[target + 1] += 1
    for index in range(len(states)):
        counts[index + 1] += counts[index]
    sources = array("l", [0]) * len(fair_to)
    place = array("l", counts)
    for source, target in zip(fair_from, fair_to, strict=True):
        sources[place[target]] = source
        place[target] += 1
    reaches = bytearray(len(states))
    todo = [number for number, state in enumerate(states) if machine.settled(state)]
    for number in todo:
        reaches[number] = 1
    while todo:
        target = todo.pop()
        for source in sources[counts[target] : counts[target + 1]]:
            if not reaches[source]:
                reaches[source] = 1
                todo.append(source)
    stuck = reaches.find(0)
    return None if stuck < 0 else stuck


def _told(machine: Machine, states: list[State], parents: "array[int]", number: int, problem: str) -> str:
    """The way to a state, in words."""
    way = [number]
    while parents[way[-1]] >= 0:
        way.append(parents[way[-1]])
    way.reverse()
    lines = [f"{machine.scenario.name}: {problem}"]
    for count, (before, after) in enumerate(pairwise(way), 1):
        lines.append(f"{count:3}. {machine.words(states[before], states[after])}")
    world = machine.world(states[number])
    lines.append(
        f"  then: {world.step or world.ending}, version {machine.published.version_of(world.newest)}"
    )
    lines += [
        f"        {unit}-{place} {edge}"
        for place, (unit, edge) in enumerate(machine.edges_of(states[number]), 1)
    ]
    return "\n".join(lines)
