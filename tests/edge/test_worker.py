"""A worker and its agent: what is applied, closed, withdrawn, said; and how the process ends."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from msha.edge.entry.opening import Opening
from msha.steering.snapshot import load
from tests.edge.test_tunnel import eventually
from tests.support.edge_worker import (
    Agent,
    EdgeWorker,
    make_config,
    make_cutover,
    make_rule,
    make_snapshot,
    worker_process,
)
from tests.support.websocket_wire import (
    TIMEOUT_S,
    BackSource,
    BackSourceSession,
    Client,
    frame,
    handshake_head,
)

MOVED = [[1000, 1999, "center", "unbj"], [8000, 8099, "unbj", "center"]]
AFTER = {"center": ["0~999", "2000~5997", "8000~8099"], "unbj": ["1000~1999", "5998~7999", "8100~9999"]}

Session = tuple[Client, BackSourceSession]


def step(worker: EdgeWorker, back_source: BackSource, phase: str, epoch: int, **options: Any) -> None:
    """A phase of the cutover of MOVED is in force; ``release`` is the plain new rule."""
    ranges = AFTER if phase in ("activate", "release") else None
    cutover = None if phase == "release" else make_cutover(phase, MOVED, **options)
    worker.apply(
        make_config({"center": [back_source.address]}), make_rule(ranges, epoch=epoch, cutover=cutover)
    )


def passes(session: Session) -> bool:
    """Whether bytes pass both ways."""
    client, server = session
    client.send_frame(b"up")
    server.send(frame(b"down"))
    return server.read_frame().payload == b"up" and client.read_frame().payload == b"down"


def closed(session: Session, reason: str = "moved to unbj") -> bool:
    """Whether both ends got our Close; lets go of both."""
    client, server = session
    for peer in (client, server):
        read = peer.read_frame()
        assert (read.opcode, read.close_code, read.close_reason) == (8, 1012, reason)
        peer.close()
    return True


def progress(said: dict[str, Any]) -> dict[str, int]:
    """How far the worker says it has come with the cutover."""
    return {name: said["by_phase"][name] for name in ("epoch", "closed", "remaining", "reconnected")}


# Applying


def test_exactly_the_moved_ids_are_closed(worker: EdgeWorker, back_source: BackSource) -> None:
    moved = [worker.open(back_source, router_id) for router_id in (1000, 1500, 1500, 1500, 1999)]
    others = [worker.open(back_source, router_id) for router_id in (0, 999, 2000, 5997, None)]
    step(worker, back_source, "freeze", 5)
    assert all(closed(session) for session in moved)
    said = worker.agent.hear("drained")
    assert said["epoch"] == 5
    said = worker.agent.stats()
    assert progress(said) == {"epoch": 5, "closed": 5, "remaining": 0, "reconnected": 0}
    assert said["sessions"] == 5
    assert all(passes(session) for session in others)


def test_hundreds_of_sessions_are_closed_and_hundreds_are_not(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    moved = [worker.open(back_source, 1000 + n) for n in range(450)]
    others = [worker.open(back_source, 2000 + n) for n in range(100)]
    step(worker, back_source, "freeze", 5)
    assert all(closed(session) for session in moved)
    worker.agent.hear("drained")
    assert all(passes(session) for session in others)


def test_nothing_is_closed_while_a_cutover_is_only_prepared(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    session = worker.open(back_source, 1500)
    step(worker, back_source, "prepare", 4)
    worker.agent.hear("drained", lambda said: said["epoch"] == 4)
    assert passes(session)
    worker.open(back_source, 1501)


def test_nothing_is_closed_by_an_ordinary_publish(worker: EdgeWorker, back_source: BackSource) -> None:
    session = worker.open(back_source, 1500)
    worker.apply(make_config({"center": ["127.0.0.1:9"]}), make_rule())
    worker.apply(make_config({}), make_rule())
    assert passes(session)


def test_untagged_sessions_stay(worker: EdgeWorker, back_source: BackSource) -> None:
    session = worker.open(back_source, None)
    worker.apply(make_config({}), make_rule({"unbj": ["0~9999"]}, epoch=9))
    assert passes(session)


def test_without_a_cutover_too_a_session_of_another_units_id_is_closed(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    session = worker.open(back_source, 1500)
    worker.apply(make_config({}), make_rule({"unbj": ["0~9999"]}, epoch=9))
    assert closed(session)


def test_a_change_of_how_the_id_is_read_closes_also_those_whose_number_stays(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    session = worker.open(back_source, 1500)
    cutover = make_cutover("freeze", [[0, 5997, "center", "center"], [5998, 9999, "unbj", "unbj"]])
    worker.apply(make_config({"center": [back_source.address]}), make_rule(epoch=5, cutover=cutover))
    assert closed(session, "routing changed")


def test_clients_that_come_back_are_counted_at_the_gaining_unit(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    step(worker, back_source, "prepare", 4)
    step(worker, back_source, "freeze", 5)
    assert worker.ask(handshake_head(router_id=8050))[1].status == 302  # not yet ours
    step(worker, back_source, "activate", 6)
    worker.open(back_source, 8050)
    worker.open(back_source, 3000)
    said = worker.agent.stats(lambda said: said["by_phase"]["epoch"] == 6 and said["sessions"] == 2)
    assert said["by_phase"]["reconnected"] == 1
    step(worker, back_source, "release", 7)
    worker.open(back_source, 8051)
    said = worker.agent.stats(lambda said: said["by_phase"]["epoch"] == 7 and said["sessions"] == 3)
    assert progress(said) == {"epoch": 7, "closed": 0, "remaining": 0, "reconnected": 2}


def test_a_turn_around_closes_at_the_gaining_unit(worker: EdgeWorker, back_source: BackSource) -> None:
    step(worker, back_source, "activate", 6)
    session = worker.open(back_source, 8050)
    other = worker.open(back_source, 3000)
    back = [[first, last, gaining, losing] for first, last, losing, gaining in MOVED]
    cutover = make_cutover("freeze", back, both=True)
    config = make_config({"center": [back_source.address]})
    worker.apply(config, make_rule(AFTER, epoch=7, cutover=cutover))
    assert closed(session)
    worker.agent.hear("drained", lambda said: said["epoch"] == 7)
    assert passes(other)


def test_a_snapshot_whose_digest_is_wrong_is_refused(worker: EdgeWorker, back_source: BackSource) -> None:
    session = worker.open(back_source, 1500)
    published = make_snapshot(2, make_config({}), make_rule({"unbj": ["0~9999"]}))
    worker.agent.say("apply", body=published.body.decode(), version=2, digest="0" * 64)
    said = worker.agent.hear("refused")
    assert said["version"] == 2
    assert "digest" in said["reason"]
    assert passes(session)


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"schema":2}'])
def test_what_is_no_snapshot_is_refused(worker: EdgeWorker, body: str) -> None:
    import hashlib

    worker.agent.say("apply", body=body, version=2, digest=hashlib.sha256(body.encode()).hexdigest())
    assert worker.agent.hear("refused")["version"] == 2


def test_the_version_never_goes_down(worker: EdgeWorker, back_source: BackSource) -> None:
    old = make_snapshot(1, make_config({"center": [back_source.address]}), make_rule())
    worker.apply(make_config({}), make_rule(epoch=2))
    worker.agent.say("apply", body=old.body.decode(), version=1, digest=old.digest)
    assert "below" in worker.agent.hear("refused")["reason"]


def test_a_version_has_one_content(worker: EdgeWorker) -> None:
    other = make_snapshot(1, make_config({}), make_rule(epoch=99))
    worker.agent.say("apply", body=other.body.decode(), version=1, digest=other.digest)
    assert "same version" in worker.agent.hear("refused")["reason"]


def test_the_same_snapshot_twice_is_applied_twice(worker: EdgeWorker, back_source: BackSource) -> None:
    published = worker.apply(make_config({"center": [back_source.address]}), make_rule(epoch=2))
    assert worker.agent.apply(published)["epoch"] == 2


def test_an_order_that_is_nonsense_harms_nothing(worker: EdgeWorker, back_source: BackSource) -> None:
    session = worker.open(back_source, 5)
    for line in (b"\n", b"{}\n", b"[1]\n", b'{"do":"apply"}\n', b'{"do":"dance"}\n', b"\xff\xfe\n"):
        worker.agent.sock.sendall(line)
    assert passes(session)
    worker.apply(make_config({"center": [back_source.address]}), make_rule(epoch=2))


# Half-open handshakes (I1, I2)


def half_open(worker: EdgeWorker, back_source: BackSource, router_id: int = 1500) -> Session:
    """A handshake that a back-source has got and has not answered."""
    client = worker.connect()
    client.send(handshake_head(router_id=router_id))
    return client, back_source.take()


def test_a_half_open_handshake_of_a_frozen_id_loses_its_back_source_and_is_held(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, server = half_open(worker, back_source)
    step(worker, back_source, "freeze", 5)
    said = worker.agent.hear("drained")  # held is not half-open
    assert said["epoch"] == 5
    assert server.ended()
    said = worker.agent.stats()
    assert (said["half_open"], said["held"], said["sessions"]) == (0, 1, 0)
    step(worker, back_source, "release", 7)
    assert client.answer().status == 302


def test_an_error_with_one_half_open_handshake_keeps_no_other_and_no_snapshot(
    worker: EdgeWorker, back_source: BackSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = [half_open(worker, back_source, router_id) for router_id in (1111, 1112)]
    withdraw = Opening.decide_again
    failures = iter([RuntimeError("an error of ours")])

    def fail_once(opening: Opening) -> None:
        for failure in failures:
            raise failure
        withdraw(opening)

    monkeypatch.setattr(Opening, "decide_again", fail_once)
    step(worker, back_source, "freeze", 5)
    worker.agent.hear("drained", lambda said: said["epoch"] == 5)
    assert all(server.ended() for _, server in opened)
    worker.agent.stats(lambda said: said["half_open"] == 0 and said["held"] == 1)


def test_a_half_open_handshake_of_an_id_that_moved_is_redirected(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, server = half_open(worker, back_source)
    worker.apply(make_config({"center": [back_source.address]}), make_rule(AFTER, epoch=9))
    response = client.answer()
    assert response.status == 302
    assert response.headers["location"] == "http://unbj.websocket.test:8102/"
    assert server.ended()


def test_a_half_open_handshake_of_another_id_goes_on(worker: EdgeWorker, back_source: BackSource) -> None:
    client, server = half_open(worker, back_source, 2500)
    step(worker, back_source, "freeze", 5)
    server.switch()
    assert client.answer().status == 101


def test_a_101_that_is_already_there_opens_nothing_after_a_freeze(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    """Order and 101 come in one turn; whichever is read first, no session of a frozen id is left."""
    assert worker.worker is not None
    for _ in range(50):
        client, server = half_open(worker, back_source)
        server.switch()
        step(worker, back_source, "freeze", 5)
        server.close()
        worker.agent.hear("drained", lambda said: said["epoch"] == 5)
        assert (len(worker.worker.sessions), len(worker.worker.sessions.half_open)) == (0, 0)
        client.close()
        worker.apply(make_config({"center": [back_source.address]}), make_rule(epoch=6))


@pytest.mark.parametrize("turns", range(7))
def test_a_freeze_finds_a_held_handshake_wherever_it_is_on_its_way_to_a_tunnel(
    worker: EdgeWorker, back_source: BackSource, turns: int
) -> None:
    """Woken by an abort and frozen again so many turns of the loop later."""
    running = worker.worker
    assert running is not None
    config = make_config({"center": [back_source.address]})
    freeze = make_cutover("freeze", MOVED)
    worker.apply(config, make_rule(epoch=5, cutover=freeze))
    client = worker.connect()
    client.send(handshake_head(router_id=1500))
    worker.agent.stats(lambda said: said["held"] == 1)
    aborted = load(make_snapshot(10, config, make_rule(epoch=6)).body)
    frozen = load(make_snapshot(11, config, make_rule(epoch=7, cutover=freeze)).body)
    done = threading.Event()

    def after(left: int) -> None:
        if left:
            running.reactor.call_soon(lambda: after(left - 1))
        else:
            running._obey(frozen)
            done.set()

    def begin() -> None:
        running._obey(aborted)
        after(turns)

    running.reactor.call_from_outside(begin)
    assert done.wait(TIMEOUT_S)
    worker.agent.stats(lambda said: said["held"] == 1)
    assert (len(running.sessions), len(running.sessions.half_open)) == (0, 0)
    published = make_snapshot(12, config, make_rule(AFTER, epoch=8))
    worker.agent.apply(published)
    assert client.answer().status == 302


def test_a_half_open_handshake_counts_as_half_open(worker: EdgeWorker, back_source: BackSource) -> None:
    _, server = half_open(worker, back_source)
    worker.agent.stats(lambda said: said["half_open"] == 1 and said["sessions"] == 0)
    server.switch()
    worker.agent.stats(lambda said: said["half_open"] == 0 and said["sessions"] == 1)


def test_an_answer_other_than_101_on_its_way_is_withdrawn_too(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, server = half_open(worker, back_source)
    server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf")
    step(worker, back_source, "freeze", 5)
    worker.agent.stats(lambda said: said["held"] == 1)
    step(worker, back_source, "release", 7)
    assert client.answer().status == 302


# Listening, parking, draining


def test_a_worker_listens_only_when_told(bare_worker: EdgeWorker, back_source: BackSource) -> None:
    bare_worker.apply(make_config({"center": [back_source.address]}), make_rule())
    assert bare_worker.worker is not None
    assert not bare_worker.worker.shell.listening
    port = bare_worker.listen()
    bare_worker.agent.say("listen")
    assert bare_worker.agent.hear("listening")["port"] == port


def test_parking_closes_listener_and_sessions_and_says_so(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    session = worker.open(back_source, 5)
    waiting, server = half_open(worker, back_source, 6)
    waiting.send(frame(b"early", mask=b"abcd"))
    worker.agent.say("park")
    assert closed(session, "edge parked")
    worker.agent.hear("parked")
    assert server.ended()
    assert waiting.ended()
    with pytest.raises(ConnectionRefusedError):
        worker.connect()
    worker.listen()
    worker.open(back_source, 5)


def test_whoever_has_sent_half_a_head_opens_nothing_at_a_parked_edge(
    bare_worker: EdgeWorker, back_source: BackSource
) -> None:
    bare_worker.apply(make_config({"center": [back_source.address]}), make_rule())
    bare_worker.listen()
    head = handshake_head(router_id=5)
    clients = [bare_worker.connect() for _ in range(3)]
    for client in clients:
        client.send(head[:40])
    assert bare_worker.worker is not None
    shell = bare_worker.worker.shell
    eventually(lambda: shell.clients == 3, "the heads have begun")
    bare_worker.agent.say("park")
    bare_worker.agent.hear("parked")
    for client in clients:
        client.send(head[40:])
        assert client.ended()
    assert back_source.idle()
    eventually(lambda: not shell.connections, "nobody is left")


def test_close_all_closes_all_and_goes_on_listening(worker: EdgeWorker, back_source: BackSource) -> None:
    session = worker.open(back_source, 5)
    worker.agent.say("close_all", code=1012, reason="by hand")
    assert closed(session, "by hand")
    worker.open(back_source, 5)


def begin_drain(worker: EdgeWorker, seconds: float) -> None:
    """The listener is closed."""
    worker.agent.say("drain", seconds=seconds)
    assert worker.worker is not None
    deadline = time.monotonic() + TIMEOUT_S
    while worker.worker.shell.listening and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_drain_lets_sessions_end_by_themselves(worker: EdgeWorker, back_source: BackSource) -> None:
    client, server = worker.open(back_source, 5)
    begin_drain(worker, 30)
    assert passes((client, server))
    with pytest.raises(ConnectionRefusedError):
        worker.connect()
    server.close()
    client.close()
    worker.agent.hear("empty")


def test_a_drain_closes_what_does_not_end_within_its_time(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    sessions = [worker.open(back_source, router_id) for router_id in range(20)]
    began = time.monotonic()
    worker.agent.say("drain", seconds=2)
    ends = []
    for session in sessions:
        assert closed(session, "edge restarting")
        ends.append(time.monotonic() - began)
    worker.agent.hear("empty")
    assert 0.9 < ends[0] < ends[-1] < 2.5
    assert ends[-1] - ends[0] > 0.4, "they were closed all at once"


def test_a_drain_closes_sessions_that_opened_after_it_began_too(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, server = half_open(worker, back_source)
    begin_drain(worker, 2)
    server.switch()
    assert client.answer().status == 101
    assert closed((client, server), "edge restarting")
    worker.agent.hear("empty")


def test_connections_that_the_kernel_had_taken_are_served_before_the_drain(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    assert worker.worker is not None
    worker.worker.reactor.call_from_outside(lambda: time.sleep(0.5))  # it is busy while they come
    clients = [worker.connect() for _ in range(200)]
    for client in clients:
        client.send(handshake_head(router_id=7000))
    worker.agent.say("drain", seconds=5)
    assert {client.answer().status for client in clients} == {302}


def test_status_tells_load_balancers_of_the_drain(worker: EdgeWorker) -> None:
    client = worker.connect()
    client.send(b"GET /.well-known/msha/status HTTP/1.1\r\n")
    begin_drain(worker, 5)
    client.send(b"Host: a\r\n\r\n")
    response = client.answer()
    assert response.status == 503
    assert json.loads(client.body(response))["status"] == "draining"


def test_a_worker_whose_agent_is_gone_closes_everything_and_ends(
    bare_worker: EdgeWorker, back_source: BackSource
) -> None:
    bare_worker.apply(make_config({"center": [back_source.address]}), make_rule())
    bare_worker.listen()
    session = bare_worker.open(back_source, 5)
    bare_worker.agent.sock.close()
    assert closed(session, "edge stopped")


# As a process


def start(agent: Agent, back_source: BackSource) -> int:
    """The port of the process, which obeys the walk-through's rule."""
    agent.hear("started")
    published = make_snapshot(1, make_config({"center": [back_source.address]}), make_rule())
    agent.apply(published)
    agent.say("listen")
    port: int = agent.hear("listening")["port"]
    return port


def open_session(port: int, back_source: BackSource) -> Session:
    client = Client.connect(port)
    client.send(handshake_head(router_id=5))
    server = back_source.take()
    server.switch()
    assert client.answer().status == 101
    return client, server


def exit_code(process: subprocess.Popen[bytes]) -> int:
    return process.wait(TIMEOUT_S)


def test_a_process_ends_when_told_and_writes_its_access_log(back_source: BackSource) -> None:
    with worker_process() as (process, agent):
        port = start(agent, back_source)
        session = open_session(port, back_source)
        agent.say("exit")
        assert closed(session, "edge stopped")
        assert exit_code(process) == 0
        assert process.stdout is not None
        events = [json.loads(line)["event"] for line in process.stdout.read().splitlines()]
        assert events == ["handshake", "session_end"]


def test_a_process_ends_when_its_agent_is_gone(back_source: BackSource) -> None:
    with worker_process("--access-log", "off") as (process, agent):
        port = start(agent, back_source)
        session = open_session(port, back_source)
        agent.sock.close()
        assert closed(session, "edge stopped")
        assert exit_code(process) == 0


def test_a_process_drains_on_sigterm_and_ignores_sigint(back_source: BackSource) -> None:
    with worker_process("--access-log", "off", "--drain-s", "1") as (process, agent):
        port = start(agent, back_source)
        session = open_session(port, back_source)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert closed(session, "edge restarting")
        agent.hear("empty")
        assert exit_code(process) == 0


def test_a_process_keeps_the_lock_open(tmp_path: Path, back_source: BackSource) -> None:
    import fcntl

    path = tmp_path / "lock"
    lock = os.open(path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with worker_process("--access-log", "off", "--lock-fd", str(lock), fds=(lock,)) as (process, agent):
        agent.hear("started")
        os.close(lock)
        again = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        agent.say("exit")
        assert exit_code(process) == 0
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(again)


def test_several_processes_share_a_port(back_source: BackSource) -> None:
    with worker_process("--access-log", "off") as (_, first):
        port = start(first, back_source)
        with worker_process("--access-log", "off", port=port) as (_, second):
            assert start(second, back_source) == port
            for _ in range(40):
                with Client.connect(port) as client:
                    assert client.ask(handshake_head(router_id=7000)).status == 302
            counted = [
                agent.stats(lambda said: said["counters"].get("decision_redirect", 0) > 0)["counters"]
                for agent in (first, second)
            ]
            assert all(counters["decision_redirect"] >= 5 for counters in counted)


def test_a_taken_address_ends_the_process_with_a_message(back_source: BackSource) -> None:
    taken = back_source.listener.getsockname()[1]
    with worker_process("--access-log", "off", port=taken) as (process, agent):
        agent.hear("started")
        agent.say("listen")
        assert exit_code(process) == 1
