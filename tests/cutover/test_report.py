"""The report of a cutover: the JSON value, its page, its file, and who may read it."""

import json

import pytest
from django.utils import timezone

from cutover import services
from cutover.models import Check, Cutover, HookRun, Override
from msha.cli_report import report_text
from msha.steering.phases import sliced
from msha.steering.ranges import MovedIds
from tests.cutover.builders import Scene, grow_old, make_checked, make_started, step, take_to
from tests.cutover.pages import page_of, signed_in
from tests.cutover.test_api import Api, bearer
from units.groups import OPERATOR

State = Cutover.State


def make_batched(scene: Scene, *sizes: int) -> Cutover:
    """A cutover in PREPARE whose ids move in slices of these sizes."""
    cutover = make_started(scene)
    batches = sliced(MovedIds.from_lists(cutover.moved), sizes)
    cutover.plan["batches"] = [batch.as_lists() for batch in batches]
    cutover.save(update_fields=["plan"])
    return cutover


def done(scene: Scene, *sizes: int) -> Cutover:
    cutover = make_batched(scene, *sizes) if sizes else make_started(scene)
    for _ in range(20):
        if cutover.ended:
            break
        step(scene, cutover)
    assert cutover.state == State.DONE
    return cutover


def test_a_report_says_who_did_what_when(scene: Scene) -> None:
    report = services.report(done(scene))
    assert (report["created_by"], report["started_by"], report["phase"]) == ("op", "op", "done")
    assert [one["phase"] for one in report["phases"]] == ["prepare", "freeze", "activate", "release"]
    assert all(one["ms"] is not None for one in report["phases"])
    assert report["moved"]["ids"] == 383
    assert "routerId: 0~5997" in report["rule"]["before"]
    assert "routerId: 0~6380" in report["rule"]["after"]
    assert report["frozen"]["ms"] == max(one["ms"] for one in report["frozen"]["freezes"])
    assert [check["state"] for check in report["checks"]] == ["passed"] * len(report["checks"])
    json.dumps(report)  # nothing in it but JSON


def test_a_report_of_a_draft_has_no_phases_and_does_not_fail(scene: Scene) -> None:
    report = services.report(make_checked(scene))
    assert report["phases"] == report["batches"] == report["hooks"] == []
    assert report["started_at"] is None


def test_a_report_lists_each_batch_with_how_long_its_ids_were_held(scene: Scene) -> None:
    report = services.report(done(scene, 100, 100, 183))
    assert [(one["number"], one["ids"], one["state"]) for one in report["batches"]] == [
        (1, 100, "moved"),
        (2, 100, "moved"),
        (3, 183, "moved"),
    ]
    assert all(isinstance(one["frozen_ms"], int) for one in report["batches"])
    assert [one["batch"] for one in report["phases"]] == [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def states(cutover: Cutover) -> list[str]:
    return [batch["state"] for batch in services.status(cutover)["batch_list"]]


def test_a_batch_that_was_turned_round_is_back_and_the_ones_after_it_never_moved(scene: Scene) -> None:
    cutover = make_batched(scene, 100, 100, 183)
    assert states(cutover) == ["waiting"] * 3
    while (cutover.batch, cutover.state) != (1, State.ACTIVATE):
        step(scene, cutover)
    assert states(cutover) == ["moved", "moving", "waiting"]
    services.turn_around(cutover, "op", "errors")
    assert states(cutover) == ["moved", "going_back", "waiting"]
    while not cutover.ended:
        step(scene, cutover)
    assert states(cutover) == ["moved", "back", "left"]


def test_a_roll_back_brings_every_batch_back(scene: Scene) -> None:
    cutover = make_batched(scene, 100, 283)
    while (cutover.batch, cutover.state) != (1, State.FREEZE):
        step(scene, cutover)
    services.roll_back(cutover, "op", "errors")
    while not cutover.ended:
        step(scene, cutover)
    assert states(cutover) == ["back", "back"]


def test_a_cutover_that_undid_itself_reports_its_alarm(scene: Scene) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    grow_old(cutover, 11)
    services.advance(cutover.pk)
    scene.all_ack()
    services.advance(cutover.pk)
    report = services.report(cutover)
    assert report["phase"] == "aborted"
    assert [alarm["cleared_at"] for alarm in report["alarms"]] != []
    assert scene["unbj-1"].row.name in report["alarms"][0]["sentence"]


def with_everything(scene: Scene) -> Cutover:
    """A cutover with a skip, an override, an approval and a hook."""
    cutover = done(scene)
    Check.objects.filter(cutover=cutover, key="dns").update(
        state=Check.State.SKIPPED, skipped_by="olga", skip_reason="the resolver is down"
    )
    Cutover.objects.filter(pk=cutover.pk).update(
        requested_by="op", approved_by="ann", approved_at=timezone.now(), approval_comment="go ahead"
    )
    Override.objects.create(
        cutover=cutover,
        rule="max_ids",
        digest="d",
        sentence="383 ids are too many.",
        by="olga",
        reason="urgent",
    )
    now = timezone.now()
    HookRun.objects.create(
        cutover=cutover, name="forbid-writes", moment="at_freeze", state="succeeded",
        calls=2, said={"status": 503, "text": "not yet", "means": "again"}, started=now, finished=now,
    )  # fmt: skip
    return cutover


def test_a_report_tells_what_was_skipped_overridden_approved_and_called(scene: Scene) -> None:
    report = services.report(with_everything(scene))
    assert report["approval"] | {"approved_at": None} == {
        "needed": False, "requested_by": "op",
        "approved_by": "ann", "approved_at": None, "comment": "go ahead",
    }  # fmt: skip
    assert [(one["rule"], one["by"], one["reason"]) for one in report["overrides"]] == [
        ("max_ids", "olga", "urgent")
    ]
    assert [(one["name"], one["calls"], one["state"]) for one in report["hooks"]] == [
        ("forbid-writes", 2, "succeeded")
    ]
    skipped = [check for check in report["checks"] if check["state"] == "skipped"]
    assert [(check["key"], check["skipped_by"]) for check in skipped] == [("dns", "olga")]


def test_the_page_of_the_report_shows_all_of_it(scene: Scene) -> None:
    cutover = with_everything(scene)
    page = signed_in("viewer").get(page_of(cutover, "report")).content.decode()
    for told in (
        "the resolver is down",
        "go ahead",
        "383 ids are too many.",
        "urgent",
        "forbid-writes",
        "answered 503: not yet",
    ):
        assert told in page, told
    assert f"mshactl cutover report {cutover.number}" in page


def test_the_report_can_be_kept_as_a_file(scene: Scene) -> None:
    cutover = done(scene)
    answer = signed_in("viewer").get(f"/cutover/{cutover.pk}/report.json")
    assert answer["Content-Disposition"] == (
        f'attachment; filename="cutover-{scene.namespace.name}-{cutover.number}.json"'
    )
    assert json.loads(answer.content)["moved"]["ids"] == 383


@pytest.mark.parametrize("path", ["report/", "report.json"])
def test_a_report_needs_the_permission_to_view_cutovers(scene: Scene, path: str) -> None:
    cutover = done(scene)
    assert signed_in(None).get(f"/cutover/{cutover.pk}/{path}").status_code == 403


def test_the_api_answers_with_the_same_report(scene: Scene) -> None:
    cutover = done(scene)
    found = Api(scene, bearer("olga", OPERATOR))
    code, value = found.get(f"/{cutover.number}/report")
    assert code == 200
    assert {**value, "made_at": ""} == {**services.report(cutover), "made_at": ""}
    assert Api(scene, bearer("eve")).get(f"/{cutover.number}/report")[0] == 403
    code, value = found.post(f"/{cutover.number}/stragglers")
    assert (code, value["error"]["code"]) == (409, "refused")


def test_a_terminal_is_told_what_a_colleague_wants_to_know_first(scene: Scene) -> None:
    text = report_text(services.report(with_everything(scene)))
    for told in (
        "Done: every moved id",
        "approved by       ann  go ahead",
        "RELEASE",
        "urgent",
        "forbid-writes",
    ):
        assert told in text, told
