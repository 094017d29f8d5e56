"""What stands between a preview and its start, on the page: pacing, safety rules, approval."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from cutover import services
from cutover.models import Cutover, Practice, SafetyRules
from tests.cutover.builders import Scene, make_checked, make_started
from tests.cutover.pages import page_of, signed_in

PACED = {"act": "pacing", "divide": "careful", "on_failure": "pause", "retry_s": "5"}


def allowed(client: Client, *codenames: str) -> Client:
    """The same client, whose user has these permissions, too."""
    user = User.objects.latest("pk")
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return client


@pytest.fixture
def operator(scene: Scene) -> Client:
    return signed_in("operator")


@pytest.fixture
def cutover(scene: Scene) -> Cutover:
    return make_checked(scene)


def test_a_cutover_moves_at_once_unless_asked_otherwise(cutover: Cutover, operator: Client) -> None:
    page = operator.get(page_of(cutover, "preview")).content.decode()
    assert "All 383 ids move at once." in page


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (
            {"divide": "careful", "bake_s": "30"},
            "4 steps of 4, 35, 153, 191 ids. It takes at least 1 min 30 s.",
        ),
        ({"divide": "half"}, "2 steps of 192, 191 ids."),
        ({"divide": "steps", "steps": "5, 25 %"}, "3 steps of 20, 76, 287 ids."),
        ({"divide": "ids", "ids": "100", "bake_s": "60"}, "It takes at least 3 min."),
        ({"divide": "half", "on_failure": "undo"}, "if one is not well, everything goes back"),
        (
            {"divide": "half", "refused": "", "back_source": "", "reconnect": ""},
            "Nothing is looked at between",
        ),
    ],
)
def test_the_pacing_is_said_in_plain_words(
    cutover: Cutover, operator: Client, sent: dict[str, str], said: str
) -> None:
    limits = {"refused": "5", "back_source": "5", "reconnect": "80"}
    answer = operator.post(page_of(cutover, "preview"), {**PACED, **limits, **sent})
    assert answer["Location"] == page_of(cutover, "preview")
    assert said in operator.get(page_of(cutover, "preview")).content.decode()
    assert said in operator.get(page_of(cutover, "confirm")).content.decode()


def test_what_was_set_stands_in_the_form_again(cutover: Cutover, operator: Client) -> None:
    sent = {
        **PACED,
        "divide": "steps",
        "steps": "5, 25",
        "bake_s": "30",
        "reconnect": "92.5",
        "stragglers": "3",
    }
    operator.post(page_of(cutover, "preview"), sent)
    cutover.refresh_from_db()
    assert cutover.pacing["steps"] == [5, 25]
    assert cutover.pacing["gate"]["reconnect"] == 0.925
    assert cutover.pacing["gate"]["refused"] is None
    page = operator.get(page_of(cutover, "preview")).content.decode()
    for value in ('value="5, 25"', 'value="30"', 'value="92.5"', 'value="3"'):
        assert value in page, value


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"divide": "steps", "steps": ""}, "Write where the steps end"),
        ({"divide": "steps", "steps": "ten"}, "“ten” is not a number"),
        ({"divide": "steps", "steps": "50, 10"}, "each is larger than the one before"),
        ({"divide": "ids", "ids": ""}, "Write how many ids a step has"),
        ({"divide": "ids", "ids": "1.5"}, "is not a whole number"),
        ({"divide": "half", "bake_s": "-1"}, "is not a number from 0"),
        ({"divide": "half", "bake_s": "nan"}, "is not a number"),
        ({"divide": "half", "reconnect": "120"}, "is not a number from 0 to 1"),
        ({"divide": "half", "on_failure": "explode"}, "there is no “explode”"),
    ],
)
def test_an_unusable_pacing_is_refused_and_keeps_what_was_typed(
    cutover: Cutover, operator: Client, sent: dict[str, str], said: str
) -> None:
    answer = operator.post(page_of(cutover, "preview"), {**PACED, "sessions_per_s": "77", **sent})
    assert answer.status_code == 422
    page = answer.content.decode()
    assert said in page
    assert 'value="77"' in page
    cutover.refresh_from_db()
    assert cutover.pacing == {}


def test_the_pacing_of_a_running_cutover_is_not_changed(scene: Scene, operator: Client) -> None:
    cutover = make_started(scene)
    answer = operator.post(page_of(cutover, "preview"), PACED)
    assert answer.status_code == 409
    assert "pacing-form" not in operator.get(page_of(cutover, "preview")).content.decode()


@pytest.fixture
def limited(scene: Scene) -> Cutover:
    SafetyRules.objects.create(namespace=scene.namespace, max_ids=100)
    return make_checked(scene)


def test_a_safety_rule_is_said_with_its_figures_and_who_may_override_it(limited: Cutover) -> None:
    page = signed_in("viewer").get(page_of(limited, "preview")).content.decode()
    assert "keeps it from starting" in page
    assert "383" in page
    assert "Can override a safety rule" in page
    assert 'value="override:max_ids"' not in page


def test_overriding_wants_its_own_permission_and_a_reason(limited: Cutover) -> None:
    sent = {"act": "override:max_ids", "reason": "the unit burns"}
    viewer = signed_in("viewer")
    assert viewer.post(page_of(limited, "preview"), sent).status_code == 403
    chief = allowed(signed_in("viewer"), "override_safety")
    refused = chief.post(page_of(limited, "preview"), {**sent, "reason": " "})
    assert refused.status_code == 409
    assert "Give a reason" in refused.content.decode()
    assert chief.post(page_of(limited, "preview"), sent).status_code == 302
    for place in ("preview", "confirm"):
        assert "the unit burns" in chief.get(page_of(limited, place)).content.decode()


@pytest.fixture
def guarded(scene: Scene) -> Cutover:
    SafetyRules.objects.create(namespace=scene.namespace, approval=True)
    return make_checked(scene)


def digest(page: str) -> str:
    return page.split('name="seen" value="')[1].split('"', maxsplit=1)[0]


def test_an_approval_is_asked_for_given_and_withdrawn(guarded: Cutover, operator: Client) -> None:
    page = page_of(guarded, "preview")
    assert "missing" in operator.get(page).content.decode()
    assert operator.post(page, {"act": "request", "comment": "please"}).status_code == 302
    ann = allowed(signed_in("viewer"), "approve_cutover")
    shown = ann.get(page).content.decode()
    assert "You approve exactly what this page shows" in shown
    sent = {"act": "approve", "seen": digest(shown), "comment": "go ahead"}
    assert ann.post(page, sent)["Location"] == page
    assert "go ahead" in operator.get(page_of(guarded, "confirm")).content.decode()
    refused = ann.post(page, {"act": "withdraw", "reason": ""})
    assert "Give a reason" in refused.content.decode()
    ann.post(page, {"act": "withdraw", "reason": "not tonight"})
    guarded.refresh_from_db()
    assert guarded.approved_by == ""


def test_nobody_approves_their_own_cutover(scene: Scene) -> None:
    SafetyRules.objects.create(namespace=scene.namespace, approval=True)
    both = allowed(signed_in("operator"), "approve_cutover")
    name = User.objects.latest("pk").username
    cutover = make_checked(scene)
    Cutover.objects.filter(pk=cutover.pk).update(requested_by=name)
    page = both.get(page_of(cutover, "preview")).content.decode()
    assert "somebody else has to approve it" in page
    assert 'value="approve"' not in page
    refused = both.post(page_of(cutover, "preview"), {"act": "approve", "seen": ""})
    assert refused.status_code == 409


def test_an_approval_of_what_was_changed_meanwhile_is_refused(guarded: Cutover) -> None:
    ann = allowed(signed_in("viewer"), "approve_cutover")
    seen = digest(ann.get(page_of(guarded, "preview")).content.decode())
    services.set_pacing(guarded, {"steps": [50]}, "op")
    refused = ann.post(page_of(guarded, "preview"), {"act": "approve", "seen": seen})
    assert refused.status_code == 409
    assert "Look at it again" in refused.content.decode()


@pytest.mark.parametrize("act", ["pacing", "request", "approve", "withdraw", "override:max_ids"])
def test_a_viewer_may_do_none_of_it(guarded: Cutover, act: str) -> None:
    for place in ("preview", "confirm"):
        assert (
            signed_in("viewer").post(page_of(guarded, place), {"act": act, "reason": "r"}).status_code == 403
        )


def test_a_practice_run_is_asked_for_on_the_page_of_the_checks(
    cutover: Cutover, operator: Client, handed_over: list[Any]
) -> None:
    page = page_of(cutover, "precheck")
    assert "Nobody has practised" in operator.get(page).content.decode()
    assert operator.post(page, {"act": "practise"})["Location"] == page
    shown = operator.get(page).content.decode()
    assert "The practice run is under way; nobody is moved." in shown
    assert "hx-trigger" in shown, "the page does not follow the run"
    refused = operator.post(page, {"act": "practise"})
    assert refused.status_code == 409
    assert "Wait for its findings" in refused.content.decode()
    assert signed_in("viewer").post(page, {"act": "practise"}).status_code == 403


def test_what_a_practice_run_measured_stands_on_the_page(cutover: Cutover, operator: Client) -> None:
    lost = {"node": "bj-2", "unit": "unbj", "error": "It counted nothing."}
    Practice.objects.create(
        cutover=cutover,
        by="olga",
        state=Practice.State.FAILED,
        findings={
            "checks": [],
            "hooks": [],
            "drain": {"nodes": [{"node": "bj-1", "unit": "unbj", "ms": 41, "sessions": 70}, lost],
                      "sessions": 70, "freeze_ms": 41},
            "recovery": [{"unit": "center", "sessions": 70, "handshake_ms": 1.9, "slowest_ms": 4.2,
                          "accepts_per_s": 7000, "all_back_s": 0.01}],
            "obstacles": 1,
        },
    )  # fmt: skip
    page = operator.get(page_of(cutover, "precheck")).content.decode()
    for told in ("41 ms", "It counted nothing.", "7000/s", "1.9 ms", "70"):
        assert told in page, told
