"""Alarms are told by webhook to a real server that fails first (PROTOCOL I10)."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connections, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from tests.support.receiver import Receiver, answer, hang_up, receiving
from tests.units.builders import make_namespace
from units import alarm_calls, alarm_targets, alarms
from units.alarms import clear_alarm, raise_alarm, said
from units.errors import Refused
from units.models import Alarm, AlarmDelivery, AlarmTarget, ApiToken, AuditEvent, Namespace
from units.tokens import API_PREFIX, make_token

pytestmark = pytest.mark.django_db

SECRET = "known to both"
State = AlarmDelivery.State


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def space() -> Namespace:
    return make_namespace("told")


class Clock:
    """The console's clock, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self._now = timezone.now

    def __call__(self) -> datetime:
        return self._now() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(timezone, "now", moved)
    return moved


def make_target(receiver: Receiver, name: str = "pager", **fields: Any) -> AlarmTarget:
    target = AlarmTarget(name=name, url=receiver.url, secret=SECRET, **fields)
    alarm_targets.save(target, actor="test")
    return target


def the_delivery() -> AlarmDelivery:
    return AlarmDelivery.objects.get()


def test_a_target_is_told_when_an_alarm_is_raised_and_when_it_is_over(
    receiver: Receiver, space: Namespace
) -> None:
    make_target(receiver)

    alarm = raise_alarm(space.pk, "k", "Something is wrong.", "#3")
    alarm_calls.look()
    clear_alarm(space.pk, "k")
    alarm_calls.look()

    raised, cleared = receiver.received
    assert raised.signed_with(SECRET)
    assert not raised.signed_with("another")
    assert raised.payload["event"] == "raised"
    assert raised.payload["delivery"] == raised.delivery != cleared.delivery
    told = raised.payload["alarm"]
    assert (told["id"], told["namespace"], told["sentence"]) == (alarm.pk, "told", "Something is wrong.")
    assert told["cleared_at"] is None
    assert cleared.payload["event"] == "cleared"
    assert cleared.payload["alarm"]["cleared_at"] is not None
    alarm_calls.look()
    assert len(receiver.received) == 2


def test_a_server_that_fails_first_is_called_again_under_the_same_id_ever_more_seldom(
    receiver: Receiver, space: Namespace, clock: Clock
) -> None:
    make_target(receiver)
    receiver.behaviours = [answer(503, b"not now"), hang_up, answer(200)]
    raise_alarm(space.pk, "k", "s")

    alarm_calls.look()
    alarm_calls.look()
    assert len(receiver.received) == 1, "it was called again at once"
    assert the_delivery().answer == "answered 503: not now"
    clock.ahead += timedelta(seconds=6)
    alarm_calls.look()
    assert len(receiver.received) == 2
    clock.ahead += timedelta(seconds=6)
    alarm_calls.look()
    assert len(receiver.received) == 2, "the second wait is longer"
    clock.ahead += timedelta(seconds=6)
    alarm_calls.look()

    assert len({call.delivery for call in receiver.received}) == 1
    assert len({call.body for call in receiver.received}) == 1
    assert len(receiver.received) == 3
    assert (the_delivery().state, the_delivery().calls) == (State.DELIVERED, 3)


def test_the_waits_double_up_to_an_hour() -> None:
    waits = [alarm_calls.wait_after(calls).total_seconds() for calls in (1, 2, 3, 10, 11, 500)]
    assert waits == [5, 10, 20, 2560, 3600, 3600]


def test_that_it_is_over_is_not_told_before_that_it_was_raised(
    receiver: Receiver, space: Namespace, clock: Clock
) -> None:
    make_target(receiver)
    receiver.behaviours = [answer(500)]
    raise_alarm(space.pk, "k", "s")
    alarm_calls.look()
    clear_alarm(space.pk, "k")

    alarm_calls.look()
    assert len(receiver.received) == 1
    clock.ahead += timedelta(seconds=6)
    alarm_calls.look()
    alarm_calls.look()

    assert [call.payload["event"] for call in receiver.received] == ["raised", "raised", "cleared"]
    assert receiver.received[1].payload["alarm"]["cleared_at"] is None


def test_after_a_day_it_is_given_up_which_is_an_alarm_until_the_target_answers_again(
    receiver: Receiver, space: Namespace, clock: Clock
) -> None:
    dead = make_target(receiver, "dead")
    raise_alarm(space.pk, "k", "Something is wrong.")
    receiver.lasting = answer(500)
    for _ in range(60):
        alarm_calls.look()
        clock.ahead += timedelta(minutes=30)
    given_up = AlarmDelivery.objects.get(target=dead)
    assert given_up.state == State.GAVE_UP
    assert 20 < given_up.calls < 50
    (untold,) = Alarm.objects.filter(kind=alarm_calls.UNTOLD, cleared_at=None)
    assert "dead was not told for a day" in untold.sentence
    assert "Something is wrong." in untold.sentence
    assert not untold.deliveries.exists(), "the target that does not answer is told of that"

    receiver.lasting = answer(200)
    raise_alarm(space.pk, "k2", "Another one.")
    alarm_calls.look()
    untold.refresh_from_db()
    assert untold.cleared_at is not None


def test_two_who_find_that_it_is_over_tell_it_once(receiver: Receiver, space: Namespace) -> None:
    make_target(receiver)
    alarm = raise_alarm(space.pk, "k", "s")
    assert clear_alarm(space.pk, "k") == 1
    cleared_at = Alarm.objects.get().cleared_at

    assert not alarms._clear(alarm), "what somebody else has cleared is cleared again"

    assert Alarm.objects.get().cleared_at == cleared_at
    assert AlarmDelivery.objects.count() == 2


def test_only_the_targets_of_the_namespace_or_of_all_are_told_and_none_that_is_switched_off(
    receiver: Receiver, space: Namespace
) -> None:
    make_target(receiver, "all")
    make_target(receiver, "mine", namespace=space)
    make_target(receiver, "other", namespace=make_namespace("other"))
    make_target(receiver, "off", enabled=False)

    raise_alarm(space.pk, "k", "s")

    assert set(AlarmDelivery.objects.values_list("target__name", flat=True)) == {"all", "mine"}


def test_an_alarm_that_is_undone_with_its_transaction_is_told_to_nobody(
    receiver: Receiver, space: Namespace
) -> None:
    make_target(receiver)
    with transaction.atomic():
        raise_alarm(space.pk, "k", "s")
        transaction.set_rollback(True)
    alarm_calls.look()
    assert receiver.received == []


def _look_apart() -> None:
    try:
        alarm_calls.look()
    finally:
        connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_many_who_look_at_once_call_once(receiver: Receiver, space: Namespace) -> None:
    make_target(receiver)
    raise_alarm(space.pk, "k", "s")

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(_look_apart) for _ in range(6)]:
            done.result()

    assert len(receiver.received) == 1
    assert the_delivery().calls == 1


def test_what_somebody_died_over_is_called_by_the_next_once_the_lease_is_over(
    receiver: Receiver, space: Namespace, clock: Clock
) -> None:
    make_target(receiver)
    raise_alarm(space.pk, "k", "s")
    AlarmDelivery.objects.update(claimed_until=clock() + alarm_calls.LEASE, calls=1)

    alarm_calls.look()
    assert receiver.received == []
    clock.ahead += alarm_calls.LEASE + timedelta(seconds=1)
    alarm_calls.look()
    assert len(receiver.received) == 1


@pytest.mark.django_db(transaction=True)
def test_a_target_that_is_slow_holds_up_no_other(receiver: Receiver, space: Namespace) -> None:
    freed = threading.Event()
    with receiving() as slow, ThreadPoolExecutor(4) as pool:
        slow.lasting = lambda handler: (freed.wait(8), answer(200)(handler))[1]
        make_target(slow, "slow")
        make_target(receiver, "quick")
        raise_alarm(space.pk, "k", "s")

        alarm_calls.look_beside(pool)
        receiver.wait_for(1)
        slow.wait_for(1)
        alarm_calls.look_beside(pool)
        freed.set()
    assert len(slow.received) == 1


def test_a_test_is_sent_once_and_raises_nothing(receiver: Receiver) -> None:
    target = make_target(receiver)
    receiver.lasting = answer(418, b"no coffee")

    tested = alarm_calls.test(target)

    assert (tested.state, tested.answer) == (State.GAVE_UP, "answered 418: no coffee")
    assert receiver.received[0].payload == {"alarm": None, "delivery": str(tested.pk), "event": "test"}
    assert not Alarm.objects.exists()


def test_a_secret_is_in_no_audit_event_and_wrong_addresses_are_refused(receiver: Receiver) -> None:
    target = make_target(receiver)
    target.secret = "a new one"
    alarm_targets.save(target, actor="test")
    written = json.dumps(list(AuditEvent.objects.values("before", "after")))
    assert AuditEvent.objects.count() == 2
    assert SECRET not in written
    assert "a new one" not in written
    for url in (
        "ftp://x/",
        "pager",
        "http://",
        "http://u:p@x/",
        "http://x/#y",
        "http://[::1/",
        "http://a b/",
    ):
        target.url = url
        with pytest.raises(Refused, match="url: "):
            alarm_targets.save(target, actor="test")
    target.url = "http://pager:8080/msha"
    alarm_targets.save(target, actor="test")


def test_facts_are_said_in_the_readers_language(space: Namespace) -> None:
    alarm = raise_alarm(space.pk, "unknown kind", "As it was stored.")
    with translation.override("zh-hans"):
        assert said(alarm) == "As it was stored."


# -- page and API --------------------------------------------------------------------------------------------


def logged_in(group: str) -> Client:
    user = User.objects.create_user(group, password="x", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


def test_the_page_adds_a_target_sends_a_test_and_never_shows_the_secret(
    receiver: Receiver, space: Namespace
) -> None:
    operator = logged_in("operator")
    form = {"name": "pager", "namespace": "", "url": receiver.url, "secret": SECRET, "enabled": "on"}
    added = operator.post(reverse("admin:units_alarmtarget_add"), form)
    assert added.status_code == 302, added.content.decode()[:3000]
    target = AlarmTarget.objects.get()
    address = reverse("admin:units_alarmtarget_change", args=[target.pk])
    assert SECRET not in operator.get(address).content.decode()
    operator.post(address, {**form, "secret": "", "name": "renamed"})
    target.refresh_from_db()
    assert (target.name, target.secret) == ("renamed", SECRET)

    test = reverse("admin:units_alarmtarget_send_test", args=[target.pk])
    assert receiver.url in operator.get(test).content.decode()
    shown = operator.post(test, follow=True).content.decode()
    assert len(receiver.received) == 1
    assert "renamed took" in shown

    viewer = logged_in("viewer")
    assert viewer.post(test).status_code == 403
    seen = viewer.get(address)
    assert seen.status_code == 200
    assert SECRET not in seen.content.decode()
    assert len(receiver.received) == 1


def test_the_api_keeps_targets_tests_them_and_lists_alarms(receiver: Receiver, space: Namespace) -> None:
    user = User.objects.create_user("robot")
    user.groups.add(Group.objects.get(name="operator"))
    token = make_token(API_PREFIX)
    ApiToken.objects.create(user=user, name="t", token_hash=token.hash)
    client = Client(headers={"Authorization": f"Bearer {token.text}"})

    def ask(method: str, path: str, body: Any = None, status: int = 200) -> Any:
        kwargs = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
        response = getattr(client, method)(f"/api/v1/{path}", **kwargs)
        assert response.status_code == status, response.content
        return response.json()

    added = ask("post", "alarm-targets", {"name": "pager", "url": receiver.url, "secret": SECRET})
    assert "secret" not in added
    assert "url: " in json.dumps(
        ask("post", "alarm-targets", {"name": "x", "url": "nowhere", "secret": "s"}, status=409)
    )
    assert ask("post", "alarm-targets/pager/test")["delivered"] is True
    assert ask("patch", "alarm-targets/pager", {"enabled": False})["enabled"] is False
    raise_alarm(space.pk, "k", "Something is wrong.")
    listed = ask("get", "namespaces/told/alarms")["alarms"]
    assert [entry["sentence"] for entry in listed] == ["Something is wrong."]
    clear_alarm(space.pk, "k")
    assert ask("get", "namespaces/told/alarms")["alarms"] == []
    assert len(ask("get", "namespaces/told/alarms?raised=false")["alarms"]) == 1
    assert ask("delete", "alarm-targets/pager") == {"targets": []}
    ask("post", "alarm-targets/pager/test", status=404)
