"""Load balancers in front of an edge: whom it believes, and what it makes of what they say."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msha.demo.ports import free_ports
from msha.edge.entry.access_log import open_access_log
from msha.edge.port.balancers import Balancers, InvalidNetwork, networks
from tests.edge.test_behind_nginx import NGINX, PROPER, nginx
from tests.support.agents import RunningAgent
from tests.support.edge_worker import QUICK, EdgeWorker, make_config, make_rule
from tests.support.needs import need
from tests.support.snapshots import snapshot
from tests.support.websocket_wire import TIMEOUT_S, BackSource, BackSourceSession, Client, handshake_head

#: The balancers of the tests: they connect from 127.0.0.1, or have said so further away.
TRUSTED = ("127.0.0.1", "10.0.0.0/24", "2001:db8:51b::/48")
V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\r\n"
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2 = V2_SIGNATURE + b"\x21\x11\0\x0c" + bytes((192, 0, 2, 7, 10, 0, 0, 1)) + b"\xc3\x50\0\x50"
V2_LOCAL = V2_SIGNATURE + b"\x20\0\0\0"

Make = Callable[..., EdgeWorker]


@pytest.fixture
def make(back_source: BackSource, tmp_path: Path) -> Iterator[Make]:
    """Makes workers that trust balancers; their access log is ``tmp_path / "log"``."""
    workers: list[EdgeWorker] = []

    def make(
        *, trusted: tuple[str, ...] = TRUSTED, proxy_protocol: bool = False, **limits: Any
    ) -> EdgeWorker:
        balancers = Balancers(networks(trusted), proxy_protocol=proxy_protocol) if trusted else None
        log = open_access_log(str(tmp_path / "log"), "center")
        worker = EdgeWorker(limits=replace(QUICK, **limits), access_log=log, balancers=balancers).start()
        workers.append(worker)
        worker.apply(make_config({"center": [back_source.address], "unbj": ["127.0.0.1:9"]}), make_rule())
        worker.listen()
        return worker

    yield make
    for worker in workers:
        worker.stop()


def forwarded(
    worker: EdgeWorker, back_source: BackSource, extra: str, *, before: bytes = b""
) -> dict[str, str]:
    """What the back-source is told of a client whose balancer adds these fields."""
    client = worker.connect()
    client.send(before + handshake_head(router_id=1111, extra=extra))
    session = back_source.take()
    session.switch()
    assert client.answer().status == 101
    sent = session.headers
    return {name.removeprefix("x-forwarded-"): sent[name] for name in sent if name.startswith("x-forwarded-")}


def logged(directory: Path, count: int = 1) -> list[dict[str, Any]]:
    """The first handshakes of the access log."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        lines = [json.loads(line) for line in (directory / "log").read_text().splitlines()]
        found = [line for line in lines if line["event"] == "handshake"]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"only {found} were logged"
        time.sleep(0.02)


def until(fact: Callable[[], Any]) -> None:
    """The fact has become true."""
    deadline = time.monotonic() + TIMEOUT_S
    while not fact():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)


# X-Forwarded-*


def test_from_anybody_else_forwarded_fields_are_dropped(
    make: Make, back_source: BackSource, tmp_path: Path
) -> None:
    worker = make(trusted=("10.0.0.0/24",))
    extra = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.test\r\n"
    told = forwarded(worker, back_source, extra)
    assert told == {"for": "127.0.0.1", "proto": "http", "host": "websocket.test"}
    assert logged(tmp_path)[0]["peer"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("said", "chain"),
    [
        (["192.0.2.7"], "192.0.2.7, 127.0.0.1"),
        (["192.0.2.7, 10.0.0.9"], "192.0.2.7, 10.0.0.9, 127.0.0.1"),
        (["192.0.2.7", "10.0.0.9,10.0.0.8"], "192.0.2.7, 10.0.0.9, 10.0.0.8, 127.0.0.1"),
        (["6.6.6.6, 10.0.0.66, 192.0.2.7, 10.0.0.9"], "192.0.2.7, 10.0.0.9, 127.0.0.1"),
        (["192.0.2.7:50000"], "192.0.2.7, 127.0.0.1"),
        (["[2001:db8::7]:50000 , 2001:db8:51b::1"], "2001:db8::7, 2001:db8:51b::1, 127.0.0.1"),
        (["::ffff:192.0.2.7"], "192.0.2.7, 127.0.0.1"),
        (["6.6.6.6, unknown, 10.0.0.9"], "10.0.0.9, 127.0.0.1"),
        (['6.6.6.6, evil"><b>'], "127.0.0.1"),
        ([""], "127.0.0.1"),
        (["10.0.0.8, 10.0.0.9"], "10.0.0.8, 10.0.0.9, 127.0.0.1"),
        (["6.6.6.6, " + "10.0.0.9, " * 60 + "10.0.0.9"], "10.0.0.9, " * 32 + "127.0.0.1"),
    ],
)
def test_a_trusted_balancer_says_who_the_client_is_and_claims_beyond_are_dropped(
    make: Make, back_source: BackSource, tmp_path: Path, said: list[str], chain: str
) -> None:
    extra = "".join(f"X-Forwarded-For: {value}\r\n" for value in said)
    told = forwarded(make(), back_source, extra)
    assert told["for"] == chain
    entry = logged(tmp_path)[0]
    client = chain.partition(", ")[0]
    assert entry["balancer"] == "127.0.0.1"
    assert entry["peer"] == client or (client == "127.0.0.1" and entry["peer"].startswith("127.0.0.1:"))


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        ("X-Forwarded-Proto: https\r\n", "https"),
        ("X-Forwarded-Proto: WSS\r\n", "https"),
        ("X-Forwarded-Proto: http\r\n", "http"),
        ("", "http"),
        ("X-Forwarded-Proto: gopher\r\n", "http"),
        # one for each hop: the client's is the one of its own balancer
        ("X-Forwarded-For: 192.0.2.7, 10.0.0.9\r\nX-Forwarded-Proto: https, http\r\n", "https"),
        # a claim of the client's own stands further left
        ("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https, http\r\n", "http"),
    ],
)
def test_a_trusted_balancer_says_by_which_scheme_the_client_came(
    make: Make, back_source: BackSource, said: str, scheme: str
) -> None:
    assert forwarded(make(), back_source, said)["proto"] == scheme


def test_a_redirect_of_a_client_that_came_by_tls_leads_to_tls(make: Make, back_source: BackSource) -> None:
    worker = make()
    config = make_config({"center": [back_source.address], "unbj": ["127.0.0.1:9"]})
    config["domains"][0]["redirect_scheme"] = "auto"
    worker.apply(config, make_rule())
    for proto, scheme in (("https", "https"), ("http", "http")):
        head = handshake_head(router_id=9000, extra=f"X-Forwarded-Proto: {proto}\r\n")
        _, response = worker.ask(head)
        assert response.headers["location"].startswith(f"{scheme}://unbj.websocket.test")


@pytest.mark.parametrize(("said", "host"), [("a.test:8080", "a.test:8080"), ('"><b>', "websocket.test")])
def test_a_host_that_a_trusted_balancer_forwards_goes_on_but_decides_nothing(
    make: Make, back_source: BackSource, said: str, host: str
) -> None:
    assert forwarded(make(), back_source, f"X-Forwarded-Host: {said}\r\n")["host"] == host


# PROXY protocol


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_proxy_header_of_a_trusted_balancer_says_who_the_client_is(
    make: Make, back_source: BackSource, tmp_path: Path, header: bytes
) -> None:
    worker = make(proxy_protocol=True)
    told = forwarded(
        worker, back_source, "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n", before=header
    )
    # The client itself has written the fields: it is no balancer.
    assert told == {"for": "192.0.2.7", "proto": "http", "host": "websocket.test"}
    entry = logged(tmp_path)[0]
    assert (entry["peer"], entry["balancer"]) == ("192.0.2.7:50000", "127.0.0.1")


def test_behind_a_proxy_header_of_another_balancer_its_fields_are_believed(
    make: Make, back_source: BackSource
) -> None:
    header = b"PROXY TCP4 10.0.0.9 10.0.0.1 50000 80\r\n"
    told = forwarded(make(proxy_protocol=True), back_source, "X-Forwarded-For: 192.0.2.7\r\n", before=header)
    assert told["for"] == "192.0.2.7, 10.0.0.9"


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_proxy_header_and_a_head_that_come_byte_by_byte_are_read(
    make: Make, back_source: BackSource, header: bytes
) -> None:
    worker = make(proxy_protocol=True, head_s=30.0)
    client = worker.connect()
    for byte in header + handshake_head(router_id=1111):
        client.send(bytes((byte,)))
    session = back_source.take()
    session.switch()
    assert client.answer().status == 101
    assert session.headers["x-forwarded-for"] == "192.0.2.7"


def test_bytes_behind_a_proxied_handshake_are_not_lost(make: Make, back_source: BackSource) -> None:
    client = make(proxy_protocol=True).connect()
    client.send(V2 + handshake_head(router_id=1111) + b"\x81\x82\0\0\0\0hi")
    session = back_source.take()
    session.switch()
    assert client.answer().status == 101
    assert session.read_frame().payload == b"hi"


def test_a_health_check_by_proxy_protocol_is_answered(make: Make) -> None:
    client = make(proxy_protocol=True).connect()
    check = b"GET /.well-known/msha/status HTTP/1.1\r\nHost: x\r\n\r\n"
    assert client.ask(V2_LOCAL + check).status == 200


@pytest.mark.parametrize(
    ("begin", "problem"),
    [
        (handshake_head(router_id=1111), b"there is none"),
        (b"PROXY TCP4 nonsense\r\n", b"its PROXY line is malformed"),
        (b"\x16\x03\x01", b"there is none"),
    ],
)
def test_a_trusted_balancer_that_sends_no_proxy_header_is_refused_without_a_reset(
    make: Make, begin: bytes, problem: bytes
) -> None:
    worker = make(proxy_protocol=True)
    client, response = worker.ask(begin)
    assert response.status == 400
    assert b"must begin each connection with a PROXY header: " + problem in client.body(response)
    worker.agent.stats(lambda said: said["counters"].get("invalid_proxy_protocol") == 1)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/24",)], ids=["nobody trusted", "others trusted"])
def test_from_anybody_else_a_proxy_header_is_an_invalid_request(
    make: Make, trusted: tuple[str, ...], header: bytes
) -> None:
    worker = make(trusted=trusted, proxy_protocol=bool(trusted))
    client, response = worker.ask(header + handshake_head(router_id=1111))
    assert response.status == 400
    client.close()


def test_a_proxy_header_that_never_ends_has_the_time_of_a_head(make: Make) -> None:
    client, response = make(proxy_protocol=True).ask(V2[:-1])
    assert response.status == 408
    client.close()


def test_a_balancer_that_goes_away_within_its_proxy_header_is_forgotten(make: Make) -> None:
    worker = make(proxy_protocol=True, head_s=30.0)
    client = worker.connect()
    client.send(V2[:-1])
    until(lambda: worker.worker and worker.worker.shell.connections == 1)
    client.half_close()
    until(lambda: worker.worker and worker.worker.shell.connections == 0)


# Limits


@pytest.mark.parametrize("way", ["field", "header"])
def test_the_limits_of_an_address_are_the_client_s_and_not_the_balancer_s(
    make: Make, back_source: BackSource, way: str
) -> None:
    worker = make(proxy_protocol=way == "header", connections_per_address=1)

    def connect(client: str) -> int:
        extra = f"X-Forwarded-For: {client}\r\n" if way == "field" else ""
        before = f"PROXY TCP4 {client} 10.0.0.1 50000 80\r\n".encode() if way == "header" else b""
        wire = worker.connect()
        wire.send(before + handshake_head(router_id=1111, extra=extra))
        if client in served:
            return wire.answer().status
        session = back_source.take()
        session.switch()
        served[client] = session
        return wire.answer().status

    served: dict[str, BackSourceSession] = {}
    assert [connect(client) for client in ("192.0.2.7", "192.0.2.8", "192.0.2.7")] == [101, 101, 429]
    served["192.0.2.7"].close()
    assert worker.worker is not None
    peers = worker.worker.shell.peers
    until(lambda: peers.connections("192.0.2.7") == 0)
    del served["192.0.2.7"]
    assert connect("192.0.2.7") == 101
    assert peers.connections("127.0.0.1") == 0


def test_the_rate_of_an_address_is_the_client_s(make: Make) -> None:
    worker = make(handshakes_per_address_per_s=1)

    def ask(client: str) -> int:
        head = handshake_head(router_id=9000, extra=f"X-Forwarded-For: {client}\r\n")
        with worker.connect() as wire:
            return wire.ask(head).status

    assert [ask(client) for client in ("192.0.2.7", "192.0.2.8", "192.0.2.9")] == [302, 302, 302]
    assert 429 in [ask("192.0.2.7") for _ in range(3)]


# A balancer that downgrades


def test_who_downgrades_is_counted_by_the_balancer_s_address(make: Make) -> None:
    worker = make()
    head = handshake_head(router_id=5, extra="X-Forwarded-For: 192.0.2.7\r\n")
    for _ in range(2):
        client, response = worker.ask(head.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert response.status == 400
        client.close()
    worker.agent.stats(lambda said: said["counters"].get("downgraded_by_127.0.0.1") == 2)


# A real one


HAPROXY = """\
global
  stats socket {directory}/stats
defaults
  mode tcp
  timeout connect 5s
  timeout client 10s
  timeout server 10s
listen front
  bind 127.0.0.1:{port}
  server edge 127.0.0.1:{edge} {options}
"""


@contextmanager
def haproxy(directory: Path, edge: int, options: str) -> Iterator[int]:
    """The port of an HAProxy that passes TCP connections on so."""
    program = need("haproxy")
    (port,) = free_ports(1)
    configuration = directory / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(directory=directory, port=port, edge=edge, options=options))
    with subprocess.Popen([program, "-db", "-q", "-f", str(configuration)]) as process:
        try:
            yield port
        finally:
            process.terminate()


def connected(port: int, source: str) -> Client:
    """A client of this address, as soon as somebody listens."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return Client.connect(port, source=source)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the balancer does not listen"
            time.sleep(0.02)


@pytest.mark.parametrize(
    "options",
    [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl",
        "send-proxy-v2 check check-send-proxy inter 100ms",
    ],
)
def test_behind_a_real_haproxy_the_client_is_known_by_its_proxy_header(
    make: Make, back_source: BackSource, tmp_path: Path, options: str
) -> None:
    worker = make(proxy_protocol=True)
    with haproxy(tmp_path, worker.port, options) as port, connected(port, "127.0.0.77") as client:
        client.send(handshake_head(router_id=1111))
        session = back_source.take()
        session.switch()
        assert client.answer().status == 101
        client.send_frame(b"hello")
        assert session.read_frame().payload == b"hello"
    assert session.headers["x-forwarded-for"] == "127.0.0.77"
    entry = logged(tmp_path)[0]
    assert entry["peer"].startswith("127.0.0.77:")
    assert entry["balancer"] == "127.0.0.1"


def test_behind_a_real_nginx_the_client_is_known_by_what_nginx_adds(
    make: Make, back_source: BackSource, tmp_path: Path
) -> None:
    worker = make(trusted=(NGINX,))
    added = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
    proxying = f"{PROPER} {added} proxy_set_header X-Forwarded-Proto https;"
    with nginx(tmp_path, worker.port, proxying) as port, connected(port, "127.0.0.77") as client:
        client.send(handshake_head(router_id=1111, extra="X-Forwarded-For: 6.6.6.6\r\n"))
        session = back_source.take()
        session.switch()
        assert client.answer().status == 101
    assert session.headers["x-forwarded-for"] == f"127.0.0.77, {NGINX}"
    assert session.headers["x-forwarded-proto"] == "https"
    entry = logged(tmp_path)[0]
    assert (entry["peer"], entry["balancer"]) == ("127.0.0.77", NGINX)


# The settings


@pytest.mark.parametrize("text", ["10.0.0.1/24", "balancer.example", "", "10.0.0.0/33", "10.0.0"])
def test_a_balancer_s_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidNetwork, match="is not the address of load balancers"):
        networks([text])


BY_OPTIONS = (("--trusted-slb", "10.0.0.0/24", "--trusted-slb", "127.0.0.1", "--proxy-protocol"), {})
BY_ENVIRONMENT = ((), {"MSHA_EDGE_TRUSTED_SLBS": "10.0.0.0/24, 127.0.0.1", "MSHA_EDGE_PROXY_PROTOCOL": "on"})


@pytest.mark.parametrize(
    ("words", "environment"), [BY_OPTIONS, BY_ENVIRONMENT], ids=["options", "environment"]
)
async def test_an_edge_trusts_the_balancers_that_it_is_told_of(
    tmp_path: Path, words: tuple[str, ...], environment: dict[str, str]
) -> None:
    file = tmp_path / "snapshot.json"
    file.write_bytes(snapshot(1).body)
    options = ["--bind", "127.0.0.1:0", "--snapshot", str(file), "--unit", "center", "--drain-s", "0"]
    edge = RunningAgent(tmp_path, "run", *options, "--workers", "1", *words, **environment)
    await edge.start()
    try:
        await edge.ready()
        check = b"GET /.well-known/msha/status HTTP/1.1\r\nHost: x\r\n\r\n"
        for begin, source, status in (
            (V1, "127.0.0.1", 200),
            (b"", "127.0.0.1", 400),
            (b"", "127.0.0.2", 200),
        ):
            with Client.connect(edge.port, source=source) as client:
                assert client.ask(begin + check).status == status
    finally:
        await edge.kill()


def test_an_ipv4_balancer_is_known_on_an_ipv6_listener() -> None:
    balancers = Balancers(networks(["10.0.0.0/24"]))
    assert "::ffff:10.0.0.9" in balancers
    assert "::ffff:10.0.1.9" not in balancers
    assert "fe80::1%eth0" not in balancers
