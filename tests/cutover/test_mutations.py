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
from units import publishing, reports
from units.models import EdgeNode, Snapshot

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
