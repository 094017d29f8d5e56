"""``python -m msha.edge`` as operators and supervisors meet it: usage, exit codes, the snapshot file."""

import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from websockets.exceptions import InvalidStatus

from msha.edge import __main__ as edge
from msha.edge.node.process import InvalidBind, parse_bind, reserve
from msha.edge.node.state import Description, StateDirectory, Stored, Tombstone
from msha.steering.snapshot import Published
from tests.support.agents import RunningAgent, client, echo_server, eventually, runs, speaks
from tests.support.snapshots import snapshot

Start = Callable[..., Awaitable[RunningAgent]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "snapshot.json"
    path.write_bytes(snapshot(1).body)
    return path


@pytest.fixture
async def start(tmp_path: Path, file: Path) -> AsyncIterator[Start]:
    """Starts an edge that obeys the file."""
    agents: list[RunningAgent] = []

    async def start(*words: str, bind: str = "127.0.0.1:0") -> RunningAgent:
        options = ["--bind", bind, "--snapshot", str(file), "--unit", "center", "--drain-s", "1"]
        agent = RunningAgent(tmp_path, "run", *options, *words)
        agents.append(agent)
        return await agent.start()

    yield start
    for agent in agents:
        await agent.kill()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command line decides how its process logs; this process is not its own."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def usage(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence of a usage error."""
    with pytest.raises(SystemExit, match="2"):
        sys.exit(edge.main(words))
    captured = capfd.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "required: command"),
        ("run", "required: --bind"),
        ("run --bind 127.0.0.1:0", "arguments --control --snapshot is required"),
        ("run --bind 127.0.0.1:0 --control ws://a --snapshot b", "not allowed with"),
        ("run --bind 127.0.0.1:0 --control ws://a", "With --control give --token-file"),
        ("run --bind 127.0.0.1:0 --control ftp://a --token-file b", "is not the address of a console"),
        ("run --bind 127.0.0.1:0 --control ws://a --token-file no/such/file", "cannot be read"),
        ("run --bind 127.0.0.1:0 --control ws://a --token-file b --unit c", "the console knows the unit"),
        ("run --bind 127.0.0.1:0 --snapshot a", "With --snapshot give --unit"),
        ("run --bind 127.0.0.1:0 --snapshot no/such/file --unit center", "cannot be read"),
        ("run --bind 127.0.0.1:0 --snapshot a --unit center --leave-on-exit", "cannot leave"),
        ("run --bind nowhere:80 --snapshot a --unit center", "write an IP address and a port"),
        ("run --bind 127.0.0.1:70000 --snapshot a --unit center", "is not a port"),
        ("run --bind 127.0.0.1:0 --snapshot a --unit center --workers 0", "number of workers"),
        ("run --bind 127.0.0.1:0 --snapshot a --unit center --drain-s soon", "number of seconds"),
        (
            "run --bind 127.0.0.1:0 --snapshot a --unit center --trusted-slb 10.0.0.1/24",
            "write it as 10.0.0.1, or the whole network as 10.0.0.0/24.",
        ),
        (
            "run --bind 127.0.0.1:0 --snapshot a --unit center --trusted-slb slb.example",
            "write it as 10.0.0.5 or 10.0.0.0/24.",
        ),
        ("run --bind 127.0.0.1:0 --snapshot a --unit center --proxy-protocol", "needs --trusted-slb"),
        (
            "run --bind 127.0.0.1:0 --snapshot a --unit center --access-log no/such/dir/log",
            "access log no/such/dir/log cannot be written",
        ),
        ("leave", "required: --state-dir"),
    ],
)
def test_a_usage_error_is_one_sentence_and_exit_code_2(
    capfd: pytest.CaptureFixture[str], words: str, sentence: str
) -> None:
    told = usage(capfd, *words.split())
    assert sentence in told
    assert told.count("\n") == 1


def test_the_table_of_options_names_every_option_and_nothing_else() -> None:
    page = (Path(__file__).parents[2] / "docs" / "edge.md").read_text()
    table = page.partition("| option | default |")[2].partition("\n\n")[0]
    documented = {
        name for row in table.splitlines() for name in re.findall(r"--[a-z][a-z-]+", row.split(" | ")[0])
    }
    commands = next(action for action in edge.parser()._actions if isinstance(action.choices, dict))
    assert isinstance(commands.choices, dict)
    known = commands.choices["run"]._option_string_actions
    assert documented == {name for name in known if name.startswith("--")} - {"--help"}


def test_a_snapshot_that_does_not_know_the_unit_is_refused(
    capfd: pytest.CaptureFixture[str], file: Path
) -> None:
    words = ["run", "--bind", "127.0.0.1:0", "--snapshot", str(file), "--unit", "nowhere"]
    sentence = "cannot be served: document: has no unit 'nowhere'; it knows center, unbj.\n"
    assert usage(capfd, *words) == f"The snapshot {file} {sentence}"


def test_a_file_that_is_no_snapshot_is_refused(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    words = ["run", "--bind", "127.0.0.1:0", "--snapshot", str(file), "--unit", "center"]
    assert f"The snapshot {file} cannot be served: document: is not JSON" in usage(capfd, *words)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("localhost:81", ("127.0.0.1", 81))],
)
def test_an_address_to_listen_on_is_read(text: str, address: tuple[str, int]) -> None:
    assert parse_bind(text) == address


def test_a_port_where_another_program_listens_is_refused_although_ports_may_be_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InvalidBind, match=r"Address already in use\. End what listens there"):
            reserve(*other.getsockname())


async def test_standard_output_is_the_one_line_ready(start: Start, file: Path) -> None:
    async with echo_server() as server:
        file.write_bytes(snapshot(1, server=server).body)
        agent = await (await start()).ready()
        session = await client(agent.port, 1111)
        assert await speaks(session)
        await session.close()
    agent.signal(signal.SIGTERM)
    assert await agent.ended() == 0
    assert await agent.rest_of_output() == ""
    assert agent.events("handshake")[0]["decision"] == "tunnel"


async def test_without_a_console_the_file_is_obeyed_and_redirects_are_given(start: Start) -> None:
    agent = await (await start("--workers", "2")).ready()
    with pytest.raises(InvalidStatus) as refused:
        await client(agent.port, 9999, host="center.websocket.msha.tech")
    location = refused.value.response.headers["Location"]
    assert location == "http://unbj.websocket.msha.tech/?msha-version=1"


async def test_sighup_reads_the_file_again_and_a_bad_file_changes_nothing(start: Start, file: Path) -> None:
    agent = await (await start("--access-log", "off")).ready()
    with pytest.raises(InvalidStatus) as refused:
        await client(agent.port, 6249)
    assert refused.value.response.status_code == 302

    file.write_text("{}")
    agent.signal(signal.SIGHUP)
    await eventually(lambda: agent.events("file_refused"))

    async with echo_server() as server:
        file.write_bytes(snapshot(2, epoch=2, new=True, server=server).body)
        agent.signal(signal.SIGHUP)
        await eventually(lambda: len(agent.events("applied")) == 2)
        session = await client(agent.port, 6249)
        assert await speaks(session)
        await session.close()


async def test_a_taken_port_is_named(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        agent = await start(bind=address)
        assert await agent.ended() == 2
    assert f"Cannot listen on {address}: Address already in use." in agent.log.read_text()


async def test_a_state_directory_is_locked_also_without_a_console(start: Start, tmp_path: Path) -> None:
    first = await (await start("--state-dir", str(tmp_path / "state"))).ready()
    second = await start("--state-dir", str(tmp_path / "state"))
    assert await second.ended() == 1
    assert f"process id {first.pid}" in second.log.read_text()


def buried_in(path: Path, stored: Published, tombstone: Tombstone | None = None) -> None:
    """A state directory with this snapshot, and with the tombstone."""
    directory = StateDirectory.open(path)
    described = Description(
        stored.version, stored.digest, 1, "edge-1", "center", stored.document["namespace_id"]
    )
    directory.write_snapshot(Stored(described, stored.body))
    if tombstone is not None:
        directory.write_tombstone(tombstone)
    directory.close()


async def test_the_file_does_not_bring_back_a_node_declared_dead(start: Start, tmp_path: Path) -> None:
    buried_in(tmp_path / "state", snapshot(1), Tombstone.now(1, "revoked"))
    agent = await start("--state-dir", str(tmp_path / "state"))
    assert await agent.ended() == 1
    assert "has ended (revoked)" in agent.log.read_text()


async def test_the_file_does_not_take_a_node_back_to_an_older_version(start: Start, tmp_path: Path) -> None:
    buried_in(tmp_path / "state", snapshot(5))
    agent = await start("--state-dir", str(tmp_path / "state"))
    assert await agent.ended() == 1
    assert "below version 5" in agent.log.read_text()


async def test_a_killed_edge_leaves_no_process(start: Start) -> None:
    agent = await (await start("--workers", "3")).ready()
    workers = agent.worker_pids
    await agent.kill()
    await eventually(lambda: not any(runs(pid) for pid in workers), within_s=5)
