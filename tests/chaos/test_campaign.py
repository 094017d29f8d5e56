"""A short campaign and a small replay: the same programs as `make chaos` and `make replay`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: One cutover for each, in this order; the kinds whose promises are the hardest to keep.
SCRIPT = (
    "worker-killed",
    "console-killed+stale-tasks",
    "losing-edge-killed",
    "edge-torn",
    "losing-edge-stopped-past-deadline",
    "partition",
    "losing-disk-full",
    "turned-around",
    "database-away+redis-killed",
)
SEED = 36


def run(repository: Path, *words: str) -> str:
    """What the program printed; it ended well."""
    done = subprocess.run(
        [sys.executable, "-m", *words, "--with-parent"],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_no_fault_of_a_short_campaign_breaks_a_promise(repository: Path, tmp_path: Path) -> None:
    shown = run(
        repository,
        "tests.chaos.campaign",
        *("--cutovers", str(len(SCRIPT)), "--script", ",".join(SCRIPT), "--seed", str(SEED)),
        *("--clients", "100", "--consoles", "1", "--away-s", "5", "--directory", str(tmp_path / "campaign")),
    )
    assert re.search(rf"^cutovers +{len(SCRIPT)}: ", shown, re.MULTILINE), shown
    assert re.search(r"^violations +0$", shown, re.MULTILINE), shown
    assert re.search(r"^wrongly closed +0$", shown, re.MULTILINE), shown


def test_the_walk_through_holds_under_hundreds_of_sessions(repository: Path, tmp_path: Path) -> None:
    shown = run(repository, "tests.chaos.replay", "--clients", "300", "--directory", str(tmp_path / "replay"))
    assert re.search(r"^clients +300, of which 1\d move$", shown, re.MULTILINE), shown
    assert re.search(r"^violations +0$", shown, re.MULTILINE), shown
