"""What workers count: how it is added up, and what they tell of it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from msha.edge.session.tally import Highest, Tally
from tests.support.edge_worker import EdgeWorker, make_config, make_rule
from tests.support.websocket_wire import BackSource, frame, handshake_head


def report(worker: EdgeWorker, number: int) -> Tally:
    """What the worker says when it is asked."""
    worker.agent.say("report", id=number)
    return Tally.heard(worker.agent.stats(lambda said: said["report"] == number)["tally"])


def test_a_tally_is_heard_as_it_was_said() -> None:
    tally = Tally(bytes_up=3, bytes_down=4, decision_s=0.5)
    tally.decisions[2] = 7
    tally.handshakes["tunnel", "owned"] = 2
    tally.ended["edge", "moved to unbj"] = 1
    tally.failures["127.0.0.1:9"] = 5
    assert Tally.heard(json.loads(json.dumps(tally.said()))) == tally


def test_adding_a_tally_adds_every_number() -> None:
    one, other = Tally(bytes_up=1, bytes_down=2), Tally(bytes_up=10, bytes_down=20)
    one.ended["client", ""] = 1
    other.ended["client", ""] = 2
    other.failures["127.0.0.1:9"] = 3
    other.decisions[-1], other.decision_s = 4, 0.25
    one.add(other)
    one.add(other)
    assert (one.decisions[-1], one.decision_s) == (8, 0.5)
    assert (one.bytes_up, one.bytes_down, one.ended["client", ""]) == (21, 42, 5)
    assert one.failures == {"127.0.0.1:9": 6}


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=30), st.floats(0, 10))
def test_the_highest_is_that_of_the_window(steps: list[tuple[float, float]], last: float) -> None:
    highest, now, seen = Highest(7.0), 0.0, []
    for value, wait in steps:
        now += wait
        highest.add(value, now)
        seen.append((now, value))
    now += last
    assert highest.at(now) == max((value for at, value in seen if at >= now - 7.0), default=0.0)


def test_a_report_has_the_bytes_of_open_sessions_and_of_those_that_ended(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    client.send_frame(b"x" * 100)
    session.read_frame()
    session.send(frame(b"y" * 50))
    client.read_frame()
    first = report(worker, 1)
    assert (first.bytes_up, first.bytes_down) == (106, 52)
    client.close()
    session.close()
    worker.agent.stats(lambda said: said["sessions"] == 0 and said["counters"].get("bytes_up") == 106)
    second = report(worker, 2)
    assert (second.bytes_up, second.bytes_down) == (106, 52)
    assert second.ended == {("client", ""): 1}


def test_bytes_do_not_go_down_while_an_ended_session_waits_for_its_client(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    client, session = worker.open(back_source)
    session.send(frame(b"y" * 50))
    client.read_frame()
    assert report(worker, 1).bytes_down == 52
    worker.apply(make_config({"center": [back_source.address]}), make_rule({"unbj": ["0~9999"]}, epoch=2))
    session.read_to_end()
    session.close()
    worker.agent.stats(lambda said: said["sessions"] == 0)
    assert report(worker, 2).bytes_down == 52


def test_a_session_that_we_end_is_counted_with_why(worker: EdgeWorker, back_source: BackSource) -> None:
    worker.open(back_source)
    worker.apply(make_config({"center": [back_source.address]}), make_rule({"unbj": ["0~9999"]}, epoch=2))
    said = worker.agent.stats(lambda said: "ended_by_edge" in said["counters"])
    assert Tally.heard(said["tally"]).ended == {("edge", "moved to unbj"): 1}


def test_back_source_servers_that_fail_are_counted_one_by_one(bare_worker: EdgeWorker) -> None:
    bare_worker.apply(make_config({"center": ["127.0.0.1:9", "127.0.0.1:10"]}), make_rule())
    bare_worker.listen()
    _, answer = bare_worker.ask(handshake_head(router_id=1111))
    assert answer.status == 502
    tally = report(bare_worker, 1)
    assert tally.failures == {"127.0.0.1:9": 1, "127.0.0.1:10": 1}


def test_figures_come_with_how_late_the_loop_was(worker: EdgeWorker) -> None:
    assert 0 <= worker.agent.stats(lambda said: said["report"] == 0)["lag_s"] < 5
