"""Clients that come by TLS: which certificate they see, that all goes on as without, and what goes wrong."""

import json
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from msha.edge.entry.access_log import open_access_log
from msha.edge.limits import Limits
from msha.edge.port.balancers import Balancers, networks
from msha.edge.port.certificates import Certificates
from msha.edge.port.tls import TlsSocket
from msha.edge.session.tunnel import CHUNK_BYTES
from tests.edge.test_interop import EchoServer
from tests.support.certificates import Authority
from tests.support.edge_worker import QUICK, EdgeWorker, make_config, make_rule
from tests.support.needs import NODE_MODULES, need
from tests.support.tls_stream import TlsStream, pieces
from tests.support.websocket_wire import TIMEOUT_S, BackSource, Client, frame, handshake_head

NAME = "websocket.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def certs(tmp_path: Path, authority: Authority) -> Path:
    """Two domains and a default."""
    directory = tmp_path / "certs"
    directory.mkdir()
    (directory / f"{NAME}.pem").write_bytes(authority.pem(NAME, f"*.{NAME}", serial=1))
    (directory / "other.test.pem").write_bytes(authority.pem("other.test", serial=2))
    (directory / "default.pem").write_bytes(authority.pem("default.test", serial=3))
    return directory


MakeWorker = Callable[..., EdgeWorker]


@pytest.fixture
def make_worker(certs: Path, back_source: BackSource, tmp_path: Path) -> Iterator[MakeWorker]:
    """Makes workers that listen for TLS, too; their access log is ``tmp_path / "log"``."""
    workers: list[EdgeWorker] = []

    def make(server: str = "", *, limits: Limits = QUICK, balancers: Balancers | None = None) -> EdgeWorker:
        certificates = Certificates(certs)
        certificates.look()
        log = open_access_log(str(tmp_path / "log"), "center")
        worker = EdgeWorker(limits=limits, balancers=balancers, access_log=log, certificates=certificates)
        workers.append(worker.start())
        config = make_config({"center": [server or back_source.address], "unbj": ["127.0.0.1:9"]})
        config["domains"][0]["tls_ports"] = {"unbj": 8443}
        worker.apply(config, make_rule())
        worker.listen()
        return worker

    yield make
    for worker in workers:
        worker.stop()


@pytest.fixture
def worker(make_worker: MakeWorker) -> EdgeWorker:
    return make_worker()


@pytest.fixture
def wss(worker: EdgeWorker, authority: Authority) -> Iterator[Callable[..., Client]]:
    """Opens connections by TLS."""
    clients: list[Client] = []

    def opened(name: str | None = NAME, **options: int) -> Client:
        clients.append(secure(worker, authority, name, **options))
        return clients[-1]

    yield opened
    for client in clients:
        client.close()


def stream(worker: EdgeWorker, authority: Authority, name: str | None = NAME, **options: Any) -> TlsStream:
    """A client that has not begun with TLS yet."""
    context = authority.client()
    context.check_hostname = name is not None
    return TlsStream(Client.connect(worker.tls_port, **options).sock, context, name)


def secure(worker: EdgeWorker, authority: Authority, name: str | None = NAME, **options: int) -> Client:
    """A client past the TLS handshake."""
    found = stream(worker, authority, name, **options)
    found.shake_hands()
    return Client(found)  # type: ignore[arg-type]  # it has the methods that count


def serial(client: Client) -> int:
    """Of the certificate that the client was shown."""
    certificate = client.sock.tls.getpeercert()  # type: ignore[attr-defined]
    return int(certificate["serialNumber"], 16)


def logged(tmp_path: Path, reason: str) -> dict[str, object]:
    """The line of the access log with this reason."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for line in (tmp_path / "log").read_text().splitlines():
            found: dict[str, object] = json.loads(line)
            if found["reason"] == reason:
                return found
        time.sleep(0.02)
    raise AssertionError((tmp_path / "log").read_text())


def until_nobody_is_left(worker: EdgeWorker, seconds: float = TIMEOUT_S) -> None:
    assert worker.worker is not None
    deadline = time.monotonic() + seconds
    while worker.worker.shell.connections:
        assert time.monotonic() < deadline, f"{worker.worker.shell.connections} connections are left"
        time.sleep(0.02)


# Records


def test_a_record_for_each_byte_is_heard_to_the_end(
    worker: EdgeWorker, back_source: BackSource, authority: Authority
) -> None:
    client = stream(worker, authority)
    client.shake_hands()
    head = handshake_head(router_id=1111, extra=f"X-Long: {'x' * 3000}\r\n")
    message = frame(os.urandom(5000), 2, mask=b"abcd")
    for data in (head, message):
        client.sock.sendall(b"".join(client.encrypted(data[at : at + 1]) for at in range(len(data))))
        if data is head:
            session = back_source.take()
            session.switch()
            assert Client(client).answer().status == 101  # type: ignore[arg-type]
    assert session.read(len(message)) == message
    client.close()


# Which certificate


@pytest.mark.parametrize(
    ("name", "number"),
    [(NAME, 1), (f"center.{NAME}", 1), ("CENTER.WebSocket.test", 1), ("other.test", 2), ("default.test", 3)],
)
def test_the_name_that_a_client_asks_for_picks_the_certificate(
    wss: Callable[..., Client], name: str, number: int
) -> None:
    client = wss(name)
    assert serial(client) == number
    assert client.sock.tls.version() == "TLSv1.3"  # type: ignore[attr-defined]


def test_whoever_asks_for_no_name_sees_the_default(wss: Callable[..., Client]) -> None:
    assert serial(wss(None)) == 3


@pytest.mark.parametrize("name", ["elsewhere.test", None])
def test_without_a_default_another_name_is_refused_by_an_alert(
    make_worker: MakeWorker, authority: Authority, certs: Path, tmp_path: Path, name: str | None
) -> None:
    (certs / "default.pem").unlink()
    worker = make_worker()
    client = stream(worker, authority, name)
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        client.shake_hands()
    assert client.sock.recv(1) == b""
    client.close()
    entry = logged(tmp_path, "tls_failed")
    assert (entry["decision"], entry["path"]) == ("invalid", "UNRECOGNIZED_NAME")
    until_nobody_is_left(worker)


def test_http_1_1_is_agreed_on_and_old_versions_are_not(worker: EdgeWorker, authority: Authority) -> None:
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = TlsStream(Client.connect(worker.tls_port).sock, context, NAME)
    client.shake_hands()
    assert client.tls.selected_alpn_protocol() == "http/1.1"
    client.close()
    need("openssl")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{worker.tls_port}", "-servername", NAME]
    old = subprocess.run(
        [*command, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        input=b"",
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert re.search(b"(?i)protocol version|no protocols available", old.stderr)
    found = subprocess.run(
        [
            *command,
            "-verify_return_error",
            "-CAfile",
            str(authority.file),
            "-verify_hostname",
            f"unbj.{NAME}",
        ],
        input=b"",
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert b"Verify return code: 0 (ok)" in found.stdout


def test_a_client_comes_back_by_its_ticket(make_worker: MakeWorker, authority: Authority) -> None:
    worker = make_worker()
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where Python can hold on to a session
    with (
        Client.connect(worker.tls_port).sock as plain,
        context.wrap_socket(plain, server_hostname=NAME) as first,
    ):
        session = first.session
    with (
        Client.connect(worker.tls_port).sock as plain,
        context.wrap_socket(plain, server_hostname=NAME, session=session) as second,
    ):
        assert second.session_reused
    worker.agent.stats(lambda word: word["counters"].get("tls_resumed") == 1)


# Everything else is as without TLS


def test_a_session_by_tls_is_tunnelled_and_its_back_source_is_told(
    wss: Callable[..., Client], back_source: BackSource
) -> None:
    client = wss()
    client.send(handshake_head(router_id=1111) + b"early")
    session = back_source.take()
    assert session.headers["x-forwarded-proto"] == "https"
    session.switch(rest=b"welcome")
    assert client.answer().status == 101
    assert client.read(7) == b"welcome"
    assert session.read(5) == b"early"
    client.send(b"up")
    session.send(b"down")
    assert session.read(2) == b"up"
    assert client.read(4) == b"down"


def test_a_client_that_came_by_tls_stays_with_tls(
    worker: EdgeWorker, wss: Callable[..., Client], back_source: BackSource
) -> None:
    client = wss()
    answer = client.ask(handshake_head(router_id=6000))
    assert answer.status == 302
    assert answer.headers["location"] == f"https://unbj.{NAME}:8443/"
    assert client.ended()
    _, plain = worker.ask(handshake_head(router_id=6000))
    assert plain.headers["location"] == f"http://unbj.{NAME}:8102/"
    target = f"/.well-known/msha/locate?host={NAME}&routerId="
    for router_id, url in ((1111, f"wss://center.{NAME}/"), (6000, f"wss://unbj.{NAME}:8443/")):
        client = wss()
        found = client.ask(f"GET {target}{router_id} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        assert json.loads(client.body(found))["url"] == url


@pytest.mark.parametrize("name", [NAME, f"center.{NAME}"])
def test_the_websockets_library_echoes_large_messages(
    make_worker: MakeWorker, authority: Authority, name: str
) -> None:
    echo = EchoServer()
    try:
        worker = make_worker(echo.address)
        with connect(
            f"wss://{name}:{worker.tls_port}/",
            sock=Client.connect(worker.tls_port).sock,
            ssl=authority.client(),
            additional_headers={"routerId": "1111"},
            max_size=1 << 24,
        ) as client:
            for message in ("hello", b"\0" * (1 << 20), os.urandom(3 << 20)):
                client.send(message)
                assert client.recv(timeout=TIMEOUT_S) == message
    finally:
        echo.stop()


def test_node_connects_echoes_and_closes(make_worker: MakeWorker, authority: Authority) -> None:
    node = need("node")
    need("ws")
    script = f"""
        const {{ WebSocket }} = require('ws');
        const [port, ca] = process.argv.slice(1);
        const socket = new WebSocket(`wss://127.0.0.1:${{port}}/`, {{
          ca: require('fs').readFileSync(ca), servername: '{NAME}',
          headers: {{ Host: '{NAME}', routerId: '1' }},
        }});
        const sent = 'x'.repeat(1 << 20);
        socket.on('open', () => socket.send(sent));
        socket.on('message', (data) => {{
          if (data.toString() === sent) socket.close(1000, 'enough');
        }});
        socket.on('error', (error) => console.log('error', error.message));
        socket.on('close', (code) => console.log('closed', code));
    """
    echo = EchoServer()
    try:
        worker = make_worker(echo.address)
        done = subprocess.run(
            [node, "-e", script, str(worker.tls_port), str(authority.file)],
            env={**os.environ, "NODE_PATH": str(NODE_MODULES)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    finally:
        echo.stop()
    assert done.stdout == "closed 1000\n", done.stderr


def test_a_cutover_closes_with_1012_then_tls_then_tcp(
    worker: EdgeWorker, wss: Callable[..., Client], back_source: BackSource
) -> None:
    client = wss()
    client.send(handshake_head(router_id=1111))
    session = back_source.take()
    session.switch()
    assert client.answer().status == 101
    worker.apply(make_config({"center": [back_source.address]}), make_rule({"unbj": ["0~9999"]}, epoch=2))
    close = client.read_frame()
    assert (close.close_code, close.close_reason) == (1012, "moved to unbj")
    assert client.ended(), "something came after the Close"
    assert client.sock.sock.recv(1) == b""  # type: ignore[attr-defined]
    client.close()
    worker.agent.hear("drained")
    until_nobody_is_left(worker)


def test_after_two_closes_tls_ends_before_tcp(wss: Callable[..., Client], back_source: BackSource) -> None:
    client = wss()
    client.send(handshake_head(router_id=1111))
    session = back_source.take()
    session.switch()
    assert client.answer().status == 101
    client.send_frame(b"\x03\xe8", 8)
    assert session.read_frame().close_code == 1000
    session.send(frame(b"\x03\xe8", 8))
    session.close()
    assert client.read_frame().close_code == 1000
    assert client.ended()


def test_an_answer_is_no_reset_for_a_client_that_ends_tls_properly(wss: Callable[..., Client]) -> None:
    client = wss()
    answer = client.ask(handshake_head(router_id=6000))
    assert answer.status == 302
    assert client.ended()
    found = client.sock
    assert isinstance(found, TlsStream)
    found.sock.sendall(found.ended())
    time.sleep(0.1)  # a reset would be here by then
    assert found.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert found.sock.recv(1) == b""


def test_either_side_can_end_first_and_still_be_told_something(
    worker: EdgeWorker, wss: Callable[..., Client], back_source: BackSource
) -> None:
    sessions = []
    for _ in range(2):
        client = wss()
        client.send(handshake_head(router_id=1111))
        session = back_source.take()
        session.switch()
        assert client.answer().status == 101
        sessions.append((client, session))
    (first, to_first), (second, to_second) = sessions
    first.half_close()
    assert to_first.read_to_end() == b""
    to_first.send(b"heard after the client's end")
    to_first.half_close()
    assert first.read_to_end() == b"heard after the client's end"
    to_second.half_close()
    assert second.read_to_end() == b""
    second.send(b"heard after the back-source's end")
    second.half_close()
    assert to_second.read_to_end() == b"heard after the back-source's end"
    until_nobody_is_left(worker)


def test_what_waits_for_a_client_that_does_not_read_is_bounded(
    worker: EdgeWorker, wss: Callable[..., Client], back_source: BackSource
) -> None:
    client = wss(receive_buffer=4096)
    client.send(handshake_head(router_id=1111))
    session = back_source.take()
    session.switch()
    assert client.answer().status == 101
    assert worker.worker is not None
    (tunnel,) = worker.worker.sessions
    ours = tunnel.sockets[0]
    assert isinstance(ours, TlsSocket)
    sent, stuck = 0, 0
    session.sock.setblocking(False)
    stream_of = b"".join(struct.pack("I", number) for number in range(16_384))
    room = select.poll()
    room.register(session.sock, select.POLLOUT)
    while room.poll(300):
        try:
            sent += session.sock.send(stream_of[sent % len(stream_of) :])
        except BlockingIOError:
            stuck += 1
        assert sent < 50_000_000, "the edge takes everything"
        assert tunnel.waiting_bytes <= CHUNK_BYTES
        assert len(ours._waiting) <= 20_000
    assert tunnel.waiting_bytes > 0
    received = bytearray()
    while len(received) < sent:
        received += client.sock.recv(1 << 18)
    assert received == (stream_of * (sent // len(stream_of) + 1))[:sent]


# Reloading


def test_a_new_certificate_is_shown_while_twenty_sessions_go_on(
    worker: EdgeWorker, wss: Callable[..., Client], authority: Authority, certs: Path, back_source: BackSource
) -> None:
    sessions = []
    for number in range(20):
        client = wss()
        client.send(handshake_head(router_id=number))
        session = back_source.take()
        session.switch()
        assert client.answer().status == 101
        sessions.append((client, session))
    stop, rounds = threading.Event(), 0

    def talk() -> None:
        nonlocal rounds
        while not stop.is_set():
            for client, session in sessions:
                client.send(b"ping")
                assert session.read(4) == b"ping"
                session.send(b"pong" * 1000)
                assert client.read(4000) == b"pong" * 1000
            rounds += 1

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        for number in (11, 12, 13):
            new = certs / "new"
            new.write_bytes(authority.pem(NAME, f"*.{NAME}", serial=number))
            new.replace(certs / f"{NAME}.pem")
            worker.agent.say("certificates")
            deadline = time.monotonic() + TIMEOUT_S
            while serial(wss()) != number:
                assert time.monotonic() < deadline, "the new certificate is not shown"
        heard, deadline = rounds, time.monotonic() + TIMEOUT_S
        while rounds < heard + 2:
            assert time.monotonic() < deadline
            assert talking.is_alive(), "a session was hurt"
            time.sleep(0.01)
    finally:
        stop.set()
        talking.join(TIMEOUT_S)
    assert worker.worker is not None
    assert len(worker.worker.sessions) == 20
    assert serial(sessions[0][0]) == 1


def test_a_broken_file_leaves_the_old_certificate(
    worker: EdgeWorker, wss: Callable[..., Client], certs: Path, authority: Authority
) -> None:
    (certs / f"{NAME}.pem").write_bytes(b"-----BEGIN")
    (certs / "other.test.pem").write_bytes(authority.pem("other.test", serial=22))
    worker.agent.say("certificates")
    deadline = time.monotonic() + TIMEOUT_S
    while serial(wss("other.test")) != 22:
        assert time.monotonic() < deadline, "the good one is not shown"
    assert serial(wss()) == 1


# What goes wrong


def test_whoever_speaks_http_to_the_port_is_told_so_in_the_clear(worker: EdgeWorker, tmp_path: Path) -> None:
    for data in (b"GET / HTTP/1.1\r\n", handshake_head(router_id=1)):
        client = Client.connect(worker.tls_port)
        answer = client.ask(data)
        assert answer.status == 400
        assert b"This port speaks TLS" in client.body(answer)
        client.close()
    assert str(logged(tmp_path, "plain_http")["path"]).startswith("GET / HTTP/1.1")
    client = Client.connect(worker.tls_port)
    client.send(b"SSH-2.0-OpenSSH_9\r\n")
    assert b"This port speaks TLS" in client.read_to_end()
    client.close()
    client = Client.connect(worker.tls_port)
    client.send(b"\x00\x01\x02")
    assert client.read_to_end() == b""
    client.close()
    assert logged(tmp_path, "not_tls")
    until_nobody_is_left(worker)


def test_whoever_speaks_tls_to_the_plain_port_is_refused_without_a_reset(
    worker: EdgeWorker, authority: Authority
) -> None:
    client = TlsStream(worker.connect().sock, authority.client(), NAME)
    client.sock.sendall(client.hello())
    answer = Client(client.sock).read_to_end()
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_handshake_that_comes_in_small_pieces_is_a_handshake(
    worker: EdgeWorker, authority: Authority, back_source: BackSource, size: int
) -> None:
    found = stream(worker, authority)
    found.shake_hands(size=size)
    with Client(found) as client:  # type: ignore[arg-type]
        for piece in pieces(found.encrypted(handshake_head(router_id=1111)), size):
            found.sock.sendall(piece)
        back_source.take().switch()
        assert client.answer().status == 101


@pytest.mark.parametrize("ends_with", ["fin", "reset", "hello and reset", "half a hello and reset"])
def test_a_client_that_leaves_in_the_handshake_leaves_nothing(
    worker: EdgeWorker, authority: Authority, ends_with: str
) -> None:
    for _ in range(20):
        found = stream(worker, authority)
        hello = found.hello()
        found.sock.sendall(hello[: len(hello) // 2] if "half" in ends_with else hello)
        client = Client(found.sock)
        if ends_with == "fin":
            client.half_close()
            client.read_to_end()
        else:
            client.reset()
        client.close()
    until_nobody_is_left(worker)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\xff\xff" + b"x" * 20_000,
        b"\x16\x03\x01\x00\x05hello",
        b"\x16\x00\x00\x00\x01\x01",
    ],
)
def test_a_hello_that_is_none_is_refused_without_a_reset(
    worker: EdgeWorker, tmp_path: Path, garbage: bytes
) -> None:
    client = Client.connect(worker.tls_port)
    client.send(garbage)
    assert len(client.read_to_end()) <= 7, "at most an alert"
    client.close()
    assert logged(tmp_path, "tls_failed")
    until_nobody_is_left(worker)


def test_three_hundred_handshakes_that_stop_half_way_are_gone_in_time_and_hurt_nobody(
    worker: EdgeWorker, wss: Callable[..., Client], authority: Authority, back_source: BackSource
) -> None:
    idle = []
    for number in range(300):
        found = stream(worker, authority)
        hello = found.hello()
        found.sock.sendall((b"", hello[:100], hello)[number % 3])
        idle.append(found)
    client = wss()
    client.send(handshake_head(router_id=1111))
    back_source.take().switch()
    assert client.answer().status == 101
    assert worker.worker is not None
    deadline = time.monotonic() + QUICK.head_s + QUICK.linger_s + 1.5
    while worker.worker.shell.connections > 2:
        assert time.monotonic() < deadline, f"{worker.worker.shell.connections} connections are left"
        time.sleep(0.05)
    worker.agent.stats(lambda word: word["counters"].get("invalid_tls_timeout", 0) == 300)
    for found in idle:
        found.close()
    client.send(b"still here")


def half_way(worker: EdgeWorker, authority: Authority, **options: Any) -> TlsStream:
    """A client in the middle of its handshake: it has an answer to its hello, and says nothing to it."""
    found = stream(worker, authority, **options)
    found.sock.sendall(found.hello())
    assert found.sock.recv(1, socket.MSG_PEEK) == b"\x16"
    return found


def turned_down(worker: EdgeWorker, authority: Authority, **options: Any) -> None:
    """A client is told by an alert that there is no room for its handshake, and sees a proper end."""
    found = stream(worker, authority, **options)
    with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_INTERNAL_ERROR"):
        found.shake_hands()
    assert Client(found.sock).read_to_end() == b""
    found.close()


def test_handshakes_under_way_have_a_limit_and_those_that_are_over_do_not_count(
    make_worker: MakeWorker, authority: Authority, back_source: BackSource, tmp_path: Path
) -> None:
    worker = make_worker(limits=replace(QUICK, tls_handshakes=3, head_s=10.0))
    through = [secure(worker, authority) for _ in range(4)]
    waiting = [half_way(worker, authority) for _ in range(3)]
    turned_down(worker, authority)
    worker.agent.stats(lambda word: word["counters"].get("limited_tls_handshakes", 0) == 1)
    assert logged(tmp_path, "limited_tls_handshakes")["decision"] == "refuse"
    through[0].send(handshake_head(router_id=1111))
    back_source.take().switch()
    assert through[0].answer().status == 101
    waiting[0].shake_hands()  # it has got its place, and leaves it to another
    secure(worker, authority).close()
    for client in (*through, *waiting):
        client.close()


@pytest.mark.parametrize("how", ["through", "fin", "reset", "no tls", "too late"])
def test_a_handshake_that_ends_makes_room_for_another(
    make_worker: MakeWorker, authority: Authority, how: str
) -> None:
    limits = replace(QUICK, tls_handshakes=1, tls_handshakes_per_address=1)
    worker = make_worker(limits=limits if how == "too late" else replace(limits, head_s=10.0))
    assert worker.worker is not None
    assert worker.worker.shell.tls is not None
    under_way = worker.worker.shell.tls.handshakes
    for _ in range(3):
        found = half_way(worker, authority)
        assert len(under_way) == 1
        client = Client(found.sock)
        if how == "through":
            found.shake_hands()
        elif how == "fin":
            client.half_close()
        elif how == "reset":
            client.reset()
        elif how == "no tls":
            client.send(b"GET / HTTP/1.1\r\n\r\n")
        deadline = time.monotonic() + TIMEOUT_S
        while len(under_way):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        client.close()
    assert not under_way._by_network


def test_an_address_has_a_part_of_the_handshakes_and_a_load_balancer_has_as_many_as_there_are(
    make_worker: MakeWorker, authority: Authority
) -> None:
    limits = replace(QUICK, tls_handshakes=5, tls_handshakes_per_address=2, head_s=10.0)
    worker = make_worker(limits=limits, balancers=Balancers(networks(["127.0.0.9"])))
    found = [half_way(worker, authority, source="127.0.0.2") for _ in range(2)]
    turned_down(worker, authority, source="127.0.0.2")
    worker.agent.stats(lambda word: word["counters"].get("limited_tls_handshakes_per_address", 0) == 1)
    found += [half_way(worker, authority, source="127.0.0.9") for _ in range(3)]
    turned_down(worker, authority, source="127.0.0.9")
    turned_down(worker, authority, source="127.0.0.3")
    worker.agent.stats(lambda word: word["counters"].get("limited_tls_handshakes", 0) == 2)
    for client in found:
        client.close()


def test_the_head_has_no_more_time_than_without_tls(wss: Callable[..., Client]) -> None:
    began = time.monotonic()
    client = wss()
    client.send(b"GET / HTTP/1.1\r\n")
    assert client.answer().status == 408
    assert time.monotonic() - began < QUICK.head_s + 0.6


def test_a_client_over_a_limit_is_let_go_without_a_word(
    make_worker: MakeWorker, authority: Authority
) -> None:
    limits = Limits(connections=2, head_s=QUICK.head_s, linger_s=QUICK.linger_s)
    worker = make_worker(limits=limits)
    clients = [secure(worker, authority) for _ in range(2)]
    excess = stream(worker, authority)
    excess.sock.sendall(excess.hello())
    assert Client(excess.sock).read_to_end() == b""
    for client in (*clients, excess):
        client.close()


def test_a_trusted_load_balancer_names_the_client_before_tls_begins(
    make_worker: MakeWorker, authority: Authority, back_source: BackSource
) -> None:
    worker = make_worker(balancers=Balancers(networks(["127.0.0.0/8"]), proxy_protocol=True))
    found = stream(worker, authority)
    found.sock.sendall(b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\r\n")
    found.shake_hands()
    with Client(found) as client:  # type: ignore[arg-type]
        client.send(handshake_head(router_id=1111, extra="X-Forwarded-Proto: http\r\n"))  # of a stranger
        session = back_source.take()
        assert session.headers["x-forwarded-for"].startswith("203.0.113.7")
        assert session.headers["x-forwarded-proto"] == "https"
        session.switch()
        assert client.answer().status == 101


@pytest.mark.parametrize(("said", "location"), [("http", "http://unbj."), ("https", "https://unbj.")])
def test_a_trusted_load_balancer_that_speaks_tls_to_us_says_whether_its_client_did(
    make_worker: MakeWorker, authority: Authority, said: str, location: str
) -> None:
    worker = make_worker(balancers=Balancers(networks(["127.0.0.0/8"])))
    with secure(worker, authority) as client:
        extra = f"X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: {said}\r\n"
        answer = client.ask(handshake_head(router_id=6000, extra=extra))
        assert answer.headers["location"].startswith(location)


def test_an_idle_session_ends_cleanly_when_the_worker_does(
    worker: EdgeWorker, wss: Callable[..., Client], back_source: BackSource
) -> None:
    client = wss()
    client.send(handshake_head(router_id=1111))
    back_source.take().switch()
    assert client.answer().status == 101
    worker.agent.say("drain", seconds=0)
    assert client.read_frame().close_code == 1012
    assert client.ended()
