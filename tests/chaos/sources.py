"""The back-sources of all units in one process: they echo, say which unit they are of, and keep a journal.

One process, so that a new handshake can be compared at that very moment with the kernel's state of all other
connections of the same id: a connection whose peer has ended it is in CLOSE_WAIT, however late we read that.
"""

import asyncio
import itertools
import signal
import socket
from pathlib import Path

import click

from tests.chaos.frames import CLOSE, PING, PONG, TEXT, Head, Unframed, accept_of, frame
from tests.chaos.journal import Journal

TCP_ESTABLISHED = 1


def is_established(transport: asyncio.BaseTransport) -> bool:
    """Whether the kernel has heard of no end of this connection yet."""
    sock = transport.get_extra_info("socket")
    try:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED)
    except (OSError, AttributeError):
        return False


class Sources:
    """Every connection of every unit's back-sources."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.numbers = itertools.count(1)
        self.by_id: dict[str, set[Connection]] = {}

    def elsewhere(self, router_id: str, unit: str) -> list[tuple[str, int]]:
        """Connections of the id at other units that nobody has ended, as unit and number."""
        return [
            (other.unit, other.number)
            for other in self.by_id.get(router_id, ())
            if other.unit != unit and is_established(other.transport)
        ]


class Connection(asyncio.Protocol):
    """One tunnel, seen from behind the edge."""

    transport: asyncio.Transport

    def __init__(self, sources: Sources, unit: str) -> None:
        self.sources = sources
        self.unit = unit
        self.number = 0
        self.router_id = ""
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
            alive = is_established(self.transport)
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
            self.transport.write(frame(payload[:2], CLOSE, masked=False))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.router_id:
            self.sources.by_id[self.router_id].discard(self)
            self.sources.journal.note("end", conn=self.number)


async def serve(journal: Path, addresses: list[tuple[str, str, int]]) -> None:
    """Serves every (unit, host, port) until SIGTERM."""
    sources = Sources(Journal(journal))
    loop = asyncio.get_running_loop()
    for unit, host, port in addresses:
        await loop.create_server(lambda unit=unit: Connection(sources, unit), host, port, backlog=4096)
    print("ready", flush=True)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()


@click.command()
@click.option("--journal", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.argument("addresses", nargs=-1)
def main(journal: Path, addresses: tuple[str, ...]) -> None:
    """Serve UNIT=HOST:PORT ..."""
    parsed = []
    for text in addresses:
        unit, _, address = text.partition("=")
        host, _, port = address.rpartition(":")
        parsed.append((unit, host, int(port)))
    asyncio.run(serve(journal, parsed))


if __name__ == "__main__":
    main()
