"""Publishing and joining at once, on the two real databases."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.units.race import NODES, PUBLISHERS, PUBLISHES


@pytest.fixture(params=["sqlite", "postgres"])
def outcome(request: pytest.FixtureRequest, tmp_path: Path, repository: Path) -> dict[str, Any]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'race.sqlite3'}"
    else:
        from tests.support.servers import another_database

        url = another_database(request.getfixturevalue("postgres_url"))
    environment = {
        **os.environ,
        "MSHA_DATABASE_URL": url,
        "MSHA_DEBUG": "1",
        "MSHA_LOG_LEVEL": "ERROR",
        "DJANGO_SETTINGS_MODULE": "msha.settings",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.units.race"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["errors"] == []
    return result


def test_concurrent_publishes_lose_nothing_and_joining_is_seen_by_every_later_one(
    outcome: dict[str, Any],
) -> None:
    versions = [version for version, _, _ in outcome["rows"]]
    assert versions == list(range(1, PUBLISHERS * PUBLISHES + 2))
    # Every step raised the epoch by one and no ordinary publish took one back.
    steps = 0
    for _, epoch, kind in outcome["rows"]:
        steps += kind == "rule"
        assert epoch == steps
    assert steps == PUBLISHERS * (PUBLISHES // 2)
    # A node that was handed version v is counted by every publish above v, and by none up to v (PROTOCOL J1).
    assert len(outcome["joined"]) == NODES
    for node, version in outcome["joined"].items():
        for published, counted in outcome["counted"].items():
            assert (int(node) in counted) == (int(published) > version), (node, version, published)
