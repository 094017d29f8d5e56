"""What a Django user writes first: a consumer that relays messages to and from a WebSocket of its own.

Daphne has no way to answer a handshake with 302, so a client of another unit is only turned away.
Run by ``daphne bench.naive_relay:application`` with BENCH_BACK_SOURCE set.
"""

import asyncio
import os
from typing import Any

import websockets
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.conf import settings

FOREIGN_FROM = 5998

settings.configure(SECRET_KEY="bench", ALLOWED_HOSTS=["*"])


class Relay(AsyncWebsocketConsumer):
    """One client, one connection to the back-source, and messages carried between them."""

    async def connect(self) -> None:
        headers = dict(self.scope["headers"])
        if int(headers.get(b"routerid", b"0")) % 10000 >= FOREIGN_FROM:
            await self.close()
            return
        query = self.scope["query_string"].decode()
        url = f"ws://{os.environ['BENCH_BACK_SOURCE']}{self.scope['path']}?{query}"
        self.server = await websockets.connect(url, compression=None, max_size=None)
        await self.accept()
        self.relay = asyncio.create_task(self.relay_down())

    async def relay_down(self) -> None:
        """Every message of the back-source has gone to the client."""
        try:
            async for message in self.server:
                if isinstance(message, str):
                    await self.send(text_data=message)
                else:
                    await self.send(bytes_data=message)
        finally:
            await self.close()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A message of the client has gone to the back-source."""
        message: Any = bytes_data if text_data is None else text_data
        await self.server.send(message)

    async def disconnect(self, code: int) -> None:
        """The back-source's connection ends with the client's."""
        if hasattr(self, "relay"):
            self.relay.cancel()
            await self.server.close()


application = ProtocolTypeRouter({"websocket": Relay.as_asgi()})
