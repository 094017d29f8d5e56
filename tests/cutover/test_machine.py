"""What hypothesis finds to do to a cutover, on the two real databases (PROTOCOL 7)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import another_database


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_whatever_happens_no_id_has_two_units_and_every_cutover_ends(
    database: str, request: pytest.FixtureRequest, tmp_path: Path, repository: Path
) -> None:
    if database == "sqlite":
        url = f"sqlite:///{tmp_path / 'machine.sqlite3'}"
    else:
        url = another_database(request.getfixturevalue("postgres_url"))
    done = run(repository, url)
    assert done.returncode == 0, done.stderr[-8000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["started"] >= 10, seen
    assert seen["ended done"] >= 1, seen
    assert seen["ended aborted"] >= 1, seen


@pytest.mark.timeout(300)
def test_a_gate_that_asks_live_nodes_alone_is_found_out(tmp_path: Path, repository: Path) -> None:
    done = run(repository, f"sqlite:///{tmp_path / 'machine.sqlite3'}", MACHINE_MUTATION="live_only")
    assert done.returncode != 0
    assert "may still serve it" in done.stderr or "I2:" in done.stderr, done.stderr[-4000:]


def run(repository: Path, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.cutover.machine"],
        cwd=repository,
        env={
            **os.environ,
            "MSHA_DATABASE_URL": url,
            "MSHA_DEBUG": "1",
            "MSHA_LOG_LEVEL": "ERROR",
            "REDIS_URL": "",
            **more,
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
