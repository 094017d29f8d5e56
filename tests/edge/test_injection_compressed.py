"""Messages of ours between compressed ones, seen by clients that others wrote.

The back-source and the clients keep their compression windows from message to message, which is where a frame
that does not belong to them would show (RFC 7692 7.2).
"""

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.edge.test_injection import Outcome, Speaker, to
from tests.support.edge_worker import EdgeWorker, make_config, make_rule
from tests.support.needs import NODE_MODULES, need

CLIENT = Path(__file__).parent / "injection_client.cjs"
PHRASE = " the quick brown fox jumps over the lazy dog, again and again and again" * 5
TICKS, OURS = 400, 40
LAST = f"tick {TICKS - 1} "

Heard = dict[str, Any]
Listen = Callable[[int], Heard]


def slowly(*parts: str) -> Iterator[str]:
    """The fragments of a message, with room between them."""
    for part in parts:
        yield part
        time.sleep(0.001)


class Ticker:
    """A back-source that compresses, and says a long sequence of nearly equal messages, some in fragments."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.extensions = ""
        self.server: Server = serve(self._tick, "127.0.0.1", 0)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def address(self) -> str:
        """``IP:PORT``."""
        return f"127.0.0.1:{self.server.socket.getsockname()[1]}"

    def _tick(self, connection: ServerConnection) -> None:
        assert connection.response is not None
        self.extensions = connection.response.headers.get("Sec-WebSocket-Extensions", "")
        self.begun.set()
        try:
            for number in range(TICKS):
                text = f"tick {number} {PHRASE}"
                connection.send(slowly(text[:50], text[50:200], text[200:]) if number % 3 == 0 else text)
                time.sleep(0.001)
            connection.recv(timeout=10)
        except ConnectionClosed:
            pass

    def stop(self) -> None:
        """Nobody is served any more."""
        self.server.shutdown()
        self.thread.join()


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    """The only back-source of unit center."""
    server = Ticker()
    yield server
    server.stop()


@pytest.fixture
def serving(bare_worker: EdgeWorker, ticker: Ticker) -> EdgeWorker:
    """A worker in front of it."""
    bare_worker.apply(make_config({"center": [ticker.address]}), make_rule())
    bare_worker.listen()
    return bare_worker


def python(port: int) -> Heard:
    """What Python's `websockets` hears."""
    messages = []
    sock = socket.create_connection(("127.0.0.1", port))
    with connect(f"ws://websocket.test:{port}/?routerId=1111", sock=sock) as client:
        assert client.response is not None
        extensions = client.response.headers["Sec-WebSocket-Extensions"]
        while not messages or not messages[-1].startswith(LAST):
            messages.append(str(client.recv(timeout=20)))
    return {"extensions": extensions, "messages": messages, "closed": 1000}


def _by_node(port: int, *arguments: str) -> Heard:
    kind, *more = arguments
    command = [need("node"), str(CLIENT), kind, f"ws://websocket.test:{port}/?routerId=1111", LAST, *more]
    environment = {**os.environ, "NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    heard: Heard = json.loads(done.stdout)
    return heard


def node(port: int) -> Heard:
    """What Node's `ws` hears."""
    return _by_node(port, "ws")


def chromium(port: int) -> Heard:
    """What a page in Chromium hears."""
    return _by_node(port, "chromium", need("chromium"), "MAP websocket.test 127.0.0.1")


@pytest.mark.parametrize(
    ("listen", "needed"), [(python, ()), (node, ("node", "ws")), (chromium, ("playwright-core", "chromium"))]
)
def test_messages_between_compressed_ones_harm_neither(
    serving: EdgeWorker, ticker: Ticker, listen: Listen, needed: tuple[str, ...]
) -> None:
    for thing in needed:
        need(thing)
    heard: Heard = {}
    listening = threading.Thread(target=lambda: heard.update(listen(serving.port)))
    listening.start()
    assert ticker.begun.wait(30)
    speaker = Speaker(serving)
    outcomes: list[Outcome] = []
    for number in range(OURS):
        outcomes.append(speaker.send(f"ours {number}"))
        time.sleep(0.005)
    listening.join(60)
    for extensions in (ticker.extensions, heard["extensions"]):
        assert re.match("permessage-deflate", extensions)
        assert "no_context_takeover" not in extensions
    assert all(outcome in (to(delivered=1), to(queued=1)) for outcome in outcomes)
    theirs = [message for message in heard["messages"] if message.startswith("tick")]
    ours = [message for message in heard["messages"] if message.startswith("ours")]
    assert theirs == [f"tick {number} {PHRASE}" for number in range(TICKS)]
    assert ours == [f"ours {number}" for number in range(OURS)]
    assert len(heard["messages"]) == TICKS + OURS
    assert heard["closed"] == 1000
