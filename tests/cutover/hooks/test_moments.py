"""When hooks are called, what they are told, and what a cutover does until they have answered."""

import pytest

from cutover import driving, services
from cutover.errors import Refused
from cutover.models import Cutover, HookRun
from tests.cutover.builders import NEW_RANGES, OLD_RANGES, Scene, grow_old, make_checked, make_started, step
from tests.cutover.hooks.builders import (
    BROKEN,
    NO,
    NOT_YET,
    SECRET,
    Work,
    by_moment,
    do,
    make_hook,
    moments,
    run_of,
    told,
)
from tests.support.receiver import Receiver
from units.models import Alarm, AuditEvent

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("_asked_again_soon"),
]

State, Run = Cutover.State, HookRun.State
MOMENTS = ("before_freeze", "at_freeze", "before_activate", "after_release")


def state_of(cutover: Cutover) -> str:
    cutover.refresh_from_db()
    return cutover.state


def all_hooks(scene: Scene, receiver: Receiver, **options: object) -> None:
    for moment in MOMENTS:
        make_hook(scene, receiver, moment, **options)


def play(scene: Scene, cutover: Cutover, work: Work, until: str = State.DONE) -> None:
    """Nodes and hooks do what is asked of them until the cutover is in this state."""
    for _ in range(40):
        do(work)
        if state_of(cutover) == until:
            return
        step(scene, cutover)
    raise AssertionError(f"{cutover} is {cutover.state}, not {until}: {services.status(cutover)['hooks']}")


def test_each_moment_is_called_once_in_its_order_and_the_next_step_waits_for_it(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    all_hooks(scene, receiver)
    cutover = make_started(scene)
    do(handed_over)
    step(scene, cutover)  # every node has acked PREPARE
    assert (cutover.state, moments(receiver)) == (State.PREPARE, [])
    assert services.status(cutover)["hooks"][0]["state"] == "pending"
    do(handed_over)
    assert state_of(cutover) == State.FREEZE
    assert moments(receiver) == ["before_freeze", "at_freeze"]  # at FREEZE, before any node has answered
    step(scene, cutover)
    assert (cutover.state, moments(receiver)) == (State.FREEZE, ["before_freeze", "at_freeze"])
    do(handed_over)
    assert state_of(cutover) == State.ACTIVATE
    step(scene, cutover)
    step(scene, cutover)
    assert (cutover.state, len(receiver.received)) == (State.DONE, 3)  # nothing waits for the last one
    do(handed_over)
    assert moments(receiver) == list(MOMENTS)
    assert scene.ranges() == NEW_RANGES
    assert {call["state"] for call in services.status(cutover)["hooks"]} == {"succeeded"}


def test_a_hook_is_told_the_exact_ids_by_losing_and_gaining_unit_and_can_check_who_says_so(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze", "forbid-writes")
    cutover = make_started(scene)
    play(scene, cutover, handed_over)
    (received,) = receiver.received
    run = run_of(cutover)
    assert received.signed_with(SECRET)
    assert not received.signed_with("another secret")
    assert received.delivery == received.payload["id"] == str(run.key)
    assert received.payload == {
        "form": 1,
        "id": str(run.key),
        "attempt": 1,
        "hook": "forbid-writes",
        "moment": "at_freeze",
        "outcome": "",
        "namespace": scene.namespace.name,
        "cutover": cutover.number,
        "unit_type": "unit_type",
        "batch": 1,
        "batches": 1,
        "turns": 0,
        "direction": "forward",
        "epoch": run.epoch,
        "must_succeed": True,
        "practice": False,
        "reading_changes": False,
        "moved_ids": 383,
        "moved": [
            {"losing": "unbj", "gaining": "center", "ids": 383, "ranges": [[5998, 6380]], "exact_ids": []}
        ],
    }


def test_a_hook_that_says_not_yet_is_asked_until_it_says_yes_under_the_same_id(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "before_activate")
    receiver.behaviours = [NOT_YET] * 4
    cutover = make_started(scene)
    play(scene, cutover, handed_over)
    assert len(receiver.received) == 5
    assert len({received.delivery for received in receiver.received}) == 1
    assert [received.payload["attempt"] for received in receiver.received] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("moment", ["before_freeze", "at_freeze", "before_activate"])
def test_a_hook_that_must_succeed_and_fails_before_ids_have_moved_undoes_the_cutover(
    scene: Scene, receiver: Receiver, handed_over: Work, moment: str
) -> None:
    make_hook(scene, receiver, moment, "database")
    receiver.lasting = NO
    cutover = make_started(scene)
    play(scene, cutover, handed_over, State.ABORTED)
    assert scene.ranges() == OLD_RANGES
    assert "undid itself: hook “database”" in cutover.outcome
    assert "answered 422: never heard of it" in cutover.outcome
    assert Alarm.objects.filter(kind="cutover_undone", cleared_at=None).exists()
    driving.look_at_everything()
    assert Alarm.objects.filter(kind="cutover_undone", cleared_at=None).exists()  # until the next start


def test_a_hook_that_may_fail_is_noted_and_the_cutover_goes_on(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    all_hooks(scene, receiver, must_succeed=False)
    receiver.lasting = NO
    cutover = make_started(scene)
    play(scene, cutover, handed_over)
    do(handed_over)
    assert {call["state"] for call in services.status(cutover)["hooks"]} == {"failed"}
    assert not Alarm.objects.filter(cleared_at=None).exists()
    said = [event["sentence"] for event in services.status(cutover)["events"] if event["kind"] == "hook"]
    assert said[0].startswith("Hook before_freeze (before FREEZE), which may fail, failed: answered 422")


def test_a_server_that_breaks_is_tried_again_until_its_deadline(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "before_activate", deadline_s=1)
    receiver.lasting = BROKEN
    cutover = make_started(scene)
    play(scene, cutover, handed_over, State.ABORTED)
    assert len(receiver.received) > 2
    assert "answered 500: oops" in cutover.outcome


def test_who_was_called_at_freeze_learns_that_the_cutover_was_undone(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze", "writes")
    make_hook(scene, receiver, "after_release", "switch")
    cutover = make_started(scene)
    play(scene, cutover, handed_over, State.FREEZE)
    do(handed_over)
    services.abort(cutover, "op", "changed my mind")
    play(scene, cutover, handed_over, State.ABORTED)
    bodies = [received.payload for received in receiver.received]
    assert [(body["hook"], body["moment"], body["outcome"]) for body in bodies] == [
        ("writes", "at_freeze", ""),
        ("switch", "after_release", "aborted"),
        ("writes", "after_release", "aborted"),
    ]
    assert bodies[0]["moved"] == bodies[1]["moved"] == bodies[2]["moved"]
    assert bodies[0]["epoch"] < bodies[1]["epoch"]


def test_who_was_called_in_vain_learns_of_the_abort_too_because_the_call_may_have_arrived(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze", "writes")
    receiver.lasting = by_moment(receiver, at_freeze=NO)
    cutover = make_started(scene)
    play(scene, cutover, handed_over, State.ABORTED)
    do(handed_over)
    assert told(receiver) == [("at_freeze", 1, "forward", ""), ("after_release", 1, "forward", "aborted")]


def test_who_was_not_called_yet_hears_nothing_of_an_abort(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze")
    cutover = make_started(scene)
    for _ in range(3):
        step(scene, cutover)
        if cutover.state == State.FREEZE:
            break
    services.abort(cutover, "op", "at once")  # before any worker has made the call
    play(scene, cutover, handed_over, State.ABORTED)
    do(handed_over)
    assert receiver.received == []
    assert run_of(cutover).state == Run.CANCELLED


def test_a_turn_around_calls_the_hooks_with_the_direction_back_and_undoes_nothing_when_they_fail(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze")
    make_hook(scene, receiver, "before_activate")
    make_hook(scene, receiver, "after_release")
    cutover = make_started(scene)
    play(scene, cutover, handed_over, State.ACTIVATE)
    receiver.lasting = NO
    services.turn_around(cutover, "op", "clients complain")
    for _ in range(3):
        do(handed_over)
        step(scene, cutover)
    run = run_of(cutover, "at_freeze")
    assert (cutover.state, run.state, run.stuck) == (State.FREEZE, Run.PENDING, True)
    (alarm,) = Alarm.objects.filter(kind="cutover_hook", cleared_at=None)
    assert "at_freeze (at FREEZE, batch 1): answered 422" in alarm.sentence
    services.skip_hook(cutover, "at_freeze", "olga", "writes are forbidden by hand")
    assert not Alarm.objects.filter(kind="cutover_hook", cleared_at=None).exists()
    receiver.lasting = by_moment(receiver)
    play(scene, cutover, handed_over, State.ABORTED)
    do(handed_over)
    assert cutover.figures["ending"] == "turned"
    back = [entry for entry in told(receiver) if entry[2] == "back"]
    assert set(back) == {
        ("at_freeze", 1, "back", ""),
        ("before_activate", 1, "back", ""),
        ("after_release", 1, "back", "moved"),
    }
    moved = receiver.received[-1].payload["moved"]
    assert [(group["losing"], group["gaining"]) for group in moved] == [("center", "unbj")]
    (audited,) = AuditEvent.objects.filter(action="cutover.skip_hook")
    assert (audited.actor, audited.reason) == ("olga", "writes are forbidden by hand")


def test_ids_that_a_hook_keeps_frozen_for_ten_seconds_raise_an_alarm_that_names_it(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "before_activate", "replication", deadline_s=600)
    receiver.lasting = NOT_YET
    cutover = make_started(scene)
    for _ in range(3):
        step(scene, cutover)
    assert cutover.state == State.FREEZE
    assert services.status(cutover)["hooks"][-1]["state"] == "pending"
    grow_old(cutover, 11)
    services.advance(cutover.pk)
    status = services.status(cutover)
    assert "for more than 10 s for the hook “replication”." in status["alarm"]
    assert status["hooks"][-1]["skip_means"].startswith(
        "ACTIVATE follows although this hook has not said yes"
    )


def test_a_skip_lets_the_cutover_go_on_and_wants_a_reason(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "before_freeze", "agree")
    cutover = make_started(scene)
    step(scene, cutover)
    with pytest.raises(Refused, match="Give a reason"):
        services.skip_hook(cutover, "agree", "olga", " ")
    with pytest.raises(Refused, match=r"Hook “other” is not waited for .*; “agree” is"):
        services.skip_hook(cutover, "other", "olga", "because")
    services.skip_hook(cutover, "agree", "olga", "the database is gone")
    assert state_of(cutover) == State.FREEZE
    play(scene, cutover, handed_over)
    assert receiver.received == []
    with pytest.raises(Refused, match="is not waited for"):
        services.skip_hook(cutover, "agree", "olga", "again")
    assert services.status(cutover)["hooks"][0]["sentence"] == "Skipped by olga: the database is gone"


def test_in_an_emergency_a_failing_hook_undoes_nothing(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze")
    receiver.lasting = NO
    cutover = make_started(scene)
    Cutover.objects.filter(pk=cutover.pk).update(mode=Cutover.Mode.EMERGENCY)
    for _ in range(4):
        do(handed_over)
        step(scene, cutover)
    assert (cutover.state, run_of(cutover).stuck) == (State.FREEZE, True)
    services.skip_hook(cutover, "at_freeze", "olga", "its database is gone with the unit")
    play(scene, cutover, handed_over)


def test_a_hook_that_had_failed_before_the_emergency_was_declared_undoes_nothing_either(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "at_freeze")
    receiver.lasting = NO
    cutover = make_started(scene)
    step(scene, cutover)
    do(handed_over)
    assert run_of(cutover).state == Run.FAILED  # no node has answered yet
    Cutover.objects.filter(pk=cutover.pk).update(mode=Cutover.Mode.EMERGENCY)
    step(scene, cutover)
    assert cutover.state == State.FREEZE
    services.skip_hook(cutover, "at_freeze", "olga", "its database is gone with the unit")
    play(scene, cutover, handed_over)


def test_a_failure_after_release_raises_an_alarm_and_keeps_the_next_start_back(
    scene: Scene, receiver: Receiver, handed_over: Work
) -> None:
    make_hook(scene, receiver, "after_release", "switch", deadline_s=1)
    receiver.lasting = NO
    cutover = make_started(scene)
    play(scene, cutover, handed_over)
    do(handed_over)
    assert Alarm.objects.filter(kind="cutover_hook", cleared_at=None).exists()
    assert services.status(cutover)["hooks"][-1]["stuck"]
    back = make_checked(scene, OLD_RANGES)
    with pytest.raises(Refused, match="Hook “switch” has not taken in yet how cutover"):
        services.start(back, "op", scene.namespace.name)
    services.skip_hook(cutover, "switch", "olga", "done by hand")
    services.start(back, "op", scene.namespace.name)
    assert not Alarm.objects.filter(kind="cutover_hook", cleared_at=None).exists()
