"""Back-sources that other people wrote, each echoing every message."""

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.edge.conformance.catalogue import MAX_MESSAGE_BYTES
from tests.support.needs import NODE_MODULES, need


@contextmanager
def websockets_server() -> Iterator[int]:
    """The port of a server of the `websockets` library."""
    ports: list[int] = []
    started = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def echo(connection: ServerConnection) -> None:
        try:
            async for message in connection:
                await connection.send(message)
        except ConnectionClosed:
            pass  # the client knows why

    async def run() -> None:
        ended = asyncio.Event()
        loops.append((asyncio.get_running_loop(), ended))
        options = {"max_size": MAX_MESSAGE_BYTES, "close_timeout": 2, "ping_interval": None}
        async with serve(echo, "127.0.0.1", 0, **options) as server:
            ports.append(next(iter(server.sockets)).getsockname()[1])
            started.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(10)
        yield ports[0]
    finally:
        loop, ended = loops[0]
        loop.call_soon_threadsafe(ended.set)
        thread.join()


@contextmanager
def ws_server() -> Iterator[int]:
    """The port of a server of the `ws` package, in a Node process of its own."""
    node = need("node")
    need("ws")
    program = Path(__file__).with_name("echo.cjs")
    process = subprocess.Popen(
        [node, str(program), str(NODE_MODULES / "ws"), str(MAX_MESSAGE_BYTES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["port"])
    finally:
        process.communicate(timeout=10)  # it ends when its standard input does


SERVERS = {"websockets": websockets_server, "ws": ws_server}
