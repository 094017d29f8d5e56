"""A connection from its first byte until it is a tunnel or has had its answer."""

import asyncio
import socket
import time
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import structlog

from msha.edge import eager, farewell, handshake
from msha.edge.access_log import Address, HandshakeRecord
from msha.edge.asking import Asking, TunnelWish
from msha.edge.handshake import Field, InvalidHead
from msha.edge.reactor import HANG_UP, INPUT
from msha.edge.tunnel import Tunnel

if TYPE_CHECKING:
    from msha.edge.server import Shell

log = structlog.get_logger("msha.edge")

_ASGI = {"version": "3.0", "spec_version": "2.4"}


class Stage(Enum):
    """What a connection waits for."""

    HEAD = "head"
    DECISION = "decision"
    BACK_SOURCE = "back-source"
    OVER = "over"


class Opening:
    """A handshake under way.

    Attributes:
        wish: the tunnel that was decided, while its back-source is being asked; None otherwise.
    """

    __slots__ = (
        "_answer",
        "_answer_fields",
        "_asking",
        "_buffer",
        "_client",
        "_head",
        "_record",
        "_rest",
        "_shell",
        "_stage",
        "_status",
        "_task",
        "_unread",
        "_watched",
        "wish",
    )

    def __init__(self, shell: "Shell", client: socket.SocketType, address: Address) -> None:
        # the connection
        self._shell = shell
        self._client = client
        self._watched = False
        self._record = HandshakeRecord(address, time.monotonic())
        self._stage = Stage.HEAD
        # the request
        self._buffer = b""
        self._rest = b""
        self._unread = True  # nothing says yet that the request ends where our reading ended
        self._head: handshake.RequestHead | None = None
        # the decision
        self._task: asyncio.Task[None] | None = None
        self._status = 0
        self._answer_fields: Sequence[Field] = ()
        self._answer: bytes | None = None
        self.wish: TunnelWish | None = None
        self._asking: Asking | None = None

    def begin(self) -> None:
        """Read what has come with the connection; with luck that is all there is to read."""
        self._read_head()
        if self._stage is Stage.HEAD:
            self._watch()
            self._shell.head_deadlines.add(self)

    # What the reactor calls

    def on_event(self, descriptor: int, events: int) -> None:
        """Go on with what the stage waits for."""
        if self._stage is Stage.HEAD:
            self._read_head()
        elif events & INPUT:
            self._unread = True  # it stays in the kernel until the tunnel opens
        if events & HANG_UP and self._stage is not Stage.OVER:
            self._abandon("client_gone")

    def on_deadline(self) -> None:
        """The client did not finish its head in time."""
        self._shell.sessions.count("header_timeout")
        self._reject(InvalidHead(408, "header_timeout", "The request head did not come in time."))

    def abort(self) -> None:
        """Close everything now."""
        if self._stage is not Stage.OVER:
            self._abandon("internal_error")

    # The request

    def _read_head(self) -> None:
        seen = len(self._buffer)
        try:
            data = self._client.recv(handshake.HEAD_LIMIT_BYTES, socket.MSG_DONTWAIT)
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
        if self._watched:
            self._shell.head_deadlines.discard(self)
        whole, self._buffer = self._buffer, b""
        self._record.line = whole
        self._head = self._record.head = handshake.parse_request(whole[:end])
        self._rest = whole[end:]
        self._unread = full or bool(self._rest)
        self._decide()

    def _scope(self, head: handshake.RequestHead) -> dict[str, Any]:
        """The ASGI scope of the request.

        Raises:
            InvalidHead: it was meant to be a WebSocket handshake, but is none.
        """
        websocket = handshake.asks_for_websocket(head)
        return {
            "type": "websocket" if websocket else "http",
            "asgi": _ASGI,
            "http_version": head.version,
            "method": head.method,
            "scheme": "ws" if websocket else "http",
            "path": unquote(head.path) if "%" in head.path else head.path,
            "raw_path": head.path.encode("ascii"),
            "query_string": head.query.encode("ascii"),
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in head.sent],
            "client": self._record.address[:2],
            "server": None,
            "subprotocols": [],
            "extensions": {
                "websocket.http.response": {},
                "msha.tunnel": {"record": self._record, "request": head},
                "msha.drop": {},
            },
        }

    def _reject(self, error: InvalidHead) -> None:
        """Answer what needs no decision."""
        record = self._record
        self._shell.sessions.count(f"invalid_{error.reason}")
        if self._head is None and not record.line:
            record.line = self._buffer
        record.decision, record.reason = "invalid", error.reason
        self._status = error.status
        self._bid(handshake.refusal(error.status, error.sentence, error.fields))

    # The decision

    def _decide(self) -> None:
        """Drive the application; it only becomes a task if it has to wait."""
        assert self._head is not None
        shell = self._shell
        self._stage = Stage.DECISION
        self._answer = None
        self._status = 0
        scope = self._scope(self._head)
        try:
            task = eager.begun(shell.application(scope, self._receive, self._send), shell.reactor.loop)
        except Exception as error:  # noqa: BLE001  logged there, and the client gets a 500
            self._application_failed(error)
            return
        if task is None:
            self._decided()
            return
        if not self._watched:
            self._watch()
        self._task = task
        task.add_done_callback(self._task_done)

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
                with_body = self._head.method != "HEAD"
                body = message.get("body", b"")
                self._answer = handshake.response(
                    self._status, self._answer_fields, body, with_body=with_body
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
            self._ask(self.wish)
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
        self._stop_asking()
        self._cancel_task()
        self._decide()

    # The back-source

    def _ask(self, wish: TunnelWish) -> None:
        self._stage = Stage.BACK_SOURCE
        self._record.tried = ()
        if not self._watched:
            self._watch()
        self._asking = Asking(self._shell, self, wish)
        self._asking.begin()

    def request_for(self, wish: TunnelWish) -> bytes:
        """The head that a back-source gets."""
        assert self._head is not None
        return handshake.back_source_request(self._head, wish.target, self._record.address[0], wish.fields)

    @property
    def key(self) -> bytes:
        """The Sec-WebSocket-Key that a back-source must answer to."""
        assert self._head is not None
        return self._head.key

    def failed(self, server: str, how: str) -> None:
        """A back-source could not be had."""
        self._record.add_tried(f"{server} {how}")
        self._shell.sessions.failed(server)

    def refused(self, status: int) -> None:
        """No back-source could be had."""
        self._record.decision, self._record.reason = "refuse", "back_source_failed"
        self._status = status
        self._bid(handshake.refusal(status, "No back-source server answered the handshake."))

    def answered(self, server: str, head: handshake.ResponseHead, body: bytes) -> None:
        """A back-source said something else than 101; the client gets that."""
        self._record.back_source = server
        self._record.reason = "back_source_answer"
        self._status = head.status
        self._bid(handshake.passed_on(head, body))

    def open(self, asking: Asking, head: handshake.ResponseHead, down: bytes, *, more: bool) -> None:
        """From here on it is a tunnel.

        Args:
            down: what the back-source sent behind its 101.
            more: whether more of that may wait in the kernel.
        """
        shell, record, wish, server = self._shell, self._record, asking.wish, asking.socket
        assert server is not None
        asking.socket = None
        self._asking = self.wish = None
        self._stage = Stage.OVER
        shell.sessions.half_open.pop(self, None)
        record.status = 101
        record.back_source = asking.server
        record.session = shell.next_session_number()
        tunnel = Tunnel(
            shell.sessions,
            self._client,
            server,
            unit_type=wish.unit_type,
            router_id=wish.router_id,
            server=asking.server,
            number=record.session,
            label=shell.log.label(record),
        )
        shell.reactor.hand_over(self._client.fileno(), tunnel)
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
            server_hung_up=asking.hung_up,
        )

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking.stop()
            self._asking = None
        if self.wish is not None:
            self.wish = None
            self._shell.sessions.half_open.pop(self, None)

    # The end

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
        if self._watched:
            self._shell.head_deadlines.discard(self)
        if self.wish is not None:
            self._stop_asking()
        if self._task is not None:
            self._cancel_task()

    def _cancel_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _watch(self) -> None:
        self._watched = True
        self._client.setblocking(False)
        self._shell.reactor.watch(self._client.fileno(), self)
