"""Whoever makes the calls: killed between a call and its record, or many at once, on both databases."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.cutover.hooks.builders import BROKEN, YES
from tests.support.receiver import Receiver
from tests.support.servers import another_database

pytestmark = pytest.mark.slow

Worker = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=["sqlite", "postgres"])
def worker(request: pytest.FixtureRequest, tmp_path: Path, repository: Path) -> Worker:
    """Starts a process that does one act with the database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'workers.sqlite3'}"
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

    def start(*words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cutover.hooks.workers", *words],
            cwd=repository,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def done(process: "subprocess.Popen[str]") -> Any:
    out, problems = process.communicate(timeout=100)
    assert process.returncode == 0, problems
    return json.loads(out.splitlines()[-1])


def test_a_call_whose_worker_was_killed_before_it_was_recorded_is_made_again_under_the_same_id(
    worker: Worker, receiver: Receiver
) -> None:
    prepared = done(worker("prepare", receiver.url))
    arrived, over = threading.Event(), threading.Event()

    def hold(handler: BaseHTTPRequestHandler) -> None:
        arrived.set()
        over.wait(20)

    receiver.behaviours = [hold]
    killed = worker("call", str(prepared["run"]))
    assert arrived.wait(30)
    killed.kill()  # the receiver has done what it was asked, and nobody knows
    killed.wait()
    assert killed.stdout
    assert killed.stderr
    killed.stdout.close()
    killed.stderr.close()
    over.set()
    after = done(worker("take_over", str(prepared["run"])))
    assert after == {"state": "succeeded", "calls": 2, "cutover": "freeze", "early": 0}
    assert [received.delivery for received in receiver.received] == [prepared["key"]] * 2
    assert [received.payload["attempt"] for received in receiver.received] == [1, 2]


def test_of_many_workers_that_find_a_call_due_one_makes_it(worker: Worker, receiver: Receiver) -> None:
    prepared = done(worker("prepare", receiver.url))
    at_once = 0
    most = 0
    lock = threading.Lock()

    def counted(handler: BaseHTTPRequestHandler) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.3)
        (BROKEN if len(receiver.received) == 1 else YES)(handler)
        with lock:
            at_once -= 1

    receiver.lasting = counted
    after = done(worker("call_at_once", str(prepared["run"])))
    assert after["errors"] == []
    assert (most, after["calls"]) == (1, len(receiver.received))
    again = done(worker("take_over", str(prepared["run"]))) if after["state"] == "pending" else after
    assert (again["state"], again["cutover"]) == ("succeeded", "freeze")
    assert len({received.delivery for received in receiver.received}) == 1
