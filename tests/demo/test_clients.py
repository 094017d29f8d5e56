"""The simulated clients behave as the reference client does."""

import asyncio
import http
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from msha.demo.clients import AddressBook, Client, Event, Happening, Summary, parse_edge, spread


class Edge:
    """A server that redirects to `elsewhere` while that is set, and otherwise welcomes."""

    def __init__(self, city: str) -> None:
        self.city = city
        self.elsewhere: str | None = None
        self.requests: list[tuple[str, Headers]] = []
        self.connections: list[ServerConnection] = []
        self.server: Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(next(iter(self.server.sockets)).getsockname()[1])

    async def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append((request.path, request.headers))
        if self.elsewhere is None:
            return None
        response = connection.respond(http.HTTPStatus.FOUND, "")
        response.headers["Location"] = self.elsewhere
        return response

    async def talk(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        await connection.send(f"Welcome to the server!{self.city}")
        await connection.wait_closed()


@asynccontextmanager
async def edges(*cities: str) -> AsyncIterator[list[Edge]]:
    running = [Edge(city) for city in cities]
    for edge in running:
        edge.server = await serve(edge.talk, "127.0.0.1", 0, process_request=edge.answer)
    try:
        yield running
    finally:
        for edge in running:
            assert edge.server is not None
            edge.server.close()
            await edge.server.wait_closed()


class Journal:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def note(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, happening: Happening, times: int = 1) -> Event:
        async with asyncio.timeout(10):
            while True:
                found = [event for event in self.events if event.happening is happening]
                if len(found) >= times:
                    return found[times - 1]
                self._changed.clear()
                await self._changed.wait()


def make_book(**edges: Edge) -> AddressBook:
    return AddressBook("chat.test", {code: ("127.0.0.1", edge.port) for code, edge in edges.items()})


async def run_until(client: Client, journal: Journal, happening: Happening, times: int = 1) -> Event:
    """The client is left running."""
    task = asyncio.create_task(client.run())
    journal.task = task  # type: ignore[attr-defined]
    return await journal.until(happening, times)


async def finish(journal: Journal) -> None:
    task = journal.task  # type: ignore[attr-defined]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_client_names_its_id_and_unit_type_in_headers() -> None:
    async with edges("hangzhou") as (center,):
        journal = Journal()
        await run_until(Client(1111, make_book(center=center), journal.note), journal, Happening.MESSAGE)
        await finish(journal)
        path, headers = center.requests[0]
        assert (path, headers["routerId"], headers["unitType"]) == ("/", "1111", "unit_type")
        assert headers["Host"] == f"chat.test:{center.port}"


async def test_a_redirect_is_followed_and_its_location_kept() -> None:
    async with edges("hangzhou", "beijing") as (center, unbj):
        unbj.elsewhere = f"http://center.chat.test:{center.port}/"
        journal = Journal()
        client = Client(1111, make_book(unbj=unbj, center=center), journal.note, retry_s=0.01)
        message = await run_until(client, journal, Happening.MESSAGE)
        assert message.text == "Welcome to the server!hangzhou"
        await center.connections[0].close(1012, "moved")
        closed = await journal.until(Happening.DISCONNECTED)
        assert closed.text == "1012 moved"
        await journal.until(Happening.MESSAGE, 2)
        await finish(journal)
        assert len(unbj.requests) == 1, "the second connection goes straight to the Location"


async def test_a_client_waits_before_it_comes_back() -> None:
    async with edges("hangzhou") as (center,):
        journal = Journal()
        client = Client(1, make_book(center=center), journal.note, retry_s=0.3)
        await run_until(client, journal, Happening.MESSAGE)
        await center.connections[0].close()
        again = await journal.until(Happening.CONNECTED, 2)
        closed = await journal.until(Happening.DISCONNECTED)
        await finish(journal)
        assert again.at_s - closed.at_s >= 0.3


async def test_a_client_in_a_circle_of_redirects_pauses() -> None:
    async with edges("hangzhou") as (center,):
        center.elsewhere = f"http://center.chat.test:{center.port}/"
        journal = Journal()
        client = Client(1, make_book(center=center), journal.note, retry_s=60)
        await run_until(client, journal, Happening.REDIRECTED, 11)
        await asyncio.sleep(0.1)
        await finish(journal)
        assert len(center.requests) == 11


async def test_nobody_at_home_is_noted_and_tried_again() -> None:
    async with edges("hangzhou") as (center,):
        book = make_book(center=center)
    journal = Journal()
    await run_until(Client(1, book, journal.note, retry_s=0.01), journal, Happening.REFUSED, 2)
    await finish(journal)


def test_the_domain_leads_to_each_edge_in_turn_and_a_sub_domain_to_its_own() -> None:
    book = AddressBook("chat.test", dict(map(parse_edge, ["center=127.0.0.11:80", "unbj=127.0.0.12:80"])))
    assert [book.address("chat.test", 80, attempt)[0] for attempt in (0, 1, 2)] == [
        "127.0.0.11",
        "127.0.0.12",
        "127.0.0.11",
    ]
    assert {book.address("unbj.chat.test", 80, attempt) for attempt in (0, 1)} == {("127.0.0.12", 80)}


def test_the_clients_of_the_document_are_among_those_spread_over_the_key_space() -> None:
    router_ids = spread(200)
    assert len(router_ids) == len(set(router_ids)) == 200
    assert {1111, 6249, 8330} <= set(router_ids)
    assert sum(5998 <= router_id <= 6380 for router_id in router_ids) >= 7
    assert min(router_ids) >= 0
    assert max(router_ids) <= 9999


def test_the_summary_tells_once_when_all_are_connected() -> None:
    summary = Summary(expected=1)
    assert list(summary.news()) == ["none connected; so far 0 redirects, 0 disconnects"]
    summary.note(Event(7, Happening.CONNECTED, "ws://x/", 0.0))
    summary.note(Event(7, Happening.MESSAGE, "Welcome to the server!beijing", 0.0))
    first = "1 in beijing; so far 0 redirects, 0 disconnects"
    assert list(summary.news()) == [first, "all 1 clients are connected"]
    assert list(summary.news()) == []
    summary.note(Event(7, Happening.DISCONNECTED, "1012", 0.0))
    assert list(summary.news()) == ["none connected; so far 0 redirects, 1 disconnects"]
