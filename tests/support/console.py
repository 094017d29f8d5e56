"""A console for tests of the edge: a real WebSocket server that says what the test wants.

By itself it enrols, delivers and confirms as a console does; each of these can be withheld or replaced.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from msha.steering.snapshot import Published
from msha.steering.wire import (
    Confirm,
    Deliver,
    FromConsole,
    FromNode,
    Hello,
    Left,
    Message,
    Refused,
    Revoked,
    Status,
    Welcome,
    decode,
    encode,
)
from tests.steering.builders import NAMESPACE_ID

TOKEN = "msha_node_" + "t" * 43
DEADLINE_S = 40.0

M = TypeVar("M", bound=Message)


class Console:
    """What a node dials in a test.

    Attributes:
        newest: what is published; None delivers nothing.
        enrolment: the present one of the node; None while it is not enrolled.
        delivers, confirms: switched off, the console withholds these.
        welcomes: switched off, the console takes the connection and says nothing.
        refusal: code and sentence with which every node is turned away.
        said: everything the node said, over all connections, in order.
    """

    def __init__(self, unit: str = "center") -> None:
        self.unit = unit
        self.node = "edge-1"
        self.namespace_id = NAMESPACE_ID
        self.newest: Published | None = None
        self.enrolment: int | None = None
        self.enrolments = 0
        self.delivers = True
        self.confirms = True
        self.welcomes = True
        self.refusal: tuple[int, str] | None = None
        self.said: list[FromNode] = []
        self.dials = 0
        self.port = 0
        self._read = 0
        self._heard = asyncio.Condition()
        self._connections: set[ServerConnection] = set()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def connected(self) -> int:
        """How many conversations are going on."""
        return len(self._connections)

    async def open(self) -> None:
        """The console is there, on the port it had before if it was there before."""
        self._server = await serve(self._talk, "127.0.0.1", self.port, ping_interval=None, close_timeout=0.2)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """The console is gone, and so are its connections."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def publish(self, published: Published) -> None:
        """The snapshot is the newest one, and a node that is connected gets it."""
        self.newest = published
        if self.delivers and self.enrolment is not None:
            self.deliver(published)

    def deliver(self, published: Published, *, enrolment: int | None = None, digest: str = "") -> None:
        """The snapshot goes out, fitting or not."""
        number = enrolment if enrolment is not None else self.enrolment or 0
        body = published.body.decode()
        self.say(Deliver(number, published.version, digest or published.digest, body))

    def say(self, message: FromConsole) -> None:
        """The message goes out on the present connection."""
        for connection in self._connections:
            connection.protocol.send_text(encode(message).encode())
            connection.send_data()

    async def hang_up(self) -> None:
        """The present connections are cut without a word."""
        for connection in list(self._connections):
            connection.transport.abort()

    async def expect(
        self, kind: type[M], fits: Callable[[M], bool] = lambda _: True, *, within_s: float = DEADLINE_S
    ) -> M:
        """The next message of that kind that fits; what came before it is passed over."""
        async with asyncio.timeout(within_s), self._heard:
            while True:
                while self._read < len(self.said):
                    message = self.said[self._read]
                    self._read += 1
                    if isinstance(message, kind) and fits(message):
                        return message
                await self._heard.wait()

    def count(self, kind: type[Message]) -> int:
        """How many messages of that kind have come."""
        return sum(isinstance(message, kind) for message in self.said)

    async def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.dials += 1
        if connection.request.headers.get("Authorization") != f"Bearer {TOKEN}":
            await connection.close(4401, "unknown token")
            return
        self._connections.add(connection)
        try:
            async for frame in connection:
                assert isinstance(frame, str)
                message = decode(frame)
                await self._answer(connection, message)
                async with self._heard:
                    self.said.append(message)  # type: ignore[arg-type]
                    self._heard.notify_all()
        except ConnectionClosed:
            pass
        finally:
            self._connections.discard(connection)

    async def _answer(self, connection: ServerConnection, message: Message) -> None:
        match message:
            case Hello():
                await self._greet(connection, message)
            case Status():
                version, digest = (self.newest.version, self.newest.digest) if self.newest else (0, "")
                if self.confirms:
                    known = self.enrolment is not None
                    confirm = Confirm(message.seq, version if known else 0, digest if known else "")
                    await connection.send(encode(confirm))
                if self.enrolment is None and not message.draining:
                    self._enrol()
            case Left() if message.enrolment == self.enrolment:
                self.enrolment = None
            case _:
                pass

    async def _greet(self, connection: ServerConnection, hello: Hello) -> None:
        if self.refusal is not None:
            code, sentence = self.refusal
            word = Revoked(sentence) if code == 4403 else Refused(sentence)
            await connection.send(encode(word))
            await connection.close(code)
            return
        if not self.welcomes:
            return
        if hello.left is not None and self.enrolment is not None and hello.left >= self.enrolment:
            self.enrolment = None
        welcome = Welcome(self.node, self.unit, "demo", self.namespace_id, self.enrolment)
        await connection.send(encode(welcome))
        newest = self.newest
        if self.delivers and self.enrolment is not None and newest and hello.version < newest.version:
            await connection.send(
                encode(Deliver(self.enrolment, newest.version, newest.digest, newest.body.decode()))
            )

    def _enrol(self) -> None:
        if self.delivers and self.newest is not None:
            self.enrolments += 1
            self.enrolment = self.enrolments
            self.deliver(self.newest)


@asynccontextmanager
async def console(unit: str = "center") -> AsyncIterator[Console]:
    """A console that is open."""
    it = Console(unit)
    await it.open()
    try:
        yield it
    finally:
        await it.close()


def token_file(directory: Path, text: str = TOKEN) -> Path:
    """A file with the token that the console knows."""
    path = directory / "token"
    path.write_text(f"{text}\n")
    return path
