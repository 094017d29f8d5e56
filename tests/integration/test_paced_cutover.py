"""Cutovers in batches under live clients, with real processes: pause, resume, a gate that undoes, a drain."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from msha.demo.clients import Happening
from msha.demo.fleet import Fleet
from msha.remote import Console
from tests.integration.story import Crowd, Story, crowd

pytestmark = pytest.mark.slow

#: Of 5998~6380: the first batch takes 5998~6036 (10 %), the second 6037~6189, the third the rest.
FIRST, SECOND, THIRD = range(5998, 6037, 4), range(6037, 6190, 8), range(6190, 6381, 10)
MOVED = [*FIRST, *SECOND, *THIRD]
BYSTANDERS = [*range(20, 5900, 290), *range(6400, 9999, 180)]
IN_BEIJING = [router_id for router_id in BYSTANDERS if router_id > 6380]
NEW = "center=0~6380,unbj=6381~9999"


class Latest:
    """The newest cutover of a fleet, looked at and acted on without holding up its clients."""

    def __init__(self, fleet: Fleet) -> None:
        self._console = Console(fleet.console_url, fleet.api_token)

    def close(self) -> None:
        self._console.close()

    async def status(self) -> dict[str, Any]:
        return dict(await asyncio.to_thread(self._console.get, "namespaces/demo/cutovers/latest"))

    async def act(self, name: str, reason: str) -> None:
        path = f"namespaces/demo/cutovers/latest/{name}"
        await asyncio.to_thread(self._console.post, path, {"reason": reason})

    async def until(self, fact: Callable[[dict[str, Any]], bool], timeout_s: float = 40) -> dict[str, Any]:
        """The status as soon as this is true of it."""
        status = await self.status()
        try:
            async with asyncio.timeout(timeout_s):
                while not fact(status):
                    await asyncio.sleep(0.1)
                    status = await self.status()
        except TimeoutError:
            seen = {key: status[key] for key in ("phase", "batch", "held", "alarm", "waiting", "outcome")}
            raise AssertionError(seen) from None
        return status


def closings(people: Crowd, ids: object) -> list[int]:
    """How often each of these clients was disconnected."""
    return [people[router_id].outline().count("disconnected") for router_id in ids]  # type: ignore[attr-defined]


def when(story: Story) -> float:
    """When the client was disconnected, on this machine's monotonic clock."""
    return next(event.at_s for event in story.events if event.happening is Happening.DISCONNECTED)


def owner(fleet: Fleet, router_id: int) -> str:
    """The unit that serves the id by the version in effect."""
    done = fleet.mshactl("route", str(router_id), "-n", "demo", "-o", "json")
    return str(json.loads(done.stdout)["unit"])


def held_by(kind: str, batch: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status["batch"] == batch and status["hold"].get("kind") == kind


def all_counted(closed: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status["sessions_closed"] == closed


def at_home_since_moving(story: Story) -> bool:
    return at_home(story) and "disconnected" in story.outline()


def at_home(story: Story) -> bool:
    return story.outline()[-1] == "connected"


@pytest.fixture
def fleet_of_one(make_fleet: Callable[..., Fleet]) -> Fleet:
    """Its back-sources are killed in the end, so nobody else uses it."""
    return make_fleet()


@pytest.fixture
def latest(fleet_of_one: Fleet) -> Iterator[Latest]:
    with closing(Latest(fleet_of_one)) as found:
        yield found


async def test_batches_under_live_clients_with_a_pause_a_resume_and_a_gate_that_undoes(
    fleet_of_one: Fleet, latest: Latest
) -> None:
    fleet = fleet_of_one
    async with crowd(fleet, [*MOVED, *BYSTANDERS]) as people:
        # The first batch moves its clients, and nobody else's; the bake is there to look.
        gate = "reconnect=0.9,back_source=0.2,refused=0.2,retry_s=4"
        paced = ("--batches", "10,50", "--bake", "6", "--gate", gate, "--on-failure", "undo")
        start = ("cutover", "start", "-n", "demo", "--ranges", NEW, *paced, "--yes")
        started = await asyncio.to_thread(fleet.mshactl, *start)
        assert started.returncode == 0, started.stderr
        await latest.until(held_by("baking", 0))
        await latest.act("pause", "look at the first")
        status = await latest.until(held_by("paused", 0))
        assert [batch["ids"] for batch in status["batches_detail"]] == [39, 153, 191]
        assert status["held"].endswith(": look at the first")
        await people.until(at_home_since_moving, FIRST)
        assert closings(people, FIRST) == [1] * len(FIRST)
        others = [*SECOND, *THIRD, *BYSTANDERS]
        assert closings(people, others) == [0] * len(others)
        assert (await latest.until(all_counted(len(FIRST))))["sessions_closed"] == len(FIRST)

        # Paused, it stays as it is, long after the bake is over; resumed, the second batch moves.
        await asyncio.sleep(7)
        assert (await latest.status())["batch"] == 0
        await latest.act("resume", "all is well")
        await latest.until(held_by("baking", 1))
        await people.until(at_home_since_moving, SECOND)
        await latest.until(all_counted(len(FIRST) + len(SECOND)))
        assert closings(people, [*FIRST, *SECOND]) == [1] * len([*FIRST, *SECOND])

        # The gaining unit's back-sources die: the gate fails, and the cutover takes everything back.
        for name in fleet.plan.unit("center").back_source_names:
            fleet.kill(name)
        ended = await latest.until(lambda status: status["phase"] == "aborted", 60)
        assert ended["ending"] == "turned"
        assert "undid itself" in ended["outcome"]
        assert ended["alarm"] is not None
        await people.until(at_home, MOVED)
        assert closings(people, THIRD) == [0] * len(THIRD)
        assert closings(people, IN_BEIJING) == [0] * len(IN_BEIJING)
        assert {people[router_id].welcomes()[-1] for router_id in MOVED} == {"beijing"}
        assert owner(fleet, 6000) == "unbj"
        assert all(freeze["ms"] < 5000 for freeze in ended["freezes"])


async def test_a_paced_drain_lets_reconnects_arrive_as_a_curve(fleet_of_one: Fleet, latest: Latest) -> None:
    fleet = fleet_of_one
    async with crowd(fleet, [*MOVED, *IN_BEIJING]) as people:
        paced = ("--sessions-per-s", "10", "--interval-s", "1", "--gate", "reconnect=none")
        start = ("cutover", "start", "-n", "demo", "--ranges", NEW, *paced, "--yes", "--wait")
        done = await asyncio.to_thread(fleet.mshactl, *start)
        assert done.returncode == 0, done.stderr
        await people.until(at_home_since_moving, MOVED)
        status = await latest.until(all_counted(len(MOVED)))
        closes = [batch["closes"]["unbj"] for batch in status["batches_detail"]]
        assert sum(closes) == len(MOVED)
        assert max(closes) <= 10
        assert closings(people, MOVED) == [1] * len(MOVED)
        assert closings(people, IN_BEIJING) == [0] * len(IN_BEIJING)
        closed_at = sorted(when(people[router_id]) for router_id in MOVED)
        for first, last in zip(closed_at, closed_at[20:], strict=False):
            assert last - first > 0.5  # more than two batches of ten are never within one interval
        assert closed_at[-1] - closed_at[0] > (len(MOVED) - 10) / 10 - 1
