"""Which step of a cutover runs now, read from the database itself, so that a fault can strike in it."""

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

EVERY_S = 0.002

#: State, epoch, turns.
Seen = tuple[str, int, int]

QUERY = "select state, epoch, turns from cutover_cutover where number = "


class Rows(Protocol):
    """As much of a database connection as is needed."""

    def execute(self, query: str) -> Any: ...

    def close(self) -> None: ...


def opener(database_url: str | None, sqlite_file: Path) -> Callable[[], Rows]:
    """Opens a connection that reads only, in the thread that calls it."""
    if database_url is None:
        return lambda: sqlite3.connect(
            f"file:{sqlite_file}?mode=ro", uri=True, isolation_level=None, timeout=0.2
        )

    def connect() -> Rows:
        import psycopg

        return psycopg.connect(database_url, autocommit=True, connect_timeout=1)

    return connect


class Watch:
    """A thread that follows one cutover and calls out once per step; use it as a context."""

    def __init__(self, connect: Callable[[], Rows], number: int, told: Callable[[Seen], None]) -> None:
        self._connect = connect
        self._number = number
        self._told = told
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self.seen: list[tuple[float, Seen]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(30)

    @property
    def state(self) -> str:
        """The last state that was seen."""
        return self.seen[-1][1][0] if self.seen else ""

    def _watch(self) -> None:
        rows: Rows | None = None
        while not self._over.wait(EVERY_S):
            try:
                rows = rows or self._connect()
                row = rows.execute(f"{QUERY}{self._number}").fetchone()
            except Exception:  # noqa: BLE001  the database is away: that is one of the faults
                rows = None
                self._over.wait(0.1)
                continue
            if row is not None and (not self.seen or self.seen[-1][1] != tuple(row)):
                self.seen.append((time.monotonic(), (str(row[0]), int(row[1]), int(row[2]))))
                self._told(self.seen[-1][1])
        if rows is not None:
            rows.close()
