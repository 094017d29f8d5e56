"""An edge is replaced by another one on its port, as docs/edge.md says, under the eyes of real clients."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from msha.demo.clients import Happening
from msha.demo.fleet import REPOSITORY, Fleet
from msha.demo.processes import Child, stop
from tests.integration.story import Crowd, crowd
from tests.support.handshakes import Handshakes

pytestmark = pytest.mark.slow

DEADLINE_S = 40.0


class Upgrades:
    """Nodes of unit center that follow each other on the port of its edge."""

    def __init__(self, fleet: Fleet, stack: ExitStack) -> None:
        self.fleet = fleet
        self._stack = stack
        self.running = {"edge-center": fleet.edge("center").child}

    def state_dir(self, name: str) -> Path:
        return self.fleet.directory / name

    def register(self, name: str) -> None:
        """The console knows the node, and its token lies where the node will look for it."""
        words = ["--unit", "center", "--cluster", "ws-hz-2", "--token-file", str(self._token(name))]
        done = self.fleet.mshactl("node", "add", name, "-n", "demo", *words)
        assert done.returncode == 0, done.stderr

    def follow(self, name: str, other: str, *words: str) -> None:
        """The node is started as the one that takes over from the other."""
        edge = self.fleet.edge("center")
        options = ["--bind", str(edge.address), "--control", self.fleet.plan.control_url, "--workers", "2"]
        options += ["--token-file", str(self._token(name)), "--state-dir", str(self.state_dir(name))]
        options += ["--take-over", str(self.state_dir(other)), *words]
        log = self.fleet.directory / "logs" / f"{name}.log"
        argv = [sys.executable, "-m", "msha.edge", "run", *options]
        child = Child(name, argv, log=log, env=edge.child.env, cwd=REPOSITORY).start()
        self._stack.callback(stop, [child])
        self.running[name] = child

    def says(self, name: str, word: str) -> bool:
        """Whether the log of the node has the word, which the process has not died before saying."""
        self.running[name].check_running()
        return word in self.running[name].text()

    def _token(self, name: str) -> Path:
        return self.fleet.directory / f"{name.removeprefix('edge-')}.token"


@pytest.fixture
def upgrades(fleet: Fleet) -> Iterator[Upgrades]:
    with ExitStack() as stack:
        yield Upgrades(fleet, stack)


async def eventually(fact: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not await asyncio.to_thread(fact):
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.1)


def nodes(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """What the console knows of each node."""
    headers = {"Authorization": f"Bearer {fleet.api_token}"}
    address = f"{fleet.console_url}/api/v1/namespaces/demo/nodes"
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
        return {node["name"]: node for node in json.load(answer)["nodes"]}


def cut_over(fleet: Fleet, ranges: str) -> "subprocess.CompletedProcess[str]":
    words = ["cutover", "start", "-n", "demo", "--ranges", ranges, "--yes", "--wait", "-o", "json"]
    return fleet.mshactl(*words)


def untroubled(clients: Crowd) -> bool:
    """Whether no client missed a message or was disconnected."""
    return all(
        not story.missed() and not story.texts(Happening.DISCONNECTED) for story in clients.stories.values()
    )


async def test_an_edge_is_upgraded_and_brought_back_while_its_clients_notice_nothing(
    fleet: Fleet, upgrades: Upgrades
) -> None:
    port = fleet.edge("center").address.port
    upgrades.register("edge-center-b")
    old_enrolment = nodes(fleet)["edge-center"]["enrolment"]
    pauses_s = (0.0, 0.0, 0.0, 0.05, 0.4, 1.2)
    load = Handshakes(port, host=fleet.plan.domain, router_ids=[9999] * 5 + [1], pauses_s=pauses_s)
    async with crowd(fleet, [*range(100, 5800, 100), 5001, 7000, 9000]) as clients:
        with load:
            upgrades.follow("edge-center-b", "edge-center", "--take-over-drain-s", "7200")
            await eventually(lambda: upgrades.says("edge-center-b", '"taken_over"'))
            await asyncio.sleep(0.5)
        assert load.failures == {}
        assert set(load.statuses) == {101, 302}
        assert load.answered > 500
        assert untroubled(clients)
        await eventually(lambda: nodes(fleet)["edge-center"]["draining"])
        old, new = nodes(fleet)["edge-center"], nodes(fleet)["edge-center-b"]
        assert (old["state"], old["listening"], old["sessions"] >= 58) == ("enrolled", False, True)
        assert (new["state"], new["listening"], new["in_sync"]) == ("enrolled", True, True)

        async with crowd(fleet, [5002, 2]) as later:
            done = await asyncio.to_thread(cut_over, fleet, "center=0~5000,unbj=5001~9999")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["phase"] == "done"
            for group, ids in ((clients, [5001, *range(5100, 5800, 100)]), (later, [5002])):
                await group.until(lambda story: story.welcomes()[-1] == "beijing", ids)
                for router_id, story in group.stories.items():
                    closed = ["1012 moved to unbj"] if router_id in ids else []
                    assert story.texts(Happening.DISCONNECTED) == closed, router_id
                    assert closed or not story.missed()
            assert nodes(fleet)["edge-center"]["state"] == "enrolled"
    assert await asyncio.to_thread(upgrades.running["edge-center"].wait, DEADLINE_S) == 0
    await eventually(lambda: upgrades.says("edge-center-b", '"predecessor_left"'))
    assert {name: node["state"] for name, node in nodes(fleet).items()} == {
        "edge-center": "left",
        "edge-center-b": "enrolled",
        "edge-unbj": "enrolled",
    }

    async with crowd(fleet, [3, 4]) as clients:
        upgrades.follow("edge-center", "edge-center-b")
        await eventually(lambda: upgrades.says("edge-center", '"taken_over"'))
        await eventually(lambda: nodes(fleet)["edge-center"]["in_sync"])
        assert nodes(fleet)["edge-center"]["enrolment"] == old_enrolment + 1
        assert untroubled(clients)
