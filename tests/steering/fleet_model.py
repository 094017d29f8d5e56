"""A small world in which the real phase and decision code runs: nodes, lost messages, crashes, clients.

Nothing here is a copy of the product: snapshots are built and loaded, handshakes are decided and steps are
judged by ``msha.steering``; only what surrounds that code is modelled. After every action I1 and I2 of
PROTOCOL 7 are checked for every id. A walk is a seed: it can be replayed.
"""

import random
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from msha.steering import phases
from msha.steering.decision import Tunnel, decide
from msha.steering.errors import InvalidStep
from msha.steering.phases import Ending, NodeView, Outcome, Phase, Plan, Step
from msha.steering.ranges import KeySpace
from msha.steering.router_id import Request
from msha.steering.snapshot import Snapshot
from tests.steering.builders import make_config, make_rule, make_snapshot, make_unit_type

SPACE = {"min": 0, "max": 11}
IDS = range(12)
DOMAIN = "websocket.msha.tech"
KNOCKS = [Request.of(DOMAIN, "/", {"routerId": str(router_id)}) for router_id in IDS]

Ranges = dict[str, list[str]]

#: Cutovers worth searching: one to one, a chain (A to B while B to C), a swap, and a batched one.
CHANGES: list[tuple[Ranges, Ranges, tuple[int, ...]]] = [
    ({"center": ["0~5"], "unbj": ["6~11"]}, {"center": ["0~7"], "unbj": ["8~11"]}, (99,)),
    (
        {"center": ["0~3"], "unbj": ["4~7"], "unsh": ["8~11"]},
        {"center": ["0~1"], "unbj": ["2~5"], "unsh": ["6~11"]},
        (99,),
    ),
    ({"center": ["0~5"], "unbj": ["6~11"]}, {"unbj": ["0~5"], "center": ["6~11"]}, (99,)),
    ({"center": ["0~5"], "unbj": ["6~11"]}, {"center": ["0~9"], "unbj": ["10~11"]}, (1, 1, 99)),
]


@cache
def config_for(units: tuple[str, ...]) -> dict[str, Any]:
    """A config part whose one domain every unit can serve."""
    config = make_config(units=units)
    config["clusters"] = []
    config["domains"][0] |= {"clusters": {}, "ports": {}}
    config["domains"][0]["uris"][0]["back_sources"] = {unit: ["127.0.0.1:9101"] for unit in units}
    return config


@dataclass
class Node:
    """An edge node: what it obeys, what it has open, and what it has said that has not arrived yet."""

    name: str
    unit: str
    applied: Snapshot
    accepted: frozenset[int]
    up: bool = True
    connected: bool = True
    sessions: set[int] = field(default_factory=set)
    half_open: set[int] = field(default_factory=set)
    outbox: list[tuple[str, int]] = field(default_factory=list)

    def frozen_left(self) -> set[int]:
        """Ids that the node may not serve any more and still has open, or half-open."""
        return {i for i in self.sessions | self.half_open if self.applied.frozen(self.unit, "unit_type", i)}

    def report(self) -> None:
        """What is applied, and drained when that is true, goes on its way to the console."""
        self.outbox.append(("ack", self.applied.epoch))
        self.say_drained()

    def say_drained(self) -> None:
        message = ("drained", self.applied.epoch)
        if self.up and message not in self.outbox and not self.frozen_left():
            self.outbox.append(message)


class Fleet:
    """Console, nodes and clients on a random walk.

    Attributes:
        trail: what happened, for the message of a failure.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.trail: list[str] = [f"seed {seed}"]
        old, new, sizes = CHANGES[seed % len(CHANGES)]
        self.units = tuple(sorted({*old, *new}))
        self.old, self.new = make_unit_type(old), make_unit_type(new)
        space = KeySpace(**SPACE)
        batches = phases.sliced(phases.moved_between(self.old, self.new, space), sizes)
        clusters = frozenset((unit, f"ws-{unit}") for unit in self.units)
        self.plan = Plan("c1", "unit_type", space, self.old, self.new, batches, clusters)
        self.version = 0
        self.step: Step | None = None
        self.ending: Ending | None = None
        self.publish(make_rule(self.old, key_space=SPACE))
        self.nodes = [
            Node(f"{unit}-{number}", unit, self.newest, self.acceptable(self.newest, unit))
            for unit in self.units
            for number in (1, 2)
        ]
        self.acked = {node.name: 0 for node in self.nodes}
        self.drained = {node.name: -1 for node in self.nodes}
        self.advance_to(Step(Phase.PREPARE))

    def run(self, actions: int) -> None:
        """So many random actions, with the invariants checked after each."""
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        for name in self.random.choices(names, weights, k=actions):
            node = self.random.choice(self.nodes)
            getattr(self, name)(node)
            self.trail.append(f"{name} {node.name}")
            self.check()
        self.check_ending()

    def acceptable(self, snapshot: Snapshot, unit: str) -> frozenset[int]:
        """The ids that a worker of the unit would tunnel under the snapshot."""
        return frozenset(i for i in IDS if isinstance(decide(snapshot, unit, KNOCKS[i]), Tunnel))

    def publish(self, rule_part: dict[str, Any]) -> None:
        self.version += 1
        self.rule_part = rule_part
        self.newest = make_snapshot(config_for(self.units), rule_part, self.version)

    def advance_to(self, step: Step) -> None:
        self.step = step
        self.publish(phases.rule_part(self.plan, step, self.rule_part))
        self.trail.append(f"-- {step}")

    # What clients do

    def a_client_knocks(self, node: Node) -> None:
        router_id = self.random.choice(IDS)
        if node.up and router_id in node.accepted:
            node.half_open.add(router_id)

    def a_back_source_answers(self, node: Node) -> None:
        """The shell decides again before it opens the tunnel (PROTOCOL 5, FREEZE)."""
        if node.up:
            node.sessions |= node.half_open & node.accepted
            node.half_open.clear()
            node.say_drained()

    # What nodes do

    def a_node_applies_the_newest_snapshot(self, node: Node) -> None:
        if not (node.up and node.connected) or node.applied.version >= self.newest.version:
            return
        node.applied = self.newest
        node.accepted = self.acceptable(self.newest, node.unit)
        node.sessions = {
            i
            for i in node.sessions
            if node.applied.serves(node.unit, "unit_type", i)
            or node.applied.frozen(node.unit, "unit_type", i)
        }
        node.report()

    def a_node_finishes_closing(self, node: Node) -> None:
        gone = node.frozen_left()
        node.sessions -= gone
        node.half_open -= gone
        node.say_drained()

    def a_node_crashes(self, node: Node) -> None:
        node.up = False
        node.sessions.clear()
        node.half_open.clear()
        node.outbox.clear()

    def a_node_restarts_from_its_own_file(self, node: Node) -> None:
        if not node.up:
            node.up = True
            node.report()

    def a_stream_breaks(self, node: Node) -> None:
        node.connected = False
        node.outbox.clear()

    def a_stream_comes_back(self, node: Node) -> None:
        if node.up and not node.connected:
            node.connected = True
            node.report()

    # What the console does

    def the_console_hears(self, node: Node) -> None:
        if node.up and node.connected and node.outbox:
            kind, epoch = node.outbox.pop(0)
            seen = self.acked if kind == "ack" else self.drained
            seen[node.name] = max(seen[node.name], epoch)
            self.judge(lasted_s=1.0)

    def the_deadline_passes(self, node: Node) -> None:
        self.judge(lasted_s=11.0)

    def judge(self, lasted_s: float) -> None:
        if self.step is None:
            return
        views = [
            NodeView(
                node.name,
                node.unit,
                f"ws-{node.unit}",
                enrolled=True,
                live=node.up and node.connected,
                acked_epoch=self.acked[node.name],
                drained_epoch=self.drained[node.name],
            )
            for node in self.nodes
        ]
        verdict = phases.judge(self.plan, self.step, self.rule_part["epoch"], views, lasted_s)
        if verdict.to is not None:
            self.advance_to(verdict.to)
        elif verdict.outcome is Outcome.FINISH:
            self.ending, self.last_step, self.step = verdict.ending, self.step, None

    def an_ordinary_change_is_put_into_effect(self, node: Node) -> None:
        self.publish(self.rule_part)

    def the_operator_turns_it_around(self, node: Node) -> None:
        if self.step is not None and self.step.phase in (Phase.ACTIVATE, Phase.RELEASE):
            self.advance_to(phases.turned_around(self.step))

    def the_operator_aborts(self, node: Node) -> None:
        if (
            self.step is not None
            and self.step.turns == 0
            and self.step.phase in (Phase.PREPARE, Phase.FREEZE)
        ):
            self.advance_to(phases.aborted(self.step))

    def the_operator_rolls_back(self, node: Node) -> None:
        if self.step is None or (self.step.phase is Phase.ABORT and self.step.batch == 0):
            return
        to = phases.rolled_back(self.step)
        if to == replace(self.step, unwinding=True):
            self.step = to
        else:
            self.advance_to(to)

    def the_operator_stops_here(self, node: Node) -> None:
        """Between two batches, when the gate of the finished one has passed."""
        if self.step is None:
            return
        try:
            phases.refuse_to_stop_in(self.plan, self.step)
        except InvalidStep:
            return
        self.ending, self.last_step, self.step = Ending.STOPPED, self.step, None

    # What must hold

    def check(self) -> None:
        """I1 and I2 of PROTOCOL 7."""
        for router_id in IDS:
            serving = {node.unit for node in self.nodes if router_id in node.sessions}
            assert len(serving) <= 1, self.complaint("I1", router_id, serving)
            accepting = {node.unit for node in self.nodes if node.up and router_id in node.accepted}
            assert len(accepting) <= 1, self.complaint("I2", router_id, accepting)

    def complaint(self, name: str, router_id: int, units: set[str]) -> str:
        return f"{name}: {router_id} at {sorted(units)}\n" + "\n".join(self.trail[-40:])

    def check_ending(self) -> None:
        """A finished cutover has left the table that its ending names."""
        if self.ending is None:
            return
        space = self.plan.key_space
        table = phases.table_of(self.rule_part["unit_types"][0], space)
        arrived = self.plan.finished_batches(self.last_step)
        expected = phases.table_of(self.plan.after(arrived), space)
        assert [table.owner(i) for i in IDS] == [expected.owner(i) for i in IDS], self.trail
        assert self.rule_part["cutover"] is None
        if self.ending is Ending.DONE:
            assert self.rule_part["unit_types"][0] == self.new


#: How often each action is chosen; progress is likelier than trouble, so that walks reach the late phases.
WEIGHTS = {
    "a_client_knocks": 10,
    "a_back_source_answers": 5,
    "a_node_applies_the_newest_snapshot": 10,
    "a_node_finishes_closing": 8,
    "the_console_hears": 20,
    "a_node_crashes": 0.15,
    "a_node_restarts_from_its_own_file": 3,
    "a_stream_breaks": 0.3,
    "a_stream_comes_back": 3,
    "the_deadline_passes": 0.1,
    "an_ordinary_change_is_put_into_effect": 0.3,
    "the_operator_turns_it_around": 0.3,
    "the_operator_aborts": 0.1,
    "the_operator_rolls_back": 0.1,
    "the_operator_stops_here": 0.3,
}
