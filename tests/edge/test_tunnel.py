"""An open session over real sockets: bytes, backpressure, ends, and our own Close."""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from msha.edge.session.tunnel import CHUNK_BYTES
from tests.support.edge_worker import QUICK, EdgeWorker, make_config, make_cutover, make_rule
from tests.support.websocket_wire import TIMEOUT_S, BackSource, BackSourceSession, Client, frame

MEBIBYTE = 1 << 20

#: More than the kernel's buffers of one connection take.
FLOOD_BYTES = 64 * MEBIBYTE


def eventually(fact: Callable[[], bool], what: str, seconds: float = 5.0) -> None:
    """The fact holds before the deadline."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)


def freeze(worker: EdgeWorker, back_source: BackSource, first: int = 1000, last: int = 1999) -> None:
    """The ids are frozen at unit center, on their way to unbj."""
    cutover = make_cutover("freeze", [[first, last, "center", "unbj"]])
    worker.apply(make_config({"center": [back_source.address]}), make_rule(epoch=5, cutover=cutover))


def drained(worker: EdgeWorker) -> None:
    """The worker has said so."""
    worker.agent.hear("drained", lambda said: said["epoch"] == 5)


class Flood:
    """A peer that sends frames as fast as they are taken, in a thread."""

    def __init__(self, peer: Client | BackSourceSession, data: bytes) -> None:
        self.peer = peer
        self.sent = 0
        self.error: OSError | None = None
        self._data = data
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        sock = self.peer.sock.dup()
        sock.settimeout(10)
        position = 0
        try:
            while self.sent < FLOOD_BYTES:
                size = sock.send(self._data[position:])
                self.sent += size
                position = (position + size) % len(self._data)
        except OSError as error:
            self.error = error
        finally:
            sock.close()

    def stalled(self) -> bool:
        """Whether nothing more is taken."""
        before = self.sent
        time.sleep(0.2)
        return self.sent == before and self._thread.is_alive()

    def join(self) -> None:
        """It has ended."""
        self._thread.join(15)
        assert not self._thread.is_alive()


def swallow(peer: Client | BackSourceSession) -> None:
    """Read a whole flood."""
    left = FLOOD_BYTES
    while left > 0:
        left -= len(peer.read(min(left, 200_000)))


# Bytes


def test_bytes_pass_unchanged_in_both_directions(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    with client:
        for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536, 3 * MEBIBYTE):
            payload = os.urandom(size)
            sender = threading.Thread(target=session.send, args=(frame(payload, 2),))
            sender.start()
            assert client.read_frame().payload == payload
            sender.join()
            sender = threading.Thread(target=client.send_frame, args=(payload, 2))
            sender.start()
            assert session.read_frame().payload == payload
            sender.join()


def test_frames_byte_by_byte_pass(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    with client:
        for byte in frame(b"x" * 130) + frame(b"end"):
            session.send(bytes([byte]))
        assert client.read_frame().payload == b"x" * 130
        assert client.read_frame().payload == b"end"


# Backpressure


def test_a_client_that_does_not_read_stops_the_back_source_and_nobody_else(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    assert worker.worker is not None
    client, session = worker.open(back_source, receive_buffer=65_536)
    other, other_session = worker.open(back_source, 1112)
    flood = Flood(session, frame(b"x" * 100_000, 2))
    eventually(flood.stalled, "the back-source is stopped")
    (tunnel,) = [tunnel for tunnel in worker.worker.sessions if tunnel.router_id == 1111]
    assert 0 < tunnel.waiting_bytes <= CHUNK_BYTES
    for _ in range(20):
        other_session.send(frame(b"ping"))
        assert other.read_frame().payload == b"ping"
    swallow(client)
    flood.join()
    assert flood.error is None


def test_a_back_source_that_does_not_read_stops_the_client(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    assert worker.worker is not None
    client, session = worker.open(back_source)
    flood = Flood(client, frame(b"x" * 100_000, 2, mask=b"\0\0\0\0"))
    eventually(flood.stalled, "the client is stopped")
    (tunnel,) = worker.worker.sessions
    assert 0 < tunnel.waiting_bytes <= CHUNK_BYTES
    session.send(frame(b"the other direction is free"))
    assert client.read_frame().payload == b"the other direction is free"
    swallow(session)
    flood.join()
    assert flood.error is None


def test_a_flooding_session_leaves_turns_to_others(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    other, other_session = worker.open(back_source, 1112)
    flood = Flood(session, frame(b"x" * 1_000_000, 2))
    reader = threading.Thread(target=swallow, args=(client,))
    reader.start()
    slowest = 0.0
    while reader.is_alive():
        began = time.monotonic()
        other_session.send(frame(b"ping"))
        assert other.read_frame().payload == b"ping"
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.005)
    flood.join()
    assert slowest < 0.5


# Ends that are not ours


def test_the_end_of_the_back_source_ends_the_session(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"bye") + frame(b"\x03\xe8", 8))
    session.half_close()
    assert client.read_frame().payload == b"bye"
    assert client.read_frame().close_code == 1000
    assert client.ended()
    client.send_frame(b"\x03\xe8", 8)
    assert session.read_frame().close_code == 1000
    client.close()
    assert session.ended()
    said = worker.agent.stats(lambda said: said["counters"].get("ended_by_back_source") == 1)
    assert said["sessions"] == 0


def test_the_end_of_the_client_ends_the_session(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    client.send_frame(b"last words")
    client.close()
    assert session.read_frame().payload == b"last words"
    assert session.ended()
    session.close()
    worker.agent.stats(lambda said: said["counters"].get("ended_by_client") == 1)


def test_a_fin_that_comes_with_data_loses_neither(worker: EdgeWorker, back_source: BackSource) -> None:
    for size in (10, 70_000, 700_000):
        client, session = worker.open(back_source)
        sender = threading.Thread(target=session.send, args=(frame(b"x" * size, 2),))
        session.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # the FIN travels with the data
        sender.start()
        sender.join()
        session.close()
        assert client.read_frame().payload == b"x" * size
        assert client.ended()


def test_a_reset_by_the_client_reaches_the_back_source(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    client.reset()
    try:
        assert session.ended()
    except ConnectionResetError:
        pass  # as good
    worker.agent.stats(lambda said: said["sessions"] == 0 and "ended_by_client" in said["counters"])


def test_a_reset_by_the_back_source_reaches_the_client(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"before"))
    assert client.read_frame().payload == b"before"
    session.reset()
    assert client.ended()
    client.close()
    worker.agent.stats(lambda said: said["sessions"] == 0 and "ended_by_back_source" in said["counters"])


def test_a_reset_by_a_client_that_was_not_reading_is_noticed(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source, receive_buffer=65_536)
    flood = Flood(session, frame(b"x" * 100_000, 2))
    eventually(flood.stalled, "the back-source is stopped")
    client.reset()
    flood.join()
    assert flood.error is not None
    worker.agent.stats(lambda said: said["sessions"] == 0 and "ended_by_client" in said["counters"])


def stuff(session: BackSourceSession) -> int:
    """Send until nothing more is taken for a while, because the client does not read; how much was."""
    session.sock.settimeout(0.3)
    data, sent = frame(b"x" * 60_000, 2), 0
    try:
        while sent < FLOOD_BYTES:
            sent += session.sock.send(data[sent % len(data) :])
    except TimeoutError:
        session.sock.settimeout(TIMEOUT_S)
    return sent


def test_a_reset_by_a_back_source_whose_client_does_not_read_is_noticed(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    assert worker.worker is not None
    sessions = worker.worker.sessions
    client, session = worker.open(back_source, receive_buffer=65_536)
    assert stuff(session) < FLOOD_BYTES
    began = time.monotonic()
    session.reset()
    eventually(lambda: not sessions, "the session is over", QUICK.end_s + 2.0)
    assert time.monotonic() - began > QUICK.end_s - 0.1, "a client that reads after all has its time"
    worker.agent.stats(lambda said: said["counters"].get("ended_by_back_source") == 1)
    client.close()


def test_a_reset_by_a_back_source_takes_nothing_from_a_client_that_reads_in_time(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    assert worker.worker is not None
    client, session = worker.open(back_source, receive_buffer=65_536)
    stuff(session)
    (tunnel,) = worker.worker.sessions
    session.reset()
    eventually(lambda: tunnel.ended_by is not None, "the reset is noticed")
    passed_on = tunnel.bytes_down
    client.send_frame(b"nobody is there")
    got = len(client.read_to_end())
    assert got >= passed_on
    client.close()
    eventually(lambda: not worker.worker.sessions, "the session is over")  # type: ignore[union-attr]


def test_a_reset_by_a_back_source_is_noticed_when_neither_direction_moves(
    bare_worker: EdgeWorker,
) -> None:
    back_source = BackSource()
    back_source.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    bare_worker.apply(make_config({"center": [back_source.address]}), make_rule())
    bare_worker.listen()
    assert bare_worker.worker is not None
    sessions = bare_worker.worker.sessions
    client, session = bare_worker.open(back_source, receive_buffer=65_536)
    flood = Flood(client, frame(b"x" * 1_000, 2, mask=b"abcd"))
    stuff(session)
    eventually(flood.stalled, "the client is stopped")
    session.reset()
    eventually(lambda: not sessions, "the session is over", QUICK.end_s + 2.0)
    client.close()
    flood.join()
    back_source.close()


def test_a_reset_by_a_client_whose_bytes_are_not_taken_is_noticed(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, _ = worker.open(back_source)
    client.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.sock.sendall(b"x" * FLOOD_BYTES)
    client.reset()
    worker.agent.stats(lambda said: said["sessions"] == 0 and "ended_by_client" in said["counters"])


def test_a_peer_that_does_not_end_after_the_other_did_is_let_go_of(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    assert worker.worker is not None
    client, session = worker.open(back_source)
    client.half_close()
    assert session.ended()
    eventually(lambda: worker.worker.shell.connections == 0, "both sockets are closed")  # type: ignore[union-attr]


def test_a_slow_reader_gets_all_of_a_long_goodbye(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source, receive_buffer=4096)
    size = 8 * MEBIBYTE
    sender = threading.Thread(target=lambda: (session.send(frame(b"x" * size, 2)), session.close()))
    sender.start()
    time.sleep(2)  # longer than a peer has after the other's end
    left = size + 10
    while left:
        left -= len(client.read(min(left, 512 * 1024)))
    assert client.ended()
    sender.join()


# Our own Close


def expect_close_at_back_source(session: BackSourceSession) -> None:
    """A masked Close with our code and reason, then the end."""
    read = session.read_frame()
    assert (read.opcode, read.close_code, read.close_reason) == (8, 1012, "moved to unbj")
    assert session.ended()


def expect_close_at_client(client: Client) -> None:
    """A Close with our code and reason, then the end."""
    read = client.read_frame()
    assert (read.opcode, read.close_code, read.close_reason) == (8, 1012, "moved to unbj")
    assert client.ended()


def test_an_idle_session_is_closed_on_both_sides(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    freeze(worker, back_source)
    expect_close_at_client(client)
    expect_close_at_back_source(session)
    session.send(frame(b"\x03\xf4", 8))
    session.close()
    drained(worker)
    client.send_frame(b"\x03\xf4", 8)
    client.close()
    worker.agent.stats(lambda said: said["counters"].get("ended_by_edge") == 1)


def test_a_close_waits_for_the_end_of_a_frame_under_way(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    data = frame(b"x" * MEBIBYTE, 2)
    session.send(data[: MEBIBYTE // 2])
    assert client.read(MEBIBYTE // 2) == data[: MEBIBYTE // 2]
    freeze(worker, back_source)
    expect_close_at_back_source(session)  # nothing is under way in that direction
    session.send(data[MEBIBYTE // 2 :] + frame(b"too late"))
    client.buffer = data[: MEBIBYTE // 2]
    assert client.read_frame().payload == b"x" * MEBIBYTE
    session.close()
    expect_close_at_client(client)
    drained(worker)


@pytest.mark.parametrize("cut", [1, 2, 3, 9, 10])
def test_a_close_waits_for_a_frame_of_which_only_the_head_is_there(
    worker: EdgeWorker, back_source: BackSource, cut: int
) -> None:
    client, session = worker.open(back_source)
    data = frame(b"x" * 70_000, 2)
    session.send(data[:cut])
    assert client.read(cut) == data[:cut]
    freeze(worker, back_source)
    expect_close_at_back_source(session)
    session.send(data[cut:])
    client.buffer = data[:cut]
    assert client.read_frame().payload == b"x" * 70_000
    expect_close_at_client(client)
    session.close()
    drained(worker)


def test_a_close_is_put_between_fragments(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"first ", fin=False))
    assert client.read_frame().payload == b"first "
    freeze(worker, back_source)
    expect_close_at_client(client)
    expect_close_at_back_source(session)
    session.close()
    drained(worker)


def test_a_close_to_the_back_source_waits_for_the_clients_frame(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    data = frame(b"y" * 200_000, 2, mask=b"abcd")
    client.send(data[:150_000])
    session.buffer = session.read(150_000)
    freeze(worker, back_source)
    expect_close_at_client(client)
    client.send(data[150_000:] + frame(b"too late", mask=b"abcd"))
    assert session.read_frame().payload == b"y" * 200_000
    expect_close_at_back_source(session)
    session.close()
    drained(worker)


def test_a_close_reaches_a_client_in_the_middle_of_a_flood(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    flood = Flood(session, frame(b"x" * 1_000_000, 2))
    for _ in range(3):
        assert client.read_frame().payload == b"x" * 1_000_000
    freeze(worker, back_source)
    while (read := client.read_frame()).opcode != 8:
        assert read.payload == b"x" * 1_000_000
    assert read.close_code == 1012
    assert client.ended()
    expect_close_at_back_source(session)
    session.close()
    flood.join()
    drained(worker)


def test_a_client_that_does_not_read_is_cut_off_in_time(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source, receive_buffer=65_536)
    flood = Flood(session, frame(b"x" * 1_000_000, 2))
    eventually(flood.stalled, "the back-source is stopped")
    freeze(worker, back_source)
    drained(worker)
    flood.join()
    assert flood.error is not None
    with pytest.raises(ConnectionResetError):  # what waited in the kernel is not delivered later
        swallow(client)
    client.close()
    worker.agent.stats(lambda said: said["counters"].get("close_aborted") == 1)


def test_a_back_source_that_does_not_let_go_is_cut_off_in_time(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    began = time.monotonic()
    freeze(worker, back_source)
    expect_close_at_client(client)
    drained(worker)  # although the back-source never answered
    assert 0.4 < time.monotonic() - began < 3
    assert session.read_frame().close_code == 1012


def test_a_session_counts_until_its_back_source_has_let_go(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    freeze(worker, back_source)
    expect_close_at_client(client)
    client.close()
    assert worker.agent.hears_nothing_of("drained", 0.25)
    session.close()
    drained(worker)


def test_a_session_counts_while_its_back_source_may_still_listen(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    session.half_close()
    assert client.ended()
    client.send_frame(b"still here")
    assert session.read_frame().payload == b"still here"
    assert worker.worker is not None
    assert len(worker.worker.sessions) == 1
    freeze(worker, back_source)
    drained(worker)
    expect_close_at_back_source(session)


def test_a_half_frame_does_not_keep_a_session_whose_back_source_has_ended(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    client.send(frame(b"x" * 100, mask=b"abcd")[:50])
    assert session.read(50)
    session.half_close()
    assert client.ended()
    freeze(worker, back_source)
    drained(worker)
    assert session.ended()
    worker.agent.stats(lambda said: said["counters"].get("ended_by_edge") == 1)
    assert "close_aborted" not in worker.agent.said[-1]["counters"]


def test_nothing_of_either_peer_passes_after_the_close(worker: EdgeWorker, back_source: BackSource) -> None:
    client, session = worker.open(back_source)
    freeze(worker, back_source)
    expect_close_at_client(client)
    client.send_frame(b"to the old unit")
    session.send(frame(b"from the old unit"))
    expect_close_at_back_source(session)
    session.close()
    client.close()
    drained(worker)


def test_what_the_kernel_has_for_a_client_that_does_not_read_does_not_arrive_after_the_session_is_gone(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source, receive_buffer=8_192)
    session.send(frame(b"x" * MEBIBYTE, 2))
    assert worker.worker is not None
    (tunnel,) = worker.worker.sessions
    eventually(lambda: tunnel.bytes_down > MEBIBYTE and not tunnel.waiting_bytes, "the kernel has all of it")
    freeze(worker, back_source)
    expect_close_at_back_source(session)
    session.close()
    drained(worker)
    with pytest.raises(ConnectionResetError):
        client.read(MEBIBYTE)


def test_a_client_that_reads_slowly_but_reads_gets_its_close_before_the_session_is_gone(
    back_source: BackSource,
) -> None:
    worker = EdgeWorker(limits=replace(QUICK, close_s=TIMEOUT_S)).start()
    worker.apply(make_config({"center": [back_source.address]}), make_rule())
    worker.listen()
    client, session = worker.open(back_source, receive_buffer=8_192)
    session.send(frame(b"x" * MEBIBYTE, 2))
    freeze(worker, back_source)
    expect_close_at_back_source(session)
    session.close()
    assert worker.agent.hears_nothing_of("drained", 0.1)
    assert client.read_frame().payload == b"x" * MEBIBYTE
    assert client.read_frame().close_code == 1012
    assert client.ended()
    client.close()
    drained(worker)
    worker.agent.stats(lambda said: "close_aborted" not in said["counters"])
    worker.stop()


@pytest.mark.parametrize("half_closed", [True, False])
def test_what_waits_for_a_back_source_does_not_arrive_after_the_session_is_gone(
    bare_worker: EdgeWorker, half_closed: bool
) -> None:
    back_source = BackSource()
    back_source.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    bare_worker.apply(make_config({"center": [back_source.address]}), make_rule())
    bare_worker.listen()
    client, session = bare_worker.open(back_source)
    flood = Flood(client, frame(b"x" * 1_000, 2, mask=b"abcd"))
    eventually(flood.stalled, "the client is stopped")
    if half_closed:
        session.half_close()
        assert client.ended()
    freeze(bare_worker, back_source)
    drained(bare_worker)
    with pytest.raises(ConnectionResetError):
        session.read_to_end()
    flood.join()
    client.close()
    back_source.close()


def test_a_reset_of_its_client_does_not_hurry_a_back_source_that_was_sent_a_close(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    client.send(frame(b"x" * 100, mask=b"abcd")[:50])
    assert session.read(50)
    freeze(worker, back_source)
    expect_close_at_client(client)
    client.reset()
    assert worker.agent.hears_nothing_of("drained", 0.25)
    assert session.ended()  # inside a frame there is no place for a Close
    session.close()
    drained(worker)


def test_a_session_that_is_closing_by_itself_gets_no_second_close(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"\x03\xe8done", 8))
    assert client.read_frame().close_reason == "done"
    client.send_frame(b"\x03\xe8", 8)
    assert session.read_frame().close_code == 1000
    freeze(worker, back_source)
    assert client.ended()
    assert session.ended()
    session.close()
    client.close()
    drained(worker)
