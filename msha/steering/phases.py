"""The cutover protocol as values: which rule part a step publishes, and when the next step may follow.

The invariant: an id is accepted by the gaining units only in a step that follows a FREEZE which **every
enrolled node** of **every losing unit** has acked and drained, or is proven dead.
A step that fails before ACTIVATE is undone (abort); after it, the way back is the same protocol in the other
direction (turn-around): FREEZE on both sides, ACTIVATE the old owners, RELEASE.

    PREPARE ─► FREEZE ─► ACTIVATE ─► RELEASE ─► (next batch: FREEZE …) ─► finished
        └────────┴─► ABORT                └──┴─► turn-around: FREEZE(both) ─► ACTIVATE ─► RELEASE

A roll back turns one batch round after the other: the present one, or its abort, then the finished ones.

Everything here is pure: time comes in as the seconds a step has lasted, nodes come in as :class:`NodeView`.
Source: PROTOCOL 5.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from msha.steering.errors import InvalidStep
from msha.steering.ranges import KeySpace, MovedIds, MovedRange, RangeTable, diff, moved_everything

#: A gate that has not passed by then aborts (PREPARE, first FREEZE) or raises an alarm (all others).
GATE_DEADLINE_S = 10.0

#: Keys of a unit type whose change makes every id move: they say how the routerId is read.
READING_KEYS = ("sources", "transform")

UnitTypeDict = dict[str, Any]
RulePart = dict[str, Any]


class Phase(StrEnum):
    """Where a cutover stands."""

    PREPARE = "prepare"
    FREEZE = "freeze"
    ACTIVATE = "activate"
    RELEASE = "release"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Step:
    """One published step of a cutover.

    Attributes:
        batch: index of the slice that is moving.
        turns: how often the direction was reversed in this batch; odd means ids go back.
        unwinding: when this batch is back, the one before it goes back, too.
    """

    phase: Phase
    batch: int = 0
    turns: int = 0
    unwinding: bool = False

    @property
    def backwards(self) -> bool:
        """Whether ids are on their way back."""
        return self.turns % 2 == 1


def moved_between(old: UnitTypeDict, new: UnitTypeDict, key_space: KeySpace) -> MovedIds:
    """The moved set of a change from one unit-type rule to another.

    Raises:
        InvalidRule: one of the two is not a valid rule.
    """
    before, after = table_of(old, key_space), table_of(new, key_space)
    return moved_everything(before, after) if reads_differently(old, new) else diff(before, after)


def reads_differently(old: UnitTypeDict, new: UnitTypeDict) -> bool:
    """Whether the same handshake may have another routerId under the second rule."""
    return any(old.get(key, []) != new.get(key, []) for key in READING_KEYS)


def table_of(unit_type: UnitTypeDict, key_space: KeySpace) -> RangeTable:
    """The range table of a unit type as it stands in a rule part."""
    return RangeTable.parse(key_space, unit_type["ranges"], unit_type.get("exact", {}))


def sliced(moved: MovedIds, sizes: Sequence[int]) -> tuple[MovedIds, ...]:
    """The moved set cut into batches of about ``sizes`` ids each; the last takes the rest."""
    batches: list[list[MovedRange]] = [[] for _ in sizes]
    room = list(sizes)
    index = 0
    for move in moved:
        start = move.start
        while start < move.end:
            while index < len(room) - 1 and room[index] <= 0:
                index += 1
            end = move.end if index == len(room) - 1 else min(move.end, start + room[index])
            batches[index].append(MovedRange(start, end, move.losing, move.gaining))
            room[index] -= end - start
            start = end
    return tuple(MovedIds(tuple(rows)) for rows in batches if rows)


@dataclass(frozen=True)
class Plan:
    """What a cutover is about; fixed from its start to its end.

    Attributes:
        old, new: the unit type as it stands in the rule part before and after.
        batches: disjoint slices of the moved set; one slice unless asked otherwise.
        gaining_clusters: ``(unit, cluster)`` pairs that count for the "per gaining cluster" gates,
            for both directions; fixed at the start, so that clusters added meanwhile count in no gate.

    Raises:
        InvalidStep: sources or transform change and there is more than one batch: ids before and after are
            not comparable, so no mixed table of the two can be right.
    """

    cutover_id: str
    unit_type: str
    key_space: KeySpace
    old: UnitTypeDict
    new: UnitTypeDict
    batches: tuple[MovedIds, ...]
    gaining_clusters: frozenset[tuple[str, str]]

    def __post_init__(self) -> None:
        if len(self.batches) > 1 and reads_differently(self.old, self.new):
            raise InvalidStep("a change of sources or transform moves every id at once; it cannot be batched")

    @cached_property
    def old_table(self) -> RangeTable:
        """The table before the first batch."""
        return table_of(self.old, self.key_space)

    def after(self, finished: int) -> UnitTypeDict:
        """The unit type when so many batches are done: the mixed table, or ``new`` when all are."""
        if finished == 0:
            return self.old
        if finished >= len(self.batches):
            return self.new
        table = self.old_table
        for batch in self.batches[:finished]:
            table = table.with_moved(batch)
        return {**self.old, "ranges": table.ranges_text(), "exact": {}}

    def moving(self, step: Step) -> MovedIds:
        """The moved ids of the present batch in the present direction."""
        if not self.batches:
            return MovedIds()
        batch = self.batches[step.batch]
        return batch.swapped() if step.backwards else batch

    def unit_type_in(self, step: Step) -> UnitTypeDict:
        """The unit type a step publishes: its source side up to FREEZE, its target side from ACTIVATE."""
        finished = step.batch
        if step.phase is Phase.ABORT:
            return self.after(finished)
        arrived = step.phase in (Phase.ACTIVATE, Phase.RELEASE)
        return self.after(finished + 1 if arrived != step.backwards else finished)

    def finished_batches(self, step: Step) -> int:
        """How many batches stand at their new owners once this step's gate has passed."""
        if step.phase is Phase.RELEASE and not step.backwards:
            return step.batch + 1
        return step.batch


def rule_part(plan: Plan, step: Step, base: RulePart) -> RulePart:
    """The rule part that publishes ``step`` on top of the newest one; its epoch is one higher."""
    entry = plan.unit_type_in(step)
    running = None
    if step.phase in (Phase.PREPARE, Phase.FREEZE, Phase.ACTIVATE):
        running = {
            "id": plan.cutover_id,
            "unit_type": plan.unit_type,
            "phase": str(step.phase),
            "both": step.turns > 0,
            "moved": plan.moving(step).as_lists(),
        }
    return {
        **base,
        "epoch": base["epoch"] + 1,
        "unit_types": [entry if old["name"] == plan.unit_type else old for old in base["unit_types"]],
        "cutover": running,
    }


@dataclass(frozen=True, slots=True)
class NodeView:
    """What is known of one node, from stored acks and statements alone.

    Attributes:
        enrolled: it was sent a snapshot and has neither left nor been declared dead.
        live: enrolled, stream up, status younger than 5 s; never satisfies a safety gate.
        parked: it refused a snapshot, closed its listener and has no sessions.
        acked_epoch: newest epoch it acked with the right digest, under its present enrolment.
        drained_epoch: newest epoch for which it said drained, under its present enrolment.
        exited_epoch: newest epoch whose FREEZE it has on disk while its workers have exited (PROTOCOL J4).
    """

    name: str
    unit: str
    cluster: str
    enrolled: bool
    live: bool
    parked: bool = False
    acked_epoch: int = -1
    drained_epoch: int = -1
    exited_epoch: int = -1


class Outcome(StrEnum):
    """What should be done about a step now."""

    WAIT = "wait"
    ADVANCE = "advance"
    FINISH = "finish"
    ABORT = "abort"


class Ending(StrEnum):
    """How a cutover ended."""

    DONE = "done"
    STOPPED = "stopped"  # between two batches: those before have moved, the others have not
    ABORTED = "aborted"
    TURNED = "turned"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on a step.

    Attributes:
        to: the step to publish next (ADVANCE and ABORT).
        ending: how the cutover ended (FINISH).
        missing: names of the nodes that the gate waits for, or the text of a :class:`ClusterWithoutAck`.
        alarm: the wait has lasted longer than its deadline; somebody must be told.
    """

    outcome: Outcome
    to: Step | None = None
    ending: Ending | None = None
    missing: tuple[str, ...] = ()
    alarm: bool = False


class Silence(StrEnum):
    """Why an enrolled node does not count for its cluster."""

    UNANSWERED = "has not answered"
    NOT_LIVE = "is not connected"
    PARKED = "is parked"


@dataclass(frozen=True, slots=True)
class ClusterWithoutAck:
    """A gaining cluster of which no node serves yet; its text stands among the names that a gate waits for.

    Attributes:
        nodes: the enrolled nodes of the cluster, each with the reason why it does not count.
    """

    unit: str
    cluster: str
    nodes: tuple[tuple[str, Silence], ...] = ()

    def __str__(self) -> str:
        told = "".join(f"; {name} {silence}" for name, silence in self.nodes)
        return f"a node of cluster {self.cluster} ({self.unit}{told})"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What the text was made of, or None if it is something else, as the name of a node is."""
        found = _CLUSTER_TEXT.fullmatch(text)
        if found is None:
            return None
        cluster, unit, told = found.groups()
        return cls(unit, cluster, tuple((name, Silence(why)) for name, why in _NODE_TEXT.findall(told)))


_CLUSTER_TEXT = re.compile(r"a node of cluster (\S+) \(([^\s;]+)((?:; [^;]+)*)\)")
_NODE_TEXT = re.compile("; (\\S+) (" + "|".join(Silence) + ")")


def judge(
    plan: Plan,
    step: Step,
    epoch: int,
    nodes: Iterable[NodeView],
    lasted_s: float,
    deadline_s: float = GATE_DEADLINE_S,
    *,
    emergency: bool = False,
) -> Verdict:
    """What should follow the running step, judging from stored state alone.

    Args:
        epoch: the epoch under which ``step`` was published.
        nodes: every node of the namespace that is enrolled; others may be left out.
        lasted_s: how long ago the step was published, on the console's own clock.
        emergency: the losing unit is believed to be gone, so an overdue gate waits for declarations.
    """
    enrolled = [node for node in nodes if node.enrolled]
    missing = tuple(_missing(plan, step, epoch, enrolled))
    overdue = lasted_s > deadline_s
    if not missing:
        return _passed(plan, step)
    if overdue and _abortable(step) and not emergency:
        return Verdict(Outcome.ABORT, to=replace(step, phase=Phase.ABORT), missing=missing, alarm=True)
    return Verdict(Outcome.WAIT, missing=missing, alarm=overdue)


def _passed(plan: Plan, step: Step) -> Verdict:
    following = {Phase.PREPARE: Phase.FREEZE, Phase.FREEZE: Phase.ACTIVATE, Phase.ACTIVATE: Phase.RELEASE}
    if step.phase in following:
        return Verdict(Outcome.ADVANCE, to=replace(step, phase=following[step.phase]))
    if step.unwinding and step.batch > 0 and (step.backwards or step.phase is Phase.ABORT):
        return Verdict(Outcome.ADVANCE, to=Step(Phase.FREEZE, step.batch - 1, turns=1, unwinding=True))
    if step.phase is Phase.ABORT:
        return Verdict(Outcome.FINISH, ending=Ending.ABORTED)
    if step.backwards:
        return Verdict(Outcome.FINISH, ending=Ending.TURNED)
    if step.batch + 1 < len(plan.batches):
        return Verdict(Outcome.ADVANCE, to=Step(Phase.FREEZE, step.batch + 1))
    return Verdict(Outcome.FINISH, ending=Ending.DONE)


def _missing(plan: Plan, step: Step, epoch: int, enrolled: Sequence[NodeView]) -> Iterable[str]:
    """Names of what the gate of a step still waits for."""
    moving = plan.moving(step)
    losing, gaining = moving.losing_units, moving.gaining_units
    match step.phase:
        case Phase.PREPARE:
            for node in enrolled:
                excused = node.unit not in losing and (node.parked or not node.live)
                if node.acked_epoch < epoch and not excused:
                    yield node.name
            yield from _clusters_without_ack(plan, gaining, epoch, enrolled, live=True)
        case Phase.FREEZE:
            for node in enrolled:
                if node.unit in losing and not _harmless(node, epoch):
                    yield node.name
        case Phase.ACTIVATE:
            for node in enrolled:
                if node.unit in gaining and node.live and not (node.acked_epoch >= epoch or node.parked):
                    yield node.name
            yield from _clusters_without_ack(plan, gaining, epoch, enrolled, live=False)
        case Phase.RELEASE:
            for node in enrolled:
                if node.live and node.acked_epoch < epoch:
                    yield node.name
        case Phase.ABORT:
            for node in enrolled:
                if node.unit in losing and node.live and node.acked_epoch < epoch:
                    yield node.name


def _harmless(node: NodeView, epoch: int) -> bool:
    """Whether this node can no longer serve an id that was frozen under ``epoch``."""
    return (node.acked_epoch >= epoch and node.drained_epoch >= epoch) or node.exited_epoch >= epoch


def _clusters_without_ack(
    plan: Plan, gaining: frozenset[str], epoch: int, enrolled: Sequence[NodeView], *, live: bool
) -> Iterable[str]:
    served = {
        (node.unit, node.cluster)
        for node in enrolled
        if node.acked_epoch >= epoch and not node.parked and (node.live or not live)
    }
    for unit, cluster in sorted(plan.gaining_clusters - served):
        if unit in gaining:
            there = [node for node in enrolled if (node.unit, node.cluster) == (unit, cluster)]
            yield str(ClusterWithoutAck(unit, cluster, tuple((n.name, _silence(n, epoch)) for n in there)))


def _silence(node: NodeView, epoch: int) -> Silence:
    """Why this node does not count for its cluster."""
    if node.parked:
        return Silence.PARKED
    return Silence.NOT_LIVE if node.acked_epoch >= epoch else Silence.UNANSWERED


def turned_around(step: Step) -> Step:
    """The FREEZE that reverses the direction of a step after ACTIVATE was published.

    Raises:
        InvalidStep: before ACTIVATE the way back is to abort, and an aborted step has none.
    """
    turnable = step.phase in (Phase.ACTIVATE, Phase.RELEASE) or (
        step.phase is Phase.FREEZE and step.turns > 0
    )
    if not turnable:
        raise InvalidStep(f"a cutover in {step.phase} cannot be turned around; abort it instead")
    return Step(Phase.FREEZE, step.batch, step.turns + 1)


def aborted(step: Step) -> Step:
    """The step that undoes a cutover before ACTIVATE.

    Raises:
        InvalidStep: after ACTIVATE the new owners may serve already; only a turn-around is safe.
    """
    if not _abortable(step):
        raise InvalidStep(f"a cutover in {step.phase} cannot be aborted; turn it around instead")
    return replace(step, phase=Phase.ABORT)


def _abortable(step: Step) -> bool:
    """Whether no id of the present batch can have been accepted by its new owner."""
    return step.phase in (Phase.PREPARE, Phase.FREEZE) and step.turns == 0


def rolled_back(step: Step) -> Step:
    """The step that begins to give back everything that the cutover has moved, the last batch first.

    For a step that goes back already it is the same step, with the batches before it to follow.

    Raises:
        InvalidStep: the cutover is being undone, and nothing of it has moved.
    """
    if _abortable(step):
        return replace(step, phase=Phase.ABORT, unwinding=step.batch > 0)
    if step.phase is Phase.ABORT:
        if step.batch == 0:
            raise InvalidStep("a cutover that is being undone in its first batch has moved nothing")
        return replace(step, unwinding=True)
    if step.backwards:
        return replace(step, unwinding=True)
    return replace(turned_around(step), unwinding=True)


def goes_on(plan: Plan, step: Step) -> bool:
    """Whether another step follows when the gate of this one has passed.

    Without its nodes only a step may be finished that none follows: the end would leave ids behind that were
    to move on, or to go back.
    """
    return _passed(plan, step).outcome is Outcome.ADVANCE


def refuse_to_stop_in(plan: Plan, step: Step) -> None:
    """Nothing, where the cutover may end with the batches that have moved by now.

    Raises:
        InvalidStep: ids of the present batch are on their way, or no batch follows.
    """
    if step.phase is not Phase.RELEASE or step.backwards or step.batch + 1 >= len(plan.batches):
        raise InvalidStep(f"a cutover in {step.phase} of batch {step.batch + 1} cannot stop there")
