"""The access log: one JSON line when a handshake is decided, one more when its session ends.

Lines are put together in the loop and written by a thread, so that a pipe nobody reads cannot stop the edge;
what would take more than a bound of memory is dropped and counted.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import IO, Any, Protocol

from msha.edge.session.tunnel import Tunnel
from msha.edge.wire.handshake import RequestHead

#: Lines that wait to be written may take so much.
BACKLOG_BYTES = 8 * 1024 * 1024

#: A pipe that several workers share takes so much in one piece, so that lines stay whole.
_PIECE_BYTES = 4096


#: Of a peer, as the socket module gives it: host and port, for IPv6 two numbers more.
Address = tuple[Any, ...]


class HandshakeRecord:
    """What is known of one handshake; the application fills in what it decided.

    Most handshakes need few of these, so what was not set is looked up in the class.

    Attributes:
        head: the request, once it is whole and valid.
        line: what came of it when it is not, from its first byte on.
        decision: tunnel, redirect, hold, drop, refuse; http for a plain request, invalid for a broken one,
            abandoned when the client went away first.
        reason: one word why.
        snapshot: version under which it was decided; 0 without one.
        held_until: monotonic time at which a hold ends, from the first hold on; 0 if it was never held.
        tried: back-source servers that failed it, each with why.
        balancer: address of the load balancer of ours that passed it on; empty if there was none.
    """

    head: RequestHead | None = None
    line = b""
    decision = ""
    reason = ""
    status = 0
    unit_type = ""
    router_id: int | None = None
    snapshot = 0
    held_until = 0.0
    back_source = ""
    tried: Sequence[str] = ()
    session = 0
    balancer = ""

    def __init__(self, address: Address, started_at: float) -> None:
        self.address = address
        self.started_at = started_at

    @property
    def peer(self) -> str:
        """``HOST:PORT`` or only the host, with brackets where they belong."""
        host, port = self.address[:2]
        if not port:  # a load balancer said who it is, but not from which port
            return str(host)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def add_tried(self, what: str) -> None:
        """One more back-source server has failed it."""
        self.tried = [*self.tried, what]


#: So much of a request line that could not be read is logged.
_LOGGED_LINE_BYTES = 80


class Sink(Protocol):
    """Where finished lines go; takes them without waiting."""

    def write(self, lines: list[bytes]) -> int:
        """How many of the lines had to be dropped."""

    def close(self) -> None:
        """Everything that was taken is written."""


class AccessLog:
    """Puts lines together and passes them on at every tick of the reactor."""

    def __init__(self, sink: Sink, unit: str) -> None:
        self._sink = sink
        self._lines: list[bytes] = []
        self._unit = unit
        self._second = -1
        self._second_text = ""
        self.dropped = 0

    def handshake(self, record: HandshakeRecord) -> None:
        """A handshake has had its answer."""
        now = time.monotonic()
        # Half the cost of a JSON encoder: only what a peer can choose needs quoting.
        head = record.head
        if head is None:
            http, key, host, path = "", "", "", _first_line(record.line)
        else:
            http, key, host, path = head.version, head.key.decode("latin-1"), head.host, head.path
        line = (
            f'{{"event":"handshake","timestamp":"{self._timestamp()}","unit":"{self._unit}",'
            f'"decision":"{record.decision}","reason":"{record.reason}","status":{record.status},'
            f'"http":"{http}","peer":"{record.peer}","key":{quoted(key)},'
            f'"host":{quoted(host)},"path":{quoted(path)},'
            f'"unit_type":{quoted(record.unit_type)},"router_id":{_number(record.router_id)},'
            f'"snapshot":{record.snapshot},"ms":{(now - record.started_at) * 1000:.2f}'
        )
        if record.back_source:
            line += f',"back_source":"{record.back_source}"'
        if record.tried:
            line += f',"tried":{quoted("; ".join(record.tried))}'
        if record.balancer:
            line += f',"balancer":"{record.balancer}"'
        if record.session:
            line += f',"session":{record.session}'
        self._lines.append(f"{line}}}\n".encode(errors="replace"))

    def session_end(self, tunnel: Tunnel) -> None:
        """A session is over."""
        now = time.monotonic()
        line = (
            f'{{"event":"session_end","timestamp":"{self._timestamp()}","unit":"{self._unit}",'
            f'"session":{tunnel.number},{tunnel.label},'
            f'"unit_type":{quoted(tunnel.unit_type)},"router_id":{_number(tunnel.router_id)},'
            f'"back_source":"{tunnel.server}","ended_by":"{tunnel.ended_by}","reason":{quoted(tunnel.reason)},'
            f'"seconds":{now - tunnel.opened_at:.3f},'
            f'"bytes_up":{tunnel.bytes_up},"bytes_down":{tunnel.bytes_down}}}\n'
        )
        self._lines.append(line.encode(errors="replace"))

    def label(self, record: HandshakeRecord) -> str:
        """What a session must keep for its last line: by whom, and the key to find the first line by."""
        key = record.head.key.decode("latin-1") if record.head else ""
        return f'"peer":"{record.peer}","key":{quoted(key)}'

    def _timestamp(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1000):03d}Z"

    def flush(self) -> None:
        """What was put together goes to the sink."""
        if self._lines:
            lines, self._lines = self._lines, []
            self.dropped += self._sink.write(lines)

    def close(self) -> None:
        """Everything is written."""
        self.flush()
        self._sink.close()


class NoAccessLog(AccessLog):
    """``--access-log off``."""

    def __init__(self) -> None:
        super().__init__(_Nowhere(), "")

    def label(self, record: HandshakeRecord) -> str:
        """There will be no last line."""
        return ""

    def handshake(self, record: HandshakeRecord) -> None:
        """Not of interest."""

    def session_end(self, tunnel: Tunnel) -> None:
        """Not of interest."""


class ThreadSink:
    """A file that a thread of its own writes to."""

    def __init__(self, file: IO[bytes], *, backlog_bytes: int = BACKLOG_BYTES) -> None:
        self._file = file
        self._backlog_bytes = backlog_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(self, lines: list[bytes]) -> int:
        """Take the lines, unless too much waits already."""
        size = sum(map(len, lines))
        with self._changed:
            if self._closed or self._waiting_bytes + size > self._backlog_bytes:
                return len(lines)
            self._waiting.extend(lines)
            self._waiting_bytes += size
            self._changed.notify()
        return 0

    def close(self, *, timeout_s: float = 2.0) -> None:
        """What waits is written, unless the reader does not read for so long."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while piece := self._next():
            try:
                self._file.write(piece)
                self._file.flush()
            except OSError:
                pass  # nobody reads, or the disk is full: serving goes on without a log
            with self._changed:
                self._waiting_bytes -= len(piece)
        try:
            self._file.close()
        except OSError:
            pass  # what was left in its buffer could not be written either

    def _next(self) -> bytes:
        """Whole lines for one write, or nothing when everything is written and no more will come."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            lines: list[bytes] = []
            size = 0
            while self._waiting and (not lines or size + len(self._waiting[0]) <= _PIECE_BYTES):
                line = self._waiting.popleft()
                lines.append(line)
                size += len(line)
        return b"".join(lines)


class _Nowhere:
    def write(self, lines: list[bytes]) -> int:
        return 0

    def close(self) -> None:
        """Nothing waits."""


def open_access_log(target: str, unit: str) -> AccessLog:
    """The log that ``--access-log`` names: ``-`` for standard output, ``off``, or a file to append to.

    Raises:
        OSError: the file cannot be opened.
    """
    if target == "off":
        return NoAccessLog()
    if target == "-":
        # A descriptor of its own: closing it must not close standard output.
        return AccessLog(ThreadSink(os.fdopen(os.dup(sys.stdout.fileno()), "wb")), unit)
    return AccessLog(ThreadSink(Path(target).open("ab")), unit)


def _first_line(data: bytes) -> str:
    """What is kept of a head that cannot be read: the request line, cut short."""
    return data[:_LOGGED_LINE_BYTES].partition(b"\n")[0].partition(b"\r")[0].decode("latin-1")


def _number(router_id: int | None) -> str:
    return "null" if router_id is None else str(router_id)
