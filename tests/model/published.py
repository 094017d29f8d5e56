"""What a namespace publishes in the model, made by the code that makes it in production.

Rule parts come from `phases.rule_part`, documents from `snapshot.build` and `load`, and what a unit does with
an id from `decision.decide` and `Snapshot.serves`. Each is asked once per input and remembered as bits.
"""

import json
from dataclasses import dataclass
from typing import Any

from msha.steering import phases
from msha.steering.decision import Hold, Redirect, Tunnel, decide
from msha.steering.phases import Phase, Plan, Step
from msha.steering.ranges import KeySpace
from msha.steering.router_id import Request
from msha.steering.snapshot import Snapshot
from tests.steering.builders import make_config, make_rule, make_snapshot, make_unit_type

DOMAIN = "websocket.msha.tech"
UNIT_TYPE = "unit_type"

Ranges = dict[str, list[str]]
Rule = dict[str, Any]

#: A cutover of the model: the ranges after it, the sizes of its batches.
Change = tuple[Ranges, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Treatment:
    """What the edges of one unit do with the watched ids under one rule; one bit per id.

    Attributes:
        accepts: a handshake becomes a tunnel.
        keeps: an open session may go on.
        holds: a handshake waits.
        owners: the unit to which each id's handshake is redirected, or None.
    """

    accepts: int
    keeps: int
    holds: int
    owners: tuple[str | None, ...]


class Published:
    """Every rule and snapshot that a scenario can publish, by number.

    Attributes:
        ids: the watched ids; bit ``i`` of every mask stands for ``ids[i]``.
        plans: what each cutover of the scenario is about, in their order.
    """

    def __init__(self, ranges: Ranges, changes: tuple[Change, ...], ids: tuple[int, ...]) -> None:
        self.units = tuple(sorted(set().union(ranges, *(change[0] for change in changes))))
        self.ids = ids
        self.space = KeySpace(0, 11)
        self._config = _config_for(self.units)
        self._rules: list[Rule] = []
        self._rule_numbers: dict[str, int] = {}
        self._snapshots: list[tuple[int, int, int]] = []
        self._snapshot_numbers: dict[tuple[int, int, int], int] = {}
        self._treatments: dict[tuple[int, str], Treatment] = {}
        self._following: dict[tuple[int, int, Step], int] = {}
        self._loaded: dict[int, Snapshot] = {}
        self.plans: list[Plan] = []
        before = make_unit_type(ranges)
        self.first_rule = self._number_of(make_rule(before, key_space={"min": 0, "max": 11}))
        for number, (after, sizes) in enumerate(changes):
            new = make_unit_type(after)
            moved = phases.moved_between(before, new, self.space)
            clusters = frozenset((unit, f"ws-{unit}") for unit in self.units)
            batches = phases.sliced(moved, sizes)
            self.plans.append(Plan(f"c{number}", UNIT_TYPE, self.space, before, new, batches, clusters))
            before = new

    # rules

    def rule(self, number: int) -> Rule:
        return self._rules[number]

    def rule_after(self, number: int, plan: int, step: Step) -> int:
        """The rule that publishes the step on top of another one."""
        key = (number, plan, step)
        if key not in self._following:
            base = {**self._rules[number], "epoch": 0}
            self._following[key] = self._number_of(phases.rule_part(self.plans[plan], step, base))
        return self._following[key]

    def saved_rule(self, plan: int) -> int:
        """The rule as an operator has saved it: the table to come, and no word of a cutover."""
        return self._number_of(make_rule(self.plans[plan].new, key_space={"min": 0, "max": 11}))

    def starts_from(self, number: int, plan: int) -> bool:
        """Whether the rule is the one that the plan was made for, and nothing runs under it."""
        rule = self._rules[number]
        if rule["cutover"] is not None:
            return False
        owners = phases.table_of(rule["unit_types"][0], self.space)
        wanted = phases.table_of(self.plans[plan].old, self.space)
        return list(owners.segments()) == list(wanted.segments())

    def table_is(self, number: int, entry: dict[str, Any]) -> bool:
        """Whether the rule gives every id to the unit that the entry gives it to."""
        return list(phases.table_of(self._rules[number]["unit_types"][0], self.space).segments()) == list(
            phases.table_of(entry, self.space).segments()
        )

    def _number_of(self, rule: Rule) -> int:
        text = json.dumps({**rule, "epoch": 0}, sort_keys=True)
        if text not in self._rule_numbers:
            self._rule_numbers[text] = len(self._rules)
            self._rules.append({**rule, "epoch": 0})
        return self._rule_numbers[text]

    # snapshots

    def snapshot(self, rule: int, version: int, epoch: int) -> int:
        """The number of the snapshot with this rule; larger versions need not have larger numbers."""
        key = (rule, version, epoch)
        if key not in self._snapshot_numbers:
            self._snapshot_numbers[key] = len(self._snapshots)
            self._snapshots.append(key)
        return self._snapshot_numbers[key]

    def rule_of(self, snapshot: int) -> int:
        return self._snapshots[snapshot][0]

    def version_of(self, snapshot: int) -> int:
        return self._snapshots[snapshot][1] if snapshot >= 0 else 0

    def epoch_of(self, snapshot: int) -> int:
        return self._snapshots[snapshot][2]

    def load(self, snapshot: int) -> Snapshot:
        """The snapshot as an edge compiles it."""
        if snapshot not in self._loaded:
            rule, version, epoch = self._snapshots[snapshot]
            self._loaded[snapshot] = make_snapshot(
                self._config, {**self._rules[rule], "epoch": epoch}, version
            )
        return self._loaded[snapshot]

    def phase_of(self, snapshot: int) -> Phase | None:
        """The phase that the snapshot tells of, if any."""
        running = self._rules[self.rule_of(snapshot)]["cutover"]
        return None if running is None else Phase(running["phase"])

    def treatment(self, snapshot: int, unit: str) -> Treatment:
        """What the unit's edges do with the watched ids."""
        key = (self.rule_of(snapshot), unit)
        if key not in self._treatments:
            self._treatments[key] = self._treat(self.load(snapshot), unit)
        return self._treatments[key]

    def _treat(self, snapshot: Snapshot, unit: str) -> Treatment:
        accepts = keeps = holds = 0
        owners: list[str | None] = []
        for bit, router_id in enumerate(self.ids):
            decision = decide(snapshot, unit, Request.of(DOMAIN, "/", {"routerId": str(router_id)}))
            accepts |= isinstance(decision, Tunnel) << bit
            holds |= isinstance(decision, Hold) << bit
            keeps |= snapshot.serves(unit, UNIT_TYPE, router_id) << bit
            owners.append(decision.unit if isinstance(decision, Redirect) else None)
        return Treatment(accepts, keeps, holds, tuple(owners))

    # ids

    def moved_by(self, plan: int) -> int:
        """The watched ids that the cutover moves, as a mask."""
        moved = [move for batch in self.plans[plan].batches for move in batch]
        return sum(
            1 << bit for bit, i in enumerate(self.ids) if any(move.start <= i < move.end for move in moved)
        )

    def losing_in(self, plan: int, step: Step) -> dict[str, int]:
        """The watched ids that each unit loses in the step's batch and direction."""
        masks: dict[str, int] = {}
        moving = self.plans[plan].moving(step)
        for bit, router_id in enumerate(self.ids):
            move = moving.find(router_id)
            if move is not None:
                masks[move.losing] = masks.get(move.losing, 0) | 1 << bit
        return masks


def _config_for(units: tuple[str, ...]) -> dict[str, Any]:
    """A config part whose one domain every unit can serve."""
    config = make_config(units=units)
    config["clusters"] = []
    config["domains"][0] |= {"clusters": {}, "ports": {}}
    config["domains"][0]["uris"][0]["back_sources"] = {unit: ["127.0.0.1:9101"] for unit in units}
    return config
