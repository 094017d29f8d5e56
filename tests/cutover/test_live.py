"""The live socket: the whole status at once and after each change, for those who may look."""

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Group, User
from django.test import Client

from cutover import services
from cutover.models import Cutover
from msha.asgi import application
from tests.cutover.builders import make_scene, make_started
from units.groups import VIEWER

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


def logged_in(*groups: str) -> str:
    """The Cookie header of a user of these groups."""
    user = User.objects.create_user("vera", password="a-password-of-tests", is_staff=True)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user)
    return "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())


def socket(cutover_id: int, cookie: str = "", origin: str = "http://127.0.0.1", **more: str) -> Any:
    headers = [(b"origin", origin.encode()), (b"cookie", cookie.encode())]
    headers += [(name.encode(), value.encode()) for name, value in more.items()]
    return WebsocketCommunicator(application, f"/live/cutover/{cutover_id}/", headers=headers)


async def next_status(live: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(await live.receive_from(timeout=5))
    return value


async def test_a_page_that_is_opened_late_gets_everything_at_once_and_then_each_change() -> None:
    scene = await sync_to_async(make_scene)()
    cutover = await sync_to_async(make_started)(scene)
    live = socket(cutover.pk, await sync_to_async(logged_in)(VIEWER))
    assert (await live.connect(timeout=5))[0]
    first = await next_status(live)
    assert (first["phase"], first["id"], first["moved_ids"]) == ("prepare", cutover.pk, 383)
    assert [event["kind"] for event in first["events"]] == [
        "drafted",
        "previewed",
        "checks",
        "started",
        "prepare",
    ]
    await sync_to_async(services.abort)(cutover, "op", "seen enough")
    states = [first["phase"]]
    while states[-1] != "aborting":
        states.append((await next_status(live))["phase"])
    await live.disconnect()


async def test_nothing_is_said_while_nothing_changes() -> None:
    scene = await sync_to_async(make_scene)()
    cutover = await sync_to_async(make_started)(scene)
    live = socket(cutover.pk, await sync_to_async(logged_in)(VIEWER))
    await live.connect(timeout=5)
    await next_status(live)
    assert await live.receive_nothing(timeout=1.0)
    await live.disconnect()


@pytest.mark.parametrize("groups", [(), ("nobody",)])
async def test_a_user_without_the_permission_is_turned_away(groups: tuple[str, ...]) -> None:
    scene = await sync_to_async(make_scene)()
    cutover = await sync_to_async(make_started)(scene)
    live = socket(cutover.pk, await sync_to_async(logged_in)(*groups))
    await live.connect(timeout=5)
    assert (await live.receive_output(timeout=5))["code"] == 4403
    await live.disconnect()


async def test_a_stranger_is_turned_away() -> None:
    live = socket(1)
    await live.connect(timeout=5)
    assert (await live.receive_output(timeout=5))["code"] == 4403
    await live.disconnect()


async def test_a_page_of_another_site_is_refused() -> None:
    cookie = await sync_to_async(logged_in)(VIEWER)
    live = socket(1, cookie, origin="http://evil.example")
    assert not (await live.connect(timeout=5))[0]


async def test_a_cutover_that_does_not_exist_is_said_so() -> None:
    assert not await Cutover.objects.aexists()
    live = socket(4711, await sync_to_async(logged_in)(VIEWER))
    await live.connect(timeout=5)
    assert (await live.receive_output(timeout=5))["code"] == 4404
    await live.disconnect()
