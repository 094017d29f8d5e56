"""What make prints while it prepares .venv."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

PYTHON_THAT_REPORTS = '#!/bin/sh\necho "$*" >> calls\n'


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A directory to make .venv/.dev-stamp in, whose Python writes to ``calls`` what it was asked to do."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        shutil.copy(repository / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON_THAT_REPORTS)
    python.chmod(0o755)
    return tmp_path


def make(checkout: Path, stdout: int) -> list[str]:
    """What pip was told, a line per call."""
    # A make that runs the tests must not hand its own flags on.
    env = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    command = ["make", "PYTHON=.venv/bin/python", "setup"]
    subprocess.run(command, cwd=checkout, stdout=stdout, env=env, check=True, timeout=60)
    calls = (checkout / "calls").read_text().splitlines()
    return [call for call in calls if call.startswith("-m pip install")]


def test_each_stage_says_what_it_does_and_how_long(checkout: Path) -> None:
    with open(checkout / "shown", "w+") as shown:
        make(checkout, shown.fileno())
        shown.seek(0)
        lines = shown.read().splitlines()
    count = sum("==" in line for line in (checkout / "requirements.txt").read_text().splitlines())
    assert lines[0] == f"installing the {count} packages of requirements.txt, about a minute"
    assert lines[1] == "installing msha itself, a few seconds"
    assert lines[2].endswith(" packages of requirements-dev.txt, about a minute")
    assert len(lines) == 3


def test_pip_shows_its_progress_on_a_terminal_alone(checkout: Path) -> None:
    ours, terminal = pty.openpty()
    try:
        on_terminal = make(checkout, terminal)
    finally:
        os.close(terminal)
        os.close(ours)
    (checkout / "calls").unlink()
    for stamp in (checkout / ".venv").glob(".*-stamp"):
        stamp.unlink()
    elsewhere = make(checkout, subprocess.DEVNULL)
    assert [" -q" in call for call in on_terminal] == [False, True, False]  # msha itself is quiet always
    assert [" -qq" in call for call in elsewhere] == [True, True, True]
