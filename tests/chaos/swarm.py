"""The clients of a campaign, in one process: they send numbered messages, come back, and keep a journal.

Each behaves as the reference client does (routerId in a header, a Location becomes its address, a fixed retry
time), but they differ in how patient they are, whether they keep the Location, and whether they go by
themselves now and then. Some ids have two clients: only those can show an id in two units at once.
"""

import asyncio
import base64
import itertools
import json
import os
import random
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from tests.chaos.asked import answer_at
from tests.chaos.frames import CLOSE, PING, PONG, TEXT, Head, Unframed, close_code, close_payload, frame
from tests.chaos.journal import Journal

#: Longer than an edge holds a handshake.
HANDSHAKE_TIMEOUT_S = 8.0
#: Who goes by itself gives the edge so long to say goodbye.
GOODBYE_TIMEOUT_S = 3.0
MOST_REDIRECTS = 10
LAG_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Character:
    """How one client behaves.

    Attributes:
        retry_s: from the end of a connection to the next attempt.
        every_s: between two messages.
        life_s: it goes by itself after so long; 0 for never.
        keeps: it comes back to the address of its last redirect, as the reference client does.
    """

    router_id: int
    retry_s: float = 1.5
    every_s: float = 1.0
    life_s: float = 0.0
    keeps: bool = True


class Addresses:
    """Where names lead: a unit's sub-domain to its edges in turn, the domain to all edges in turn."""

    def __init__(self, domain: str, edges: Mapping[str, list[tuple[str, int]]]) -> None:
        self.domain = domain
        self.edges = edges
        self.all = [address for of_unit in edges.values() for address in of_unit]

    def pick(self, host: str, attempt: int) -> tuple[str, int]:
        label, _, rest = host.partition(".")
        some = self.edges.get(label, self.all) if rest == self.domain else self.all
        return some[attempt % len(some)]


class Client:
    """One client, from one session to the next."""

    sessions = itertools.count(1)

    def __init__(self, number: int, character: Character, addresses: Addresses, journal: Journal) -> None:
        self.number = number
        self.character = character
        self.addresses = addresses
        self.journal = journal
        self.attempt = number
        self.host, self.target = addresses.domain, "/"
        self.redirects = 0
        self.unit = ""
        """Of the back-source that welcomed its present session."""

    async def run(self) -> None:
        """Comes back for ever."""
        loop = asyncio.get_running_loop()
        while True:
            address = self.addresses.pick(self.host, self.attempt)
            self.attempt += 1
            session = Session(self, next(Client.sessions), address[1])
            try:
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                    await loop.create_connection(lambda s=session: s, *address)
            except (OSError, TimeoutError) as error:
                session.refused(type(error).__name__)
            await session.over
            self.unit = ""
            if session.redirected and self.redirects < MOST_REDIRECTS:
                continue
            self.redirects = 0
            if not self.character.keeps:
                self.host, self.target = self.addresses.domain, "/"
            await asyncio.sleep(self.character.retry_s)

    def follow(self, location: str) -> None:
        """The Location is its address from now on."""
        parts = urlsplit(location)
        self.host = parts.hostname or self.addresses.domain
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.redirects += 1


class Session(asyncio.Protocol):
    """One attempt, and the session that it may become."""

    transport: asyncio.Transport | None = None

    def __init__(self, client: Client, number: int, port: int) -> None:
        self.client = client
        self.number = number
        self.port = port
        loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = loop.create_future()
        self.redirected = False
        self._head = b""
        self._unframed: Unframed | None = None
        self._sent = 0
        self._closed = False
        self._going = False
        self._timer = loop.call_later(HANDSHAKE_TIMEOUT_S, self._no_answer)

    # -- the handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        client = self.client
        port = f":{self.port}"
        transport.write(
            f"GET {client.target} HTTP/1.1\r\nHost: {client.host}{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
            f"routerId: {client.character.router_id}\r\nunitType: unit_type\r\n"
            f"X-Session: {self.number}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._unframed is None:
            self._head += data
            raw, separator, data = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            self._answered(Head(raw))
        if self._unframed is not None:
            for opcode, payload in self._unframed.feed(data):
                self._take(opcode, payload)

    def _answered(self, head: Head) -> None:
        if head.status == 101:
            self._open()
        elif 300 <= head.status < 400 and "location" in head.fields:
            self.redirected = True
            self.client.follow(head.fields["location"])
            self._note("redirect", to=head.fields["location"], n=self.client.redirects)
            self._finish()
        else:
            self.refused(f"HTTP {head.status}")

    def _open(self) -> None:
        self._unframed = Unframed()
        character = self.client.character
        self._note("open", id=character.router_id, port=self.port, redirects=self.client.redirects)
        self.client.redirects = 0
        loop = asyncio.get_running_loop()
        self._timer.cancel()
        self._timer = loop.call_later(random.uniform(0, character.every_s), self._speak)
        if character.life_s:
            loop.call_later(character.life_s * random.uniform(0.5, 1.5), self._go)

    def _no_answer(self) -> None:
        if self._unframed is None:
            self.refused("no answer")

    def refused(self, why: str) -> None:
        """There was no session."""
        if not self.over.done():
            self._note("refused", why=why, port=self.port)
            self._finish()

    # -- the session

    def _speak(self) -> None:
        if self._closed or self._going or self.transport is None:
            return
        self._sent += 1
        self._note("sent", no=self._sent)
        self.transport.write(frame(str(self._sent).encode(), masked=True))
        self._timer = asyncio.get_running_loop().call_later(self.client.character.every_s, self._speak)

    def _go(self) -> None:
        """It goes by itself."""
        if self._closed or self.transport is None:
            return
        self._going = True
        self._note("leave")
        self.transport.write(frame(close_payload(1000), CLOSE, masked=True))
        asyncio.get_running_loop().call_later(GOODBYE_TIMEOUT_S, self._finish)

    def _take(self, opcode: int, payload: bytes) -> None:
        if self._closed:
            return
        if opcode == TEXT:
            first, *rest = payload.decode().split(":")
            if first == "welcome":
                self.client.unit = rest[0]
                self._note("welcome", unit=rest[0], source=int(rest[1]))
            else:
                self._note("answer", no=int(first), unit=rest[0])
        elif opcode == CLOSE:
            self._end(close_code(payload), payload[2:].decode(errors="replace"))
        elif opcode == PING and self.transport is not None:
            self.transport.write(frame(payload, PONG, masked=True))

    def _end(self, code: int, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._note("closed", code=code, reason=reason, by="self" if self._going else "peer")
        if self.transport is not None and code not in (1005, 1006):
            self.transport.write(frame(close_payload(code), CLOSE, masked=True))
        self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unframed is None:
            self.refused("closed without an answer" if exc is None else type(exc).__name__)
        else:
            self._end(1006, "" if exc is None else type(exc).__name__)
        self._finish()

    def _finish(self) -> None:
        self._timer.cancel()
        if not self.over.done():
            if self._unframed is not None and not self._closed:
                self._closed = True
                self._note("closed", code=1006, reason="no goodbye", by="self")
            self.over.set_result(None)
        if self.transport is not None:
            self.transport.close()

    def _note(self, what: str, **facts: Any) -> None:
        self.client.journal.note(what, session=self.number, client=self.client.number, **facts)


async def swarm(addresses: Addresses, characters: list[Character], journal: Journal, state: Path) -> None:
    """Every client is on its way until SIGTERM; the socket answers where each of them is."""
    for number, character in enumerate(characters):
        journal.note("client", client=number, **asdict(character))
    clients = [Client(number, character, addresses, journal) for number, character in enumerate(characters)]
    server = await answer_at(state, lambda _: [(it.character.router_id, it.unit) for it in clients])
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    tasks = []
    for client in clients:
        tasks.append(asyncio.create_task(client.run()))
        if len(tasks) % 20 == 0:
            await asyncio.sleep(0.02)
    lag = asyncio.create_task(_watch_lag(journal))
    print("the clients are on their way", flush=True)
    await over.wait()
    journal.note("over")
    for task in [lag, *tasks]:
        task.cancel()
    await asyncio.gather(lag, *tasks, return_exceptions=True)
    server.close()


async def _watch_lag(journal: Journal) -> None:
    """Moments in which this process was late are noted: what it saw then, it saw late."""
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(LAG_EVERY_S)
        late = loop.time() - before - LAG_EVERY_S
        if late > LAG_EVERY_S:
            journal.note("lag", s=round(late, 3))


def parse_edges(words: tuple[str, ...]) -> dict[str, list[tuple[str, int]]]:
    """``center=127.0.0.1:8101 ...`` by unit."""
    edges: dict[str, list[tuple[str, int]]] = {}
    for word in words:
        unit, _, address = word.partition("=")
        host, _, port = address.rpartition(":")
        edges.setdefault(unit, []).append((host, int(port)))
    return edges


@click.command()
@click.option("--domain", required=True)
@click.option("--characters", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--journal", type=click.Path(path_type=Path), required=True)
@click.option("--state", type=click.Path(path_type=Path), required=True)
@click.argument("edges", nargs=-1)
def main(domain: str, characters: Path, journal: Path, state: Path, edges: tuple[str, ...]) -> None:
    """Run the clients of a JSON file against UNIT=HOST:PORT ..."""
    who = [Character(**each) for each in json.loads(characters.read_text())]
    asyncio.run(swarm(Addresses(domain, parse_edges(edges)), who, Journal(journal), state))


if __name__ == "__main__":
    main()
