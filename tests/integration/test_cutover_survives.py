"""Cutovers with real processes when something is missing: Redis and Celery, the console, a losing edge."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from msha.demo.fleet import Fleet

pytestmark = pytest.mark.slow

OLD = "center=0~5997,unbj=5998~9999"
NEW = "center=0~6380,unbj=6381~9999"


def cutover(fleet: Fleet, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return fleet.mshactl("cutover", *arguments, "-n", "demo", "-o", "json")


def status(fleet: Fleet) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(cutover(fleet, "status").stdout)
    return value


def until(fact: Callable[[], bool], timeout_s: float = 40.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.1)


def connected(fleet: Fleet) -> bool:
    """Whether every edge obeys the newest version and the console knows it."""
    from msha.remote import Console, Refusal

    console = Console(fleet.console_url, fleet.api_token)
    try:
        nodes = console.get("namespaces/demo/nodes")
    except Refusal:
        return False
    finally:
        console.close()
    return all(node["live"] and node["applied_version"] == nodes["version"] for node in nodes["nodes"])


@pytest.fixture
def back_at_the_start(fleet: Fleet) -> None:
    """Everything runs, and the first rule is in effect."""
    for name in ("redis", "console", "worker", "beat", "edge-center", "edge-unbj"):
        if not fleet.children[name].running:
            fleet.start(name)
    until(lambda: connected(fleet))
    done = cutover(fleet, "start", "--ranges", OLD, "--yes", "--wait")
    assert done.returncode == 0 or "othing moves" in done.stderr, done.stderr


@pytest.mark.usefixtures("back_at_the_start")
def test_a_cutover_needs_neither_redis_nor_celery(fleet: Fleet) -> None:
    for name in ("beat", "worker", "redis"):
        fleet.kill(name)
    done = cutover(fleet, "start", "--ranges", NEW, "--yes", "--wait")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["phase"] == "done"
    assert result["frozen_ms"] is not None


@pytest.mark.usefixtures("back_at_the_start")
def test_a_cutover_ends_although_the_console_is_killed_in_its_midst(fleet: Fleet) -> None:
    fleet.children["edge-center"].send_signal(signal.SIGSTOP)  # so that it cannot end before the kill
    try:
        keys = ("round_trip", "back_sources", "handshakes", "nodes")
        skips = [word for key in keys for word in ("--skip", f"{key}=it is stopped")]
        started = cutover(fleet, "start", "--ranges", NEW, "--yes", *skips)
        fleet.kill("console")
        assert started.returncode == 0, started.stderr
    finally:
        fleet.children["edge-center"].send_signal(signal.SIGCONT)
    fleet.start("console")
    until(lambda: status(fleet)["phase"] in ("done", "aborted"))
    result = status(fleet)
    in_effect = json.loads(fleet.mshactl("route", "6000", "-n", "demo", "-o", "json").stdout)["unit"]
    assert in_effect == ("center" if result["phase"] == "done" else "unbj")
    assert result["waiting"] == ""


@pytest.mark.usefixtures("back_at_the_start")
def test_a_cutover_whose_losing_edge_is_gone_undoes_itself_and_names_it(fleet: Fleet) -> None:
    fleet.kill("edge-unbj")
    skips = [word for key in ("nodes", "round_trip") for word in ("--skip", f"{key}=it is gone")]
    done = cutover(fleet, "start", "--ranges", NEW, "--yes", "--wait", *skips)
    assert done.returncode == 1
    assert "edge-unbj did not answer" in done.stderr
    result = json.loads(done.stdout)
    assert result["phase"] == "aborted"
    assert result["old"]["ranges"] == {"center": ["0~5997"], "unbj": ["5998~9999"]}
    assert "edge-unbj" in result["alarm"]
    fleet.start("edge-unbj")
    until(lambda: connected(fleet) and status(fleet)["alarm"] is None)
