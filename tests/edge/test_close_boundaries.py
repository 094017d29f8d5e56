"""Our Close and our messages with traffic flowing: what both peers hear is whole, whatever happens when."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msha.edge.entry.server import Limits
from tests.edge.test_injection import Outcome, Speaker, to
from tests.edge.test_tunnel import Flood, drained, eventually, freeze
from tests.support.edge_worker import EdgeWorker, make_config, make_rule
from tests.support.websocket_wire import BackSource, BackSourceSession, Client, frame

MEBIBYTE = 1 << 20
REASON = "close everything"


# What peers say, and what they hear


@dataclass(frozen=True)
class Seen:
    """A frame as it was on the wire."""

    opcode: int
    fin: bool
    masked: bool
    payload: bytes


def masked(payload: bytes, key: bytes) -> bytes:
    """The payload under the key, or out from under it."""
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(len(payload))


def encoded(seen: Seen) -> bytes:
    """The bytes of a frame."""
    head = frame(b"", seen.opcode, fin=seen.fin)[:1]
    size, mark = len(seen.payload), 0x80 if seen.masked else 0
    if size < 126:
        head += bytes([mark | size])
    elif size < 65_536:
        head += bytes([mark | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mark | 127]) + struct.pack(">Q", size)
    if not seen.masked:
        return head + seen.payload
    key = os.urandom(4)
    return head + key + masked(seen.payload, key)


def parsed(data: bytes) -> list[Seen]:
    """The frames of a stream, which must end with the last of them."""
    frames, position = [], 0
    while position < len(data):
        first, second = data[position], data[position + 1]
        position += 2
        size = second & 0x7F
        if size > 125:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[position : position + width])
            position += width
        key = b""
        if second & 0x80:
            key = data[position : position + 4]
            position += 4
        payload = data[position : position + size]
        assert len(payload) == size, "the stream ends inside a frame"
        position += size
        seen = masked(payload, key) if key else payload
        frames.append(Seen(first & 0x0F, bool(first & 0x80), bool(key), seen))
    return frames


def check_close(last: Seen, *, by_client: bool, reason: str = REASON) -> None:
    """It is our Close, as a client or as a server sends it."""
    assert (last.opcode, last.fin, last.masked) == (8, True, by_client)
    assert last.payload == (1012).to_bytes(2) + reason.encode()


class Sender:
    """Writes a peer's stream in pieces, in a thread, and ends it when the peer has heard the other's end."""

    def __init__(
        self, peer: Client | BackSourceSession, data: bytes, pieces: Sequence[int], over: threading.Event
    ) -> None:
        self._sock = peer.sock
        self._data = data
        self._pieces = pieces
        self._over = over
        self.error: OSError | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        position, turn = 0, 0
        try:
            while position < len(self._data):
                size = self._pieces[turn % len(self._pieces)]
                turn += 1
                self._sock.sendall(self._data[position : position + size])
                position += size
            self._over.wait(20)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = error


class Reader:
    """Reads a peer's stream to its end, in a thread, some at a time."""

    def __init__(self, peer: Client | BackSourceSession, at_once: int = 65_536) -> None:
        self._sock = peer.sock
        self._at_once = at_once
        self._heard: list[bytes] = [peer.buffer]
        self.count = len(peer.buffer)
        self.over = threading.Event()
        self.error: OSError | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    @property
    def data(self) -> bytes:
        """What was read."""
        return b"".join(self._heard)

    def _run(self) -> None:
        try:
            while data := self._sock.recv(self._at_once):
                self._heard.append(data)
                self.count += len(data)
        except OSError as error:
            self.error = error
        finally:
            self.over.set()


# Any traffic, messages of ours and a Close at any time


@pytest.fixture(scope="module")
def busy() -> Iterator[tuple[EdgeWorker, BackSource]]:
    """A worker with patience, and the only back-source of its unit."""
    back_source = BackSource()
    worker = EdgeWorker(limits=Limits(close_s=8.0, end_s=8.0)).start()
    worker.apply(make_config({"center": [back_source.address]}), make_rule())
    worker.listen()
    yield worker, back_source
    worker.stop()
    back_source.close()


SIZES = st.sampled_from([0, 1, 2, 100, 125, 126, 127, 128, 1000, 5000, 65_535, 65_536, 100_000, 300_000])
#: The fragments of a message, with how many pings come before each.
MESSAGES = st.lists(st.tuples(SIZES, st.integers(0, 1)), min_size=1, max_size=4)
STREAMS = st.builds(
    lambda part, times: part * times, st.lists(MESSAGES, min_size=1, max_size=8), st.integers(1, 8)
)
PIECES = st.lists(st.sampled_from([1, 2, 7, 100, 1400, 9000, 1_000_000]), max_size=4).map(
    lambda pieces: [*pieces, 65_536]
)
#: At which part of what the client should read which number of texts is said.
TALK = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 4)), max_size=8)


@dataclass
class Plan:
    """What both peers send, how they read, and what we do meanwhile."""

    down: list[Seen]
    up: list[Seen]
    down_pieces: list[int]
    up_pieces: list[int]
    talk: list[tuple[float, int]]
    close_at: float
    receive_buffer: int | None
    read_at_once: int


def spelled_out(stream: list[list[tuple[int, int]]], *, by_client: bool) -> list[Seen]:
    """The frames of messages; every payload says which frame of the stream it is."""
    frames: list[Seen] = []
    for message in stream:
        for index, (size, pings) in enumerate(message):
            for _ in range(pings):
                frames.append(Seen(9, True, by_client, len(frames).to_bytes(4)))
            payload = (len(frames).to_bytes(4) * (size // 4 + 1))[:size]
            opcode = 2 if index == 0 else 0
            frames.append(Seen(opcode, index == len(message) - 1, by_client, payload))
    return frames


PLANS = st.builds(
    Plan,
    down=STREAMS.map(lambda stream: spelled_out(stream, by_client=False)),
    up=STREAMS.map(lambda stream: spelled_out(stream, by_client=True)),
    down_pieces=PIECES,
    up_pieces=PIECES,
    talk=TALK.map(sorted),
    close_at=st.floats(0, 1),
    receive_buffer=st.sampled_from([None, 4096, 65_536]),
    read_at_once=st.sampled_from([500, 65_536]),
)


def check_client(plan: Plan, data: bytes, outcomes: list[Outcome], lost: int) -> None:
    """The back-source's frames in order, ours between its messages, our Close, and nothing after it."""
    *frames, last = parsed(data)
    check_close(last, by_client=False)
    theirs, ours, fragmented = [], [], False
    for seen in frames:
        if seen.opcode == 1:
            assert seen.fin
            assert not fragmented, "a message of ours between the fragments of another"
            ours.append(int(seen.payload.split()[1]))
            continue
        theirs.append(seen)
        if seen.opcode != 9:
            fragmented = not seen.fin
    assert theirs == plan.down[: len(theirs)]
    told = [number for number, one in enumerate(outcomes) if one["delivered"] or one["queued"]]
    assert ours == told[: len(told) - lost]


def check_back_source(plan: Plan, data: bytes) -> None:
    """The client's frames in order, our Close under a mask, and nothing after it."""
    *frames, last = parsed(data)
    check_close(last, by_client=True)
    assert frames == plan.up[: len(frames)]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(PLANS)
def test_whatever_flows_both_streams_stay_whole(busy: tuple[EdgeWorker, BackSource], plan: Plan) -> None:
    worker, back_source = busy
    assert worker.worker is not None
    sessions = worker.worker.sessions
    lost_before = sessions.counters.get("messages_lost", 0)
    client, session = worker.open(back_source, receive_buffer=plan.receive_buffer)
    down, up = (b"".join(map(encoded, frames)) for frames in (plan.down, plan.up))
    hearing = client_hears, server_hears = Reader(client, plan.read_at_once), Reader(session)
    sending = (
        Sender(session, down, plan.down_pieces, server_hears.over),
        Sender(client, up, plan.up_pieces, client_hears.over),
    )
    speaker, orders, closed = Speaker(worker), [], False
    for part, number in [*plan.talk, (2.0, 1)]:
        if not closed:
            until = int(min(part, plan.close_at) * len(down))
            eventually(lambda until=until: client_hears.count >= until, "the client hears more", 20)
            closed = part >= plan.close_at
            if closed:
                worker.agent.say("close_all", reason=REASON)
        for _ in range(number):
            text = f"ours {len(orders)} " + "!" * (len(orders) % 3 * 1000)
            orders.append(speaker.order(text, [[1111, 1111]]))
    outcomes = [speaker.outcome(order) for order in orders]
    for one in (*hearing, *sending):
        one.thread.join(20)
        assert not one.thread.is_alive()
        assert one.error is None
    eventually(lambda: not sessions, "the session is over")
    check_client(plan, client_hears.data, outcomes, sessions.counters.get("messages_lost", 0) - lost_before)
    check_back_source(plan, server_hears.data)
    assert outcomes[-1] in (to(closing=1), to())
    assert "close_aborted" not in sessions.counters
    client.close()
    session.close()


# A Close in the middle of things


def trickle(peer: Client | BackSourceSession, data: bytes, size: int = 16_384) -> threading.Thread:
    """The data is sent bit by bit, in a thread."""

    def run() -> None:
        for start in range(0, len(data), size):
            peer.send(data[start : start + size])
            time.sleep(0.002)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def chatter(peer: Client, over: threading.Event) -> threading.Thread:
    """The client says short things all the time, in a thread."""

    def run() -> None:
        while not over.wait(0.001):
            peer.send_frame(b"and so on")

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("what", ["one frame of 1 MiB", "fragments of 16 KiB", "a million short frames"])
def test_a_close_while_both_peers_talk(worker: EdgeWorker, back_source: BackSource, what: str) -> None:
    client, session = worker.open(back_source)
    if what == "one frame of 1 MiB":
        frames = [Seen(2, True, False, b"x" * MEBIBYTE)]
    elif what == "fragments of 16 KiB":
        frames = [Seen(2 if n == 0 else 0, n == 63, False, b"x" * 16_384) for n in range(64)]
    else:
        frames = [Seen(2, True, False, b"x" * 14)] * 65_536
    hears, over = Reader(session), threading.Event()
    talk = chatter(client, over)
    told = trickle(session, b"".join(map(encoded, frames)))
    client.buffer = client.read(300_000) + client.buffer
    freeze(worker, back_source)
    heard = parsed(client.read_to_end())
    over.set()
    talk.join()
    told.join()
    check_close(heard.pop(), by_client=False, reason="moved to unbj")
    assert heard == frames[: len(heard)]
    assert sum(len(encoded(seen)) for seen in heard) >= 300_000
    client.half_close()
    hears.over.wait(5)
    *chat, last = parsed(hears.data)
    check_close(last, by_client=True, reason="moved to unbj")
    assert {seen.payload for seen in chat} == {b"and so on"}
    session.close()
    drained(worker)


def test_a_session_is_closed_once_whoever_wants_it_closed_again(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    data = frame(b"x" * 100_000, 2)
    session.send(data[:70_000])
    client.buffer = client.read(70_000) + client.buffer
    freeze(worker, back_source)
    worker.agent.say("close_all", reason="another reason")
    check_close(parsed(encoded_next(session))[0], by_client=True, reason="moved to unbj")
    assert session.ended()
    session.send(data[70_000:])
    _, last = parsed(client.read_to_end())
    check_close(last, by_client=False, reason="moved to unbj")
    session.close()
    client.close()
    drained(worker)


def test_a_back_source_that_floods_hears_the_close_while_it_does(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    reading = Reader(client)
    flood = Flood(session, frame(b"x" * 100_000, 2))
    eventually(lambda: reading.count > MEBIBYTE, "the flood has begun")
    freeze(worker, back_source)
    check_close(parsed(encoded_next(session))[0], by_client=True, reason="moved to unbj")
    assert session.ended()
    reading.over.wait(5)
    *flooded, last = parsed(reading.data)
    check_close(last, by_client=False, reason="moved to unbj")
    assert {seen.payload for seen in flooded} == {b"x" * 100_000}
    session.half_close()
    client.close()
    flood.join()
    drained(worker)


def encoded_next(peer: BackSourceSession) -> bytes:
    """The bytes of the short frame that comes next."""
    head = peer.read(2)
    return head + peer.read((head[1] & 0x7F) + 4)


# A client that does not read


@pytest.fixture
def unhurried(back_source: BackSource) -> Iterator[EdgeWorker]:
    """A worker with the product's own deadlines."""
    worker = EdgeWorker(limits=Limits()).start()
    worker.apply(make_config({"center": [back_source.address], "unbj": ["127.0.0.1:9"]}), make_rule())
    worker.listen()
    yield worker
    worker.stop()


class Rounds:
    """Another session, in which a word goes round and round, in a thread."""

    def __init__(self, client: Client, session: BackSourceSession) -> None:
        self.slowest_s = 0.0
        self.count = 0
        self._ends = client, session
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        client, session = self._ends
        while not self._over.wait(0.002):
            began = time.monotonic()
            client.send_frame(b"word")
            session.send(frame(session.read_frame().payload))
            assert client.read_frame().payload == b"word"
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.count += 1

    def end(self) -> None:
        """No further round."""
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("stands", ["inside a frame", "between two frames"])
def test_a_client_that_does_not_read_is_aborted_within_a_second_and_nobody_else_notices(
    unhurried: EdgeWorker, back_source: BackSource, stands: str
) -> None:
    worker = unhurried
    assert worker.worker is not None
    client, session = worker.open(back_source, receive_buffer=4096)
    others = Rounds(*worker.open(back_source, 2500))
    size = 1_000_000 if stands == "inside a frame" else 100
    flood = Flood(session, frame(b"x" * size, 2) * (MEBIBYTE // size + 1))
    eventually(flood.stalled, "the back-source is stopped")
    before, rounds = time.monotonic(), others.count
    freeze(worker, back_source)
    drained(worker)
    took = time.monotonic() - before
    assert 0.8 < took < 1.5
    flood.join()
    assert flood.error is not None
    assert (len(worker.worker.sessions), worker.worker.sessions.counters["close_aborted"]) == (1, 1)
    eventually(lambda: others.count > rounds + 50, "the others go on")
    others.end()
    assert others.slowest_s < 0.4
    hears = Reader(client)
    hears.thread.join(5)
    assert isinstance(hears.error, ConnectionResetError)
    assert b"moved to unbj" not in hears.data


def test_a_client_that_reads_again_in_time_hears_all_and_the_close(
    unhurried: EdgeWorker, back_source: BackSource
) -> None:
    client, session = unhurried.open(back_source, receive_buffer=65_536)
    flood = Flood(session, frame(b"x" * 1_000_000, 2))
    eventually(flood.stalled, "the back-source is stopped")
    freeze(unhurried, back_source)
    time.sleep(0.3)
    *flooded, last = parsed(client.read_to_end())
    check_close(last, by_client=False, reason="moved to unbj")
    assert {seen.payload for seen in flooded} == {b"x" * 1_000_000}
    client.half_close()
    session.half_close()
    flood.join()
    drained(unhurried)
    assert "close_aborted" not in unhurried.agent.stats()["counters"]


# Ends of peers, with traffic flowing


def ended_by(worker: EdgeWorker, who: str) -> None:
    """The only session is over, and that is who ended it."""
    worker.agent.stats(lambda said: said["sessions"] == 0 and said["counters"].get(f"ended_by_{who}") == 1)
    assert worker.worker is not None
    eventually(lambda: worker.worker.shell.connections == 0, "both sockets are closed")  # type: ignore[union-attr]


@pytest.mark.parametrize("who", ["client", "back_source"])
@pytest.mark.parametrize("freezing", [False, True])
def test_a_reset_while_both_talk_ends_the_session(
    worker: EdgeWorker, back_source: BackSource, who: str, freezing: bool
) -> None:
    client, session = worker.open(back_source)
    floods = (
        Flood(session, frame(b"x" * 1_000_000, 2)),
        Flood(client, frame(b"y" * 1_000_000, 2, mask=bytes(4))),
    )
    peer, other = (client, session) if who == "client" else (session, client)
    hears = Reader(other)
    eventually(lambda: hears.count > 3 * MEBIBYTE, "both talk")
    speaker = Speaker(worker)
    speaker.send("into the flood")
    if freezing:
        freeze(worker, back_source)
    peer.reset()
    if freezing:
        drained(worker)
    hears.over.wait(5)
    other.close()
    for flood in floods:
        flood.join()
    ended_by(worker, "edge" if freezing else who)
    assert speaker.send("to nobody") == to()
    assert worker.worker is not None
    assert not worker.worker.sessions.unsaid


def test_a_reset_of_the_back_source_inside_a_frame_leaves_no_place_for_a_close(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    data = frame(b"x" * 100_000, 2)
    session.send(data[:70_000])
    client.buffer = client.read(70_000)
    freeze(worker, back_source)
    session.reset()
    assert client.read_to_end() == data[:70_000]
    client.close()
    drained(worker)


@pytest.mark.parametrize("size", [10, 70_000, 700_000])
@pytest.mark.parametrize("who", ["client", "back_source"])
def test_a_fin_in_the_segment_of_the_last_data_loses_neither(
    worker: EdgeWorker, back_source: BackSource, who: str, size: int
) -> None:
    client, session = worker.open(back_source)
    peer, other = (client, session) if who == "client" else (session, client)
    data = frame(b"z" * size, 2, mask=bytes(4) if who == "client" else None)
    hears = Reader(other)
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    peer.send(data)
    peer.close()
    assert hears.over.wait(5)
    assert (hears.error, hears.data) == (None, data)
    other.close()
    ended_by(worker, who)


def test_a_client_that_has_ended_its_half_still_hears_the_back_source(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    client.send_frame(b"that is all")
    client.half_close()
    assert session.read_frame().payload == b"that is all"
    assert session.ended()
    data = frame(b"x" * 3_000_000, 2)
    sending = trickle(session, data, 200_000)
    assert client.read(len(data)) == data
    sending.join()
    assert Speaker(worker).send("not to one that has ended") == to(closing=1)
    session.close()
    assert client.ended()
    client.close()
    ended_by(worker, "client")


def test_a_back_source_that_has_ended_its_half_still_hears_the_client(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    data = frame(b"y" * 3_000_000, 2, mask=bytes(4))
    client, session = worker.open(back_source)
    session.send(frame(b"that is all"))
    session.half_close()
    assert client.read_frame().payload == b"that is all"
    assert client.ended()
    sending = trickle(client, data, 200_000)
    assert session.read(len(data)) == data
    sending.join()
    assert Speaker(worker).send("not behind the end") == to(closing=1)
    client.close()
    assert session.ended()
    session.close()
    ended_by(worker, "back_source")
