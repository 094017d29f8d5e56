"""Coroutines that are driven where they stand and become a task only if they have to wait."""

import asyncio
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any

Coro = Coroutine[Any, Any, None]


def begun(coroutine: Coro, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """None if the coroutine has returned without waiting; else the task that goes on with it.

    Raises:
        Exception: what the coroutine raised before it waited.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return loop.create_task(_continued(coroutine, waits_for))


async def _continued(coroutine: Coro, waits_for: Any) -> None:
    while True:
        try:
            result = await _Wait(waits_for)
        except BaseException as error:  # noqa: BLE001  also a cancellation: it is the coroutine's, not ours
            resume = partial(coroutine.throw, error)
        else:
            resume = partial(coroutine.send, result)
        try:
            waits_for = resume()
        except StopIteration:
            return


class _Wait:
    """Passes what a coroutine waits for on to the task that runs now."""

    __slots__ = ("_waits_for",)

    def __init__(self, waits_for: Any) -> None:
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self._waits_for)
