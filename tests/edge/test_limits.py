"""What an edge takes and how much: settings, and what happens beyond each of them, over real sockets."""

import os
import re
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from msha.edge.entry.peers import Downgrades, Peers, network_of
from msha.edge.limits import InvalidSetting, Limits, Room, check_descriptors, setting_name, settings
from msha.steering.wire import TEXT_LIMIT_BYTES
from tests.support.edge_worker import (
    QUICK,
    Agent,
    EdgeWorker,
    make_config,
    make_rule,
    make_snapshot,
    worker_process,
)
from tests.support.snapshots import snapshot
from tests.support.websocket_wire import TIMEOUT_S, BackSource, Client, frame, handshake_head

DOCS = Path(__file__).resolve().parents[2] / "docs"

Make = Callable[..., EdgeWorker]


@pytest.fixture
def make(back_source: BackSource) -> Iterator[Make]:
    """Makes workers with limits of the test's own, that serve from ``back_source``."""
    workers: list[EdgeWorker] = []

    def make(**limits: Any) -> EdgeWorker:
        worker = EdgeWorker(limits=replace(QUICK, **limits)).start()
        workers.append(worker)
        worker.apply(make_config({"center": [back_source.address], "unbj": ["127.0.0.1:9"]}), make_rule())
        worker.listen()
        return worker

    yield make
    for worker in workers:
        worker.stop()


def eventually(fact: Callable[[], Any], what: str) -> Any:
    """The first true value of the fact."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (value := fact()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return value


def counted(worker: EdgeWorker, name: str, count: int = 1) -> None:
    """The worker says so, soon."""
    worker.agent.stats(lambda said: said["counters"].get(name) == count)


# The settings


def documented() -> dict[str, tuple[str, str]]:
    """The settings table: name, default and range."""
    rows = re.findall(r"^\| `(MSHA_EDGE_\w+)` \| ([^|]+) \| ([^|]+) \|", (DOCS / "edge.md").read_text(), re.M)
    return {name: (default.strip(), values.strip()) for name, default, values in rows}


def test_the_settings_table_has_every_limit_with_its_default_and_range() -> None:
    expected = {}
    for field in settings():
        least, most = (f"{field.metadata[end]:,}" for end in ("least", "most"))
        none = "0, " if field.metadata["or_none"] else ""
        default = f"{field.default:,}".removesuffix(".0")
        expected[setting_name(field.name)] = (default, f"{none}{least} - {most}")
    assert documented() == expected


def test_every_limit_is_read_from_the_environment() -> None:
    environment = {setting_name(field.name): str(int(field.metadata["most"]) - 1) for field in settings()}
    environment["MSHA_EDGE_PING_S"] = "61.5"
    limits = Limits.of(environment)
    assert limits.ping_s == 61.5
    for field in settings():
        if field.name != "ping_s":
            assert getattr(limits, field.name) == int(field.metadata["most"]) - 1
    assert Limits.of({}) == Limits()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HEAD_S", "five"),
        ("HEAD_S", "0"),
        ("HEAD_S", "nan"),
        ("HEAD_S", "inf"),
        ("HEAD_BYTES", "1.5"),
        ("HEAD_BYTES", "70000"),
        ("HEAD_FIELDS", ""),
        ("IDLE_S", "60"),
        ("CONNECTIONS", "-1"),
        ("BUFFER_BYTES", "1024"),
    ],
)
def test_a_limit_that_is_no_number_or_out_of_range_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidSetting, match=f"MSHA_EDGE_{name} is {text!r}"):
        Limits.of({f"MSHA_EDGE_{name}": text})


def test_the_refusal_of_a_limit_says_what_may_be_written_instead() -> None:
    with pytest.raises(InvalidSetting, match=r"not a whole number from 65536 to 4194304\.$"):
        Limits.of({"MSHA_EDGE_BUFFER_BYTES": "1MiB"})


def test_pings_that_leave_no_time_to_answer_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="must be below MSHA_EDGE_IDLE_S"):
        Limits.of({"MSHA_EDGE_PING_S": "90", "MSHA_EDGE_IDLE_S": "90"})


@pytest.mark.parametrize(
    ("descriptors", "limits", "says"),
    [
        (1_048_576, Limits(), ""),
        (20_000, Limits(connections=9_000), ""),
        (20_000, Limits(connections=10_000), "not for the 10000 of MSHA_EDGE_CONNECTIONS. Raise"),
        (1_024, Limits(), "1024 file descriptors are few: they do for 454 connections per worker. Raise"),
        (1_024, Limits(connections=400), ""),
    ],
)
def test_descriptors_that_do_not_do_are_told(descriptors: int, limits: Limits, says: str) -> None:
    told = check_descriptors(limits, descriptors)
    assert says in told
    assert bool(told) == bool(says)


def test_every_connection_within_the_limit_finds_two_descriptors() -> None:
    for descriptors in (256, 1_024, 20_000, 1_048_576):
        room = Room.of(descriptors)
        assert 2 * room.connections + room.spare < descriptors - 60
        assert room.connections > 0.3 * descriptors


def run_edge(tmp_path: Path, *words: str, descriptors: int = 0, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of an edge that cannot start; it has 10 s for that."""
    file = tmp_path / "snapshot.json"
    file.write_bytes(snapshot(1).body)
    options = ["--bind", "127.0.0.1:0", "--snapshot", str(file), "--unit", "center", *words]

    def prepare() -> None:
        if descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    done = subprocess.run(
        [sys.executable, "-m", "msha.edge", "run", *options],
        capture_output=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        timeout=10,
        preexec_fn=prepare,
    )
    return done.returncode, done.stderr.decode()


def test_an_edge_with_a_wrong_limit_does_not_start(tmp_path: Path) -> None:
    code, said = run_edge(tmp_path, MSHA_EDGE_HEAD_BYTES="16k")
    assert (code, said) == (2, "MSHA_EDGE_HEAD_BYTES is '16k', not a whole number from 1024 to 65536.\n")


def test_an_edge_with_hardly_any_descriptors_does_not_start(tmp_path: Path) -> None:
    code, said = run_edge(tmp_path, descriptors=200)
    assert code == 2
    assert said.startswith("RLIMIT_NOFILE allows 200 file descriptors, and 256 are needed. Raise")


def test_few_descriptors_and_misspelt_settings_are_warned_of(tmp_path: Path) -> None:
    # It ends all the same: a PROXY header would be taken from nobody.
    code, said = run_edge(tmp_path, "--proxy-protocol", descriptors=1024, MSHA_EDGE_HED_S="3")
    assert code == 2
    assert '"event": "descriptors_few"' in said
    assert '"name": "MSHA_EDGE_HED_S", "meant": "MSHA_EDGE_HEAD_S", "event": "setting_unknown"' in said


# Connections


def refused(client: Client, status: int, sentence: bytes) -> None:
    """The client is told so, asked to come again later, and sees a proper end."""
    with client:
        response = client.ask(handshake_head(router_id=1111))
        assert response.status == status
        assert response.headers["retry-after"] == "1"
        assert sentence in client.body(response)


def test_beyond_the_limit_for_all_a_connection_is_told_and_the_others_go_on(
    make: Make, back_source: BackSource
) -> None:
    worker = make(connections=3)
    client, session = worker.open(back_source)
    worker.open(back_source)
    waiting = worker.connect()  # its head has not come
    waiting.send(b"G")
    eventually(lambda: worker.worker and worker.worker.shell.clients == 3, "three connections")
    refused(worker.connect(), 503, b"as many connections as it may")
    client.send_frame(b"served")
    assert session.read_frame().payload == b"served"
    counted(worker, "limited_connections")


def test_the_limit_for_all_is_exact_however_fast_connections_come(make: Make) -> None:
    worker = make(connections=200, head_s=30.0)
    clients = [worker.connect() for _ in range(300)]
    for client in clients:
        client.send(b"G")
    counted(worker, "limited_connections", 100)
    assert worker.worker is not None
    assert len(worker.worker.shell.head_deadlines) == 200


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nX: " + b"z" * 40_000])
def test_a_connection_that_is_turned_away_before_its_head_is_whole_is_not_reset(
    make: Make, back_source: BackSource, begun: bytes
) -> None:
    worker = make(connections=1)
    worker.open(back_source)
    client = worker.connect()
    client.send(begun)
    response = client.answer()
    assert response.status == 503
    client.send(b"y" * 1000)
    assert len(client.body(response)) > 10


def test_a_connection_that_ends_makes_room_for_another(make: Make, back_source: BackSource) -> None:
    worker = make(connections=1)
    client, session = worker.open(back_source)
    refused(worker.connect(), 503, b"as many")
    client.close()
    session.close()
    eventually(lambda: worker.worker and worker.worker.shell.clients == 0, "the session is over")
    worker.open(back_source)


def test_beyond_the_limit_of_its_address_a_connection_is_told_and_other_addresses_are_served(
    make: Make, back_source: BackSource
) -> None:
    worker = make(connections_per_address=2)
    worker.open(back_source)
    worker.open(back_source)
    refused(worker.connect(), 429, b"Your address")
    worker.open(back_source, source="127.0.0.2")
    counted(worker, "limited_connections_per_address")


@pytest.mark.parametrize("how", ["session", "refusal", "head never whole", "client gone"])
def test_every_connection_that_ends_is_taken_off_the_count_of_its_address(
    make: Make, back_source: BackSource, how: str
) -> None:
    worker = make(connections_per_address=2)
    for _ in range(5):
        client = worker.connect()
        client.send(b"G")
        eventually(lambda: worker.worker and worker.worker.shell.peers.connections("127.0.0.1"), "one")
        if how == "session":
            client.send(handshake_head(router_id=1111)[1:])
            session = back_source.take()
            session.switch()
            assert client.answer().status == 101
            session.close()
        elif how == "refusal":
            client.send(b"E\nT / HTTP/1.1\r\n\r\n")
            assert client.answer().status == 400
        elif how == "head never whole":
            assert client.answer().status == 408
        client.close()
        eventually(lambda: worker.worker and not worker.worker.shell.peers.connections("127.0.0.1"), "none")
    assert worker.worker is not None
    assert not worker.worker.shell.peers._holders


def test_an_address_that_asks_too_often_is_told_and_may_ask_again_later(make: Make) -> None:
    worker = make(handshakes_per_address_per_s=5)
    statuses = []
    for _ in range(8):
        client, response = worker.ask(handshake_head(router_id=9000))
        statuses.append(response.status)
        client.close()
    assert statuses[:5] == [302] * 5
    assert statuses[-1] == 429
    refused(worker.connect(), 429, b"more often within a second")
    other = worker.connect(source="127.0.0.2")
    assert other.ask(handshake_head(router_id=9000)).status == 302

    def served_again() -> bool:
        with worker.connect() as client:
            return client.ask(handshake_head(router_id=9000)).status == 302

    eventually(served_again, "a fifth of a second later there is one handshake again")
    worker.agent.stats(lambda said: said["counters"].get("limited_handshakes_per_address", 0) >= 2)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::1", "20010db800010002"),
        ("2001:db8:1:2:ffff::9", "20010db800010002"),
        ("fe80::1%eth0", "fe80000000000000"),
    ],
)
def test_an_ipv6_network_counts_as_one_address(host: str, network: str) -> None:
    assert network_of(host) == network


def test_addresses_that_ask_no_more_are_forgotten_and_their_number_is_bounded() -> None:
    peers = Peers(replace(QUICK, handshakes_per_address_per_s=10))
    for number in range(70_000):
        assert peers.excess(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 100.0) is None
    assert len(peers._paid_at) <= 65_536
    peers.forget(100.2)
    assert not peers._paid_at


# Downgrades


def test_who_downgrades_is_named_once_a_minute_and_counted_up_to_a_number_of_peers() -> None:
    counted: Counter[str] = Counter()
    downgrades = Downgrades(lambda name: counted.update([name]))
    with structlog.testing.capture_logs() as logs:
        for now in (0.0, 1.0, 59.0, 61.0):
            downgrades.count("10.0.0.5", now)
        for number in range(30):
            downgrades.count(f"10.0.1.{number}", 62.0)
    assert [(line["peer"], line["count"]) for line in logs[:2]] == [("10.0.0.5", 1), ("10.0.0.5", 3)]
    assert len(logs) == 2 + 19
    assert counted["downgraded_by_10.0.0.5"] == 4
    assert counted["downgraded_by_others"] == 11
    assert len(counted) == 21


# Descriptors


def test_without_a_descriptor_a_connection_is_told_and_nobody_else_is_hurt(back_source: BackSource) -> None:
    with worker_process("--access-log", "off") as (process, agent), ExitStack() as clients:
        port = listening(agent, back_source)
        client = clients.enter_context(Client.connect(port))
        client.send(handshake_head(router_id=1111))
        session = back_source.take()
        session.switch()
        assert client.answer().status == 101
        # Lowered behind its back: the worker keeps clear of a limit that it knows.
        count = max(open_descriptors(process.pid)) + 1
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (count, 20_000))
        while len(open_descriptors(process.pid)) < count:
            clients.enter_context(Client.connect(port)).send(b"G")
            time.sleep(0.05)
        for _ in range(3):
            refused(clients.enter_context(Client.connect(port)), 503, b"as many connections as it may")
        client.send_frame(b"served")
        assert session.read_frame().payload == b"served"
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (20_000, 20_000))
        assert clients.enter_context(Client.connect(port)).ask(handshake_head(router_id=9000)).status == 302
        agent.stats(lambda said: said["counters"].get("limited_descriptors") == 3)


def open_descriptors(pid: int) -> list[int]:
    """The numbers of those that a process has."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]


def listening(agent: Agent, back_source: BackSource) -> int:
    """The port of a worker process that serves from the back-source."""
    agent.hear("started")
    config = make_config({"center": [back_source.address], "unbj": ["127.0.0.1:9"]})
    agent.apply(make_snapshot(1, config, make_rule()))
    agent.say("listen")
    return int(agent.hear("listening")["port"])


# Heads


def test_how_long_a_head_may_be_and_how_many_fields_it_may_have_are_settings(back_source: BackSource) -> None:
    environment = {"MSHA_EDGE_HEAD_BYTES": "2048", "MSHA_EDGE_HEAD_FIELDS": "10"}
    with worker_process("--access-log", "off", environment=environment) as (_, agent):
        port = listening(agent, back_source)
        for extra, status in [
            ("X-A: a\r\n" * 4, 302),
            ("X-A: a\r\n" * 5, 431),
            (f"X-A: {'a' * 1500}\r\n", 302),
            (f"X-A: {'a' * 2048}\r\n", 431),
        ]:
            with Client.connect(port) as client:
                assert client.ask(handshake_head(router_id=9000, extra=extra)).status == status


# Idle sessions


def test_a_session_in_which_nothing_moves_is_closed_and_others_are_not(
    make: Make, back_source: BackSource
) -> None:
    worker = make(idle_s=0.8)
    began = time.monotonic()
    silent, its_session = worker.open(back_source)
    told, speaking = worker.open(back_source, 1112)
    listening, spoken_to = worker.open(back_source, 1113)
    while time.monotonic() < began + 2.0:
        speaking.send(frame(b"news"))
        listening.send_frame(b"more")
        assert told.read_frame().payload == b"news"
        assert spoken_to.read_frame().payload == b"more"
        time.sleep(0.1)
    end = silent.read_frame()
    assert (end.close_code, end.close_reason) == (1001, "idle")
    assert its_session.read_frame().close_code == 1001
    assert silent.ended()
    counted(worker, "limited_idle")


def test_an_idle_session_is_given_all_of_its_time(make: Make, back_source: BackSource) -> None:
    worker = make(idle_s=1.0)
    for _ in range(3):  # each on the descriptors of the one before
        client, session = worker.open(back_source)
        began = time.monotonic()
        assert client.read_frame().close_code == 1001
        assert 0.9 < time.monotonic() - began < 2.0
        client.close()
        session.close()


def test_without_an_idle_time_a_silent_session_stays(make: Make, back_source: BackSource) -> None:
    worker = make(idle_s=0.0)
    client, session = worker.open(back_source)
    client.sock.settimeout(1.0)
    with pytest.raises(TimeoutError):
        client.read_frame()
    session.send(frame(b"still here"))
    assert client.read_frame().payload == b"still here"


def test_a_silent_client_is_sent_pings_and_stays_while_it_answers(
    make: Make, back_source: BackSource
) -> None:
    worker = make(ping_s=0.4, idle_s=1.2)
    client, session = worker.open(back_source)
    client.sock.settimeout(TIMEOUT_S)
    began = time.monotonic()
    pings = 0
    while time.monotonic() < began + 3.0:
        ping = client.read_frame()
        assert (ping.opcode, ping.payload) == (9, b"")
        client.send_frame(b"", 10)
        assert session.read_frame().opcode == 10
        pings += 1
    assert 4 <= pings <= 8
    worker.agent.stats(lambda said: said["counters"].get("pings", 0) >= pings)


def test_a_client_that_answers_no_ping_is_closed_even_if_it_is_spoken_to(
    make: Make, back_source: BackSource
) -> None:
    worker = make(ping_s=0.4, idle_s=1.2)
    client, session = worker.open(back_source)
    began = time.monotonic()
    opcodes = []
    while not opcodes or opcodes[-1] != 8:
        session.send(frame(b"news"))
        opcodes.append(client.read_frame().opcode)
        time.sleep(0.02)
        assert time.monotonic() < began + TIMEOUT_S
    assert time.monotonic() - began > 1.1
    assert opcodes.count(9) >= 2


def test_a_ping_waits_for_the_end_of_a_frame_but_not_of_a_message(
    make: Make, back_source: BackSource
) -> None:
    worker = make(ping_s=0.4, idle_s=0.0)
    client, session = worker.open(back_source)
    whole = frame(b"x" * 100, fin=False)
    session.send(whole[:50])
    time.sleep(1.0)
    session.send(whole[50:])
    assert client.read_frame().payload == b"x" * 100
    assert client.read_frame().opcode == 9
    session.send(frame(b"end", 0))
    assert client.read_frame().payload == b"end"


# What a session holds


@pytest.mark.parametrize("buffer_bytes", [262_144, 65_536])
def test_a_session_whose_peers_do_not_read_holds_no_more_than_its_buffer(
    make: Make, back_source: BackSource, buffer_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msha.edge.session import tunnel

    for name in ("CHUNK_BYTES", "MESSAGES_LIMIT_BYTES", "_bytes", "_chunk"):
        monkeypatch.setattr(tunnel, name, getattr(tunnel, name))  # put back at the end
    tunnel.hold_at_most(buffer_bytes)
    worker = make()
    assert worker.worker is not None
    client, session = worker.open(back_source, receive_buffer=65_536)
    stop = threading.Event()
    floods = [
        threading.Thread(target=flood, args=(client.sock, frame(b"x" * 50_000, 2, mask=b"\0\0\0\0"), stop)),
        threading.Thread(target=flood, args=(session.sock, frame(b"x" * 50_000, 2), stop)),
    ]
    for thread in floods:
        thread.start()
    try:
        (opened,) = worker.worker.sessions
        eventually(lambda: opened._to_client and opened._to_server, "both directions are full")
        text = "y" * TEXT_LIMIT_BYTES
        address = {"unit_type": "unit_type", "ranges": None}
        for number in range(20):
            worker.agent.say("send", id=number, text=text, **address)
            said = worker.agent.hear("sent", lambda word, number=number: word["id"] == number)
        assert said["skipped"] == {"full": 1}
        unsaid = sum(len(frames) for _, frames in worker.worker.sessions.unsaid.values())
        assert TEXT_LIMIT_BYTES < opened.waiting_bytes + unsaid <= buffer_bytes
    finally:
        stop.set()
        for thread in floods:
            thread.join()


def flood(sock: socket.socket, data: bytes, stop: threading.Event) -> None:
    """Send as much as is taken."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    left = data
    while not stop.is_set():
        if poll.poll(50):
            try:
                left = left[sock.send(left, socket.MSG_DONTWAIT) :] or data
            except BlockingIOError:
                pass
            except OSError:
                return
