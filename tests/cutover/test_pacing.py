"""Batches, bakes and gates against the real rows: what holds the next batch, and what a failing gate does."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from cutover import alarms, services
from cutover.errors import InvalidChange, Refused
from cutover.models import Cutover, CutoverEvent, ProgressSample
from cutover.pacing import planning
from msha.steering import wire
from tests.cutover.builders import (
    NEW_RANGES,
    OLD_RANGES,
    Scene,
    make_checked,
    make_draft,
    pass_checks,
    step,
    take_to,
)
from units.models import Alarm, AuditEvent, EdgeNode

State = Cutover.State
LOSING, GAINING = "unbj-1", "center-1"
STEPS = {"steps": [1, 10, 50]}


def paced(scene: Scene, pacing: dict[str, Any]) -> Cutover:
    """A cutover that has published PREPARE, divided as asked."""
    cutover = make_checked(scene)
    services.set_pacing(cutover, pacing, "op")
    services.start(cutover, "op", scene.namespace.name)
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def take_to_batch(scene: Scene, cutover: Cutover, batch: int, state: str) -> None:
    for _ in range(20 * (batch + 1)):
        cutover.refresh_from_db()
        if (cutover.batch, cutover.state) == (batch, state):
            return
        step(scene, cutover)
    raise AssertionError(f"{cutover} is {cutover.state} in batch {cutover.batch}")


def sizes(cutover: Cutover) -> list[int]:
    return [sum(row[1] - row[0] + 1 for row in rows) for rows in cutover.plan["batches"]]


def report(
    scene: Scene, cutover: Cutover, name: str, counters: dict[str, int] | None = None, **progress: int
) -> None:
    """The node says what it has counted, and how many sessions it has closed or taken back."""
    said = {"cutover": wire.progress_key(str(cutover.pk)), "epoch": scene[name].newest().epoch, **progress}
    scene[name].status(counters=counters or {}, progress=said)


def closed_long_ago(cutover: Cutover) -> None:
    """What the curve shows happened a minute ago; so did the bake's beginning."""
    past = timezone.now() - timedelta(minutes=1)
    ProgressSample.objects.filter(cutover=cutover).update(at=past)
    Cutover.objects.filter(pk=cutover.pk).update(baking_since=past)


def released(scene: Scene, pacing: dict[str, Any], *, closed: int = 0) -> Cutover:
    """A cutover whose first batch has moved and whose second is held; its first closed so many sessions."""
    cutover = paced(scene, pacing)
    take_to_batch(scene, cutover, 0, State.FREEZE)
    take_to_batch(scene, cutover, 0, State.RELEASE)
    report(scene, cutover, LOSING, closed=closed)
    scene.all_ack()
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    return cutover


# -- batches -------------------------------------------------------------------------------------------------


def test_a_cutover_moves_in_the_steps_that_were_asked_for(scene: Scene) -> None:
    cutover = paced(scene, {**STEPS, "gate": {"reconnect": None}})
    assert sizes(cutover) == [4, 35, 153, 191]
    take_to_batch(scene, cutover, 1, State.FREEZE)
    assert scene.ranges() == {"center": ["0~6001"], "unbj": ["6002~9999"]}
    assert scene.rule()["cutover"]["moved"] == [[6002, 6036, "unbj", "center"]]
    take_to(scene, cutover, State.DONE)
    assert scene.ranges() == NEW_RANGES
    assert len(cutover.figures["freezes"]) == 4


def test_a_cutover_without_pacing_moves_at_once(scene: Scene) -> None:
    cutover = paced(scene, {})
    assert sizes(cutover) == [383]
    assert cutover.plan["pace"] == {}


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"steps": [10, 1]}, "pacing.steps"),
        ({"steps": [0, 10]}, "pacing.steps"),
        ({"steps": [10, 101]}, "pacing.steps"),
        ({"steps": "1,10"}, "pacing.steps"),
        ({"steps": [True]}, "pacing.steps"),
        ({"steps": list(range(1, 30))}, "pacing.steps"),
        ({"steps": [10], "ids": 5}, "pacing.steps"),
        ({"ids": 1.5}, "pacing.ids"),
        ({"bake_s": -1}, "pacing.bake_s"),
        ({"gate": {"reconnect": 90}}, "pacing.gate.reconnect"),
        ({"gate": {"reconect": 0.9}}, "pacing.gate"),
        ({"gate": [1]}, "pacing.gate"),
        ({"gate": {"stragglers": 0.5}}, "pacing.gate.stragglers"),
        ({"on_failure": "explode"}, "pacing.on_failure"),
        ({"sessions_per_s": "many"}, "pacing.sessions_per_s"),
        ({"interval_s": 0.01}, "pacing.interval_s"),
        ({"speed": 1}, "pacing"),
    ],
)
def test_a_pacing_that_cannot_be_is_refused_with_its_place(
    scene: Scene, asked: dict[str, Any], place: str
) -> None:
    cutover = make_draft(scene)
    with pytest.raises(InvalidChange) as refusal:
        services.set_pacing(cutover, asked, "op")
    assert refusal.value.place == place
    cutover.refresh_from_db()
    assert cutover.pacing == {}


def test_a_change_of_how_ids_are_read_cannot_be_divided(scene: Scene) -> None:
    sources = [{"header": "x-user"}]
    cutover = services.create_draft(scene.namespace, "unit_type", entry={"sources": sources}, actor="op")
    with pytest.raises(InvalidChange, match="every id moves at once"):
        services.set_pacing(cutover, STEPS, "op")
    services.set_pacing(cutover, {"bake_s": 5}, "op")


def test_a_rule_that_came_to_read_ids_differently_is_not_started_in_steps(scene: Scene) -> None:
    cutover = make_draft(scene)
    services.set_pacing(cutover, STEPS, "op")
    services.update_draft(cutover, entry={"sources": [{"header": "x-user"}]}, actor="op")
    services.preview(cutover, "op")
    pass_checks(cutover)
    with pytest.raises(InvalidChange, match="cannot be divided"):
        services.start(cutover, "op", scene.namespace.name)


def test_the_pacing_of_a_running_cutover_stays_as_it_is(scene: Scene) -> None:
    cutover = paced(scene, STEPS)
    with pytest.raises(Refused, match="cannot be adjusted any more"):
        services.set_pacing(cutover, {}, "op")


def test_who_set_which_pacing_is_kept(scene: Scene) -> None:
    cutover = make_draft(scene)
    services.set_pacing(cutover, STEPS, "olga")
    event = AuditEvent.objects.get(action="cutover.set_pacing")
    assert event.after is not None
    assert (event.actor, event.after["pacing"]["steps"]) == ("olga", [1, 10, 50])
    sentence = services.status(cutover)["events"][-1]["sentence"]
    assert sentence == "Pacing set by olga: 1 %, 10 %, 50 %, then the rest; paused if a gate fails"


# -- bake ----------------------------------------------------------------------------------------------------


def test_the_next_batch_waits_for_the_bake(scene: Scene) -> None:
    cutover = released(scene, {**STEPS, "bake_s": 30})
    assert (cutover.state, cutover.batch, cutover.hold["kind"]) == (State.RELEASE, 0, "baking")
    assert cutover.baking_since is not None
    assert "batch 2 begins" in services.status(cutover)["held"]
    events = CutoverEvent.objects.filter(cutover=cutover, kind="held").count()
    assert services.advance(cutover.pk) == State.RELEASE
    assert CutoverEvent.objects.filter(cutover=cutover, kind="held").count() == events == 1
    closed_long_ago(cutover)
    assert services.advance(cutover.pk) == State.FREEZE
    cutover.refresh_from_db()
    assert (cutover.batch, cutover.hold, cutover.baking_since) == (1, {}, None)


def test_without_a_bake_clients_still_have_their_retry_time(scene: Scene) -> None:
    assert released(scene, STEPS, closed=3).hold["kind"] == "baking"


def test_without_a_bake_and_without_clients_the_next_batch_begins(scene: Scene) -> None:
    assert (released(scene, STEPS).batch) == 1


# -- gate ----------------------------------------------------------------------------------------------------


def baked(scene: Scene, pacing: dict[str, Any], *, back: int, closed: int = 10) -> Cutover:
    """The first batch closed ten sessions a minute ago, of which so many have come back."""
    cutover = released(scene, pacing, closed=closed)
    report(scene, cutover, GAINING, reconnected=back)
    services.advance(cutover.pk)
    closed_long_ago(cutover)
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def test_a_gate_that_is_kept_lets_the_next_batch_begin(scene: Scene) -> None:
    cutover = baked(scene, {**STEPS, "gate": {"reconnect": 0.9}}, back=9)
    assert (cutover.state, cutover.batch) == (State.FREEZE, 1)


def test_clients_that_stay_away_pause_the_cutover_with_the_figures(scene: Scene) -> None:
    cutover = baked(scene, {**STEPS, "gate": {"reconnect": 0.9}}, back=3)
    assert (cutover.state, cutover.batch, cutover.paused, cutover.paused_by) == (State.RELEASE, 0, True, "")
    words = "3 of 10 closed sessions have come back (at least 90 % are asked for)"
    assert words in services.status(cutover)["held"]
    alarm = Alarm.objects.get(namespace=scene.namespace, cleared_at=None)
    assert words in alarm.sentence
    assert "resume it, stop it here or roll it back" in services.status(cutover)["alarm"]
    assert words in AuditEvent.objects.get(action="cutover.pause").reason
    assert services.advance(cutover.pk) == State.RELEASE
    assert words in services.status(cutover)["held"]


def test_an_operator_who_resumes_goes_on_past_the_gate_once(scene: Scene) -> None:
    cutover = baked(scene, {**STEPS, "gate": {"reconnect": 0.9}}, back=3)
    services.resume(cutover, "op", "these clients are known to be slow")
    assert (cutover.state, cutover.batch) == (State.FREEZE, 1)
    assert not Alarm.objects.filter(namespace=scene.namespace, cleared_at=None).exists()
    report(scene, cutover, LOSING, closed=20)
    scene.all_ack()
    scene[LOSING].drained()
    services.advance(cutover.pk)
    take_to_batch(scene, cutover, 1, State.RELEASE)
    scene.all_ack()
    services.advance(cutover.pk)
    closed_long_ago(cutover)
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    assert (cutover.batch, cutover.paused, cutover.hold["kind"]) == (1, True, "health")


def test_a_failing_gate_may_undo_everything_by_itself(scene: Scene) -> None:
    cutover = baked(scene, {**STEPS, "gate": {"stragglers": 2}, "on_failure": "undo"}, back=7)
    assert (cutover.state, cutover.turned, cutover.unwinding) == (State.FREEZE, True, True)
    take_to(scene, cutover, State.ABORTED)
    assert scene.ranges() == OLD_RANGES
    assert "undid itself" in cutover.outcome
    assert "3 of 10 closed sessions have not come back (at most 2 may stay away)" in cutover.outcome
    alarm = Alarm.objects.get(namespace=scene.namespace, cleared_at=None)
    assert alarm.kind == "cutover_undone"
    alarms.settle_undone()
    assert Alarm.objects.filter(pk=alarm.pk, cleared_at=None).exists()
    assert AuditEvent.objects.filter(action="cutover.roll_back", actor=f"cutover {cutover}").count() == 1


def test_a_gate_that_fails_in_a_later_batch_takes_the_earlier_ones_back_too(scene: Scene) -> None:
    gate = {"reconnect": None, "back_source": 0.1}
    cutover = paced(scene, {"steps": [25, 50, 75], "gate": gate, "on_failure": "undo"})
    take_to_batch(scene, cutover, 1, State.RELEASE)
    failed = {"handshakes": 40, "decision_tunnel": 10, "reason_back_source_failed": 30, "decision_refuse": 30}
    report(scene, cutover, GAINING, failed)
    scene.all_ack()
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    assert (cutover.batch, cutover.turned, cutover.unwinding) == (1, True, True)
    take_to(scene, cutover, State.ABORTED)
    assert cutover.batch == 0
    assert scene.ranges() == OLD_RANGES
    assert "30 of 40 handshakes" in cutover.outcome


@pytest.mark.parametrize(
    ("counters", "words"),
    [
        ({"handshakes": 100, "decision_refuse": 20}, "refused 20 of 100 handshakes"),
        ({"handshakes": 1000, "decision_http": 900, "decision_refuse": 20}, "refused 20 of 100 handshakes"),
        ({"handshakes": 9, "decision_tunnel": 9, "reason_back_source_answer": 2}, "answered 2 of 9"),
    ],
)
def test_refusals_and_failing_back_sources_are_seen_at_once(
    scene: Scene, counters: dict[str, int], words: str
) -> None:
    cutover = released(scene, {**STEPS, "bake_s": 600})
    report(scene, cutover, GAINING, counters)
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    assert cutover.paused
    assert words in services.status(cutover)["held"]


def refused_before(scene: Scene) -> Cutover:
    """A cutover whose gaining node had refused 900 of 1000 handshakes when its first batch was frozen."""
    cutover = paced(scene, {**STEPS, "bake_s": 600})
    scene[GAINING].status(counters={"handshakes": 1000, "decision_refuse": 900})
    scene.all_ack()
    assert services.advance(cutover.pk) == State.FREEZE
    take_to_batch(scene, cutover, 0, State.RELEASE)
    scene.all_ack()
    return cutover


def test_what_was_refused_before_the_stage_is_not_counted(scene: Scene) -> None:
    cutover = refused_before(scene)
    report(scene, cutover, GAINING, {"handshakes": 1100, "decision_refuse": 901})
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    assert cutover.hold["kind"] == "baking"


def test_a_node_that_started_again_is_counted_from_zero(scene: Scene) -> None:
    cutover = refused_before(scene)
    report(scene, cutover, GAINING, {"handshakes": 10, "decision_refuse": 5})
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    assert cutover.paused


def test_no_batch_begins_while_no_gaining_node_is_connected(scene: Scene) -> None:
    cutover = released(scene, {**STEPS, "bake_s": 600, "gate": {"reconnect": None}})
    scene[GAINING].disconnect()
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    assert cutover.paused
    assert "no edge node of center is connected" in services.status(cutover)["held"]


def test_a_pause_keeps_the_next_batch_back_and_the_present_one_runs_to_its_end(scene: Scene) -> None:
    cutover = paced(scene, {**STEPS, "gate": {"reconnect": None}})
    take_to_batch(scene, cutover, 0, State.FREEZE)
    services.pause(cutover, "op", "lunch")
    take_to_batch(scene, cutover, 0, State.RELEASE)
    for _ in range(3):
        step(scene, cutover)
    assert (cutover.batch, cutover.state, cutover.hold["kind"]) == (0, State.RELEASE, "paused")
    assert services.status(cutover)["held"] == "Paused by op: lunch"
    services.resume(cutover, "op", "back")
    assert (cutover.batch, cutover.state) == (1, State.FREEZE)


def test_a_cutover_may_be_stopped_between_two_batches(scene: Scene) -> None:
    cutover = released(scene, {**STEPS, "bake_s": 600})
    services.stop_here(cutover, "op", "enough for today")
    assert (cutover.state, cutover.figures["ending"]) == (State.DONE, "stopped")
    assert "after batch 1 of 4" in cutover.outcome
    assert scene.ranges() == {"center": ["0~6001"], "unbj": ["6002~9999"]}
    back = services.rollback(cutover, "op")
    assert back.moved == [[5998, 6001, "center", "unbj"]]


def test_what_an_undone_cutover_has_moved_before_can_be_rolled_back(scene: Scene, client: Client) -> None:
    cutover = released(scene, {**STEPS, "gate": {"reconnect": None}})
    assert not services.status(cutover)["actions"]["rollback"]
    take_to_batch(scene, cutover, 1, State.FREEZE)
    services.abort(cutover, "op", "too much")
    take_to(scene, cutover, State.ABORTED)
    assert services.status(cutover)["actions"]["rollback"]
    client.force_login(User.objects.create_superuser("root"))
    assert "the 4 ids go back" in client.get(f"/cutover/{cutover.pk}/report/").content.decode()
    back = services.rollback(cutover, "op")
    assert back.moved == [[5998, 6001, "center", "unbj"]]


def test_a_running_cutover_is_rolled_back_batch_by_batch(scene: Scene) -> None:
    cutover = released(scene, {**STEPS, "gate": {"reconnect": None}})
    take_to_batch(scene, cutover, 2, State.FREEZE)
    services.roll_back(cutover, "op", "wrong day")
    take_to(scene, cutover, State.ABORTED)
    assert scene.ranges() == OLD_RANGES
    assert [(freeze["batch"], freeze["turns"]) for freeze in cutover.figures["freezes"]] == [
        (0, 0),
        (1, 0),
        (2, 0),
        (1, 1),
        (0, 1),
    ]


def test_a_roll_back_is_not_finished_while_earlier_batches_are_still_to_go_back(scene: Scene) -> None:
    cutover = released(scene, {**STEPS, "gate": {"reconnect": None}})
    take_to_batch(scene, cutover, 1, State.FREEZE)
    services.roll_back(cutover, "op", "wrong day")
    assert cutover.state == State.ABORTING
    with pytest.raises(Refused, match="Earlier batches are still to go back"):
        services.finish_with_stragglers(cutover, "op", "no time")


# -- drain pacing --------------------------------------------------------------------------------------------


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Nodes answer at once: one session per id, and so many handshakes per second; None for no answer."""
    says: dict[str, Any] = {"accepts_per_s": 1000, "sessions": 1}

    class Asked:
        def __init__(self, questions: list[Any]) -> None:
            self.questions = questions

        def answers(self) -> list[dict[str, Any] | None]:
            return [self._answer(question) for question in self.questions]

        def _answer(self, question: Any) -> dict[str, Any] | None:
            if question.kind == "accepts":
                rate = says["accepts_per_s"]
                return None if rate is None else {"ok": True, "accepts_per_s": rate}
            if says["sessions"] is None:
                return None
            ranges = question.params["ranges"]
            return {"ok": True, "counts": [says["sessions"] * (last - first + 1) for first, last in ranges]}

    monkeypatch.setattr(planning.probing, "ask", lambda questions, deadline_s=None: Asked(questions))
    return says


def test_a_paced_drain_closes_no_more_sessions_than_its_rate(scene: Scene, answering: dict[str, Any]) -> None:
    cutover = paced(scene, {"sessions_per_s": 50, "interval_s": 2})
    assert sizes(cutover) == [100, 100, 100, 83]
    assert cutover.plan["pace"]["closes"][0] == {"unbj": 100}
    take_to_batch(scene, cutover, 0, State.RELEASE)
    step(scene, cutover)
    assert (cutover.batch, cutover.hold["kind"]) == (0, "pace")
    long_ago = (timezone.now() - timedelta(seconds=2)).isoformat()
    cutover.figures["batch_began"]["at"] = long_ago
    Cutover.objects.filter(pk=cutover.pk).update(figures=cutover.figures)
    step(scene, cutover)
    assert (cutover.batch, cutover.state) == (1, State.FREEZE)


def test_a_drain_is_never_faster_than_the_gaining_unit_accepts(
    scene: Scene, answering: dict[str, Any]
) -> None:
    answering["accepts_per_s"] = 20
    cutover = paced(scene, {"sessions_per_s": 500, "interval_s": 2})
    assert max(sizes(cutover)) == 40
    assert cutover.plan["pace"]["accepts"] == {"center": 20}


@pytest.mark.parametrize("accepts", [{}, {"center": 1000}])
def test_a_drain_that_closed_more_than_was_counted_rests_longer(
    scene: Scene, answering: dict[str, Any], accepts: dict[str, float]
) -> None:
    cutover = paced(scene, {"sessions_per_s": 50, "interval_s": 2})
    cutover.plan["pace"]["accepts"] = accepts
    Cutover.objects.filter(pk=cutover.pk).update(plan=cutover.plan)
    take_to_batch(scene, cutover, 0, State.RELEASE)
    report(scene, cutover, LOSING, closed=300)
    services.advance(cutover.pk)
    step(scene, cutover)
    began = datetime.fromisoformat(cutover.figures["batch_began"]["at"])
    assert datetime.fromisoformat(cutover.hold["until"]) - began == timedelta(seconds=6)


def test_steps_and_a_rate_go_together(scene: Scene, answering: dict[str, Any]) -> None:
    cutover = paced(scene, {"steps": [50], "sessions_per_s": 50, "interval_s": 2})
    assert cutover.plan["pace"]["stages"] == [0, 0, 1, 1]
    assert sizes(cutover) == [100, 92, 100, 91]


@pytest.mark.parametrize(
    ("missing", "words"),
    [("sessions", "did not count its sessions"), ("accepts_per_s", "could measure how many handshakes")],
)
def test_what_nodes_cannot_say_refuses_a_paced_start(
    scene: Scene, answering: dict[str, Any], missing: str, words: str
) -> None:
    answering[missing] = None
    with pytest.raises(Refused, match=words):
        paced(scene, {"sessions_per_s": 50})


def test_in_an_emergency_what_the_lost_node_said_last_is_spread(
    scene: Scene, answering: dict[str, Any]
) -> None:
    answering.update(sessions=None, accepts_per_s=None)
    EdgeNode.objects.filter(pk=scene[LOSING].pk).update(sessions=4002)
    cutover = make_checked(scene)
    Cutover.objects.filter(pk=cutover.pk).update(mode=Cutover.Mode.EMERGENCY)
    cutover.refresh_from_db()
    services.set_pacing(cutover, {"sessions_per_s": 50, "interval_s": 2}, "op")
    services.start(cutover, "op", scene.namespace.name)
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    assert sizes(cutover) == [100, 100, 100, 83]


def test_what_remains_counts_the_batches_to_come(scene: Scene) -> None:
    cutover = make_checked(scene)
    Cutover.objects.filter(pk=cutover.pk).update(impact={"pairs": [["unbj", "center", 40]]})
    cutover.refresh_from_db()
    services.set_pacing(cutover, {"steps": [50], "bake_s": 600}, "op")
    services.start(cutover, "op", scene.namespace.name)
    services.advance(cutover.pk)
    take_to_batch(scene, cutover, 0, State.RELEASE)
    report(scene, cutover, LOSING, closed=19)
    services.advance(cutover.pk)
    status = services.status(cutover)
    assert (status["sessions_closed"], status["sessions_remaining"]) == (19, 21)
    scene.all_ack()
    services.advance(cutover.pk)
    services.stop_here(cutover, "op", "enough")
    status = services.status(cutover)
    assert (status["sessions_remaining"], status["hold"], status["paused"]) == (0, {}, False)
