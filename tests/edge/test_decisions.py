"""Decisions as a client sees them: redirects, holds, drops, refusals, and the plain addresses of an edge."""

import json
import time
import tracemalloc
from urllib.parse import urlencode

import pytest

from tests.support.edge_worker import EdgeWorker, make_config, make_cutover, make_rule
from tests.support.websocket_wire import BackSource, Client, Response, handshake_head

MOVED = [[1000, 1999, "center", "unbj"]]
AFTER = {"center": ["0~999", "2000~5997"], "unbj": ["1000~1999", "5998~9999"]}


def get(worker: EdgeWorker, target: str, *, host: str = "websocket.test", method: str = "GET") -> Response:
    """The answer to a plain request; its body is the rest of ``raw``."""
    client, response = worker.ask(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    body = client.read_to_end()
    if method == "GET":
        assert len(body) == int(response.headers["content-length"])
    return Response(response.status, response.headers, body)


def in_sync(worker: EdgeWorker, *, seconds: float = 60) -> None:
    """The worker knows for so long that its snapshot is current."""
    worker.agent.say("sync", until=time.monotonic() + seconds)
    worker.agent.stats()


# Redirects


def test_an_id_of_another_unit_is_redirected_there(worker: EdgeWorker) -> None:
    client, response = worker.ask(handshake_head(router_id=7000, target="/chat?a=b"))
    assert response.status == 302
    assert response.headers["location"] == "http://unbj.websocket.test:8102/chat?a=b"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-length"] == "0"
    assert client.ended()


@pytest.mark.parametrize("host", ["WebSocket.TEST", "websocket.test:9999", "WEBSOCKET.test.:80"])
def test_a_host_is_known_without_case_and_port_and_the_location_has_the_configured_name(
    worker: EdgeWorker, host: str
) -> None:
    _, response = worker.ask(handshake_head(host, router_id=7000))
    assert response.headers["location"] == "http://unbj.websocket.test:8102/"


def test_a_unit_type_that_is_named_decides_by_its_own_rule(
    bare_worker: EdgeWorker, back_source: BackSource
) -> None:
    rule = make_rule()
    rule["unit_types"].append({**rule["unit_types"][0], "name": "other", "ranges": {"unbj": ["0~9999"]}})
    bare_worker.apply(make_config({"center": [back_source.address]}), rule)
    bare_worker.listen()
    assert bare_worker.ask(handshake_head(router_id=5, extra="unitType: other\r\n"))[1].status == 302
    client = bare_worker.connect()
    client.send(handshake_head(router_id=5))  # the default of the namespace
    assert back_source.take().request_line.startswith("GET / ")


def test_an_id_that_came_by_cookie_travels_in_the_query(worker: EdgeWorker) -> None:
    _, response = worker.ask(handshake_head(target="/chat", extra="Cookie: a=b; routerId=7000\r\n"))
    assert response.headers["location"] == "http://unbj.websocket.test:8102/chat?routerId=7000"


def test_a_redirect_of_a_unit_sub_domain_carries_the_version(worker: EdgeWorker) -> None:
    in_sync(worker)
    _, response = worker.ask(handshake_head("center.websocket.test", router_id=7000))
    assert response.headers["location"] == "http://unbj.websocket.test:8102/?msha-version=1"


def test_a_worker_out_of_sync_closes_what_came_by_its_own_sub_domain(worker: EdgeWorker) -> None:
    client = worker.connect()
    client.send(handshake_head("center.websocket.test", router_id=7000))
    assert client.ended()
    # By the domain itself, or once it is in sync, the same id is redirected.
    assert worker.ask(handshake_head(router_id=7000))[1].status == 302
    in_sync(worker)
    assert worker.ask(handshake_head("center.websocket.test", router_id=7000))[1].status == 302
    in_sync(worker, seconds=-1)
    client = worker.connect()
    client.send(handshake_head("center.websocket.test", router_id=7000))
    assert client.ended()


def test_a_redirect_that_would_go_in_circles_is_not_given(worker: EdgeWorker) -> None:
    in_sync(worker)
    client = worker.connect()
    client.send(handshake_head("center.websocket.test", router_id=7000, target="/?msha-version=1"))
    assert client.ended()


# Refusals


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (handshake_head("other.test", router_id=5), 421),
        (handshake_head(router_id="5x"), 400),
        (handshake_head(router_id=5, extra="unitType: no_such\r\n"), 400),
        (handshake_head(router_id=5, extra="routerId: 6\r\n"), 400),
    ],
)
def test_what_cannot_be_decided_is_refused_with_a_sentence(
    worker: EdgeWorker, head: bytes, status: int
) -> None:
    client, response = worker.ask(head)
    assert response.status == status
    assert client.body(response).endswith(b".\n")


def test_a_path_that_no_uri_has_is_not_found(bare_worker: EdgeWorker, back_source: BackSource) -> None:
    config = make_config({"center": [back_source.address]})
    config["domains"][0]["uris"][0]["path"] = "/chat"
    bare_worker.apply(config, make_rule())
    bare_worker.listen()
    assert bare_worker.ask(handshake_head(router_id=5, target="/chatter"))[1].status == 404
    client = bare_worker.connect()
    client.send(handshake_head(router_id=5, target="/chat/room"))
    assert back_source.take().request_line == "GET /chat/room HTTP/1.1"


def test_a_unit_without_back_sources_says_so(bare_worker: EdgeWorker) -> None:
    bare_worker.apply(make_config({}), make_rule())
    bare_worker.listen()
    assert bare_worker.ask(handshake_head(router_id=5))[1].status == 503


# Holds


def frozen(worker: EdgeWorker, back_source: BackSource, phase: str = "freeze") -> None:
    """Ids 1000 to 1999 are on their way from center to unbj; before ACTIVATE the old table holds."""
    rule = make_rule(AFTER if phase == "activate" else None, epoch=5, cutover=make_cutover(phase, MOVED))
    worker.apply(make_config({"center": [back_source.address]}), rule)


def held(worker: EdgeWorker, router_id: int = 1111, count: int = 1) -> Client:
    """A client whose handshake is being held."""
    client = worker.connect()
    client.send(handshake_head(router_id=router_id))
    worker.agent.stats(lambda said: said["held"] == count)
    return client


def test_a_held_handshake_is_redirected_when_its_id_has_moved(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    frozen(worker, back_source)
    client = held(worker)
    frozen(worker, back_source, "activate")
    worker.agent.stats(lambda said: said["held"] == 1)  # the losing unit waits for RELEASE
    worker.apply(make_config({"center": [back_source.address]}), make_rule(AFTER, epoch=7))
    response = client.answer()
    assert response.status == 302
    assert response.headers["location"] == "http://unbj.websocket.test:8102/"


def test_a_held_handshake_is_served_when_the_cutover_was_aborted(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    frozen(worker, back_source)
    client = held(worker)
    worker.apply(make_config({"center": [back_source.address]}), make_rule(epoch=6))
    back_source.take().switch()
    assert client.answer().status == 101
    worker.agent.stats(lambda said: said["held"] == 0 and said["sessions"] == 1)


def test_a_hold_ends_without_an_answer_and_without_a_reset(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    frozen(worker, back_source)
    began = time.monotonic()
    client = held(worker)
    client.send(b"more, while it waits")
    assert client.ended()
    assert 0.6 < time.monotonic() - began < 3
    worker.agent.stats(lambda said: said["held"] == 0)
    assert back_source.idle()


def test_a_hold_is_not_prolonged_by_another_snapshot(worker: EdgeWorker, back_source: BackSource) -> None:
    frozen(worker, back_source)
    began = time.monotonic()
    client = held(worker)
    client.sock.settimeout(0.2)
    while time.monotonic() - began < 3:
        frozen(worker, back_source)
        try:
            assert client.ended()
            break
        except TimeoutError:
            pass
    assert 0.6 < time.monotonic() - began < 1.6


def test_a_client_that_leaves_while_held_is_forgotten(worker: EdgeWorker, back_source: BackSource) -> None:
    frozen(worker, back_source)
    held(worker).close()
    said = worker.agent.stats(lambda said: said["held"] == 0)
    assert said["counters"]["decision_abandoned"] == 1
    assert worker.worker is not None
    assert worker.worker.shell.connections == 0


def test_ids_that_do_not_move_are_served_during_a_freeze(worker: EdgeWorker, back_source: BackSource) -> None:
    frozen(worker, back_source)
    worker.open(back_source, 2000)
    assert worker.ask(handshake_head(router_id=7000))[1].status == 302


def test_a_held_handshake_keeps_its_head_once(worker: EdgeWorker, back_source: BackSource) -> None:
    frozen(worker, back_source)
    head = handshake_head(router_id=1111, extra=f"X-Long: {'x' * 15_000}\r\n")
    tracemalloc.start()
    try:
        for _ in range(50):
            worker.connect().send(head)
        worker.agent.stats(lambda said: said["held"] == 50)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50 * 24_000


def test_many_held_handshakes_are_decided_anew(worker: EdgeWorker, back_source: BackSource) -> None:
    frozen(worker, back_source)
    clients = [worker.connect() for _ in range(250)]
    for client in clients:
        client.send(handshake_head(router_id=1111))
    worker.agent.stats(lambda said: said["held"] == 250)
    worker.apply(make_config({"center": [back_source.address]}), make_rule(AFTER, epoch=7))
    assert {client.answer().status for client in clients} == {302}


# Plain addresses


def test_status_is_200_while_serving(worker: EdgeWorker) -> None:
    response = get(worker, "/.well-known/msha/status", host="192.0.2.1")
    assert response.status == 200
    assert json.loads(response.raw) == {"status": "serving", "unit": "center", "version": 1}


def test_status_answers_health_checks_of_old_load_balancers(worker: EdgeWorker) -> None:
    client, response = worker.ask(b"HEAD /.well-known/msha/status HTTP/1.0\r\n\r\n")
    assert response.status == 200
    assert int(response.headers["content-length"]) > 0
    assert client.ended()


def test_without_a_snapshot_everything_is_503(bare_worker: EdgeWorker) -> None:
    bare_worker.listen()
    assert get(bare_worker, "/.well-known/msha/status").status == 503
    assert get(bare_worker, "/.well-known/msha/locate?host=websocket.test").status == 503
    assert get(bare_worker, "/").status == 503
    assert bare_worker.ask(handshake_head(router_id=5))[1].status == 503


def test_a_plain_get_is_told_that_this_is_a_websocket_address(worker: EdgeWorker) -> None:
    response = get(worker, "/")
    assert response.status == 426
    assert response.headers["upgrade"] == "websocket"
    assert response.headers["connection"] == "close, Upgrade"
    assert b"WebSocket" in response.raw


def test_a_plain_get_of_another_host_is_misdirected(worker: EdgeWorker) -> None:
    assert get(worker, "/", host="other.test").status == 421


def test_an_unknown_address_of_ours_is_not_found(worker: EdgeWorker) -> None:
    assert get(worker, "/.well-known/msha/nothing").status == 404


CENTER = ("center", "ws://center.websocket.test:8101/")
UNBJ = ("unbj", "ws://unbj.websocket.test:8102/")


@pytest.mark.parametrize(
    ("asked", "status", "found"),
    [
        ({"host": "websocket.test", "routerId": "7000"}, 200, (*UNBJ, 7000)),
        ({"host": "websocket.test", "routerId": "10005"}, 200, (*CENTER, 5)),
        ({"host": "UNBJ.websocket.test:80", "routerId": "5"}, 200, (*CENTER, 5)),
        ({"host": "websocket.test"}, 200, (*CENTER, None)),
        ({"host": "websocket.test", "routerId": "5&x=y"}, 400, None),
        ({"host": "websocket.test", "routerId": ""}, 400, None),
        ([("host", "other.test"), ("host", "websocket.test"), ("routerId", "5")], 200, (*CENTER, 5)),
        ([("host", "websocket.test"), ("routerId", "5"), ("routerId", "7000")], 400, None),
        ({"host": "websocket.test", "routerId": "5", "unitType": "no_such"}, 400, None),
        ({"host": "other.test", "routerId": "5"}, 404, None),
        ({"routerId": "5"}, 404, None),
    ],
)
def test_locate_tells_a_browser_where_to_connect(
    worker: EdgeWorker,
    asked: dict[str, str] | list[tuple[str, str]],
    status: int,
    found: tuple[str, str, int | None] | None,
) -> None:
    response = get(worker, f"/.well-known/msha/locate?{urlencode(asked)}", host="192.0.2.1")
    assert response.status == status
    assert response.headers["access-control-allow-origin"] == "*"
    said = json.loads(response.raw)
    if found is None:
        assert said["error"].endswith(".")
    else:
        assert (said["unit"], said["url"], said["router_id"]) == found
