"""``run --take-over``: a node takes the port of another one over, and no client loses anything.

Real processes; the two nodes talk to a console each, of the same namespace.
"""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from msha.demo.ports import free_ports
from msha.steering.wire import Ack, Drained, Left, Status
from tests.support.agents import RunningAgent, client, echo_server, eventually, runs, speaks
from tests.support.certificates import Authority
from tests.support.console import Console, token_file
from tests.support.console import console as open_console
from tests.support.handshakes import Handshakes
from tests.support.snapshots import snapshot
from tests.support.websocket_wire import handshake_head

Run = Callable[..., Awaitable[RunningAgent]]

#: Beyond the time that a listener runs dry.
HANDED_OVER_S = 20.0


class Nodes:
    """Nodes ``a``, ``b``, ... on one port, with a console and a state directory each."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.directory = directory
        (self.port,) = free_ports(1)
        self.consoles: dict[str, Console] = {}
        self._stack = stack

    def state(self, name: str) -> Path:
        return self.directory / name

    def said(self, name: str) -> dict[str, Any]:
        """What the agent of the node says of itself."""
        said: dict[str, Any] = json.loads((self.state(name) / "agent").read_text())
        return said

    async def run(
        self, name: str, *words: str, unit: str = "center", port: int | None = None, drain_s: float = 30
    ) -> RunningAgent:
        """Starts the node."""
        if name not in self.consoles:
            console = await self._stack.enter_async_context(open_console(unit))
            console.node, console.newest = f"edge-{name}", self.newest
            self.consoles[name] = console
        options = ["--bind", f"127.0.0.1:{port or self.port}", "--control", self.consoles[name].url]
        options += ["--state-dir", str(self.state(name)), "--token-file", str(token_file(self.directory))]
        options += ["--workers", "2", "--drain-s", str(drain_s), "--access-log", "off"]
        agent = RunningAgent(self.directory, "run", *options, *words)
        self._stack.push_async_callback(agent.kill)
        return await agent.start()

    async def follow(self, name: str, other: str, *words: str, **options: Any) -> RunningAgent:
        """Starts the node as the one that takes over from the other."""
        return await self.run(name, "--take-over", str(self.state(other)), *words, **options)

    def publish(self, version: int, **options: Any) -> None:
        """Every console has the snapshot."""
        self.newest = snapshot(version, server=self.server, **options)
        for console in self.consoles.values():
            console.publish(self.newest)

    server = "127.0.0.1:9"
    newest = snapshot(1)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack, echo_server() as server:
        nodes = Nodes(tmp_path, stack)
        nodes.server = server
        nodes.newest = snapshot(1, server=server)
        yield nodes


async def taken_over(agent: RunningAgent) -> None:
    """The port is the agent's alone."""
    await eventually(lambda: agent.events("taken_over"), agent.log.read_text(), HANDED_OVER_S)


async def sentence(agent: RunningAgent, code: int) -> str:
    """What the agent complained of when it ended."""
    assert await agent.ended() == code, agent.log.read_text()
    return agent.log.read_text()


async def test_no_handshake_is_refused_and_no_session_lost_while_a_node_is_taken_over(nodes: Nodes) -> None:
    old = await (await nodes.run("a", drain_s=60)).ready()
    sessions = [await client(nodes.port, number) for number in range(10)]
    pauses_s = (0.0, 0.0, 0.0, 0.0, 0.02, 0.3, 1.3)
    load = Handshakes(nodes.port, host="websocket.msha.tech", router_ids=[9999], pauses_s=pauses_s)
    with load:
        await eventually(lambda: load.answered > 100)
        new = await (await nodes.follow("b", "a")).ready()
        await taken_over(new)
        await asyncio.sleep(0.5)
    assert load.failures == {}
    assert set(load.statuses) == {302}
    assert load.slowest_s < 0.9, "a client had to repeat its first segment"
    assert [await speaks(session) for session in sessions] == [True] * 10
    assert runs(old.pid)
    assert (nodes.said("a")["leaving"], nodes.said("b")["leaving"]) == (True, False)
    for session in sessions:
        await session.close()
    assert await old.ended() == 0
    assert (await nodes.consoles["a"].expect(Left)).enrolment == 1
    assert json.loads((nodes.state("a") / "tombstone").read_text())["reason"] == "left"
    await eventually(lambda: new.events("predecessor_left"))
    assert nodes.consoles["b"].count(Left) == 0


async def test_the_port_for_tls_is_taken_over_too(nodes: Nodes, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "default.pem").write_bytes(authority.pem("websocket.msha.tech"))
    (port,) = free_ports(1)
    words = ["--tls-bind", f"127.0.0.1:{port}", "--tls-certs", str(tmp_path / "certs")]
    await (await nodes.run("a", *words, drain_s=0)).ready()
    context, answers, stop = authority.client(), Counter[str](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                with (
                    socket.create_connection(("127.0.0.1", port), 5) as plain,
                    context.wrap_socket(plain, server_hostname="websocket.msha.tech") as client,
                ):
                    client.sendall(handshake_head("websocket.msha.tech", 9999))
                    answers[client.recv(12).decode()] += 1
            except OSError as error:
                answers[repr(error)] += 1

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for each in asking:
        each.start()
    try:
        new = await (await nodes.follow("b", "a", *words)).ready()
        await taken_over(new)
        await eventually(lambda: new.events("predecessor_left"))
        before = answers.total()
        await eventually(lambda: answers.total() > before + 20)
    finally:
        stop.set()
        for each in asking:
            each.join()
    assert set(answers) == {"HTTP/1.1 302"}, answers
    with socket.create_server(("127.0.0.1", 0)) as taken:
        elsewhere = ["--tls-bind", f"127.0.0.1:{taken.getsockname()[1]}", *words[2:]]
        assert "another program listens there" in await sentence(await nodes.follow("c", "b", *elsewhere), 2)


async def test_the_node_that_leaves_obeys_every_snapshot_until_it_has_left(nodes: Nodes) -> None:
    old = await (await nodes.run("a")).ready()
    stays, moves = await client(nodes.port, 1111), await client(nodes.port, 5000)
    new = await (await nodes.follow("b", "a", "--take-over-drain-s", "7200")).ready()
    await taken_over(new)
    also_moves = await client(nodes.port, 5001)
    nodes.publish(2, epoch=2, phase="freeze", moved=[[5000, 5001, "center", "unbj"]])
    for name in ("a", "b"):
        assert (await nodes.consoles[name].expect(Ack, lambda ack: ack.version == 2)).epoch == 2
        assert (await nodes.consoles[name].expect(Drained)).epoch == 2
        assert nodes.consoles[name].count(Left) == 0
    for session in (moves, also_moves):
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(session.recv(), 5)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "moved to unbj")
    assert await speaks(stays)
    status = await nodes.consoles["a"].expect(Status, lambda it: it.version == 2)
    assert (status.draining, status.listening, status.sessions) == (True, False, 1)
    await stays.close()
    assert await old.ended() == 0


async def test_a_node_that_lost_a_worker_while_it_drains_still_answers_for_what_is_left(nodes: Nodes) -> None:
    old = await (await nodes.run("a")).ready()
    sessions = [await client(nodes.port, number) for number in range(30)]
    await taken_over(await (await nodes.follow("b", "a")).ready())
    killed = old.worker_pids[0]
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: killed not in old.worker_pids)
    nodes.publish(2, epoch=2, phase="freeze", moved=[[0, 29, "center", "unbj"]])
    assert (await nodes.consoles["a"].expect(Ack, lambda ack: ack.version == 2)).epoch == 2
    assert (await nodes.consoles["a"].expect(Drained)).epoch == 2
    for session in sessions:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(session.recv(), 5)
    assert await old.ended() == 0


async def test_the_drain_of_a_node_that_leaves_can_be_given_another_time(nodes: Nodes) -> None:
    old = await (await nodes.run("a", drain_s=86400)).ready()
    session = await client(nodes.port, 1111)
    new = await (await nodes.follow("b", "a")).ready()
    await taken_over(new)
    leave = ["leave", "--state-dir", str(nodes.state("a")), "--drain-s", "1"]
    leaving = await RunningAgent(nodes.directory, *leave).start()
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(session.recv(), 10)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "edge restarting")
    assert await leaving.ended() == 0
    assert await leaving.rest_of_output() == "left\n"
    assert await old.ended() == 0
    assert [entry["seconds"] for entry in old.events("draining")] == [86400.0, 1.0]


async def test_a_node_that_is_stopping_lets_itself_be_turned_into_one_that_leaves(nodes: Nodes) -> None:
    old = await (await nodes.run("a", drain_s=60)).ready()
    session = await client(nodes.port, 1111)
    old.signal(signal.SIGTERM)
    await eventually(lambda: old.events("draining"))
    leave = ["leave", "--state-dir", str(nodes.state("a")), "--drain-s", "5"]
    leaving = await RunningAgent(nodes.directory, *leave).start()
    await eventually(lambda: nodes.said("a")["leaving"])
    assert await speaks(session)
    await session.close()
    assert (await old.ended(), await leaving.ended()) == (0, 0)
    assert len(old.events("left")) == 1


async def test_a_node_that_does_not_become_ready_leaves_the_other_one_untouched(nodes: Nodes) -> None:
    old = await (await nodes.run("a")).ready()
    session = await client(nodes.port, 1111)
    nodes.consoles["b"] = await nodes._stack.enter_async_context(open_console("center"))  # publishes nothing
    new = await nodes.follow("b", "a")
    for _ in range(5):
        await nodes.consoles["b"].expect(Status)
    new.signal(signal.SIGTERM)
    assert await new.ended() == 0
    assert await speaks(session)
    assert not nodes.said("a")["leaving"]
    assert old.events("draining") == []
    await session.close()


async def test_a_node_that_is_not_confirmed_yet_does_not_take_over(nodes: Nodes) -> None:
    """It would close handshakes that the other one redirects (PROTOCOL S)."""
    await (await nodes.run("a")).ready()
    nodes.consoles["b"] = await nodes._stack.enter_async_context(open_console("center"))
    nodes.consoles["b"].newest, nodes.consoles["b"].confirms = nodes.newest, False
    new = await nodes.follow("b", "a")
    for _ in range(2):
        assert not (await nodes.consoles["b"].expect(Status, lambda it: it.version == 1)).listening
    nodes.consoles["b"].confirms = True
    await new.ready()
    await taken_over(new)


async def test_a_node_that_ends_after_the_other_one_was_told_can_be_started_again(nodes: Nodes) -> None:
    old = await (await nodes.run("a")).ready()
    session = await client(nodes.port, 1111)
    new = await (await nodes.follow("b", "a")).ready()
    await eventually(lambda: nodes.said("a")["leaving"])
    await new.kill()
    again = await (await nodes.follow("b", "a")).ready()
    assert await speaks(session)
    other = await client(nodes.port, 1112)
    assert await speaks(other)
    await session.close()
    assert await old.ended() == 0
    await eventually(lambda: again.events("predecessor_left"))
    assert await speaks(other)
    await other.close()


async def test_the_option_does_no_harm_when_the_other_node_has_left(nodes: Nodes) -> None:
    old = await (await nodes.run("a", drain_s=0)).ready()
    new = await (await nodes.follow("b", "a")).ready()
    assert await old.ended() == 0
    new.signal(signal.SIGTERM)
    assert await new.ended() == 0
    await (await nodes.follow("b", "a")).ready()


async def test_a_node_that_served_before_serves_although_the_other_one_died_and_says_what_to_do(
    nodes: Nodes,
) -> None:
    old = await (await nodes.run("a")).ready()
    other = await (await nodes.run("b", port=free_ports(1)[0])).ready()
    other.signal(signal.SIGTERM)
    assert await other.ended() == 0
    workers = old.worker_pids
    await old.kill()
    await eventually(lambda: not any(runs(pid) for pid in workers))
    new = await (await nodes.follow("b", "a")).ready()
    assert f"leave --state-dir {nodes.state('a')}" in new.log.read_text()


# -- what cannot be taken over -----------------------------------------------------------------------------


async def test_a_node_of_another_unit_is_refused_before_it_is_enrolled(nodes: Nodes) -> None:
    await (await nodes.run("a")).ready()
    new = await nodes.follow("b", "a", unit="unbj")
    assert "Node edge-b of unit unbj cannot take over from node edge-a of unit center" in await sentence(
        new, 1
    )
    assert nodes.consoles["b"].enrolments == 0
    assert not nodes.said("a")["leaving"]


async def test_a_node_on_another_address_is_refused(nodes: Nodes) -> None:
    await (await nodes.run("a")).ready()
    (port,) = free_ports(1)
    new = await nodes.follow("b", "a", port=port)
    told = await sentence(new, 2)
    assert f"Cannot listen on 127.0.0.1:{port}: the node of {nodes.state('a')} listens on" in told


async def test_a_node_that_does_not_run_is_refused(nodes: Nodes) -> None:
    old = await (await nodes.run("a", drain_s=0)).ready()
    old.signal(signal.SIGTERM)
    assert await old.ended() == 0
    assert "no agent runs there" in await sentence(await nodes.follow("b", "a"), 1)


async def test_a_directory_that_is_none_and_the_own_one_are_refused(nodes: Nodes) -> None:
    assert "is not the state directory of an edge" in await sentence(await nodes.follow("b", "nothing"), 2)
    await (await nodes.run("a")).ready()
    assert "own --state-dir" in await sentence(await nodes.follow("a", "a"), 2)


async def test_a_port_where_somebody_else_listens_beside_the_other_node_is_refused(nodes: Nodes) -> None:
    await (await nodes.run("a")).ready()
    with socket.socket() as third:
        third.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        third.bind(("127.0.0.1", nodes.port))
        third.listen()
        assert "another program listens there, too" in await sentence(await nodes.follow("b", "a"), 2)


async def test_an_edge_without_a_console_is_not_taken_over(nodes: Nodes) -> None:
    file = nodes.directory / "snapshot.json"
    file.write_bytes(nodes.newest.body)
    words = ["--bind", f"127.0.0.1:{nodes.port}", "--snapshot", str(file), "--unit", "center"]
    old = await RunningAgent(nodes.directory, "run", *words, "--state-dir", str(nodes.state("a"))).start()
    try:
        await old.ready()
        assert "is no enrolled node of a console" in await sentence(await nodes.follow("b", "a"), 1)
        assert runs(old.pid)
    finally:
        await old.kill()


async def test_a_node_that_cannot_be_told_is_named_and_the_new_one_goes_on(nodes: Nodes) -> None:
    old = await (await nodes.run("a")).ready()
    os.kill(old.pid, signal.SIGSTOP)  # its workers go on
    try:
        new = await (await nodes.follow("b", "a")).ready()
        await eventually(lambda: new.events("predecessor_not_told"), within_s=20)
        assert f"leave --state-dir {nodes.state('a')}" in new.log.read_text()
        session = await client(nodes.port, 1111)
        assert await speaks(session)
        await session.close()
    finally:
        os.kill(old.pid, signal.SIGCONT)


async def test_the_kill_of_a_worker_costs_its_own_sessions_and_the_port_keeps_answering(nodes: Nodes) -> None:
    agent = await (await nodes.run("a")).ready()
    before = agent.worker_pids
    sessions = [await client(nodes.port, number) for number in range(40)]
    os.kill(before[0], signal.SIGKILL)
    survived = 0
    for session in sessions:
        try:
            survived += await speaks(session)
        except ConnectionClosed:
            pass
    assert 0 < survived < 40, "both workers had sessions"
    await eventually(lambda: len(agent.worker_pids) == 2 and before[0] not in agent.worker_pids)
    began = time.monotonic()
    for number in range(40):
        fresh = await client(nodes.port, number)
        assert await speaks(fresh)
        await fresh.close()
    assert time.monotonic() - began < 20
    for session in sessions:
        await session.close()
