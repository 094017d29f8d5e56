"""Clients that connect to a port again and again, and remember what came of it."""

import socket
import threading
import time
from collections import Counter
from typing import Self

from tests.support.websocket_wire import handshake_head


class Handshakes:
    """Handshakes with a port, one after the other in several threads, while the context is open.

    Args:
        host: a name that the edge answers for.
        router_ids: each thread's, in turn.
        pauses_s: how long each thread waits between connecting and sending its request, in turn.

    Attributes:
        statuses: how often each answer came.
        failures: how often each error came instead.
        slowest_s: the longest time from the first segment to the answer, without the pause.
    """

    def __init__(
        self, port: int, *, host: str, router_ids: list[int], pauses_s: tuple[float, ...] = (0.0,)
    ) -> None:
        self._address = ("127.0.0.1", port)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.slowest_s = 0.0
        count = max(len(router_ids), len(pauses_s))
        self._threads = [
            threading.Thread(
                target=self._repeat,
                args=(
                    handshake_head(host=host, router_id=router_ids[number % len(router_ids)]),
                    pauses_s[number % len(pauses_s)],
                ),
            )
            for number in range(count)
        ]

    @property
    def answered(self) -> int:
        """How many there were."""
        return self.statuses.total()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, head: bytes, pause_s: float) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                status = self._once(head, pause_s)
            except OSError as error:
                with self._lock:
                    self.failures[repr(error)] += 1
                continue
            with self._lock:
                self.statuses[status] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began - pause_s)

    def _once(self, head: bytes, pause_s: float) -> int:
        """The status of the answer."""
        with socket.create_connection(self._address, timeout=10) as client:
            if pause_s:
                time.sleep(pause_s)
            client.sendall(head)
            answer = b""
            while b"\r\n\r\n" not in answer:
                data = client.recv(4096)
                if not data:
                    raise OSError(f"closed after {answer[:40]!r}")
                answer += data
        return int(answer.split(b" ", 2)[1])
