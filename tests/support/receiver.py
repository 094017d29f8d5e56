"""A real HTTP server that is called by webhooks, and misbehaves in the ways a test wants."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from units import webhooks

DEADLINE_S = 15.0

#: Answers one request; gets the handler after the body was read.
Behaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True, slots=True)
class Received:
    """One call as it arrived."""

    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def payload(self) -> Any:
        return json.loads(self.body)

    @property
    def delivery(self) -> str:
        return self.headers[webhooks.DELIVERY]

    def signed_with(self, secret: str) -> bool:
        """Whether the receiver would take it for a call of somebody who knows the secret."""
        expected = webhooks.sign(secret, int(self.headers[webhooks.TIMESTAMP]), self.body)
        return self.headers[webhooks.SIGNATURE] == expected


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """A plain answer."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """The connection is closed without a word."""
    handler.close_connection = True


def drip(piece: bytes, every_s: float = 0.05, for_s: float = 10.0) -> Behaviour:
    """An answer that never ends, one piece at a time, so that no single read is late."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        end = time.monotonic() + for_s
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while time.monotonic() < end:
                handler.wfile.write(piece)
                handler.wfile.flush()
                time.sleep(every_s)
        except OSError:
            pass  # the caller has had enough

    return behave


class Receiver:
    """What was called.

    Attributes:
        behaviours: used up one call after the other; then `lasting` answers.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.behaviours: list[Behaviour] = []
        self.lasting: Behaviour = answer(204)
        self.received: list[Received] = []
        self.changed = threading.Condition()

    def take(self, received: Received) -> Behaviour:
        with self.changed:
            self.received.append(received)
            self.changed.notify_all()
            return self.behaviours.pop(0) if self.behaviours else self.lasting

    def wait_for(self, count: int, within_s: float = DEADLINE_S) -> list[Received]:
        """The calls received, once there are so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.received) >= count, within_s), self.received
            return list(self.received)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            receiver.take(Received(dict(self.headers), body, time.monotonic()))(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_address[1]}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE_S)
