"""Break-glass and single-handed cutovers with real processes, everything that is not needed switched off."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msha.demo.clients import Happening
from msha.demo.fleet import REPOSITORY, Fleet
from msha.remote import Console, Refusal
from tests.integration.story import crowd

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

OLD = "center=0~5997,unbj=5998~9999"
NEW = "center=0~6380,unbj=6381~9999"
IDS = (1111, 6249, 8330)


def asked(fleet: Fleet, path: str) -> dict[str, Any]:
    console = Console(fleet.console_url, fleet.api_token)
    try:
        value: dict[str, Any] = console.get(path)
        return value
    finally:
        console.close()


def until(fact: Callable[[], bool], what: str = "", timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if fact():
                return
        except Refusal:
            pass
        assert time.monotonic() < deadline, what or "it did not become true in time"
        time.sleep(0.1)


def in_line(fleet: Fleet) -> bool:
    nodes = asked(fleet, "namespaces/demo/nodes")
    return all(node["live"] and node["applied_version"] == nodes["version"] for node in nodes["nodes"])


def manage(fleet: Fleet, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=REPOSITORY,
        env=fleet.console_environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def offline(*words: str) -> "subprocess.CompletedProcess[str]":
    """``mshactl`` with neither a console nor a token."""
    return subprocess.run(
        [sys.executable, "-m", "msha.cli", *words],
        cwd=REPOSITORY,
        env=Fleet._plain_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def version_of(fleet: Fleet, unit: str) -> int:
    document = json.loads((fleet.edge(unit).state_dir / "snapshot.json").read_bytes())
    return int(document["version"])


def with_keys(fleet: Fleet) -> Path:
    """The private key whose snapshots the edges, restarted, obey."""
    key = fleet.directory / "breakglass.key"
    made = offline("key", "new", "-o", str(key))
    assert made.returncode == 0, made.stderr
    for edge in fleet.edges():
        fleet.kill(edge.name)
        edge.child.argv = (*edge.child.argv, "--breakglass-key", f"{key}.pub")
        fleet.start(edge.name)
    until(lambda: in_line(fleet), "the edges did not come back")
    return key


def test_a_cutover_is_driven_by_one_command_with_neither_redis_nor_celery(
    make_fleet: Callable[..., Fleet],
) -> None:
    fleet = make_fleet()
    for name in ("beat", "worker", "redis"):
        fleet.kill(name)

    async def drive() -> None:
        async with crowd(fleet, IDS) as clients:
            words = ("cutover", "-n", "demo", "--ranges", NEW, "--reason", "drill", "--yes", "-o", "json")
            done = await asyncio.to_thread(manage, fleet, *words)
            assert done.returncode == 0, done.stderr
            report = json.loads(done.stdout)
            assert report["phase"] == "done"
            assert "manage.py cutover" in report["started_by"]
            for phase in ("PREPARE", "FREEZE", "ACTIVATE", "RELEASE"):
                assert phase in done.stderr
            await clients.until(lambda story: len(story.welcomes()) == 2, [6249])
            for untouched in (1111, 8330):
                assert clients[untouched].texts(Happening.DISCONNECTED) == []
                assert clients[untouched].missed() == []

    asyncio.run(drive())
    nothing = manage(fleet, "cutover", "-n", "demo", "--ranges", NEW, "--yes")
    assert nothing.returncode == 1
    assert "othing" in nothing.stderr
    unfenced = manage(fleet, "cutover", "-n", "demo", "--to-zero", "unbj", "--emergency", "--yes")
    assert (unfenced.returncode, "--i-have-fenced" in unfenced.stderr) == (1, True)


def test_a_unit_that_is_gone_is_cut_to_zero_by_one_command(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet()
    for name in ("beat", "worker", "redis", "edge-unbj"):
        fleet.kill(name)
    until(lambda: not all(n["live"] for n in asked(fleet, "namespaces/demo/nodes")["nodes"]))
    skips = [w for key in ("nodes", "round_trip", "handshakes") for w in ("--skip", f"{key}=it is gone")]
    gone = manage(
        fleet, "cutover", "-n", "demo", "--to-zero", "unbj", "--emergency", "--i-have-fenced", "power is off",
        "--reason", "fire", "--yes", *skips,
    )  # fmt: skip
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert "Declared dead: edge-unbj" in gone.stderr, "its node was not declared dead"
    route = json.loads(fleet.mshactl("route", "9999", "-n", "demo", "-o", "json").stdout)
    assert route["unit"] == "center"


def test_ids_are_moved_by_a_signed_file_with_everything_off_and_the_console_adopts_it_afterwards(
    make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    fleet = make_fleet()
    key = with_keys(fleet)
    for name in ("beat", "worker", "console", "redis"):
        fleet.kill(name)
    database = fleet.directory / "msha.sqlite3"
    database.rename(fleet.directory / "away.sqlite3")

    signed = tmp_path / "snapshot.signed.json"
    base = fleet.edge("unbj").state_dir / "snapshot.json"
    words = ["compile", "--after", str(base), "--ranges", NEW, "--sign", str(key), "-o", str(signed), "--yes"]
    assert "takes ids from unbj" in offline(*words).stderr
    done = offline(*words, "--i-have-fenced", "unbj")
    assert done.returncode == 0, done.stderr

    async def move() -> None:
        async with crowd(fleet, IDS) as clients:
            for unit in ("unbj", "center"):  # who loses first
                laid = time.monotonic()
                wanted = json.loads(json.loads(signed.read_text())["body"])["version"]
                (fleet.edge(unit).state_dir / "breakglass.json").write_bytes(signed.read_bytes())
                while await asyncio.to_thread(version_of, fleet, unit) != wanted:
                    assert time.monotonic() - laid < 2, f"{unit} did not take it within a second"
                    await asyncio.sleep(0.02)
            await clients.until(lambda story: len(story.welcomes()) == 2, [6249])
            assert re.search(r"1012", clients[6249].texts(Happening.DISCONNECTED)[0])
            assert len(set(clients[6249].welcomes())) == 2
            for untouched in (1111, 8330):
                assert clients[untouched].texts(Happening.DISCONNECTED) == []
                assert clients[untouched].missed() == []

            # The console comes back, and knows that it does not know.
            (fleet.directory / "away.sqlite3").rename(database)
            for name in ("redis", "console"):
                await asyncio.to_thread(fleet.start, name)
            stopped = lambda: asked(fleet, "namespaces/demo")["publishing_stopped"] != ""  # noqa: E731
            await asyncio.to_thread(until, stopped, "publishing was not stopped")
            listed = await asyncio.to_thread(fleet.mshactl, "alarm", "list", "-n", "demo")
            assert "after_restore" in listed.stdout, listed.stderr
            refused = await asyncio.to_thread(manage, fleet, "after_restore", "-n", "demo")
            assert refused.returncode == 1
            assert "--snapshot FILE" in refused.stderr
            words = ("after_restore", "-n", "demo", "--snapshot", str(base))
            adopted = await asyncio.to_thread(manage, fleet, *words)
            assert adopted.returncode == 0, adopted.stderr
            await asyncio.to_thread(until, lambda: in_line(fleet), "the edges did not follow")
            assert asked(fleet, "namespaces/demo")["publishing_stopped"] == ""
            assert (
                "No alarm" in (await asyncio.to_thread(fleet.mshactl, "alarm", "list", "-n", "demo")).stdout
            )
            for untouched in IDS:
                assert len(clients[untouched].texts(Happening.DISCONNECTED)) == (
                    1 if untouched == 6249 else 0
                )
            # And everything goes on.
            back = ("cutover", "start", "-n", "demo", "--ranges", OLD, "--yes", "--wait", "-o", "json")
            ran = await asyncio.to_thread(fleet.mshactl, *back)
            assert ran.returncode == 0, ran.stderr
            await clients.until(lambda story: len(story.welcomes()) == 3, [6249])

    asyncio.run(move())
