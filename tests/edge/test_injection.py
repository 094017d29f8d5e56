"""Messages of ours in sessions over real sockets: where they go in, where they do not, and in which order."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from msha.edge.session.tunnel import CHUNK_BYTES, MESSAGES_LIMIT_BYTES
from msha.steering.wire import TEXT_LIMIT_BYTES
from tests.edge.test_tunnel import Flood, eventually, freeze
from tests.support.edge_worker import EdgeWorker, make_config, make_cutover, make_rule, make_snapshot
from tests.support.websocket_wire import BackSource, frame, handshake_head

MEBIBYTE = 1 << 20
KIBIBYTE = 1 << 10

Outcome = dict[str, Any]


class Speaker:
    """Orders the worker to send, as its agent does."""

    def __init__(self, worker: EdgeWorker) -> None:
        self._worker = worker
        self._id = 0

    def order(self, text: str, ranges: Sequence[Sequence[int]] | None, unit_type: str = "unit_type") -> int:
        """The number of an order whose outcome is not waited for."""
        self._id += 1
        where = None if ranges is None else [list(pair) for pair in ranges]
        self._worker.agent.say("send", id=self._id, unit_type=unit_type, ranges=where, text=text)
        return self._id

    def outcome(self, number: int) -> Outcome:
        """What came of an order."""
        said = self._worker.agent.hear("sent", lambda word: word["id"] == number)
        return {name: said[name] for name in ("delivered", "queued", "skipped")}

    def send(
        self,
        text: str,
        ranges: Sequence[Sequence[int]] | None = ((1111, 1111),),
        unit_type: str = "unit_type",
    ) -> Outcome:
        """What came of a text, by default to 1111."""
        return self.outcome(self.order(text, ranges, unit_type))


def to(delivered: int = 0, queued: int = 0, **skipped: int) -> Outcome:
    """An outcome."""
    return {"delivered": delivered, "queued": queued, "skipped": skipped}


@pytest.fixture
def speaker(worker: EdgeWorker) -> Speaker:
    return Speaker(worker)


def counted(worker: EdgeWorker, **expected: int) -> None:
    """The worker's counters become so."""
    names = {f"messages_{name}": number for name, number in expected.items()}
    worker.agent.stats(lambda said: {name: said["counters"].get(name) for name in names} == names)


def test_an_idle_session_gets_the_message_at_once(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    client, session = worker.open(back_source)
    assert speaker.send("路由 hello") == to(delivered=1)
    read = client.read_frame()
    assert (read.opcode, read.fin, read.payload.decode()) == (1, True, "路由 hello")
    session.send(frame(b"and on it goes"))
    assert client.read_frame().payload == b"and on it goes"
    client.send_frame(b"in both directions")
    assert session.read_frame().payload == b"in both directions"
    counted(worker, delivered=1)


@pytest.mark.parametrize("size", [1, 125, 126, 127, 4000, TEXT_LIMIT_BYTES])
def test_a_message_of_any_allowed_length_arrives_whole(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker, size: int
) -> None:
    client, _ = worker.open(back_source)
    assert speaker.send("x" * size) == to(delivered=1)
    assert client.read_frame().payload == b"x" * size


def test_a_message_waits_for_the_end_of_a_frame_under_way(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    client, session = worker.open(back_source)
    data = frame(b"x" * MEBIBYTE, 2)
    session.send(data[:300_000])
    client.buffer = client.read(300_000)
    assert speaker.send("ours") == to(queued=1)
    session.send(data[300_000:] + frame(b"next"))
    assert client.read_frame().payload == b"x" * MEBIBYTE
    assert client.read_frame().payload == b"ours"
    assert client.read_frame().payload == b"next"


@pytest.mark.parametrize("cut", [1, 2, 3, 9, 10])
def test_a_message_waits_where_only_a_head_is_there(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker, cut: int
) -> None:
    client, session = worker.open(back_source)
    data = frame(b"x" * 70_000, 2)
    session.send(data[:cut])
    client.buffer = client.read(cut)
    assert speaker.send("ours") == to(queued=1)
    for start in range(cut, 20):
        session.send(data[start : start + 1])
    session.send(data[20:])
    assert client.read_frame().payload == b"x" * 70_000
    assert client.read_frame().payload == b"ours"


def test_a_message_never_goes_between_the_fragments_of_another(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"one ", fin=False))
    assert client.read_frame().payload == b"one "
    assert speaker.send("ours") == to(queued=1)
    session.send(frame(b"two ", 0, fin=False))
    session.send(frame(b"ping", 9))
    assert [client.read_frame().payload for _ in range(2)] == [b"two ", b"ping"]
    session.send(frame(b"", 0, fin=False) + frame(b"three", 0) + frame(b"next", fin=False) + frame(b"!", 0))
    read = [client.read_frame() for _ in range(5)]
    assert [one.payload for one in read] == [b"", b"three", b"ours", b"next", b"!"]
    assert (read[2].opcode, read[2].fin) == (1, True)


def test_a_message_goes_before_a_close_in_the_same_chunk(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"one ", fin=False))
    assert client.read_frame().payload == b"one "
    assert speaker.send("ours") == to(queued=1)
    session.send(frame(b"two", 0) + frame(b"\x03\xe8", 8))
    assert [client.read_frame().payload for _ in range(3)] == [b"two", b"ours", b"\x03\xe8"]


def test_two_messages_arrive_in_the_order_in_which_they_were_sent(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"one ", fin=False))
    assert client.read_frame().payload == b"one "
    numbers = [speaker.order(f"number {index}", [[1111, 1111]]) for index in range(20)]
    assert [speaker.outcome(number) for number in numbers] == [to(queued=1)] * 20
    session.send(frame(b"two", 0))
    client.read_frame()
    for index in range(20, 40):
        speaker.order(f"number {index}", None)
    assert [client.read_frame().payload.decode() for _ in range(40)] == [f"number {i}" for i in range(40)]


# Who is told


def test_a_message_goes_to_the_ids_that_are_named_and_to_no_other(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    clients = {number: worker.open(back_source, number)[0] for number in (0, 99, 100, 101, 500, 501, 5997)}
    second = worker.open(back_source, 500)[0]
    untagged = worker.open(back_source, None)[0]
    assert speaker.send("low", [[0, 100], [500, 500]]) == to(delivered=5)
    assert speaker.send("wide", [[101, 101], [501, 9999]]) == to(delivered=3)
    assert speaker.send("nobody", [[102, 499]]) == to()
    assert speaker.send("another type", None, "other") == to()
    assert speaker.send("all", None) == to(delivered=9)
    for number, client in clients.items():
        assert client.read_frame().payload == (b"low" if number in (0, 99, 100, 500) else b"wide")
        assert client.read_frame().payload == b"all"
    assert [second.read_frame().payload for _ in range(2)] == [b"low", b"all"]
    assert untagged.read_frame().payload == b"all"


def _noted(turns: list[bool], over: bool) -> bool:
    turns.append(over)
    return over


def test_a_message_to_many_leaves_turns_to_others(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [worker.open(back_source, number % 7) for number in range(450)]
    client, _ = sessions[0]
    assert speaker.send("x" * 1000, None) == to(delivered=450)
    assert worker.worker is not None
    turns: list[bool] = []
    speak = worker.worker.messages._speak
    monkeypatch.setattr(worker.worker.messages, "_speak", lambda speech: _noted(turns, speak(speech)))
    assert speaker.send("y", None) == to(delivered=450)
    assert turns == [False, False, True]
    assert [client.read_frame().payload for _ in range(2)] == [b"x" * 1000, b"y"]


# Who is not


def test_a_session_that_is_being_closed_is_told_nothing(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    client, session = worker.open(back_source)
    data = frame(b"x" * 70_000, 2)
    session.send(data[:100])
    client.buffer = client.read(100)
    assert speaker.send("too early") == to(queued=1)
    freeze(worker, back_source)
    assert speaker.send("too late") == to(closing=1)
    session.send(data[100:] + frame(b"more"))
    assert client.read_frame().payload == b"x" * 70_000
    assert client.read_frame().close_code == 1012
    assert client.ended()
    counted(worker, queued=1, lost=1, skipped_closing=1)


def test_sessions_that_wait_for_their_close_are_told_nothing(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    clients = [worker.open(back_source, 1000 + number % 100)[0] for number in range(500)]
    other = worker.open(back_source, 2500)[0]
    cutover = make_cutover("freeze", [[1000, 1999, "center", "unbj"]])
    config, rule = make_config({"center": [back_source.address]}), make_rule(epoch=5, cutover=cutover)
    frozen = make_snapshot(9, config, rule)
    apply = {"do": "apply", "version": 9, "digest": frozen.digest, "body": frozen.body.decode()}
    last = [[1060, 2500]]  # those whose turn to be closed comes last
    send = {"do": "send", "id": 1, "unit_type": "unit_type", "ranges": last, "text": "not for the frozen"}
    worker.agent.sock.sendall(b"".join(json.dumps(order).encode() + b"\n" for order in (apply, send)))
    assert worker.agent.hear("sent")["delivered"] == 1
    for client in clients:
        assert client.read_frame().close_code == 1012
    assert other.read_frame().payload == b"not for the frozen"


@pytest.mark.parametrize("who", ["back_source", "client"])
def test_a_session_whose_peer_has_said_close_is_told_nothing(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker, who: str
) -> None:
    client, session = worker.open(back_source)
    if who == "client":
        client.send_frame(b"\x03\xe8", 8)
        assert session.read_frame().close_code == 1000
        assert speaker.send("too late") == to(closing=1)
        session.send(frame(b"\x03\xe8", 8))
    else:
        session.send(frame(b"\x03\xe8", 8))
    assert client.read_frame().close_code == 1000
    assert speaker.send("too late") == to(closing=1)
    session.half_close()
    assert client.ended()


def test_a_message_that_waits_when_the_back_source_says_close_is_lost(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"half a message", fin=False))
    assert client.read_frame().payload == b"half a message"
    assert speaker.send("ours") == to(queued=1)
    session.send(frame(b"\x03\xe8", 8))
    assert client.read_frame().close_code == 1000
    counted(worker, lost=1)
    session.half_close()
    assert client.ended()


@pytest.mark.parametrize("who", ["back_source", "client"])
def test_a_message_that_waits_when_the_session_ends_is_lost(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker, who: str
) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"half a message", fin=False))
    client.read_frame()
    assert speaker.send("one") == speaker.send("two") == to(queued=1)
    (client if who == "client" else session).reset()
    counted(worker, lost=2)
    assert worker.worker is not None
    assert not worker.worker.sessions.unsaid


def test_to_a_client_that_does_not_read_a_bounded_number_of_messages_waits(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    assert worker.worker is not None
    client, session = worker.open(back_source, receive_buffer=65_536)
    other, _ = worker.open(back_source, 1112)
    flood = Flood(session, frame(b"x" * 100_000, 2))
    eventually(flood.stalled, "the back-source is stopped")
    (tunnel,) = [tunnel for tunnel in worker.worker.sessions if tunnel.router_id == 1111]
    outcomes = [speaker.send(f"{index:05}" + "y" * (16 * KIBIBYTE - 5)) for index in range(12)]
    waiting = sum(outcome["queued"] for outcome in outcomes)
    assert MESSAGES_LIMIT_BYTES // (17 * KIBIBYTE) <= waiting < 12
    assert outcomes == [to(queued=1)] * waiting + [to(full=1)] * (12 - waiting)
    held = tunnel.waiting_bytes + sum(len(said) for _, said in worker.worker.sessions.unsaid.values())
    assert held <= CHUNK_BYTES + MESSAGES_LIMIT_BYTES
    assert speaker.send("others are told", [[1112, 1112]]) == to(delivered=1)
    assert other.read_frame().payload == b"others are told"
    ours = []
    while len(ours) < waiting:
        one = client.read_frame()
        if one.opcode == 1:
            ours.append(int(one.payload[:5]))
        else:
            assert one.payload == b"x" * 100_000
    assert ours == list(range(waiting))
    assert speaker.send("the session lives on")["skipped"] == {}
    counted(worker, skipped_full=12 - waiting)
    client.reset()
    flood.join()


def test_an_idle_client_that_does_not_read_gets_what_was_queued_when_it_does(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker
) -> None:
    client, session = worker.open(back_source, receive_buffer=4096)
    number, outcome = 0, to()
    while "full" not in outcome["skipped"]:
        outcome = speaker.send(f"{number:05}" + "y" * (16 * KIBIBYTE - 5))
        number += 1
        assert number < 2000
    for index in range(number - 1):
        assert int(client.read_frame().payload[:5]) == index
    assert speaker.send("again") == to(delivered=1)
    assert client.read_frame().payload == b"again"
    session.send(frame(b"and the back-source"))
    assert client.read_frame().payload == b"and the back-source"


# Extensions


@pytest.mark.parametrize(
    ("extensions", "told"),
    [
        ("permessage-deflate", True),
        ("Permessage-Deflate; server_no_context_takeover; client_max_window_bits=15", True),
        ("x-webkit-deflate-frame", False),
        ("permessage-deflate, mux", False),
        ('permessage-deflate; a="b,c"', False),
        ("permessage-bzip2; level=9", False),
    ],
)
def test_a_session_with_an_extension_that_is_not_known_is_left_out(
    worker: EdgeWorker, back_source: BackSource, speaker: Speaker, extensions: str, told: bool
) -> None:
    client = worker.connect()
    client.send(handshake_head(router_id=1111))
    session = back_source.take()
    session.switch(extra=f"Sec-WebSocket-Extensions: {extensions}\r\n")
    assert client.answer().headers["sec-websocket-extensions"] == extensions
    assert speaker.send("ours") == (to(delivered=1) if told else to(extension=1))
    session.send(frame(b"theirs"))
    assert client.read_frame().payload == (b"ours" if told else b"theirs")
