"""A worker's end of the socket pair to its agent: JSON objects, one per line."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import structlog

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
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        heard: Callable[[dict[str, Any]], None],
        lost: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._heard = heard
        self._lost = lost
        self._received: list[bytes] = []
        self._to_send = bytearray()
        loop.add_reader(sock, self._readable)

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
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

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
            self._to_send.clear()  # reading finds out that the agent is gone
            self._loop.remove_writer(self._sock)
            return
        del self._to_send[:sent]
        if self._to_send:
            self._loop.add_writer(self._sock, self._writable)
        else:
            self._loop.remove_writer(self._sock)
