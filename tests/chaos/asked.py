"""A process that answers one line with one line of JSON on a Unix socket."""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any


async def answer_at(path: Path, answer: Callable[[str], Any]) -> asyncio.AbstractServer:
    """Whoever sends a line to the socket is answered and the connection closed."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = (await reader.readline()).decode().strip()
        writer.write(json.dumps(answer(question)).encode())
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(talk, path)


def ask(path: Path, question: str, timeout_s: float = 20.0) -> Any:
    """The answer to the question."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        client.connect(str(path))
        client.sendall(question.encode() + b"\n")
        whole = b""
        while piece := client.recv(1 << 20):
            whole += piece
    return json.loads(whole)
