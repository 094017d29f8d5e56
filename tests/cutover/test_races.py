"""Two starters and many drivers at once, on the two real databases (PROTOCOL C1, I7)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cutover.race import ROUNDS
from tests.support.servers import another_database


@pytest.fixture(params=["sqlite", "postgres"], scope="module")
def outcome(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> dict[str, Any]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('race') / 'race.sqlite3'}"
    else:
        url = another_database(request.getfixturevalue("postgres_url"))
    environment = {
        **os.environ,
        "MSHA_DATABASE_URL": url,
        "MSHA_DEBUG": "1",
        "MSHA_LOG_LEVEL": "ERROR",
        "DJANGO_SETTINGS_MODULE": "msha.settings",
        "REDIS_URL": "",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.cutover.race"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["errors"] == []
    return result


def test_of_two_starters_at_once_one_is_refused_with_a_sentence(outcome: dict[str, Any]) -> None:
    sentences = list(outcome["outcomes"].values())
    assert sentences.count("started") == 1
    assert any("Another cutover of namespace" in sentence for sentence in sentences)


def test_however_many_drive_each_step_is_published_once(outcome: dict[str, Any]) -> None:
    assert outcome["published"] == [4] * ROUNDS  # prepare, freeze, activate, release


def test_versions_and_epochs_have_no_gap(outcome: dict[str, Any]) -> None:
    assert [version for version, _, _ in outcome["rows"]] == list(range(1, 2 + 4 * ROUNDS))
    assert [epoch for _, epoch, _ in outcome["rows"]] == list(range(1 + 4 * ROUNDS))


def test_nothing_is_approved_that_the_approver_has_not_seen(outcome: dict[str, Any]) -> None:
    assert outcome["unseen"] == []
