"""Fleets of real processes: console, Celery worker and beat, edges, back-sources, Redis; each on free ports,
in a directory of its own, gone when the tests are.

``fleet`` is one fleet for all tests of a module; ``make_fleet`` starts another one for one test::

    def test_something(fleet: Fleet) -> None:
        fleet.console_url, fleet.api_token, fleet.logins["operator"].password
        fleet.edge("center").address, fleet.edge("unbj", 2)
        fleet.kill("edge-center", signal.SIGKILL); fleet.start("edge-center"); fleet.logs("worker")
        fleet.mshactl("cutover", "status", "-n", "demo", "-o", "json").stdout
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from msha.demo import plan
from msha.demo.fleet import Fleet
from msha.demo.processes import Child

LOG_TAIL_LINES = 40
LINE_LIMIT = 300
LEFT_OUT = ('"event":"session_end"', '"event":"handshake"', "cutover.tasks.reconcile", "due task reconcile")


def tail(child: Child) -> str:
    """The end of its log, without the lines of single sessions: 200 clients would leave nothing else."""
    lines = [line for line in child.text().splitlines() if not any(word in line for word in LEFT_OUT)]
    return "\n".join(line[:LINE_LIMIT] for line in lines[-LOG_TAIL_LINES:])


def started(fleet: Fleet, stack: ExitStack) -> Fleet:
    """The fleet, running, to be stopped with the stack."""
    stack.callback(fleet.stop_all)
    fleet.start_all()
    return fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two units with one edge each; back-sources count aloud, 20 times a second."""
    with ExitStack() as stack:
        yield started(Fleet(plan.on_free_ports(tmp_path_factory.mktemp("fleet"), tick_s=0.05)), stack)


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Starts a fleet: ``make_fleet(edges_per_unit=2, database_url=..., redis_url=..., clients=200)``."""
    with ExitStack() as stack:
        numbers = iter(range(100))

        def make(**options: Any) -> Fleet:
            directory = tmp_path / f"fleet-{next(numbers)}"
            return started(Fleet(plan.on_free_ports(directory, **{"tick_s": 0.05, **options})), stack)

        yield make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A failed test shows the end of the logs of every fleet it used."""
    report = yield
    if report.failed:
        for used in getattr(item, "funcargs", {}).values():
            if isinstance(used, Fleet):
                for name, child in used.children.items():
                    report.sections.append((f"end of the log of {name}", tail(child)))
    return report
