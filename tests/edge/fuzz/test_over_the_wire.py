"""The same inputs over real sockets: in pieces or at once, a peer gets the same whole answer."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from tests.edge.fuzz import answers, heads, requests
from tests.edge.fuzz.corpus import REQUESTS, RESPONSES
from tests.edge.fuzz.mutation import CUTS, pieces
from tests.edge.fuzz.properties import PROPERTIES
from tests.edge.fuzz.reference import lone_request, read_answer, read_request
from tests.support.edge_worker import QUICK, EdgeWorker, make_config, make_rule
from tests.support.websocket_wire import TIMEOUT_S, accept_key, handshake_head

#: Mostly long enough for the edge to read a piece before the next one comes; nothing depends on it.
_PAUSE_S = 0.0001

_ON_THE_WIRE = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def send(sock: socket.socket, parts: Sequence[bytes]) -> None:
    """One after the other, as long as the peer takes them."""
    try:
        for part in parts:
            sock.sendall(part)
            if len(parts) > 1:
                time.sleep(_PAUSE_S)
    except OSError:
        pass  # it has heard enough


class Scripted:
    """A back-source whose answer to each handshake the test chooses.

    Attributes:
        answer: pieces of the answer to a request head; the connection ends behind them.
        asked: the heads that came, in order.
        failed: what went wrong here.
    """

    def __init__(self) -> None:
        self.answer: Callable[[bytes], list[bytes]] = switched
        self.asked: list[bytes] = []
        self.failed: list[Exception] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def address(self) -> str:
        """``IP:PORT``."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            try:
                self._answer(sock)
            except Exception as error:  # noqa: BLE001  told by the test
                self.failed.append(error)

    def _answer(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = b""
            while b"\r\n\r\n" not in head:
                data = sock.recv(65_536)
                if not data:
                    return
                head += data
            self.asked.append(head[: head.index(b"\r\n\r\n") + 4])
            send(sock, self.answer(self.asked[-1]))
            try:
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65_536):
                    pass
            except OSError:
                pass  # the edge has heard enough

    def stop(self) -> None:
        """Nobody is answered any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        assert not self.failed


def switched(head: bytes) -> list[bytes]:
    """A proper 101."""
    reading = read_request(head)
    assert reading is not None
    (key,) = reading.values(b"sec-websocket-key")
    fields = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept_key(key.decode())}"
    return [f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\n".encode()]


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    """The only back-source of unit center."""
    server = Scripted()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def edge(scripted: Scripted) -> Iterator[EdgeWorker]:
    """A worker in front of it, for all tests here, patient with those that send byte by byte."""
    worker = EdgeWorker(limits=replace(QUICK, head_s=30, connect_s=30)).start()
    worker.apply(make_config({"center": [scripted.address], "unbj": ["127.0.0.1:9"]}), make_rule())
    worker.listen()
    yield worker
    worker.stop()


def outcome(edge: EdgeWorker, parts: Sequence[bytes]) -> bytes:
    """All that a client gets that sends this and waits for the end, which is never a reset."""
    with socket.create_connection(("127.0.0.1", edge.port), TIMEOUT_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        send(sock, parts)
        got = b""
        while data := sock.recv(65_536):
            got += data
    return got


def check_request(edge: EdgeWorker, scripted: Scripted, data: bytes, parts: Sequence[bytes]) -> None:
    """In pieces as at once: one whole answer, the one of the verdict, and one request for the back-source."""
    verdict, head, _ = requests.read(data)
    if verdict == "more":
        return  # it would be waited for
    scripted.answer = switched
    scripted.asked.clear()
    whole = outcome(edge, [data])
    assert outcome(edge, parts) == whole
    reading = read_answer(whole)
    assert reading is not None
    assert reading.rest == b""
    assert not reading.broken or (head is not None and head.method == "HEAD")
    assert reading.status != 500
    if verdict[:3].isdigit():
        assert reading.status == int(verdict[:3])
    if reading.status == 101:
        assert len(scripted.asked) == 2
        assert all(lone_request(asked) for asked in scripted.asked)
    elif scripted.asked:
        # The back-source was asked with less than a handshake: its key is not one that it can answer.
        raise AssertionError(f"asked for {reading.status}: {scripted.asked}")


@_ON_THE_WIRE
@given(PROPERTIES["requests.any_cut"].inputs, CUTS)
def test_a_request_in_pieces_is_answered_as_at_once(
    edge: EdgeWorker, scripted: Scripted, data: bytes, cuts: list[int]
) -> None:
    check_request(edge, scripted, data, pieces(data, cuts))


@_ON_THE_WIRE
@given(heads.request_heads(), CUTS)
def test_a_request_by_grammar_is_answered_the_same_in_pieces(
    edge: EdgeWorker, scripted: Scripted, data: bytes, cuts: list[int]
) -> None:
    check_request(edge, scripted, data, pieces(data, cuts))


def test_the_requests_of_the_corpus_are_answered_the_same_byte_by_byte(
    edge: EdgeWorker, scripted: Scripted
) -> None:
    for data in REQUESTS.kept():
        short = [data[at : at + 1] for at in range(min(len(data), 600))]
        check_request(edge, scripted, data, [*short, data[600:]] if len(data) > 600 else short)


def check_answer(edge: EdgeWorker, scripted: Scripted, data: bytes, parts: Sequence[bytes]) -> None:
    """The client gets the same of a back-source that answers in pieces, and one whole answer."""
    got = []
    for script in ([data], list(parts)):
        scripted.answer = lambda _, script=script: script  # type: ignore[misc]
        got.append(outcome(edge, [handshake_head(key=heads.KEY, router_id=1111)]))
    assert got[0] == got[1]
    verdict, head, rest = answers.read(data)
    reading = read_answer(got[0])
    assert reading is not None
    if verdict == "switch":
        assert (reading.status, reading.rest) == (101, rest)
    elif head is None:
        assert (reading.status, reading.broken, reading.rest) == (502, False, b"")
    elif head.status >= 200:
        assert (reading.status, reading.broken, reading.rest) == (head.status, False, b"")


@_ON_THE_WIRE
@given(PROPERTIES["responses.any_cut"].inputs, CUTS)
def test_an_answer_in_pieces_is_passed_on_as_at_once(
    edge: EdgeWorker, scripted: Scripted, data: bytes, cuts: list[int]
) -> None:
    check_answer(edge, scripted, data, pieces(data, cuts))


def test_the_answers_of_the_corpus_are_passed_on_the_same_byte_by_byte(
    edge: EdgeWorker, scripted: Scripted
) -> None:
    for data in RESPONSES.kept():
        if len(data) < 1000:
            check_answer(edge, scripted, data, [data[at : at + 1] for at in range(len(data))])
