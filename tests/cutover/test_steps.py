"""The steps of a cutover against the real rows: each gate, each at most once, each resumed after a crash."""

from typing import Any

import pytest

from cutover import ending, services, situation, steps
from cutover.models import Cutover, CutoverEvent
from msha.steering import phases
from tests.cutover.builders import (
    MOVED_COUNT,
    NEW_RANGES,
    OLD_RANGES,
    Scene,
    grow_old,
    make_scene,
    make_started,
    step,
    take_to,
)
from tests.units.builders import a_config, a_hello, make_node, publish_config
from units import enrolment, publishing
from units.models import Alarm, Namespace, Snapshot, Unit, UnitType

State = Cutover.State
LOSING, GAINING = "unbj-1", "center-1"


def alarms(scene: Scene) -> list[str]:
    return [alarm.sentence for alarm in Alarm.objects.filter(namespace=scene.namespace, cleared_at=None)]


# -- the four phases -----------------------------------------------------------------------------------------


def test_a_cutover_goes_through_its_four_phases(scene: Scene) -> None:
    cutover = make_started(scene)
    assert cutover.state == State.PREPARE
    assert scene.ranges() == OLD_RANGES
    assert step(scene, cutover) == State.FREEZE
    assert scene.ranges() == OLD_RANGES
    assert scene.rule()["cutover"]["phase"] == "freeze"
    assert step(scene, cutover) == State.ACTIVATE
    assert scene.ranges() == NEW_RANGES
    assert step(scene, cutover) == State.RELEASE
    assert scene.rule()["cutover"] is None
    assert step(scene, cutover) == State.DONE
    status = services.status(cutover)
    assert status["moved_ids"] == MOVED_COUNT
    assert status["frozen_ms"] >= 0
    assert status["phase"] == "done"
    assert UnitType.objects.get(namespace=scene.namespace).ranges == NEW_RANGES


def test_each_step_raises_the_epoch_of_the_namespace_by_one(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.DONE)
    rules = Snapshot.objects.filter(namespace=scene.namespace).order_by("version")
    assert [(row.version, row.epoch) for row in rules] == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    scene.namespace.refresh_from_db()
    assert scene.namespace.epoch == 4


def test_the_timeline_names_every_step_and_every_ack(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.DONE)
    kinds = list(CutoverEvent.objects.filter(cutover=cutover).values_list("kind", flat=True))
    steps_told = [kind for kind in kinds if kind in set(phases.Phase)]
    assert steps_told == ["prepare", "freeze", "activate", "release"]
    assert kinds.count("acked") == 8
    assert kinds.count("drained") == 1
    assert kinds[-1] == "done"


# -- PREPARE -------------------------------------------------------------------------------------------------


def test_prepare_waits_for_every_enrolled_node_of_the_losing_unit_connected_or_not(scene: Scene) -> None:
    cutover = make_started(scene)
    scene[LOSING].disconnect()
    scene[GAINING].ack()
    assert services.advance(cutover.pk) == State.PREPARE
    assert services.status(cutover)["missing"] == [scene[LOSING].row.name]


def test_prepare_does_not_wait_for_a_silent_node_that_loses_nothing(db: None) -> None:
    scene = make_scene(per_unit=2)
    cutover = make_started(scene)
    scene["center-2"].disconnect()
    scene.all_ack("center-2")
    assert services.advance(cutover.pk) == State.FREEZE


def test_prepare_needs_a_live_node_in_each_gaining_cluster(scene: Scene) -> None:
    cutover = make_started(scene)
    scene[GAINING].disconnect()
    scene[LOSING].ack()
    assert services.advance(cutover.pk) == State.PREPARE
    assert "ws-center" in services.status(cutover)["waiting"]


def test_prepare_that_takes_too_long_is_undone_and_says_who_did_not_answer(scene: Scene) -> None:
    cutover = make_started(scene)
    scene[GAINING].ack()
    grow_old(cutover, 11)
    assert services.advance(cutover.pk) == State.ABORTING
    assert scene.ranges() == OLD_RANGES
    assert scene.rule()["cutover"] is None
    assert scene[LOSING].row.name in alarms(scene)[0]
    scene.all_ack()
    assert services.advance(cutover.pk) == State.ABORTED
    cutover.refresh_from_db()
    assert scene[LOSING].row.name in cutover.outcome
    assert "prepare" in cutover.outcome


# -- FREEZE --------------------------------------------------------------------------------------------------


def frozen(scene: Scene) -> Cutover:
    """A cutover in FREEZE that no node has answered yet."""
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    return cutover


def test_freeze_is_not_passed_by_an_ack_without_drained(scene: Scene) -> None:
    cutover = frozen(scene)
    scene.all_ack()
    assert services.advance(cutover.pk) == State.FREEZE


def test_freeze_is_not_passed_by_drained_without_an_ack(scene: Scene) -> None:
    cutover = frozen(scene)
    assert not scene[LOSING].drained()
    assert services.advance(cutover.pk) == State.FREEZE


def test_a_disconnected_enrolled_losing_node_blocks_freeze_and_after_10_s_the_cutover_undoes_itself(
    db: None,
) -> None:
    scene = make_scene(per_unit=2)
    cutover = frozen(scene)
    scene["unbj-2"].disconnect()
    scene.all_ack("unbj-2")
    scene["unbj-1"].drained()
    assert services.advance(cutover.pk) == State.FREEZE
    grow_old(cutover, 9)
    assert services.advance(cutover.pk) == State.FREEZE
    grow_old(cutover, 10.5)
    assert services.advance(cutover.pk) == State.ABORTING
    scene.all_ack("unbj-2")
    assert services.advance(cutover.pk) == State.ABORTED
    assert scene.ranges() == OLD_RANGES
    assert scene["unbj-2"].row.name in alarms(scene)[0]


def test_the_alarm_of_an_undone_cutover_goes_when_its_node_is_back_in_line(scene: Scene) -> None:
    from cutover import driving

    cutover = frozen(scene)
    scene[LOSING].disconnect()
    grow_old(cutover, 11)
    services.advance(cutover.pk)
    driving.look_at_everything()
    assert len(alarms(scene)) == 1
    scene[LOSING].greet()
    scene[LOSING].ack()
    driving.look_at_everything()
    assert alarms(scene) == []


def test_the_alarm_of_a_cluster_that_did_not_answer_stays_until_its_node_is_back(scene: Scene) -> None:
    from cutover import driving

    cutover = make_started(scene)
    scene[LOSING].ack()
    scene[GAINING].disconnect()
    grow_old(cutover, 11)
    assert services.advance(cutover.pk) == State.ABORTING
    scene[LOSING].ack()
    driving.look_at_everything()
    cutover.refresh_from_db()
    assert cutover.state == State.ABORTED
    assert scene[GAINING].row.name in alarms(scene)[0]
    scene[GAINING].greet()
    scene[GAINING].ack()
    driving.look_at_everything()
    assert alarms(scene) == []


def test_a_losing_node_that_is_declared_dead_passes_freeze(db: None) -> None:
    scene = make_scene(per_unit=2)
    cutover = frozen(scene)
    scene["unbj-2"].disconnect()
    scene.all_ack("unbj-2")
    scene["unbj-1"].drained()
    scene["unbj-2"].declare_dead()
    assert services.advance(cutover.pk) == State.ACTIVATE


def test_a_losing_node_that_has_left_passes_freeze(db: None) -> None:
    scene = make_scene(per_unit=2)
    cutover = frozen(scene)
    scene.all_ack("unbj-2")
    scene["unbj-1"].drained()
    scene["unbj-2"].leave()
    assert services.advance(cutover.pk) == State.ACTIVATE


def test_a_losing_node_whose_workers_have_exited_with_freeze_on_disk_passes_it(scene: Scene) -> None:
    cutover = frozen(scene)
    scene[GAINING].ack()
    scene[LOSING].workers_exited(epoch=scene.rule()["epoch"] - 1)
    assert services.advance(cutover.pk) == State.FREEZE
    scene[LOSING].workers_exited()
    assert services.advance(cutover.pk) == State.ACTIVATE


def test_a_node_that_joins_the_losing_unit_during_freeze_is_waited_for(scene: Scene) -> None:
    cutover = frozen(scene)
    unit = Unit.objects.get(namespace=scene.namespace, code="unbj")
    node, _token = make_node(unit, "newcomer")
    enrolment.greet(node.pk, a_hello(), "c1")
    enrolment.join(node.pk, "c1")
    scene.all_ack()
    scene[LOSING].drained()
    assert services.advance(cutover.pk) == State.FREEZE
    assert services.status(cutover)["missing"] == ["newcomer"]


def test_drained_of_an_older_enrolment_does_not_count(scene: Scene) -> None:
    cutover = frozen(scene)
    scene[GAINING].ack()
    old = scene[LOSING].row.enrolment
    scene[LOSING].leave()
    scene[LOSING].rejoin()
    scene[LOSING].ack()
    assert not scene[LOSING].drained(enrolment_number=old)
    assert services.advance(cutover.pk) == State.FREEZE
    assert scene[LOSING].drained()
    assert services.advance(cutover.pk) == State.ACTIVATE


def test_drained_of_an_older_epoch_does_not_count(scene: Scene) -> None:
    cutover = make_started(scene)
    prepared = scene.rule()["epoch"]
    scene[LOSING].ack()
    scene[LOSING].drained(prepared)
    take_to(scene, cutover, State.FREEZE)
    scene.all_ack()
    scene[LOSING].drained(prepared)
    assert services.advance(cutover.pk) == State.FREEZE


def test_one_gate_spans_all_losing_units(db: None) -> None:
    scene = make_scene(codes=("center", "unbj", "unsh"))
    ranges = {"center": ["0~4999"], "unbj": ["5000~7999"], "unsh": ["8000~9999"]}
    cutover = make_started(scene, ranges)
    take_to(scene, cutover, State.FREEZE)
    scene.all_ack()
    scene["center-1"].drained()  # it loses 5000~5997 to unbj, while unbj loses 8000~9999 to unsh
    assert services.advance(cutover.pk) == State.FREEZE
    scene["unbj-1"].drained()
    assert services.advance(cutover.pk) == State.ACTIVATE


def test_an_ordinary_publish_in_between_neither_passes_nor_starves_the_gate(scene: Scene) -> None:
    cutover = frozen(scene)
    freeze = scene[LOSING].newest()
    publish_config(scene.namespace)
    assert services.advance(cutover.pk) == State.FREEZE
    scene[GAINING].ack(freeze)
    scene[LOSING].ack(freeze)
    scene[LOSING].drained()
    assert services.advance(cutover.pk) == State.ACTIVATE
    assert scene.published() == 5


# -- ACTIVATE and RELEASE ------------------------------------------------------------------------------------


def activated(scene: Scene) -> Cutover:
    """A cutover in ACTIVATE that no node has answered yet."""
    cutover = make_started(scene)
    take_to(scene, cutover, State.ACTIVATE)
    return cutover


def test_activate_raises_an_alarm_after_10_s_and_never_aborts(scene: Scene) -> None:
    cutover = activated(scene)
    grow_old(cutover, 60)
    assert services.advance(cutover.pk) == State.ACTIVATE
    services.advance(cutover.pk)
    assert len(alarms(scene)) == 1
    assert "turn the cutover around" in alarms(scene)[0]
    assert services.status(cutover)["alarm"] == alarms(scene)[0]
    scene[GAINING].ack()
    assert services.advance(cutover.pk) == State.RELEASE
    assert alarms(scene) == []


def test_activate_passes_over_a_parked_node_but_needs_one_that_acked(db: None) -> None:
    scene = make_scene(per_unit=2)
    cutover = activated(scene)
    scene["center-1"].status(parked=True)
    assert services.advance(cutover.pk) == State.ACTIVATE
    scene["center-2"].ack()
    assert services.advance(cutover.pk) == State.RELEASE


def test_release_waits_for_every_live_node_and_may_be_finished_without_it(scene: Scene) -> None:
    from cutover import driving

    cutover = make_started(scene)
    take_to(scene, cutover, State.RELEASE)
    scene[GAINING].ack()
    grow_old(cutover, 11)
    assert services.advance(cutover.pk) == State.RELEASE
    assert len(alarms(scene)) == 1
    services.finish_with_stragglers(cutover, "op", "it is being replaced")
    assert cutover.state == State.DONE
    assert services.status(cutover)["stragglers"] == [scene[LOSING].row.name]
    driving.look_at_everything()
    (frozen,) = alarms(scene)  # the straggler holds ids, and nobody waits for it any more
    assert f"{scene[LOSING].row.name} may still hold its moved ids" in frozen
    assert scene.ranges() == NEW_RANGES
    scene.all_ack()
    driving.look_at_everything()
    assert alarms(scene) == []


@pytest.mark.parametrize("back", [False, True], ids=["done", "aborted"])
def test_a_node_left_behind_with_frozen_ids_raises_an_alarm_until_it_is_back(db: None, back: bool) -> None:
    from cutover import driving

    scene = make_scene(per_unit=2)
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    scene.all_ack()
    scene["unbj-1"].drained()
    if not back:
        scene["unbj-2"].drained()
        services.advance(cutover.pk)
    scene["unbj-2"].disconnect()
    if back:
        services.abort(cutover, "op", "somebody else first")
    for _ in range(3):
        scene.all_ack("unbj-2")
        services.advance(cutover.pk)
    cutover.refresh_from_db()
    assert cutover.state == (State.ABORTED if back else State.DONE)
    driving.look_at_everything()
    assert ["unbj-2 may still hold" in sentence for sentence in alarms(scene)] == [True]
    scene["unbj-2"].greet()
    scene["unbj-2"].ack()
    driving.look_at_everything()
    assert alarms(scene) == []


# -- at most once, and resumed -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.PREPARE, State.FREEZE, State.ACTIVATE, State.RELEASE])
def test_repeating_a_step_publishes_nothing(scene: Scene, state: str) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, state)
    published = scene.published()
    for _ in range(3):
        assert services.advance(cutover.pk) == state
    assert scene.published() == published


@pytest.mark.parametrize(
    "state", [State.STARTING, State.PREPARE, State.FREEZE, State.ACTIVATE, State.RELEASE]
)
def test_a_transition_that_is_interrupted_leaves_nothing_and_is_resumed(
    scene: Scene, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutover = make_started(scene) if state != State.STARTING else make_started(scene, advance=False)
    take_to(scene, cutover, state)
    published, epoch = scene.published(), cutover.epoch

    class PowerFailure(BaseException):
        """Between the claim of a step and the commit."""

    def fail(*_: Any, **__: Any) -> None:
        raise PowerFailure

    with monkeypatch.context() as patch:
        for module in (steps, ending):
            patch.setattr(module.log, "info", fail)  # the last line of every step
        with pytest.raises(PowerFailure):
            step(scene, cutover)
    cutover.refresh_from_db()
    assert (cutover.state, cutover.epoch, scene.published()) == (state, epoch, published)
    take_to(scene, cutover, State.DONE)
    assert scene.published() == 5


def test_a_worker_that_read_before_another_took_the_step_changes_nothing(scene: Scene) -> None:
    cutover = make_started(scene)
    scene.all_ack()
    late = situation.read(publishing.locked(scene.namespace.pk), Cutover.objects.get(pk=cutover.pk))
    assert services.advance(cutover.pk) == State.FREEZE
    published = scene.published()
    with pytest.raises(steps.Lost):
        steps.publish_step(late, phases.Step(phases.Phase.FREEZE))
    assert scene.published() == published


def test_a_step_waits_while_publishing_is_stopped_with_an_alarm_and_goes_on_after(scene: Scene) -> None:
    cutover = frozen(scene)
    scene.all_ack()
    scene[LOSING].drained()
    Namespace.objects.filter(pk=scene.namespace.pk).update(publishing_stopped="restored from a backup")
    assert services.advance(cutover.pk) == State.FREEZE
    grow_old(cutover, 11)
    assert services.advance(cutover.pk) == State.FREEZE
    assert "restored from a backup" in alarms(scene)[0]
    Namespace.objects.filter(pk=scene.namespace.pk).update(publishing_stopped="")
    assert services.advance(cutover.pk) == State.ACTIVATE


def test_a_node_of_a_cluster_added_meanwhile_counts_in_no_cluster_gate(scene: Scene) -> None:
    cutover = frozen(scene)
    config = a_config()
    config["clusters"].append({"name": "late", "unit": "center", "protocol": "websocket", "slbs": []})
    publishing.publish(
        scene.namespace.pk, author="test", compute=lambda _row, _newest: publishing.Change(config=config)
    )
    take_to(scene, cutover, State.DONE)
