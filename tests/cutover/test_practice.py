"""Practice: everything but the moving, and what was measured on the way."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from cutover import previews, services
from cutover.errors import Refused, StalePreview
from cutover.models import Cutover, Practice
from cutover.practice import running, shown
from tests.cutover.builders import Scene, make_checked, make_draft, make_scene, make_started
from tests.support.answering import answering, well
from units import probing
from units.models import Probe

pytestmark = pytest.mark.django_db(transaction=True)

State = Practice.State
Work = list[Callable[[], object]]


@pytest.fixture(autouse=True)
def _time_to_answer(monkeypatch: pytest.MonkeyPatch, _nodes_do_not_answer_for_long: None) -> None:
    monkeypatch.setattr(previews, "COUNT_DEADLINE_S", 2.0)
    monkeypatch.setattr(probing, "DEADLINE_S", 2.0)


def rehearsing(probe: Probe) -> Mapping[str, Any]:
    match probe.kind:
        case Probe.Kind.REHEARSE:
            counts = [5] * len(probe.params["ranges"])
            return {"ok": True, "ms": 7, "disk_ms": 4.0, "read_ms": 2.0, "counts": counts}
        case Probe.Kind.ACCEPTS:
            return {"ok": True, "ms": 1, "accepts_per_s": 100}
        case _:
            return well(probe)


def practised(cutover: Cutover, answer: Callable[[Probe], Mapping[str, Any] | None] = rehearsing) -> Practice:
    practice = services.practise(cutover, "op")
    with answering(answer):
        running.make(practice.pk)
    practice.refresh_from_db()
    return practice


def test_a_practice_run_measures_the_drain_and_the_way_back_and_moves_nobody(scene: Scene) -> None:
    cutover = make_checked(scene)
    published = scene.published()
    practice = practised(cutover)
    assert practice.state == State.DONE
    drain = practice.findings["drain"]
    assert (drain["sessions"], [node["unit"] for node in drain["nodes"]]) == (5, ["unbj"])
    assert drain["freeze_ms"] >= 0
    (unit,) = practice.findings["recovery"]
    assert (unit["unit"], unit["sessions"], unit["accepts_per_s"]) == ("center", 5, 100)
    assert unit["handshake_ms"] == 1
    assert unit["all_back_s"] == 0.05
    assert "5 sessions would be closed" in shown.practice(practice)["sentence"]
    cutover.refresh_from_db()
    assert (cutover.state, scene.published()) == (Cutover.State.CHECKED, published)


def test_what_would_stop_the_cutover_is_counted_and_named(scene: Scene) -> None:
    def dead(probe: Probe) -> Mapping[str, Any]:
        if probe.kind == Probe.Kind.BACK_SOURCE:
            return {"ok": False, "ms": 1, "error": "No connection."}
        if probe.kind == Probe.Kind.REHEARSE:
            return {"ok": False, "ms": 1, "error": "The disk refused: No space left on device."}
        return rehearsing(probe)

    practice = practised(make_checked(scene), dead)
    assert practice.state == State.FAILED
    told = shown.practice(practice)
    assert "2 things would stop this cutover." in told["sentence"]
    assert [check["key"] for check in told["checks"] if not check["passed"]] == ["back_sources"]
    assert told["drain"]["nodes"][0]["error"] == "The disk refused: No space left on device."


def test_a_fleet_that_does_not_answer_is_a_finding_not_an_error(scene: Scene) -> None:
    practice = practised(make_checked(scene), lambda probe: None)
    assert practice.state == State.FAILED
    assert practice.findings["recovery"][0]["all_back_s"] is None


def test_only_a_cutover_with_a_current_preview_is_practised(scene: Scene) -> None:
    with pytest.raises(Refused, match="only one with a preview"):
        services.practise(make_draft(scene), "op")
    with pytest.raises(Refused, match="only one with a preview"):
        services.practise(make_started(scene), "op")


def test_a_stale_preview_is_not_practised(scene: Scene) -> None:
    cutover = make_checked(scene)
    Cutover.objects.filter(pk=cutover.pk).update(base_digest="other")
    with pytest.raises(StalePreview):
        services.practise(cutover, "op")


def test_one_practice_at_a_time(scene: Scene) -> None:
    cutover = make_checked(scene)
    services.practise(cutover, "op")
    with pytest.raises(Refused, match="under way"):
        services.practise(cutover, "op")


def test_whoever_comes_second_makes_nothing(scene: Scene) -> None:
    practice = practised(make_checked(scene))
    finished = practice.finished
    running.make(practice.pk)
    practice.refresh_from_db()
    assert practice.finished == finished


def test_a_run_that_nobody_begins_is_taken_over_and_a_lost_one_has_failed(handed_over: Work) -> None:
    scene = make_scene()
    practice = services.practise(make_checked(scene), "op")
    handed_over.clear()
    running.take_over()
    assert handed_over == []
    Practice.objects.update(started=timezone.now() - timedelta(seconds=4))
    running.take_over()
    with answering(rehearsing):
        handed_over.pop()()
    practice.refresh_from_db()
    assert practice.state == State.DONE
    other = services.practise(make_checked(scene), "op")
    Practice.objects.filter(pk=other.pk).update(
        started=timezone.now() - timedelta(minutes=3), findings={"begun": "then"}
    )
    running.take_over()
    other.refresh_from_db()
    assert (other.state, "lost" in other.findings["error"]) == (State.FAILED, True)
