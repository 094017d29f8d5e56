"""Two thousand clients that never finish their heads, beside five hundred that only want to be served."""

import asyncio
import select
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from websockets.asyncio.client import ClientConnection

from tests.support.agents import RunningAgent, client, echo_server, eventually, speaks
from tests.support.snapshots import snapshot

TRICKLERS = 2_000
GOOD_CLIENTS = 500
AT_ONCE = 25

#: A byte of a head that could go on for ever, so often.
BYTE_EVERY_S = 0.1
HEAD = b"GET / HTTP/1.1\r\nHost: websocket.msha.tech\r\nX-Patience: " + b"z" * 200


class Tricklers(threading.Thread):
    """Clients that send their heads byte by byte, from one epoll loop.

    Attributes:
        answers: how many heard which first line; empty is none at all.
        gone_after_s: for each that has seen the end of its connection, how long after connecting.
        late_s: how late they were themselves at most, because the machine had no time for them.
    """

    def __init__(self, port: int) -> None:
        super().__init__(name="tricklers")
        self._port = port
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._begun: dict[int, float] = {}
        self._heard: dict[int, bytes] = {}
        self.answers: Counter[str] = Counter()
        self.gone_after_s: list[float] = []
        self.late_s = 0.0
        self.connected = threading.Event()

    def run(self) -> None:
        """Connect all of them, then trickle until the last one is gone."""
        for _ in range(TRICKLERS):
            self._connect()
        self.connected.set()
        sent, due = 1, time.monotonic() + BYTE_EVERY_S
        while self._open and sent < len(HEAD):
            self._wait(due)
            self.late_s = max(self.late_s, time.monotonic() - due)
            for sock in self._open.values():
                try:
                    sock.send(HEAD[sent : sent + 1])
                except OSError:
                    pass  # it has been ended; reading finds out
            sent, due = sent + 1, due + BYTE_EVERY_S
        for sock in self._open.values():
            sock.close()

    def _connect(self) -> None:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.send(HEAD[:1])
        sock.setblocking(False)
        self._open[sock.fileno()] = sock
        self._begun[sock.fileno()] = time.monotonic()
        self._epoll.register(sock, select.EPOLLIN)

    def _wait(self, until: float) -> None:
        """Hear what the edge says, until it is time for the next byte."""
        while (left := until - time.monotonic()) > 0:
            for descriptor, _ in self._epoll.poll(left):
                self._read(descriptor)

    def _read(self, descriptor: int) -> None:
        try:
            data = self._open[descriptor].recv(4096)
        except OSError as error:
            data = b""
            self._heard[descriptor] = str(error).encode()
        if data:
            self._heard[descriptor] = self._heard.get(descriptor, b"") + data
            return
        self._epoll.unregister(descriptor)
        self._open.pop(descriptor).close()
        self.gone_after_s.append(time.monotonic() - self._begun.pop(descriptor))
        self.answers[self._heard.pop(descriptor, b"").partition(b"\r\n")[0].decode()] += 1


async def serve_well(port: int) -> list[float]:
    """How long each good client took to connect and to hear its echo; all of them stay."""
    took: list[float] = []
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            began = time.monotonic()
            session = await client(port, number)
            assert await speaks(session, f"I am {number}")
            took.append(time.monotonic() - began)
        sessions.append(session)

    sessions: list[ClientConnection] = []
    await asyncio.gather(*(one(number) for number in range(GOOD_CLIENTS)))
    for session in sessions:
        assert await speaks(session)
    return took


async def test_tricklers_are_gone_within_six_seconds_and_every_good_client_is_served(tmp_path: Path) -> None:
    async with echo_server() as server:
        file = tmp_path / "snapshot.json"
        file.write_bytes(snapshot(1, server=server).body)
        options = ["--bind", "127.0.0.1:0", "--snapshot", str(file), "--unit", "center"]
        edge = await RunningAgent(
            tmp_path, "run", *options, "--workers", "1", "--access-log", "off", "--drain-s", "0"
        ).start()
        try:
            await edge.ready()
            tricklers = Tricklers(edge.port)
            tricklers.start()
            await eventually(tricklers.connected.is_set, "the tricklers are connected")
            took = await serve_well(edge.port)
            await eventually(lambda: not tricklers.is_alive(), "the tricklers are gone")
        finally:
            await edge.kill()
    assert len(took) == GOOD_CLIENTS
    assert max(took) < 2.0 + tricklers.late_s, f"the slowest took {max(took):.2f} s"
    assert dict(tricklers.answers) == {"HTTP/1.1 408 Request Timeout": TRICKLERS}
    assert min(tricklers.gone_after_s) > 4.9
    assert max(tricklers.gone_after_s) < 6.0 + tricklers.late_s
