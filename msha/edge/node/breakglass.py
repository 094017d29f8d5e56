"""An edge without a console: it obeys one snapshot file, on the operator's word (``run --snapshot``)."""

import asyncio
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from msha.edge.node.metrics import Standing
from msha.edge.node.process import EdgeProcess, Exit, Options, Stop
from msha.edge.node.state import StateDirectory, UnusableDirectory
from msha.edge.node.workers import NotApplied, Order
from msha.edge.servers import servers_of
from msha.steering.errors import InvalidSnapshot
from msha.steering.snapshot import Snapshot, load

log = structlog.get_logger("msha.edge.agent")

#: There is nobody who could know better than the file: in sync until the clock ends.
FOREVER = 1e15


def read_snapshot(path: Path, unit: str) -> tuple[Snapshot, bytes]:
    """The snapshot in a file, and its canonical body.

    Raises:
        InvalidSnapshot: the file is unreadable, not a snapshot, or does not know the unit.
    """
    try:
        body = path.read_bytes().rstrip(b"\n")
    except OSError as error:
        raise InvalidSnapshot("file", f"cannot be read ({error.strerror})") from error
    snapshot = load(body)
    if unit not in snapshot.units:
        raise InvalidSnapshot("document", f"has no unit {unit!r}; it knows {', '.join(snapshot.units)}")
    return snapshot, body


def refuse_buried(directory: StateDirectory, snapshot: Snapshot) -> None:
    """Nothing, if a node with this state directory may serve the snapshot without asking a console.

    The file is the operator's word on what to serve, not on whether this node may serve at all: one that has
    left or was declared dead starts only by enrolling anew, and none goes back to an older version.

    Raises:
        UnusableDirectory: it has a tombstone.
        OlderVersion, OtherDigest: it has a newer snapshot of the same namespace.
    """
    tombstone = directory.tombstone
    if tombstone is not None:
        problem = (
            f"its node has ended ({tombstone.reason}) and starts only by being enrolled anew."
            " Where a console is not to be had, give another --state-dir, or none: then it rests on your word"
            " that no other unit serves the same ids."
        )
        raise UnusableDirectory(directory.path, problem)
    if directory.floor is not None and directory.floor.namespace_id == snapshot.namespace_id:
        directory.check_version(snapshot.version, snapshot.digest)


class BreakGlass(EdgeProcess):
    """Serves what the file says and reads it again on SIGHUP."""

    def __init__(
        self,
        options: Options,
        reserved: socket.socket,
        path: Path,
        unit: str,
        first: tuple[Snapshot, bytes],
        inherited: tuple[int, ...] = (),
    ) -> None:
        super().__init__(options, reserved, inherited)
        self._path = path
        self._unit = unit
        self._first = first
        self._wanted = asyncio.Event()
        self._applied: Snapshot | None = None
        self._refused = False

    def standing(self) -> Standing:
        has, listening = self._applied, self.fleet is not None and self.fleet.listening
        return Standing(
            unit=self._unit,
            node="",
            version=has.version if has else 0,
            epoch=has.epoch if has else -1,
            refused=self._refused,
            in_sync=has is not None,
            connected=None,
            listening=listening,
            parked=False,
            draining=self.draining,
            back_sources=servers_of(has, self._unit) if has else frozenset(),
        )

    def works(self) -> list[Coroutine[Any, Any, None]]:
        return [self._obey()]

    def reload(self) -> None:
        self._wanted.set()
        if self.options.tls is not None:
            super().reload()

    async def _obey(self) -> None:
        fleet = self.start_fleet(self._unit)
        fleet.sync(FOREVER)
        snapshot, body = self._first
        while True:
            try:
                await fleet.apply(Order(snapshot.version, snapshot.digest, snapshot.epoch, body))
            except NotApplied as error:
                self.stop(Stop(Exit.FAILED, str(error)))
                return
            self._applied, self._refused = snapshot, False
            log.info("applied", version=snapshot.version, digest=snapshot.digest, epoch=snapshot.epoch)
            fleet.listen()
            snapshot, body = await self._next()

    async def _next(self) -> tuple[Snapshot, bytes]:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                return read_snapshot(self._path, self._unit)
            except InvalidSnapshot as error:
                self._refused = True
                log.error("file_refused", path=str(self._path), reason=str(error))
