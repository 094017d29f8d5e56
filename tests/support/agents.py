"""Edge processes for tests: started as an operator starts them, watched from outside."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 40.0


class RunningAgent:
    """One ``python -m msha.edge run``.

    Args:
        script: run instead of ``-m msha.edge``, with the same arguments.
    """

    def __init__(self, directory: Path, *words: str, script: Path | None = None, **environment: str) -> None:
        self.log = directory / f"agent-{time.monotonic_ns()}.log"
        self._words = words
        self._script = script
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> "RunningAgent":
        program = [str(self._script)] if self._script else ["-m", "msha.edge"]
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *program,
                *self._words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self._environment},
            )
        return self

    async def ready(self, within_s: float = DEADLINE_S) -> "RunningAgent":
        """It has said that it listens."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise AssertionError(f"not ready in {within_s} s:\n{self.log.read_text()}") from None
        assert line == b"ready\n", self.log.read_text()
        return self

    async def ended(self, within_s: float = DEADLINE_S) -> int:
        """Its exit code."""
        assert self._process is not None
        try:
            async with asyncio.timeout(within_s):
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"still runs after {within_s} s:\n{self.log.read_text()}") from None

    async def rest_of_output(self) -> str:
        """What it wrote to standard output after ``ready``, or in all if that was not read."""
        assert self._process is not None
        assert self._process.stdout is not None
        return (await self._process.stdout.read()).decode()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What it logged under that name."""
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("event") == name:
                    found.append(entry)
        return found

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.events("listening")[0]["address"].rpartition(":")[2])

    @property
    def worker_pids(self) -> list[int]:
        """Its children of this moment."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    async def kill(self) -> None:
        """It is gone, whatever it did."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def eventually(fact: Callable[[], Any], what: str = "", within_s: float = DEADLINE_S) -> Any:
    """The first true value of ``fact``."""
    deadline = time.monotonic() + within_s
    while not (value := fact()):
        assert time.monotonic() < deadline, what or "it did not become true in time"
        await asyncio.sleep(0.02)
    return value


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def takes_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """``IP:PORT`` of a WebSocket server that says everything back."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class _Connect(connect):
    """Reports a redirect instead of following it."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def client(port: int, router_id: int, host: str = "websocket.msha.tech") -> ClientConnection:
    """A session of this id through the edge on the port, as long as somebody serves it."""
    return await _Connect(
        f"ws://{host}/",
        host="127.0.0.1",
        port=port,
        additional_headers={"routerId": str(router_id)},
        compression=None,
        proxy=None,
        ping_interval=None,
        open_timeout=10,
        close_timeout=1,
    )


async def speaks(session: ClientConnection, text: str = "still here") -> bool:
    """Whether the session carries a message there and back."""
    async with asyncio.timeout(5):
        await session.send(text)
        return await session.recv() == text
