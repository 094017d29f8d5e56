"""Simulated clients: ``python -m msha.demo.clients --domain D --edge center=127.0.0.1:8101 --edge ...``.

Each one behaves as the client printed in the product's document: it sends its routerId as a header, follows a
redirect by making the Location its address (and keeps that address), and comes back 1500 ms after it was
disconnected. An address is never looked up, because ``*.localhost`` does not resolve everywhere: a host
name's first label names the unit whose edge to dial, and the domain itself "resolves" to each of the edges in
turn.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

import click
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

KEY_SPACE = 10_000
CLIENTS_OF_THE_DOCUMENT = (1111, 6249, 8330)
MOST_REDIRECTS = 10
"""In a row. The protocol promises at most three; a client that sees more reports it and waits before it goes
on."""


class Happening(StrEnum):
    CONNECTED = "connected"
    REDIRECTED = "redirected"
    DISCONNECTED = "disconnected"
    REFUSED = "refused"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Event:
    router_id: int
    happening: Happening
    text: str
    """The address connected to, the Location, the close code and reason, the refusal or the message."""
    at_s: float
    """Monotonic."""


@dataclass(frozen=True, slots=True)
class AddressBook:
    """Where the names of one domain lead."""

    domain: str
    edges: Mapping[str, tuple[str, int]]
    """By unit code: the (address, port) of the unit's edge."""
    scheme: str = "http"

    def address(self, host: str, port: int, attempt: int) -> tuple[str, int]:
        """The address to dial for a host name: the unit's for its sub-domain, each edge in turn for the
        domain."""
        label, _, rest = host.partition(".")
        if rest == self.domain and label in self.edges:
            return self.edges[label][0], port
        return list(self.edges.values())[attempt % len(self.edges)]


class _ConnectWithoutFollowing(connect):
    """Redirects are ours to follow: the library refuses to when host and port are given."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@dataclass(slots=True)
class Client:
    """One client with one routerId, connected for as long as its `run` is awaited."""

    router_id: int
    book: AddressBook
    note: Callable[[Event], None]
    path: str = "/"
    unit_type: str = "unit_type"
    retry_s: float = 1.5
    attempt: int = 0
    """Counts looks at the domain's address, so that clients spread over the edges as DNS would spread
    them."""
    host: str = ""
    """The address of the next connection: the domain, later the last Location."""

    async def run(self) -> None:
        self.host = self.host or f"{self.book.scheme}://{self.book.domain}{self.path}"
        redirects = 0
        while True:
            redirected = await self._visit()
            redirects = redirects + 1 if redirected else 0
            if not redirected or redirects > MOST_REDIRECTS:
                await asyncio.sleep(self.retry_s)
                redirects = 0

    async def _visit(self) -> bool:
        """One connection from its handshake to its end is over; whether it was redirected."""
        parts = urlsplit(self.host)
        address = self.book.address(parts.hostname or "", parts.port or 80, self.attempt)
        self.attempt += 1
        port = f":{address[1]}" if address[1] != 80 else ""
        target = f"ws://{parts.hostname}{port}{parts.path or '/'}" + (
            f"?{parts.query}" if parts.query else ""
        )
        headers = {"routerId": str(self.router_id), "unitType": self.unit_type}
        try:
            async with _ConnectWithoutFollowing(
                target,
                host=address[0],
                port=address[1],
                additional_headers=headers,
                compression=None,
                proxy=None,
                open_timeout=15,  # longer than an edge holds a handshake
                ping_interval=None,
            ) as connection:
                self._note(Happening.CONNECTED, target)
                await self._talk(connection)
                ending = f"{connection.close_code} {connection.close_reason}".strip()
                self._note(Happening.DISCONNECTED, ending)
        except InvalidStatus as refusal:
            location = refusal.response.headers.get("Location")
            if 300 <= refusal.response.status_code < 400 and location:
                self._note(Happening.REDIRECTED, location)
                self.host = location
                return True
            self._note(Happening.REFUSED, f"HTTP {refusal.response.status_code}")
        except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
            self._note(Happening.REFUSED, f"{type(error).__name__}: {error}")
        return False

    async def _talk(self, connection: ClientConnection) -> None:
        """The connection has ended, in whatever way."""
        try:
            await connection.send(str(int(time.time() * 1000)))
            while True:
                message = await connection.recv()
                text = message if isinstance(message, str) else message.decode(errors="replace")
                self._note(Happening.MESSAGE, text)
        except ConnectionClosed:
            pass

    def _note(self, happening: Happening, text: str) -> None:
        self.note(Event(self.router_id, happening, text, time.monotonic()))


def spread(count: int) -> list[int]:
    """`count` routerIds: the document's three, and others at even distances over the key space."""
    chosen = list(CLIENTS_OF_THE_DOCUMENT[:count])
    step = KEY_SPACE / max(1, count - len(chosen))
    rest = (int(step * (position + 0.5)) for position in range(count - len(chosen)))
    return sorted({*chosen, *rest})


@dataclass(slots=True)
class Summary:
    """Where the clients are, and what happened to them, in one line when it changed."""

    expected: int
    city: dict[int, str] = field(default_factory=dict)
    """By routerId of a connected client: the city that answered it ("" until it spoke)."""
    happened: Counter[Happening] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    _said: str = ""
    _all_were_connected: bool = False

    def note(self, event: Event) -> None:
        self.happened[event.happening] += 1
        match event.happening:
            case Happening.CONNECTED:
                self.city[event.router_id] = ""
            case Happening.MESSAGE:
                if not self.city.get(event.router_id):
                    self.city[event.router_id] = event.text.rpartition("!")[2] or "?"
            case Happening.DISCONNECTED:
                self.city.pop(event.router_id, None)
            case Happening.REFUSED:
                self.refusals[event.text] += 1
            case Happening.REDIRECTED:
                pass

    def news(self) -> Iterable[str]:
        """The lines to print now."""
        cities = Counter(city for city in self.city.values() if city)
        where = ", ".join(f"{count} in {city}" for city, count in sorted(cities.items())) or "none connected"
        line = (
            f"{where}; so far {self.happened[Happening.REDIRECTED]} redirects, "
            f"{self.happened[Happening.DISCONNECTED]} disconnects"
        )
        if line != self._said:
            self._said = line
            yield line
        for refusal, count in self.refusals.items():
            yield f"{count} x {refusal}"
        self.refusals.clear()
        if not self._all_were_connected and sum(cities.values()) >= self.expected:
            self._all_were_connected = True
            yield f"all {self.expected} clients are connected"


async def simulate(book: AddressBook, router_ids: Sequence[int]) -> None:
    summary = Summary(len(router_ids))
    clients = [Client(router_id, book, summary.note, attempt=n) for n, router_id in enumerate(router_ids)]
    async with asyncio.TaskGroup() as group:
        for number, client in enumerate(clients):
            group.create_task(client.run(), name=f"client {client.router_id}")
            if number % 10 == 9:
                await asyncio.sleep(0.05)
        while True:
            for line in summary.news():
                print(line, flush=True)
            await asyncio.sleep(0.5 if len(summary.city) < summary.expected else 2)


def parse_edge(text: str) -> tuple[str, tuple[str, int]]:
    """``center=127.0.0.1:8101`` as (unit code, (address, port))."""
    unit, equals, address = text.partition("=")
    host, colon, port = address.rpartition(":")
    if not (unit and equals and host and colon and port.isascii() and port.isdigit()):
        raise click.BadParameter(f"{text!r}: write UNIT=ADDRESS:PORT, as in center=127.0.0.1:8101")
    return unit, (host, int(port))


@click.command()
@click.option("--domain", required=True)
@click.option("--edge", "edges", multiple=True, required=True, help="UNIT=ADDRESS:PORT, once for each unit.")
@click.option("--count", default=200, show_default=True, type=click.IntRange(1, KEY_SPACE))
def main(domain: str, edges: tuple[str, ...], count: int) -> None:
    """Connect, follow, reconnect, until told to stop."""
    book = AddressBook(domain, dict(map(parse_edge, edges)))
    try:
        asyncio.run(simulate(book, spread(count)))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
