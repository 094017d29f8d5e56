"""What a back-source may say instead of a proper 101, and that its client gets an answer that ends well.

Every case is one connection of a back-source. Its client must get one HTTP answer that ends by a FIN, not by
a RST: with one the reference client would come twice. So all cases are played to that very client, too.
"""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.edge_worker import QUICK, EdgeWorker, make_config, make_rule
from tests.support.needs import NODE_MODULES, need
from tests.support.websocket_wire import BackSource, BackSourceSession, accept_key, frame, handshake_head

Says = Callable[[BackSourceSession], None]

BODY_LIMIT = 65_536
OK = b"HTTP/1.1 200 OK\r\n"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\n"


def says(data: bytes, *, end: str = "") -> Says:
    """These bytes at once; then nothing, a FIN or a RST."""

    def say(session: BackSourceSession) -> None:
        session.send(data)
        if end == "fin":
            session.half_close()
        elif end == "rst":
            session.reset()

    return say


def drips(data: bytes, *, for_ever: bytes = b"") -> Says:
    """These bytes one at a time, then others again and again until the edge has had enough."""

    def say(session: BackSourceSession) -> None:
        for byte in data:
            session.send(bytes([byte]))
        with contextlib.suppress(OSError):
            while for_ever:
                session.send(for_ever)
                time.sleep(0.002)

    return say


def floods(head: bytes, what: bytes) -> Says:
    """As much as the edge takes."""

    def say(session: BackSourceSession) -> None:
        with contextlib.suppress(OSError):
            session.send(head)
            for _ in range(2_000):
                session.send(what)

    return say


def in_two(first: bytes, second: bytes, *, end: str = "") -> Says:
    """Two pieces that arrive apart."""

    def say(session: BackSourceSession) -> None:
        session.send(first)
        time.sleep(0.05)
        says(second, end=end)(session)

    return say


def switch(status_line: str = "HTTP/1.1 101 Switching Protocols", **fields: str | None) -> bytes:
    """A 101 for the key of `handshake_head`, with some of its fields replaced, or left out by None."""
    proper: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
    }
    proper |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in proper.items() if value is not None]
    return "\r\n".join([status_line, *lines, "\r\n"]).encode()


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

#: What it says, and the status and the body that the client gets.
PASSED_ON: dict[str, tuple[Says, int, bytes]] = {
    "403 with a length": (says(FORBIDDEN + b"Content-Length: 7\r\n\r\nnot you"), 403, b"not you"),
    "403 in two pieces": (in_two(FORBIDDEN[:9], FORBIDDEN[9:] + b"Content-Length: 2\r\n\r\nno"), 403, b"no"),
    "403 in chunks": (says(FORBIDDEN + CHUNKED + b"3\r\nnot\r\n4\r\n you\r\n0\r\n\r\n"), 403, b"not you"),
    "403 in chunks, byte by byte": (drips(FORBIDDEN + CHUNKED + b"2\r\nno\r\n0\r\n\r\n"), 403, b"no"),
    "403 until it closes": (says(FORBIDDEN + b"\r\nnot you", end="fin"), 403, b"not you"),
    "403 until it closes, which it does not": (says(FORBIDDEN + b"\r\nnot you"), 403, b"not you"),
    "403 with less than its length": (
        says(FORBIDDEN + b"Content-Length: 99\r\n\r\nno", end="fin"),
        403,
        b"no",
    ),
    "403 with more than its length": (says(FORBIDDEN + b"Content-Length: 2\r\n\r\nnot you"), 403, b"no"),
    "403 and a reset in its body": (
        in_two(FORBIDDEN + b"Content-Length: 99\r\n\r\nno", b"t", end="rst"),
        403,
        b"not",
    ),
    "403 and broken chunks": (says(FORBIDDEN + CHUNKED + b"2\r\nno\r\nzz\r\n"), 403, b"no"),
    "403 of HTTP/1.0": (says(b"HTTP/1.0 403 No\r\n\r\nno", end="fin"), 403, b"no"),
    "200": (says(OK + b"Content-Length: 5\r\n\r\nhello"), 200, b"hello"),
    "200 and another answer behind it": (
        says(OK + b"Content-Length: 2\r\n\r\nhi" + switch()),
        200,
        b"hi",
    ),
    "204": (says(b"HTTP/1.1 204 No Content\r\n\r\n"), 204, b""),
    "304": (says(b"HTTP/1.1 304 Not Modified\r\n\r\n"), 304, b""),
    "503 without a body": (says(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), 503, b""),
    "an endless body": (floods(OK + b"\r\n", b"x" * 65_536), 200, b"x" * BODY_LIMIT),
    "an endless body in chunks": (
        floods(OK + CHUNKED, b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        200,
        b"x" * BODY_LIMIT,
    ),
    "endless chunks of nothing": (floods(OK + CHUNKED, b"1;" + b"y" * 8_000 + b"\r\nx\r\n"), 200, b""),
}

FAILED: dict[str, tuple[Says, int]] = {
    "nothing, and the end": (says(b"", end="fin"), 502),
    "nothing, and a reset": (says(b"", end="rst"), 502),
    "half a head and the end": (says(b"HTTP/1.1 101 Switch", end="fin"), 502),
    "half a head and a reset": (says(b"HTTP/1.1 101 Switch", end="rst"), 502),
    "half a 101 and the end": (says(switch()[:-2], end="fin"), 502),
    "nothing": (says(b""), 504),
    "half a head": (says(b"HTTP/1.1 101 Switch"), 504),
    "half a 101": (says(switch()[:-2]), 504),
    "a head that trickles for ever": (drips(b"HTTP/1.1 101 OK\r\nX: ", for_ever=b"y"), 504),
    "an endless head": (floods(b"HTTP/1.1 200 OK\r\n", b"X-More: y\r\n" * 500), 502),
    "an endless line": (floods(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65_536), 502),
    "an endless status line": (floods(b"HTTP/1.1 200 ", b"y" * 65_536), 502),
    "endless empty lines": (floods(b"", b"\r" * 65_536), 502),
    "too many fields": (says(OK + b"X: y\r\n" * 101 + b"\r\n"), 502),
    "another protocol": (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502),
    "HTTP/2": (says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 2 + b"\r\n\r\n"), 502),
    "HTTP/2.0 by name": (says(b"HTTP/2.0 200 OK\r\n\r\n"), 502),
    "a status of 99": (says(b"HTTP/1.1 99 Low\r\n\r\n"), 502),
    "a status of 1000": (says(b"HTTP/1.1 1000 High\r\n\r\n"), 502),
    "a field without a colon": (says(b"HTTP/1.1 403 No\r\nnonsense\r\n\r\n"), 502),
    "a NUL in a field": (says(b"HTTP/1.1 403 No\r\nX: a\0b\r\n\r\n"), 502),
    "two lengths": (says(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 502),
    "a length and chunks": (says(OK + b"Content-Length: 1\r\n" + CHUNKED + b"0\r\n\r\n"), 502),
    "another transfer coding": (says(OK + b"Transfer-Encoding: gzip\r\n\r\nab"), 502),
    "a flood of 100": (floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), 502),
    "a flood of 103": (floods(b"", b"HTTP/1.1 103 Early\r\nLink: <a>\r\n\r\n" * 500), 502),
    "a 101 with a wrong Accept": (says(switch(Sec_WebSocket_Accept="c29tZXRoaW5nIGVsc2U=")), 502),
    "a 101 with an empty Accept": (says(switch(Sec_WebSocket_Accept="")), 502),
    "a 101 without Accept": (says(switch(Sec_WebSocket_Accept=None)), 502),
    "a 101 without Upgrade": (says(switch(Upgrade=None)), 502),
    "a 101 without Connection": (says(switch(Connection=None)), 502),
    "a 101 to another protocol": (says(switch(Upgrade="h2c")), 502),
    "a 101 that closes": (says(switch(Connection="close")), 502),
    "a 101 of HTTP/1.0": (says(switch("HTTP/1.0 101 OK")), 502),
    "a wrong 101 and frames": (says(switch(Upgrade=None) + frame(b"x" * 100_000)), 502),
}

#: A 101 in whatever pieces, and what its client reads behind it.
OPENED: dict[str, tuple[Says, bytes]] = {
    "at once": (says(switch()), b""),
    "byte by byte": (drips(switch() + frame(b"hello")), frame(b"hello")),
    "split in its last line end": (in_two(switch()[:-1], switch()[-1:] + frame(b"hello")), frame(b"hello")),
    "with data behind it": (says(switch() + frame(b"x" * 70_000)), frame(b"x" * 70_000)),
    "with data and the end behind it": (says(switch() + frame(b"hello"), end="fin"), frame(b"hello")),
    "with the end behind it": (says(switch(), end="fin"), b""),
    "after others that are not final": (
        says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\n" + switch() + frame(b"hello")),
        frame(b"hello"),
    ),
}


class Actor(BackSource):
    """A back-source that plays the case that a handshake's routerId stands for, in a thread for each."""

    def __init__(self, cases: Mapping[int, Says]) -> None:
        super().__init__()
        self.asked: Counter[int] = Counter()
        self._cases = cases
        self._threads: list[threading.Thread] = []
        self._taking = threading.Thread(target=self._take_all)
        self._taking.start()

    def _take_all(self) -> None:
        self.listener.settimeout(None)
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                session = BackSourceSession(sock)
                self.taken.append(session)
                thread = threading.Thread(target=self._play, args=(session,))
                self._threads.append(thread)
                thread.start()

    def _play(self, session: BackSourceSession) -> None:
        session.head = session.read_head()
        router_id = int(session.headers["routerid"])
        self.asked[router_id] += 1
        with contextlib.suppress(OSError):
            self._cases[router_id](session)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self._taking.join()
        for session in self.taken:
            with contextlib.suppress(OSError):
                session.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        super().close()


EVERY_CASE = [*PASSED_ON, *FAILED, *OPENED]
_SAYS = [
    *(case[0] for case in PASSED_ON.values()),
    *(case[0] for case in FAILED.values()),
    *(case[0] for case in OPENED.values()),
]


@pytest.fixture
def actor() -> Iterator[Actor]:
    """A back-source that plays every case."""
    with contextlib.closing(Actor(dict(enumerate(_SAYS)))) as server:
        yield server


@pytest.fixture
def edge(actor: Actor) -> Iterator[EdgeWorker]:
    """A worker in front of it, which is patient so that only the cases for it take that long."""
    worker = EdgeWorker(limits=replace(QUICK, connect_s=1.0)).start()
    worker.apply(make_config({"center": [actor.address]}), make_rule())
    worker.listen()
    yield worker
    worker.stop()


def head_of(case: str) -> bytes:
    """A handshake to which the back-source answers so."""
    return handshake_head(router_id=EVERY_CASE.index(case))


def ended_well(sock: socket.socket) -> bool:
    """Whether the connection ended by a FIN, and no reset came after it."""
    time.sleep(0.02)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and sock.recv(1) == b""


@pytest.mark.parametrize("case", PASSED_ON)
@pytest.mark.parametrize("early", [b"", frame(b"x" * 50_000, mask=b"abcd")], ids=["", "with early frames"])
def test_an_answer_is_passed_on_whole_and_bounded(edge: EdgeWorker, case: str, early: bytes) -> None:
    _, status, body = PASSED_ON[case]
    with edge.connect() as client:
        client.send(head_of(case) + early)
        response = client.answer()
        assert response.status == status
        got = client.read_to_end()
        if case == "endless chunks of nothing":
            assert 0 < len(got) <= BODY_LIMIT
        else:
            assert got == body
        assert response.headers.get("content-length", "0") == str(len(got))
        assert response.headers["connection"] == "close"
        assert "transfer-encoding" not in response.headers
        assert ended_well(client.sock)


@pytest.mark.parametrize("case", FAILED)
@pytest.mark.parametrize("early", [b"", frame(b"x" * 50_000, mask=b"abcd")], ids=["", "with early frames"])
def test_a_client_is_told_when_the_answer_is_none(edge: EdgeWorker, case: str, early: bytes) -> None:
    _, status = FAILED[case]
    with edge.connect() as client:
        client.send(head_of(case) + early)
        response = client.answer()
        assert response.status == status
        assert b"No back-source" in client.body(response)
        assert ended_well(client.sock)
    assert edge.worker is not None
    deadline = time.monotonic() + 3
    while edge.worker.shell.connections:
        assert time.monotonic() < deadline, "something is left of it"
        time.sleep(0.01)


@pytest.mark.parametrize("case", FAILED)
def test_after_no_answer_the_next_server_is_asked(
    edge: EdgeWorker, actor: Actor, back_source: BackSource, case: str
) -> None:
    servers = {"center": [actor.address, back_source.address]}
    edge.apply(make_config(servers, balance="round_robin"), make_rule())
    with edge.connect() as client:
        client.send(head_of(case))
        back_source.take().switch()
        assert client.answer().status == 101
    assert actor.asked == {EVERY_CASE.index(case): 1}


@pytest.mark.parametrize("case", OPENED)
def test_a_101_opens_the_tunnel_in_whatever_pieces_it_comes(edge: EdgeWorker, case: str) -> None:
    _, behind = OPENED[case]
    with edge.connect() as client:
        client.send(head_of(case))
        assert client.answer().status == 101
        assert client.read(len(behind)) == behind
        if case.endswith("end behind it"):
            assert client.ended()
            assert ended_well(client.sock)


def test_bytes_of_a_slow_101_are_not_kept_apart_from_those_of_others(edge: EdgeWorker) -> None:
    """All cases at once, so that nothing of one connection can be taken for another's."""
    clients = {case: edge.connect() for case in EVERY_CASE}
    for case, client in clients.items():
        client.send(head_of(case))
    expected = {case: status for case, (_, status, _) in PASSED_ON.items()}
    expected |= {case: status for case, (_, status) in FAILED.items()}
    expected |= dict.fromkeys(OPENED, 101)
    assert {case: client.answer().status for case, client in clients.items()} == expected


# The reference client


def test_the_reference_client_comes_once_whatever_the_back_source_says(
    edge: EdgeWorker, actor: Actor, tmp_path: Path
) -> None:
    """It has the handlers of the product's document: a reset beside an answer would bring it back."""
    node, _ = need("node"), need("ws")
    refused = [EVERY_CASE.index(case) for case in (*PASSED_ON, *FAILED)]
    script = Path(__file__).with_name("refused_clients.cjs")
    done = subprocess.run(
        [node, str(script), str(edge.port), *map(str, refused)],
        env={"PATH": os.environ["PATH"], "NODE_PATH": str(NODE_MODULES)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    events = {int(router_id): said for router_id, said in json.loads(done.stdout).items()}
    expected = {EVERY_CASE.index(case): [status] for case, (_, status, _) in PASSED_ON.items()}
    expected |= {EVERY_CASE.index(case): [status] for case, (_, status) in FAILED.items()}
    assert events == expected
    assert actor.asked == dict.fromkeys(refused, 1)
