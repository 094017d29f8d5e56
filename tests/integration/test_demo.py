"""`make demo`, as its user sees it: one ready line, state that stays, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from msha.demo.ports import free_ports
from tests.support.process_tree import descendants, outlive


class Demo:
    """The supervisor of a demo, in a process of its own."""

    def __init__(self, directory: Path, ports: list[int], repository: Path) -> None:
        argv = [sys.executable, "-m", "tests.support.run_demo", str(directory), *map(str, ports)]
        self.output = directory.parent / "output"
        self.directory = directory
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(argv, cwd=repository, stdout=output, stderr=subprocess.STDOUT)
        self.children: set[int] = set()

    def wait_until_ready(self, timeout_s: float = 90.0) -> str:
        """The line that begins with ``ready:``."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = [line for line in self.lines() if line.startswith("ready:")]
            if found:
                assert len(found) == 1
                self.children = descendants(self.process.pid)
                return found[0]
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)

    def lines(self) -> list[str]:
        return self.output.read_text().splitlines()

    def environment(self) -> dict[str, str]:
        text = (self.directory / "env").read_text()
        return dict(re.findall(r"^export (\w+)=(\S+)$", text, re.MULTILINE))


@pytest.fixture
def start_demo(tmp_path: Path, repository: Path) -> Iterator[Callable[[], Demo]]:
    ports, started = free_ports(7), []

    def start() -> Demo:
        started.append(Demo(tmp_path / "demo", ports, repository))
        return started[-1]

    yield start
    for demo in started:
        demo.process.kill()
        demo.process.wait(10)


@pytest.mark.slow
@pytest.mark.timeout(300)  # two starts
def test_a_demo_leaves_no_orphan_when_killed_and_a_rerun_keeps_its_state(
    start_demo: Callable[[], Demo],
) -> None:
    first = start_demo()
    ready = first.wait_until_ready()
    assert "all 20 clients are connected" in first.output.read_text()
    assert len(first.children) >= 14, (
        "console, worker with a pool, beat, edges with workers, sources, clients"
    )
    environment = first.environment()
    assert f"console {environment['MSHA_URL']}/ user demo password " in ready
    bearer = {"Authorization": f"Bearer {environment['MSHA_TOKEN']}"}
    answer = httpx.get(environment["MSHA_URL"] + "/api/v1/namespaces/demo", headers=bearer, timeout=10)
    assert answer.status_code == 200, answer.text
    assert answer.json()["name"] == "demo"

    first.process.kill()
    first.process.wait(10)
    assert outlive(first.children, 5) == set()

    second = start_demo()
    assert second.wait_until_ready() == ready, "a rerun has the same users and addresses"
    assert second.environment() == environment
    os.kill(second.process.pid, signal.SIGINT)
    assert second.process.wait(30) == 0
    assert outlive(second.children, 1) == set()
