"""The client printed in the product's document runs against us unchanged and prints what the document
shows."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from msha.demo import plan
from msha.demo.fleet import Fleet
from msha.demo.plan import Address
from msha.demo.ports import free_ports
from msha.demo.processes import Child, stop
from tests.support.needs import NODE_MODULES, need

REFERENCE = Path(__file__).parent / "reference"
DOMAIN = "websocket.msha.tech"
HANGZHOU, BEIJING = "127.0.0.11", "127.0.0.12"
NAMES = {DOMAIN: BEIJING, f"center.{DOMAIN}": HANGZHOU, f"unbj.{DOMAIN}": BEIJING}
"""The domain happens to resolve to Beijing, as in the document."""

REDIRECT = f"!!! redirecting... from  http://{DOMAIN}/  to http://center.{DOMAIN}/"


@pytest.fixture(scope="module")
def document_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The units of the document: both edges on port 80, each on an address of its own."""
    need("root")
    console, *sources = (Address("127.0.0.1", port) for port in free_ports(5))
    units = plan.hangzhou_and_beijing(
        (Address(HANGZHOU, 80),), (Address(BEIJING, 80),), tuple(sources[:2]), tuple(sources[2:])
    )
    directory = tmp_path_factory.mktemp("document")
    with ExitStack() as stack:
        fleet = Fleet(plan.Plan(directory, console, units, domain=DOMAIN, clients=0, every_s=0.3))
        stack.callback(fleet.stop_all)
        fleet.start_all()
        yield fleet


class Client:
    """The document's client with one routerId, as a Node process."""

    def __init__(self, router_id: int, directory: Path) -> None:
        argv = [
            need("node"),
            "-r",
            str(REFERENCE / "preload.js"),
            str(REFERENCE / "client.js"),
            str(router_id),
        ]
        environment = {
            "PATH": os.environ["PATH"],
            "NODE_PATH": str(NODE_MODULES),
            "MSHA_NAMES": json.dumps(NAMES),
        }
        self.router_id = router_id
        self.child = Child(
            f"client-{router_id}",
            argv,
            log=directory / f"client-{router_id}.log",
            env=environment,
            cwd=REFERENCE,
        )

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.child.text().splitlines()]

    def count(self, line: str) -> int:
        return self.lines().count(line)

    def story(self) -> list[str]:
        """What happened to it: all lines but the messages, and of those the welcomes."""
        return [line for line in self.lines() if not line.startswith("msg:") or "Welcome" in line]

    def numbers_from(self, city: str) -> int:
        return sum(bool(re.fullmatch(rf"msg: 0\.\d+(e-\d+)?:{city}", line)) for line in self.lines())

    def wait_for(self, count: int, line: str, timeout_s: float = 20.0) -> None:
        def seen(child: Child) -> bool:
            return self.count(line) >= count

        self.child.wait_until(seen, timeout_s)


@pytest.fixture
def clients(document_fleet: Fleet, tmp_path: Path) -> Iterator[dict[int, Client]]:
    need("ws")
    started = {router_id: Client(router_id, tmp_path) for router_id in (1111, 6249, 8330)}
    try:
        for client in started.values():
            client.child.start()
        yield started
    finally:
        stop([client.child for client in started.values()])


@pytest.mark.slow
def test_the_documents_client_prints_redirect_disconnect_and_reconnect(
    document_fleet: Fleet, clients: dict[int, Client]
) -> None:
    for client in clients.values():
        client.wait_for(1, f"connected:{client.router_id}")
    clients[1111].wait_for(1, "msg: Welcome to the server!hangzhou")
    clients[6249].wait_for(1, "msg: Welcome to the server!beijing")
    clients[8330].wait_for(1, "msg: Welcome to the server!beijing")
    assert clients[1111].story() == [REDIRECT, "connected:1111", "msg: Welcome to the server!hangzhou"]
    assert clients[6249].story() == ["connected:6249", "msg: Welcome to the server!beijing"]
    assert clients[8330].story() == ["connected:8330", "msg: Welcome to the server!beijing"]

    ranges = "center=0~6380,unbj=6381~9999"
    cutover = document_fleet.mshactl("cutover", "start", "-n", "demo", "--ranges", ranges, "--yes", "--wait")
    assert cutover.returncode == 0, cutover.stdout + cutover.stderr

    clients[6249].wait_for(1, "msg: Welcome to the server!hangzhou")
    heard = {router_id: client.numbers_from(city) for router_id, client, city in listeners(clients)}
    # Long enough for a second, wrong reconnect: the client would be back 1500 ms after a reset connection.
    time.sleep(2.5)
    assert clients[6249].story() == [
        "connected:6249",
        "msg: Welcome to the server!beijing",
        "disconnected",
        "!!! reconnecting in ...1500 ms",
        REDIRECT,
        "connected:6249",
        "msg: Welcome to the server!hangzhou",
    ]
    assert clients[1111].story() == [REDIRECT, "connected:1111", "msg: Welcome to the server!hangzhou"]
    assert clients[8330].story() == ["connected:8330", "msg: Welcome to the server!beijing"]
    for router_id, client, city in listeners(clients):
        assert client.numbers_from(city) > heard[router_id], f"{router_id} hears nothing any more"


def listeners(clients: dict[int, Client]) -> list[tuple[int, Client, str]]:
    """Every client with the city that serves it after the cutover."""
    cities = {1111: "hangzhou", 6249: "hangzhou", 8330: "beijing"}
    return [(router_id, client, cities[router_id]) for router_id, client in clients.items()]
