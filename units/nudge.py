"""Nudges: "look again" to whoever watches a namespace, in this process at once and in others through Redis.

Nothing is true because a nudge arrived, and nothing is missed for good because one did not: whoever is nudged
reads the database, and does so every second or so anyway. So a nudge never waits long and never fails its
sender.
"""

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import structlog
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

#: A nudge through Redis is given up after this long.
SEND_DEADLINE_S = 1.0
#: The group is joined anew this often: a Redis that restarts forgets every member.
REJOIN_S = 15.0
#: After a failure of Redis the listener tries again this much later.
RETRY_S = 2.0

log = structlog.get_logger(__name__)


def group(namespace_pk: int) -> str:
    """The channel-layer group of a namespace. Its messages have the type ``namespace.nudged``."""
    return f"ns.{namespace_pk}"


class Watch:
    """One watcher's end: `woken` is set by every nudge until the watcher clears it."""

    __slots__ = ("loop", "woken")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.woken = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Whether a nudge came since the last call, waiting for one at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        return True


class Hub:
    """The watches of this process, and per namespace and event loop one listener that feeds them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[int, set[Watch]] = defaultdict(set)
        self._listeners: dict[tuple[int, asyncio.AbstractEventLoop], asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def watching(self, namespace_pk: int) -> AsyncIterator[Watch]:
        """A watch that nudges of the namespace wake, from inside this block on."""
        watch = Watch()
        key = (namespace_pk, watch.loop)
        with self._lock:
            self._watches[namespace_pk].add(watch)
            if key not in self._listeners:
                self._listeners[key] = watch.loop.create_task(self._listen(namespace_pk))
        try:
            yield watch
        finally:
            await self._forget(namespace_pk, watch)

    async def _forget(self, namespace_pk: int, watch: Watch) -> None:
        listener = None
        with self._lock:
            watches = self._watches[namespace_pk]
            watches.discard(watch)
            if not any(other.loop is watch.loop for other in watches):
                listener = self._listeners.pop((namespace_pk, watch.loop), None)
            if not watches:
                del self._watches[namespace_pk]
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    def wake(self, namespace_pk: int) -> None:
        """Every watch of the namespace in this process is set, or about to be; from any thread."""
        with self._lock:
            watches = list(self._watches.get(namespace_pk, ()))
        for watch in watches:
            with contextlib.suppress(RuntimeError):  # its loop was closed a moment ago
                watch.loop.call_soon_threadsafe(watch.woken.set)

    def loop(self) -> asyncio.AbstractEventLoop | None:
        """A running event loop of this process that watches something, or None."""
        with self._lock:
            return next((loop for _, loop in self._listeners if loop.is_running()), None)

    async def _listen(self, namespace_pk: int) -> None:
        """Wakes the watches for every nudge that comes through Redis, until cancelled."""
        failing = False
        while True:
            try:
                layer = get_channel_layer()
                channel = await layer.new_channel()
                while True:
                    async with asyncio.timeout(SEND_DEADLINE_S):
                        await layer.group_add(group(namespace_pk), channel)
                    if failing:
                        log.info("nudges_back", namespace_id=namespace_pk)
                        failing = False
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(REJOIN_S):
                            while True:
                                await layer.receive(channel)
                                self.wake(namespace_pk)
            except Exception as error:  # noqa: BLE001  whatever Redis does, watchers live on without it
                if not failing:
                    log.warning("nudges_lost", namespace_id=namespace_pk, error=repr(error))
                    failing = True
                await asyncio.sleep(RETRY_S)


hub = Hub()


def nudge_namespace(namespace_pk: int) -> None:
    """Whoever watches the namespace will look again soon. Call it after the commit; it never raises."""
    hub.wake(namespace_pk)
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        there = hub.loop()
        if there is None:
            async_to_sync(_send)(namespace_pk)
        else:
            asyncio.run_coroutine_threadsafe(_send(namespace_pk), there)
        return
    task = here.create_task(_send(namespace_pk))
    _sending.add(task)
    task.add_done_callback(_sending.discard)


_sending: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references to tasks


async def _send(namespace_pk: int) -> None:
    message: dict[str, Any] = {"type": "namespace.nudged", "namespace_id": namespace_pk}
    try:
        async with asyncio.timeout(SEND_DEADLINE_S):
            await get_channel_layer().group_send(group(namespace_pk), message)
    except Exception as error:  # noqa: BLE001  Redis may be down; the watchers look every second anyway
        log.warning("nudge_not_sent", namespace_id=namespace_pk, error=repr(error))
