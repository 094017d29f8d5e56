"""A connection from its first byte until it is a tunnel or has had its answer."""

import socket
import time
from enum import Enum
from typing import TYPE_CHECKING

from msha.edge.entry import farewell, plain_http
from msha.edge.entry.access_log import Address, HandshakeRecord
from msha.edge.entry.asking import Asking
from msha.edge.reactor import HANG_UP, INPUT
from msha.edge.session.tunnel import Tunnel as Session
from msha.edge.wire import handshake
from msha.edge.wire.handshake import Field, InvalidHead
from msha.edge.wire.switches import Switch
from msha.steering.decision import Hold, Redirect, Refuse, Tunnel, decide

if TYPE_CHECKING:
    from msha.edge.entry.server import Shell


class Stage(Enum):
    """What a connection waits for."""

    HEAD = "head"
    DECISION = "decision"
    HELD = "held"
    BACK_SOURCE = "back-source"
    OVER = "over"


# Looking a member up in its class takes three times as long.
_HEAD, _DECISION, _HELD, _BACK_SOURCE, _OVER = Stage


class Opening:
    """A handshake under way.

    Attributes:
        wish: the tunnel that was decided, while its back-source is being asked; None otherwise.
    """

    __slots__ = (
        "_asking",
        "_buffer",
        "_client",
        "_head",
        "_record",
        "_rest",
        "_shell",
        "_stage",
        "_unread",
        "_watched",
        "wish",
    )

    _parse = staticmethod(handshake.parse_request)

    def __init__(self, shell: "Shell", client: socket.SocketType, address: Address) -> None:
        # the connection
        self._shell = shell
        self._client = client
        self._watched = False
        self._record = HandshakeRecord(address, time.monotonic())
        self._stage = _HEAD
        # the request
        self._buffer = b""
        self._rest = b""
        self._unread = True  # nothing says yet that the request ends where our reading ended
        self._head: handshake.RequestHead | None = None
        # the decision
        self.wish: Tunnel | None = None
        self._asking: Asking | None = None

    def begin(self) -> None:
        """Read what has come with the connection; with luck that is all there is to read."""
        self._read_head()
        if self._stage is _HEAD:
            self._watch()
            self._shell.head_deadlines.add(self)

    # What the reactor calls

    def on_event(self, descriptor: int, events: int) -> None:
        """Go on with what the stage waits for."""
        if self._stage is _HEAD:
            self._read_head()
        elif events & INPUT:
            self._unread = True  # it stays in the kernel until the tunnel opens
        if events & HANG_UP and self._stage is not _OVER:
            self._abandon("client_gone")

    def on_deadline(self) -> None:
        """The client did not finish its head in time."""
        self._shell.sessions.count("header_timeout")
        self._reject(InvalidHead(408, "header_timeout", "The request head did not come in time."))

    def abort(self) -> None:
        """Close everything now."""
        if self._stage is not _OVER:
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
        self._head = self._record.head = self._parse(whole[:end])
        self._record.line = b""  # thousands may wait for a snapshot or a back-source
        self._rest = whole[end:]
        self._unread = full or bool(self._rest)
        self._decide()

    def _reject(self, error: InvalidHead) -> None:
        """Answer what needs no decision."""
        record = self._record
        self._shell.sessions.count(f"invalid_{error.reason}")
        if error.reason == "downgraded":
            self._shell.downgrades.count(record.balancer or record.address[0], time.monotonic())
        if self._head is None and not record.line:
            record.line = self._buffer
        record.decision, record.reason = "invalid", error.reason
        self._bid(error.status, handshake.invalid(error))

    def turn_away(self, excess: InvalidHead, *, patient: bool) -> None:
        """The client is over a limit and told so, whatever it asks for.

        Args:
            patient: whether it may take its time to close.
        """
        try:
            request = self._client.recv(handshake.HEAD_LIMIT_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            request = b""
        self._unread = patient and not request.endswith(b"\r\n\r\n")
        self._refuse(excess)

    def _refuse(self, excess: InvalidHead) -> None:
        """Answer a client that is over a limit."""
        record = self._record
        record.decision, record.reason = "refuse", f"limited_{excess.reason}"
        self._shell.sessions.count(record.reason)
        self._bid(excess.status, handshake.invalid(excess))

    # The decision

    def _decide(self) -> None:
        """Give the answer of the snapshot in force, or begin to, or wait for another.

        Raises:
            InvalidHead: it was meant to be a WebSocket handshake, but is none.
        """
        head, steering, record = self._head, self._shell.steering, self._record
        assert head is not None
        self._stage = _DECISION
        if not handshake.asks_for_websocket(head):
            self._answer_plain(head)
            return
        snapshot = steering.snapshot
        if snapshot is None:
            record.decision, record.reason = "refuse", "no_snapshot"
            self._bid(503, handshake.refusal(503, "This edge has no routing snapshot yet."))
            return
        began = time.monotonic()
        decision = decide(snapshot, steering.unit, head, began <= steering.sync_until)
        self._shell.sessions.decided(time.monotonic() - began)
        record.snapshot = snapshot.version
        record.reason = decision.reason
        if isinstance(decision, Refuse):
            record.decision = "refuse"
            self._bid(decision.status, handshake.refusal(decision.status, decision.sentence))
            return
        record.unit_type = decision.unit_type
        record.router_id = decision.router_id
        if isinstance(decision, Redirect):
            record.decision = "redirect"
            self._bid(decision.status, handshake.redirection(decision.status, decision.location))
        elif isinstance(decision, Tunnel):
            record.decision = "tunnel"
            self._ask(decision)
        elif isinstance(decision, Hold):
            record.decision = "hold"
            self._hold(began + steering.hold_s)
        else:
            record.decision = "drop"
            self._bid(0, b"")

    def _answer_plain(self, head: handshake.RequestHead) -> None:
        answer = plain_http.answer(self._shell.steering, head)
        self._record.decision, self._record.reason = "http", str(answer.status)
        with_body = head.method != "HEAD"
        self._bid(
            answer.status, handshake.response(answer.status, answer.fields, answer.body, with_body=with_body)
        )

    def drop(self, reason: str) -> None:
        """Close the connection without an answer: this edge has none any more."""
        self._record.decision, self._record.reason = "drop", reason
        self._bid(0, b"")

    def decide_again(self) -> None:
        """The snapshot no longer gives this id to the unit: let go of the back-source, then decide anew."""
        self._shell.sessions.count("half_open_withdrawn")
        self._stop_asking()
        self._decide()

    # As a held handshake

    def _hold(self, until: float) -> None:
        record = self._record
        record.held_until = record.held_until or until
        self._stage = _HELD
        if not self._watched:
            self._watch()
        self._shell.waiting.hold(self, record.held_until)

    def decide_held(self) -> None:
        """The snapshot has changed."""
        self._decide()

    def hold_over(self) -> None:
        """Nothing has changed in time; the client hears nothing and tries again."""
        self._bid(0, b"")

    # The back-source

    def _ask(self, decision: Tunnel) -> None:
        shell = self._shell
        servers = shell.back_sources.order(decision.route, decision.router_id)
        # From this instant on a new snapshot must find it.
        self.wish = decision
        shell.sessions.half_open[self] = None
        self._stage = _BACK_SOURCE
        self._record.tried = ()
        if not self._watched:
            self._watch()
        self._asking = Asking(shell, self, decision, servers)
        self._asking.begin()

    def request_for(self, wish: Tunnel) -> bytes:
        """The head that a back-source gets."""
        assert self._head is not None
        return handshake.back_source_request(
            self._head, wish.target, self._record.address[0], self._statements(wish)
        )

    def _statements(self, wish: Tunnel) -> list[Field]:
        """What only an edge may say of a client."""
        unit_field = self._shell.steering.unit_field
        if wish.router_id is None:
            return [unit_field]
        return [unit_field, (b"X-Msha-Router-Id", b"%d" % wish.router_id)]

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
        self._bid(status, handshake.refusal(status, "No back-source server answered the handshake."))

    def answered(self, server: str, head: handshake.ResponseHead, body: bytes) -> None:
        """A back-source said something else than 101; the client gets that."""
        self._record.back_source = server
        self._record.reason = "back_source_answer"
        self._bid(head.status, handshake.passed_on(head, body))

    def open(self, asking: Asking, switch: Switch, down: bytes, *, more: bool) -> None:
        """From here on it is a tunnel.

        Args:
            down: what the back-source sent behind its 101.
            more: whether more of that may wait in the kernel.
        """
        shell, record, wish, server = self._shell, self._record, asking.wish, asking.socket
        assert server is not None
        asking.socket = None
        self._asking = self.wish = None
        self._stage = _OVER
        shell.sessions.half_open.pop(self, None)
        record.status = 101
        record.back_source = asking.server
        record.session = shell.next_session_number()
        tunnel = Session(
            shell.sessions,
            self._client,
            server,
            unit_type=wish.unit_type,
            router_id=wish.router_id,
            server=asking.server,
            number=record.session,
            label=shell.log.label(record),
            extensions=switch.extensions,
        )
        shell.reactor.hand_over(self._client.fileno(), tunnel)
        shell.reactor.hand_over(server.fileno(), tunnel)
        shell.sessions.add(tunnel)
        shell.account(record)
        shell.opened(tunnel)
        tunnel.start(
            switch.head,
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

    def _bid(self, status: int, answer: bytes) -> None:
        """The last word to the client, or none."""
        self._end()
        shell, record = self._shell, self._record
        record.status = status
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
        if self._stage is _HELD:
            self._shell.waiting.leave(self)
        self._stage = _OVER
        if self._watched:
            self._shell.head_deadlines.discard(self)
        if self.wish is not None:
            self._stop_asking()

    def _watch(self) -> None:
        self._watched = True
        self._client.setblocking(False)
        self._shell.reactor.watch(self._client.fileno(), self)
        if self._shell.peers.connections_limit:
            self._book()

    def _book(self) -> None:
        """The connection counts among those of its address, until it is closed."""
        self._shell.peers.hold(self._client.fileno(), self._record.address[0])
