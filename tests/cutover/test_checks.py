"""The prechecks: each looks at the thing itself, and says what it saw."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from cutover import checking, prechecks, previews, services
from cutover.errors import Refused
from cutover.models import Check, Cutover
from cutover.prechecks import PRECHECKS
from msha.demo.ports import free_ports
from tests.cutover.builders import NEW_RANGES, Scene, make_checked, make_draft, make_scene, make_started
from tests.support.answering import answering, well
from tests.units.builders import a_config, publish_config
from units import probing, publishing
from units.models import AuditEvent, EdgeNode, Namespace, Probe

pytestmark = pytest.mark.django_db(transaction=True)

State = Check.State
KEYS = [check.key for check in PRECHECKS]


@pytest.fixture(autouse=True)
def _time_to_answer(monkeypatch: pytest.MonkeyPatch, _nodes_do_not_answer_for_long: None) -> None:
    monkeypatch.setattr(previews, "COUNT_DEADLINE_S", 2.0)
    monkeypatch.setattr(probing, "DEADLINE_S", 2.0)


@pytest.fixture
def scene() -> Scene:
    return make_scene()


def checked(
    scene: Scene, answer: Callable[[Probe], Mapping[str, Any] | None] = well, **asked: Any
) -> Cutover:
    """A cutover whose checks have all been run."""
    cutover = services.create_draft(
        scene.namespace, "unit_type", actor="op", **(asked or {"ranges": NEW_RANGES})
    )
    with answering(answer):
        services.preview(cutover, "op")
        services.run_prechecks(cutover, "op")
        checking.run(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def verdict(cutover: Cutover, key: str) -> tuple[str, str]:
    check = Check.objects.get(cutover=cutover, key=key)
    return check.state, check.reason


def test_all_checks_of_a_healthy_fleet_pass_and_say_what_they_saw(scene: Scene) -> None:
    cutover = checked(scene)
    assert [(check.key, check.state) for check in cutover.checks.all()] == [(key, "passed") for key in KEYS]
    assert cutover.state == Cutover.State.CHECKED
    assert verdict(cutover, "nodes")[1] == "2 edge nodes are connected and obey version 1."
    assert verdict(cutover, "back_sources")[1] == "2 back-source servers answered a WebSocket handshake."
    assert verdict(cutover, "handshakes")[1].startswith("4 trial handshakes")
    assert "round trip" not in verdict(cutover, "round_trip")[1]


def test_questions_of_all_checks_go_out_together(scene: Scene) -> None:
    began = timezone.now()
    checked(scene, lambda probe: well(probe) if probe.kind == "count" else None)
    assert timezone.now() - began < timedelta(seconds=3.5)  # one deadline of 2 s, not one per check


def test_a_node_that_is_not_connected_is_named(scene: Scene) -> None:
    scene["center-1"].disconnect()
    state, reason = verdict(checked(scene), "nodes")
    assert state == State.FAILED
    assert f"{scene['center-1'].row.name} is not connected" in reason
    assert "cluster ws-center of center has no live node" in reason


def test_a_node_that_is_behind_is_named_with_both_versions(scene: Scene) -> None:
    publish_config(scene.namespace)
    scene["center-1"].ack()
    assert f"{scene['unbj-1'].row.name} obeys version 1 instead of 2" in verdict(checked(scene), "nodes")[1]


def test_a_refusal_is_shown_with_its_reason(scene: Scene) -> None:
    EdgeNode.objects.filter(pk=scene["unbj-1"].pk).update(nack_version=2, nack_reason="digest differs")
    assert "refused version 2 (digest differs)" in verdict(checked(scene), "nodes")[1]


@pytest.mark.parametrize(
    ("fields", "words"), [({"parked": True}, "is parked"), ({"draining": True}, "is draining")]
)
def test_a_node_that_does_not_serve_is_named(scene: Scene, fields: dict[str, bool], words: str) -> None:
    scene["unbj-1"].status(**fields)
    assert words in verdict(checked(scene), "nodes")[1]


def test_a_node_that_drains_is_no_fault_while_another_one_of_its_cluster_listens() -> None:
    scene = make_scene(per_unit=2)
    scene["unbj-1"].status(draining=True, listening=False)
    assert verdict(checked(scene), "nodes")[0] == State.PASSED
    scene["unbj-2"].status(listening=False)
    assert f"{scene['unbj-1'].row.name} is draining" in verdict(checked(scene), "nodes")[1]


def test_a_node_that_does_not_answer_on_its_control_stream_is_named(scene: Scene) -> None:
    silent = scene["unbj-1"].pk
    cutover = checked(scene, lambda probe: None if probe.node_id == silent else well(probe))
    assert verdict(cutover, "round_trip") == (
        State.FAILED,
        f"No answer on the control stream of {scene['unbj-1'].row.name}.",
    )


def test_back_sources_that_were_not_tried_make_the_check_amber(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prechecks, "BACK_SOURCE_PROBES_LIMIT", 1)
    check = Check.objects.get(cutover=checked(scene), key="back_sources")
    assert (check.state, check.amber) == (State.PASSED, True)
    assert "1 ways from a node to a server were tried, 1 were not." in check.reason


def test_a_back_source_that_refuses_is_named_with_the_node_that_tried(scene: Scene) -> None:
    def answer(probe: Probe) -> Mapping[str, Any]:
        if probe.params.get("server") == "10.0.0.2:80":
            return {"ok": False, "ms": 1, "error": "It answered 404 instead of 101."}
        return well(probe)

    state, reason = verdict(checked(scene, answer), "back_sources")
    assert state == State.FAILED
    node = scene["center-1"].row.name
    assert reason == f"10.0.0.2:80 as seen from {node}: It answered 404 instead of 101."


def test_a_gaining_unit_without_a_back_source_fails(scene: Scene) -> None:
    config = a_config()
    del config["domains"][0]["uris"][0]["back_sources"]["center"]
    publishing.publish(
        scene.namespace.pk, author="test", compute=lambda _row, _newest: publishing.Change(config=config)
    )
    scene.all_ack()
    assert verdict(checked(scene), "back_sources") == (
        State.FAILED,
        "center has no back-source for websocket.localhost/.",
    )


@pytest.mark.parametrize("skew", [500, -612])
def test_a_clock_that_is_off_is_named(scene: Scene, skew: int) -> None:
    cutover = make_draft(scene)
    with answering():
        services.preview(cutover, "op")
        EdgeNode.objects.filter(pk=scene["unbj-1"].pk).update(clock_skew_ms=skew)
        services.run_prechecks(cutover, "op")
        checking.run(cutover.pk)
    assert f"{scene['unbj-1'].row.name} {skew:+d} ms" in verdict(cutover, "clocks")[1]


def test_clocks_that_are_far_apart_fail_although_each_is_near_the_console(scene: Scene) -> None:
    cutover = make_draft(scene)
    with answering():
        services.preview(cutover, "op")
        EdgeNode.objects.filter(pk=scene["unbj-1"].pk).update(clock_skew_ms=300)
        EdgeNode.objects.filter(pk=scene["center-1"].pk).update(clock_skew_ms=-300)
        services.run_prechecks(cutover, "op")
        checking.run(cutover.pk)
    assert "600 ms apart" in verdict(cutover, "clocks")[1]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ok": True, "ms": 1, "status": 503}, "answered 503 instead of"),
        ({"ok": True, "status": 302, "location": "http://mars.websocket.localhost/"}, "instead of"),
        ({"ok": False, "ms": 1, "error": "The connection was closed without an answer."}, "closed without"),
        (None, "did not answer in time"),
    ],
)
def test_a_trial_handshake_that_is_answered_otherwise_fails(
    scene: Scene, wrong: dict[str, Any] | None, words: str
) -> None:
    def answer(probe: Probe) -> Mapping[str, Any] | None:
        return wrong if probe.kind == Probe.Kind.HANDSHAKE else well(probe)

    state, reason = verdict(checked(scene, answer), "handshakes")
    assert state == State.FAILED
    assert words in reason


def test_trials_are_made_at_each_unit_for_a_moved_and_an_unmoved_id(scene: Scene) -> None:
    cutover = make_draft(scene)
    with answering() as asked:
        services.preview(cutover, "op")
        services.run_prechecks(cutover, "op")
        checking.run(cutover.pk)
    trials = {
        (probe.node.unit.code, probe.params["headers"]["routerid"])
        for probe in asked
        if probe.kind == Probe.Kind.HANDSHAKE
    }
    assert trials == {("center", "5998"), ("center", "0"), ("unbj", "5998"), ("unbj", "0")}


def test_a_managed_domain_that_does_not_resolve_is_named(scene: Scene, settings: Any) -> None:
    settings.DNS_SERVERS = [("127.0.0.1", free_ports(1)[0])]
    config = a_config()
    config["domains"][0]["dns"] = "managed"
    publishing.publish(
        scene.namespace.pk, author="test", compute=lambda _row, _newest: publishing.Change(config=config)
    )
    scene.all_ack()
    cutover = checked(scene)
    state, reason = verdict(cutover, "dns")
    assert state == State.FAILED
    assert "center.websocket.localhost" in reason
    assert verdict(cutover, "round_trip")[0] == State.PASSED  # asked before, not after


def test_a_stale_preview_fails_the_check_of_the_rule(scene: Scene) -> None:
    cutover = make_draft(scene)
    with answering():
        services.preview(cutover, "op")
        Cutover.objects.filter(pk=cutover.pk).update(base_digest="another")
        services.run_prechecks(cutover, "op")
        checking.run(cutover.pk)
    assert "Generate the preview again" in verdict(cutover, "rule")[1]


def test_another_running_cutover_fails_the_check(scene: Scene) -> None:
    running = make_started(scene)
    scene.all_ack()
    cutover = checked(scene, ranges={"center": ["0~99"], "unbj": ["100~9999"]})
    assert str(running) in verdict(cutover, "exclusive")[1]


def test_a_stop_of_publishing_fails_the_check(scene: Scene) -> None:
    Namespace.objects.filter(pk=scene.namespace.pk).update(publishing_stopped="look first")
    assert "look first" in verdict(checked(scene), "exclusive")[1]


# -- retry and skip ------------------------------------------------------------------------------------------


def failing(scene: Scene) -> Cutover:
    """A cutover whose only failed check is the round trip."""
    return checked(scene, lambda probe: None if probe.kind == Probe.Kind.ECHO else well(probe))


def test_a_retry_runs_the_one_check_again(scene: Scene) -> None:
    cutover = failing(scene)
    assert cutover.state == Cutover.State.CHECKING
    services.retry_check(cutover, "round_trip", "op")
    with answering() as asked:
        checking.run(cutover.pk, ["round_trip"])
    check = Check.objects.get(cutover=cutover, key="round_trip")
    assert (check.state, check.attempt) == (State.PASSED, 2)
    assert {probe.kind for probe in asked} == {Probe.Kind.ECHO}
    cutover.refresh_from_db()
    assert cutover.state == Cutover.State.CHECKED


def test_a_skip_with_a_reason_clears_the_way_and_is_audited(scene: Scene) -> None:
    cutover = failing(scene)
    services.skip_check(cutover, "round_trip", "op", "console is slow today")
    assert cutover.state == Cutover.State.CHECKED
    check = Check.objects.get(cutover=cutover, key="round_trip")
    assert (check.state, check.skipped_by, check.skip_reason) == ("skipped", "op", "console is slow today")
    event = AuditEvent.objects.get(action="cutover.skip_check")
    assert (event.actor, event.reason) == ("op", "console is slow today")


def test_a_skip_without_a_reason_is_refused(scene: Scene) -> None:
    with pytest.raises(Refused, match="Give a reason"):
        services.skip_check(failing(scene), "round_trip", "op", " ")


def test_a_check_that_passed_is_not_skipped(scene: Scene) -> None:
    with pytest.raises(Refused, match="Only a failed check"):
        services.skip_check(failing(scene), "clocks", "op", "why not")


@pytest.mark.parametrize("key", ["rule", "exclusive"])
def test_a_check_without_which_nothing_can_start_is_not_skipped(scene: Scene, key: str) -> None:
    cutover = failing(scene)
    Check.objects.filter(cutover=cutover, key=key).update(state=State.FAILED)
    with pytest.raises(Refused, match="cannot be skipped"):
        services.skip_check(cutover, key, "op", "hurry")


@pytest.mark.parametrize("act", [services.retry_check, lambda c, k, a: services.skip_check(c, k, a, "r")])
def test_a_check_that_does_not_exist_is_refused(scene: Scene, act: Callable[..., None]) -> None:
    with pytest.raises(Refused, match="has no check weather"):
        act(failing(scene), "weather", "op")


def test_running_all_checks_again_forgets_a_skip(scene: Scene) -> None:
    cutover = failing(scene)
    services.skip_check(cutover, "round_trip", "op", "later")
    services.run_prechecks(cutover, "op")
    assert set(cutover.checks.values_list("state", flat=True)) == {State.PENDING}


def test_a_check_is_run_by_one_worker_only(scene: Scene) -> None:
    cutover = failing(scene)
    services.run_prechecks(cutover, "op")
    Check.objects.filter(cutover=cutover).update(state=State.RUNNING, attempt=1)
    checking.run(cutover.pk)
    assert set(cutover.checks.values_list("state", "attempt")) == {(State.RUNNING, 1)}


def test_the_result_of_a_lost_attempt_is_not_written_over_a_newer_one(scene: Scene) -> None:
    from cutover.prechecks import Verdict

    cutover = failing(scene)
    Check.objects.filter(cutover=cutover, key="clocks").update(state=State.RUNNING, attempt=2)
    checking._write(cutover, "clocks", 1, Verdict(False, "late"))
    assert verdict(cutover, "clocks")[0] == State.RUNNING


def test_a_check_that_breaks_fails_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such luck")

    parts = [check if check.key != "clocks" else _with(check, broken) for check in prechecks.PRECHECKS]
    monkeypatch.setattr(checking, "PRECHECKS", tuple(parts))
    cutover = checked(scene)
    assert verdict(cutover, "clocks") == (
        State.FAILED,
        "The check itself failed: RuntimeError('no such luck')",
    )
    assert verdict(cutover, "handshakes")[0] == State.PASSED


def _with(check: Any, judge: Callable[..., Any]) -> Any:
    from dataclasses import replace

    return replace(check, judge=judge)


# -- nobody runs them ----------------------------------------------------------------------------------------


def test_checks_that_no_worker_begins_with_are_run_by_the_console(
    scene: Scene, handed_over: list[Callable[[], object]]
) -> None:
    cutover = failing(scene)
    services.run_prechecks(cutover, "op")
    handed_over.clear()
    checking.take_over()
    assert handed_over == []
    Check.objects.filter(cutover=cutover).update(started=timezone.now() - timedelta(seconds=4))
    checking.take_over()
    with answering():
        handed_over.pop()()
    cutover.refresh_from_db()
    assert cutover.state == Cutover.State.CHECKED


def test_checks_that_were_lost_with_their_worker_are_run_again(
    scene: Scene, handed_over: list[Callable[[], object]]
) -> None:
    cutover = make_checked(scene)
    Cutover.objects.filter(pk=cutover.pk).update(state=Cutover.State.CHECKING)
    lost = Check.objects.filter(cutover=cutover, key="clocks")
    lost.update(state=State.RUNNING, attempt=1, started=timezone.now() - timedelta(seconds=21))
    handed_over.clear()
    checking.take_over()
    handed_over.pop()()
    assert lost.get().attempt == 2
    assert lost.get().state == State.PASSED
