"""Who owns which id, as plain numbers: the campaign's own arithmetic, none of the product's."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SIZE = 10_000
CENTER, BRANCH = "center", "unbj"

#: [first, last, losing, gaining], inclusive.
Move = tuple[int, int, str, str]


@dataclass(frozen=True)
class Table:
    """The owner of every id of the key space."""

    owners: tuple[str, ...]
    exact: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, ranges: Mapping[str, Iterable[str]], exact: Mapping[str, Iterable[int]] | None = None
    ) -> "Table":
        """A rule as the API writes it: ``{"center": ["0~5997"], ...}``, and exact ids by unit."""
        owners = [""] * SIZE
        for unit, some in ranges.items():
            for text in some:
                first, _, last = text.partition("~")
                for one in range(int(first), int(last or first) + 1):
                    owners[one] = unit
        kept = {unit: tuple(ids) for unit, ids in (exact or {}).items() if ids}
        return cls(tuple(owners), kept)

    def owner(self, router_id: int) -> str:
        for unit, ids in self.exact.items():
            if router_id in ids:
                return unit
        return self.owners[router_id]

    def ranges(self) -> dict[str, list[str]]:
        """As the API takes it."""
        found: dict[str, list[str]] = {CENTER: [], BRANCH: []}
        begin = 0
        for index in range(1, SIZE + 1):
            if index == SIZE or self.owners[index] != self.owners[begin]:
                found[self.owners[begin]].append(f"{begin}~{index - 1}")
                begin = index
        return found

    def as_json(self) -> dict[str, Any]:
        return {"ranges": self.ranges(), "exact": {unit: list(ids) for unit, ids in self.exact.items()}}

    def moves_to(self, other: "Table") -> list[Move]:
        """What changes its owner."""
        pairs = [(self.owner(one), other.owner(one)) for one in range(SIZE)]
        moves: list[Move] = []
        begin = 0
        for index in range(1, SIZE + 1):
            if index == SIZE or pairs[index] != pairs[begin]:
                if pairs[begin][0] != pairs[begin][1]:
                    moves.append((begin, index - 1, *pairs[begin]))
                begin = index
        return moves

    def with_moved(self, first: int, last: int, unit: str) -> "Table":
        owners = list(self.owners)
        owners[first : last + 1] = [unit] * (last + 1 - first)
        return Table(tuple(owners), self.exact)


#: Ids that cutovers of a campaign move; the others never do.
MOVING = range(4000, 8000)
FIRST = Table.parse({CENTER: ["0~5997"], BRANCH: ["5998~9999"]})


def another(table: Table, dice: random.Random, known: Sequence[int] = MOVING) -> Table:
    """Another table than this one: a boundary shifted, slices exchanged, exact ids, or all as it was.

    Exact ids are some of the known ones, for which there are clients.
    """
    while True:
        found = _drawn(table, dice, known)
        if table.moves_to(found):
            return found


def _drawn(table: Table, dice: random.Random, known: Sequence[int]) -> Table:
    kind = dice.choices(("shift", "exchange", "exact", "first"), (5, 3, 2, 2))[0]
    if kind == "first":
        return FIRST
    if kind == "shift":
        boundary = dice.randrange(MOVING.start + 200, MOVING.stop - 200)
        shifted = FIRST.with_moved(0, boundary - 1, CENTER).with_moved(boundary, SIZE - 1, BRANCH)
        return Table(shifted.owners, table.exact)
    if kind == "exchange":
        found = table
        for _ in range(2):  # both ways where the two slices have different owners
            first = dice.randrange(MOVING.start, MOVING.stop - 500)
            other = BRANCH if table.owners[first] == CENTER else CENTER
            found = found.with_moved(first, first + dice.randrange(20, 500), other)
        return found
    exact: dict[str, list[int]] = {}
    for one in dice.sample(known, min(len(known), dice.randrange(5, 60))):
        exact.setdefault(BRANCH if table.owners[one] == CENTER else CENTER, []).append(one)
    return Table(table.owners, {unit: tuple(sorted(ids)) for unit, ids in exact.items()})
