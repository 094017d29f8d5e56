"""Hooks of a cutover in batches: what is told of which ids, and what a failure keeps back or undoes."""

import pytest

from cutover import services
from cutover.hooks import calling
from cutover.models import Cutover, HookRun
from msha.steering.ranges import MovedIds
from tests.cutover.builders import NEW_RANGES, OLD_RANGES, Scene, make_checked, step
from tests.cutover.hooks.builders import NO, Work, by_moment, do, make_hook, told
from tests.support.receiver import Receiver
from units.models import Alarm

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("_asked_again_soon"),
]

State, Run = Cutover.State, HookRun.State
MOMENTS = ("before_freeze", "at_freeze", "before_activate", "after_release")


def started_in_two(scene: Scene) -> Cutover:
    """A cutover in two batches that has published PREPARE."""
    cutover = make_checked(scene)
    services.set_pacing(cutover, {"steps": [10]}, "op")
    services.start(cutover, "op", scene.namespace.name)
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    assert len(cutover.plan["batches"]) == 2
    return cutover


def play(
    scene: Scene, cutover: Cutover, work: Work, steps: int = 40, until: tuple[str, int] | None = None
) -> None:
    """Nodes and hooks do what is asked of them until the cutover has ended, or is in this state and batch."""
    for _ in range(steps):
        do(work)
        cutover.refresh_from_db()
        if not cutover.active or (cutover.state, cutover.batch) == until:
            return
        step(scene, cutover)


def ids(receiver: Receiver, moment: str) -> list[list[list[int]]]:
    """The ranges of each call of a moment."""
    bodies = [received.payload for received in receiver.received]
    return [body["moved"][0]["ranges"] for body in bodies if body["moment"] == moment]


def test_each_batch_is_told_with_its_own_ids(scene: Scene, receiver: Receiver, handed_over: Work) -> None:
    for moment in MOMENTS:
        make_hook(scene, receiver, moment)
    cutover = started_in_two(scene)
    play(scene, cutover, handed_over)
    do(handed_over)
    assert cutover.state == State.DONE
    assert [(moment, batch) for moment, batch, _, _ in told(receiver)] == [
        (moment, batch) for batch in (1, 2) for moment in MOMENTS
    ]
    slices = [MovedIds.from_lists(rows) for rows in cutover.plan["batches"]]
    expected = [[[move.start, move.end - 1] for move in moved] for moved in slices]
    for moment in MOMENTS:
        assert ids(receiver, moment) == expected
    assert {received.payload["batches"] for received in receiver.received} == {2}


def test_a_hook_that_fails_in_a_later_freeze_undoes_that_batch_alone(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze")
    cutover = started_in_two(scene)
    play(scene, cutover, handed_over, until=(State.RELEASE, 0))
    receiver.lasting = by_moment(receiver, at_freeze=NO)
    play(scene, cutover, handed_over)
    do(handed_over)
    assert cutover.state == State.ABORTED
    assert scene.ranges() not in (OLD_RANGES, NEW_RANGES)  # the first batch stays
    assert told(receiver)[-1] == ("after_release", 2, "forward", "aborted")
    assert "No id of this step has moved" in cutover.outcome


def test_before_a_later_batch_nothing_can_be_undone_so_it_is_kept_back_with_an_alarm(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "before_freeze", "agree")
    cutover = started_in_two(scene)
    play(scene, cutover, handed_over, until=(State.RELEASE, 0))
    receiver.lasting = NO
    play(scene, cutover, handed_over, steps=4)
    assert (cutover.state, cutover.batch) == (State.RELEASE, 0)
    assert Alarm.objects.filter(kind="cutover_hook", cleared_at=None).exists()
    assert services.status(cutover)["held"] == "Waits for the hook “agree” (before FREEZE)."
    services.skip_hook(cutover, "agree", "olga", "agreed by telephone")
    play(scene, cutover, handed_over)
    assert cutover.state == State.DONE


def test_a_batch_that_was_not_told_of_keeps_the_next_one_back(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "after_release", "switch")
    receiver.lasting = NO
    cutover = started_in_two(scene)
    play(scene, cutover, handed_over, steps=12)
    assert (cutover.state, cutover.batch) == (State.RELEASE, 0)
    assert services.status(cutover)["hooks"][-1]["stuck"]
    receiver.lasting = by_moment(receiver)
    HookRun.objects.update(next_at=cutover.started_at)
    calling.call_due()
    play(scene, cutover, handed_over)
    assert cutover.state == State.DONE
    assert not Alarm.objects.filter(kind="cutover_hook", cleared_at=None).exists()


def test_a_roll_back_tells_each_batch_of_its_way_back_and_waits_for_nobody_afterwards(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze")
    make_hook(scene, receiver, "after_release")
    cutover = started_in_two(scene)
    play(scene, cutover, handed_over, until=(State.ACTIVATE, 1))
    receiver.lasting = by_moment(receiver, after_release=NO)
    services.roll_back(cutover, "op", "it is slower there")
    play(scene, cutover, handed_over)
    assert cutover.state == State.ABORTED
    assert scene.ranges() == OLD_RANGES
    back = [entry for entry in told(receiver) if entry[2] == "back"]
    assert list(dict.fromkeys(back)) == [
        ("at_freeze", 2, "back", ""),
        ("after_release", 2, "back", "moved"),
        ("at_freeze", 1, "back", ""),
        ("after_release", 1, "back", "moved"),
    ]


def test_a_batch_that_comes_to_the_same_turn_twice_calls_its_hooks_again(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze")
    cutover = started_in_two(scene)
    play(scene, cutover, handed_over, until=(State.ACTIVATE, 0))
    services.turn_around(cutover, "op", "look again")  # batch 1, once back
    play(scene, cutover, handed_over, until=(State.ACTIVATE, 0))
    services.turn_around(cutover, "op", "it was right")  # and forward
    play(scene, cutover, handed_over, until=(State.ACTIVATE, 1))
    services.roll_back(cutover, "op", "all of it")  # through batch 2 to batch 1, once back again
    play(scene, cutover, handed_over)
    assert cutover.state == State.ABORTED
    first = [
        (body["turns"], body["epoch"])
        for body in (r.payload for r in receiver.received)
        if body["batch"] == 1
    ]
    assert [turns for turns, _ in first] == [0, 1, 2, 1]
    assert sorted(first, key=lambda entry: entry[1]) == first


def test_what_still_tells_of_a_batch_is_overtaken_when_its_ids_are_frozen_again(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze")
    make_hook(scene, receiver, "after_release")
    receiver.lasting = by_moment(receiver, after_release=NO)
    cutover = started_in_two(scene)
    play(scene, cutover, handed_over, steps=12)
    (telling,) = HookRun.objects.filter(cutover=cutover, moment="after_release")
    assert (cutover.batch, telling.state, telling.stuck) == (0, Run.PENDING, True)
    services.roll_back(cutover, "op", "it does not listen")
    telling.refresh_from_db()
    assert (telling.state, telling.stuck) == (Run.CANCELLED, False)
