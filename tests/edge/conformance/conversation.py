"""A client that says what a case wants, and the verdict: what it heard, and how the connection ended."""

from dataclasses import dataclass, replace
from hashlib import sha256

from tests.edge.conformance.catalogue import CLOSE, Case, close, sent
from tests.support.websocket_wire import Wire

#: A peer that says nothing for so long is taken to be waiting for ever.
SILENCE_S = 5.0


@dataclass(frozen=True)
class Heard:
    """A frame; a long payload as its size and digest, so that a difference can be read.

    Attributes:
        first: FIN, reserved bits and opcode.
    """

    first: int
    payload: bytes


@dataclass(frozen=True)
class Verdict:
    """What one side knows when it is over.

    Attributes:
        agreed: the Sec-WebSocket-Extensions and -Protocol of the 101.
        heard: the whole frames.
        rest: what came behind them.
        end: ``end`` for a FIN, ``reset``, or ``silence``.
    """

    agreed: str
    heard: tuple[Heard, ...]
    rest: bytes
    end: str

    def told_by_an_edge(self) -> "Verdict":
        """The same, but for a reset, which an edge passes on as an end.

        Without a Close both mean 1006 (RFC 6455 7.1.5); after a reset the reference client connects twice.
        """
        return replace(self, end="end") if self.end == "reset" else self

    @property
    def close_code(self) -> int | None:
        """Of the first Close; None without one, 1005 for an empty one."""
        for one in self.heard:
            if one.first & 15 == CLOSE:
                return int.from_bytes(one.payload[:2]) if one.payload else 1005
        return None


class Listener:
    """Reads frames from one end of an open connection."""

    def __init__(self, wire: Wire, agreed: str = "") -> None:
        wire.sock.settimeout(SILENCE_S)
        self.wire = wire
        self.heard: list[Heard] = []
        self.end = ""
        self._agreed = agreed

    def next(self) -> Heard | None:
        """The next whole frame; None when it is over."""
        while (found := self._whole()) is None and not self.end:
            try:
                data = self.wire.sock.recv(1 << 18)
            except ConnectionResetError:
                self.end = "reset"
            except TimeoutError:
                self.end = "silence"
            else:
                self.wire.buffer += data
                self.end = "" if data else "end"
        return found

    def say(self, data: bytes, chop: int = 0) -> None:
        """As long as the peer takes it; reading tells how it ended."""
        size = chop or len(data) or 1
        try:
            for start in range(0, len(data), size):
                self.wire.send(data[start : start + size])
        except OSError:
            pass

    def verdict(self) -> Verdict:
        """Of what was heard so far."""
        return Verdict(self._agreed, tuple(self.heard), _readable(self.wire.buffer), self.end)

    def _whole(self) -> Heard | None:
        buffer = self.wire.buffer
        if len(buffer) < 2:
            return None
        short, masked = buffer[1] & 127, buffer[1] >= 128
        wide = {126: 2, 127: 8}.get(short, 0)
        start = 2 + wide + 4 * masked
        size = int.from_bytes(buffer[2 : 2 + wide]) if wide else short
        if len(buffer) < start + size:
            return None
        payload = buffer[start : start + size]
        if masked:
            pad = (buffer[start - 4 : start] * (size // 4 + 1))[:size]
            payload = (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(size)
        self.wire.buffer = buffer[start + size :]
        self.heard.append(Heard(buffer[0], _readable(payload)))
        return self.heard[-1]


def _readable(data: bytes) -> bytes:
    return (
        data if len(data) <= 200 else b"%d bytes, SHA-256 %b" % (len(data), sha256(data).hexdigest().encode())
    )


def hold(wire: Wire, agreed: str, case: Case) -> Verdict:
    """What the client of a case knows when it is over; it answers a Close, as RFC 6455 5.5.1 wants it."""
    listener = Listener(wire, agreed)
    for step in case.steps:
        listener.say(step.data, step.chop)
        for _ in range(step.hear):
            if not _next(listener, case):
                break
    if not case.steps or case.steps[-1].hear:
        listener.say(close(1000))
    while _next(listener, case):
        pass
    return listener.verdict()


def _next(listener: Listener, case: Case) -> bool:
    heard = listener.next()
    if (
        heard is not None
        and heard.first & 15 == CLOSE
        and not case.closes
        and not (case.steps and case.steps[-1].hear)
    ):
        listener.say(sent(heard.payload[:2], CLOSE))
    return heard is not None
