"""The server behind the edges of the demo: ``python -m msha.demo.backsource --city hangzhou --port 9101``.

It talks as the server in the product's document does. Who connects is told ``Welcome to the
server!hangzhou``, the others read ``hangzhou new connection: /``; every few seconds all get a random number
with the city, and what one client says all get as ``<text>:hangzhou``. With ``--tick-s`` it also counts aloud
(``tick 17:hangzhou``), so that a listener can tell that it missed nothing.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import click

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def answer_plain_http(scope: Scope, receive: Receive, send: Send) -> None:
    """A plain request is told what lives here."""
    body = b"This is a WebSocket server.\n"
    headers = [(b"content-type", b"text/plain"), (b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def make_application(city: str, *, every_s: float, tick_s: float | None) -> Any:
    """The Channels application. Everybody in it is in one room, as long as the process lives."""
    from django.conf import settings

    if not settings.configured:
        settings.configure()

    from autobahn.exception import Disconnected
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter

    room: set[Any] = set()
    clocks: list[asyncio.Task[None]] = []

    async def tell(text: str, everybody_but: Any = None) -> None:
        for visitor in list(room):
            if visitor is everybody_but or visitor not in room:
                continue
            try:
                await visitor.send(text_data=text)
            except Disconnected:  # its close is under way; the others must not lose a message by that
                room.discard(visitor)

    async def say_numbers() -> None:
        while True:
            await asyncio.sleep(every_s)
            await tell(f"{random.random()}:{city}")

    async def count(interval_s: float) -> None:
        loop = asyncio.get_running_loop()
        start, number = loop.time(), 0
        while True:
            number += 1
            # From the start, not from the last tick: a busy moment delays ticks, it does not slow the clock.
            await asyncio.sleep(max(0.0, start + number * interval_s - loop.time()))
            await tell(f"tick {number}:{city}")

    class Visitor(AsyncWebsocketConsumer):
        channel_layer_alias = "none"  # whatever is configured: the room loses no message, a layer may

        async def connect(self) -> None:
            if not clocks:
                clocks.append(asyncio.create_task(say_numbers()))
                if tick_s is not None:
                    clocks.append(asyncio.create_task(count(tick_s)))
            await self.accept()
            await self.send(text_data=f"Welcome to the server!{city}")
            room.add(self)
            await tell(f"{city} new connection: {self.scope['path']}", everybody_but=self)

        async def disconnect(self, code: int) -> None:
            room.discard(self)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            text = text_data if text_data is not None else (bytes_data or b"").decode(errors="replace")
            await tell(f"{text}:{city}")

    return ProtocolTypeRouter({"http": answer_plain_http, "websocket": Visitor.as_asgi()})


@click.command()
@click.option("--city", required=True, help="Named in every message.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", required=True, type=click.IntRange(1, 65535))
@click.option(
    "--every-s",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.01),
    help="Seconds between random numbers.",
)
@click.option(
    "--tick-s", default=None, type=click.FloatRange(0.005), help="Seconds between numbered messages."
)
def main(city: str, host: str, port: int, every_s: float, tick_s: float | None) -> None:
    """Serve until told to stop."""
    application = make_application(city, every_s=every_s, tick_s=tick_s)
    from daphne.server import Server

    Server(
        application,
        endpoints=[f"tcp:port={port}:interface={host}"],
        ready_callable=lambda: print("ready", flush=True),
        # Sessions are long and quiet clients are fine; the edge in front has its own deadlines.
        ping_interval=None,
        websocket_timeout=-1,
        server_name="msha-demo",
    ).run()


if __name__ == "__main__":
    main()
