"""Taking the port of another node over (``run --take-over``): an upgrade that loses nothing.

The other node, the predecessor, is of the same unit and serves on. This one enrols, obeys and listens beside
it on the same port; only when it could serve alone the predecessor is told to leave. Whatever goes wrong
before that, the predecessor knows nothing of it. Both are enrolled until the predecessor has left, and both
obey every snapshot meanwhile (PROTOCOL 3).
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from msha.edge.logs import complain
from msha.edge.node.control import Turned
from msha.edge.node.neighbour import Neighbour
from msha.edge.node.process import InvalidBind, format_address
from msha.edge.node.state import DESCRIPTION, Identity, LeaveRequest
from msha.edge.node.workers import HAND_OVER_S, Fleet
from msha.edge.port.shared_port import listeners
from msha.steering.errors import Terminal

#: How long the predecessor may take to hear that it is to leave.
HEARD_WITHIN_S = 10.0
#: How long it may take to close its listeners after that; it serves what was on its way to them first.
CLOSED_WITHIN_S = HAND_OVER_S + 10.0
LOOK_EVERY_S = 0.1

log = structlog.get_logger("msha.edge.agent")


class CannotTakeOver(Terminal):
    """There is no node whose port could be taken over."""

    def __init__(self, directory: Path, problem: str) -> None:
        super().__init__(directory, problem)
        self.directory = directory
        self.problem = problem

    def __str__(self) -> str:
        return f"The node of {self.directory} cannot be taken over: {self.problem}"


class Succession:
    """From a predecessor that serves to one that leaves.

    Attributes:
        pending: whether the predecessor has still to be told; until then it serves, and this node need not.
    """

    def __init__(self, predecessor: Neighbour, host: str, port: int, drain_s: float | None) -> None:
        self.predecessor = predecessor
        self.pending = not predecessor.leaving
        self._host, self._port = host, port
        self._drain_s = drain_s

    def check(self, identity: Identity) -> None:
        """Nothing, if a node of this identity may follow the predecessor.

        Raises:
            Turned: it is of another unit or namespace.
        """
        other = self.predecessor.identity
        if other is None or (other.unit, other.namespace_id) == (identity.unit, identity.namespace_id):
            return
        which = f"unit {other.unit}" if other.unit != identity.unit else "another namespace"
        mine = f"unit {identity.unit}" if other.unit != identity.unit else "its own"
        raise Turned(
            f"Node {identity.node} of {mine} cannot take over from node {other.node} of {which}"
            f" ({self.predecessor.path}). Register a node of {which} and give its token to this one."
        )

    def check_port(self, host: str, port: int) -> None:
        """Nothing, if nobody listens there but the predecessor.

        Raises:
            InvalidBind: somebody does.
        """
        theirs = self.predecessor.listeners()
        if any(listener not in theirs for listener in listeners() if listener.answers_for(host, port)):
            path = self.predecessor.path
            problem = f"another program listens there, too, not only the node of {path}."
            raise InvalidBind(format_address(host, port), problem)

    async def complete(self, fleet: Fleet, wanted: Callable[[], bool]) -> None:
        """The predecessor has been told to leave and no connection goes to it any more; or why not was said.

        Args:
            fleet: listens on the port.
            wanted: whether this node is still going to serve.
        """
        try:
            theirs = await self._listeners()
            if self.pending and not await fleet.prefer(len(theirs)):
                # They reach us all the same, half of them a second late.
                log.warning("new_connections_not_steered", directory=str(self.predecessor.path))
            if self.pending and wanted():
                await self._tell()
            if not self.pending:
                await self._until_closed(theirs)
        except (OSError, TimeoutError) as error:
            self._complain(error)
        finally:
            fleet.prefer_none()

    async def until_left(self, fleet: Fleet) -> None:
        """The predecessor's process has ended; whether it left by that has been said."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            with self.predecessor.process() as descriptor:
                loop.add_reader(descriptor, ended.set)
                try:
                    await ended.wait()
                finally:
                    loop.remove_reader(descriptor)
        except ProcessLookupError:
            pass
        fleet.prefer_none()  # again: it may have closed its listeners later than we waited for
        path = self.predecessor.path
        if Neighbour.look(path).ended:
            log.info("predecessor_left", directory=str(path))
        else:
            complain(_still_enrolled(path))

    async def _listeners(self) -> set[int]:
        theirs = await asyncio.to_thread(self.predecessor.listeners)
        return {each.inode for each in theirs if each.answers_for(self._host, self._port)}

    async def _tell(self) -> None:
        await asyncio.to_thread(self.predecessor.ask_to_leave, LeaveRequest(self._drain_s, hand_over=True))
        self.pending = False
        deadline = time.monotonic() + HEARD_WITHIN_S
        while not Neighbour.look(self.predecessor.path).leaving:
            if time.monotonic() > deadline:
                raise TimeoutError("it does not react")
            await asyncio.sleep(LOOK_EVERY_S)
        log.info("predecessor_leaves", directory=str(self.predecessor.path), drain_s=self._drain_s)

    async def _until_closed(self, theirs: set[int]) -> None:
        deadline = time.monotonic() + CLOSED_WITHIN_S
        while any(listener.inode in theirs for listener in listeners()):
            if time.monotonic() > deadline:
                raise TimeoutError("it still listens")
            await asyncio.sleep(LOOK_EVERY_S)
        log.info("taken_over", address=format_address(self._host, self._port))

    def _complain(self, error: Exception) -> None:
        path = self.predecessor.path
        log.error("predecessor_not_told", directory=str(path), reason=str(error))
        complain(
            f"The node of {path} could not be told to leave ({error}), so both serve the port. Run"
            f" `python -m msha.edge leave --state-dir {path}`; connections that are just being made to it are"
            " lost then."
        )


def begin(path: Path, own: Path, host: str, port: int, drain_s: float | None) -> Succession | None:
    """The node of the directory ``path`` may be followed on the port; None if it has ended already.

    A node that was enrolled before serves in any case: its predecessor may have ended since, and the option
    is still in the command that starts it.

    Args:
        own: the state directory of the node that takes over.
        drain_s: how long the predecessor's sessions may take to end; None for as long as its own options say.

    Raises:
        CannotTakeOver: there is nobody to take over from, or nobody who may be taken over.
        InvalidBind: it listens elsewhere, or is not the only one there.
    """
    seen = Neighbour.look(path)
    if seen.pid is None and seen.ended:
        log.info("predecessor_left", directory=str(path))
        return None
    if seen.pid is None and (own / DESCRIPTION).exists():
        complain(_still_enrolled(path))
        return None
    _check_serving(seen, format_address(host, port))
    succession = Succession(seen, host, port, drain_s)
    succession.check_port(host, port)
    if not seen.leaving and not any(listener.answers_for(host, port) for listener in listeners()):
        problem = "it does not listen now. Wait until it does, or let it leave and start without --take-over."
        raise CannotTakeOver(path, problem)
    return succession


def _check_serving(seen: Neighbour, address: str) -> None:
    """A node of a console runs there and listens on the address.

    Raises:
        CannotTakeOver, InvalidBind: which of it is not so.
    """
    if seen.pid is None:
        raise CannotTakeOver(
            seen.path, "no agent runs there. Let it leave, then start this one without --take-over."
        )
    if seen.agent is None or seen.identity is None:
        raise CannotTakeOver(
            seen.path,
            f"process {seen.pid} is no enrolled node of a console, so nobody would tell it of cutovers while"
            " it drains. End it with SIGTERM, then start this one without --take-over.",
        )
    if seen.agent.address != address:
        raise InvalidBind(address, f"the node of {seen.path} listens on {seen.agent.address}.")


def _still_enrolled(path: Path) -> str:
    return (
        f"The node of {path} does not run, but it has not left: cutovers wait for it. Run"
        f" `python -m msha.edge leave --state-dir {path}`, or start it again on another port."
    )
