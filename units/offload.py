"""Database work for the control streams, off the event loop.

The threads are our own and few, and keep their connections: Channels' ``database_sync_to_async`` closes the
connection after every call, which costs more than the call.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

from django.db import Error, connection, connections

#: Work that takes longer is given up by its caller; the thread still ends it.
DEADLINE_S = 10.0

P = ParamSpec("P")
T = TypeVar("T")


@cache
def _pool() -> ThreadPoolExecutor:
    # SQLite has one writer: a second thread of ours would only wait for the first, in SQLite's coarse sleeps.
    workers = 1 if connection.vendor == "sqlite" else 4
    return ThreadPoolExecutor(workers, thread_name_prefix="control-stream")


async def offload(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns, run in a thread with a database connection.

    Raises:
        TimeoutError: it took longer than `DEADLINE_S`.
    """
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.get_running_loop().run_in_executor(_pool(), lambda: _run(work, *args, **kwargs))


def _run(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return work(*args, **kwargs)
    except Error:
        connections.close_all()  # the next call dials anew: the server may have been restarted
        raise
