"""An old database under a running fleet: publishing stops, the fleet's rule is adopted, everything goes on.

`manage.py after_restore` as it is rehearsed: outside of a cutover and in the middle of one (PROTOCOL P4).
"""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from msha.demo.clients import Happening
from msha.demo.fleet import Fleet
from msha.remote import Console
from tests.integration.story import Crowd, crowd
from tests.integration.test_without_the_control_plane import asked, in_line, manage, until
from tests.support.receiver import answer, receiving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

OLD = "center=0~5997,unbj=5998~9999"
NEW = "center=0~6380,unbj=6381~9999"
NEW_RANGES = {"center": ["0~6380"], "unbj": ["6381~9999"]}
MOVED, STAY = 6249, (1111, 8330)


def backed_up(fleet: Fleet, to: Path) -> None:
    """A copy of the database, made while it is written to."""
    with sqlite3.connect(fleet.directory / "msha.sqlite3") as live, sqlite3.connect(to) as copy:
        live.backup(copy)
    live.close()
    copy.close()


def restored(fleet: Fleet, backup: Path) -> None:
    """The console and everything that writes was killed, and runs again on the old database."""
    for name in ("beat", "worker", "console"):
        if fleet.children[name].running:
            fleet.kill(name)
    database = fleet.directory / "msha.sqlite3"
    for stale in (database, Path(f"{database}-wal"), Path(f"{database}-shm")):
        stale.unlink(missing_ok=True)
    database.write_bytes(backup.read_bytes())
    fleet.start("console")


def rule_of(fleet: Fleet, unit: str) -> dict[str, Any]:
    """What the unit's edge has on its disk."""
    document = json.loads((fleet.edge(unit).state_dir / "snapshot.json").read_bytes())
    rule: dict[str, Any] = document["rule"]
    return rule


def phase_at(fleet: Fleet, unit: str) -> str:
    running = rule_of(fleet, unit)["cutover"]
    return str(running["phase"]) if running else ""


def adopted(fleet: Fleet, ahead: str) -> None:
    """Publishing was stopped with an alarm, asked for the file, adopted it, and went on."""
    until(lambda: asked(fleet, "namespaces/demo")["publishing_stopped"] != "", "publishing was not stopped")
    told = [alarm["kind"] for alarm in asked(fleet, "namespaces/demo/alarms")["alarms"]]
    assert "node_ahead" in told
    until(lambda: all(node["live"] for node in asked(fleet, "namespaces/demo/nodes")["nodes"]))
    refused = manage(fleet, "after_restore", "-n", "demo")
    assert refused.returncode == 1
    assert "--snapshot FILE" in refused.stderr
    start = fleet.mshactl("cutover", "start", "-n", "demo", "--ranges", OLD, "--yes")
    assert start.returncode == 1, "something was published"
    file = fleet.edge(ahead).state_dir / "snapshot.json"
    done = manage(fleet, "after_restore", "-n", "demo", "--snapshot", str(file))
    assert done.returncode == 0, done.stderr
    assert "publishing goes on" in done.stdout


def untouched(clients: Crowd) -> None:
    """Nobody of unmoved ids was disconnected, or missed a message."""
    for router_id in STAY:
        assert clients[router_id].texts(Happening.DISCONNECTED) == [], clients[router_id].outline()
        assert clients[router_id].missed() == []


async def goes_on(fleet: Fleet, clients: Crowd) -> None:
    """All edges obey the newest version, and the next cutover is like any other."""
    await asyncio.to_thread(until, lambda: in_line(fleet), "the edges did not follow")
    assert asked(fleet, "namespaces/demo/alarms")["alarms"] == []
    assert rule_of(fleet, "center")["unit_types"][0]["ranges"] == NEW_RANGES
    came = len(clients[MOVED].welcomes())
    words = ("cutover", "start", "-n", "demo", "--ranges", OLD, "--yes", "--wait", "-o", "json")
    done = await asyncio.to_thread(fleet.mshactl, *words)
    assert done.returncode == 0, done.stderr
    await clients.until(lambda story: len(story.welcomes()) > came, [MOVED])
    untouched(clients)


@asynccontextmanager
async def held_before_activate(fleet: Fleet) -> AsyncIterator[Callable[[], None]]:
    """Cutovers stand in FREEZE until the value is called: a hook says not yet."""
    with receiving() as receiver:
        receiver.lasting = answer(202)
        console = Console(fleet.console_url, fleet.api_token)
        hook = {
            "name": "replication", "moment": "before_activate", "url": receiver.url,
            "secret": "known to both of us", "deadline_s": 300,
        }  # fmt: skip
        await asyncio.to_thread(console.post, "namespaces/demo/hooks", hook)
        console.close()

        def free() -> None:
            receiver.lasting = answer(200, b'{"ok": true}')

        yield free


def started(fleet: Fleet) -> None:
    done = fleet.mshactl("cutover", "start", "-n", "demo", "--ranges", NEW, "--yes")
    assert done.returncode == 0, done.stderr


def test_versions_and_a_whole_cutover_that_were_forgotten_are_adopted(
    make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    fleet = make_fleet()
    backed_up(fleet, tmp_path / "old.sqlite3")

    async def rehearse() -> None:
        async with crowd(fleet, (MOVED, *STAY)) as clients:
            words = ("cutover", "start", "-n", "demo", "--ranges", NEW, "--yes", "--wait")
            assert (await asyncio.to_thread(fleet.mshactl, *words)).returncode == 0
            await clients.until(lambda story: len(story.welcomes()) == 2, [MOVED])
            await asyncio.to_thread(restored, fleet, tmp_path / "old.sqlite3")
            await asyncio.to_thread(adopted, fleet, "center")
            await goes_on(fleet, clients)

    asyncio.run(rehearse())


def test_a_freeze_that_was_forgotten_is_adopted_and_ends_in_the_new_rule(
    make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    fleet = make_fleet()

    async def rehearse() -> None:
        async with held_before_activate(fleet) as free, crowd(fleet, (MOVED, *STAY)) as clients:
            await asyncio.to_thread(backed_up, fleet, tmp_path / "old.sqlite3")
            await asyncio.to_thread(started, fleet)
            await asyncio.to_thread(until, lambda: phase_at(fleet, "unbj") == "freeze", "no FREEZE came")
            await asyncio.to_thread(restored, fleet, tmp_path / "old.sqlite3")
            assert phase_at(fleet, "unbj") == "freeze"
            await asyncio.to_thread(adopted, fleet, "unbj")
            free()
            await asyncio.to_thread(until, lambda: phase_at(fleet, "unbj") == "", "FREEZE did not end")
            await goes_on(fleet, clients)

    asyncio.run(rehearse())


def test_an_activate_that_was_forgotten_is_adopted_and_ends_in_the_new_rule(
    make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    """The gaining edge cannot say that it has ACTIVATE, so that the step cannot have ended."""
    fleet = make_fleet()
    gaining = fleet.edge("center").child.pid
    assert gaining is not None

    async def rehearse() -> None:
        async with held_before_activate(fleet) as free, crowd(fleet, (MOVED, *STAY)) as clients:
            await asyncio.to_thread(started, fleet)
            await asyncio.to_thread(until, lambda: phase_at(fleet, "unbj") == "freeze", "no FREEZE came")
            await asyncio.to_thread(backed_up, fleet, tmp_path / "old.sqlite3")
            await asyncio.to_thread(until, lambda: phase_at(fleet, "center") == "freeze")
            os.kill(gaining, signal.SIGSTOP)  # the agent; its workers serve on
            try:
                free()
                await asyncio.to_thread(until, lambda: phase_at(fleet, "unbj") == "activate", "no ACTIVATE")
                await asyncio.to_thread(fleet.kill, "console")
            finally:
                os.kill(gaining, signal.SIGCONT)
            await asyncio.to_thread(restored, fleet, tmp_path / "old.sqlite3")
            await asyncio.to_thread(adopted, fleet, "unbj")
            await asyncio.to_thread(until, lambda: phase_at(fleet, "unbj") == "", "ACTIVATE did not end")
            await goes_on(fleet, clients)

    asyncio.run(rehearse())


def test_publishing_stays_stopped_while_a_node_has_not_reported_and_the_pager_hears_of_it(
    make_fleet: Callable[..., Fleet], tmp_path: Path
) -> None:
    """The console tells it by itself: neither Celery nor Redis runs, and the pager fails first."""
    fleet = make_fleet()
    with receiving() as pager:
        pager.behaviours = [answer(503, b"not now")]
        console = Console(fleet.console_url, fleet.api_token)
        console.post("alarm-targets", {"name": "pager", "url": pager.url, "secret": "known to both"})
        console.close()
        backed_up(fleet, tmp_path / "old.sqlite3")
        done = fleet.mshactl("cutover", "start", "-n", "demo", "--ranges", NEW, "--yes", "--wait")
        assert done.returncode == 0, done.stderr
        for name in ("edge-unbj", "beat", "worker", "redis"):
            fleet.kill(name)
        restored(fleet, tmp_path / "old.sqlite3")
        until(lambda: asked(fleet, "namespaces/demo")["publishing_stopped"] != "")
        first, again = pager.wait_for(2, 30)[:2]
        assert first.delivery == again.delivery
        assert (first.payload["event"], first.payload["alarm"]["kind"]) == ("raised", "node_ahead")
        assert first.signed_with("known to both")

        file = fleet.edge("center").state_dir / "snapshot.json"
        refused = manage(fleet, "after_restore", "-n", "demo", "--snapshot", str(file))
        assert refused.returncode == 1
        assert "have not reported: edge-unbj" in refused.stderr
        fleet.start("edge-unbj")
        until(lambda: all(node["live"] for node in asked(fleet, "namespaces/demo/nodes")["nodes"]))
        resumed = manage(fleet, "after_restore", "-n", "demo", "--snapshot", str(file))
        assert resumed.returncode == 0, resumed.stderr
        until(lambda: in_line(fleet), "the edges did not follow")
        until(lambda: any(call.payload["event"] == "cleared" for call in pager.received))
        tested = fleet.mshactl("alarm", "test", "-n", "demo")
        assert (tested.returncode, "pager took the test" in tested.stdout) == (0, True), tested.stderr
