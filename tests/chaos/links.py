"""Between edges and consoles: a TCP proxy per edge that can be cut, silenced one way or both, made to flap.

Silence is as a lost route is: nothing is refused, nothing ends, and what was on its way arrives when the
route is back.
"""

import asyncio
import random
import signal
from pathlib import Path

import click

from tests.chaos.asked import answer_at

MODES = ("through", "silent-up", "silent-down", "silent", "cut", "flapping")
"""Up is from the edge to the console."""
FLAP_S = (0.2, 1.2)


class Link:
    """One edge's way to the consoles."""

    def __init__(self, consoles: list[tuple[str, int]]) -> None:
        self.consoles = consoles
        self.dials = 0
        self.up, self.down = asyncio.Event(), asyncio.Event()
        self.refusing = False
        self.open: set[asyncio.StreamWriter] = set()
        self.flapping: asyncio.Task[None] | None = None
        self.set("through")

    def set(self, mode: str) -> None:
        """The link behaves so from now on."""
        if self.flapping is not None:
            self.flapping.cancel()
            self.flapping = None
        if mode == "flapping":
            self.flapping = asyncio.get_running_loop().create_task(self._flap())
            return
        for gate, silent in ((self.up, "silent-up"), (self.down, "silent-down")):
            if mode in ("silent", silent):
                gate.clear()
            else:
                gate.set()
        self.refusing = mode == "cut"
        if self.refusing:
            for writer in list(self.open):
                writer.transport.abort()

    async def _flap(self) -> None:
        while True:
            for mode in (random.choice(("cut", "silent", "silent-up", "silent-down")), "through"):
                flapping, self.flapping = self.flapping, None
                self.set(mode)
                self.flapping = flapping
                await asyncio.sleep(random.uniform(*FLAP_S))

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the edge, to the consoles in turn."""
        if self.refusing:
            writer.transport.abort()
            return
        for _ in self.consoles:
            self.dials += 1
            try:
                console = self.consoles[self.dials % len(self.consoles)]
                far_reader, far_writer = await asyncio.open_connection(*console)
                break
            except OSError:
                continue
        else:
            writer.transport.abort()
            return
        self.open |= {writer, far_writer}
        pumps = [
            asyncio.create_task(_pump(reader, far_writer, self.up)),
            asyncio.create_task(_pump(far_reader, writer, self.down)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        self.open -= {writer, far_writer}
        for each in (writer, far_writer):
            each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    try:
        while data := await reader.read(1 << 16):
            await gate.wait()
            writer.write(data)
            await writer.drain()
        await gate.wait()  # an end does not overtake a silence either
    except OSError:
        pass


async def serve(state: Path, consoles: list[tuple[str, int]], edges: list[tuple[str, int]]) -> None:
    """Carries until SIGTERM; the socket takes ``EDGE MODE``."""
    links = {}
    for name, port in edges:
        links[name] = link = Link(consoles)
        await asyncio.start_server(link.carry, "127.0.0.1", port)

    def obey(command: str) -> str:
        name, mode = command.split()
        links[name].set(mode)
        return "ok"

    await answer_at(state, obey)
    print("ready", flush=True)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()


@click.command()
@click.option("--state", type=click.Path(path_type=Path), required=True)
@click.option("--console", "consoles", multiple=True)
@click.argument("edges", nargs=-1)
def main(state: Path, consoles: tuple[str, ...], edges: tuple[str, ...]) -> None:
    """Carry for EDGE=PORT ..."""
    far = [(host, int(port)) for host, _, port in (text.rpartition(":") for text in consoles)]
    near = [(name, int(port)) for name, _, port in (text.partition("=") for text in edges)]
    asyncio.run(serve(state, far, near))


if __name__ == "__main__":
    main()
