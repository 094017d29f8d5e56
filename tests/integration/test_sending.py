"""Texts from `mshactl` to clients of two units, through real edges, while their back-sources talk."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from subprocess import CompletedProcess

import pytest
from websockets.asyncio.client import ClientConnection, connect

from msha.demo.fleet import Fleet

pytestmark = pytest.mark.slow

AT = {1111: "center", 1112: "center", 6249: "unbj", 8330: "unbj"}


@asynccontextmanager
async def clients(fleet: Fleet) -> AsyncIterator[dict[int, ClientConnection]]:
    """A session of each id, at the edge of the unit that owns it."""
    async with AsyncExitStack() as stack:
        found = {}
        for router_id, unit in AT.items():
            address = fleet.edge(unit).address
            found[router_id] = await stack.enter_async_context(
                connect(
                    f"ws://{fleet.plan.domain}/",
                    host=address.host,
                    port=address.port,
                    additional_headers={"routerId": str(router_id)},
                    proxy=None,
                )
            )
        yield found


async def send(fleet: Fleet, *arguments: str, role: str = "operator") -> CompletedProcess[str]:
    return await asyncio.to_thread(fleet.mshactl, "send", "-n", "demo", *arguments, role=role)


async def heard(client: ClientConnection, last: str) -> list[str]:
    """What was not said by the back-source, up to a text."""
    texts: list[str] = []
    async with asyncio.timeout(10):
        while not texts or texts[-1] != last:
            text = str(await client.recv())
            if text.startswith("note "):
                texts.append(text)
    return texts


async def test_a_text_reaches_those_whom_it_is_for_once_and_in_order(fleet: Fleet) -> None:
    async with clients(fleet) as sessions:
        done = await send(fleet, "--ranges", "1111+8000~8999", "note to two")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "To 1111+8000~8999 of unit_type: 2 sessions on 2 of 2 nodes got it.\n"
        done = await send(fleet, "--id", "6249", "--id", "1112", "--unit-type", "unit_type", "note 搬家")
        assert done.stdout == "To 1112+6249 of unit_type: 2 sessions on 2 of 2 nodes got it.\n"
        done = await send(fleet, "--id", "6249", "note to one", "-o", "json")
        said = json.loads(done.stdout)
        assert (said["delivered"] + said["queued"], said["skipped"]) == (1, {})
        assert sorted(node["delivered"] + node["queued"] for node in said["nodes"]) == [0, 1]
        done = await send(fleet, "--id", "4000", "note to nobody")
        assert (done.returncode, done.stdout) == (
            0,
            "To 4000 of unit_type: 0 sessions on 0 of 2 nodes got it.\n",
        )
        assert (await send(fleet, "--all", "note to all")).returncode == 0
        last = "note to all"
        assert await heard(sessions[1111], last) == ["note to two", last]
        assert await heard(sessions[8330], last) == ["note to two", last]
        assert await heard(sessions[1112], last) == ["note 搬家", last]
        assert await heard(sessions[6249], last) == ["note 搬家", "note to one", last]


async def test_who_may_not_or_says_it_wrong_is_told_so(fleet: Fleet) -> None:
    done = await send(fleet, "--all", "note", role="viewer")
    assert (done.returncode, "units.send_message" in done.stderr) == (1, True)
    for arguments in (("note",), ("--all", "--id", "1", "note")):
        done = await send(fleet, *arguments)
        assert (done.returncode, "either --id, or --ranges, or --all" in done.stderr) == (2, True)
    done = await send(fleet, "--ranges", "0~99+", "note")
    assert (done.returncode, "not a range of ids" in done.stderr) == (1, True)
    done = await send(fleet, "--id", "10000", "note")
    assert (done.returncode, "leaves the key space" in done.stderr) == (1, True)


async def test_a_node_that_is_away_is_named_and_the_others_send(fleet: Fleet) -> None:
    async with clients(fleet) as sessions:
        fleet.kill(fleet.edge("unbj").name)
        done = await send(fleet, "--all", "note to who is left")
        assert done.returncode == 1
        assert "2 sessions on 1 of 2 nodes got it" in done.stdout
        assert fleet.edge("unbj").name in done.stderr
        assert await heard(sessions[1111], "note to who is left") == ["note to who is left"]
    fleet.start(fleet.edge("unbj").name)
