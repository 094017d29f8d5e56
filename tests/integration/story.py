"""Clients whose every happening is kept, so that a test can tell afterwards what each went through."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from msha.demo.clients import AddressBook, Client, Event, Happening
from msha.demo.fleet import Fleet

TICK = re.compile(r"tick (\d+):(\w+)")


class ResolvesToBeijing(AddressBook):
    """The domain happens to lead to Beijing, as in the product's document."""

    def address(self, host: str, port: int, attempt: int) -> tuple[str, int]:
        if host == self.domain:
            return self.edges["unbj"]
        return super().address(host, port, attempt)


@dataclass
class Story:
    """What happened to one client, in order."""

    events: list[Event] = field(default_factory=list)

    def outline(self) -> list[str]:
        """Everything but the messages: ``connected``, ``redirected``, ``disconnected 1012 ...``."""
        return [event.happening.value for event in self.events if event.happening is not Happening.MESSAGE]

    def texts(self, happening: Happening) -> list[str]:
        """The texts of one kind of event."""
        return [event.text for event in self.events if event.happening is happening]

    def welcomes(self) -> list[str]:
        """The cities that said welcome, in order."""
        return [text.rpartition("!")[2] for text in self.texts(Happening.MESSAGE) if "Welcome" in text]

    def ticks(self) -> list[int]:
        """The numbers that the back-source counted, as they arrived."""
        return [int(match[1]) for text in self.texts(Happening.MESSAGE) if (match := TICK.fullmatch(text))]

    def missed(self) -> list[int]:
        """Numbers that are not the successor of the one before."""
        ticks = self.ticks()
        return [after for before, after in pairwise(ticks) if after != before + 1]


@dataclass
class Crowd:
    """The clients of a test, connected while their context is open."""

    stories: dict[int, Story]

    def __getitem__(self, router_id: int) -> Story:
        return self.stories[router_id]

    async def until(
        self, true_of: Callable[[Story], bool], ids: Iterable[int], timeout_s: float = 20
    ) -> None:
        """It is true of every named client.

        Raises:
            TimeoutError: names the first client of which it is not.
        """
        wanted = list(ids)
        try:
            async with asyncio.timeout(timeout_s):
                while not all(true_of(self.stories[router_id]) for router_id in wanted):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            late = next(router_id for router_id in wanted if not true_of(self.stories[router_id]))
            raise TimeoutError(f"client {late}: {self.stories[late].outline()}") from None


@asynccontextmanager
async def crowd(fleet: Fleet, router_ids: Iterable[int]) -> AsyncIterator[Crowd]:
    """All clients are connected and counted to; they stop when the context ends."""
    edges = {unit.code: (unit.edges[0].host, unit.edges[0].port) for unit in fleet.plan.units}
    book = ResolvesToBeijing(fleet.plan.domain, edges)
    stories = {router_id: Story() for router_id in router_ids}
    tasks = []
    try:
        for router_id, story in stories.items():
            client = Client(router_id, book, story.events.append)
            tasks.append(asyncio.create_task(client.run(), name=f"client {router_id}"))
            if len(tasks) % 20 == 0:
                await asyncio.sleep(0.02)
        gathered = Crowd(stories)
        await gathered.until(lambda story: bool(story.ticks()), stories)
        yield gathered
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
