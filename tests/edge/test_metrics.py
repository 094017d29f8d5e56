"""``--metrics-bind`` as Prometheus meets it: real edges, real handshakes, scrapes read by its own parser."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from msha.edge.node.metrics_server import CONNECTIONS_LIMIT, EXCHANGE_S
from tests.support.agents import REPOSITORY, RunningAgent, client, echo_server, eventually, speaks
from tests.support.certificates import Authority
from tests.support.console import Console, token_file
from tests.support.console import console as open_console
from tests.support.snapshots import snapshot

Start = Callable[..., Awaitable[RunningAgent]]
Labels = Mapping[str, str]


class Scrape:
    """What one scrape said."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Of the sample with exactly these labels; 0 if there is none."""
        return self._samples.get((f"msha_edge_{name}", frozenset(labels.items())), 0.0)

    def total(self, name: str) -> float:
        """Of all samples of that name."""
        return sum(value for (found, _), value in self._samples.items() if found == f"msha_edge_{name}")

    def has(self, name: str) -> bool:
        """Whether there is a sample of that name."""
        return any(found == f"msha_edge_{name}" for found, _ in self._samples)


def url(agent: RunningAgent) -> str:
    """Where the node is scraped."""
    bound = agent.events("metrics_listening")[0]
    return f"http://{bound['host']}:{bound['port']}/metrics"


async def scrape(agent: RunningAgent) -> Scrape:
    async with httpx.AsyncClient(trust_env=False) as http:
        response = await http.get(url(agent), timeout=5)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return Scrape(response.text)


async def until(agent: RunningAgent, fact: Callable[[Scrape], bool], within_s: float = 20) -> Scrape:
    """The first scrape for which the fact holds."""
    async with asyncio.timeout(within_s):
        while not fact(found := await scrape(agent)):
            await asyncio.sleep(0.1)
    return found


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async with echo_server() as address:
        yield address


@pytest.fixture
async def start(tmp_path: Path, server: str) -> AsyncIterator[Start]:
    """Starts an edge that obeys a file, on word of the options or with one worker, and is scraped."""
    agents: list[RunningAgent] = []
    file = tmp_path / "snapshot.json"
    file.write_bytes(snapshot(7, epoch=3, server=server).body)

    async def start(*words: str, source: tuple[str, ...] | None = None) -> RunningAgent:
        source = source or ("--snapshot", str(file), "--unit", "center", "--drain-s", "5")
        options = ["--bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0", *source]
        agent = RunningAgent(tmp_path, "run", *options, "--workers", "1", *words)
        agents.append(agent)
        return await agent.start()

    yield start
    for agent in agents:
        await agent.kill()


async def redirected(agent: RunningAgent) -> None:
    """One handshake more has been redirected."""
    with pytest.raises(InvalidStatus):
        await client(agent.port, 9999, host="center.websocket.msha.tech")


# -- what is told ------------------------------------------------------------------------------------------


async def test_a_scrape_shows_the_snapshot_and_the_posture_of_a_node_without_console(start: Start) -> None:
    agent = await (await start("--workers", "2")).ready()
    found = await scrape(agent)
    assert (found.value("snapshot_version"), found.value("snapshot_epoch")) == (7, 3)
    assert (found.value("listening"), found.value("in_sync")) == (1, 1)
    assert (found.value("parked"), found.value("draining"), found.value("snapshot_refused")) == (0, 0, 0)
    assert (found.value("workers"), found.value("workers_wanted")) == (2, 2)
    assert not found.has("control_connected")  # there is nobody to be connected to
    (build,) = found.families["msha_edge_build_info"].samples
    assert (build.labels["unit"], build.value) == ("center", 1)


async def test_handshakes_sessions_and_bytes_are_counted_while_the_session_is_open(start: Start) -> None:
    agent = await (await start()).ready()
    await redirected(agent)
    session = await client(agent.port, 1111)
    assert await speaks(session, "x" * 1000)
    found = await until(agent, lambda it: it.value("bytes_total", direction="up") >= 1000)
    assert 1000 <= found.value("bytes_total", direction="down") < 1100
    assert found.value("sessions") == 1
    assert found.value("half_open") == found.value("held") == 0
    assert found.total("sessions_ended_total") == 0
    await session.close()
    after = await until(agent, lambda it: it.total("sessions_ended_total") == 1)
    assert after.value("sessions") == 0


async def test_handshakes_are_counted_by_decision_and_reason(start: Start) -> None:
    agent = await (await start()).ready()
    await redirected(agent)
    await redirected(agent)
    found = await until(agent, lambda it: it.total("handshakes_total") == 2)
    assert found.value("handshakes_total", decision="redirect", reason="wrong_unit") == 2


async def test_the_time_to_a_decision_is_a_histogram(start: Start) -> None:
    agent = await (await start()).ready()
    await redirected(agent)
    found = await until(agent, lambda it: it.value("decision_seconds_count") == 1)
    assert found.value("decision_seconds_bucket", le="+Inf") == 1
    assert 0 < found.value("decision_seconds_sum") < 5
    buckets = [
        sample.value
        for sample in found.families["msha_edge_decision_seconds"].samples
        if sample.name.endswith("_bucket")
    ]
    assert buckets == sorted(buckets)


async def test_sessions_that_the_edge_ends_are_told_apart_by_why(
    start: Start, tmp_path: Path, server: str
) -> None:
    agent = await (await start()).ready()
    session = await client(agent.port, 1111)
    assert await speaks(session)
    everything = {"center": [], "unbj": ["0~9999"]}
    (tmp_path / "snapshot.json").write_bytes(snapshot(8, epoch=4, server=server, ranges=everything).body)
    agent.signal(signal.SIGHUP)
    found = await until(agent, lambda it: it.value("snapshot_version") == 8 and it.value("sessions") == 0)
    assert found.value("sessions_ended_total", by="edge", reason="moved to unbj") == 1


async def test_a_back_source_that_fails_is_counted_by_its_address(start: Start, tmp_path: Path) -> None:
    agent = await start()
    (tmp_path / "snapshot.json").write_bytes(snapshot(8, server="127.0.0.1:9").body)
    await agent.ready()
    agent.signal(signal.SIGHUP)
    await until(agent, lambda it: it.value("snapshot_version") == 8)
    with pytest.raises(InvalidStatus):
        await client(agent.port, 1111)
    await until(agent, lambda it: it.value("back_source_failures_total", server="127.0.0.1:9") == 1)


async def test_a_back_source_that_is_down_shows_until_it_is_up_again(start: Start, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    server = f"127.0.0.1:{address[1]}"
    (tmp_path / "snapshot.json").write_bytes(snapshot(7, server=server).body)
    agent = await (await start("--workers", "2")).ready()
    await until(agent, lambda it: it.value("back_source_up", server=server) == 1)
    for _ in range(6):  # one of the two workers gets three of them
        with pytest.raises(InvalidStatus, match="502"):
            await client(agent.port, 1111)
    await until(agent, lambda it: it.has("back_source_up") and not it.value("back_source_up", server=server))
    assert agent.events("back_source_down")[0]["reason"] == "connection refused"
    with socket.create_server(address):
        await until(agent, lambda it: it.value("back_source_up", server=server) == 1)
    assert agent.events("back_source_up")[0]["reason"] == "connected"


async def test_what_else_workers_count_are_events(start: Start) -> None:
    agent = await (await start()).ready()
    found = await until(agent, lambda it: it.has("events_total"))
    events = {sample.labels["event"] for sample in found.families["msha_edge_events"].samples}
    assert "log_lines_dropped" in events
    assert not events & {"handshakes", "bytes_up", "decision_redirect", "reason_wrong_unit"}


async def test_a_refused_file_shows_until_it_is_mended(start: Start, tmp_path: Path, server: str) -> None:
    agent = await (await start()).ready()
    (tmp_path / "snapshot.json").write_text("{}")
    agent.signal(signal.SIGHUP)
    found = await until(agent, lambda it: it.value("snapshot_refused") == 1)
    assert found.value("snapshot_version") == 7
    (tmp_path / "snapshot.json").write_bytes(snapshot(8, server=server).body)
    agent.signal(signal.SIGHUP)
    await until(agent, lambda it: it.value("snapshot_refused") == 0)


# -- workers -----------------------------------------------------------------------------------------------


async def test_counters_do_not_go_down_when_a_worker_is_killed(start: Start) -> None:
    agent = await (await start("--workers", "2")).ready()
    sessions = [await client(agent.port, 1111 + number) for number in range(4)]
    for session in sessions:
        assert await speaks(session, "x" * 1000)
    await redirected(agent)
    before = await until(agent, lambda it: it.value("bytes_total", direction="up") >= 4000)
    for pid in agent.worker_pids:
        os.kill(pid, signal.SIGKILL)
    after = await until(agent, lambda it: it.value("worker_crashes_total") == 2 and it.value("workers") == 2)
    for name in ("handshakes_total", "bytes_total", "decision_seconds_count"):
        assert after.total(name) >= before.total(name), name
    assert before.value("sessions") == 4
    assert (await until(agent, lambda it: it.value("listening") == 1)).value("sessions") == 0
    await redirected(agent)
    await until(agent, lambda it: it.total("handshakes_total") == before.total("handshakes_total") + 1)


async def test_a_worker_that_hangs_shows_as_lag_and_as_old_figures_and_the_scrape_does_not_wait(
    start: Start,
) -> None:
    agent = await (await start()).ready()
    calm = await until(agent, lambda it: it.has("worker_loop_lag_seconds"))
    assert calm.value("worker_report_age_seconds", worker="0") < 1
    (pid,) = agent.worker_pids
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(1.5)
        began = asyncio.get_running_loop().time()
        hung = await scrape(agent)
        assert asyncio.get_running_loop().time() - began < 2
        assert hung.value("worker_report_age_seconds", worker="0") > 1
    finally:
        os.kill(pid, signal.SIGCONT)
    found = await until(agent, lambda it: it.value("worker_loop_lag_seconds", worker="0") > 1)
    assert found.value("worker_report_age_seconds", worker="0") < 1


async def test_descriptors_are_those_that_the_kernel_counts(start: Start) -> None:
    agent = await (await start()).ready()
    (pid,) = agent.worker_pids
    session = await client(agent.port, 1111)
    open_ones = len(os.listdir(f"/proc/{pid}/fd"))
    found = await scrape(agent)
    assert found.value("worker_open_fds", worker="0") == open_ones
    limits = Path(f"/proc/{pid}/limits").read_text()
    match = re.search(r"Max open files\s+(\d+)", limits)
    assert match is not None
    assert found.value("worker_max_fds", worker="0") == int(match[1])
    await session.close()


async def test_a_node_that_drains_is_still_scraped(start: Start) -> None:
    agent = await (await start()).ready()
    session = await client(agent.port, 1111)
    agent.signal(signal.SIGTERM)
    found = await until(agent, lambda it: it.value("draining") == 1)
    assert (found.value("listening"), found.value("sessions")) == (0, 1)
    await session.close()
    assert await agent.ended() == 0


# -- the console -------------------------------------------------------------------------------------------


@pytest.fixture
async def console() -> AsyncIterator[Console]:
    async with open_console() as it:
        yield it


async def test_the_control_stream_shows_as_connected_and_in_sync_until_the_console_goes_away(
    console: Console, start: Start, tmp_path: Path, server: str
) -> None:
    source = ["--control", console.url, "--token-file", str(token_file(tmp_path))]
    agent = await start(source=(*source, "--state-dir", str(tmp_path / "state")))
    await eventually(lambda: agent.events("metrics_listening"))
    early = await until(agent, lambda it: it.value("control_connected") == 1)
    assert (early.value("listening"), early.value("snapshot_version")) == (0, 0)
    console.publish(snapshot(1, server=server))
    await agent.ready()
    found = await until(agent, lambda it: it.value("in_sync") == 1)
    assert (found.value("control_connected"), found.value("snapshot_version")) == (1, 1)
    (build,) = found.families["msha_edge_build_info"].samples
    assert (build.labels["unit"], build.labels["node"]) == ("center", "edge-1")
    await console.close()
    gone = await until(agent, lambda it: it.value("control_connected") == 0)
    assert (gone.value("in_sync"), gone.value("listening")) == (0, 1)
    await console.open()
    await until(agent, lambda it: it.value("control_connected") == it.value("in_sync") == 1)


# -- the address -------------------------------------------------------------------------------------------


async def test_a_taken_metrics_port_is_a_usage_error(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        agent = await start("--metrics-bind", address)
        assert await agent.ended() == 2
    told = agent.log.read_text().splitlines()
    assert told[-1].endswith(f"Cannot listen on {address}: Address already in use.")
    assert len(told) == 1


async def test_without_the_option_nothing_listens_for_scrapes(tmp_path: Path) -> None:
    file = tmp_path / "snapshot.json"
    file.write_bytes(snapshot(1).body)
    options = ["--bind", "127.0.0.1:0", "--snapshot", str(file), "--unit", "center", "--workers", "1"]
    agent = await RunningAgent(tmp_path, "run", *options).start()
    try:
        await agent.ready()
        assert agent.events("metrics_listening") == []
    finally:
        await agent.kill()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("GET / HTTP/1.1", 404), ("POST /metrics HTTP/1.1", 405), ("GET /metrics", 505), ("\x16\x03\x01", 400)],
)
async def test_anything_but_a_get_of_the_metrics_is_refused(
    start: Start, request_line: str, status: int
) -> None:
    agent = await (await start()).ready()
    reader, writer = await _dial(agent)
    try:
        writer.write(f"{request_line}\r\nHost: edge\r\n\r\n".encode())
        assert (await _rest(reader)).split(b" ", 2)[1] == str(status).encode()
    finally:
        writer.close()


async def test_scrapers_that_say_nothing_or_read_nothing_stop_neither_scrapes_nor_the_agent(
    start: Start, tmp_path: Path, server: str
) -> None:
    agent = await (await start()).ready()
    idle = [await _dial(agent) for _ in range(2 * CONNECTIONS_LIMIT)]
    for _, writer in idle[-CONNECTIONS_LIMIT // 2 :]:
        writer.write(b"GET /metrics HTTP/1.1\r\n")
    began = asyncio.get_running_loop().time()
    await scrape(agent)
    assert asyncio.get_running_loop().time() - began < EXCHANGE_S / 2
    (tmp_path / "snapshot.json").write_bytes(snapshot(8, server=server).body)
    agent.signal(signal.SIGHUP)
    await until(agent, lambda it: it.value("snapshot_version") == 8, within_s=EXCHANGE_S / 2)
    async with asyncio.timeout(EXCHANGE_S + 5):  # and they are not kept for ever
        for reader, writer in idle:
            assert await _rest(reader) == b""
            writer.close()


async def test_scrapes_at_once_get_the_same_figures_and_ask_the_workers_once(start: Start) -> None:
    agent = await (await start()).ready()
    found = await asyncio.gather(*(scrape(agent) for _ in range(10)))
    assert {each.value("snapshot_version") for each in found} == {7}


async def _dial(agent: RunningAgent) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    bound = agent.events("metrics_listening")[0]
    return await asyncio.open_connection(bound["host"], bound["port"])


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


# -- the documentation -------------------------------------------------------------------------------------


async def test_the_table_of_metrics_names_what_is_exposed_and_nothing_else(
    console: Console, start: Start, tmp_path: Path, server: str
) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "default.pem").write_bytes(Authority(tmp_path).pem("websocket.msha.tech"))
    source = ["--control", console.url, "--token-file", str(token_file(tmp_path))]
    source += ["--tls-bind", "127.0.0.1:0", "--tls-certs", str(tmp_path / "certs")]
    agent = await start(source=(*source, "--state-dir", str(tmp_path / "state")))
    console.newest = snapshot(1, server=server)
    await agent.ready()
    found = await scrape(agent)
    exposed = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in found.families.values()
    }
    page = (REPOSITORY / "docs" / "edge.md").read_text()
    documented = re.findall(r"^\| `(msha_edge_\w+)[`{]", page, re.MULTILINE)
    assert sorted(documented) == sorted(exposed)
