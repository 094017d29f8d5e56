"""The node's end of the control stream: one WebSocket to the console, dialled again whenever it is lost.

Everything on it is level-triggered: what was lost with a connection is said again on the next one, so sending
while there is no connection does nothing.
"""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from msha.steering.errors import InvalidMessage, Terminal, Transient
from msha.steering.wire import (
    CLOSE_BAD_TOKEN,
    CLOSE_OTHER_INSTANCE,
    CLOSE_PROTOCOL,
    CLOSE_REVOKED,
    IN_SYNC_S,
    MESSAGE_LIMIT_BYTES,
    PROTOCOL,
    STATUS_PERIOD_S,
    Confirm,
    Deliver,
    FromNode,
    Hello,
    Message,
    ProbeRequest,
    Refused,
    Revoked,
    Status,
    Welcome,
    decode,
    encode,
)

#: Dialling, the handshake and the wait for ``welcome`` each take at most this long.
DIAL_TIMEOUT_S = 3.0
SEND_TIMEOUT_S = 5.0
#: The console answers every status, so a connection that says nothing for so long is dead.
SILENCE_LIMIT_S = 10.0
CLOSE_TIMEOUT_S = 1.0

#: A conversation that lasted so long was a good one: the next dial is quick again.
STABLE_AFTER_S = 5.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0

#: The same reason is logged again only after so long.
COMPLAIN_EVERY_S = 60.0

#: Messages that may wait for the socket; more than a connection that works ever has.
OUTBOX_LIMIT = 256

#: A status that follows a change waits so long for further changes.
STATUS_GATHER_S = 0.02

_FINAL = {
    CLOSE_BAD_TOKEN: "The console does not know this node's token.",
    CLOSE_OTHER_INSTANCE: "The console knows this node with another state directory.",
    CLOSE_PROTOCOL: "The console speaks another generation of the control protocol.",
}

log = structlog.get_logger("msha.edge.control")


class InvalidControl(Terminal):
    """The control URL or the token file is not usable."""


class Turned(Terminal):
    """The console turned the node away for good; dialling again changes nothing until somebody acts."""


class Unreachable(Transient):
    """There was no conversation with the console this time.

    Attributes:
        answered: the console was there, and said why not.
    """

    def __init__(self, sentence: str, *, answered: bool = False) -> None:
        super().__init__(sentence)
        self.answered = answered


def control_url(text: str) -> str:
    """The URL of the control stream for what the operator wrote: ``console:8000`` is enough.

    Raises:
        InvalidControl: not a URL of http, https, ws or wss.
    """
    parts = urlsplit(text if "://" in text else f"ws://{text}")
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if scheme is None or not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise InvalidControl(f"{text!r} is not the address of a console such as ws://console.example:8000.")
    path = parts.path if parts.path.strip("/") else "/control/"
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def read_token(path: Path) -> str:
    """The token in the file, read anew for every dial so that it can be replaced under a running node.

    Raises:
        InvalidControl: the file is unreadable, empty, or holds more than one word.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InvalidControl(f"The token file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidControl(f"The token file {path} does not hold a token.") from error
    if not token or len(token.split()) != 1 or len(token) > 512:
        raise InvalidControl(f"The token file {path} must hold one token and nothing else.")
    return token


def delays() -> Iterator[float]:
    """How long to wait before each next dial: quick at first, never above two seconds, never in step."""
    delay = FIRST_DELAY_S
    while True:
        yield delay * random.uniform(0.5, 1.0)
        delay = min(delay * 1.7, LONGEST_DELAY_S)


class Synchrony:
    """Until when a node is in sync (PROTOCOL 1), for one connection.

    A confirmation counts from the moment its status was sent, because the console may have read the newest
    version at any time since then.
    """

    REMEMBERED = 64

    def __init__(self) -> None:
        self.until = 0.0
        self._sent: OrderedDict[int, float] = OrderedDict()

    def sent(self, seq: int, at: float) -> None:
        """A status went out; an answer to it counts from ``at`` (monotonic seconds)."""
        self._sent[seq] = at
        while len(self._sent) > self.REMEMBERED:
            self._sent.popitem(last=False)

    def confirmed(self, confirm: Confirm, version: int, digest: str) -> bool:
        """Whether the answer proves that the applied ``version`` is current; ``until`` is extended then."""
        at = self._sent.pop(confirm.seq, None)
        if at is None or (confirm.version, confirm.digest) != (version, digest):
            return False
        self.until = max(self.until, at + IN_SYNC_S)
        return True

    def clear(self) -> None:
        """Not in sync; answers to statuses that were sent before do not count any more."""
        self.until = 0.0
        self._sent.clear()


class Node(Protocol):
    """What the control stream needs of the agent."""

    def hello(self) -> Hello:
        """The first message of a connection."""

    def status(self, seq: int, in_sync: bool) -> Status:
        """What the node has and does now."""

    def applied(self) -> tuple[int, str]:
        """Version and digest that every worker obeys; version 0 for none."""

    def welcomed(self, welcome: Welcome) -> None:
        """The console knows the node; say again what it should know.

        Raises:
            Turned: this state directory belongs to another node.
        """

    def delivered(self, deliver: Deliver) -> None:
        """A snapshot came."""

    def confirmed(self, confirm: Confirm) -> None:
        """The console told its newest version."""

    def synced(self, until: float) -> None:
        """The node is in sync until then (monotonic seconds), or not any more (0)."""

    def revoked(self, reason: str) -> None:
        """The node was declared dead."""

    def turned_away(self, sentence: str) -> None:
        """The console refuses this node; it will be dialled again."""

    def unreachable(self, sentence: str, *, answered: bool) -> None:
        """A dial failed or a connection was lost; ``answered`` if the console itself put us off."""

    def probe(self, request: ProbeRequest) -> None:
        """Something to try; its result is sent when it is known."""


class _Connect(connect):
    """Dials one address and no other: the token goes nowhere else, whatever answers there."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Connection:
    """One conversation with the console."""

    def __init__(self, socket: ClientConnection, node: Node, clock: Callable[[], float]) -> None:
        self._socket = socket
        self._node = node
        self._clock = clock
        self._outbox: asyncio.Queue[FromNode] = asyncio.Queue(OUTBOX_LIMIT)
        self._report = asyncio.Event()
        self._seq = 0
        self.synchrony = Synchrony()
        self.welcomed = False
        self.revoked = False
        self.refusal = ""

    def send(self, message: FromNode) -> None:
        """The message leaves after those before it; a peer that reads nothing loses the connection."""
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("console_reads_nothing", waiting=self._outbox.qsize())
            self._socket.transport.abort()

    def report(self) -> None:
        """A status leaves soon, not only at the next second."""
        self._report.set()

    async def converse(self) -> None:
        """Returns never: ends with the error that ended the conversation.

        Raises:
            ConnectionClosed, OSError, TimeoutError: the connection is gone or dead.
            Turned, Unreachable: the console would not talk.
        """
        await self._greet()
        tasks = [asyncio.create_task(work()) for work in (self._write, self._report_forever, self._read)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _greet(self) -> None:
        await self._send(self._node.hello())
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            while not self.welcomed and not self.revoked:
                match decode(await self._receive()):
                    case Welcome() as welcome:
                        if welcome.protocol != PROTOCOL:
                            raise Turned(_FINAL[CLOSE_PROTOCOL])
                        self.welcomed = True
                        self._node.welcomed(welcome)
                    case Refused() as refused:
                        self.refusal = refused.reason
                    case Revoked() as revoked:
                        self._revoked(revoked)
                    case other:
                        raise Unreachable(f"The console said {other.TYPE} before welcome.")

    async def end(self, timeout_s: float) -> None:
        """Everything that was to be sent has been, or had its time, and the connection is closed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._outbox.join()
        except TimeoutError:
            log.warning("messages_not_sent", waiting=self._outbox.qsize())
        await hang_up(self._socket)

    async def _write(self) -> None:
        while True:
            await self._send(await self._outbox.get())
            self._outbox.task_done()

    async def _report_forever(self) -> None:
        while True:
            self._report.clear()
            self._seq += 1
            now = self._clock()
            self.synchrony.sent(self._seq, now)
            self.send(self._node.status(self._seq, now < self.synchrony.until))
            try:
                async with asyncio.timeout(STATUS_PERIOD_S):
                    await self._report.wait()
                await asyncio.sleep(STATUS_GATHER_S)
            except TimeoutError:
                pass

    async def _read(self) -> None:
        while True:
            async with asyncio.timeout(SILENCE_LIMIT_S):
                text = await self._receive()
            try:
                self._handle(decode(text))
            except InvalidMessage as error:
                # What was lost with it is said again; giving up the conversation would gain nothing.
                log.warning("message_not_understood", problem=str(error))

    def _handle(self, message: Message) -> None:
        match message:
            case Confirm():
                self._confirmed(message)
            case Deliver():
                self._node.delivered(message)
            case ProbeRequest():
                self._node.probe(message)
            case Revoked():
                self._revoked(message)
            case Refused():
                self.refusal = message.reason  # the close code that follows says whether for good
            case _:
                raise InvalidMessage(f"{message.TYPE} is not for a node")

    def _confirmed(self, confirm: Confirm) -> None:
        if self.synchrony.confirmed(confirm, *self._node.applied()):
            self._node.synced(self.synchrony.until)
        self._node.confirmed(confirm)

    def _revoked(self, message: Revoked) -> None:
        self.revoked = True
        self._node.revoked(message.reason)

    async def _send(self, message: FromNode) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self._socket.send(encode(message))

    async def _receive(self) -> str:
        frame = await self._socket.recv()
        if not isinstance(frame, str):
            raise InvalidMessage("a binary frame")
        return frame


class ControlClient:
    """Holds the control stream for as long as it is run.

    Attributes:
        connection: the conversation of this moment, or None.
    """

    def __init__(
        self, url: str, token_file: Path, node: Node, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._token_file = token_file
        self._node = node
        self._clock = clock
        self.connection: Connection | None = None
        self._finished = asyncio.Event()
        self._complaint = ""
        self._complained_at = 0.0

    def send(self, message: FromNode) -> None:
        """The message is on its way, or there is no conversation to say it in."""
        if self.connection is not None and self.connection.welcomed:
            self.connection.send(message)

    def report(self) -> None:
        """A status leaves soon."""
        if self.connection is not None:
            self.connection.report()

    def unsync(self) -> None:
        """Not in sync until the console confirms what is applied from now on."""
        if self.connection is not None:
            self.connection.synchrony.clear()
        self._node.synced(0.0)

    @property
    def connected(self) -> bool:
        """Whether the console has welcomed the node on a connection that is still open."""
        return self.connection is not None and self.connection.welcomed

    @property
    def in_sync(self) -> bool:
        """Whether the console has confirmed lately that what is applied is the newest."""
        return self.connection is not None and self._clock() < self.connection.synchrony.until

    async def close(self, timeout_s: float) -> None:
        """What was sent has left, the conversation is over, and no other is begun."""
        self._finished.set()
        if self.connection is not None:
            await self.connection.end(timeout_s)

    async def run(self) -> None:
        """Dials, talks, dials again, until it is closed."""
        waits = delays()
        while not self._finished.is_set():
            started = self._clock()
            try:
                await self._talk()
            except Turned as error:
                log.error("turned_away", reason=str(error))
                self._node.turned_away(str(error))
            except (Unreachable, InvalidControl) as error:
                self._lost(error)
            except Exception as error:
                # Whatever a console can do to us, the workers must be able to go on serving.
                log.exception("control_failed")
                self._lost(Unreachable(f"The conversation with the console failed: {error!r}."))
            if self._clock() - started > STABLE_AFTER_S:
                waits = delays()
            try:
                async with asyncio.timeout(next(waits)):
                    await self._finished.wait()
            except TimeoutError:
                pass

    def _lost(self, error: Unreachable | InvalidControl) -> None:
        if not self._finished.is_set():
            now = self._clock()
            if str(error) != self._complaint or now - self._complained_at > COMPLAIN_EVERY_S:
                self._complaint, self._complained_at = str(error), now
                log.warning("console_unreachable", reason=str(error))
            self._node.unreachable(str(error), answered=isinstance(error, Unreachable) and error.answered)

    async def _talk(self) -> None:
        """Ends with the error that ended the conversation, in our own words."""
        socket = await dial(self._url, self._token_file)
        connection = Connection(socket, self._node, self._clock)
        if self._finished.is_set():
            await hang_up(socket)
            return
        self.connection = connection
        try:
            await connection.converse()
        except ConnectionClosed as closed:
            if closed.rcvd and closed.rcvd.code == CLOSE_REVOKED and not connection.revoked:
                self._node.revoked(closed.rcvd.reason)
            raise _meaning(closed, connection.refusal) from closed
        except (TimeoutError, OSError, InvalidMessage) as error:
            sentence = connection.refusal or f"The console does not answer as it should: {_words(error)}."
            raise Unreachable(sentence, answered=bool(connection.refusal)) from error
        finally:
            self.connection = None
            self._node.synced(0.0)
            await hang_up(socket)


def _meaning(closed: ConnectionClosed, refusal: str) -> Terminal | Transient:
    code = closed.rcvd.code if closed.rcvd else None
    reason = closed.rcvd.reason if closed.rcvd else ""
    if code in _FINAL:
        return Turned(refusal or reason or _FINAL[code])
    sentence = refusal or f"The console closed the connection ({code or 'no close frame'} {reason})."
    return Unreachable(sentence, answered=bool(refusal))


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing came in time"
    return str(error) or type(error).__name__


async def dial(url: str, token_file: Path) -> ClientConnection:
    """An open WebSocket to the console, with the node's token.

    Raises:
        Unreachable: nobody answered as a console does.
        InvalidControl: there is no token to show.
    """
    headers = {"Authorization": f"Bearer {read_token(token_file)}"}
    try:
        return await _Connect(
            url,
            additional_headers=headers,
            compression=None,
            proxy=None,
            open_timeout=DIAL_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # every status is answered, which proves more than a pong
            max_size=MESSAGE_LIMIT_BYTES,
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed) as error:
        raise Unreachable(f"The console at {url} cannot be reached: {_words(error)}.") from error


async def hang_up(socket: ClientConnection) -> None:
    """The connection is closed, politely if the peer takes part."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S * 2):
            await socket.close()
    except (TimeoutError, OSError):
        socket.transport.abort()
