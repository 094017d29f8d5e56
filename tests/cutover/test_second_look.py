"""The checks once more before ids are frozen: a back-source may have died since the precheck."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from cutover import services
from cutover.checks import second_look
from cutover.models import Check, Cutover, SafetyRules
from cutover.pacing.asked import set_pacing
from tests.cutover.builders import Scene, make_checked, make_started, step, take_to
from tests.support.answering import answering, well
from units import probing
from units.models import Probe

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("second_looks")]

State = Cutover.State
Work = list[Callable[[], object]]


@pytest.fixture(autouse=True)
def _time_to_answer(monkeypatch: pytest.MonkeyPatch, _nodes_do_not_answer_for_long: None) -> None:
    monkeypatch.setattr(probing, "DEADLINE_S", 2.0)


def back_sources_are_dead(probe: Probe) -> Mapping[str, Any]:
    if probe.kind == Probe.Kind.BACK_SOURCE:
        return {"ok": False, "ms": 1, "error": "No connection."}
    return well(probe)


def do(
    scene: Scene, cutover: Cutover, work: Work, answer: Callable[[Probe], Mapping[str, Any] | None]
) -> Cutover:
    """All work that was handed over has been done, by a fleet that answers so."""
    scene.all_ack()
    for node in scene.nodes.values():
        node.status()
    with answering(answer):
        while work:
            work.pop(0)()
    cutover.refresh_from_db()
    return cutover


def ready_to_freeze(scene: Scene, work: Work) -> Cutover:
    cutover = make_started(scene)
    work.clear()
    step(scene, cutover)
    assert cutover.state == State.PREPARE
    assert cutover.hold["kind"] == "checks"
    return cutover


def test_nothing_is_frozen_before_the_checks_have_passed_once_more(scene: Scene, handed_over: Work) -> None:
    cutover = ready_to_freeze(scene, handed_over)
    services.advance(cutover.pk)
    assert Cutover.objects.get(pk=cutover.pk).state == State.PREPARE
    assert do(scene, cutover, handed_over, well).state == State.FREEZE
    assert "looked" in cutover.events.values_list("kind", flat=True)


def test_a_back_source_that_died_since_the_precheck_undoes_the_cutover(
    scene: Scene, handed_over: Work
) -> None:
    cutover = ready_to_freeze(scene, handed_over)
    do(scene, cutover, handed_over, back_sources_are_dead)
    assert cutover.state == State.ABORTING
    assert "No connection" in services.status(cutover)["outcome"]
    take_to(scene, cutover, State.ABORTED)
    assert scene.ranges() == {"center": ["0~5997"], "unbj": ["5998~9999"]}


def test_what_fails_for_a_moment_undoes_nothing(scene: Scene, handed_over: Work) -> None:
    """As a publish in between does: for a moment no node obeys the newest version."""
    cutover = ready_to_freeze(scene, handed_over)
    answers = iter([back_sources_are_dead] * 2)  # there are two back-sources to try
    do(
        scene,
        cutover,
        handed_over,
        lambda probe: next(answers, well)(probe) if is_dialled(probe) else well(probe),
    )
    assert cutover.state == State.FREEZE


def is_dialled(probe: Probe) -> bool:
    return probe.kind == Probe.Kind.BACK_SOURCE


def test_a_safety_rule_that_came_since_the_start_undoes_the_cutover(scene: Scene, handed_over: Work) -> None:
    cutover = ready_to_freeze(scene, handed_over)
    SafetyRules.objects.create(namespace=scene.namespace, max_ids=100)
    do(scene, cutover, handed_over, well)
    assert cutover.state == State.ABORTING
    assert "383" in services.status(cutover)["outcome"]


def test_a_check_that_was_skipped_with_a_reason_is_not_made_again(scene: Scene, handed_over: Work) -> None:
    checked = make_checked(scene)
    Check.objects.filter(cutover=checked, key="back_sources").update(state=Check.State.SKIPPED)
    cutover = services.start(checked, "op", scene.namespace.name)
    services.advance(cutover.pk)
    handed_over.clear()
    step(scene, cutover)
    assert do(scene, cutover, handed_over, back_sources_are_dead).state == State.FREEZE


def test_a_later_batch_whose_look_fails_waits_for_an_operator_who_may_resume_it(
    scene: Scene, handed_over: Work
) -> None:
    checked = make_checked(scene)
    set_pacing(checked, {"steps": [50], "bake_s": 0}, "op")
    cutover = services.start(checked, "op", scene.namespace.name)
    services.advance(cutover.pk)
    step(scene, cutover)
    do(scene, cutover, handed_over, well)
    for _ in range(2):
        step(scene, cutover)
    assert cutover.state == State.RELEASE
    handed_over.clear()
    step(scene, cutover)
    do(scene, cutover, handed_over, back_sources_are_dead)
    assert (cutover.state, cutover.batch, cutover.paused) == (State.RELEASE, 0, True)
    handed_over.clear()
    services.resume(cutover, "op", "mended")

    tried: set[int] = set()

    def mended(probe: Probe) -> Mapping[str, Any]:
        if probe.kind == Probe.Kind.HANDSHAKE:
            tried.add(int(probe.params["headers"]["routerid"]))
        return well(probe)

    assert do(scene, cutover, handed_over, mended).state == State.FREEZE
    # A session of an id that has moved would be counted as a client that came back.
    assert tried == {0, 6190}


def test_a_look_that_was_lost_with_its_worker_is_made_by_whoever_notices(
    scene: Scene, handed_over: Work
) -> None:
    cutover = ready_to_freeze(scene, handed_over)
    handed_over.clear()
    services.advance(cutover.pk)
    assert handed_over == []
    cutover.refresh_from_db()
    long_ago = (timezone.now() - timedelta(seconds=7)).isoformat()
    cutover.figures["look"]["at"] = long_ago
    Cutover.objects.filter(pk=cutover.pk).update(figures=cutover.figures)
    services.advance(cutover.pk)
    assert do(scene, cutover, handed_over, well).state == State.FREEZE


def test_a_look_that_comes_late_changes_nothing(scene: Scene, handed_over: Work) -> None:
    cutover = ready_to_freeze(scene, handed_over)
    epoch = cutover.epoch
    do(scene, cutover, handed_over, well)
    assert cutover.state == State.FREEZE
    with answering(back_sources_are_dead):
        second_look.make(cutover.pk, epoch)
    cutover.refresh_from_db()
    assert cutover.state == State.FREEZE
