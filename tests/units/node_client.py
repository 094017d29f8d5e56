"""A node's end of the control stream, spoken by a test: real frames to a real console."""

import json
import time
from types import TracebackType
from typing import Any, Self, TypeVar

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from msha.steering import wire
from tests.units.builders import a_hello, a_status

T = TypeVar("T")


class NodeClient:
    """Speaks what the test says and keeps what comes, in order."""

    def __init__(self, url: str, token: str) -> None:
        self._dialling = connect(
            url,
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            proxy=None,
            open_timeout=10,
            close_timeout=2,
            max_size=wire.MESSAGE_LIMIT_BYTES,
        )
        self._seq = 0
        self.received: list[wire.Message] = []

    def __enter__(self) -> Self:
        self._socket = self._dialling.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dialling.__exit__(kind, error, trace)

    def say(self, message: wire.Message) -> None:
        self._socket.send(wire.encode(message))

    def say_text(self, text: str | bytes) -> None:
        self._socket.send(text)

    def hello(self, **fields: Any) -> wire.Welcome:
        self.say(a_hello(**fields))
        return self.expect(wire.Welcome)

    def status(self, enrolment: int = 0, version: int = 0, digest: str = "", **fields: Any) -> wire.Confirm:
        """The console's answer to a status."""
        self._seq += 1
        self.say(a_status(enrolment, version, digest, seq=self._seq, **fields))
        while True:
            confirm = self.expect(wire.Confirm)
            if confirm.seq == self._seq:
                return confirm

    def ack(self, delivery: wire.Deliver) -> None:
        epoch = json.loads(delivery.body)["rule"]["epoch"]
        self.say(wire.Ack(delivery.enrolment, delivery.version, delivery.digest, epoch))

    def expect(self, kind: type[T], timeout_s: float = 5.0) -> T:
        """The next message of this kind; those before it are kept in `received`."""
        deadline = time.monotonic() + timeout_s
        while True:
            text = self._socket.recv(max(0.01, deadline - time.monotonic()))
            assert isinstance(text, str)
            message = wire.decode(text)
            self.received.append(message)
            if isinstance(message, kind):
                return message

    def nothing_of(self, kind: type[Any], for_s: float) -> None:
        """No message of this kind comes for so long."""
        try:
            message = self.expect(kind, for_s)
        except TimeoutError:
            return
        raise AssertionError(f"{message} came")

    def close_code(self, timeout_s: float = 5.0) -> int | None:
        """The code with which the console closes; what comes before is kept."""
        try:
            while True:
                text = self._socket.recv(timeout_s)
                assert isinstance(text, str)
                self.received.append(wire.decode(text))
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None
