"""The agent of a node against a console: what it applies, acks, refuses, remembers and says when it ends.

Real processes throughout: the edge as an operator starts it, with its real workers.
"""

import asyncio
import json
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from msha.edge.node.state import StateDirectory
from msha.steering.snapshot import Published, digest_of
from msha.steering.wire import (
    Ack,
    Confirm,
    Drained,
    Hello,
    Left,
    Nack,
    ProbeRequest,
    ProbeResult,
    Status,
    WorkersExited,
)
from tests.support.agents import (
    RunningAgent,
    client,
    echo_server,
    eventually,
    runs,
    speaks,
    takes_connections,
)
from tests.support.console import TOKEN, Console, token_file
from tests.support.console import console as open_console
from tests.support.snapshots import snapshot

Start = Callable[..., Awaitable[RunningAgent]]


@pytest.fixture
async def console() -> AsyncIterator[Console]:
    async with open_console() as it:
        yield it


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async with echo_server() as address:
        yield address


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
async def start(tmp_path: Path, console: Console, state: Path) -> AsyncIterator[Start]:
    """Starts a node of the console; further words are options of ``run``."""
    agents: list[RunningAgent] = []

    async def start(*words: str, workers: int = 1, drain_s: float = 1, token: str = TOKEN) -> RunningAgent:
        options = ["--bind", "127.0.0.1:0", "--control", console.url, "--state-dir", str(state)]
        options += ["--token-file", str(token_file(tmp_path, token)), "--workers", str(workers)]
        agent = RunningAgent(tmp_path, "run", *options, "--drain-s", str(drain_s), *words)
        agents.append(agent)
        return await agent.start()

    yield start
    for agent in agents:
        await agent.kill()


async def leave(state: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``python -m msha.edge leave``."""
    agent = await RunningAgent(state.parent, "leave", "--state-dir", str(state)).start()
    code = await agent.ended(60)
    return code, await agent.rest_of_output(), agent.log.read_text()


async def waits(agent: RunningAgent) -> None:
    """The console was not reached, and a second later the agent still does not listen."""
    await eventually(lambda: agent.events("console_unreachable"))
    await asyncio.sleep(1)
    assert agent.events("listening") == []


def meta(state: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((state / "snapshot.meta").read_text())
    return loaded


def in_sync(status: Status) -> bool:
    return status.in_sync


# -- joining -----------------------------------------------------------------------------------------------


async def test_a_new_node_does_not_listen_before_it_was_delivered_a_snapshot(
    console: Console, start: Start, server: str
) -> None:
    agent = await start()
    first = await console.expect(Status)
    assert not first.listening
    assert (first.version, agent.events("listening")) == (0, [])
    console.newest = snapshot(1, server=server)
    await agent.ready()
    ack = await console.expect(Ack)
    assert (ack.enrolment, ack.version, ack.epoch) == (1, 1, 1)
    session = await client(agent.port, 1111)
    assert await speaks(session)
    await session.close()


async def test_an_ack_means_that_the_snapshot_is_on_disk(console: Console, start: Start, state: Path) -> None:
    console.newest = snapshot(1)
    await start()
    ack = await console.expect(Ack)
    assert (state / "snapshot.json").read_bytes() == console.newest.body
    assert (meta(state)["version"], meta(state)["digest"], meta(state)["enrolment"]) == (1, ack.digest, 1)


async def test_what_cannot_be_written_is_refused_and_the_last_good_snapshot_stays_in_force(
    console: Console, start: Start, state: Path, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    (state / ".snapshot.json.new").mkdir()  # not even root writes to a directory
    console.publish(snapshot(2, server=server))
    nack = await console.expect(Nack)
    assert (nack.version, nack.enrolment) == (2, 1)
    assert "could not be written to disk" in nack.reason
    status = await console.expect(Status)
    assert (status.version, status.listening, status.in_sync) == (1, True, False)
    assert console.count(Ack) == 1
    session = await client(agent.port, 1111)
    assert await speaks(session)
    await session.close()

    (state / ".snapshot.json.new").rmdir()
    ack = await console.expect(Ack)  # it tries again by itself
    assert ack.version == 2


async def test_a_full_disk_leads_to_a_nack_and_to_no_ack(console: Console, start: Start, state: Path) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
    console.publish(snapshot(2))
    nack = await console.expect(Nack)
    assert "File too large" in nack.reason
    assert (state / "snapshot.json").read_bytes() == snapshot(1).body
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (await console.expect(Ack)).version == 2


async def test_an_older_version_is_refused(console: Console, start: Start, state: Path) -> None:
    console.newest = snapshot(5)
    await (await start()).ready()
    await console.expect(Ack)
    console.deliver(snapshot(4))
    nack = await console.expect(Nack)
    assert (nack.version, "below version 5" in nack.reason) == (4, True)
    assert meta(state)["version"] == 5


async def test_another_content_for_the_same_version_is_refused(
    console: Console, start: Start, state: Path
) -> None:
    console.newest = snapshot(5)
    await (await start()).ready()
    await console.expect(Ack)
    console.deliver(snapshot(5, comment="other"))
    nack = await console.expect(Nack)
    assert "one digest for ever" in nack.reason
    assert not (await console.expect(Status)).in_sync
    assert (state / "snapshot.json").read_bytes() == snapshot(5).body


async def test_a_body_that_does_not_have_its_digest_is_refused(console: Console, start: Start) -> None:
    console.newest = snapshot(5)
    await (await start()).ready()
    await console.expect(Ack)
    console.deliver(snapshot(6), digest="0" * 64)
    assert "digest" in (await console.expect(Nack)).reason


async def test_the_version_never_goes_down_over_a_restart(
    console: Console, start: Start, state: Path
) -> None:
    console.newest = snapshot(5)
    agent = await (await start()).ready()
    await console.expect(Ack)
    await agent.kill()
    console.newest = snapshot(4)
    agent = await start()
    hello = await console.expect(Hello)
    assert (hello.version, hello.enrolment, hello.epoch) == (5, 1, 1)
    console.deliver(snapshot(4))
    assert "below version 5" in (await console.expect(Nack)).reason
    await agent.ready()  # on its own file: the last good one stays in force
    assert (await console.expect(Status, lambda it: it.listening)).version == 5


# -- in sync -----------------------------------------------------------------------------------------------


async def test_a_node_is_in_sync_while_its_statuses_are_confirmed_and_not_three_seconds_longer(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(1)
    await (await start()).ready()
    await console.expect(Status, in_sync)
    console.confirms = False
    started = asyncio.get_running_loop().time()
    await console.expect(Status, lambda it: not it.in_sync)
    assert asyncio.get_running_loop().time() - started < 4.2


async def test_a_confirmation_of_another_version_does_not_count(console: Console, start: Start) -> None:
    console.newest = snapshot(1)
    await (await start()).ready()
    await console.expect(Status, in_sync)
    console.newest = snapshot(2)  # published, but it does not reach the node
    out = await console.expect(Status, lambda it: not it.in_sync)
    assert (await console.expect(Status, lambda it: it.seq > out.seq)).in_sync is False


async def test_a_refusal_ends_being_in_sync_at_once(console: Console, start: Start) -> None:
    console.newest = snapshot(1)
    await (await start()).ready()
    await console.expect(Status, in_sync)
    console.deliver(snapshot(2), digest="0" * 64)
    await console.expect(Nack)
    assert not (await console.expect(Status)).in_sync


async def test_a_late_confirmation_of_an_old_connection_does_not_count(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    old = await console.expect(Status, lambda it: it.in_sync and it.seq > 2)
    console.confirms = False
    await console.hang_up()
    await console.expect(Hello)
    first = await console.expect(Status)
    assert (first.seq, first.in_sync) == (1, False)
    console.say(Confirm(old.seq + 100, 1, snapshot(1).digest))
    assert not (await console.expect(Status)).in_sync
    assert await out_of_sync(agent)


async def out_of_sync(agent: RunningAgent) -> bool:
    """Whether a client that came by the unit's own sub-domain is dropped instead of redirected (rule S)."""
    try:
        await client(agent.port, 9999, host="center.websocket.msha.tech")
    except InvalidStatus:
        return False
    except (InvalidMessage, ConnectionClosed, EOFError):
        return True
    raise AssertionError("served in the wrong unit")


async def test_workers_redirect_from_their_own_sub_domain_only_while_in_sync(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Status, in_sync)
    assert not await out_of_sync(agent)
    console.confirms = False
    await console.expect(Status, lambda it: not it.in_sync)
    assert await out_of_sync(agent)


# -- restarting --------------------------------------------------------------------------------------------


async def test_a_restarted_node_applies_the_current_snapshot_before_it_listens(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    await agent.kill()
    console.newest, console.delivers = snapshot(2), False
    agent = await start()
    await console.expect(Hello)
    status = await console.expect(Status, lambda it: it.seq >= 3)
    assert (status.version, status.listening, agent.events("listening")) == (1, False, [])
    console.deliver(snapshot(2))
    await agent.ready()
    assert [entry["version"] for entry in agent.events("applied")] == [2]


async def test_a_restarted_node_whose_file_is_current_needs_no_delivery(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    await agent.kill()
    console.delivers = False
    await (await start()).ready()
    assert (await console.expect(Ack)).version == 1


async def test_a_restarted_node_serves_from_its_file_when_the_console_is_away_and_goes_on_dialling(
    console: Console, start: Start, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    await agent.kill()
    await console.close()
    agent = await (await start()).ready(8)
    session = await client(agent.port, 1111)
    assert await speaks(session)
    console.newest = snapshot(2, server=server)
    await console.open()
    assert (await console.expect(Ack, lambda it: it.version == 2, within_s=10)).enrolment == 1
    assert await speaks(session)
    await session.close()


async def test_a_restarted_node_does_not_wait_for_a_console_that_says_nothing(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    await agent.kill()
    console.welcomes = False
    await (await start()).ready(10)


async def test_a_torn_file_is_never_applied(console: Console, start: Start, state: Path) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    await agent.kill()
    body = (state / "snapshot.json").read_bytes()
    (state / "snapshot.json").write_bytes(body[: len(body) // 2])
    await console.close()
    agent = await start()
    await eventually(lambda: agent.events("snapshot_file_torn"))
    await waits(agent)
    await console.open()
    assert (await console.expect(Hello)).version == 0
    await agent.ready()
    assert (state / "snapshot.json").read_bytes() == body


async def test_a_node_without_a_snapshot_waits_for_the_console(console: Console, start: Start) -> None:
    await console.close()
    agent = await start()
    await waits(agent)
    console.newest = snapshot(1)
    await console.open()
    await agent.ready()


async def test_a_node_that_never_listened_never_says_ready(console: Console, start: Start) -> None:
    agent = await start()
    await console.expect(Status, lambda it: it.workers == 1)
    agent.signal(signal.SIGTERM)
    assert await agent.ended() == 0
    assert await agent.rest_of_output() == ""


async def test_a_directory_of_another_unit_is_refused(console: Console, start: Start) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    await agent.kill()
    console.unit, console.node = "unbj", "edge-9"
    agent = await start()
    assert await agent.ended() == 1
    assert "belongs to node edge-1 of unit center" in agent.log.read_text()


async def test_a_second_agent_on_the_directory_does_not_start(console: Console, start: Start) -> None:
    console.newest = snapshot(1)
    first = await (await start()).ready()
    second = await start()
    assert await second.ended() == 1
    assert f"in use by the agent with process id {first.pid}" in second.log.read_text()


# -- what the console refuses ------------------------------------------------------------------------------


async def test_a_node_with_an_unknown_token_ends_with_a_sentence(console: Console, start: Start) -> None:
    agent = await start(token="msha_node_wrong")
    assert await agent.ended() == 1
    assert "unknown token" in agent.log.read_text().splitlines()[-2]


async def test_a_serving_node_that_is_turned_away_goes_on_serving_and_dialling(
    console: Console, start: Start, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    console.refusal = (4409, "another state directory")
    await console.hang_up()
    await eventually(lambda: len(agent.events("turned_away")) > 2)
    session = await client(agent.port, 1111)
    assert await speaks(session)
    console.refusal = None
    await console.expect(Ack)
    await session.close()


async def test_a_revoked_node_closes_its_sessions_stops_and_never_starts_from_its_file(
    console: Console, start: Start, state: Path, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    session = await client(agent.port, 1111)
    console.refusal = (4403, "power supply on fire")
    await console.hang_up()
    with pytest.raises(ConnectionClosed):
        await session.recv()
    assert session.close_code == 1012
    assert await agent.ended() == 3
    assert "declared dead" in agent.log.read_text()
    assert json.loads((state / "tombstone").read_text())["reason"] == "revoked"
    await console.close()
    agent = await start()
    await waits(agent)


async def test_a_node_that_was_told_revoked_never_starts_from_its_file_even_if_it_is_killed_at_once(
    console: Console, start: Start, state: Path
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    (worker,) = agent.worker_pids
    os.kill(worker, signal.SIGSTOP)  # its end takes seconds now
    console.refusal = (4403, "power supply on fire")
    await console.hang_up()
    await eventually(lambda: agent.events("revoked"))
    await asyncio.sleep(0.3)
    await agent.kill()
    os.kill(worker, signal.SIGKILL)
    await console.close()
    await waits(await start())


async def test_a_node_that_is_told_revoked_while_it_ends_never_starts_from_its_file(
    console: Console, start: Start, state: Path
) -> None:
    console.newest = snapshot(1)
    agent = await (await start(drain_s=0)).ready()
    await console.expect(Ack)
    (worker,) = agent.worker_pids
    os.kill(worker, signal.SIGSTOP)
    agent.signal(signal.SIGTERM)
    await eventually(lambda: agent.events("drained"))  # the drain is over, the worker's end is awaited
    console.refusal = (4403, "power supply on fire")
    await console.hang_up()
    assert await agent.ended() == 3
    assert json.loads((state / "tombstone").read_text())["reason"] == "revoked"


async def test_a_snapshot_that_comes_when_the_workers_end_does_not_hold_up_the_end(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(1)
    agent = await (await start(drain_s=0)).ready()
    await console.expect(Ack)
    os.kill(agent.worker_pids[0], signal.SIGSTOP)  # it will never say that it applied anything
    agent.signal(signal.SIGTERM)
    await eventually(lambda: agent.events("drained"))
    console.publish(snapshot(2))
    assert await agent.ended(20) == 0
    assert console.count(Ack) == 1


# -- cutover -----------------------------------------------------------------------------------------------


async def test_freeze_closes_the_moved_sessions_and_no_other_and_is_then_reported_as_drained(
    console: Console, start: Start, server: str
) -> None:
    console.unit = "unbj"
    console.newest = snapshot(1, server=server)
    agent = await (await start(workers=2)).ready()
    await console.expect(Ack)
    moved, stays = await client(agent.port, 6249), await client(agent.port, 8330)
    console.publish(snapshot(2, epoch=2, phase="prepare", server=server))
    assert (await console.expect(Ack)).epoch == 2
    assert await speaks(moved)
    console.publish(snapshot(3, epoch=3, phase="freeze", server=server))
    assert (await console.expect(Ack)).epoch == 3
    drained = await console.expect(Drained)
    assert (drained.enrolment, drained.epoch) == (1, 3)
    with pytest.raises(ConnectionClosed):
        await moved.recv()
    assert moved.close_code == 1012
    assert await speaks(stays)
    await stays.close()


async def test_drained_names_the_present_enrolment_and_is_said_again_on_a_new_connection(
    console: Console, start: Start
) -> None:
    console.unit = "unbj"
    console.enrolments = 6
    console.newest = snapshot(3, epoch=3, phase="freeze")
    await (await start()).ready()
    assert (await console.expect(Drained)) == Drained(7, 3)
    await console.hang_up()
    await console.expect(Hello)
    assert (await console.expect(Ack)).enrolment == 7
    assert (await console.expect(Drained)) == Drained(7, 3)


async def test_an_ordinary_publish_during_freeze_does_not_unsay_drained(
    console: Console, start: Start
) -> None:
    console.unit = "unbj"
    console.newest = snapshot(3, epoch=3, phase="freeze")
    await (await start()).ready()
    await console.expect(Drained)
    console.publish(snapshot(4, epoch=3, phase="freeze", comment="another config"))
    assert (await console.expect(Ack, lambda it: it.version == 4)).epoch == 3
    assert (await console.expect(Drained)).epoch == 3


async def test_a_node_that_ends_under_freeze_reports_that_its_workers_have_exited(
    console: Console, start: Start
) -> None:
    console.unit = "unbj"
    console.newest = snapshot(3, epoch=3, phase="freeze")
    agent = await (await start()).ready()
    await console.expect(Drained)
    agent.signal(signal.SIGTERM)
    assert (await console.expect(WorkersExited)) == WorkersExited(1, 3)
    assert await agent.ended() == 0


async def test_a_node_that_ends_without_a_freeze_reports_no_such_thing(
    console: Console, start: Start
) -> None:
    console.unit = "unbj"
    console.newest = snapshot(2, epoch=2, phase="prepare")
    agent = await (await start()).ready()
    await console.expect(Ack)
    agent.signal(signal.SIGTERM)
    assert await agent.ended() == 0
    assert console.count(WorkersExited) == 0


async def test_a_gaining_node_that_refuses_activate_parks_until_a_later_snapshot_applies(
    console: Console, start: Start, server: str
) -> None:
    console.newest = snapshot(3, epoch=3, phase="freeze", server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    session = await client(agent.port, 1111)
    console.deliver(snapshot(4, epoch=4, phase="activate", new=True), digest="0" * 64)
    await console.expect(Nack)
    status = await console.expect(Status, lambda it: it.parked)
    assert (status.listening, status.sessions, status.version) == (False, 0, 3)
    with pytest.raises(ConnectionClosed):
        await session.recv()
    assert not takes_connections(agent.port)

    console.publish(snapshot(4, epoch=4, phase="activate", new=True, server=server))
    status = await console.expect(Status, lambda it: it.listening)
    assert (status.parked, status.version) == (False, 4)
    session = await client(agent.port, 6249)
    assert await speaks(session)
    await session.close()


async def test_a_node_that_refuses_prepare_keeps_its_sessions(
    console: Console, start: Start, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    session = await client(agent.port, 1111)
    console.deliver(snapshot(2, epoch=2, phase="prepare"), digest="0" * 64)
    await console.expect(Nack)
    status = await console.expect(Status)
    assert (status.parked, status.listening) == (False, True)
    assert await speaks(session)
    await session.close()


async def test_a_node_that_never_had_a_good_snapshot_and_refuses_the_first_counts_as_parked(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(1)
    console.delivers = False
    agent = await start()
    await console.expect(Status)
    console.enrolment = 1
    console.deliver(snapshot(1), digest="0" * 64)
    await console.expect(Nack)
    status = await console.expect(Status)
    assert (status.parked, status.listening) == (True, False)
    console.deliver(snapshot(1))
    await agent.ready()


# -- ending ------------------------------------------------------------------------------------------------


async def test_sigterm_drains_and_the_node_stays_enrolled_with_its_file(
    console: Console, start: Start, state: Path, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start(drain_s=2)).ready()
    await console.expect(Ack)
    session = await client(agent.port, 1111)
    port = agent.port
    agent.signal(signal.SIGTERM)
    status = await console.expect(Status, lambda it: it.draining)
    assert not status.listening
    assert not takes_connections(port)
    assert await speaks(session)  # a session has time to end by itself
    with pytest.raises(ConnectionClosed):
        await session.recv()
    assert session.close_code == 1012
    assert await agent.ended() == 0
    assert console.count(Left) == 0
    assert not (state / "tombstone").exists()
    assert (state / "snapshot.json").exists()


async def test_a_draining_node_still_applies_and_acks(console: Console, start: Start, server: str) -> None:
    console.unit = "unbj"
    console.newest = snapshot(1, server=server)
    agent = await (await start(drain_s=20)).ready()
    await console.expect(Ack)
    moved = await client(agent.port, 6249)
    stays = await client(agent.port, 8330)
    agent.signal(signal.SIGTERM)
    await console.expect(Status, lambda it: it.draining)
    console.publish(snapshot(2, epoch=2, phase="freeze", server=server))
    assert (await console.expect(Ack, lambda it: it.version == 2)).epoch == 2
    assert (await console.expect(Drained)).epoch == 2
    with pytest.raises(ConnectionClosed):
        await moved.recv()
    agent.signal(signal.SIGTERM)  # a second time: do not wait
    with pytest.raises(ConnectionClosed):
        await stays.recv()
    assert await agent.ended(8) == 0


async def test_leave_on_exit_writes_the_tombstone_before_it_says_left(
    console: Console, start: Start, state: Path
) -> None:
    console.newest = snapshot(1)
    agent = await (await start("--leave-on-exit")).ready()
    await console.expect(Ack)
    agent.signal(signal.SIGTERM)
    assert (await console.expect(Left)).enrolment == 1
    tombstone = json.loads((state / "tombstone").read_text())
    assert (tombstone["enrolment"], tombstone["reason"]) == (1, "left")
    assert await agent.ended() == 0
    assert json.loads((state / "tombstone").read_text())["told"] is True
    assert console.enrolment is None


async def test_leave_makes_a_running_agent_drain_and_leave(
    console: Console, start: Start, state: Path, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    code, out, _ = await leave(state)
    assert (code, out) == (0, "left\n")
    assert await agent.ended() == 0
    assert console.enrolment is None
    assert console.count(Left) == 1


async def test_a_node_that_has_left_starts_only_by_being_enrolled_anew(
    console: Console, start: Start, state: Path
) -> None:
    console.newest = snapshot(1)
    await (await start("--leave-on-exit")).ready()
    await console.expect(Ack)
    await leave(state)
    await console.close()

    agent = await start()
    await waits(agent)

    console.enrolment = 1  # a console that missed `left`, and would go on under the old enrolment
    console.delivers = False
    console.newest = snapshot(2)
    await console.open()
    hello = await console.expect(Hello, lambda it: it.pid == agent.pid)
    assert hello.left == 1
    console.enrolment = 1
    console.deliver(snapshot(2))
    assert "enrolled anew" in (await console.expect(Nack)).reason
    assert agent.events("listening") == []

    console.enrolment = 2
    console.deliver(snapshot(2))
    await agent.ready()
    assert (await console.expect(Ack)).enrolment == 2
    assert not (state / "tombstone").exists()


async def test_a_node_that_left_unnoticed_can_tell_it_later(
    console: Console, start: Start, state: Path
) -> None:
    console.newest = snapshot(1)
    agent = await (await start("--leave-on-exit")).ready()
    await console.expect(Ack)
    await console.close()
    agent.signal(signal.SIGTERM)
    assert await agent.ended() == 1
    assert "the console was not told and still counts it" in agent.log.read_text()
    assert json.loads((state / "tombstone").read_text())["told"] is False
    assert console.enrolment == 1

    await console.open()
    code, out, _ = await leave(state)
    assert (code, out) == (0, "left\n")
    assert console.enrolment is None


async def test_leave_of_a_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    code, _, err = await leave(tmp_path / "nothing")
    assert code == 1
    assert "is not the state directory of an edge" in err


async def test_when_the_agent_is_killed_no_process_is_left_and_another_agent_can_start(
    console: Console, start: Start, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start(workers=2)).ready()
    workers = agent.worker_pids
    assert len(workers) == 2
    session = await client(agent.port, 1111)
    await agent.kill()
    with pytest.raises(ConnectionClosed):
        await session.recv()
    await eventually(lambda: not any(runs(pid) for pid in workers), within_s=5)
    await (await start()).ready()


async def test_when_a_worker_is_killed_only_its_tunnels_go_and_another_takes_its_place(
    console: Console, start: Start, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start(workers=2)).ready()
    await console.expect(Ack)
    sessions = [await client(agent.port, 1000 + number) for number in range(16)]
    before = agent.worker_pids
    os.kill(before[0], signal.SIGKILL)
    await eventually(lambda: len(agent.worker_pids) == 2 and before[0] not in agent.worker_pids)
    assert before[1] in agent.worker_pids

    async def survives(session: Any) -> bool:
        try:
            return await speaks(session)
        except ConnectionClosed:
            return False

    alive = [await survives(session) for session in sessions]
    assert 0 < sum(alive) < len(sessions)
    await console.expect(Status, lambda it: it.workers == 2 and it.listening and it.seq > 1)
    again = [await client(agent.port, 2000 + number) for number in range(8)]
    assert all([await speaks(session) for session in again])
    for session in (*sessions, *again):
        await session.close()


# -- probes ------------------------------------------------------------------------------------------------


async def probe(console: Console, kind: str, **params: Any) -> dict[str, Any]:
    console.say(ProbeRequest(7, kind, params, timeout_s=2.0))
    answer = await console.expect(ProbeResult)
    assert answer.probe == 7
    return answer.result


async def test_probes_report_what_the_node_sees(console: Console, start: Start, server: str) -> None:
    console.newest = snapshot(1, server=server)
    await (await start()).ready()
    await console.expect(Ack)
    assert (await probe(console, "echo"))["ok"]

    host = {"host": "websocket.msha.tech", "target": "/chat?x=1"}
    served = await probe(console, "handshake", **host, headers={"routerId": "1111"})
    assert (served["ok"], served["status"]) == (True, 101)
    moved = await probe(console, "handshake", **host, headers={"routerId": "9999", "unitType": "unit_type"})
    assert (moved["ok"], moved["status"]) == (True, 302)
    assert moved["location"] == "http://unbj.websocket.msha.tech/chat?x=1"
    unknown = await probe(console, "handshake", host="elsewhere.example", target="/")
    assert unknown["status"] == 421

    good = await probe(console, "back_source", server=server, **host)
    assert (good["ok"], good["status"]) == (True, 101)
    assert good["ms"] > 0
    dead = await probe(console, "back_source", server="127.0.0.1:9", **host)
    assert not dead["ok"]
    assert "127.0.0.1:9" in dead["error"]
    wrong = await probe(console, "back_source", server="127.0.0.1:99999", **host)
    assert "port" in wrong["error"]
    assert not (await probe(console, "handshake", host="a b\r\nc", target="/"))["ok"]
    assert not (await probe(console, "nonsense"))["ok"]


async def test_many_probes_at_once_are_all_made(console: Console, start: Start, server: str) -> None:
    """A precheck asks a node about every back-source of its unit, and there may be dozens."""
    console.newest = snapshot(1, server=server)
    await (await start()).ready()
    await console.expect(Ack)
    for number in range(60):
        params = {"server": server, "host": "websocket.msha.tech", "target": "/chat"}
        console.say(ProbeRequest(number, "back_source", params, timeout_s=4.0))
    answers = [await console.expect(ProbeResult) for _ in range(60)]
    assert sorted(answer.probe for answer in answers) == list(range(60))
    assert {answer.result.get("error", "") for answer in answers} == {""}


async def test_a_status_tells_how_many_clients_the_node_takes(console: Console, start: Start) -> None:
    console.newest = snapshot(1)
    await (await start()).ready()
    await console.expect(Ack)
    assert (await console.expect(Status)).counters["connections_limit"] >= 100


async def test_a_text_reaches_the_sessions_of_every_worker(
    console: Console, start: Start, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start(workers=2)).ready()
    await console.expect(Ack)
    sessions = [await client(agent.port, 1000 + number) for number in range(16)]
    told = await probe(
        console, "send", unit_type="unit_type", ranges=[[1000, 1003], [1015, 1015]], text="for 5"
    )
    assert (told["ok"], told["delivered"], told["queued"], told["skipped"]) == (True, 5, 0, {})
    assert (await probe(console, "send", unit_type="unit_type", all=True, text="for all"))["delivered"] == 16
    for number, session in enumerate(sessions):
        if number < 4 or number == 15:
            assert await session.recv() == "for 5"
        assert await session.recv() == "for all"
        assert await speaks(session)
        await session.close()


async def test_a_text_that_cannot_be_sent_is_refused(console: Console, start: Start) -> None:
    console.newest = snapshot(1)
    await (await start()).ready()
    await console.expect(Ack)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"text": "", "all": True}, "The text must"),
        ({"text": "x" * 16_385, "all": True}, "The text must"),
        ({"text": "路" * 6000, "all": True}, "The text must"),
        ({"text": 7, "all": True}, "The text must"),
        ({"all": True}, "The text must"),
        ({"text": "to whom?"}, "The ranges are not"),
        ({"text": "to whom?", "ranges": []}, "The ranges are not"),
        ({"text": "to whom?", "ranges": [[5, 4]]}, "The ranges are not"),
        ({"text": "to whom?", "all": "yes"}, "The ranges are not"),
    ]
    for params, problem in wrong:
        told = await probe(console, "send", unit_type="unit_type", **params)
        assert not told["ok"]
        assert "delivered" not in told
        assert told["error"].startswith(problem)


async def test_texts_that_are_sent_at_once_arrive_in_their_order(
    console: Console, start: Start, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start(workers=2)).ready()
    await console.expect(Ack)
    session = await client(agent.port, 1111)
    for number in range(12):
        params = {"unit_type": "unit_type", "ranges": [[1111, 1111]], "text": str(number)}
        console.say(ProbeRequest(number, "send", params))
    assert [await session.recv() for _ in range(12)] == [str(number) for number in range(12)]
    await session.close()


async def test_a_probe_of_a_back_source_that_does_not_answer_ends_in_time(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(1)
    await (await start()).ready()
    await console.expect(Ack)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        result = await probe(console, "back_source", server=address, host="websocket.msha.tech", target="/")
    assert "No answer within 2 s" in result["error"]


# -- the directory afterwards ------------------------------------------------------------------------------


async def test_an_agent_that_has_ended_leaves_the_directory_free(
    console: Console, start: Start, state: Path
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    agent.signal(signal.SIGTERM)
    assert await agent.ended() == 0
    directory = StateDirectory.open(state, wait_s=0)
    assert directory.stored is not None
    directory.close()


async def test_a_document_that_trips_up_the_edge_is_refused_and_the_edge_goes_on(
    console: Console, start: Start, server: str
) -> None:
    console.newest = snapshot(1, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    body = b"[" * 200_000
    console.deliver(Published(2, digest_of(body), body, {}))
    nack = await console.expect(Nack)
    assert (nack.version, "is not JSON" in nack.reason) == (2, True)
    console.publish(snapshot(3, server=server))
    assert (await console.expect(Ack)).version == 3
    session = await client(agent.port, 1111)
    assert await speaks(session)
    await session.close()
