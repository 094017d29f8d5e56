"""Safety rules at the preview, in the checks and under the lock of the start; overriding them."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone, translation

from cutover import checking, services
from cutover.errors import InvalidChange, Refused
from cutover.models import BlockedWindow, Check, Cutover, Override, SafetyRules
from cutover.safety import assessing, stored
from tests.cutover.builders import (
    NEW_RANGES,
    OLD_RANGES,
    Scene,
    make_checked,
    make_draft,
    make_started,
    pass_checks,
    take_to,
)
from units import editing, publishing
from units.models import AuditEvent, Unit

State = Cutover.State


def forbid(scene: Scene, **rules: Any) -> None:
    """The namespace has these rules."""
    stored.save(scene.namespace, rules, "boss")


def start(cutover: Cutover) -> Cutover:
    return services.start(cutover, "op", cutover.namespace.name)


def blocking(cutover: Cutover) -> list[str]:
    return [one.rule for one in assessing.shown(cutover) if one.blocks]


def always() -> dict[str, Any]:
    return {"blocked_windows": [{"day": 7, "begins": "00:00", "ends": "00:00", "note": "stocktaking"}]}


def test_a_preview_says_what_the_rules_find(scene: Scene) -> None:
    forbid(scene, max_ids=100)
    preview = services.preview(make_draft(scene), "op")
    (one,) = preview.findings
    assert (one.rule, one.severity, one.overridable, one.blocks) == ("max_ids", "violation", True, True)
    assert one.sentence == ("383 ids would move; one cutover may move 100. Move the rest by another cutover.")


def test_findings_are_said_in_the_readers_language(scene: Scene) -> None:
    forbid(scene, max_ids=100)
    cutover = make_checked(scene)
    with translation.override("zh-hans"):
        assert assessing.shown(cutover)[0].title  # made when it is read, not when it is found


def test_a_start_is_refused_with_what_each_rule_found_and_the_ways_on(scene: Scene) -> None:
    cutover = make_checked(scene)
    forbid(scene, max_ids=100, min_share_percent=40)
    with pytest.raises(Refused) as refused:
        start(cutover)
    said = str(refused.value)
    assert said.startswith("Not started: unbj would own 36.19 % of all ids (before: 40.02 %)")
    assert "383 ids would move" in said
    assert f"mshactl cutover override RULE --number {cutover.number} --reason TEXT" in said
    cutover.refresh_from_db()
    assert cutover.state == State.CHECKED


def test_a_rule_that_was_changed_between_preview_and_start_is_judged_as_it_is_now(scene: Scene) -> None:
    forbid(scene, max_ids=100)
    cutover = make_checked(scene)
    forbid(scene, max_ids=None)
    assert start(cutover).state == State.STARTING


def test_cutting_a_unit_to_zero_needs_an_override_where_a_least_share_is_set(scene: Scene) -> None:
    forbid(scene, min_share_percent=0)
    cutover = make_checked(scene, {"center": ["0~9999"]})
    with pytest.raises(Refused, match="unbj would own nothing"):
        start(cutover)
    services.override(cutover, "min_share", "boss", "Beijing burns")
    assert start(cutover).state == State.STARTING


def test_no_cutover_starts_in_a_blocked_window(scene: Scene) -> None:
    cutover = make_checked(scene)
    forbid(scene, **always())
    with pytest.raises(Refused, match=r"No cutover starts before .* \(UTC\): stocktaking\. Wait until then"):
        start(cutover)


def test_after_a_cutover_its_ids_rest_but_may_go_back(scene: Scene) -> None:
    done = make_started(scene)
    take_to(scene, done, State.DONE)
    forbid(scene, quiet_s=600)
    further = make_checked(scene, {"center": ["0~6999"], "unbj": ["7000~9999"]})
    with pytest.raises(Refused, match=f"After cutover #{done.number} there is a quiet period of 600 s"):
        start(further)
    back = services.rollback(done, "op")
    services.preview(back, "op")
    assert [(one.rule, one.severity) for one in assessing.shown(back)] == [
        ("quiet", "warning"),
        ("flap", "warning"),
    ]
    pass_checks(back)
    assert start(back).state == State.STARTING
    assert back.kind == Cutover.Kind.ROLLBACK


def test_a_cutover_that_ended_before_anybody_was_moved_needs_no_rest(scene: Scene) -> None:
    aborted = make_started(scene)
    services.abort(aborted, "op", "not now")
    take_to(scene, aborted, State.ABORTED)
    forbid(scene, quiet_s=600)
    assert start(make_checked(scene)).state == State.STARTING


def test_the_sessions_of_the_preview_count_until_they_are_old(scene: Scene) -> None:
    forbid(scene, max_sessions=10)
    cutover = make_checked(scene)
    now = timezone.now()
    Cutover.objects.update(impact={"pairs": [["unbj", "center", 11]], "uncounted": [], "at": now.isoformat()})
    cutover.refresh_from_db()
    assert blocking(cutover) == ["max_sessions"]
    services.override(cutover, "max_sessions", "boss", "planned")
    assert blocking(cutover) == []
    old = (now - timedelta(minutes=16)).isoformat()
    Cutover.objects.update(impact={"pairs": [["unbj", "center", 1]], "uncounted": [], "at": old})
    cutover.refresh_from_db()
    with pytest.raises(Refused, match="were counted 16 minutes ago") as refused:
        start(cutover)
    assert "override" not in str(refused.value)
    with pytest.raises(Refused, match="This cannot be overridden: The live sessions"):
        services.override(cutover, "counted", "boss", "hurry")


# -- overriding ----------------------------------------------------------------------------------------------


def test_an_override_is_named_reasoned_and_audited(scene: Scene) -> None:
    forbid(scene, max_ids=100)
    cutover = make_checked(scene)
    (made,) = services.override(cutover, "max_ids", "boss", " a fire in Beijing ")
    assert (made.by, made.reason, made.facts) == ("boss", "a fire in Beijing", {"limit": 100, "ids": 383})
    event = AuditEvent.objects.get(action="cutover.override_safety")
    assert (event.actor, event.reason) == ("boss", "a fire in Beijing")
    status = services.status(cutover)
    assert [(one["rule"], one["by"]) for one in status["overrides"]] == [("max_ids", "boss")]
    assert status["findings"][0]["overridden_by"] == "boss"
    assert "Safety rule “Most ids of a cutover” overridden by boss: a fire in Beijing" in [
        event["sentence"] for event in status["events"]
    ]


def test_several_rules_are_overridden_by_one_act_with_one_reason(scene: Scene) -> None:
    forbid(scene, max_ids=100, min_share_percent=40, **always())
    cutover = make_checked(scene)
    made = services.override(cutover, "all", "boss", "fire")
    assert {one.rule for one in made} == {"max_ids", "min_share", "window"}
    assert start(cutover).state == State.STARTING


@pytest.mark.parametrize(
    ("rule", "reason", "said"),
    [
        ("max_ids", "  ", "Give a reason"),
        ("quiet", "fire", "quiet does not stand against .*; what can be overridden: max_ids"),
        ([], "fire", "Name the safety rules"),
    ],
)
def test_what_cannot_be_overridden_is_refused_with_a_sentence(
    scene: Scene, rule: Any, reason: str, said: str
) -> None:
    forbid(scene, max_ids=100)
    cutover = make_checked(scene)
    with pytest.raises(Refused, match=said):
        services.override(cutover, rule, "boss", reason)
    assert not Override.objects.exists()


def test_a_draft_without_preview_and_one_that_runs_are_not_overridden(scene: Scene) -> None:
    running = make_started(scene)
    with pytest.raises(Refused, match="there is nothing to override"):
        services.override(running, "all", "boss", "fire")
    with pytest.raises(Refused, match="Generate the preview"):
        services.override(make_draft(scene, {"center": ["0~9999"]}), "all", "boss", "fire")


def test_an_override_lapses_when_the_draft_changes(scene: Scene) -> None:
    forbid(scene, max_ids=100)
    cutover = make_checked(scene)
    services.override(cutover, "max_ids", "boss", "fire")
    services.preview(cutover, "op")
    assert blocking(cutover) == []  # the same draft, looked at once more
    services.update_draft(cutover, ranges={"center": ["0~6300"], "unbj": ["6301~9999"]}, actor="op")
    services.preview(cutover, "op")
    assert blocking(cutover) == ["max_ids"]


def test_an_override_lapses_when_the_rule_gets_stricter(scene: Scene) -> None:
    forbid(scene, max_ids=100)
    cutover = make_checked(scene)
    services.override(cutover, "max_ids", "boss", "fire")
    forbid(scene, max_ids=50)
    with pytest.raises(Refused, match="may move 50"):
        start(cutover)


def test_an_emergency_needs_overrides_like_any_cutover(scene: Scene) -> None:
    forbid(scene, max_ids=100)
    cutover = make_checked(scene)
    Cutover.objects.filter(pk=cutover.pk).update(mode=Cutover.Mode.EMERGENCY)
    cutover.refresh_from_db()
    with pytest.raises(Refused, match="383 ids would move"):
        start(cutover)


# -- the checks ----------------------------------------------------------------------------------------------


def checked(cutover: Cutover, key: str) -> Check:
    return Check.objects.get(cutover=cutover, key=key)


def test_the_check_shows_what_the_start_would_say_and_passes_once_it_is_overridden(scene: Scene) -> None:
    forbid(scene, max_ids=100)
    cutover = make_draft(scene)
    services.preview(cutover, "op")
    services.run_prechecks(cutover, "op")
    checking.run(cutover.pk)
    failed = checked(cutover, "safety")
    assert (failed.state, "override the rule with a reason" in failed.reason) == (Check.State.FAILED, True)
    with pytest.raises(Refused, match="cannot be skipped"):
        services.skip_check(cutover, "safety", "op", "hurry")
    services.override(cutover, "max_ids", "boss", "fire")
    passed = checked(cutover, "safety")
    assert (passed.state, passed.reason) == (
        Check.State.PASSED,
        "Most ids of a cutover, overridden by boss: fire",
    )


def test_ids_that_have_just_moved_are_warned_of_and_keep_nobody_waiting(scene: Scene) -> None:
    done = make_started(scene)
    take_to(scene, done, State.DONE)
    back = services.rollback(done, "op")
    services.preview(back, "op")
    services.run_prechecks(back, "op")
    checking.run(back.pk)
    check = checked(back, "flap")
    assert (check.state, check.amber) == (Check.State.PASSED, True)
    assert f"383 of these ids have just moved (5998~6380) by #{done.number}" in check.reason


# -- bad moments ---------------------------------------------------------------------------------------------


def test_a_unit_that_was_deleted_meanwhile_refuses_the_start(db: None) -> None:
    from tests.cutover.builders import make_scene
    from tests.units.builders import a_config

    scene = make_scene(codes=("center", "unbj", "unsh"))
    for name in ("unsh-1",):
        scene[name].leave()
    cutover = make_checked(scene, {"center": ["0~5997"], "unbj": ["5998~8999"], "unsh": ["9000~9999"]})
    publishing.publish(
        scene.namespace.pk,
        author="test",
        compute=lambda _namespace, _newest: publishing.Change(config=a_config("center", "unbj")),
    )
    with pytest.raises(Refused, match=r"does not fit any more \(.*unsh.*\)\. Adjust the draft"):
        start(cutover)


def test_a_unit_that_owns_nothing_can_be_deleted_beside_a_draft_that_gives_it_ids(db: None) -> None:
    from tests.cutover.builders import make_scene

    scene = make_scene(codes=("center", "unbj", "unsh"))
    make_draft(scene, {"center": ["0~5997"], "unbj": ["5998~8999"], "unsh": ["9000~9999"]})
    assert editing.obstacles(Unit.objects.get(namespace=scene.namespace, code="unsh")) == []


def test_a_draft_that_is_edited_while_its_sessions_are_counted_is_not_overwritten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutover import previews

    cutover = make_draft(scene)
    count = previews.count_sessions

    def edited_meanwhile(*arguments: Any) -> Any:
        other = Cutover.objects.get(pk=cutover.pk)
        services.update_draft(other, ranges={"center": ["0~9999"]}, actor="another")
        return count(*arguments)

    monkeypatch.setattr(previews, "count_sessions", edited_meanwhile)
    with pytest.raises(Refused, match=r"changed just now\. Generate the preview again"):
        services.preview(cutover, "op")
    cutover.refresh_from_db()
    assert (cutover.new_rule["ranges"], cutover.state) == ({"center": ["0~9999"]}, State.DRAFT)


# -- the rules themselves ------------------------------------------------------------------------------------


def test_rules_are_stored_and_audited_and_what_is_left_out_stays(scene: Scene) -> None:
    forbid(scene, max_ids=100, **always())
    forbid(scene, quiet_s=60)
    rules = SafetyRules.objects.get(namespace=scene.namespace)
    assert (rules.max_ids, rules.quiet_s, rules.blocked_windows.count()) == (100, 60, 1)
    before, after = AuditEvent.objects.filter(action="safety_rules.update").values_list("before", "after")[0]
    assert (before["quiet_s"], after["quiet_s"]) in [(None, 60), (None, None)]
    forbid(scene, quiet_s=60)
    assert AuditEvent.objects.filter(action="safety_rules.update").count() == 2  # nothing changed


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ({"min_share_percent": 101}, "min_share_percent"),
        ({"blocked_windows": [{"day": 8, "begins": "01:00", "ends": "02:00"}]}, "blocked_windows.0.day"),
        ({"blocked_windows": [{"begins": "soon", "ends": "02:00"}]}, "blocked_windows.0.begins"),
        ({"blocked_windows": [{"begins": "01:00", "ends": None}]}, "blocked_windows.0.ends"),
        (
            {"blocked_windows": [{"begins": "01:00", "ends": "02:00", "time_zone": "Mars"}]},
            "blocked_windows.0.time_zone",
        ),
    ],
)
def test_rules_that_cannot_be_are_refused_with_their_place(
    scene: Scene, rules: dict[str, Any], place: str
) -> None:
    with pytest.raises(InvalidChange) as refused:
        forbid(scene, **rules)
    assert refused.value.place == place
    assert not SafetyRules.objects.exists()


def test_a_window_with_a_time_zone_that_went_missing_blocks_until_it_is_corrected(scene: Scene) -> None:
    forbid(scene, **always())
    BlockedWindow.objects.update(time_zone="Asia/Atlantis")
    cutover = make_checked(scene, NEW_RANGES)
    with pytest.raises(Refused, match="names the time zone Asia/Atlantis, which is not known here"):
        start(cutover)
    assert scene.ranges() == OLD_RANGES
