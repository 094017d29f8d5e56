"""Abort, turn-around, finishing without stragglers, roll back: what each refuses, and where each leads."""

from collections.abc import Callable

import pytest

from cutover import services
from cutover.errors import InvalidChange, Refused
from cutover.models import Cutover
from tests.cutover.builders import (
    NEW_RANGES,
    OLD_RANGES,
    Scene,
    grow_old,
    make_checked,
    make_draft,
    make_scene,
    make_started,
    step,
    take_to,
)
from units.errors import PublishingStopped
from units.models import Alarm, AuditEvent, Namespace, UnitType

State = Cutover.State
LOSING, GAINING = "unbj-1", "center-1"


def at(scene: Scene, state: str) -> Cutover:
    cutover = make_started(scene)
    take_to(scene, cutover, state)
    return cutover


# -- abort ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.PREPARE, State.FREEZE])
def test_an_abort_before_activate_leaves_every_id_where_it_was(scene: Scene, state: str) -> None:
    cutover = at(scene, state)
    services.abort(cutover, "op", "wrong window")
    assert cutover.state == State.ABORTING
    assert scene.rule()["cutover"] is None
    assert scene.ranges() == OLD_RANGES
    assert step(scene, cutover) == State.ABORTED
    assert cutover.outcome == "Aborted by op: wrong window"
    event = AuditEvent.objects.get(namespace=scene.namespace, action="cutover.abort")
    assert (event.actor, event.reason) == ("op", "wrong window")


def test_an_abort_before_the_first_step_publishes_nothing(scene: Scene) -> None:
    cutover = make_started(scene, advance=False)
    services.abort(cutover, "op", "changed my mind")
    assert cutover.state == State.ABORTED
    assert scene.published() == 1
    assert services.advance(cutover.pk) == State.ABORTED


def test_an_abort_ends_when_the_live_losing_nodes_have_acked(db: None) -> None:
    scene = make_scene(per_unit=2)
    cutover = at(scene, State.FREEZE)
    scene["unbj-2"].disconnect()
    services.abort(cutover, "op", "node lost")
    assert services.advance(cutover.pk) == State.ABORTING
    scene["unbj-1"].ack()
    assert services.advance(cutover.pk) == State.ABORTED


@pytest.mark.parametrize("state", [State.ACTIVATE, State.RELEASE])
def test_an_abort_after_activate_is_refused_and_points_to_the_turn_around(scene: Scene, state: str) -> None:
    cutover = at(scene, state)
    published = scene.published()
    with pytest.raises(Refused, match="Turn it around instead"):
        services.abort(cutover, "op", "no")
    assert scene.published() == published


def test_an_abort_that_no_node_answers_may_be_finished_without_them(scene: Scene) -> None:
    cutover = at(scene, State.FREEZE)
    services.abort(cutover, "op", "no")
    grow_old(cutover, 11)
    services.advance(cutover.pk)
    assert Alarm.objects.filter(namespace=scene.namespace, cleared_at=None).count() == 1
    services.finish_with_stragglers(cutover, "op", "it hangs")
    assert cutover.state == State.ABORTED
    assert "Finished by op without" in cutover.outcome
    left = Alarm.objects.get(namespace=scene.namespace, cleared_at=None)
    assert (left.kind, scene[LOSING].row.name in left.sentence) == ("cutover_frozen", True)


# -- turn-around ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.ACTIVATE, State.RELEASE])
def test_a_turn_around_freezes_both_sides_drains_the_gaining_one_and_gives_the_ids_back(
    scene: Scene, state: str
) -> None:
    cutover = at(scene, state)
    services.turn_around(cutover, "op", "the new unit is slow")
    assert (cutover.state, cutover.turned) == (State.FREEZE, True)
    running = scene.rule()["cutover"]
    assert running["both"]
    assert running["moved"] == [[5998, 6380, "center", "unbj"]]
    scene.all_ack()
    scene[LOSING].drained()
    assert services.advance(cutover.pk) == State.FREEZE
    scene[GAINING].drained()
    assert services.advance(cutover.pk) == State.ACTIVATE
    assert scene.ranges() == OLD_RANGES
    take_to(scene, cutover, State.ABORTED)
    assert cutover.figures["ending"] == "turned"
    assert "came from" in cutover.outcome
    assert scene.rule()["cutover"] is None
    assert UnitType.objects.get(namespace=scene.namespace).ranges == OLD_RANGES


def test_a_turn_around_need_not_wait_for_releases_acks(scene: Scene) -> None:
    cutover = at(scene, State.RELEASE)
    scene[GAINING].ack()
    services.turn_around(cutover, "op", "no")
    assert cutover.state == State.FREEZE


def test_the_freeze_of_a_turn_around_waits_for_every_enrolled_gaining_node_and_never_aborts(
    db: None,
) -> None:
    scene = make_scene(per_unit=2)
    cutover = at(scene, State.ACTIVATE)
    services.turn_around(cutover, "op", "no")
    scene["center-2"].disconnect()
    scene.all_ack("center-2")
    scene["center-1"].drained()
    grow_old(cutover, 3600)
    assert services.advance(cutover.pk) == State.FREEZE
    assert Alarm.objects.filter(namespace=scene.namespace, cleared_at=None).count() == 1
    scene["center-2"].declare_dead()
    assert services.advance(cutover.pk) == State.ACTIVATE
    assert not Alarm.objects.filter(namespace=scene.namespace, cleared_at=None).exists()


def test_a_turn_around_may_itself_be_turned_round(scene: Scene) -> None:
    cutover = at(scene, State.ACTIVATE)
    services.turn_around(cutover, "op", "back")
    services.turn_around(cutover, "op", "and forward again")
    assert (cutover.state, cutover.turns, cutover.turned) == (State.FREEZE, 2, False)
    assert scene.rule()["cutover"]["moved"] == [[5998, 6380, "unbj", "center"]]
    take_to(scene, cutover, State.DONE)
    assert scene.ranges() == NEW_RANGES


@pytest.mark.parametrize("state", [State.PREPARE, State.FREEZE])
def test_a_turn_around_before_activate_is_refused_and_points_to_the_abort(scene: Scene, state: str) -> None:
    cutover = at(scene, state)
    with pytest.raises(Refused, match="Abort it instead"):
        services.turn_around(cutover, "op", "no")


def test_a_turn_around_before_the_first_step_is_refused(scene: Scene) -> None:
    with pytest.raises(Refused, match="abort it instead"):
        services.turn_around(make_started(scene, advance=False), "op", "no")


# -- every act -----------------------------------------------------------------------------------------------

ACTS: list[Callable[[Cutover, str, str], Cutover]] = [
    services.abort,
    services.turn_around,
    services.finish_with_stragglers,
]


@pytest.mark.parametrize("act", ACTS)
def test_an_act_without_a_reason_is_refused(scene: Scene, act: Callable[..., Cutover]) -> None:
    with pytest.raises(Refused, match="reason"):
        act(at(scene, State.RELEASE), "op", "  ")


@pytest.mark.parametrize("act", ACTS)
def test_an_act_on_a_cutover_that_has_ended_is_refused(scene: Scene, act: Callable[..., Cutover]) -> None:
    cutover = at(scene, State.DONE)
    with pytest.raises(Refused, match="does not run"):
        act(cutover, "op", "late")
    assert scene.published() == 5


@pytest.mark.parametrize("state", [State.PREPARE, State.FREEZE, State.ACTIVATE])
def test_only_the_last_step_can_be_finished_without_nodes(scene: Scene, state: str) -> None:
    with pytest.raises(Refused, match="only its last step"):
        services.finish_with_stragglers(at(scene, state), "op", "hurry")


def test_an_act_while_publishing_is_stopped_is_refused_and_leaves_no_trace(scene: Scene) -> None:
    cutover = at(scene, State.FREEZE)
    Namespace.objects.filter(pk=scene.namespace.pk).update(publishing_stopped="look first")
    with pytest.raises(PublishingStopped, match="look first"):
        services.abort(cutover, "op", "no")
    assert not AuditEvent.objects.filter(action="cutover.abort").exists()


# -- the saved rule ------------------------------------------------------------------------------------------


def saved(scene: Scene) -> dict[str, list[str]]:
    ranges: dict[str, list[str]] = UnitType.objects.get(namespace=scene.namespace).ranges
    return ranges


def save(scene: Scene, ranges: dict[str, list[str]]) -> None:
    UnitType.objects.filter(namespace=scene.namespace).update(ranges=ranges)


def test_a_saved_rule_that_led_to_the_cutover_is_taken_back_when_it_is_aborted(scene: Scene) -> None:
    save(scene, NEW_RANGES)
    cutover = at(scene, State.PREPARE)
    services.abort(cutover, "op", "no")
    take_to(scene, cutover, State.ABORTED)
    assert saved(scene) == OLD_RANGES


def test_a_third_rule_that_was_saved_meanwhile_is_left_alone(scene: Scene) -> None:
    cutover = at(scene, State.FREEZE)
    third = {"center": ["0~99"], "unbj": ["100~9999"]}
    save(scene, third)
    take_to(scene, cutover, State.DONE)
    assert saved(scene) == third


# -- roll back -----------------------------------------------------------------------------------------------


def test_a_roll_back_is_the_reverse_draft_and_goes_through_the_same_gate(scene: Scene) -> None:
    cutover = at(scene, State.DONE)
    back = services.rollback(cutover, "op")
    assert (back.state, back.rollback_of, back.number) == (State.DRAFT, cutover, 2)
    assert back.moved == [[5998, 6380, "center", "unbj"]]
    assert back.new_rule["ranges"] == OLD_RANGES
    assert "#1" in back.reason


def test_a_roll_back_leaves_ids_where_a_later_cutover_has_taken_them(scene: Scene) -> None:
    first = at(scene, State.DONE)
    later = make_started(scene, {"center": ["0~5999"], "unbj": ["6000~9999"]})
    take_to(scene, later, State.DONE)
    back = services.rollback(first, "op")
    assert back.moved == [[5998, 5999, "center", "unbj"]]


def test_a_roll_back_of_what_is_back_already_is_refused(scene: Scene) -> None:
    first = at(scene, State.DONE)
    second = make_started(scene, OLD_RANGES)
    take_to(scene, second, State.DONE)
    with pytest.raises(InvalidChange, match="Nothing moves"):
        services.rollback(first, "op")


@pytest.mark.parametrize("make", [make_draft, make_checked])
def test_only_a_cutover_that_is_done_can_be_rolled_back(
    scene: Scene, make: Callable[[Scene], Cutover]
) -> None:
    with pytest.raises(Refused, match="nothing to roll back"):
        services.rollback(make(scene), "op")
