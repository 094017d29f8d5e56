"""Approval: by somebody else, for what was seen, held by the database."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from cutover import emergency, services
from cutover.errors import Refused
from cutover.models import Cutover
from cutover.safety import approval, stored
from tests.cutover.builders import Scene, make_checked, make_draft, make_started, pass_checks
from units.groups import OPERATOR
from units.models import AuditEvent

State = Cutover.State


@pytest.fixture
def ann(db: None) -> User:
    user = User.objects.create_user("ann")
    user.groups.add(Group.objects.get(name=OPERATOR))
    return user


@pytest.fixture
def cutover(scene: Scene) -> Cutover:
    """A checked one of "op" in a namespace that asks for approvals."""
    stored.save(scene.namespace, {"approval": True}, "boss")
    return make_checked(scene)


def start(cutover: Cutover, actor: str = "op") -> Cutover:
    return services.start(cutover, actor, cutover.namespace.name)


def kinds(cutover: Cutover) -> list[str]:
    return [row.kind for row in cutover.events.order_by("pk") if row.kind.startswith("appro")]


def test_without_an_approval_nothing_starts_and_the_sentence_says_whom_to_ask(cutover: Cutover) -> None:
    with pytest.raises(Refused, match="needs the approval of somebody other than op") as refused:
        start(cutover)
    assert f"mshactl cutover request-approval -n {cutover.namespace.name} {cutover.number}" in str(
        refused.value
    )


def test_somebody_else_approves_and_anybody_starts(cutover: Cutover, ann: User) -> None:
    services.request_approval(cutover, "op", "please")
    assert services.status(cutover)["approval"]["state"] == "requested"
    assert approval.waiting(cutover.namespace) == [cutover]
    services.approve(cutover, "ann", "looks right")
    status = services.status(cutover)["approval"]
    assert (status["state"], status["approved_by"], status["comment"]) == ("approved", "ann", "looks right")
    assert approval.waiting(cutover.namespace) == []
    assert start(cutover, "another").state == State.STARTING
    assert cutover.approval_needed
    assert kinds(cutover) == ["approval_requested", "approved"]
    assert AuditEvent.objects.get(action="cutover.approve").reason == "looks right"


def test_nobody_approves_what_they_ask_for(cutover: Cutover) -> None:
    with pytest.raises(Refused, match="nobody approves what they ask for"):
        services.approve(cutover, "op")


def test_the_database_refuses_an_approver_who_is_the_requester(cutover: Cutover) -> None:
    with pytest.raises(IntegrityError, match="cutover_approved_by_another"), transaction.atomic():
        Cutover.objects.filter(pk=cutover.pk).update(approved_by="op")


def test_the_database_refuses_to_run_what_needs_an_approval_and_has_none(cutover: Cutover) -> None:
    with pytest.raises(IntegrityError, match="cutover_approved_before_start"), transaction.atomic():
        Cutover.objects.filter(pk=cutover.pk).update(approval_needed=True, state=State.STARTING)


def edited(cutover: Cutover) -> None:
    services.update_draft(cutover, ranges={"center": ["0~9999"]}, actor="ann")


def paced(cutover: Cutover) -> None:
    services.set_pacing(cutover, {"steps": [10, 50]}, "ann")


def moded(cutover: Cutover) -> None:
    emergency.set_mode(cutover, "emergency", "ann", "fire", cutover.namespace.name)


def overridden(cutover: Cutover) -> None:
    stored.save(cutover.namespace, {"max_ids": 1}, "boss")
    services.override(cutover, "all", "ann", "fire")


@pytest.mark.parametrize("change", [edited, paced, moded, overridden])
def test_whoever_changes_what_was_approved_becomes_the_requester_and_has_to_ask(
    cutover: Cutover, change: Any
) -> None:
    User.objects.create_superuser("sue")
    services.approve(cutover, "sue")
    change(cutover)
    cutover.refresh_from_db()
    assert (cutover.approved_by, cutover.requested_by) == ("", "ann")
    assert kinds(cutover) == ["approved", "approval_lapsed"]
    if cutover.state == State.DRAFT:
        services.preview(cutover, "op")
    with pytest.raises(Refused, match=r"ann changed cutover .* last"):
        services.approve(cutover, "ann")


def test_a_preview_that_moves_the_same_keeps_the_approval(cutover: Cutover, ann: User) -> None:
    services.approve(cutover, "ann")
    services.preview(cutover, "op")
    pass_checks(cutover)
    assert start(cutover).state == State.STARTING


def test_a_draft_that_changed_while_it_was_looked_at_is_not_approved(cutover: Cutover, ann: User) -> None:
    seen = services.status(cutover)["approval"]["digest"]
    services.update_draft(Cutover.objects.get(pk=cutover.pk), ranges={"center": ["0~9999"]}, actor="op")
    services.preview(Cutover.objects.get(pk=cutover.pk), "op")
    with pytest.raises(Refused, match=r"op has changed .* meanwhile. Look at it again"):
        services.approve(cutover, "ann", seen=seen)
    with pytest.raises(Refused, match="meanwhile"):
        services.approve(cutover, "ann")  # what the caller has read is compared, too


def test_a_change_by_a_part_that_forgot_to_say_so_is_found_at_the_start(cutover: Cutover, ann: User) -> None:
    services.approve(cutover, "ann")
    Cutover.objects.filter(pk=cutover.pk).update(pacing={"bake_s": 5})
    with pytest.raises(Refused, match="has changed since ann approved it"):
        start(cutover)


@pytest.mark.parametrize("left", ["inactive", "permission", "deleted"])
def test_an_approver_who_left_does_not_count_and_another_one_can_take_over(
    cutover: Cutover, ann: User, left: str
) -> None:
    User.objects.create_superuser("sue")
    services.approve(cutover, "ann")
    if left == "inactive":
        User.objects.filter(pk=ann.pk).update(is_active=False)
    elif left == "permission":
        ann.groups.clear()
    else:
        ann.delete()
    with pytest.raises(Refused, match=r"ann, who approved .*, may not approve any more.*Ask somebody else"):
        start(cutover)
    assert services.status(cutover)["approval"]["state"] == "void"
    services.approve(cutover, "sue")
    assert start(cutover).state == State.STARTING


def test_an_approval_can_be_withdrawn_with_a_reason(cutover: Cutover, ann: User) -> None:
    services.approve(cutover, "ann")
    with pytest.raises(Refused, match="Give a reason"):
        services.withdraw_approval(cutover, "ann", " ")
    services.withdraw_approval(cutover, "ann", "not tonight")
    with pytest.raises(Refused, match="needs the approval"):
        start(cutover)
    with pytest.raises(Refused, match="is not approved"):
        services.withdraw_approval(cutover, "ann", "again")


def test_asking_for_approvals_later_applies_to_drafts_that_have_not_started(scene: Scene) -> None:
    cutover = make_checked(scene)
    stored.save(scene.namespace, {"approval": True}, "boss")
    with pytest.raises(Refused, match="needs the approval"):
        start(cutover)
    stored.save(scene.namespace, {"approval": False}, "boss")
    assert start(cutover).state == State.STARTING
    assert not cutover.approval_needed


def test_what_runs_keeps_the_approval_it_started_with(cutover: Cutover, ann: User) -> None:
    services.approve(cutover, "ann")
    start(cutover)
    services.unapprove(cutover, "op")
    cutover.refresh_from_db()
    assert cutover.approved_by == "ann"
    with pytest.raises(Refused, match="there is nothing to approve any more"):
        services.approve(cutover, "sue")


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda c: services.approve(c, "ann"), "asks for no approval"),
        (lambda c: services.request_approval(c, "op"), "asks for no approval"),
    ],
)
def test_where_no_approval_is_needed_none_is_taken(scene: Scene, act: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        act(make_checked(scene))


def test_a_draft_without_a_preview_cannot_be_approved_and_an_approved_one_not_twice(
    cutover: Cutover, ann: User, scene: Scene
) -> None:
    with pytest.raises(Refused, match="Generate the preview"):
        services.approve(make_draft(scene, {"center": ["0~9999"]}), "ann")
    services.approve(cutover, "ann")
    with pytest.raises(Refused, match="approved by ann already"):
        services.approve(cutover, "sue")
    with pytest.raises(Refused, match="approved by ann already"):
        services.request_approval(cutover, "op")


def test_a_cutover_of_a_namespace_without_approvals_says_so(scene: Scene) -> None:
    assert services.status(make_started(scene))["approval"]["state"] == "not_needed"


def test_who_may_approve_is_told_on_every_page_and_the_requester_is_not(cutover: Cutover, ann: User) -> None:
    def banners(name: str) -> str:
        user, _created = User.objects.get_or_create(username=name)
        user.groups.add(Group.objects.get(name=OPERATOR))
        User.objects.filter(pk=user.pk).update(is_staff=True)
        client = Client()
        client.force_login(User.objects.get(pk=user.pk))
        address = reverse("banners")
        return client.get(address, {"namespace": cutover.namespace.name}).content.decode()

    said = f"Cutover #{cutover.number} waits for an approval."
    assert said not in banners("ann")
    services.request_approval(cutover, "op")
    assert said in banners("ann")
    assert said not in banners("op")
    services.approve(cutover, "ann")
    assert said not in banners("ann")
