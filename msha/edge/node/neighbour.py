"""Another node of this machine, seen through its state directory, whose lock is not ours."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import structlog

from msha.edge.node import state
from msha.edge.node.state import Identity, LeaveRequest, RunningAgent
from msha.edge.port import shared_port
from msha.edge.port.shared_port import Listener

log = structlog.get_logger("msha.edge.leaving")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What can be seen of a node at one moment.

    Attributes:
        pid: of the process that runs on the directory, or None.
        agent: what that process says of itself; None if it says nothing, as one does that has no console.
        identity: of the node whose snapshot lies there, or None.
        ended: why the node may not start from its file, or an empty text.
    """

    path: Path
    pid: int | None
    agent: RunningAgent | None
    identity: Identity | None
    ended: str

    @classmethod
    def look(cls, path: Path) -> Self:
        """The node of the directory, which need not be one: then nothing is known of it."""
        pid = state.holder(path)
        said = _read(path / state.AGENT, {"pid": int, "address": str, "leaving": bool})
        known = _read(path / state.DESCRIPTION, {"node": str, "unit": str, "namespace_id": str})
        stone = _read(path / state.TOMBSTONE, {"reason": str})
        ended = stone["reason"] if stone else state.UNREADABLE if (path / state.TOMBSTONE).exists() else ""
        return cls(
            path,
            pid,
            RunningAgent(**said) if said and said["pid"] == pid else None,
            Identity(**known) if known else None,
            ended,
        )

    @property
    def leaving(self) -> bool:
        """Whether its agent has been told to leave, and has heard it."""
        return self.agent is not None and self.agent.leaving

    def listeners(self) -> list[Listener]:
        """Where it listens: its agent and its workers."""
        mine = {inode for pid in state.processes_on(self.path) for inode in shared_port.sockets_of(pid)}
        return [listener for listener in shared_port.listeners() if listener.inode in mine]

    def ask_to_leave(self, request: LeaveRequest | None) -> None:
        """Its agent has been sent the signal, and finds the request if there is one.

        Raises:
            OSError: the process is gone, or not ours to signal, or the request cannot be written.
        """
        with self.process() as descriptor:
            if request is None:
                state.withdraw_request(self.path)
            else:
                state.write_request(self.path, request)
            try:
                log.info("asking_agent_to_leave", pid=self.pid, directory=str(self.path))
                signal.pidfd_send_signal(descriptor, signal.SIGUSR1)
            except OSError:
                state.withdraw_request(self.path)
                raise

    @contextmanager
    def process(self) -> Iterator[int]:
        """A descriptor of its process, which becomes readable when the process has ended.

        Raises:
            ProcessLookupError: it has.
        """
        if self.pid is None:
            raise ProcessLookupError
        descriptor = os.pidfd_open(self.pid)
        try:
            if state.holder(self.path) != self.pid:
                raise ProcessLookupError  # the number belongs to somebody else by now
            yield descriptor
        finally:
            os.close(descriptor)


def _read(path: Path, wanted: Mapping[str, type]) -> dict[str, Any] | None:
    """The wanted members of the JSON object in a file, or None if it does not have them."""
    try:
        return state.checked(json.loads(path.read_bytes()), wanted)
    except (OSError, ValueError):
        return None
