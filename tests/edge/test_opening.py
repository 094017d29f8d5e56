"""From the first byte to the tunnel or the last word, over real sockets."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.edge.test_handshake import HEADS
from tests.support.edge_worker import QUICK, EdgeWorker, make_config, make_rule
from tests.support.websocket_wire import BackSource, Client, frame, handshake_head

REFUSED = sorted(name for name, (_, verdict) in HEADS.items() if verdict[:3].isdigit())


@pytest.fixture
def second(back_source: BackSource) -> Iterator[BackSource]:
    """Another back-source of unit center."""
    server = BackSource()
    yield server
    server.close()


@pytest.fixture
def worker_of_two(bare_worker: EdgeWorker, back_source: BackSource, second: BackSource) -> EdgeWorker:
    """A worker whose unit has two back-sources, asked in turn: ``back_source`` first."""
    servers = {"center": [back_source.address, second.address], "unbj": []}
    bare_worker.apply(make_config(servers, balance="round_robin"), make_rule())
    bare_worker.listen()
    return bare_worker


@pytest.fixture
def patient_worker() -> Iterator[EdgeWorker]:
    """A worker that gives back-sources more time than this test has."""
    worker = EdgeWorker(limits=replace(QUICK, connect_s=60)).start()
    yield worker
    worker.stop()


def closed_port() -> str:
    """An address at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


# Refusals


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_head_is_refused_and_the_connection_ends_without_a_reset(
    worker: EdgeWorker, name: str
) -> None:
    head, expected = HEADS[name]
    with worker.connect() as client:
        response = client.ask(head)
        assert response.status == int(expected[:3])
        assert response.headers["connection"].startswith("close")
        assert len(client.body(response)) > 10


@pytest.mark.parametrize("name", ["two Hosts", "a key with HTTP/1.0", "a bare line feed", "a TLS hello"])
def test_a_hostile_head_that_comes_byte_by_byte_gets_the_same_answer(worker: EdgeWorker, name: str) -> None:
    head, expected = HEADS[name]
    with worker.connect() as client:
        for byte in head:
            try:
                client.send(bytes([byte]))
            except OSError:
                break  # refused before its end, by its first bytes
        assert client.answer().status == int(expected[:3])


def test_a_downgraded_handshake_is_refused_at_once_and_counted(worker: EdgeWorker) -> None:
    client, response = worker.ask(HEADS["nginx's default proxying"][0])
    assert response.status == 400
    assert b"load balancer" in client.body(response)
    client.close()
    assert worker.agent.stats(lambda said: said["counters"].get("invalid_downgraded") == 1)


def test_a_refused_upload_does_not_end_in_a_reset(worker: EdgeWorker) -> None:
    with worker.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: websocket.test\r\nContent-Length: 4000000\r\n\r\n")
        client.send(b"x" * 4_000_000)
        assert client.answer().status == 405
        client.read_to_end()


def test_bytes_behind_a_redirected_handshake_do_not_end_in_a_reset(worker: EdgeWorker) -> None:
    with worker.connect() as client:
        client.send(handshake_head(router_id=7000) + frame(b"x" * 100_000, mask=b"abcd"))
        response = client.answer()
        assert response.status == 302
        assert client.ended()


def test_a_client_that_does_not_close_after_a_refusal_is_let_go_of(worker: EdgeWorker) -> None:
    with worker.connect() as client:
        client.send(b"nonsense, and more to come")
        assert client.answer().status == 400
        client.read_to_end()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                client.send(b"x")
            except OSError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the edge still takes bytes long after its refusal")


def test_a_head_that_does_not_come_is_answered_when_its_time_is_over(worker: EdgeWorker) -> None:
    with worker.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHo")
        assert client.answer().status == 408
    assert worker.agent.stats(lambda said: said["counters"].get("header_timeout") == 1)


def test_bytes_that_trickle_do_not_prolong_the_time_for_the_head(worker: EdgeWorker) -> None:
    began = time.monotonic()
    with worker.connect() as client:
        client.sock.settimeout(0.05)
        for byte in handshake_head() * 3:
            client.send(bytes([byte]))
            try:
                client.read_head()
            except TimeoutError:
                continue
            break
    assert time.monotonic() - began < 1.5


def test_clients_that_say_nothing_do_not_hold_up_others(worker: EdgeWorker, back_source: BackSource) -> None:
    silent = [worker.connect() for _ in range(100)]
    for client in silent[:50]:
        client.send(b"GET / HT")
    client, session = worker.open(back_source)
    session.send(frame(b"hello"))
    assert client.read_frame().payload == b"hello"
    for other in (*silent, client):
        other.close()


def test_a_client_that_leaves_in_its_head_leaves_nothing_behind(worker: EdgeWorker) -> None:
    with worker.connect() as client:
        client.send(b"GET / HTTP/1.1\r\n")
    with worker.connect() as client:
        client.send(b"GET / HTTP/1.1\r\n")
        client.reset()
    assert worker.worker is not None
    deadline = time.monotonic() + 3
    while worker.worker.shell.connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.worker.shell.connections == 0


# The tunnel opens


def test_a_handshake_byte_by_byte_opens_a_tunnel(worker: EdgeWorker, back_source: BackSource) -> None:
    with worker.connect() as client:
        for byte in handshake_head(router_id=5):
            client.send(bytes([byte]))
        session = back_source.take()
        session.switch()
        assert client.answer().status == 101
        assert session.headers["x-msha-router-id"] == "5"


def test_the_back_source_gets_the_rebuilt_head(worker: EdgeWorker, back_source: BackSource) -> None:
    with worker.connect() as client:
        client.send(
            handshake_head(
                "CENTER.websocket.test:8101",
                target="/chat?routerId=7&msha-version=3&a=b",
                extra="X-Msha-Unit: evil\r\nX-Forwarded-For: 6.6.6.6\r\nOrigin: http://a\r\n",
            )
        )
        session = back_source.take()
        assert session.request_line == "GET /chat?routerId=7&a=b HTTP/1.1"
        sent = session.headers
        assert sent["x-msha-unit"] == "center"
        assert sent["x-msha-router-id"] == "7"
        assert sent["x-forwarded-for"] == "127.0.0.1"
        assert sent["x-forwarded-proto"] == "http"
        assert sent["host"] == sent["x-forwarded-host"] == "CENTER.websocket.test:8101"
        assert sent["origin"] == "http://a"


def test_fields_of_the_101_are_passed_on(worker: EdgeWorker, back_source: BackSource) -> None:
    with worker.connect() as client:
        client.send(handshake_head(router_id=5, extra="Sec-WebSocket-Protocol: chat\r\n"))
        back_source.take().switch(
            extra="Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=b\r\nKeep-Alive: timeout=5\r\n"
        )
        response = client.answer()
        assert response.headers["sec-websocket-protocol"] == "chat"
        assert response.headers["set-cookie"] == "a=b"
        assert "keep-alive" not in response.headers


def test_a_101_in_pieces_opens_a_tunnel(worker: EdgeWorker, back_source: BackSource) -> None:
    with worker.connect() as client:
        client.send(handshake_head(router_id=5))
        session = back_source.take()
        accept = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        head = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        for byte in b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" + head + accept + b"\r\n\r\n" + frame(b"hi"):
            session.send(bytes([byte]))
        assert client.answer().status == 101
        assert client.read_frame().payload == b"hi"


def test_frames_behind_both_heads_arrive(worker: EdgeWorker, back_source: BackSource) -> None:
    with worker.connect() as client:
        client.send(handshake_head(router_id=5) + frame(b"early", mask=b"abcd"))
        session = back_source.take()
        client.send(frame(b"while the back-source thinks", mask=b"efgh"))
        time.sleep(0.1)  # so that its event comes before the tunnel
        session.switch(rest=frame(b"welcome") + frame(b"x" * 70_000)[:50_000])
        session.send(frame(b"x" * 70_000)[50_000:])
        assert client.answer().status == 101
        assert client.read_frame().payload == b"welcome"
        assert client.read_frame().payload == b"x" * 70_000
        assert session.read_frame().payload == b"early"
        assert session.read_frame().payload == b"while the back-source thinks"


def test_what_did_not_fit_into_one_read_with_the_101_is_not_missed(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    assert worker.worker is not None
    with worker.connect() as client:
        client.send(handshake_head(router_id=5))
        session = back_source.take()
        worker.worker.reactor.call_from_outside(lambda: time.sleep(0.5))  # so that all comes in one event
        session.switch(rest=frame(b"x" * 100_000, 2))
        assert client.answer().status == 101
        assert client.read_frame().payload == b"x" * 100_000


def test_an_end_of_the_back_source_that_comes_with_its_101_is_not_missed(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    assert worker.worker is not None
    with worker.connect() as client:
        client.send(handshake_head(router_id=5))
        session = back_source.take()
        worker.worker.reactor.call_from_outside(lambda: time.sleep(0.5))  # so that all comes in one event
        session.switch(rest=frame(b"x" * 100_000, 2))
        session.close()
        assert client.answer().status == 101
        assert client.read_frame().payload == b"x" * 100_000
        assert client.ended()


# Back-sources that fail


def test_a_back_source_that_refuses_the_connection_is_passed_over(
    bare_worker: EdgeWorker, second: BackSource
) -> None:
    servers = {"center": [closed_port(), closed_port(), second.address]}
    bare_worker.apply(make_config(servers, balance="round_robin"), make_rule())
    bare_worker.listen()
    with bare_worker.connect() as client:
        client.send(handshake_head(router_id=5))
        second.take().switch()
        assert client.answer().status == 101
    assert bare_worker.agent.stats(lambda said: said["counters"].get("back_source_failed") == 2)


BROKEN_ANSWERS = {
    "a wrong Accept": b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: c29tZXRoaW5nIGVsc2U=\r\n\r\n",
    "a 101 without Upgrade": b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "a 101 of HTTP/1.0": b"HTTP/1.0 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "something else": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000,
    "one interim answer after the other": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9,
}


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
def test_a_back_source_that_answers_nonsense_is_passed_over_at_once(
    patient_worker: EdgeWorker, back_source: BackSource, second: BackSource, name: str
) -> None:
    servers = {"center": [back_source.address, second.address]}
    patient_worker.apply(make_config(servers, balance="round_robin"), make_rule())
    patient_worker.listen()
    with patient_worker.connect() as client:
        client.send(handshake_head(router_id=5))
        first = back_source.take()
        first.send(BROKEN_ANSWERS[name])
        second.take().switch()
        assert client.answer().status == 101
        try:
            first.read_to_end()  # the edge lets go of it
        except ConnectionResetError:
            pass


def test_a_back_source_that_closes_without_an_answer_is_passed_over(
    worker_of_two: EdgeWorker, back_source: BackSource, second: BackSource
) -> None:
    with worker_of_two.connect() as client:
        client.send(handshake_head(router_id=5))
        back_source.take().close()
        second.take().switch()
        assert client.answer().status == 101


@pytest.mark.parametrize("half", [b"", b"HTTP/1.1 101 Switch"])
def test_a_back_source_that_does_not_answer_in_time_is_passed_over(
    worker_of_two: EdgeWorker, back_source: BackSource, second: BackSource, half: bytes
) -> None:
    with worker_of_two.connect() as client:
        client.send(handshake_head(router_id=5))
        back_source.take().send(half)
        second.take().switch()
        assert client.answer().status == 101


def test_a_client_is_told_when_no_back_source_takes_it(bare_worker: EdgeWorker) -> None:
    bare_worker.apply(make_config({"center": [closed_port(), closed_port()]}), make_rule())
    bare_worker.listen()
    client, response = bare_worker.ask(handshake_head(router_id=5))
    assert response.status == 502
    assert b"No back-source server answered" in client.body(response)
    client.close()


def test_a_client_is_told_when_the_last_back_source_is_too_slow(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    with worker.connect() as client:
        client.send(handshake_head(router_id=5))
        back_source.take()
        assert client.answer().status == 504


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\nX-Why: you\r\n\r\nnot you", 403, b"not you"),
        (
            b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\nX-Why: you\r\n\r\n7\r\nnot you\r\n0\r\n\r\n",
            403,
            b"not you",
        ),
        (b"HTTP/1.1 200 OK\r\nX-Why: you\r\n\r\nto the end", 200, b"to the end"),
        (b"HTTP/1.1 503 Busy\r\nX-Why: you\r\nContent-Length: 0\r\n\r\n", 503, b""),
    ],
)
def test_another_answer_is_passed_on_with_its_body(
    worker: EdgeWorker, back_source: BackSource, answer: bytes, status: int, body: bytes
) -> None:
    with worker.connect() as client:
        client.send(handshake_head(router_id=5))
        session = back_source.take()
        session.send(answer)
        if body == b"to the end":
            session.half_close()
        response = client.answer()
        assert response.status == status
        assert response.headers["x-why"] == "you"
        assert response.headers["connection"] == "close"
        assert client.body(response) == body


def test_an_endless_body_is_cut_off(worker: EdgeWorker, back_source: BackSource) -> None:
    with worker.connect() as client:
        client.send(handshake_head(router_id=5))
        session = back_source.take()
        session.send(b"HTTP/1.1 200 OK\r\n\r\n")
        with pytest.raises(OSError, match=r"[Rr]eset|[Bb]roken"):
            session.send(b"x" * 100_000_000)
        assert len(client.body(client.answer())) == 65_536


def test_a_body_that_never_ends_is_cut_off_in_time(worker: EdgeWorker, back_source: BackSource) -> None:
    with worker.connect() as client:
        client.send(handshake_head(router_id=5))
        back_source.take().send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        assert client.body(client.answer()) == b"half"


def test_a_client_that_leaves_before_its_101_takes_the_back_source_along(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client = worker.connect()
    client.send(handshake_head(router_id=5))
    session = back_source.take()
    client.close()
    assert session.ended()
    assert worker.agent.stats(lambda said: said["counters"].get("decision_abandoned") == 1)


def test_small_writes_are_not_delayed_and_dead_peers_are_found(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    worker.open(back_source)
    assert worker.worker is not None
    (tunnel,) = worker.worker.sessions
    for sock in tunnel.sockets:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert not sock.getblocking()


# Balancing


def opened_at(worker: EdgeWorker, servers: list[BackSource], router_id: int | None) -> tuple[int, Client]:
    """Which of the servers got the session."""
    client = worker.connect()
    client.send(handshake_head(router_id=router_id))
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for index, server in enumerate(servers):
            server.listener.settimeout(0.01)
            try:
                session = server.take()
            except TimeoutError:
                continue
            session.switch()
            assert client.answer().status == 101
            return index, client
    raise AssertionError("no back-source was asked")


def test_round_robin_goes_round(
    worker_of_two: EdgeWorker, back_source: BackSource, second: BackSource
) -> None:
    found = [opened_at(worker_of_two, [back_source, second], 5) for _ in range(4)]
    assert [index for index, _ in found] == [0, 1, 0, 1]
    for _, client in found:
        client.close()


def test_consistent_hashing_keeps_an_id_at_its_server(
    bare_worker: EdgeWorker, back_source: BackSource, second: BackSource
) -> None:
    bare_worker.apply(make_config({"center": [back_source.address, second.address]}), make_rule())
    bare_worker.listen()
    found = [opened_at(bare_worker, [back_source, second], router_id) for router_id in (*range(8), *range(8))]
    indexes = [index for index, _ in found]
    assert indexes[:8] == indexes[8:]
    assert set(indexes) == {0, 1}
    for _, client in found:
        client.close()


def test_least_sessions_goes_where_the_fewest_are(
    bare_worker: EdgeWorker, back_source: BackSource, second: BackSource
) -> None:
    servers = [back_source, second]
    config = make_config({"center": [server.address for server in servers]}, balance="least_sessions")
    bare_worker.apply(config, make_rule())
    bare_worker.listen()
    found = [opened_at(bare_worker, servers, 5) for _ in range(4)]
    assert sorted(index for index, _ in found) == [0, 0, 1, 1]
    for index, client in found:
        if index == 1:
            client.close()
    assert bare_worker.agent.stats(lambda said: said["sessions"] == 2)
    found += [opened_at(bare_worker, servers, 5) for _ in range(2)]
    assert [index for index, _ in found[4:]] == [1, 1]
    for _, client in found:
        client.close()
