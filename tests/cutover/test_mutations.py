"""Each way of getting the protocol wrong is noticed: the mutation is made, and the promise is seen to break.

Without its mutation every story here ends well. Source: PROTOCOL 8.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cutover import plans, services, situation, steps
from cutover.errors import Refused
from cutover.models import Cutover
from msha.steering import phases
from msha.steering.phases import NodeView, Phase, Step
from tests.cutover.builders import Scene, grow_old, make_scene, make_started, take_to
from tests.cutover.oracle import Broken
from units import enrolment, publishing, reports
from units.errors import VersionConflict
from units.in_use import InUse
from units.models import EdgeNode, Namespace, Snapshot, UnitType

State = Cutover.State
Patch = pytest.MonkeyPatch


# -- the stories ---------------------------------------------------------------------------------------------


def a_losing_node_is_cut_off_in_freeze(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    scene["unbj-2"].disconnect()
    scene.all_ack("unbj-2")
    for name in ("unbj-1", "center-1", "center-2"):
        scene[name].drained()
    services.advance(cutover.pk)


def a_losing_node_is_silent_for_a_minute(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    scene.all_ack("unbj-2")
    scene["unbj-1"].drained()
    grow_old(cutover, 60)
    services.advance(cutover.pk)


def a_losing_node_has_acked_and_still_closes_sessions(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    scene.all_ack()
    scene["unbj-1"].drained()
    services.advance(cutover.pk)


def a_losing_node_drains_for_its_own_restart(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    scene["unbj-2"].status(draining=True)
    scene.all_ack("unbj-2")
    scene["unbj-1"].drained()
    services.advance(cutover.pk)


def one_unit_gives_to_another_that_gives_to_a_third(scene: Scene) -> None:
    ranges = {"center": ["0~4999"], "unbj": ["5000~7999"], "unsh": ["8000~9999"]}
    cutover = make_started(scene, ranges)
    take_to(scene, cutover, State.FREEZE)
    scene.all_ack()
    for name in ("center-1", "center-2"):
        scene[name].drained()
    services.advance(cutover.pk)


def a_node_rejoins_and_its_old_drained_comes_late(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    old = scene["unbj-2"].row.enrolment
    scene["unbj-2"].leave()
    scene["unbj-2"].rejoin()
    scene["unbj-2"].ack()
    scene["unbj-2"].drained(enrolment_number=old)  # said by the process that is gone
    truth = EdgeNode.objects.get(pk=scene["unbj-2"].pk)
    scene.all_ack()
    scene["unbj-1"].drained()
    if truth.drained_epoch:
        raise Broken("a word of an older enrolment was believed")
    services.advance(cutover.pk)


def a_drained_of_prepare_comes_in_freeze(scene: Scene) -> None:
    cutover = make_started(scene)
    prepared = scene.rule()["epoch"]
    for name in ("unbj-1", "unbj-2"):
        scene[name].ack()
        scene[name].drained(prepared)
    take_to(scene, cutover, State.FREEZE)
    scene.all_ack()
    services.advance(cutover.pk)


def an_operator_aborts_after_activate(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.ACTIVATE)
    scene.all_ack()
    try:
        services.abort(cutover, "op", "back, now")
    except Refused:
        return


def a_turn_around_is_answered_by_live_nodes_alone(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.RELEASE)
    services.turn_around(cutover, "op", "back")
    scene["center-2"].disconnect()
    scene.all_ack("center-2")
    scene["center-1"].drained()
    grow_old(cutover, 60)
    services.advance(cutover.pk)


def two_workers_take_the_same_step(scene: Scene) -> None:
    cutover = make_started(scene)
    scene.all_ack()
    both = [
        situation.read(publishing.locked(scene.namespace.pk), Cutover.objects.get(pk=cutover.pk))
        for _ in range(2)
    ]
    for each in both:
        try:
            steps.publish_step(each, Step(Phase.FREEZE))
        except steps.Lost:
            continue
    bodies = Snapshot.objects.filter(namespace=scene.namespace, body__contains='"phase":"freeze"')
    if bodies.count() != 1:
        raise Broken("one step was published twice")


def an_ordinary_change_is_put_into_effect_in_mid_cutover(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.ACTIVATE)
    before = scene.rule()
    _change_the_config(scene, lambda config: config["limits"].update(note=1))
    if scene.rule() != before:
        raise Broken("an ordinary publish has changed the rule part")


def a_rule_part_was_computed_before_another_step(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    seen = Namespace.objects.get(pk=scene.namespace.pk).version
    undo = phases.rule_part(plans.plan_of(cutover), Step(Phase.ABORT), scene.rule())
    take_to(scene, cutover, State.ACTIVATE)
    try:
        publishing.publish(scene.namespace.pk, rule=undo, expected_version=seen, author="op")
    except VersionConflict:
        return


def a_node_joins_while_the_gate_passes(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    joins = scene["unbj-2"]
    joins.leave()
    joins.greet()
    scene.all_ack()
    locked = enrolment.locked

    def meanwhile(namespace_id: int) -> Namespace:
        """The last drained comes when it can: before the lock is had, or after what is no lock."""
        row = locked(namespace_id) if locked is _not_locked else None
        scene["unbj-1"].drained()
        services.advance(cutover.pk)
        return row or locked(namespace_id)

    enrolment.locked = meanwhile
    try:
        handed = enrolment.join(joins.pk, joins.connection)
    finally:
        enrolment.locked = locked
    if handed is None or handed.version != joins.newest().version:
        raise Broken("a node was enrolled behind a gate, with the version from before it")


def a_node_rejoins_and_its_old_left_comes_late(scene: Scene) -> None:
    node = scene["unbj-2"]
    old = node.row.enrolment
    node.leave()
    node.rejoin()
    node.ack()
    enrolment.left(node.pk, old)
    if not node.row.enrolled:
        raise Broken("a node that serves is counted no more")


def a_cluster_goes_to_another_unit_in_mid_cutover(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)

    def move(config: dict[str, Any]) -> None:
        losing = next(cluster for cluster in config["clusters"] if cluster["unit"] == "unbj")
        losing["unit"] = "center"
        for domain in config["domains"]:
            domain["clusters"] = {}

    try:
        _change_the_config(scene, move)
    except InUse:
        return
    raise Broken("a cluster of the running cutover was moved")


def _change_the_config(scene: Scene, change: Callable[[dict[str, Any]], object]) -> None:
    """An ordinary publish."""

    def compute(_: Namespace, document: dict[str, Any] | None) -> publishing.Change:
        assert document is not None
        change(document["config"])
        return publishing.Change(config=document["config"])

    publishing.publish(scene.namespace.pk, author="op", compute=compute)


# -- the mutations -------------------------------------------------------------------------------------------


def _seeing(patch: Patch, change: Callable[[NodeView], NodeView]) -> None:
    """The gates see every node through `change`."""
    views = plans.views
    patch.setattr(plans, "views", lambda nodes: [change(view) for view in views(nodes)])


def live_instead_of_enrolled(patch: Patch) -> None:
    _seeing(patch, lambda view: replace(view, enrolled=view.enrolled and view.live))


def a_time_out_counts_as_gone(patch: Patch) -> None:
    judge = phases.judge

    def hasty(plan: Any, step: Step, epoch: int, nodes: list[NodeView], lasted_s: float, **told: bool) -> Any:
        if lasted_s > 10:
            nodes = [view for view in nodes if view.acked_epoch >= epoch and view.drained_epoch >= epoch]
        return judge(plan, step, epoch, nodes, lasted_s, **told)

    patch.setattr(phases, "judge", hasty)


def ack_counts_as_drained(patch: Patch) -> None:
    _seeing(patch, lambda view: replace(view, drained_epoch=view.acked_epoch))


def a_draining_node_counts_as_gone(patch: Patch) -> None:
    enrolled = plans.enrolled_nodes
    patch.setattr(plans, "enrolled_nodes", lambda pk: [node for node in enrolled(pk) if not node.draining])


def a_gate_per_pair_of_units(patch: Patch) -> None:
    missing = phases._missing

    def of_the_first_pair(plan: Any, step: Step, epoch: int, nodes: list[NodeView]) -> Any:
        if step.phase is not Phase.FREEZE:
            return missing(plan, step, epoch, nodes)
        first = next(iter(plan.moving(step))).losing
        return missing(plan, step, epoch, [view for view in nodes if view.unit == first])

    patch.setattr(phases, "_missing", of_the_first_pair)


def any_enrolment_is_believed(patch: Patch) -> None:
    def enrolled(node_id: int, _enrolment: int) -> Any:
        return EdgeNode.objects.filter(pk=node_id, state=EdgeNode.State.ENROLLED)

    patch.setattr(reports, "_enrolled", enrolled)


def any_epoch_is_believed(patch: Patch) -> None:
    _seeing(patch, lambda view: replace(view, drained_epoch=10**6 if view.drained_epoch > 0 else -1))


def abort_is_allowed_after_activate(patch: Patch) -> None:
    patch.setattr(phases, "aborted", lambda step: replace(step, phase=Phase.ABORT))


def no_compare_and_set(patch: Patch) -> None:
    patch.setattr(steps, "as_read", lambda cutover: Cutover.objects.filter(pk=cutover.pk))


def the_rule_is_composed_from_saved_data(patch: Patch) -> None:
    build = publishing.steering.build

    def composed(uuid: str, name: str, version: int, config: Any, rule: Any) -> Any:
        saved = UnitType.objects.get(namespace__uuid=uuid)
        entry = {**rule["unit_types"][0], "ranges": saved.ranges}
        return build(uuid, name, version, config, {**rule, "unit_types": [entry], "cutover": None})

    patch.setattr(publishing.steering, "build", composed)
    patch.setattr(publishing, "_assert_copied", lambda *_: None)


def content_is_computed_outside(patch: Patch) -> None:
    publish = publishing.publish

    def without_comparing(namespace_pk: int, **how: Any) -> Snapshot:
        how["expected_version"] = Namespace.objects.get(pk=namespace_pk).version
        return publish(namespace_pk, **how)

    patch.setattr(publishing, "publish", without_comparing)
    patch.setattr(publishing, "_check", lambda *_: None)


def _not_locked(namespace_id: int) -> Namespace:
    return Namespace.objects.get(pk=namespace_id)


def joining_takes_no_lock(patch: Patch) -> None:
    patch.setattr(enrolment, "locked", _not_locked)


def left_counts_for_any_enrolment(patch: Patch) -> None:
    left = enrolment.left
    patch.setattr(enrolment, "left", lambda pk, _: left(pk, EdgeNode.objects.get(pk=pk).enrolment))


def nothing_is_in_use(patch: Patch) -> None:
    patch.setattr(publishing, "refuse_removal_if_used", lambda *_: None)


STORIES: list[tuple[Callable[[Scene], None], Callable[[Patch], None]]] = [
    (a_losing_node_is_cut_off_in_freeze, live_instead_of_enrolled),
    (a_losing_node_is_silent_for_a_minute, a_time_out_counts_as_gone),
    (a_losing_node_has_acked_and_still_closes_sessions, ack_counts_as_drained),
    (a_losing_node_drains_for_its_own_restart, a_draining_node_counts_as_gone),
    (one_unit_gives_to_another_that_gives_to_a_third, a_gate_per_pair_of_units),
    (a_node_rejoins_and_its_old_drained_comes_late, any_enrolment_is_believed),
    (a_drained_of_prepare_comes_in_freeze, any_epoch_is_believed),
    (an_operator_aborts_after_activate, abort_is_allowed_after_activate),
    (a_turn_around_is_answered_by_live_nodes_alone, live_instead_of_enrolled),
    (a_turn_around_is_answered_by_live_nodes_alone, a_time_out_counts_as_gone),
    (two_workers_take_the_same_step, no_compare_and_set),
    (an_ordinary_change_is_put_into_effect_in_mid_cutover, the_rule_is_composed_from_saved_data),
    (a_rule_part_was_computed_before_another_step, content_is_computed_outside),
    (a_node_joins_while_the_gate_passes, joining_takes_no_lock),
    (a_node_rejoins_and_its_old_left_comes_late, left_counts_for_any_enrolment),
    (a_cluster_goes_to_another_unit_in_mid_cutover, nothing_is_in_use),
]


def _scene(story: Callable[[Scene], None]) -> Scene:
    codes = ("center", "unbj", "unsh") if "third" in story.__name__ else ("center", "unbj")
    return make_scene(per_unit=2, codes=codes)


@pytest.mark.django_db
@pytest.mark.parametrize("story", dict.fromkeys(story for story, _ in STORIES), ids=lambda it: it.__name__)
def test_the_story_ends_well(story: Callable[[Scene], None]) -> None:
    story(_scene(story))


@pytest.mark.django_db
@pytest.mark.parametrize(("story", "mutation"), STORIES, ids=lambda it: it.__name__)
def test_the_mutation_is_noticed(
    story: Callable[[Scene], None], mutation: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    scene = _scene(story)
    mutation(monkeypatch)
    with pytest.raises(Broken):
        story(scene)
