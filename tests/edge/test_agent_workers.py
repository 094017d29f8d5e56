"""The agent answers for all its workers: what it says when one of them refuses, hangs, dies or lingers.

The agent is real; its workers are processes that misbehave on demand, which real ones do not.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from msha.steering.wire import Ack, Drained, Nack, Status, WorkersExited
from tests.support.agents import RunningAgent, eventually, runs
from tests.support.console import Console, token_file
from tests.support.console import console as open_console
from tests.support.snapshots import snapshot

Start = Callable[..., Awaitable[RunningAgent]]

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "fake_worker_edge.py"


@pytest.fixture
async def console() -> AsyncIterator[Console]:
    async with open_console("unbj") as it:
        yield it


@pytest.fixture
def instructions(tmp_path: Path) -> Path:
    folder = tmp_path / "instructions"
    folder.mkdir()
    return folder


@pytest.fixture
async def start(tmp_path: Path, console: Console, instructions: Path) -> AsyncIterator[Start]:
    agents: list[RunningAgent] = []

    async def start(workers: int = 2) -> RunningAgent:
        options = ["--bind", "127.0.0.1:0", "--control", console.url, "--drain-s", "1"]
        options += ["--workers", str(workers)]
        options += ["--token-file", str(token_file(tmp_path)), "--state-dir", str(tmp_path / "state")]
        agent = RunningAgent(tmp_path, "run", *options, script=SCRIPT, FAKE_WORKERS=str(instructions))
        agents.append(agent)
        return await agent.start()

    yield start
    for agent in agents:
        await agent.kill()


async def test_a_snapshot_that_one_worker_refuses_is_not_acked(
    console: Console, start: Start, instructions: Path
) -> None:
    console.newest = snapshot(1)
    await (await start()).ready()
    assert (await console.expect(Ack)).version == 1
    (instructions / "refuse").write_text("2")
    console.publish(snapshot(2))
    nack = await console.expect(Nack)
    assert (nack.version, "not this one" in nack.reason) == (2, True)
    status = await console.expect(Status)
    assert (status.version, status.in_sync) == (1, False)
    assert console.count(Ack) == 1
    console.publish(snapshot(3))
    assert (await console.expect(Ack)).version == 3


@pytest.mark.slow
async def test_a_worker_that_hangs_is_replaced_and_only_then_the_snapshot_is_acked(
    console: Console, start: Start, instructions: Path
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    before = set(agent.worker_pids)
    (instructions / "mute").write_text("2")
    console.publish(snapshot(2))
    assert (await console.expect(Ack)).version == 2
    assert len(agent.events("worker_hung")) == 1
    after = set(agent.worker_pids)
    assert (len(after), len(after & before)) == (2, 1)


@pytest.mark.slow
async def test_a_worker_that_says_nothing_is_replaced(
    console: Console, start: Start, instructions: Path
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    before = set(agent.worker_pids)
    (instructions / "quiet").touch()
    await eventually(lambda: len(agent.events("worker_silent")) >= 2, within_s=30)
    (instructions / "quiet").unlink()
    await eventually(lambda: len(agent.worker_pids) == 2 and not set(agent.worker_pids) & before)


async def test_drained_waits_for_every_worker(console: Console, start: Start, instructions: Path) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    late = agent.worker_pids[0]
    (instructions / "undrained").write_text(str(late))
    console.publish(snapshot(2, epoch=2, phase="freeze"))
    assert (await console.expect(Ack)).epoch == 2
    for _ in range(2):
        await console.expect(Status)
    assert console.count(Drained) == 0
    os.kill(late, signal.SIGKILL)  # its successor starts with the FREEZE and has nothing to drain
    assert (await console.expect(Drained)).epoch == 2


async def test_workers_that_all_died_under_freeze_are_reported_and_replaced(
    console: Console, start: Start
) -> None:
    console.newest = snapshot(2, epoch=2, phase="freeze")
    agent = await (await start(workers=1)).ready()
    await console.expect(Drained)
    (pid,) = agent.worker_pids
    os.kill(pid, signal.SIGKILL)
    assert (await console.expect(WorkersExited)) == WorkersExited(1, 2)
    await console.expect(Status, lambda it: it.workers == 1 and it.listening)
    assert (await console.expect(Drained)).epoch == 2
    assert agent.worker_pids != [pid]


async def test_workers_that_never_come_up_end_the_agent_with_a_sentence(
    console: Console, start: Start, instructions: Path
) -> None:
    console.newest = snapshot(1)
    (instructions / "stillborn").touch()
    agent = await start()
    assert await agent.ended() == 1
    assert "The workers do not start" in agent.log.read_text()
    assert console.count(Ack) == 0


@pytest.mark.slow
async def test_no_agent_starts_while_a_worker_of_an_old_one_lives(
    console: Console, start: Start, instructions: Path
) -> None:
    console.newest = snapshot(1)
    agent = await (await start()).ready()
    await console.expect(Ack)
    workers = agent.worker_pids
    (instructions / "deaf").touch()
    await agent.kill()
    second = await start()
    assert await second.ended() == 1
    assert "A worker of an agent that is gone still holds the state directory" in second.log.read_text()
    assert all(runs(pid) for pid in workers)
    (instructions / "deaf").unlink()
    await eventually(lambda: not any(runs(pid) for pid in workers))
    await (await start()).ready()
