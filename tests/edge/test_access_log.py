"""What the access log says, and that it never holds up the edge."""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msha.edge.entry.access_log import AccessLog, HandshakeRecord, ThreadSink, open_access_log
from msha.edge.wire.handshake import parse_request
from tests.edge.test_handshake import HEADS
from tests.support.edge_worker import EdgeWorker, make_config, make_rule
from tests.support.websocket_wire import BackSource, frame, handshake_head


class Lines:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, lines: list[bytes]) -> int:
        """All of them."""
        self.lines += [json.loads(line) for line in lines]
        return 0

    def close(self) -> None:
        """Nothing waits."""

    def wait(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """The lines of an event, when there are so many."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            found = [line for line in self.lines if line["event"] == event]
            if len(found) >= count:
                return found
            time.sleep(0.01)
        raise AssertionError(f"only {self.lines}")


@pytest.fixture
def lines() -> Lines:
    """What is logged."""
    return Lines()


@pytest.fixture
def logging_worker(lines: Lines, back_source: BackSource) -> Iterator[EdgeWorker]:
    """A worker that logs to ``lines``."""
    worker = EdgeWorker(access_log=AccessLog(lines, "center")).start()
    worker.apply(make_config({"center": ["127.0.0.1:9", back_source.address]}), make_rule())
    worker.listen()
    yield worker
    worker.stop()


def test_a_session_has_a_line_at_its_begin_and_one_at_its_end(
    logging_worker: EdgeWorker, back_source: BackSource, lines: Lines
) -> None:
    client, server = logging_worker.open(back_source, 1111, "/chat?token=secret")
    client.send_frame(b"12345")
    server.read_frame()
    server.send(frame(b"x" * 200))
    client.read_frame()
    (begun,) = lines.wait("handshake")
    assert begun["decision"] == "tunnel"
    assert begun["reason"] == "owned"
    assert begun["status"] == 101
    assert begun["http"] == "1.1"
    assert begun["key"] == "dGhlIHNhbXBsZSBub25jZQ=="
    assert begun["peer"] == "{}:{}".format(*client.sock.getsockname())
    assert begun["back_source"] == back_source.address
    assert begun["router_id"] == 1111
    assert begun["unit"] == "center"
    assert begun["snapshot"] == 1
    assert 0 < begun["ms"] < 5000
    assert begun["path"] == "/chat"
    assert "secret" not in json.dumps(begun)
    client.close()
    assert server.ended()
    server.close()
    (ended,) = lines.wait("session_end")
    assert ended["session"] == begun["session"]
    assert ended["key"] == begun["key"]
    assert ended["peer"] == begun["peer"]
    assert (ended["bytes_up"], ended["bytes_down"]) == (11, 204)
    assert ended["ended_by"] == "client"
    assert 0 < ended["seconds"] < 5


def test_a_session_that_was_moved_says_so(
    logging_worker: EdgeWorker, back_source: BackSource, lines: Lines
) -> None:
    client, server = logging_worker.open(back_source, 1111)
    logging_worker.apply(make_config({}), make_rule({"unbj": ["0~9999"]}, epoch=2))
    client.close()
    server.close()
    (ended,) = lines.wait("session_end")
    assert (ended["ended_by"], ended["reason"]) == ("edge", "moved to unbj")


def test_every_kind_of_answer_but_a_good_health_check_has_its_line(
    logging_worker: EdgeWorker, back_source: BackSource, lines: Lines
) -> None:
    for head in (
        handshake_head(router_id=7000),
        handshake_head("other.test"),
        HEADS["a key with HTTP/1.0"][0],
        HEADS["a TLS hello"][0],
        b"GET /.well-known/msha/status HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: websocket.test\r\n\r\n",
    ):
        client, _ = logging_worker.ask(head)
        client.read_to_end()
    dropped = logging_worker.connect()
    dropped.send(handshake_head("center.websocket.test", router_id=7000))
    assert dropped.ended()
    found = lines.wait("handshake", 6)
    assert [(line["decision"], line["reason"], line["status"]) for line in found] == [
        ("redirect", "wrong_unit", 302),
        ("refuse", "unknown_host", 421),
        ("invalid", "downgraded", 400),
        ("invalid", "not_http", 400),
        ("http", "426", 426),
        ("drop", "not_in_sync", 0),
    ]


@pytest.mark.parametrize(
    ("head", "path"),
    [
        (HEADS["two Hosts"][0], "GET / HTTP/1.1"),
        (HEADS["a bare line feed"][0], HEADS["a bare line feed"][0].splitlines()[0].decode()),
        (b"GET / HTTP/1.1\rready: x\r\n\r\n", "GET / HTTP/1.1"),
        (b"BREW /" + b"x" * 100 + b" HTTP/1.1\r\n\r\n", "BREW /" + "x" * 74),
    ],
    ids=["two Hosts", "a bare line feed", "a bare carriage return", "a long line"],
)
def test_of_a_head_that_cannot_be_read_only_the_request_line_is_logged(
    logging_worker: EdgeWorker, lines: Lines, head: bytes, path: str
) -> None:
    client, _ = logging_worker.ask(head)
    client.read_to_end()
    (line,) = lines.wait("handshake")
    assert (line["decision"], line["path"]) == ("invalid", path)


def test_servers_that_were_tried_in_vain_are_named(lines: Lines, back_source: BackSource) -> None:
    worker = EdgeWorker(access_log=AccessLog(lines, "center")).start()
    try:
        config = make_config({"center": ["127.0.0.1:9", back_source.address]}, balance="round_robin")
        worker.apply(config, make_rule())
        worker.listen()
        worker.open(back_source, 5)
        (line,) = lines.wait("handshake")
        assert line["tried"] == "127.0.0.1:9 connection refused"
        assert line["back_source"] == back_source.address
    finally:
        worker.stop()


@pytest.mark.parametrize("evil", ['x"},{"event":"forged', "a\\", "tab\\u0009", "{}", "'"])
def test_what_a_client_sends_cannot_forge_a_line(lines: Lines, evil: str) -> None:
    log = AccessLog(lines, "center")
    record = HandshakeRecord(("192.0.2.1", 5), 0.0)
    record.head = parse_request(handshake_head())
    record.head.key = evil.encode()
    record.head.host = record.head.path = record.unit_type = evil
    record.add_tried(evil)
    log.handshake(record)
    log.flush()
    (line,) = lines.lines
    assert {line[name] for name in ("key", "host", "path", "unit_type", "tried")} == {evil}


def test_control_characters_do_not_break_a_line(lines: Lines) -> None:
    log = AccessLog(lines, "center")
    record = HandshakeRecord(("192.0.2.1", 5), 0.0)
    record.line = b"\x16\x03\x01\x0b\0\x7f\xff"
    log.handshake(record)
    log.flush()
    assert lines.lines[0]["path"] == "\x16\x03\x01\x0b\0\x7f\xff"


def test_a_reader_that_does_not_read_costs_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    sink = ThreadSink(os.fdopen(writing, "wb"), backlog_bytes=100_000)
    line = b"x" * 999 + b"\n"
    began = time.monotonic()
    dropped = sum(sink.write([line] * 10) for _ in range(100))
    assert time.monotonic() - began < 1
    assert 0 < dropped < 1000
    received = []

    def read_all() -> None:
        while data := os.read(reading, 1 << 16):
            received.append(data)

    reader = threading.Thread(target=read_all)
    reader.start()
    sink.close()
    reader.join()
    os.close(reading)
    written = b"".join(received)
    assert len(written) == (1000 - dropped) * len(line)
    assert set(written.splitlines(keepends=True)) == {line}


def test_a_reader_that_is_gone_costs_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    sink = ThreadSink(os.fdopen(writing, "wb"))
    for _ in range(3):
        sink.write([b"line\n"])
    sink.close()


def test_a_log_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = open_access_log(str(path), "center")
    log.handshake(HandshakeRecord(("192.0.2.1", 5), 0.0))
    log.close()
    before, line = path.read_text().splitlines()
    assert before == "before"
    assert json.loads(line)["event"] == "handshake"


def test_no_log_is_written_when_it_is_off() -> None:
    log = open_access_log("off", "center")
    record = HandshakeRecord(("192.0.2.1", 5), 0.0)
    log.handshake(record)
    assert log.label(record) == ""
    log.close()
