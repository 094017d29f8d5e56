"""The part of a handshake in which a back-source is asked: the servers in their order, until one answers."""

import errno
import os
import socket
import time
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from msha.edge.entry.back_sources import NOT_IN_TIME, OUR_FAULTS, no_socket
from msha.edge.reactor import BROKEN, HANG_UP, READABLE, WRITABLE
from msha.edge.wire import handshake
from msha.edge.wire.handshake import InvalidAnswer
from msha.steering.decision import Tunnel

if TYPE_CHECKING:
    from msha.edge.entry.opening import Opening
    from msha.edge.entry.server import Shell

#: Idle time after which the kernel asks whether a back-source still lives (seconds).
_KEEPALIVE_IDLE_S = 60

_ANSWER_READ_BYTES = 65_536

#: So long after the first failure no further server is asked; the client has waited enough.
_FAILING_S = 10.0

#: A back-source may say so often that it has not finished (1xx).
_INTERIM_LIMIT = 8


class Stage(Enum):
    """What the back-source is awaited for."""

    CONNECT = "connect"
    ANSWER = "answer"
    BODY = "body"
    OVER = "over"


# Looking a member up in its class takes three times as long.
_CONNECT, _ANSWER, _BODY, _OVER = Stage

_TCP = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


class Asking:
    """One wish, from the first connect to the answer that the client gets.

    Attributes:
        socket: to the server that is being asked; whoever takes the tunnel over takes it, too.
        server: its name.
        hung_up: whether an event has told already that it will send no more.
    """

    __slots__ = (
        "_answer_head",
        "_asked",
        "_blamed",
        "_body",
        "_buffer",
        "_enough_at",
        "_interim",
        "_opening",
        "_outgoing",
        "_servers",
        "_shell",
        "_stage",
        "hung_up",
        "server",
        "socket",
        "wish",
    )

    def __init__(self, shell: "Shell", opening: "Opening", wish: Tunnel, servers: Sequence[str]) -> None:
        self._shell = shell
        self._opening = opening
        self.wish = wish
        self._servers = servers
        self._asked = 0
        self._enough_at = 0.0
        # Servers that took the request and did not answer. If another one does, the fault was theirs.
        self._blamed: tuple[tuple[str, str], ...] = ()
        # the server that is being asked
        self._stage = _OVER
        self.socket: socket.SocketType | None = None
        self.server = ""
        self.hung_up = False
        self._outgoing = b""
        # its answer
        self._buffer = b""
        self._interim = 0
        self._answer_head: handshake.ResponseHead | None = None
        self._body: handshake.AnswerReader | None = None

    def begin(self) -> None:
        """The first server is being asked, or the client has had its refusal."""
        self._next("")

    def stop(self) -> None:
        """Nobody is asked any more."""
        self._let_go()
        self._stage = _OVER

    # What the reactor calls

    def on_event(self, descriptor: int, events: int) -> None:
        """Go on with what the stage waits for."""
        if self.socket is None:
            return
        if self._stage is _CONNECT:
            if events & BROKEN:
                code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self._next(os.strerror(code).lower())
                return
            if events & WRITABLE:
                self._send_request()
        if events & HANG_UP:
            self.hung_up = True
        if events & READABLE and self._stage in (_ANSWER, _BODY):
            self._read_answer()

    def on_deadline(self) -> None:
        """The server did not finish its answer in time."""
        if self._stage is _BODY:
            self._pass_on()
        else:
            self._next(NOT_IN_TIME)

    def abort(self) -> None:
        """Close everything now, the client's connection included."""
        self._opening.abort()

    # One server after the other

    def _next(self, failure: str) -> None:
        """Ask the next server; when there is none left, the client hears of it."""
        servers = self._servers
        while True:
            if failure:
                self._failed(failure)
                self._let_go()
            if self._asked == len(servers) or (failure and time.monotonic() > self._enough_at):
                self._stage = _OVER
                self._opening.refused(504 if failure == NOT_IN_TIME else 502)
                return
            self.server = servers[self._asked]
            self._asked += 1
            failure = self._connect()
            if not failure:
                return

    def _failed(self, failure: str) -> None:
        self._opening.failed(self.server, failure)
        self._enough_at = self._enough_at or time.monotonic() + _FAILING_S
        if self._stage is _CONNECT:
            self._shell.back_sources.failed(self.server, failure, reached=False)
        elif self._stage is _ANSWER:
            self._blamed += ((self.server, failure),)

    def _connect(self) -> str:
        """Begin to connect; what went wrong at once, or nothing."""
        shell = self._shell
        address = shell.back_sources.address(self.server)
        self._stage = _OVER
        try:
            server = socket.SocketType(address.family, _TCP)
        except OSError as error:
            return no_socket(error)
        self.socket = server
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        result = server.connect_ex(address.name)
        if result in OUR_FAULTS:
            return os.strerror(result).lower()
        self._stage = _CONNECT
        if result not in (0, errno.EINPROGRESS):
            return os.strerror(result).lower()
        self._outgoing = self._opening.request_for(self.wish)
        shell.reactor.watch(server.fileno(), self)
        shell.connect_deadlines.add(self)
        if self._others_are_up():
            shell.reach_deadlines.add(self)
        return ""

    def _others_are_up(self) -> bool:
        """Whether it is better to ask another server than to wait long for a connection to this one."""
        left, down = len(self._servers) - self._asked, self._shell.back_sources.down
        return left > 0 and not (down and down.issuperset(self._servers[-left:]))

    def _let_go(self) -> None:
        self._shell.connect_deadlines.discard(self)
        self._shell.reach_deadlines.discard(self)
        if self.socket is not None:
            self._shell.reactor.close(self.socket)
            self.socket = None
        self.hung_up = False
        self._outgoing = self._buffer = b""
        self._interim = 0
        self._answer_head = self._body = None

    def _send_request(self) -> None:
        assert self.socket is not None
        self._shell.reach_deadlines.discard(self)
        try:
            sent = self.socket.send(self._outgoing)
        except BlockingIOError:
            return
        except OSError as error:
            self._next(str(error.strerror).lower())
            return
        self._outgoing = self._outgoing[sent:]
        if not self._outgoing:
            self._stage = _ANSWER

    def _answered(self) -> None:
        """The server said something valid; so those before it, which did not, are to blame."""
        back_sources = self._shell.back_sources
        if self.server in back_sources.suspects:
            back_sources.answered(self.server)
        for server, failure in self._blamed:
            back_sources.failed(server, failure, reached=True)
        self._blamed = ()

    # Its answer

    def _read_answer(self) -> None:
        """Read until the answer is whole, the server pauses, or it ends."""
        while self.socket is not None and self._stage in (_ANSWER, _BODY):
            try:
                data = self.socket.recv(_ANSWER_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._ended(str(error.strerror).lower())
                return
            if not data:
                self._ended("closed without an answer")
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
                self._next(error.problem)
                return
            if len(data) < _ANSWER_READ_BYTES and not self.hung_up:
                return  # an event will tell of more

    def _ended(self, failure: str) -> None:
        if self._stage is _BODY:
            self._pass_on()
        else:
            self._next(failure)

    def _answer_came(self, *, full: bool) -> None:
        """Look at the answer if its head is whole.

        Args:
            full: whether more may wait in the kernel.

        Raises:
            InvalidAnswer: it is nothing a client may get.
        """
        while True:
            end = self._buffer.find(b"\r\n\r\n") + 4
            if (end if end > 3 else len(self._buffer)) > handshake.HEAD_LIMIT_BYTES:
                raise InvalidAnswer(f"its answer has a head of more than {handshake.HEAD_LIMIT_BYTES} bytes")
            if end == 3:
                return
            data, key = self._buffer[:end], self._opening.key
            switch = self._shell.switches.recall(data, key)
            if switch is None:
                head = handshake.parse_response(data)
                if head.status == 101:
                    switch = self._shell.switches.learn(data, key, head)
            if switch is not None:
                self._stage = _OVER
                self._shell.connect_deadlines.discard(self)
                if self._blamed or self._shell.back_sources.suspects:
                    self._answered()
                self._opening.open(self, switch, self._buffer[end:], more=full)
                return
            if head.status >= 200:
                break
            self._buffer = self._buffer[end:]  # an interim answer, such as 103
            self._interim += 1
            if self._interim > _INTERIM_LIMIT:
                raise InvalidAnswer("it sends one interim answer after the other")
        self._answered()
        self._stage = _BODY
        self._answer_head = head
        self._body = handshake.AnswerReader(self._buffer)
        self._buffer = b""
        if self._body.complete:
            self._pass_on()

    def _pass_on(self) -> None:
        """The client gets what the server said instead of 101."""
        assert self._answer_head is not None
        assert self._body is not None
        head, body = self._answer_head, self._body.body
        self.stop()
        self._opening.answered(self.server, head, body)
