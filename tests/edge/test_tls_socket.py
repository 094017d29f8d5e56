"""A socket that speaks TLS behaves as one that does not."""

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from msha.edge.port.certificates import Certificates
from msha.edge.port.tls import TlsSocket, by_name
from tests.support.certificates import Authority
from tests.support.tls_stream import TlsStream

NAME = "websocket.test"
TIMEOUT_S = 5.0
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def context(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    directory = tmp_path_factory.mktemp("certs")
    (directory / f"{NAME}.pem").write_bytes(authority.pem(NAME))
    certificates = Certificates(directory)
    certificates.look()
    return by_name(certificates.pick)


class Pair:
    """A client and our end, connected and past the handshake."""

    def __init__(self, context: ssl.SSLContext, client: ssl.SSLContext, buffer_bytes: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            plain = socket.socket()
            if buffer_bytes:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            plain.connect(server.getsockname())
            plain.settimeout(TIMEOUT_S)
            descriptor, _ = server._accept()  # type: ignore[attr-defined]
        accepted = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer_bytes:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        self.late: set[TlsSocket] = set()
        self.reminded: list[int] = []
        self.ours = TlsSocket(accepted, context, self.late, self.reminded.append)
        self.client = TlsStream(plain, client, NAME)
        shaking = threading.Thread(target=self._shake)
        shaking.start()
        self.client.shake_hands()
        shaking.join(TIMEOUT_S)
        assert self.ours.established

    def _shake(self) -> None:
        while not self.ours.shake_hands():
            self.until(select.POLLIN)

    def until(self, events: int) -> int:
        """The events that are there as soon as one is."""
        poll = select.poll()
        poll.register(self.ours.fileno(), events)
        ready = poll.poll(TIMEOUT_S * 1000)
        assert ready, "nothing happens"
        return ready[0][1]

    def until_there(self, size: int) -> None:
        """So many bytes are in the kernel."""
        deadline = time.monotonic() + TIMEOUT_S
        while struct.unpack("i", fcntl.ioctl(self.ours.fileno(), termios.FIONREAD, b"0000"))[0] < size:
            assert time.monotonic() < deadline, "it does not come"

    def read(self, size: int = 65536) -> bytes:
        """What there is as soon as there is something."""
        while True:
            try:
                return self.ours.recv(size)
            except BlockingIOError:
                self.until(select.POLLIN)

    def send(self, data: Any) -> None:
        """All of it, as a tunnel does: what was not taken comes again, maybe with more behind it."""
        while data:
            try:
                data = bytes(data)[self.ours.send(data) :]
            except BlockingIOError:
                self.until(select.POLLOUT)

    def fill(self) -> bytes:
        """What of a stream that tells its positions was sent until neither kernel took any more."""
        sent = 0
        stream = memoryview(STREAM)
        room = select.poll()
        room.register(self.ours.fileno(), select.POLLOUT)
        while room.poll(200):
            try:
                sent += self.ours.send(stream[sent : sent + 65536])
            except BlockingIOError:
                pass
        return STREAM[:sent]

    def close(self) -> None:
        self.ours.close()
        self.client.close()


STREAM = b"".join(struct.pack("I", number) for number in range(4_000_000))
MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair(context: ssl.SSLContext, authority: Authority) -> Iterator[MakePair]:
    with contextlib.ExitStack() as stack:

        def make(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, buffer_bytes: int = 0) -> Pair:
            client = authority.client()
            client.minimum_version = client.maximum_version = version
            pair = Pair(context, client, buffer_bytes)
            stack.callback(pair.close)
            return pair

        yield make


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_go_both_ways(make_pair: MakePair, version: ssl.TLSVersion) -> None:
    pair = make_pair(version)
    pair.client.sendall(b"question")
    assert pair.read() == b"question"
    pair.send(b"answer")
    assert pair.client.recv(100) == b"answer"
    pair.send(memoryview(STREAM)[:300_000])
    received = b""
    while len(received) < 300_000:
        received += pair.client.recv(1 << 16)
    assert received == STREAM[:300_000]


@pytest.mark.parametrize("size", [1000, 4096, 30_000, 65_536])
def test_a_short_read_means_that_nothing_more_is_here_or_in_the_kernel(
    make_pair: MakePair, size: int
) -> None:
    pair = make_pair()
    for records in (1, 3, 17):
        sent, received = STREAM[: records * 3000], b""
        cipher = b"".join(pair.client.encrypted(sent[at : at + 3000]) for at in range(0, len(sent), 3000))
        pair.client.sock.sendall(cipher)
        pair.until_there(len(cipher))
        pieces = []
        while not pieces or len(pieces[-1]) == size:
            try:
                pieces.append(pair.ours.recv(size))
            except BlockingIOError:
                break
        received = b"".join(pieces)
        assert received == sent
        with pytest.raises(BlockingIOError):
            pair.ours.recv(1)


def test_thousands_of_records_are_not_read_at_once_and_what_is_left_is_told(make_pair: MakePair) -> None:
    pair = make_pair()
    cipher = b"".join(pair.client.encrypted(STREAM[at : at + 1]) for at in range(3000))
    pair.client.sock.sendall(cipher)
    pair.until_there(len(cipher))
    received = pair.ours.recv(65_536)
    assert 500 <= len(received) <= 700
    while len(received) < 3000:
        assert pair.reminded.pop() == pair.ours.fileno()
        received += pair.ours.recv(65_536)
    assert received == STREAM[:3000]
    assert not pair.reminded


def test_what_does_not_fit_the_caller_is_there_the_next_time_without_an_event(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.client.sendall(STREAM[:1000])
    assert pair.read(10) == STREAM[:10]
    assert pair.ours.recv(500) == STREAM[10:510]
    buffer = bytearray(1000)
    assert pair.ours.recv_into(memoryview(buffer)) == 490
    assert buffer[:490] == STREAM[510:1000]


def test_part_of_a_record_is_not_read_and_not_lost(make_pair: MakePair) -> None:
    pair = make_pair()
    record = pair.client.encrypted(b"x" * 1000)
    pair.client.sock.sendall(record[:500])
    pair.until(select.POLLIN)
    with pytest.raises(BlockingIOError):
        pair.ours.recv(100)
    pair.client.sock.sendall(record[500:])
    assert pair.read() == b"x" * 1000


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_kernel_does_not_take_is_neither_lost_nor_sent_twice(
    make_pair: MakePair, version: ssl.TLSVersion
) -> None:
    pair = make_pair(version, buffer_bytes=8192)
    sent = pair.fill()
    assert len(pair.ours._waiting) < 20_000
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            pair.ours.send(STREAM[len(sent) : len(sent) + 65536])
    received = bytearray()

    def read() -> None:
        while len(received) < goal:
            received.extend(pair.client.recv(10_000))

    goal = 2_000_000
    reading = threading.Thread(target=read)
    reading.start()
    at = len(sent)
    while at < goal:
        chunk = memoryview(STREAM)[at : min(at + 65_536, goal)]
        at += len(chunk)
        pair.send(chunk)
    reading.join(TIMEOUT_S)
    assert received == STREAM[:goal]


@pytest.mark.parametrize("version", VERSIONS)
def test_after_our_end_the_client_can_go_on(make_pair: MakePair, version: ssl.TLSVersion) -> None:
    pair = make_pair(version)
    pair.client.sendall(b"before the end")
    assert pair.read(6) == b"before"
    pair.ours.shutdown(socket.SHUT_WR)
    assert pair.client.recv(10) == b""
    assert pair.client.sock.recv(10) == b""
    pair.client.sendall(b", after it")
    received = pair.ours.recv(100)
    while len(received) < 18:
        received += pair.read()
    assert received == b" the end, after it"
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.read() == b""


def test_the_end_waits_for_room_and_comes_after_everything(make_pair: MakePair) -> None:
    pair = make_pair(buffer_bytes=8192)
    sent = pair.fill()
    # As if the kernel had taken the last block and nothing behind it, which it does once in a while.
    last, pair.ours._owed = pair.ours._waiting, 0
    sent = STREAM[: len(sent) + 16_384]
    pair.ours.shutdown(socket.SHUT_WR)
    assert pair.ours in pair.late
    assert pair.ours._waiting.startswith(last)
    received = b""
    while pair.late:
        received += pair.client.recv(1000)
        for ours in list(pair.late):
            ours.finish()
    while data := pair.client.recv(1 << 16):
        received += data
    assert received == sent
    assert pair.client.sock.recv(1) == b""


def test_a_close_notify_behind_data_makes_an_event_of_its_own(make_pair: MakePair) -> None:
    pair = make_pair()
    events = select.epoll()
    events.register(pair.ours.fileno(), select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
    pair.client.sock.sendall(pair.client.encrypted(b"last") + pair.client.ended())
    assert events.poll(TIMEOUT_S)
    assert pair.read() == b"last"
    found = events.poll(TIMEOUT_S)
    assert found, "an edge-triggered reader would never hear of the end"
    assert found[0][1] & select.EPOLLRDHUP
    assert pair.ours.recv(10) == b""
    events.close()


def test_a_fin_without_close_notify_is_an_end_too(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.client.sock.sendall(pair.client.encrypted(b"last"))
    pair.client.sock.shutdown(socket.SHUT_WR)
    assert pair.read() == b"last"
    assert pair.read() == b""


def test_what_is_no_tls_in_a_session_is_an_error_and_the_client_hears_an_alert(make_pair: MakePair) -> None:
    pair = make_pair()
    record = bytearray(pair.client.encrypted(b"genuine"))
    record[-1] ^= 1
    pair.client.sock.sendall(record)
    with pytest.raises(ssl.SSLError):
        pair.read()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        pair.client.recv(10)


def test_a_client_cannot_make_tls_hoard_answers(make_pair: MakePair) -> None:
    pair = make_pair(ssl.TLSVersion.TLSv1_2, buffer_bytes=8192)
    pair.fill()

    def provoke() -> None:
        for _ in range(100):
            pair.ours._outgoing.write(b"alert" * 1000)
            pair.client.sendall(b"x")
            pair.read()

    with pytest.raises(ConnectionAbortedError, match="does not read"):
        provoke()
    assert len(pair.ours._waiting) < 100_000
