"""The back-source server of the demo says what the document's server says."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext
from autobahn.exception import Disconnected
from websockets.asyncio.client import ClientConnection, connect

from msha.demo.backsource import make_application
from msha.demo.ports import free_ports
from msha.demo.processes import Child, stop


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("source")
    (port,) = free_ports(1)
    options = ["--city", "hangzhou", "--port", str(port), "--every-s", "0.5", "--tick-s", "0.05"]
    argv = [sys.executable, "-m", "msha.demo.backsource", *options]
    child = Child("source", argv, log=directory / "log", env=dict(os.environ), cwd=Path.cwd()).start()
    try:
        child.wait_until(lambda it: "ready" in it.text(), 30)
        yield f"ws://127.0.0.1:{port}"
    finally:
        stop([child])


async def hear(connection: ClientConnection, pattern: str) -> str:
    """The first message that matches, within a deadline."""
    async with asyncio.timeout(10):
        async for message in connection:
            assert isinstance(message, str)
            if re.fullmatch(pattern, message):
                return message
    raise AssertionError(f"closed before {pattern} was heard")


async def test_a_visitor_is_welcomed_and_the_others_are_told(server: str) -> None:
    async with (
        connect(f"{server}/", proxy=None) as first,
        connect(f"{server}/chat?x=1", proxy=None) as second,
    ):
        assert await first.recv() == "Welcome to the server!hangzhou"
        assert await second.recv() == "Welcome to the server!hangzhou"
        assert await hear(first, "hangzhou new connection: .*") == "hangzhou new connection: /chat"


async def test_a_visitor_does_not_hear_of_its_own_arrival(server: str) -> None:
    async with connect(f"{server}/", proxy=None) as alone:
        await alone.send("end")
        heard = []
        async for message in alone:
            heard.append(message)
            if message == "end:hangzhou":
                break
        assert not [message for message in heard if "new connection" in str(message)]


async def test_what_one_says_everybody_hears(server: str) -> None:
    async with connect(f"{server}/", proxy=None) as speaker, connect(f"{server}/", proxy=None) as listener:
        await speaker.send("1604389722277")
        assert await hear(speaker, r"\d+:hangzhou") == "1604389722277:hangzhou"
        assert await hear(listener, r"\d+:hangzhou") == "1604389722277:hangzhou"


async def test_everybody_gets_a_random_number_now_and_then(server: str) -> None:
    async with connect(f"{server}/", proxy=None) as listener:
        await hear(listener, r"0\.\d+(e-\d+)?:hangzhou")


async def test_ticks_are_counted_without_a_gap(server: str) -> None:
    async with connect(f"{server}/", proxy=None) as listener:
        numbers = [
            int((await hear(listener, r"tick \d+:hangzhou")).removeprefix("tick ").partition(":")[0])
            for _ in range(10)
        ]
        assert numbers == list(range(numbers[0], numbers[0] + 10))


class Visitor:
    """One connection to the application itself, without a server."""

    def __init__(self, application: Any, *, closing: bool = False) -> None:
        self.heard: list[str] = []
        self.closing = closing
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.inbox.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket", "path": "/", "headers": []}
        self.task = asyncio.create_task(application(scope, self.inbox.get, self.send))

    async def send(self, message: dict[str, Any]) -> None:
        if self.closing and message.get("text", "").startswith("tick"):
            raise Disconnected("Attempt to send on a closed protocol")
        self.heard.append(message.get("text", ""))

    async def hears(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(ticks := [text for text in self.heard if text.startswith("tick")]) < count:
                await asyncio.sleep(0.01)
        return ticks

    async def leave(self) -> None:
        self.inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_visitor_whose_close_is_under_way_costs_the_others_no_message() -> None:
    application = make_application("hangzhou", every_s=60, tick_s=0.02)
    # Channels tends database connections in a thread that all tests share. Where an earlier test left one
    # open, that is forbidden here, although this test has nothing to do with databases.
    async with ThreadSensitiveContext():
        closing, staying = Visitor(application, closing=True), Visitor(application)
        ticks = await staying.hears(5)
        for visitor in (closing, staying):
            await visitor.leave()
    assert ticks == [f"tick {number}:hangzhou" for number in range(1, len(ticks) + 1)]
