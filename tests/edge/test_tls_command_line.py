"""``--tls-bind`` and ``--tls-certs`` as operators meet them: real edges, signals, files that change."""

import datetime
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from websockets.asyncio.client import ClientConnection, connect

from msha.edge.node.certificate_watch import CertificateWatch
from msha.edge.port.certificates import Certificates
from tests.edge.test_command_line import usage
from tests.support.agents import RunningAgent, echo_server, eventually, takes_connections
from tests.support.certificates import Authority
from tests.support.snapshots import snapshot

NAME = "websocket.msha.tech"
Start = Callable[..., Awaitable[RunningAgent]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def certs(tmp_path: Path, authority: Authority) -> Path:
    directory = tmp_path / "certs"
    directory.mkdir()
    write(directory / f"{NAME}.pem", authority.pem(NAME, f"*.{NAME}", serial=1))
    return directory


def write(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(path)


@pytest.fixture
async def start(tmp_path: Path, certs: Path) -> AsyncIterator[Start]:
    """Starts an edge that obeys a file and speaks TLS; its back-source echoes."""
    agents: list[RunningAgent] = []
    async with echo_server() as server:
        file = tmp_path / "snapshot.json"
        file.write_bytes(snapshot(1, server=server).body)

        async def start(*words: str) -> RunningAgent:
            options = ["--bind", "127.0.0.1:0", "--snapshot", str(file), "--unit", "center", "--drain-s", "1"]
            options += ["--tls-bind", "127.0.0.1:0", "--tls-certs", str(certs)]
            agent = RunningAgent(tmp_path, "run", *options, *words)
            agents.append(agent)
            return await (await agent.start()).ready()

        yield start
        for agent in agents:
            await agent.kill()


def tls_port(agent: RunningAgent) -> int:
    return int(agent.events("listening")[0]["tls_address"].rpartition(":")[2])


def session(agent: RunningAgent, authority: Authority) -> connect:
    sock = socket.create_connection(("127.0.0.1", tls_port(agent)))
    options: dict[str, Any] = {"sock": sock, "ssl": authority.client()}
    return connect(f"wss://{NAME}/", additional_headers={"routerId": "1111"}, **options)


def serial(client: ClientConnection) -> int:
    certificate = client.transport.get_extra_info("peercert")
    return int(certificate["serialNumber"], 16)


async def shown(agent: RunningAgent, authority: Authority) -> int:
    async with session(agent, authority) as client:
        return serial(client)


async def test_a_signal_brings_new_certificates_to_every_worker_and_leaves_sessions_alone(
    start: Start, authority: Authority, certs: Path
) -> None:
    agent = await start("--workers", "2")
    opened = [await session(agent, authority) for _ in range(6)]
    write(certs / f"{NAME}.pem", authority.pem(NAME, serial=2))
    agent.signal(signal.SIGHUP)
    await eventually(lambda: len(agent.events("certificate_read")) == 2)
    for _ in range(3):  # in a row, whichever worker takes them
        await _until_shown(agent, authority, 2)
    for client in opened:
        assert serial(client) == 1
        await client.send("still here")
        assert await client.recv() == "still here"
        await client.close()
    agent.signal(signal.SIGTERM)
    assert await agent.ended() == 0


async def _until_shown(agent: RunningAgent, authority: Authority, number: int) -> None:
    for _ in range(100):
        seen = [await shown(agent, authority) for _ in range(8)]
        if set(seen) == {number}:
            return
    raise AssertionError(f"shown are {seen}")


async def test_changed_files_are_found_without_a_signal(
    start: Start, authority: Authority, certs: Path
) -> None:
    agent = await start("--workers", "1")
    write(certs / f"{NAME}.pem", authority.pem(NAME, serial=2))
    await eventually(lambda: len(agent.events("certificate_read")) == 2)
    await _until_shown(agent, authority, 2)


async def test_a_broken_file_is_told_once_counted_and_the_old_certificate_served_on(
    start: Start, authority: Authority, certs: Path
) -> None:
    agent = await start("--workers", "2", "--metrics-bind", "127.0.0.1:0")
    (certs / f"{NAME}.pem").write_bytes(b"no certificate")
    agent.signal(signal.SIGHUP)
    (told,) = await eventually(lambda: agent.events("certificate_refused"))
    agent.signal(signal.SIGHUP)
    assert (told["name"], told["serves_the_former"]) == (NAME, True)
    assert "does not hold a certificate chain and its private key" in told["reason"]
    await eventually(lambda: agent.events("certificates_unchanged"))
    assert len(agent.events("certificate_refused")) == 1
    assert await shown(agent, authority) == 1
    bound = agent.events("metrics_listening")[0]
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://{bound['host']}:{bound['port']}/metrics")).text
    assert "msha_edge_certificates_refused 1.0" in text
    assert f'msha_edge_certificate_expiry_timestamp_seconds{{name="{NAME}"}}' in text
    write(certs / f"{NAME}.pem", authority.pem(NAME, serial=2))
    agent.signal(signal.SIGHUP)
    await _until_shown(agent, authority, 2)


async def test_a_worker_that_takes_the_place_of_another_speaks_tls_too(
    start: Start, authority: Authority
) -> None:
    agent = await start("--workers", "1")
    for pid in agent.worker_pids:
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: len(agent.events("worker_started")) == 2)
    await eventually(lambda: takes_connections(tls_port(agent)))
    assert await shown(agent, authority) == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (shutil.rmtree, "cannot be read"),
        (lambda certs: (certs / f"{NAME}.pem").unlink(), "has no file such as default.pem"),
        (lambda certs: (certs / "default.pem").write_bytes(b""), "does not hold a certificate chain"),
    ],
)
def test_without_certificates_an_edge_does_not_start(
    tmp_path: Path, certs: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Path], Any], sentence: str
) -> None:
    make(certs)
    file = tmp_path / "snapshot.json"
    file.write_bytes(snapshot(1).body)
    words = ["run", "--bind", "127.0.0.1:0", "--snapshot", str(file), "--unit", "center"]
    told = usage(capfd, *words, "--tls-bind", "127.0.0.1:0", "--tls-certs", str(certs))
    assert sentence in told
    assert str(certs) in told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--tls-bind 127.0.0.1:0", "go together"),
        ("--tls-certs /tmp", "go together"),
        ("--bind 127.0.0.1:81 --tls-bind 127.0.0.1:81 --tls-certs /tmp", "must be two ports"),
    ],
)
def test_address_and_certificates_go_together(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: str, sentence: str
) -> None:
    file = tmp_path / "snapshot.json"
    file.write_bytes(snapshot(1).body)
    line = ["run", "--bind", "127.0.0.1:0", "--snapshot", str(file), "--unit", "center", *words.split()]
    assert sentence in usage(capfd, *line)


def warnings_of(certs: Path) -> list[str]:
    """What the agent warns of when it starts."""
    with structlog.testing.capture_logs() as lines:
        CertificateWatch(Certificates(certs)).begin()
    return [line["event"] for line in lines if line["log_level"] == "warning"]


@pytest.mark.parametrize(
    ("lasts", "warned"),
    [
        (datetime.timedelta(days=15), []),
        (datetime.timedelta(days=13), ["certificate_expires_soon"]),
        (-datetime.timedelta(minutes=1), ["certificate_expired"]),
    ],
)
def test_a_certificate_is_warned_of_a_fortnight_before_it_expires(
    certs: Path, authority: Authority, lasts: datetime.timedelta, warned: list[str]
) -> None:
    write(certs / f"{NAME}.pem", authority.pem(NAME, lasts=lasts))
    assert warnings_of(certs) == warned


def test_a_certificate_of_another_name_and_a_readable_key_are_warned_of(
    certs: Path, authority: Authority
) -> None:
    month = datetime.timedelta(days=30)
    write(certs / f"{NAME}.pem", authority.pem("elsewhere.test", lasts=month))
    write(certs / f"center.{NAME}.pem", authority.pem(f"*.{NAME}", lasts=month))
    (certs / f"center.{NAME}.pem").chmod(0o644)
    assert warnings_of(certs) == ["private_key_open_to_all", "certificate_of_another_name"]
