"""The cutover protocol: gates, rule parts, and a random search for a state that breaks the promise."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msha.steering import phases
from msha.steering.errors import InvalidStep
from msha.steering.phases import (
    ClusterWithoutAck,
    Ending,
    NodeView,
    Outcome,
    Phase,
    Plan,
    Silence,
    Step,
    aborted,
    judge,
    moved_between,
    rule_part,
    sliced,
    turned_around,
)
from msha.steering.ranges import KeySpace
from msha.steering.snapshot import RunningCutover
from tests.steering.builders import make_rule, make_snapshot, make_unit_type
from tests.steering.fleet_model import Fleet

SPACE = KeySpace()
OLD = make_unit_type()
NEW = make_unit_type({"center": ["0~6380"], "unbj": ["6381~9999"]})
CLUSTERS = frozenset({("center", "ws-hz-2"), ("unbj", "ws-bj-2")})


def make_plan(
    old: dict[str, Any] = OLD, new: dict[str, Any] = NEW, sizes: tuple[int, ...] = (99999,)
) -> Plan:
    batches = sliced(moved_between(old, new, SPACE), sizes)
    return Plan("c1", "unit_type", SPACE, old, new, batches, CLUSTERS)


def make_node(unit: str, name: str = "", **changes: Any) -> NodeView:
    values = {
        "enrolled": True,
        "live": True,
        "cluster": "ws-hz-2" if unit == "center" else "ws-bj-2",
        **changes,
    }
    return NodeView(name or f"{unit}-1", unit, **values)


PLAN = make_plan()


def after(phase: Phase, *nodes: NodeView, lasted_s: float = 1.0, turns: int = 0) -> phases.Verdict:
    return judge(PLAN, Step(phase, turns=turns), 5, nodes, lasted_s)


def test_prepare_waits_for_every_enrolled_losing_node_and_only_for_live_others() -> None:
    gaining = make_node("center", acked_epoch=5)
    assert after(Phase.PREPARE, gaining, make_node("unbj", live=False)).missing == ("unbj-1",)
    assert after(Phase.PREPARE, gaining, make_node("unbj", acked_epoch=5)).to == Step(Phase.FREEZE)
    silent = make_node("center", "center-2", live=False)
    assert after(Phase.PREPARE, gaining, silent, make_node("unbj", acked_epoch=5)).outcome is Outcome.ADVANCE
    parked = make_node("center", "center-2", parked=True)
    assert after(Phase.PREPARE, gaining, parked, make_node("unbj", acked_epoch=5)).outcome is Outcome.ADVANCE


def test_prepare_wants_a_live_acked_node_in_each_gaining_cluster() -> None:
    losing = make_node("unbj", acked_epoch=5)
    verdict = after(Phase.PREPARE, make_node("center", acked_epoch=5, live=False), losing)
    assert verdict.missing == ("a node of cluster ws-hz-2 (center; center-1 is not connected)",)


def test_a_cluster_without_a_node_that_answers_names_its_enrolled_nodes() -> None:
    losing = make_node("unbj", acked_epoch=5)
    silent = make_node("center", "edge-center", live=False)
    elsewhere = make_node("center", "edge-other", live=False, cluster="ws-hz-3")
    text = "a node of cluster ws-hz-2 (center; edge-center has not answered)"
    for phase in (Phase.PREPARE, Phase.ACTIVATE):
        assert after(phase, silent, elsewhere, losing).missing == (text,), phase
    assert after(Phase.PREPARE, losing).missing == ("a node of cluster ws-hz-2 (center)",)


@pytest.mark.parametrize("silences", [(), tuple(Silence), (Silence.PARKED,)])
def test_the_text_of_a_cluster_without_ack_can_be_read_back(silences: tuple[Silence, ...]) -> None:
    nodes = tuple((f"edge-{number}", silence) for number, silence in enumerate(silences))
    cluster = ClusterWithoutAck("center", "ws-hz-2", nodes)
    assert ClusterWithoutAck.parse(str(cluster)) == cluster
    assert ClusterWithoutAck.parse("edge-1") is None


def test_freeze_waits_for_ack_and_drained_of_every_enrolled_losing_node() -> None:
    waiting = [
        make_node("unbj"),
        make_node("unbj", acked_epoch=5),
        make_node("unbj", acked_epoch=5, drained_epoch=4),
        make_node("unbj", drained_epoch=5),
        make_node("unbj", live=False, acked_epoch=5),
        make_node("unbj", live=False, exited_epoch=4),
    ]
    for node in waiting:
        assert after(Phase.FREEZE, node).missing == ("unbj-1",), node
    passing = [
        make_node("unbj", acked_epoch=5, drained_epoch=5),
        make_node("unbj", live=False, exited_epoch=5),
        make_node("unbj", enrolled=False),
    ]
    for node in passing:
        assert after(Phase.FREEZE, node).to == Step(Phase.ACTIVATE), node


def test_a_late_prepare_or_freeze_aborts_by_itself_and_names_the_nodes() -> None:
    for phase in (Phase.PREPARE, Phase.FREEZE):
        verdict = after(phase, make_node("center", acked_epoch=5), make_node("unbj"), lasted_s=10.1)
        assert (verdict.outcome, verdict.to) == (Outcome.ABORT, Step(Phase.ABORT))
        assert verdict.missing == ("unbj-1",)


def test_a_late_activate_release_or_turned_freeze_raises_an_alarm_and_waits() -> None:
    nodes = make_node("center"), make_node("unbj")
    for phase, turns in ((Phase.ACTIVATE, 0), (Phase.RELEASE, 0), (Phase.FREEZE, 1), (Phase.FREEZE, 2)):
        verdict = after(phase, *nodes, lasted_s=10.1, turns=turns)
        assert (verdict.outcome, verdict.alarm) == (Outcome.WAIT, True), phase


def test_the_freeze_of_a_turn_around_waits_for_the_units_that_had_gained() -> None:
    verdict = after(Phase.FREEZE, make_node("center"), make_node("unbj"), turns=1)
    assert verdict.missing == ("center-1",)


def test_activate_wants_every_live_gaining_node_acked_or_parked() -> None:
    first = make_node("center", acked_epoch=5)
    assert after(Phase.ACTIVATE, first, make_node("center", "center-2")).missing == ("center-2",)
    assert after(Phase.ACTIVATE, first, make_node("center", "center-2", parked=True)).to == Step(
        Phase.RELEASE
    )
    assert after(Phase.ACTIVATE, first, make_node("center", "center-2", live=False)).to == Step(Phase.RELEASE)
    assert after(Phase.ACTIVATE, make_node("center", parked=True)).missing == (
        "a node of cluster ws-hz-2 (center; center-1 is parked)",
    )


def test_release_ends_it_when_every_live_node_has_acked() -> None:
    assert after(Phase.RELEASE, make_node("center", acked_epoch=5), make_node("unbj")).missing == ("unbj-1",)
    verdict = after(Phase.RELEASE, make_node("center", acked_epoch=5), make_node("unbj", live=False))
    assert verdict.ending is Ending.DONE
    assert after(Phase.RELEASE, make_node("center", acked_epoch=5), turns=1).ending is Ending.TURNED


def test_each_step_has_the_table_of_its_side_and_the_next_epoch() -> None:
    base = make_rule(OLD, make_unit_type(name="other"), epoch=4)
    old, new = OLD["ranges"], NEW["ranges"]
    expected = [
        (Step(Phase.PREPARE), old), (Step(Phase.FREEZE), old), (Step(Phase.ACTIVATE), new),
        (Step(Phase.RELEASE), new), (Step(Phase.ABORT), old),
        (Step(Phase.FREEZE, turns=1), new), (Step(Phase.ACTIVATE, turns=1), old),
        (Step(Phase.RELEASE, turns=1), old),
        (Step(Phase.FREEZE, turns=2), old), (Step(Phase.ACTIVATE, turns=2), new),
        (Step(Phase.RELEASE, turns=2), new),
    ]  # fmt: skip
    for step, ranges in expected:
        part = rule_part(PLAN, step, base)
        assert part["epoch"] == 5
        assert part["unit_types"][0]["ranges"] == ranges, step
        assert part["unit_types"][1] == base["unit_types"][1]
        assert (part["cutover"] is None) == (step.phase in (Phase.RELEASE, Phase.ABORT))
        assert make_snapshot(rule=part)


def test_an_abort_in_the_second_batch_keeps_the_first_where_it_went() -> None:
    plan = make_plan(sizes=(100, 200, 9999))
    assert [batch.count for batch in plan.batches] == [100, 200, 83]
    table = phases.table_of(plan.unit_type_in(Step(Phase.ABORT, batch=1)), SPACE)
    assert (table.owner(5998), table.owner(6097), table.owner(6098)) == ("center", "center", "unbj")
    back = phases.table_of(plan.unit_type_in(Step(Phase.RELEASE, batch=1, turns=1)), SPACE)
    assert (back.owner(6097), back.owner(6098)) == ("center", "unbj")


@given(st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_slices_are_disjoint_and_add_up_to_the_moved_set(sizes: list[int]) -> None:
    moved = moved_between(OLD, NEW, SPACE)
    batches = sliced(moved, sizes)
    ids = [i for batch in batches for m in batch for i in range(m.start, m.end)]
    assert ids == list(range(5998, 6381))


def test_a_change_of_how_the_id_is_read_moves_every_id() -> None:
    moved = moved_between(OLD, {**OLD, "transform": [{"modulo": 10000}]}, SPACE)
    assert moved.count == 10000
    assert moved.losing_units == moved.gaining_units == {"center", "unbj"}


def test_a_change_of_how_the_id_is_read_cannot_be_batched() -> None:
    changed = {**OLD, "transform": [{"modulo": 10000}]}
    assert len(make_plan(new=changed).batches) == 1
    with pytest.raises(InvalidStep, match="cannot be batched"):
        make_plan(new=changed, sizes=(100, 9999))


def test_abort_and_turn_around_are_refused_where_they_would_be_unsafe() -> None:
    for phase in (Phase.ACTIVATE, Phase.RELEASE):
        with pytest.raises(InvalidStep, match="turn it around"):
            aborted(Step(phase))
        assert turned_around(Step(phase)) == Step(Phase.FREEZE, turns=1)
    with pytest.raises(InvalidStep, match="turn it around"):
        aborted(Step(Phase.FREEZE, turns=1))
    for step in (Step(Phase.PREPARE), Step(Phase.FREEZE), Step(Phase.ABORT)):
        with pytest.raises(InvalidStep, match="cannot be turned around"):
            turned_around(step)


def test_another_step_follows_unless_a_step_is_the_last_of_its_way() -> None:
    plan = make_plan(sizes=(100, 9999))
    last = [
        Step(Phase.RELEASE, 1), Step(Phase.RELEASE, 0, 1), Step(Phase.RELEASE, 1, 1), Step(Phase.ABORT, 1),
        Step(Phase.RELEASE, 0, 1, unwinding=True),
    ]  # fmt: skip
    on = [
        Step(Phase.FREEZE, 1), Step(Phase.RELEASE, 0), Step(Phase.RELEASE, 1, 1, unwinding=True),
        Step(Phase.ABORT, 1, unwinding=True),
    ]  # fmt: skip
    assert [phases.goes_on(plan, step) for step in last] == [False] * 5
    assert [phases.goes_on(plan, step) for step in on] == [True] * 4


def walk(seeds: range, actions: int = 600) -> Counter[Ending | None]:
    endings: Counter[Ending | None] = Counter()
    for seed in seeds:
        fleet = Fleet(seed)
        fleet.run(actions)
        endings[fleet.ending] += 1
    return endings


def test_no_order_of_events_lets_two_units_serve_one_id() -> None:
    endings = walk(range(600))
    assert all(endings[ending] > 10 for ending in Ending), f"the walks do not reach every ending: {endings}"


def live_only(node: NodeView, epoch: int) -> bool:
    return not node.live or (node.acked_epoch >= epoch and node.drained_epoch >= epoch)


WEAKER_GATES: dict[str, Callable[[NodeView, int], bool]] = {
    "an ack taken for drained": lambda node, epoch: node.acked_epoch >= epoch,
    "live instead of enrolled": live_only,
    "drained of any epoch": lambda node, epoch: node.acked_epoch >= epoch and node.drained_epoch >= 0,
}


@pytest.mark.parametrize("gate", WEAKER_GATES)
def test_the_walks_catch_a_weaker_gate(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "_harmless", WEAKER_GATES[gate])
    with pytest.raises(AssertionError, match=r"^I[12]:"):
        walk(range(2000))


def test_the_walks_catch_frozen_ids_that_are_still_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunningCutover, "frozen_in", lambda self, unit, router_id: False)
    with pytest.raises(AssertionError, match=r"^I[12]:"):
        walk(range(2000))


def test_the_walks_catch_an_abort_to_the_old_table_in_a_later_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Plan.unit_type_in

    def to_the_old_table(plan: Plan, step: Step) -> dict[str, Any]:
        return plan.old if step.phase is Phase.ABORT else genuine(plan, step)

    monkeypatch.setattr(Plan, "unit_type_in", to_the_old_table)
    with pytest.raises(AssertionError):
        walk(range(2000))


def test_the_walks_catch_a_turn_around_without_a_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    def straight_back(step: Step) -> Step:
        return Step(Phase.ACTIVATE, step.batch, step.turns + 1)

    monkeypatch.setattr(phases, "turned_around", straight_back)
    with pytest.raises(AssertionError, match=r"^I[12]:"):
        walk(range(2000))
