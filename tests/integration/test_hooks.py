"""Hooks with real processes: a database that is behind keeps moved ids waiting, and nobody is refused."""

import asyncio
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from msha.demo.clients import Happening
from msha.demo.fleet import Fleet
from msha.remote import Console
from tests.integration.story import crowd
from tests.support.receiver import Receiver, answer, receiving

pytestmark = pytest.mark.slow

SECRET = "a secret that both sides know"
STAYING, MOVED, LATE = (1111, 8330), 6249, 6300
#: For so long the database says that it has not caught up.
BEHIND_S = 1.0


@pytest.fixture
def database() -> Iterator[Receiver]:
    """A database that says "not yet" for a second, and then yes."""
    with receiving() as receiver:

        def behave(handler: BaseHTTPRequestHandler) -> None:
            polls = [one.at for one in receiver.received if one.payload["moment"] == "before_activate"]
            behind = bool(polls) and time.monotonic() - polls[0] < BEHIND_S
            (answer(202, b"replication is behind") if behind else answer(200, b'{"ok": true}'))(handler)

        receiver.lasting = behave
        yield receiver


def set_up(fleet: Fleet, database: Receiver) -> None:
    console = Console(fleet.console_url, fleet.api_token)
    try:
        for name, moment in (("replication", "before_activate"), ("writes", "at_freeze")):
            hook = {"name": name, "moment": moment, "url": database.url, "secret": SECRET}
            console.post("namespaces/demo/hooks", hook)
    finally:
        console.close()


async def test_moved_ids_wait_while_a_hook_says_not_yet_and_are_served_when_it_says_yes(
    fleet: Fleet, database: Receiver
) -> None:
    set_up(fleet, database)
    listed = fleet.mshactl("hook", "list", "-n", "demo")
    assert "replication" in listed.stdout
    assert SECRET not in listed.stdout
    arguments = ("--ranges", "center=0~6380,unbj=6381~9999", "--yes", "--wait", "-n", "demo", "-o", "json")
    async with crowd(fleet, [*STAYING, MOVED]) as people:
        cutting = asyncio.create_task(asyncio.to_thread(fleet.mshactl, "cutover", "start", *arguments))
        await asyncio.to_thread(database.wait_for, 2, 40.0)  # at FREEZE, and before ACTIVATE: ids are frozen
        async with crowd(fleet, [LATE]) as latecomers:
            served = time.monotonic()
            done = await cutting
            assert latecomers[LATE].outline() == ["redirected", "connected"]
        assert done.returncode == 0, done.stderr
        await people.until(lambda story: len(story.welcomes()) == 2, [MOVED])
        heard = {router_id: len(people[router_id].ticks()) for router_id in STAYING}
        for router_id, count in heard.items():
            await people.until(lambda story, count=count: len(story.ticks()) > count + 20, [router_id])
    result = json.loads(done.stdout)
    assert result["phase"] == "done"
    polls = [r for r in database.received if r.payload["moment"] == "before_activate"]
    assert len(polls) >= 2
    assert len({poll.delivery for poll in polls}) == 1
    assert all(poll.signed_with(SECRET) for poll in polls)
    assert polls[0].payload["moved"][0]["ranges"] == [[5998, 6380]]
    assert served > polls[-1].at  # held until the yes
    assert result["frozen_ms"] >= (polls[-1].at - polls[0].at) * 1000
    assert [call["state"] for call in result["hooks"]] == ["succeeded", "succeeded"]
    moved = people[MOVED].outline()
    assert "refused" not in moved
    assert people[MOVED].welcomes() == ["beijing", "hangzhou"]
    assert people[MOVED].texts(Happening.DISCONNECTED)[0].startswith("1012 ")
    for router_id in STAYING:
        assert "disconnected" not in people[router_id].outline()
        assert people[router_id].missed() == []


def test_a_hook_that_does_not_answer_is_tried_out_and_skipped_from_a_shell(
    fleet: Fleet, database: Receiver
) -> None:
    database.lasting = answer(503, b"down for maintenance")
    tried = fleet.mshactl("hook", "test", "writes", "-n", "demo")
    assert tried.returncode == 1
    assert "answered 503: down for maintenance" in tried.stderr or "cannot be reached" in tried.stderr
    nothing = fleet.mshactl("cutover", "skip-hook", "writes", "--reason", "x", "--yes", "-n", "demo")
    assert nothing.returncode == 1
    assert "is not waited for" in nothing.stderr
