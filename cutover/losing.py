"""The units that give ids away, and which of their nodes can be heard."""

from dataclasses import dataclass
from typing import Any

from cutover.models import Cutover
from cutover.plans import enrolled_nodes
from msha.steering.ranges import MovedIds


@dataclass(frozen=True, slots=True)
class LosingUnit:
    """Who of a unit that gives ids away can be heard.

    Attributes:
        silent: names of the enrolled nodes that are not connected, or have said nothing for 5 s.
        live: names of the others; they drain as in a planned cutover.
    """

    unit: str
    silent: tuple[str, ...]
    live: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {"unit": self.unit, "silent": list(self.silent), "live": list(self.live)}


def losing_units(cutover: Cutover) -> list[LosingUnit]:
    """The units that the present direction takes ids from, each with its nodes."""
    moved = MovedIds.from_lists(cutover.moved)
    codes = moved.gaining_units if cutover.turned else moved.losing_units
    nodes = enrolled_nodes(cutover.namespace_id)
    return [
        LosingUnit(
            code,
            tuple(node.name for node in nodes if node.unit.code == code and not node.live),
            tuple(node.name for node in nodes if node.unit.code == code and node.live),
        )
        for code in sorted(codes)
    ]
