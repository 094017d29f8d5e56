"""Who may look and who may act; looking never acts."""

import pytest

from cutover.models import Check, Cutover
from tests.cutover.builders import Scene, make_checked, make_draft, make_started
from tests.cutover.pages import page_of, signed_in, table

ACTS = [
    ("adjust", {"act": "preview"}),
    ("adjust", {"act": "zero:unbj:center"}),
    ("adjust", {"act": "assign"}),
    ("adjust", {"act": "discard"}),
    ("preview", {"act": "preview"}),
    ("precheck", {"act": "run"}),
    ("precheck", {"act": "retry", "key": "dns"}),
    ("precheck", {"act": "skip", "key": "dns", "reason": "because"}),
    ("confirm", {"act": "start", "namespace": "demo"}),
    ("progress", {"act": "abort", "reason": "because"}),
    ("progress", {"act": "turn_around", "reason": "because"}),
    ("progress", {"act": "finish", "reason": "because"}),
    ("report", {"act": "rollback"}),
]


@pytest.mark.parametrize(("place", "sent"), ACTS)
def test_a_viewer_may_do_nothing(scene: Scene, place: str, sent: dict[str, str]) -> None:
    cutover = make_checked(scene)
    answer = signed_in("viewer").post(
        page_of(cutover, place), {**table(("center", 1), ("unbj", 9999)), **sent}
    )
    assert answer.status_code == 403
    cutover.refresh_from_db()
    assert cutover.state == Cutover.State.CHECKED


@pytest.mark.parametrize(("place", "sent"), ACTS)
def test_an_act_that_the_page_does_not_have_is_refused_to_everybody(
    scene: Scene, place: str, sent: dict[str, str]
) -> None:
    cutover = make_checked(scene)
    answer = signed_in("operator").post(page_of(cutover, place), {**sent, "act": "no_such_act"})
    assert answer.status_code == 403


def test_a_viewer_sees_every_step_and_no_button_of_an_act(scene: Scene) -> None:
    viewer = signed_in("viewer")
    cutover = make_checked(scene)
    for place in ("adjust", "preview", "rules", "precheck", "confirm"):
        page = viewer.get(page_of(cutover, place))
        assert page.status_code == 200, place
        assert 'name="act"' not in page.content.decode(), place
    assert viewer.get("/cutover/new/").status_code == 403


@pytest.mark.parametrize("path", ["/", "/cutover/", "/cutover/history/", "/cutover/1/adjust/"])
def test_whoever_is_not_signed_in_is_asked_to(db: None, client: object, path: str) -> None:
    from django.test import Client

    answer = Client().get(path)
    assert answer.status_code == 302
    assert "/admin/login/" in answer["Location"]


def test_a_user_who_is_no_member_of_the_staff_sees_nothing(scene: Scene) -> None:
    assert signed_in("viewer", staff=False).get("/").status_code == 403


def test_a_user_without_permission_to_view_sees_no_cutover(scene: Scene) -> None:
    cutover = make_draft(scene)
    nobody = signed_in(None)
    assert nobody.get(page_of(cutover, "adjust")).status_code == 403
    assert nobody.get(f"/cutover/{cutover.pk}/status/").status_code == 403
    assert nobody.get("/").status_code == 200


def test_skipping_needs_its_own_permission(scene: Scene) -> None:
    from django.contrib.auth.models import Permission, User

    cutover = make_checked(scene)
    Check.objects.filter(cutover=cutover, key="dns").update(state=Check.State.FAILED)
    client = signed_in("viewer")
    user = User.objects.latest("pk")
    user.user_permissions.add(Permission.objects.get(codename="change_cutover"))
    sent = {"act": "skip", "key": "dns", "reason": "an emergency"}
    assert client.post(page_of(cutover, "precheck"), sent).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="skip_check"))
    assert client.post(page_of(cutover, "precheck"), sent).status_code == 302
    assert Check.objects.get(cutover=cutover, key="dns").skip_reason == "an emergency"


def test_banners_answer_who_was_signed_out_without_a_login_page(scene: Scene) -> None:
    from django.test import Client

    assert Client().get("/banners/").status_code == 401
    assert signed_in("viewer").get("/banners/").status_code == 200


def test_a_get_changes_nothing(scene: Scene) -> None:
    operator = signed_in("operator")
    cutover = make_started(scene)
    for place in ("adjust", "preview", "rules", "precheck", "confirm", "progress", "report"):
        operator.get(page_of(cutover, place) + "?act=abort&reason=x")
    cutover.refresh_from_db()
    assert cutover.state == Cutover.State.PREPARE
