"""The back-sources of all units in one process: they echo, say which unit they are of, and keep a journal.

One process, so that a new handshake can be compared at that very moment with the kernel's state of all other
connections of the same id: a connection whose peer has ended it is in CLOSE_WAIT, however late we read that.

Told to be sluggish, they let a Close lie for seconds. A session lasts until its back-source has ended it, or
until the edge has waited 0.9 s for that; the kernel knows how long ago the Close came.
"""

import asyncio
import itertools
import signal
import socket
import sys
from pathlib import Path

import click

from tests.chaos.asked import answer_at
from tests.chaos.frames import CLOSE, PING, PONG, TEXT, Head, Unframed, accept_of, frame
from tests.chaos.journal import Journal

TCP_ESTABLISHED, TCP_CLOSE_WAIT = 1, 8
#: Where the kernel says how many milliseconds ago data came, in the structure behind TCP_INFO.
LAST_DATA_RECEIVED = slice(52, 56)
#: An edge waits a little longer for a back-source that does not answer its Close.
EDGE_WAITS_S = 0.8
SLUGGISH_S = 4.0


def tcp_info(transport: asyncio.BaseTransport) -> tuple[int, float]:
    """The kernel's state of the connection, 0 for none, and the seconds since data came."""
    sock = transport.get_extra_info("socket")
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
    except (OSError, AttributeError):
        return 0, 0.0
    return raw[0], int.from_bytes(raw[LAST_DATA_RECEIVED], sys.byteorder) / 1000


class Sources:
    """Every connection of every unit's back-sources."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.numbers = itertools.count(1)
        self.by_id: dict[str, set[Connection]] = {}
        self.sluggish = False

    def elsewhere(self, router_id: str, unit: str) -> list[tuple[str, int, str]]:
        """Unit, number and state of connections of the id at other units that may not be gone yet."""
        others = [other for other in self.by_id.get(router_id, ()) if other.unit != unit]
        return [(other.unit, other.number, state) for other in others if (state := other.state())]

    def obey(self, command: str) -> str:
        """``sluggish``, or ``quick`` again."""
        self.sluggish = command == "sluggish"
        if not self.sluggish:
            for connection in [each for some in self.by_id.values() for each in some if each.closing]:
                connection.end()
        return "ok"


class Connection(asyncio.Protocol):
    """One tunnel, seen from behind the edge."""

    transport: asyncio.Transport

    def __init__(self, sources: Sources, unit: str) -> None:
        self.sources = sources
        self.unit = unit
        self.number = 0
        self.router_id = ""
        self.closing = False
        self._farewell = b""
        self._head = b""
        self._unframed: Unframed | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._unframed is None:
            self._head += data
            raw, separator, data = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            self._open(Head(raw))
        if self._unframed is not None:
            for opcode, payload in self._unframed.feed(data):
                self._take(opcode, payload)

    def _open(self, head: Head) -> None:
        key = head.fields.get("sec-websocket-key")
        if key is None:
            self.transport.write(
                b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            self.transport.close()
            return
        self.number = next(self.sources.numbers)
        self.router_id = head.fields.get("routerid", "")
        self._unframed = Unframed()
        if self.router_id:
            alive = tcp_info(self.transport)[0] == TCP_ESTABLISHED
            elsewhere = self.sources.elsewhere(self.router_id, self.unit)
            self.sources.journal.note(
                "handshake",
                conn=self.number,
                id=int(self.router_id),
                unit=self.unit,
                session=int(head.fields.get("x-session", "0")),
                alive=alive,
                elsewhere=elsewhere,
            )
            self.sources.by_id.setdefault(self.router_id, set()).add(self)
        answer = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_of(key)}\r\n\r\n"
        )
        self.transport.write(
            answer.encode() + frame(f"welcome:{self.unit}:{self.number}".encode(), masked=False)
        )

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            number = payload.decode()
            self.sources.journal.note("got", conn=self.number, no=int(number))
            self.transport.write(frame(f"{number}:{self.unit}".encode(), masked=False))
        elif opcode == PING:
            self.transport.write(frame(payload, PONG, masked=False))
        elif opcode == CLOSE:
            self.closing, self._farewell = True, frame(payload[:2], CLOSE, masked=False)
            if self.sources.sluggish:
                asyncio.get_running_loop().call_later(SLUGGISH_S, self.end)
            else:
                self.end()

    def state(self) -> str:
        """``open`` while nobody has ended it, ``closing`` while the edge has to wait for us, else ""."""
        if self.transport.is_closing():
            return ""
        state, silent_s = tcp_info(self.transport)
        if state == TCP_ESTABLISHED and not self.closing:
            return "open"
        waits = state in (TCP_ESTABLISHED, TCP_CLOSE_WAIT) and self.closing and silent_s < EDGE_WAITS_S
        return "closing" if waits else ""

    def end(self) -> None:
        """Its Close is answered and our side of it is over."""
        if not self.transport.is_closing():
            self.transport.write(self._farewell)
            self.transport.close()

    def eof_received(self) -> bool:
        return self.closing and self.sources.sluggish  # True: our side stays open

    def connection_lost(self, exc: Exception | None) -> None:
        if self.router_id:
            self.sources.by_id[self.router_id].discard(self)
            self.sources.journal.note("end", conn=self.number)


async def serve(journal: Path, state: Path, addresses: list[tuple[str, str, int]]) -> None:
    """Serves every (unit, host, port) until SIGTERM."""
    sources = Sources(Journal(journal))
    loop = asyncio.get_running_loop()
    for unit, host, port in addresses:
        await loop.create_server(lambda unit=unit: Connection(sources, unit), host, port, backlog=4096)
    server = await answer_at(state, sources.obey)
    print("ready", flush=True)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()
    server.close()


@click.command()
@click.option("--journal", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--state", type=click.Path(path_type=Path), required=True)
@click.argument("addresses", nargs=-1)
def main(journal: Path, state: Path, addresses: tuple[str, ...]) -> None:
    """Serve UNIT=HOST:PORT ..."""
    parsed = []
    for text in addresses:
        unit, _, address = text.partition("=")
        host, _, port = address.rpartition(":")
        parsed.append((unit, host, int(port)))
    asyncio.run(serve(journal, state, parsed))


if __name__ == "__main__":
    main()
