"""Emergency: the losing unit is gone; nothing undoes itself, and an operator speaks for the silent nodes."""

import io
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from cutover import checking, services
from cutover.errors import Refused
from cutover.management.commands import cutover as command
from cutover.models import Check, Cutover
from tests.cutover.builders import (
    NEW_RANGES,
    OLD_RANGES,
    Scene,
    grow_old,
    make_checked,
    make_draft,
    make_scene,
    make_started,
    take_to,
)
from units.models import Alarm, AuditEvent, EdgeNode

State, Mode = Cutover.State, Cutover.Mode
LOSING, GAINING = "unbj-1", "center-1"
FENCING = "powered off at the PDU"


def to_emergency(scene: Scene, cutover: Cutover) -> Cutover:
    return services.set_mode(cutover, Mode.EMERGENCY, "op", "the site is down", scene.namespace.name)


def lose(scene: Scene, *names: str) -> None:
    """The nodes are gone, and nobody told them anything."""
    for name in names:
        scene[name].disconnect()


def name_of(scene: Scene, name: str) -> str:
    return str(scene[name].row.name)


def declare(scene: Scene, cutover: Cutover, **changed: str) -> tuple[str, ...]:
    said = {"actor": "op", "typed": "unbj", "reason": "the site is down.", "fencing": FENCING, **changed}
    return services.declare_unit_dead(cutover, "unbj", **said)


def lost_unit(per_unit: int = 1) -> tuple[Scene, Cutover]:
    """A running emergency whose losing unit was lost before its first step."""
    scene = make_scene(per_unit=per_unit)
    cutover = to_emergency(scene, make_checked(scene))
    lose(scene, *(name for name in scene.nodes if name.startswith("unbj")))
    services.start(cutover, "op", scene.namespace.name)
    services.advance(cutover.pk)
    for name in scene.nodes:
        if name.startswith("center"):
            scene[name].ack()
    services.advance(cutover.pk)
    cutover.refresh_from_db()
    return scene, cutover


# -- the mode ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.PREPARE, State.FREEZE])
def test_in_an_emergency_an_overdue_gate_raises_the_alarm_and_undoes_nothing(
    scene: Scene, state: str
) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, state)
    to_emergency(scene, cutover)
    lose(scene, LOSING)
    grow_old(cutover, 3600)
    assert services.advance(cutover.pk) == state
    alarm = Alarm.objects.get(namespace=scene.namespace, cleared_at=None)
    assert name_of(scene, LOSING) in alarm.sentence
    assert "fence these nodes and declare them dead" in alarm.sentence


def test_a_cutover_that_is_planned_again_undoes_itself_at_once_when_it_is_overdue(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    to_emergency(scene, cutover)
    grow_old(cutover, 60)
    assert services.advance(cutover.pk) == State.FREEZE
    services.set_mode(cutover, Mode.PLANNED, "op", "it is back", scene.namespace.name)
    assert cutover.state == State.ABORTING
    assert scene.ranges() == OLD_RANGES


def test_switching_the_mode_is_kept_with_its_reason(scene: Scene) -> None:
    cutover = to_emergency(scene, make_draft(scene))
    assert (cutover.mode, cutover.state) == (Mode.EMERGENCY, State.DRAFT)
    event = AuditEvent.objects.get(action="cutover.set_mode")
    assert (event.actor, event.reason, event.after) == ("op", "the site is down", {"mode": "emergency"})
    said = services.status(cutover)["events"][-1]["sentence"]
    assert said == "Mode set to “emergency” by op: the site is down"


@pytest.mark.parametrize(
    ("mode", "reason", "typed", "words"),
    [
        ("emergency", " ", "NAME", "Give a reason"),
        ("emergency", "x", "prod", "Type the name of the namespace"),
        ("panic", "x", "NAME", "There is no mode"),
        ("planned", "x", "NAME", "already"),
    ],
)
def test_a_mode_that_was_not_meant_is_refused(
    scene: Scene, mode: str, reason: str, typed: str, words: str
) -> None:
    cutover = make_draft(scene)
    with pytest.raises(Refused, match=words):
        services.set_mode(cutover, mode, "op", reason, typed.replace("NAME", scene.namespace.name))
    assert not AuditEvent.objects.filter(action="cutover.set_mode").exists()


def test_a_cutover_that_has_ended_has_no_mode_any_more(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.DONE)
    with pytest.raises(Refused, match="no mode any more"):
        to_emergency(scene, cutover)


@pytest.mark.parametrize("emergency", [False, True])
def test_the_command_that_goes_on_with_a_cutover_makes_it_an_emergency_if_told_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, emergency: bool
) -> None:
    cutover = make_started(scene)
    monkeypatch.setattr(command.Command, "_drive", lambda _, row, *__: take_to(scene, row, State.DONE))
    monkeypatch.setattr(command, "SETTLES_S", 0.0)
    monkeypatch.setattr("cutover.watch.tell_alarms", lambda: None)  # it starts a thread
    words = ["--emergency", "--reason", "fire", "--i-have-fenced", FENCING] if emergency else []
    call_command(
        "cutover", "-n", scene.namespace.name, "--number", "1", "--yes", *words, stdout=io.StringIO()
    )
    assert Cutover.objects.get(pk=cutover.pk).emergency is emergency


def test_the_command_says_what_to_do_where_nobody_can_be_asked(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    said = io.StringIO()
    words = ["-n", scene.namespace.name, "--ranges", "center=0~6380,unbj=6381~9999"]
    with pytest.raises(CommandError, match="Nothing was changed; draft #1 is kept"):
        call_command("cutover", *words, stdout=io.StringIO(), stderr=said)
    assert "pass --yes" in said.getvalue()


# -- declaring a unit dead -----------------------------------------------------------------------------------


def test_one_act_declares_the_silent_nodes_of_the_losing_unit_dead_and_the_cutover_goes_on(db: None) -> None:
    scene, cutover = lost_unit(per_unit=2)
    assert cutover.state == State.PREPARE
    told = declare(scene, cutover)
    assert told == (name_of(scene, "unbj-1"), name_of(scene, "unbj-2"))
    assert cutover.state == State.ACTIVATE  # nobody is left to drain
    take_to(scene, cutover, State.DONE)
    assert scene.ranges() == NEW_RANGES
    rows = EdgeNode.objects.filter(state=EdgeNode.State.DEAD)
    assert {row.declared_dead_by for row in rows} == {"op"}
    assert all(FENCING in row.declared_dead_reason for row in rows)
    assert AuditEvent.objects.filter(action="node.declare_dead", actor="op").count() == 2
    event = AuditEvent.objects.get(action="cutover.declare_unit_dead")
    assert event.after is not None
    assert event.after["nodes"] == list(told)


def test_a_node_that_can_be_heard_is_left_out_and_drains(db: None) -> None:
    scene = make_scene(per_unit=2)
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    to_emergency(scene, cutover)
    lose(scene, "unbj-2")
    assert declare(scene, cutover) == (name_of(scene, "unbj-2"),)
    assert scene["unbj-1"].row.enrolled
    assert cutover.state == State.FREEZE
    scene.all_ack()
    assert services.advance(cutover.pk) == State.FREEZE
    scene["unbj-1"].drained()
    assert services.advance(cutover.pk) == State.ACTIVATE


def test_a_node_that_is_connected_but_silent_counts_as_silent(scene: Scene) -> None:
    cutover = to_emergency(scene, make_started(scene))
    EdgeNode.objects.filter(pk=scene[LOSING].pk).update(status_at=timezone.now() - timedelta(seconds=6))
    assert declare(scene, cutover) == (name_of(scene, LOSING),)


def test_only_nodes_that_the_operator_has_seen_listed_are_declared(db: None) -> None:
    scene, cutover = lost_unit(per_unit=2)
    seen = [name_of(scene, "unbj-1")]
    told = services.declare_unit_dead(
        cutover, "unbj", actor="op", typed="unbj", reason="down", fencing=FENCING, names=seen
    )
    assert told == (seen[0],)
    assert scene["unbj-2"].row.enrolled


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"typed": "center"}, "Type the code of the unit, unbj"),
        ({"reason": " "}, "Give a reason"),
        ({"fencing": ""}, "Say how these nodes were fenced"),
    ],
)
def test_a_unit_is_not_declared_dead_by_mistake(db: None, changed: dict[str, str], words: str) -> None:
    scene, cutover = lost_unit()
    with pytest.raises(Refused, match=words):
        declare(scene, cutover, **changed)
    assert scene[LOSING].row.enrolled


def test_nothing_is_declared_dead_in_a_planned_cutover_or_when_all_can_be_heard(scene: Scene) -> None:
    cutover = make_started(scene)
    with pytest.raises(Refused, match="Switch it to emergency first"):
        declare(scene, cutover)
    to_emergency(scene, cutover)
    with pytest.raises(Refused, match="is connected and will drain"):
        declare(scene, cutover)
    with pytest.raises(Refused, match="gives no ids away"):
        services.declare_unit_dead(cutover, "center", actor="op", typed="center", reason="x", fencing="y")


def test_who_can_be_heard_is_said_before_anything_is_declared(db: None) -> None:
    scene, cutover = lost_unit()
    status = services.status(cutover)
    assert status["mode"] == "emergency"
    assert status["losing"] == [{"unit": "unbj", "silent": [name_of(scene, LOSING)], "live": []}]
    assert status["actions"]["declare_dead"]
    assert name_of(scene, LOSING) in status["consequences"]["declare_dead"]
    assert "undoes itself" in status["consequences"]["planned"]


# -- prechecks -----------------------------------------------------------------------------------------------


def nodes_check(cutover: Cutover) -> Check:
    services.run_prechecks(cutover, "op")
    checking.run(cutover.pk, ["nodes"])
    return Check.objects.get(cutover=cutover, key="nodes")


def test_the_checks_of_an_emergency_pass_with_a_warning_where_only_the_losing_unit_is_gone(
    scene: Scene,
) -> None:
    cutover = make_draft(scene)
    services.preview(cutover, "op")
    lose(scene, LOSING)
    assert nodes_check(cutover).state == Check.State.FAILED
    to_emergency(scene, cutover)
    check = nodes_check(cutover)
    assert (check.state, check.amber) == (Check.State.PASSED, True)
    assert f"{name_of(scene, LOSING)} of the losing units cannot be heard" in check.reason
    assert services.status(cutover)["checks"][4]["amber"]


def test_the_checks_of_an_emergency_fail_where_a_gaining_node_is_gone(db: None) -> None:
    scene = make_scene(per_unit=2)
    cutover = make_draft(scene)
    services.preview(cutover, "op")
    to_emergency(scene, cutover)
    lose(scene, GAINING, LOSING)
    check = nodes_check(cutover)
    assert check.state == Check.State.FAILED
    assert name_of(scene, GAINING) in check.reason
    assert name_of(scene, LOSING) not in check.reason
