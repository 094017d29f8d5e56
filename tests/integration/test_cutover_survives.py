"""Cutovers with real processes when something is missing: Redis and Celery, the console, a losing edge."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from msha.demo.fleet import Fleet
from msha.remote import Console, Refusal

pytestmark = pytest.mark.slow

OLD = "center=0~5997,unbj=5998~9999"
NEW = "center=0~6380,unbj=6381~9999"


def cutover(fleet: Fleet, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return fleet.mshactl("cutover", *arguments, "-n", "demo", "-o", "json")


def status(fleet: Fleet) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(cutover(fleet, "status").stdout)
    return value


def owner(fleet: Fleet, router_id: int) -> str:
    """The unit that serves the id by the version in effect."""
    done = fleet.mshactl("route", str(router_id), "-n", "demo", "-o", "json")
    return str(json.loads(done.stdout)["unit"])


def until(fact: Callable[[], bool], timeout_s: float = 40.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.1)


def connected(fleet: Fleet) -> bool:
    """Whether every edge obeys the newest version and the console knows it."""
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
        keys = ("round_trip", "back_sources", "handshakes", "nodes", "slbs")
        skips = [word for key in keys for word in ("--skip", f"{key}=it is stopped")]
        started = cutover(fleet, "start", "--ranges", NEW, "--yes", *skips)
        fleet.kill("console")
        assert started.returncode == 0, started.stderr
    finally:
        fleet.children["edge-center"].send_signal(signal.SIGCONT)
    fleet.start("console")
    until(lambda: status(fleet)["phase"] in ("done", "aborted"))
    result = status(fleet)
    assert owner(fleet, 6000) == ("center" if result["phase"] == "done" else "unbj")
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


def started(console: Console) -> str:
    """The address of a cutover to the new rule that was started a moment ago."""
    base = "namespaces/demo/cutovers"
    ranges = {"center": ["0~6380"], "unbj": ["6381~9999"]}
    address = f"{base}/{console.post(base, {'ranges': ranges})['number']}"
    console.post(f"{address}/preview")
    console.post(f"{address}/checks")
    until(lambda: console.get(address)["phase"] == "checked")
    console.post(f"{address}/start", {"namespace": "demo"})
    return address


def turned_around(console: Console, address: str) -> bool:
    """Whether a turn-around was accepted before the cutover had ended."""
    while True:
        try:
            console.post(f"{address}/turn-around", {"reason": "test"})
            return True
        except Refusal as refusal:
            if "does not run" in str(refusal):
                return False


@pytest.mark.usefixtures("back_at_the_start")
def test_a_cutover_is_turned_around_after_its_ids_have_begun_to_move(fleet: Fleet) -> None:
    console = Console(fleet.console_url, fleet.api_token)
    try:
        for _ in range(5):  # from ACTIVATE to the end it is about a tenth of a second
            address = started(console)
            if turned_around(console, address):
                break
            assert cutover(fleet, "rollback", "--yes", "--wait").returncode == 0
        else:
            pytest.fail("no turn-around was early enough")
        until(lambda: console.get(address)["phase"] == "aborted")
        result = console.get(address)
    finally:
        console.close()
    assert (result["ending"], result["turns"]) == ("turned", 1)
    assert owner(fleet, 6000) == "unbj"
