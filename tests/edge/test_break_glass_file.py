"""A running edge takes signed snapshots from its disk, with a console and without: real processes."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from msha.steering import breakglass
from msha.steering.snapshot import Published, load
from msha.steering.wire import Ack, Hello, Status
from tests.support.agents import RunningAgent, client, echo_server, eventually, speaks
from tests.support.console import Console, token_file
from tests.support.console import console as open_console
from tests.support.snapshots import snapshot

KEY, PUBLIC = breakglass.new_key()
AT = "2026-01-01T00:00:00+00:00"

Start = Callable[..., Awaitable[RunningAgent]]


@pytest.fixture
async def console() -> AsyncIterator[Console]:
    async with open_console("unbj") as it:
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
    agents: list[RunningAgent] = []
    (tmp_path / "other.pub").write_bytes(breakglass.new_key()[1])
    (tmp_path / "key.pub").write_bytes(PUBLIC)

    async def start(*words: str) -> RunningAgent:
        options = ["--bind", "127.0.0.1:0", "--control", console.url, "--state-dir", str(state)]
        options += ["--token-file", str(token_file(tmp_path)), "--workers", "2", "--drain-s", "1"]
        options += [
            "--breakglass-key",
            str(tmp_path / "other.pub"),
            "--breakglass-key",
            str(tmp_path / "key.pub"),
        ]
        agent = RunningAgent(tmp_path, "run", *options, *words)
        agents.append(agent)
        return await agent.start()

    yield start
    for agent in agents:
        await agent.kill()


def sign(published: Published, *fenced: str, key: bytes = KEY) -> bytes:
    return breakglass.sign(
        published.body, breakglass.private_key(key), after=None, fenced=fenced, by="op", at=AT
    )


def lay(state: Path, raw: bytes) -> None:
    (state / "part").write_bytes(raw)
    (state / "part").rename(state / "breakglass.json")


async def refusals(agent: RunningAgent, count: int) -> list[str]:
    await eventually(lambda: len(agent.events("breakglass_refused")) >= count, "it was not refused")
    return [str(event["reason"]) for event in agent.events("breakglass_refused")]


async def test_without_a_console_a_signed_file_is_obeyed_within_a_second_and_closes_what_it_takes_away(
    console: Console, start: Start, state: Path, server: str
) -> None:
    console.newest = snapshot(4, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    await console.close()
    moved, stays = await client(agent.port, 6249), await client(agent.port, 8330)
    assert await speaks(moved)

    given = snapshot(7, epoch=2, new=True, server=server)
    laid = time.monotonic()
    lay(state, sign(given, "unbj"))
    with pytest.raises(ConnectionClosed) as closed:
        async with asyncio.timeout(5):
            await moved.recv()
    assert time.monotonic() - laid < 1.5
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert await speaks(stays)
    with pytest.raises(InvalidStatus) as redirected:
        await client(agent.port, 6249)
    assert redirected.value.response.headers["Location"].startswith("http://center.websocket.msha.tech")
    (taken,) = agent.events("breakglass_taken")
    assert (taken["version"], taken["fenced"], taken["by"]) == (7, ["unbj"], "op")
    assert (state / "snapshot.json").read_bytes() == given.body
    assert json.loads((state / "snapshot.meta").read_text())["enrolment"] == 1
    await stays.close()

    # It starts from that file, and tells the console of it when there is one again.
    agent.signal(signal.SIGTERM)
    assert await agent.ended() == 0
    again = await (await start()).ready()
    with pytest.raises(InvalidStatus):
        await client(again.port, 6249)
    assert again.events("breakglass_refused") == again.events("breakglass_taken") == []
    await console.open()
    hello = await console.expect(Hello, lambda hello: hello.version == 7)
    assert (hello.digest, hello.epoch) == (given.digest, 2)


async def test_with_a_console_a_signed_file_is_obeyed_too_and_the_console_hears_of_it(
    console: Console, start: Start, state: Path, server: str
) -> None:
    console.newest = snapshot(4, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    lay(state, sign(snapshot(5, epoch=2, new=True, server=server), "unbj"))
    ack = await console.expect(Ack)
    assert (ack.version, ack.epoch, ack.enrolment) == (5, 2, 1)
    status = await console.expect(Status, lambda status: status.version == 5)
    assert not status.in_sync
    # What the console publishes above it is obeyed as ever.
    console.publish(snapshot(6, epoch=3, server=server))
    assert (await console.expect(Ack, lambda ack: ack.version == 6)).epoch == 3
    session = await client(agent.port, 6249)
    assert await speaks(session)
    await session.close()


async def test_what_must_not_be_obeyed_is_refused_with_the_reason_and_the_last_good_one_stays(
    console: Console, start: Start, state: Path, server: str
) -> None:
    console.newest = snapshot(4, epoch=3, server=server)
    agent = await (await start()).ready()
    await console.expect(Ack)
    session = await client(agent.port, 6249)
    good = sign(snapshot(9, epoch=4, new=True), "unbj")
    elsewhere = json.loads(snapshot(9, epoch=4).body)
    elsewhere["namespace_id"] = "another"
    body = json.dumps(elsewhere, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    another = breakglass.sign(body, breakglass.private_key(KEY), after=None, fenced=(), by="op", at=AT)
    wrong: list[tuple[bytes, str]] = [
        (b"torn", "not a whole signed snapshot"),
        (good.replace(b'"by": "op"', b'"by": "me"'), "signature"),
        (sign(snapshot(9, epoch=4, new=True), "unbj", key=breakglass.new_key()[0]), "signature"),
        (sign(snapshot(4, epoch=4, new=True), "unbj"), "one above 4"),
        (sign(snapshot(9, epoch=3, new=True), "unbj"), "only epoch 3"),
        (sign(snapshot(9, epoch=4, new=True)), "takes ids from unbj"),
        (another, "of namespace"),
    ]
    for number, (raw, reason) in enumerate(wrong, 1):
        lay(state, raw)
        assert reason in (await refusals(agent, number))[-1]
    await asyncio.sleep(1.2)
    assert len(agent.events("breakglass_refused")) == len(wrong), "a file is complained of once"
    assert agent.events("breakglass_taken") == []
    assert await speaks(session)
    assert load((state / "snapshot.json").read_bytes()).version == 4
    lay(state, sign(snapshot(9, epoch=4, new=True, server=server), "unbj"))
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(5):
            await session.recv()


async def test_a_file_elsewhere_is_named_by_an_option(
    console: Console, start: Start, tmp_path: Path, server: str
) -> None:
    console.newest = snapshot(4, server=server)
    agent = await (await start("--breakglass-file", str(tmp_path / "given.json"))).ready()
    (tmp_path / "given.json").write_bytes(sign(snapshot(5, server=server, epoch=1)))
    await console.expect(Ack, lambda ack: ack.version == 5)
    assert len(agent.events("breakglass_taken")) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--breakglass-key", "missing.pub"], "missing.pub cannot be used"),
        (["--breakglass-key", "{token}"], "not a public key"),
        (["--snapshot"], "goes with --control"),
        (["--breakglass-file", "x"], "needs --breakglass-key"),
    ],
)
async def test_options_that_cannot_be_meant_so_are_refused(
    tmp_path: Path, console: Console, words: list[Any], sentence: str
) -> None:
    token = str(token_file(tmp_path))
    key = tmp_path / "key.pub"
    key.write_bytes(PUBLIC)
    options = ["--bind", "127.0.0.1:0", "--state-dir", str(tmp_path / "s")]
    if words == ["--snapshot"]:
        (tmp_path / "snapshot.json").write_bytes(snapshot(1).body)
        options += [
            "--snapshot",
            str(tmp_path / "snapshot.json"),
            "--unit",
            "unbj",
            "--breakglass-key",
            str(key),
        ]
    else:
        options += ["--control", console.url, "--token-file", token, *(w.format(token=token) for w in words)]
    agent = await RunningAgent(tmp_path, "run", *options).start()
    assert await agent.ended() == 2
    assert sentence in agent.log.read_text()
