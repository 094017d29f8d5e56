"""A second person approves at a shell; the password says who it is."""

import io
import sys
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.core.management.base import CommandError

from cutover.models import Cutover, SafetyRules
from tests.cutover.builders import Scene, make_checked

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "correct horse"


@pytest.fixture
def cutover(scene: Scene) -> Cutover:
    SafetyRules.objects.create(namespace=scene.namespace, approval=True)
    return make_checked(scene)


@pytest.fixture
def second(db: None) -> User:
    user = User.objects.create_user("second", password=PASSWORD)
    user.user_permissions.add(Permission.objects.get(codename="approve_cutover"))
    return user


def approve(cutover: Cutover, monkeypatch: pytest.MonkeyPatch, typed: str = PASSWORD, **words: Any) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{typed}\n"))
    out = io.StringIO()
    call_command(
        "approve_cutover",
        namespace=cutover.namespace.name,
        **{"number": cutover.number, "user": "second", "password_stdin": True, **words},
        stdout=out,
    )
    return out.getvalue()


def test_what_is_approved_is_said_and_kept(
    cutover: Cutover, second: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = approve(cutover, monkeypatch, comment="looked at it")
    assert "383 of 10000 ids" in said
    assert f"{cutover} is approved by second." in said
    cutover.refresh_from_db()
    assert (cutover.approved_by, cutover.approval_comment) == ("second", "looked at it")


def test_another_password_approves_nothing(
    cutover: Cutover, second: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="not the password of second"):
        approve(cutover, monkeypatch, "guessed")
    cutover.refresh_from_db()
    assert cutover.approved_by == ""


def test_who_may_not_approve_is_told_so(
    cutover: Cutover, second: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    second.user_permissions.clear()
    with pytest.raises(CommandError, match="may not approve"):
        approve(cutover, monkeypatch)


def test_nobody_approves_their_own(cutover: Cutover, second: User, monkeypatch: pytest.MonkeyPatch) -> None:
    Cutover.objects.filter(pk=cutover.pk).update(created_by="second", requested_by="second")
    with pytest.raises(CommandError, match="nobody approves what they ask for"):
        approve(cutover, monkeypatch)


def test_a_number_that_is_not_there_is_named(
    cutover: Cutover, second: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="has no cutover #99"):
        approve(cutover, monkeypatch, number=99)
    with pytest.raises(CommandError, match="--password-stdin"):
        approve(cutover, monkeypatch, password_stdin=False)
