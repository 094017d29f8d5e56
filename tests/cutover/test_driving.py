"""Who makes a cutover go on: acks alone, statuses, the tick, a command; with neither broker nor worker."""

from collections.abc import Callable
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import DatabaseError
from django.utils import timezone

from cutover import driving, progress, services, steps, tasks, watch
from cutover.models import Cutover
from msha.steering import wire
from tests.cutover.builders import NEW_RANGES, Scene, grow_old, make_scene, make_started
from units.models import Alarm, EdgeNode

pytestmark = pytest.mark.django_db(transaction=True)

State = Cutover.State
LOSING, GAINING = "unbj-1", "center-1"


@pytest.fixture
def scene() -> Scene:
    return make_scene()


@pytest.fixture(autouse=True)
def _every_status_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "STATUS_EVERY_S", 0.0)


def state_of(cutover: Cutover) -> str:
    cutover.refresh_from_db()
    return cutover.state


def test_acks_alone_take_a_cutover_to_its_end(scene: Scene) -> None:
    cutover = make_started(scene)
    scene.all_ack()
    assert state_of(cutover) == State.FREEZE
    scene.all_ack()
    assert state_of(cutover) == State.FREEZE
    scene[LOSING].drained()
    assert state_of(cutover) == State.ACTIVATE
    scene[GAINING].ack()
    assert state_of(cutover) == State.RELEASE
    scene.all_ack()
    assert state_of(cutover) == State.DONE
    assert scene.ranges() == NEW_RANGES


def test_the_first_step_is_taken_at_the_next_status_when_no_worker_took_it(scene: Scene) -> None:
    cutover = make_started(scene, advance=False)
    assert state_of(cutover) == State.STARTING
    scene[GAINING].status()
    assert state_of(cutover) == State.PREPARE


def test_a_declaration_of_death_drives_at_once(scene: Scene) -> None:
    cutover = make_started(scene)
    scene.all_ack()
    scene.all_ack()
    scene[LOSING].disconnect()
    scene[LOSING].declare_dead()
    assert state_of(cutover) == State.ACTIVATE


def test_a_deadline_needs_no_word_of_any_node(scene: Scene) -> None:
    cutover = make_started(scene)
    scene[LOSING].disconnect()
    scene[GAINING].disconnect()
    grow_old(cutover, 11)
    driving.look_at_everything()
    assert state_of(cutover) == State.ABORTED  # no losing node is live, so none must ack the abort
    assert Alarm.objects.filter(namespace=scene.namespace, cleared_at=None).exists()


def test_statuses_between_looks_are_not_looked_at(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "STATUS_EVERY_S", 3600.0)
    monkeypatch.setattr(driving, "_last_look", {})
    looked: list[int] = []
    monkeypatch.setattr(driving, "advance_safely", lambda pk, _: looked.append(pk))
    make_started(scene, advance=False)
    for _ in range(3):
        scene[GAINING].status()
    assert len(looked) == 1


def test_a_failure_to_advance_does_not_reach_the_node_that_reported(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutover = make_started(scene)

    def fail(_: int) -> str:
        raise DatabaseError("gone for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(steps, "advance", fail)
        scene.all_ack()
    assert state_of(cutover) == State.PREPARE
    driving.look_at_everything()
    assert state_of(cutover) == State.FREEZE


def test_a_look_at_everything_advances_every_namespace_and_says_how_many_still_run(scene: Scene) -> None:
    other = make_scene()
    cutovers = [make_started(scene, advance=False), make_started(other, advance=False)]
    assert driving.look_at_everything() == 2
    assert [state_of(cutover) for cutover in cutovers] == [State.PREPARE, State.PREPARE]


def test_the_tasks_of_celery_do_the_same(scene: Scene) -> None:
    cutover = make_started(scene, advance=False)
    tasks.start(cutover.pk)
    assert state_of(cutover) == State.PREPARE
    tasks.reconcile()
    assert state_of(cutover) == State.PREPARE


def test_the_disconnect_task_hands_over_to_the_next_before_its_time_is_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, handed_over: list[Callable[[], object]]
) -> None:
    monkeypatch.setattr(tasks, "ACCOMPANY_S", 0.3)
    cutover = make_started(scene)
    handed_over.clear()
    tasks.disconnect(cutover.pk)
    assert len(handed_over) == 1
    services.abort(cutover, "op", "no")
    scene.all_ack()
    handed_over.clear()
    tasks.disconnect(cutover.pk)
    assert handed_over == []


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command_takes_the_steps_whose_gate_is_passed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutover = make_started(scene)
    with monkeypatch.context() as patch:
        patch.setattr(driving, "advance_safely", lambda *_: "")  # the console is away
        scene.all_ack()
    assert state_of(cutover) == State.PREPARE
    said = StringIO()
    call_command("advance_cutovers", stdout=said)
    assert state_of(cutover) == State.FREEZE
    assert said.getvalue().startswith(f"{cutover}: freeze")


def test_the_command_says_so_when_nothing_runs() -> None:
    said = StringIO()
    call_command("advance_cutovers", "--watch", stdout=said)
    assert said.getvalue() == "No cutover is running.\n"


# -- the console's own watch ---------------------------------------------------------------------------------


def test_the_watch_goes_on_after_a_failure_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    class Enough(BaseException):
        """The test has seen what it wanted to."""

    def look() -> int:
        looks.append(1)
        if len(looks) == 1:
            raise DatabaseError("gone")
        if len(looks) == 2:
            raise RuntimeError("a bug")
        raise Enough

    monkeypatch.setattr(driving, "look_at_everything", look)
    monkeypatch.setattr(watch, "EVERY_S", 0.0)
    with pytest.raises(Enough):
        watch._forever("cutover-watch", driving.look_at_everything)
    assert len(looks) == 3


# -- what is counted -----------------------------------------------------------------------------------------


def says(node: str, scene: Scene, cutover: Cutover, **counts: int) -> None:
    key = wire.progress_key(str(cutover.pk))
    said = {"cutover": key, "epoch": 1, "closed": 0, "remaining": 0, "reconnected": 0, **counts}
    EdgeNode.objects.filter(pk=scene[node].pk).update(phase_progress=said)
    driving.heard(None, namespace_id=scene.namespace.pk, kind="status")


def figures(cutover: Cutover) -> tuple[int, int | None, int]:
    status = services.status(cutover)
    return status["sessions_closed"], status["sessions_remaining"], status["reconnected"]


def freezing(scene: Scene) -> Cutover:
    cutover = make_started(scene)
    scene.all_ack()
    assert state_of(cutover) == State.FREEZE
    return cutover


def test_sessions_are_summed_over_nodes_and_drawn_as_a_curve(scene: Scene) -> None:
    cutover = freezing(scene)
    says(LOSING, scene, cutover, closed=3, remaining=9)
    assert figures(cutover) == (3, 9, 0)
    says(LOSING, scene, cutover, closed=12)
    says(GAINING, scene, cutover, reconnected=5)
    assert figures(cutover) == (12, 0, 5)
    curve = services.status(cutover)["samples"]
    assert [curve[-1][name] for name in ("closed", "remaining", "reconnected")] == [12, 0, 5]


def test_the_curve_has_a_point_every_quarter_of_a_second(scene: Scene) -> None:
    cutover = freezing(scene)
    for closed in range(1, 6):
        says(LOSING, scene, cutover, closed=closed)
    assert len(services.status(cutover)["samples"]) <= 3


def test_the_curve_begins_with_the_sessions_that_were_counted_for_the_preview(scene: Scene) -> None:
    cutover = make_started(scene, advance=False)
    Cutover.objects.filter(pk=cutover.pk).update(impact={"pairs": [["unbj", "center", 12]]})
    services.advance(cutover.pk)
    says(LOSING, scene, cutover)  # it has heard of the cutover, and nothing is closed yet
    assert [point["remaining"] for point in services.status(cutover)["samples"]] == [12]


def test_the_counts_of_another_cutover_are_not_taken(scene: Scene) -> None:
    cutover = make_started(scene)
    says(LOSING, scene, Cutover(pk=cutover.pk + 1), closed=99)
    assert figures(cutover) == (0, None, 0)


def test_until_a_losing_node_has_counted_what_the_preview_counted_remains(scene: Scene) -> None:
    cutover = make_started(scene)
    assert figures(cutover) == (0, None, 0)  # its preview reached no node
    Cutover.objects.filter(pk=cutover.pk).update(impact={"pairs": [["unbj", "center", 9]]})
    says(LOSING, scene, cutover)  # it has PREPARE, and has nothing to close yet
    assert figures(cutover) == (0, 9, 0)
    scene.all_ack()
    assert state_of(cutover) == State.FREEZE
    says(LOSING, scene, cutover)
    says(GAINING, scene, cutover, epoch=2)
    assert figures(cutover) == (0, 9, 0)
    assert services.status(cutover)["samples"][-1]["remaining"] == 9
    says(LOSING, scene, cutover, epoch=2, closed=4, remaining=6)
    assert figures(cutover) == (4, 6, 0)
    says(LOSING, scene, cutover, epoch=2, closed=10)
    assert figures(cutover) == (10, 0, 0)


def test_the_sessions_of_a_node_that_was_declared_dead_do_not_remain(scene: Scene) -> None:
    cutover = make_started(scene)
    Cutover.objects.filter(pk=cutover.pk).update(impact={"pairs": [["unbj", "center", 9]]})
    scene.all_ack()
    scene[LOSING].disconnect()
    assert figures(cutover)[1] == 9
    scene[LOSING].declare_dead()
    assert state_of(cutover) == State.ACTIVATE
    assert figures(cutover)[1] == 0


def test_a_node_that_starts_again_takes_nothing_back(scene: Scene) -> None:
    cutover = make_started(scene)
    says(LOSING, scene, cutover, closed=7, remaining=2)
    says(LOSING, scene, cutover, closed=0, remaining=0)
    assert figures(cutover) == (7, 0, 0)


def test_clients_that_come_back_after_the_end_are_counted_for_a_while(scene: Scene) -> None:
    cutover = make_started(scene)
    services.abort(cutover, "op", "no")
    scene.all_ack()
    assert state_of(cutover) == State.ABORTED
    says(GAINING, scene, cutover, reconnected=4)
    assert figures(cutover)[2] == 4
    late = timezone.now() - progress.WATCHED_AFTER_END - timedelta(seconds=1)
    Cutover.objects.filter(pk=cutover.pk).update(ended_at=late)
    says(GAINING, scene, cutover, reconnected=9)
    assert figures(cutover)[2] == 4
