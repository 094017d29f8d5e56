"""Live progress of one cutover over a WebSocket: the whole status at once, and again after each change.

Whoever opens it late misses nothing, because each message is the whole; nothing depends on a nudge, because
the rows are looked at several times a second while the cutover runs. A plain ASGI application, because a
Channels consumer ends when Redis does.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from channels.db import database_sync_to_async
from django.core.serializers.json import DjangoJSONEncoder
from django.utils import translation

from cutover.models import Cutover
from cutover.status import status
from units.nudge import Watch, hub

#: How often the rows are looked at: while the cutover runs, and otherwise.
RUNNING_EVERY_S = 0.25
IDLE_EVERY_S = 1.0
#: Something is sent this often at least, so that a page can tell a quiet cutover from a lost connection.
HEARTBEAT_S = 5.0

#: Pages that watch the same cutover share what was computed within so long.
SHARED_FOR_S = 0.1
SHARED_LIMIT = 100

CLOSE_FORBIDDEN = 4403
CLOSE_UNKNOWN = 4404

#: Changes with every look and says nothing by itself.
_VOLATILE = ("now", "frozen_now_ms")

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


_computed: dict[tuple[int, str], tuple[float, dict[str, Any]]] = {}


class LiveCutover:
    """One page that watches one cutover."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._cutover_id = int(scope["url_route"]["kwargs"]["cutover_id"])
        self._language = str(scope.get("cookies", {}).get("django_language", "")) or _accepted(scope)

    @classmethod
    def as_asgi(cls) -> Any:
        """The ASGI application."""

        async def live(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await cls(scope, receive, send).run()

        return live

    async def run(self) -> None:
        """The page has gone, or was turned away."""
        await self._receive()  # websocket.connect
        namespace_id, code = await database_sync_to_async(self._permitted)()
        # Accepted first: a browser cannot read the reason of a refused handshake.
        await self._send({"type": "websocket.accept"})
        if namespace_id is None:
            await self._send({"type": "websocket.close", "code": code})
            return
        async with hub.watching(namespace_id) as watch:
            tasks = [asyncio.create_task(self._tell(watch)), asyncio.create_task(self._until_gone())]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _permitted(self) -> tuple[int | None, int]:
        """The namespace, if the user may look at the cutover; else the close code."""
        user = self._scope.get("user")
        if user is None or not user.is_active or not user.has_perm("cutover.view_cutover"):
            return None, CLOSE_FORBIDDEN
        row = Cutover.objects.filter(pk=self._cutover_id).values_list("namespace_id", flat=True).first()
        return row, CLOSE_UNKNOWN

    async def _tell(self, watch: Watch) -> None:
        clock = asyncio.get_running_loop().time
        said, said_at = "", 0.0
        while True:
            value = await database_sync_to_async(self._look)()
            text = json.dumps(
                {key: part for key, part in value.items() if key not in _VOLATILE}, cls=DjangoJSONEncoder
            )
            if text != said or clock() - said_at > HEARTBEAT_S:
                await self._send({"type": "websocket.send", "text": json.dumps(value, cls=DjangoJSONEncoder)})
                said, said_at = text, clock()
            active = value["phase"] in Cutover.ACTIVE or not value["settled"]
            await watch.wait(RUNNING_EVERY_S if active else IDLE_EVERY_S)

    def _look(self) -> dict[str, Any]:
        """The status; one that was computed for another page a moment ago will do."""
        key = (self._cutover_id, self._language)
        at, value = _computed.get(key, (0.0, {}))
        if time.monotonic() - at > SHARED_FOR_S:
            with translation.override(self._language or None):
                value = status(Cutover.objects.get(pk=self._cutover_id))
            if len(_computed) > SHARED_LIMIT:
                _computed.clear()
            _computed[key] = (time.monotonic(), value)
        return value

    async def _until_gone(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while (await self._receive())["type"] != "websocket.disconnect":
                pass


def _accepted(scope: dict[str, Any]) -> str:
    """The first language of the Accept-Language header that the console speaks, or ""."""
    from django.conf import settings

    spoken = {code for code, _ in settings.LANGUAGES}
    for name, value in scope.get("headers", []):
        if name == b"accept-language":
            for part in value.decode("latin-1").split(","):
                code = part.split(";")[0].strip().lower()
                if code in spoken:
                    return str(code)
                if code.startswith("zh"):
                    return "zh-hans"
    return ""
