"""A node measures what it accepts on its own listener: at least that, and never a guess."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from msha.edge.node import capacity, probes
from msha.steering.wire import ProbeRequest

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
DRAINING = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: bytes, asked: list[bytes]) -> AsyncIterator[tuple[str, int]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield host, port


async def test_a_node_tells_a_third_of_the_answers_it_gave() -> None:
    asked: list[bytes] = []
    async with listening(OK, asked) as address:
        said = await probes.run(ProbeRequest(1, "accepts"), address, "test")
    assert said["ok"]
    assert said["accepts_per_s"] == pytest.approx(said["answers_per_s"] / 3, abs=1)
    assert len(asked) >= capacity.AT_ONCE
    assert all(request.startswith(b"GET /.well-known/msha/status HTTP/1.1\r\n") for request in asked)


async def test_it_takes_no_longer_than_it_should() -> None:
    async with listening(OK, []) as address:
        said = await capacity.measured(address, 0.05)
    assert isinstance(said["ms"], float)
    assert said["ms"] < 1000


async def test_a_node_that_drains_accepts_nothing() -> None:
    async with listening(DRAINING, []) as address:
        said = await capacity.measured(address)
    assert (said["ok"], said["error"]) == (False, "Its own listener does not answer it.")


async def test_where_nobody_listens_nothing_is_made_up() -> None:
    async with listening(OK, []) as address:
        pass
    assert not (await capacity.measured(address))["ok"]
