"""A back-source in a process of its own that answers every handshake with 101, so that it can be killed.

``python -m tests.support.switching_server`` prints its port. The process does nothing else and ends with it.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.websocket_wire import accept_key


@dataclass(frozen=True)
class SwitchingServer:
    """The process, and where it listens."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def address(self) -> str:
        """``IP:PORT``."""
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """It is gone without a word."""
        self.process.kill()
        self.process.wait()


@contextmanager
def switching_server() -> Iterator[SwitchingServer]:
    """One that runs."""
    command = [sys.executable, "-m", "tests.support.switching_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield SwitchingServer(process, int(process.stdout.readline()))
        finally:
            process.kill()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        key = next(line for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
        assert fields["upgrade"] == "websocket"
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key.partition(": ")[2]).encode()
        )
        await reader.read()
    except (OSError, asyncio.IncompleteReadError):
        pass  # a probe, or a client that was killed
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(_serve())
