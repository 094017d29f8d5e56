"""A connection from its first byte until it is a tunnel or has had its answer."""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import structlog

from msha.edge import farewell, handshake
from msha.edge.access_log import HandshakeRecord
from msha.edge.handshake import Field, InvalidAnswer, InvalidHead
from msha.edge.reactor import BROKEN, HANG_UP, INPUT, READABLE, WRITABLE
from msha.edge.tunnel import Tunnel

if TYPE_CHECKING:
    from msha.edge.server import Shell

log = structlog.get_logger("msha.edge")

#: Idle time after which the kernel asks whether a back-source still lives (seconds).
_KEEPALIVE_IDLE_S = 60

_ANSWER_READ_BYTES = 65_536

#: A back-source may say so often that it has not finished (1xx).
_INTERIM_LIMIT = 8

#: So much of a request line that could not be read is logged.
_LOGGED_LINE_BYTES = 80


class Stage(StrEnum):
    """What a connection waits for."""

    HEAD = "head"
    DECISION = "decision"
    CONNECT = "connect"
    ANSWER = "answer"
    BODY = "body"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class TunnelWish:
    """What the application asked for by ``msha.tunnel``."""

    servers: Sequence[str]
    target: str
    fields: Sequence[Field]
    unit_type: str
    router_id: int | None


class Opening:
    """A handshake under way.

    Attributes:
        wish: the tunnel that was decided, while its back-source is being asked; None otherwise.
    """

    __slots__ = (
        "_answer",
        "_answer_fields",
        "_answer_head",
        "_body",
        "_buffer",
        "_client",
        "_client_fd",
        "_head",
        "_interim",
        "_outgoing",
        "_record",
        "_rest",
        "_scope",
        "_server",
        "_server_hung_up",
        "_server_name",
        "_servers",
        "_shell",
        "_stage",
        "_status",
        "_task",
        "_unread",
        "_watched",
        "wish",
    )

    def __init__(self, shell: "Shell", client: socket.socket, peer: str) -> None:
        # the connection
        self._shell = shell
        self._client = client
        self._client_fd = client.fileno()
        self._watched = False
        self._record = HandshakeRecord(peer, time.monotonic())
        self._stage = Stage.HEAD
        # the request
        self._buffer = b""
        self._rest = b""
        self._unread = True  # nothing says yet that the request ends where our reading ended
        self._head: handshake.RequestHead | None = None
        self._scope: dict[str, Any] = {}
        # the decision
        self._task: asyncio.Task[None] | None = None
        self._status = 0
        self._answer_fields: Sequence[Field] = ()
        self._answer: bytes | None = None
        self.wish: TunnelWish | None = None
        # the back-source that is being asked
        self._servers: list[str] = []
        self._server: socket.socket | None = None
        self._server_hung_up = False
        self._server_name = ""
        self._outgoing = b""
        self._interim = 0
        self._answer_head: handshake.ResponseHead | None = None
        self._body: handshake.AnswerReader | None = None

    def begin(self) -> None:
        """Read what has come with the connection; with luck that is all there is to read."""
        self._read_head()
        if self._stage is Stage.HEAD:
            self._watch()
            self._shell.head_deadlines.add(self)

    # What the reactor calls

    def on_event(self, descriptor: int, events: int) -> None:
        """Go on with what the stage waits for."""
        if descriptor != self._client_fd:
            if self._server is not None and descriptor == self._server.fileno():
                self._on_server_event(events)
        else:
            if self._stage is Stage.HEAD:
                self._read_head()
            elif events & INPUT:
                self._unread = True  # it stays in the kernel until the tunnel opens
            if events & HANG_UP and self._stage is not Stage.OVER:
                self._abandon("client_gone")

    def on_deadline(self) -> None:
        """The client did not finish its head, or the back-source its answer, in time."""
        if self._stage is Stage.HEAD:
            self._shell.sessions.count("header_timeout")
            self._reject(InvalidHead(408, "header_timeout", "The request head did not come in time."))
        elif self._stage is Stage.BODY:
            self._pass_on()
        else:
            self._next_server("did not answer in time")

    def abort(self) -> None:
        """Close everything now."""
        if self._stage is not Stage.OVER:
            self._abandon("internal_error")

    # The request

    def _read_head(self) -> None:
        seen = len(self._buffer)
        try:
            data = self._client.recv(handshake.HEAD_LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._abandon("client_gone")
            return
        self._buffer = self._buffer + data if seen else data
        try:
            end = handshake.head_end(self._buffer, seen)
            if end is None:
                return
            self._head_complete(end, full=len(data) == handshake.HEAD_LIMIT_BYTES)
        except InvalidHead as error:
            self._reject(error)

    def _head_complete(self, end: int, *, full: bool) -> None:
        shell, record = self._shell, self._record
        shell.head_deadlines.discard(self)
        self._rest = self._buffer[end:]
        head = self._head = handshake.parse_request(self._buffer[:end])
        self._buffer = b""
        self._unread = full or bool(self._rest)
        record.http, record.host, record.path = head.version, head.host, head.path
        record.key = head.key.decode("latin-1")
        websocket = handshake.asks_for_websocket(head)
        self._scope = {
            "type": "websocket" if websocket else "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.version,
            "method": head.method,
            "scheme": "ws" if websocket else "http",
            "path": unquote(head.path) if "%" in head.path else head.path,
            "raw_path": head.path.encode("ascii"),
            "query_string": head.query.encode("ascii"),
            "root_path": "",
            "headers": head.fields,
            "client": (record.peer, 0),
            "server": None,
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}, "msha.tunnel": {"record": record}, "msha.drop": {}},
        }
        self._decide()

    def _reject(self, error: InvalidHead) -> None:
        """Answer what needs no decision."""
        record = self._record
        self._shell.sessions.count(f"invalid_{error.reason}")
        if self._head is None and self._buffer:
            record.path = _first_line(self._buffer)
        record.decision, record.reason = "invalid", error.reason
        self._status = error.status
        self._bid(handshake.refusal(error.status, error.sentence, error.fields))

    # The decision

    def _decide(self) -> None:
        """Drive the application; it only becomes a task if it has to wait."""
        self._stage = Stage.DECISION
        self._answer = None
        self._status = 0
        coroutine: Any = self._shell.application(self._scope, self._receive, self._send)
        try:
            waits_for = coroutine.send(None)
        except StopIteration:
            self._decided()
        except Exception as error:  # noqa: BLE001  logged there, and the client gets a 500
            self._application_failed(error)
        else:
            if not self._watched:
                self._watch()
            self._task = self._shell.reactor.loop.create_task(_continued(coroutine, waits_for))
            self._task.add_done_callback(self._task_done)

    async def _receive(self) -> dict[str, Any]:
        """The ASGI events of a client that has sent a handshake and now waits."""
        if self._answer is not None or self.wish is not None:
            return {"type": "websocket.disconnect", "code": 1006}
        return {"type": "websocket.connect"}

    async def _send(self, message: Any) -> None:
        """Keep the answer; its bytes move when the application has returned."""
        match message["type"]:
            case "msha.tunnel":
                self.wish = TunnelWish(
                    message["servers"],
                    message["target"],
                    message["fields"],
                    message["unit_type"],
                    message["router_id"],
                )
                # From this instant on a new snapshot must find it, also while our task is still ending.
                self._shell.sessions.half_open[self] = None
            case "msha.drop":
                self._answer = b""
            case "websocket.http.response.start" | "http.response.start":
                self._status = message["status"]
                self._answer_fields = message["headers"]
            case "websocket.http.response.body" | "http.response.body":
                assert self._head is not None
                self._answer = handshake.response(
                    self._status,
                    self._answer_fields,
                    message.get("body", b""),
                    with_body=self._head.method != "HEAD",
                )
            case other:
                raise RuntimeError(f"this shell tunnels or refuses; it cannot do {other}")

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if task is not self._task:
            return  # the client went away, or the decision was overtaken by a new snapshot
        self._task = None
        error = None if task.cancelled() else task.exception()
        try:
            if error is None:
                self._decided()
            else:
                self._application_failed(error)
        except Exception:
            log.exception("connection_failed", endpoint="Opening")
            self.abort()

    def _application_failed(self, error: BaseException) -> None:
        log.error("application_failed", exc_info=error)
        self._status = 500
        self._record.decision, self._record.reason = "refuse", "internal_error"
        self._bid(handshake.refusal(500, "The edge failed to decide; its log says why."))

    def _decided(self) -> None:
        answer = self._answer
        if self.wish is not None:
            self._servers = list(self.wish.servers)
            self._record.tried.clear()
            if not self._watched:
                self._watch()
            self._next_server("")
        elif answer is None:
            self._application_failed(RuntimeError("the application gave no answer"))
        else:
            if not self._record.decision:
                self._record.decision = "http"
                self._record.reason = str(self._status)
            self._bid(answer)

    def drop(self, reason: str) -> None:
        """Close the connection without an answer: this edge has none any more."""
        self._record.decision, self._record.reason = "drop", reason
        self._status = 0
        self._bid(b"")

    def decide_again(self) -> None:
        """The snapshot no longer gives this id to the unit: let go of the back-source, then decide anew."""
        self._shell.sessions.count("half_open_withdrawn")
        self._let_go_of_server()
        self._cancel_task()
        self._decide()

    # The back-source

    def _next_server(self, failure: str) -> None:
        """Ask the next back-source; answer 502 or 504 when there is none left."""
        self._let_go_of_server(keep_wish=True)
        if failure:
            self._record.tried.append(f"{self._server_name} {failure}")
            self._shell.sessions.failed(self._server_name)
        while self._servers:
            self._server_name = self._servers.pop(0)
            problem = self._connect(self._server_name)
            if not problem:
                return
            failure = problem
            self._record.tried.append(f"{self._server_name} {problem}")
            self._shell.sessions.failed(self._server_name)
        self._record.decision, self._record.reason = "refuse", "back_source_failed"
        self._status = 504 if "in time" in failure else 502
        self._bid(handshake.refusal(self._status, "No back-source server answered the handshake."))

    def _connect(self, name: str) -> str:
        """Begin to connect; what went wrong at once, or nothing."""
        host, _, port = name.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        try:
            server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            return f"no socket: {error.strerror}"
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        result = server.connect_ex((host.strip("[]"), int(port)))
        if result not in (0, errno.EINPROGRESS):
            server.close()
            return os.strerror(result).lower()
        assert self._head is not None
        assert self.wish is not None
        self._server = server
        self._stage = Stage.CONNECT
        self._outgoing = handshake.back_source_request(
            self._head, self.wish.target, self._record.peer.rpartition(":")[0].strip("[]"), self.wish.fields
        )
        self._shell.reactor.watch(server.fileno(), self)
        self._shell.connect_deadlines.add(self)
        return ""

    def _let_go_of_server(self, *, keep_wish: bool = False) -> None:
        shell = self._shell
        shell.connect_deadlines.discard(self)
        if self._server is not None:
            shell.reactor.close(self._server)
            self._server = None
        self._server_hung_up = False
        self._buffer = b""
        self._outgoing = b""
        self._interim = 0
        self._answer_head = None
        self._body = None
        if not keep_wish:
            self.wish = None
            shell.sessions.half_open.pop(self, None)

    def _on_server_event(self, events: int) -> None:
        assert self._server is not None
        if self._stage is Stage.CONNECT:
            if events & BROKEN:
                code = self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self._next_server(os.strerror(code).lower())
                return
            if events & WRITABLE:
                self._send_request()
        if events & HANG_UP:
            self._server_hung_up = True
        if self._stage in (Stage.ANSWER, Stage.BODY) and events & READABLE:
            self._read_answer()

    def _send_request(self) -> None:
        assert self._server is not None
        try:
            sent = self._server.send(self._outgoing)
        except BlockingIOError:
            return
        except OSError as error:
            self._next_server(str(error.strerror).lower())
            return
        self._outgoing = self._outgoing[sent:]
        if not self._outgoing:
            self._stage = Stage.ANSWER

    def _read_answer(self) -> None:
        """Read until the answer is whole, the back-source pauses, or it ends."""
        while self._server is not None and self._stage in (Stage.ANSWER, Stage.BODY):
            try:
                data = self._server.recv(_ANSWER_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._server_ended(str(error.strerror).lower())
                return
            if not data:
                self._server_ended("closed without an answer")
                return
            if self._body is not None:
                self._body.feed(data)
                if self._body.complete:
                    self._pass_on()
                continue
            self._buffer += data
            try:
                self._answer_came(full=len(data) == _ANSWER_READ_BYTES)
            except InvalidAnswer as error:
                self._next_server(error.problem)
                return

    def _server_ended(self, failure: str) -> None:
        if self._stage is Stage.BODY:
            self._pass_on()
        else:
            self._next_server(failure)

    def _answer_came(self, *, full: bool) -> None:
        """Look at the answer if its head is whole.

        Args:
            full: whether more may wait in the kernel.

        Raises:
            InvalidAnswer: it is nothing a client may get.
        """
        assert self._head is not None
        while True:
            end = self._buffer.find(b"\r\n\r\n") + 4
            if (end if end > 3 else len(self._buffer)) > handshake.HEAD_LIMIT_BYTES:
                raise InvalidAnswer(f"its answer has a head of more than {handshake.HEAD_LIMIT_BYTES} bytes")
            if end == 3:
                return
            head = handshake.parse_response(self._buffer[:end])
            if head.status == 101:
                handshake.check_switch(head, self._head.key)
                self._open(head, self._buffer[end:], more=full)
                return
            if head.status >= 200:
                break
            self._buffer = self._buffer[end:]  # an interim answer, such as 103
            self._interim += 1
            if self._interim > _INTERIM_LIMIT:
                raise InvalidAnswer("it sends one interim answer after the other")
        self._stage = Stage.BODY
        self._answer_head = head
        self._body = handshake.AnswerReader(self._buffer)
        self._buffer = b""
        if self._body.complete:
            self._pass_on()

    def _pass_on(self) -> None:
        """The client gets what the back-source said instead of 101."""
        assert self._answer_head is not None
        assert self._body is not None
        self._record.back_source = self._server_name
        self._record.reason = "back_source_answer"
        self._status = self._answer_head.status
        self._bid(handshake.passed_on(self._answer_head, self._body.body))

    # The end

    def _open(self, head: handshake.ResponseHead, down: bytes, *, more: bool) -> None:
        """From here on it is a tunnel."""
        shell, record, wish, server = self._shell, self._record, self.wish, self._server
        assert wish is not None
        assert server is not None
        server_hung_up = self._server_hung_up
        self._server = None
        self._let_go_of_server()
        self._stage = Stage.OVER
        record.status = 101
        record.back_source = self._server_name
        record.session = shell.next_session_number()
        tunnel = Tunnel(
            shell.sessions,
            self._client,
            server,
            unit_type=wish.unit_type,
            router_id=wish.router_id,
            server=self._server_name,
            number=record.session,
            label=shell.log.label(record),
        )
        shell.reactor.hand_over(self._client_fd, tunnel)
        shell.reactor.hand_over(server.fileno(), tunnel)
        shell.sessions.add(tunnel)
        shell.account(record)
        shell.opened(tunnel)
        tunnel.start(
            handshake.switching_protocols(head),
            down,
            self._rest,
            more_down=more,
            more_up=self._unread,
            server_hung_up=server_hung_up,
        )

    def _bid(self, answer: bytes) -> None:
        """The last word to the client, or none."""
        self._end()
        shell, record = self._shell, self._record
        record.status = self._status
        shell.account(record)
        farewell.bid(
            shell.reactor,
            shell.linger_deadlines,
            self._client,
            answer,
            unread=self._unread,
            watched=self._watched,
        )

    def _abandon(self, reason: str) -> None:
        """There is nobody to answer."""
        self._end()
        record = self._record
        if self._head is not None or self._buffer:
            record.decision, record.reason = "abandoned", reason
            self._shell.account(record)
        self._shell.reactor.close(self._client)

    def _end(self) -> None:
        self._stage = Stage.OVER
        self._shell.head_deadlines.discard(self)
        if self.wish is not None:
            self._let_go_of_server()
        self._cancel_task()

    def _cancel_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _watch(self) -> None:
        self._watched = True
        self._shell.reactor.watch(self._client_fd, self)


def _first_line(data: bytes) -> str:
    """What a log may keep of a head that cannot be read: the request line, cut short."""
    line = data[:_LOGGED_LINE_BYTES].partition(b"\n")[0].partition(b"\r")[0]
    return line.decode("latin-1")


async def _continued(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
    """Go on, in a task, with a coroutine that was driven to its first wait outside one."""
    while True:
        try:
            result = await _Wait(waits_for)
        except BaseException as error:  # noqa: BLE001  also a cancellation: it is the coroutine's, not ours
            resume = partial(coroutine.throw, error)
        else:
            resume = partial(coroutine.send, result)
        try:
            waits_for = resume()
        except StopIteration:
            return


class _Wait:
    """Passes what a coroutine waits for on to the task that runs now."""

    __slots__ = ("_waits_for",)

    def __init__(self, waits_for: Any) -> None:
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self._waits_for)
