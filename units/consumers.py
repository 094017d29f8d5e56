from channels.generic.websocket import AsyncWebsocketConsumer


class NothingHere(AsyncWebsocketConsumer):
    """Closes a WebSocket whose address leads nowhere, instead of an error in the log."""

    async def connect(self) -> None:
        await self.close(code=4404)


class ControlConsumer(AsyncWebsocketConsumer):
    """The console's end of one edge node's control stream."""

    async def connect(self) -> None:
        await self.close(code=4404)
