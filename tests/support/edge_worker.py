"""A worker of an edge, driven by the test as its agent would."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from msha.edge.entry.access_log import AccessLog, NoAccessLog
from msha.edge.limits import Limits
from msha.edge.port.balancers import Balancers
from msha.edge.port.certificates import Certificates
from msha.edge.worker.worker import TlsBind, Worker
from msha.steering.snapshot import Published, build
from tests.support.websocket_wire import (
    TIMEOUT_S,
    BackSource,
    BackSourceSession,
    Client,
    Response,
    handshake_head,
)

NAMESPACE_ID = "6f1c1a52-3f5d-4a55-9a61-0f5f3f1f0a01"

#: Short enough for tests, long enough for a busy machine.
QUICK = Limits(head_s=0.6, connect_s=0.6, linger_s=0.5, close_s=0.6, end_s=0.6, hold_s=0.8)


def make_rule(
    ranges: Mapping[str, Sequence[str]] | None = None,
    *,
    epoch: int = 1,
    cutover: Mapping[str, Any] | None = None,
    sources: Sequence[Mapping[str, Any]] = (
        {"header": "routerId"},
        {"query": "routerId"},
        {"cookie": "routerId"},
    ),
    untagged: str = "local",
) -> dict[str, Any]:
    """A rule part; the walk-through's unless told otherwise."""
    return {
        "epoch": epoch,
        "key_space": {"min": 0, "max": 9999},
        "default_unit_type": "unit_type",
        "unit_types": [
            {
                "name": "unit_type",
                "sources": list(sources),
                "transform": [{"modulo": 10000}],
                "untagged": untagged,
                "ranges": dict(ranges or {"center": ["0~5997"], "unbj": ["5998~9999"]}),
                "exact": {},
            }
        ],
        "cutover": cutover,
    }


def make_cutover(phase: str, moved: Sequence[Sequence[Any]], *, both: bool = False) -> dict[str, Any]:
    """The cutover of a rule part."""
    return {
        "id": "c1",
        "unit_type": "unit_type",
        "phase": phase,
        "both": both,
        "moved": [list(row) for row in moved],
    }


def make_config(servers: Mapping[str, Sequence[str]], *, balance: str = "consistent_hash") -> dict[str, Any]:
    """A config part with one domain, ``websocket.test``, and its back-sources per unit."""
    return {
        "units": [
            {"code": "center", "name": "Hangzhou", "center": True},
            {"code": "unbj", "name": "Beijing", "center": False},
        ],
        "clusters": [
            {"name": "ws-hz", "unit": "center", "protocol": "websocket", "slbs": []},
            {"name": "ws-bj", "unit": "unbj", "protocol": "websocket", "slbs": []},
        ],
        "domains": [
            {
                "name": "websocket.test",
                "protocol": "websocket",
                "dns": "none",
                "multi_unit": True,
                "correction": "redirect",
                "redirect_scheme": "http",
                "ports": {"center": 8101, "unbj": 8102},
                "clusters": {"center": "ws-hz", "unbj": "ws-bj"},
                "uris": [
                    {
                        "path": "/",
                        "balance": balance,
                        "back_sources": {unit: list(names) for unit, names in servers.items()},
                    }
                ],
            }
        ],
        "limits": {},
    }


def make_snapshot(version: int, config: Mapping[str, Any], rule: Mapping[str, Any]) -> Published:
    """A snapshot that workers accept."""
    return build(NAMESPACE_ID, "demo", version, dict(config), dict(rule))


class Agent:
    """The agent's end of the socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT_S)
        self.sock = sock
        self._buffer = b""
        self.said: list[dict[str, Any]] = []

    def say(self, do: str, **fields: Any) -> None:
        """An order to the worker."""
        self.sock.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")

    def hear(self, what: str, fact: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next word of that kind for which the fact holds, before the deadline."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            word = self._next(deadline)
            self.said.append(word)
            if word["is"] == what and fact(word):
                return word

    def hears_nothing_of(self, what: str, seconds: float) -> bool:
        """Whether no such word comes for so long."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                word = self._next(deadline)
                self.said.append(word)
                if word["is"] == what:
                    return False
        except TimeoutError:
            return True

    def stats(self, fact: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next figures for which the fact holds."""
        return self.hear("stats", fact)

    def apply(self, published: Published) -> dict[str, Any]:
        """Every worker obeys it now."""
        self.say("apply", body=published.body.decode(), version=published.version, digest=published.digest)
        return self.hear("applied", lambda word: word["version"] == published.version)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the worker said only {self.said}")
            self.sock.settimeout(left)
            data = self.sock.recv(1 << 18)
            if not data:
                raise EOFError(f"the worker is gone after {self.said}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        word: dict[str, Any] = json.loads(line)
        return word


class EdgeWorker:
    """A worker in a thread of its own, and the ends it stands between."""

    def __init__(
        self,
        unit: str = "center",
        *,
        limits: Limits = QUICK,
        access_log: AccessLog | None = None,
        balancers: Balancers | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.unit = unit
        ours, theirs = socket.socketpair()
        self.agent = Agent(ours)
        self.port = self.tls_port = 0
        self.worker: Worker | None = None
        self._version = 0
        self._clients: list[Client] = []
        self._theirs = theirs
        self._limits = limits
        self._balancers = balancers
        self._certificates = certificates
        self._access_log = access_log or NoAccessLog()
        self._thread = threading.Thread(target=self._serve, name="edge-worker")

    def start(self) -> Self:
        """It runs, and waits for a snapshot."""
        self._thread.start()
        self.agent.hear("started")
        return self

    def stop(self) -> None:
        """It has ended, and so have the clients that it had."""
        for client in self._clients:
            client.close()
        self.agent.sock.close()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the worker did not end when its agent was gone"

    def apply(self, config: Mapping[str, Any], rule: Mapping[str, Any]) -> Published:
        """The next version is in force."""
        self._version += 1
        published = make_snapshot(self._version, config, rule)
        self.agent.apply(published)
        return published

    def listen(self) -> int:
        """The port it listens on now."""
        self.agent.say("listen")
        word = self.agent.hear("listening")
        self.port, self.tls_port = word["port"], word["tls_port"]
        return self.port

    def connect(self, *, receive_buffer: int | None = None, source: str = "") -> Client:
        """A client, with this address if one is given, that has sent nothing yet."""
        client = Client.connect(self.port, receive_buffer=receive_buffer, source=source)
        self._clients.append(client)
        return client

    def ask(self, head: bytes) -> tuple[Client, Response]:
        """A client that has sent a head and got the head of an answer."""
        client = self.connect()
        return client, client.ask(head)

    def open(
        self, back_source: BackSource, router_id: int | None = 1111, target: str = "/", **options: Any
    ) -> tuple[Client, BackSourceSession]:
        """A session and its two ends."""
        client = self.connect(**options)
        client.send(handshake_head(router_id=router_id, target=target))
        session = back_source.take()
        session.switch()
        assert client.answer().status == 101
        return client, session

    def _serve(self) -> None:
        self.worker = Worker(
            self._theirs,
            unit=self.unit,
            host="127.0.0.1",
            port=0,
            access_log=self._access_log,
            limits=self._limits,
            balancers=self._balancers,
            tls=TlsBind("127.0.0.1", 0, self._certificates) if self._certificates else None,
        )
        self.worker.run()


@contextmanager
def worker_process(
    *arguments: str,
    unit: str = "center",
    port: int = 0,
    fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], Agent]]:
    """A worker as its agent starts it: a process of its own."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "msha.edge.worker", "--bind", f"127.0.0.1:{port}", "--unit", unit]
    process = subprocess.Popen(
        [*command, "--ipc-fd", str(theirs.fileno()), *arguments],
        pass_fds=(theirs.fileno(), *fds),
        stdout=subprocess.PIPE,
        process_group=0,
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(sys.path),
            **(environment or {}),
        },
    )
    theirs.close()
    agent = Agent(ours)
    try:
        yield process, agent
    finally:
        ours.close()
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=TIMEOUT_S)
