"""The wizard survives a reload and a late opening at every step."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from cutover import services
from cutover.models import Check, Cutover
from cutover.pages.wizard import Place, place_of, places_open
from tests.cutover.builders import (
    Scene,
    grow_old,
    make_checked,
    make_draft,
    make_started,
    take_to,
)
from tests.cutover.pages import CSP_FREE_NAMES, page_of, signed_in

State = Cutover.State


@pytest.fixture
def operator(scene: Scene) -> Client:
    return signed_in("operator")


@pytest.mark.parametrize("state", State.values)
def test_every_state_has_a_step_that_may_be_opened(state: str) -> None:
    cutover = Cutover(state=state)
    assert place_of(cutover) in places_open(cutover)


@pytest.mark.parametrize("place", list(Place))
def test_a_step_opened_too_early_leads_to_where_the_cutover_stands(
    scene: Scene, operator: Client, place: Place
) -> None:
    cutover = make_draft(scene)
    page = operator.get(page_of(cutover, place))
    if place is Place.ADJUST:
        assert page.status_code == 200
    else:
        assert page["Location"] == page_of(cutover, "adjust")


@pytest.mark.parametrize("place", [place for place in Place if place is not Place.REPORT])
@pytest.mark.parametrize("state", [State.PREPARE, State.FREEZE, State.ACTIVATE, State.RELEASE])
def test_every_step_can_be_opened_while_the_cutover_runs(
    scene: Scene, operator: Client, state: str, place: Place
) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, state)
    page = operator.get(page_of(cutover, place))
    assert page.status_code == 200
    assert not any(name in page.content.decode() for name in CSP_FREE_NAMES)


@pytest.mark.parametrize("place", list(Place))
def test_every_step_can_be_opened_after_the_end(scene: Scene, operator: Client, place: Place) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.DONE)
    assert operator.get(page_of(cutover, place)).status_code == 200


def test_the_bare_address_leads_to_the_present_step(scene: Scene, operator: Client) -> None:
    cutover = make_checked(scene)
    assert operator.get(f"/cutover/{cutover.pk}/")["Location"] == page_of(cutover, "precheck")


def test_the_start_wants_the_namespace_typed_and_says_how_many_ids_move(
    scene: Scene, operator: Client
) -> None:
    cutover = make_checked(scene)
    page = operator.get(page_of(cutover, "confirm")).content.decode()
    assert "Start cutover: move 383 ids" in page
    refused = operator.post(page_of(cutover, "confirm"), {"act": "start", "namespace": "prod"})
    assert refused.status_code == 409
    assert 'value="prod"' in refused.content.decode()
    cutover.refresh_from_db()
    assert cutover.state == State.CHECKED
    started = operator.post(page_of(cutover, "confirm"), {"act": "start", "namespace": scene.namespace.name})
    assert started["Location"] == page_of(cutover, "progress")


def test_starting_twice_leads_to_the_running_cutover(scene: Scene, operator: Client) -> None:
    cutover = make_started(scene)
    again = operator.post(
        page_of(cutover, "confirm"), {"act": "start", "namespace": scene.namespace.name}, follow=True
    )
    assert again.status_code in (200, 409)
    cutover.refresh_from_db()
    assert cutover.state == State.PREPARE


def test_a_failed_check_shows_its_reason_with_retry_and_skip(scene: Scene, operator: Client) -> None:
    cutover = make_checked(scene)
    Check.objects.filter(cutover=cutover, key="dns").update(state=Check.State.FAILED, reason="no answer")
    page = operator.get(page_of(cutover, "precheck")).content.decode()
    assert "no answer" in page
    assert 'value="retry"' in page
    assert 'value="skip"' in page
    assert "for emergencies" in page


def test_a_skip_without_a_reason_is_refused_at_its_check(scene: Scene, operator: Client) -> None:
    cutover = make_checked(scene)
    Check.objects.filter(cutover=cutover, key="dns").update(state=Check.State.FAILED)
    sent = {"act": "skip", "key": "dns", "reason": " "}
    refused = operator.post(page_of(cutover, "precheck"), sent)
    assert refused.status_code == 409
    assert "Give a reason" in refused.content.decode()


def test_a_check_without_which_nothing_starts_offers_no_skip(scene: Scene, operator: Client) -> None:
    cutover = make_checked(scene)
    Check.objects.filter(cutover=cutover, key="rule").update(state=Check.State.FAILED)
    assert 'value="skip"' not in operator.get(page_of(cutover, "precheck")).content.decode()


def test_a_skipped_check_stays_visible_in_confirmation_and_report(scene: Scene, operator: Client) -> None:
    cutover = make_checked(scene)
    Check.objects.filter(cutover=cutover, key="dns").update(
        state=Check.State.SKIPPED, skipped_by="olga", skip_reason="the resolver is down"
    )
    assert "the resolver is down" in operator.get(page_of(cutover, "confirm")).content.decode()
    operator.post(page_of(cutover, "confirm"), {"act": "start", "namespace": scene.namespace.name})
    from cutover import services

    services.advance(cutover.pk)
    take_to(scene, cutover, State.DONE)
    assert "the resolver is down" in operator.get(page_of(cutover, "report")).content.decode()


def visible_acts(page: str) -> set[str]:
    """The acts of the live page that are not hidden."""
    import re

    forms = re.findall(r'data-act="(\w+)"( hidden)?', page)
    return {name for name, hidden in forms if not hidden}


@pytest.mark.parametrize(
    ("state", "acts"),
    [
        (State.PREPARE, {"abort", "pause", "emergency"}),
        (State.FREEZE, {"abort", "emergency"}),
        (State.ACTIVATE, {"turn_around", "emergency"}),
        (State.RELEASE, {"turn_around", "finish", "emergency"}),
    ],
)
def test_each_phase_offers_the_acts_it_allows(
    scene: Scene, operator: Client, state: str, acts: set[str]
) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, state)
    page = operator.get(page_of(cutover, "progress")).content.decode()
    assert visible_acts(page) == acts


def test_an_abort_wants_a_reason_and_says_so_at_its_place(scene: Scene, operator: Client) -> None:
    cutover = make_started(scene)
    refused = operator.post(page_of(cutover, "progress"), {"act": "abort", "reason": ""})
    assert refused.status_code == 409
    assert "Give a reason" in refused.content.decode()
    done = operator.post(page_of(cutover, "progress"), {"act": "abort", "reason": "wrong table"})
    assert done["Location"] == page_of(cutover, "progress")
    cutover.refresh_from_db()
    assert cutover.state in (State.ABORTING, State.ABORTED)


def test_an_abort_that_comes_too_late_is_refused_with_a_sentence(scene: Scene, operator: Client) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.ACTIVATE)
    refused = operator.post(page_of(cutover, "progress"), {"act": "abort", "reason": "too late"})
    assert refused.status_code == 409
    assert 'class="refusal"' in refused.content.decode()


def test_the_live_page_names_the_nodes_it_waits_for(scene: Scene, operator: Client) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    node = scene["unbj-1"].row.name
    page = operator.get(page_of(cutover, "progress")).content.decode()
    assert f"Waits for {node}" in page


def test_a_cutover_that_undid_itself_is_reported_with_the_nodes_that_did_not_answer(
    scene: Scene, operator: Client
) -> None:
    from cutover import services

    cutover = make_started(scene)
    take_to(scene, cutover, State.FREEZE)
    grow_old(cutover, 11)
    services.advance(cutover.pk)
    scene.all_ack()
    services.advance(cutover.pk)
    page = operator.get(page_of(cutover, "report")).content.decode()
    assert "undid itself" in page
    assert scene["unbj-1"].row.name in page
    assert "Prepare roll back" not in page


def test_the_report_keeps_the_way_back_and_leads_through_the_same_gate(
    scene: Scene, operator: Client
) -> None:
    cutover = make_started(scene)
    take_to(scene, cutover, State.DONE)
    assert "Prepare roll back" in operator.get(page_of(cutover, "report")).content.decode()
    sent = operator.post(page_of(cutover, "report"), {"act": "rollback"})
    back = Cutover.objects.latest("pk")
    assert sent["Location"] == page_of(back, "adjust")
    assert back.state == State.DRAFT
    assert back.new_rule["ranges"] == cutover.old_rule["ranges"]


def test_a_preview_made_against_another_rule_says_so(scene: Scene, operator: Client) -> None:
    stale = make_checked(scene, {"center": ["0~7000"], "unbj": ["7001~9999"]})
    take_to(scene, make_started(scene), State.DONE)
    page = operator.get(page_of(stale, "preview")).content.decode()
    assert "has changed since this preview" in page
    sent = {"act": "start", "namespace": scene.namespace.name}
    assert operator.post(page_of(stale, "confirm"), sent).status_code == 409


def test_a_cutover_that_does_not_exist_is_not_found(operator: Client) -> None:
    assert operator.get("/cutover/999999/adjust/").status_code == 404


def test_a_check_says_its_reason_in_the_language_of_whoever_reads_it(scene: Scene, operator: Client) -> None:
    from cutover import checking, services

    cutover = make_draft(scene)
    services.preview(cutover, "op")
    services.run_prechecks(cutover, "op")
    checking.run(cutover.pk, ["rule"])
    assert "Every id has exactly one owner" in operator.get(page_of(cutover, "precheck")).content.decode()
    operator.cookies["django_language"] = "zh-hans"
    page = operator.get(page_of(cutover, "precheck")).content.decode()
    assert "每个 id 恰好属于一个单元" in page
    assert "Every id has exactly one owner" not in page


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("preview", "mshactl cutover start -n demo --unit-type unit_type --ranges "),
        ("precheck", "mshactl cutover start 1 -n demo --wait"),
        ("confirm", "mshactl cutover start 1 -n demo --wait"),
    ],
)
def test_a_step_shows_its_act_as_a_line_for_the_shell(
    scene: Scene, operator: Client, place: str, line: str
) -> None:
    cutover = make_checked(scene)
    line = line.replace("-n demo", f"-n {scene.namespace.name}")
    assert line in operator.get(page_of(cutover, place)).content.decode()


def test_every_act_on_a_running_cutover_is_a_command_that_mshactl_has(scene: Scene, operator: Client) -> None:
    import html
    import re
    import shlex

    from msha.cli import main

    cutover = make_started(scene)
    page = html.unescape(operator.get(page_of(cutover, "progress")).content.decode())
    lines = set(re.findall(r"<code>(mshactl [^<]+)</code>", page))
    assert len(lines) == 10
    group = main.commands["cutover"]
    for line in lines:
        words = shlex.split(line)
        command = group.commands[words[2]]  # type: ignore[attr-defined]
        command.make_context(words[2], words[3:], resilient_parsing=False)


def test_the_time_of_a_freeze_counts_up_while_it_runs_and_is_said_to_be_an_upper_bound(
    scene: Scene, operator: Client
) -> None:
    cutover = make_started(scene)
    assert services.status(cutover)["frozen_now_ms"] is None
    take_to(scene, cutover, State.FREEZE)
    began = timezone.now() - timedelta(seconds=3)
    figures = {**cutover.figures, "frozen_from": began.isoformat()}
    Cutover.objects.filter(pk=cutover.pk).update(figures=figures)
    assert 3000 <= services.status(cutover)["frozen_now_ms"] < 30_000
    page = operator.get(page_of(cutover, "progress")).content.decode()
    assert "Ids held for at most" in page
    assert re.search(r"data-frozen>\d{4,5}</span>", page)
    cutover.refresh_from_db()
    take_to(scene, cutover, State.DONE)
    status = services.status(cutover)
    assert status["frozen_now_ms"] is None
    report = operator.get(page_of(cutover, "report")).content.decode()
    assert "Ids held for at most" in report
    assert f"data-frozen>{status['frozen_ms']}</span>" in report
