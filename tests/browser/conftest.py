"""A headless Chromium, driven by playwright-core, against a fleet of real processes."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from msha.demo import plan
from msha.demo.fleet import Fleet
from tests.integration.conftest import pytest_runtest_makereport, started  # noqa: F401  a hook
from tests.support.needs import need

RUN = Path(__file__).parent / "run.cjs"
TIMEOUT_S = 100.0


@dataclass(frozen=True)
class Played:
    """What a scenario found out, and the errors of the browser's console while it played."""

    facts: dict[str, Any]
    errors: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]


Play = Callable[..., Played]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two units and 60 clients spread over the ids, so that sessions move."""
    for thing in ("node", "chromium", "playwright-core"):
        need(thing)
    with ExitStack() as stack:
        yield started(Fleet(plan.on_free_ports(tmp_path_factory.mktemp("fleet"), clients=60)), stack)


@pytest.fixture
def play(fleet: Fleet, tmp_path: Path) -> Play:
    """Plays a scenario; it must come to its end."""

    def played(scenario: str, **options: Any) -> Played:
        logins = {
            role: {"user": login.user, "password": login.password} for role, login in fleet.logins.items()
        }
        given = {
            "url": fleet.console_url,
            "logins": logins,
            "chromium": need("chromium"),
            "pictures": str(tmp_path),
            **options,
        }
        done = subprocess.run(
            [need("node"), str(RUN), scenario],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["failure"] is None, f"{result['failure']}\n{result['errors']}\nfacts: {result['facts']}"
        return Played(result["facts"], result["errors"])

    return played
