"""A worker's end of the socket pair to its agent: JSON objects, one per line."""

import json
import socket
from collections.abc import Callable
from typing import Any

import structlog

from msha.edge.reactor import READABLE, WRITABLE, Reactor

log = structlog.get_logger("msha.edge.worker")

_READ_BYTES = 262_144

#: An agent that does not read for so long is not told any more figures; what it must know still waits.
_WAITING_LIMIT_BYTES = 65_536


class AgentChannel:
    """Lines from and to the agent, without ever waiting for it.

    Args:
        heard: called with each object that the agent sends.
        lost: called once when the agent is gone.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        heard: Callable[[dict[str, Any]], None],
        lost: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._reactor = reactor
        self._sock = sock
        self._heard = heard
        self._lost = lost
        self._received: list[bytes] = []
        self._to_send = bytearray()
        self._waits = False
        reactor.watch_inner(sock.fileno(), self)

    def say(self, what: str, **fields: Any) -> None:
        """The agent hears it, in order."""
        line = json.dumps({"is": what, **fields}, separators=(",", ":")).encode() + b"\n"
        if self._sock.fileno() < 0:
            return
        waits = bool(self._to_send)
        self._to_send += line
        if not waits:
            self._writable()

    def mention(self, what: str, **fields: Any) -> None:
        """The agent hears it, unless it is behind with what it must hear."""
        if len(self._to_send) < _WAITING_LIMIT_BYTES:
            self.say(what, **fields)

    def close(self) -> None:
        """Nothing is heard or said any more."""
        if self._sock.fileno() >= 0:
            self._reactor.leave_inner(self._sock.fileno())
            self._sock.close()

    # As an endpoint of the reactor

    def on_event(self, descriptor: int, events: int) -> None:
        """The agent has said something, or hears again."""
        if events & WRITABLE:
            self._writable()
        if events & READABLE:
            self._readable()

    def abort(self) -> None:
        """Go on listening to the agent after an error of ours."""

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            self._lost()
            return
        # A snapshot comes in many pieces; they are joined once, when its line ends.
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._hear(b"".join((*self._received, line)))
            self._received.clear()
        if rest:
            self._received.append(rest)

    def _hear(self, line: bytes) -> None:
        try:
            self._heard(json.loads(line))
        except Exception:
            # The agent notices that nothing was answered; the sessions here must not die of it.
            log.exception("agent_not_understood", line=line[:200].decode(errors="replace"))

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._to_send)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            sent = len(self._to_send)  # reading finds out that the agent is gone
        del self._to_send[:sent]
        if bool(self._to_send) is not self._waits:
            self._waits = not self._waits
            self._reactor.want_room(self._sock.fileno(), wanted=self._waits)
