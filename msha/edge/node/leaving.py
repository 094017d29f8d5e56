"""Leaving for good (PROTOCOL J3): the tombstone is on disk first, then the console is told.

A node counts until the console has noted `left`; a node that could not tell it can be made to tell it later.
"""

import asyncio
import os
import select
import time
from pathlib import Path

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from msha.edge.node.control import DIAL_TIMEOUT_S, Unreachable, dial, hang_up
from msha.edge.node.neighbour import Neighbour
from msha.edge.node.process import software
from msha.edge.node.state import ControlAddress, LeaveRequest, StateDirectory, Tombstone
from msha.steering.errors import InvalidMessage, MshaError, Terminal, Transient
from msha.steering.wire import (
    Confirm,
    Deliver,
    Hello,
    Left,
    Refused,
    Revoked,
    Status,
    Welcome,
    decode,
    encode,
)

#: How long the console may take to note that the node has left, and to close the connection.
NOTED_TIMEOUT_S = 5.0
#: How long a node that has stopped goes on trying to tell the console.
PATIENCE_S = 8.0

log = structlog.get_logger("msha.edge.leaving")


class CannotLeave(Terminal):
    """The node cannot be made to leave as asked."""


def leave(path: Path, drain_s: float | None = None) -> None:
    """The node of this state directory has left and the console knows, whether its agent ran or not.

    Args:
        drain_s: how long the sessions of a running agent may take to end, from now on; None for as long as
            its own options say, and for no longer at all if it is draining already.

    Raises:
        MshaError: says what is missing.
    """
    if not (path / "instance").exists():
        raise CannotLeave(f"{path} is not the state directory of an edge.")
    _stop_agent(path, None if drain_s is None else LeaveRequest(drain_s))
    directory = StateDirectory.open(path, wait_s=5.0)
    try:
        enrolment = directory.floor.enrolment if directory.floor else None
        if directory.tombstone is None:
            if enrolment is None:
                return  # it never had a snapshot, so it was never counted
            directory.write_tombstone(Tombstone.now(enrolment, "left"))
        if directory.tombstone is not None and directory.tombstone.told:
            return
        control = directory.read_control()
        if control is None:
            raise CannotLeave(
                f"The node has left and will not start from its file, but {path} does not say where its "
                "console is: declare the node dead there."
            )
        asyncio.run(_say_left_or_explain(directory, control))
    finally:
        directory.close()


async def _say_left_or_explain(directory: StateDirectory, control: ControlAddress) -> None:
    try:
        await say_left_patiently(directory, control)
    except MshaError as error:
        raise CannotLeave(not_told(directory, error)) from error


async def say_left_patiently(
    directory: StateDirectory, control: ControlAddress, address: str = "", patience_s: float = PATIENCE_S
) -> None:
    """As :func:`say_left`; the console may need a moment to see that another process is gone.

    That is the agent itself for ``leave``, and one that was killed just before for an agent that leaves.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            await say_left(directory, control, address)
            return
        except Transient:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)


async def say_left(directory: StateDirectory, control: ControlAddress, address: str = "") -> None:
    """The console has noted that the node, whose tombstone is on disk, has left.

    The console's messages come in the order in which it handled ours, so its answer to the status that
    follows ``left`` proves that ``left`` was stored.

    Args:
        address: where the node listened; the console tells processes of one node apart by it.

    Raises:
        MshaError: the console was not reached, or did not note it.
    """
    socket = await dial(control.url, Path(control.token_file))
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S + NOTED_TIMEOUT_S):
            await _converse(socket, directory, address)
    except TimeoutError:
        raise Unreachable("The console did not note in time that the node has left.") from None
    except (ConnectionClosed, InvalidMessage) as error:
        raise Unreachable(f"The conversation with the console failed: {error}.") from error
    finally:
        await hang_up(socket)
    directory.mark_told()
    log.info("left", directory=str(directory.path))


async def _converse(socket: ClientConnection, directory: StateDirectory, address: str) -> None:
    await socket.send(encode(_hello(directory, address)))
    seq = 0
    while True:
        frame = await socket.recv()
        if not isinstance(frame, str):
            raise InvalidMessage("a binary frame")
        match decode(frame):
            case Welcome(enrolment=None) | Revoked():
                return  # it does not count any more
            case Welcome(enrolment=int(enrolment)) | Deliver(enrolment=enrolment):
                _end(directory, enrolment)
                seq += 1
                await socket.send(encode(Left(enrolment)))
                await socket.send(encode(_status(enrolment, seq)))
            case Confirm(seq=answered) if answered == seq:
                return
            case Refused(reason=reason):
                raise Unreachable(reason)
            case _:
                pass


def _hello(directory: StateDirectory, address: str) -> Hello:
    floor = directory.floor
    assert directory.tombstone is not None
    return Hello(
        instance=directory.instance,
        software=software(),
        address=address,
        workers=0,
        pid=os.getpid(),
        enrolment=directory.tombstone.enrolment,
        version=floor.version if floor else 0,
        digest=floor.digest if floor else "",
    )


def _status(enrolment: int, seq: int) -> Status:
    """The status of a node that has stopped; ``draining`` tells that it does not want to come back."""
    return Status(
        enrolment=enrolment,
        seq=seq,
        version=0,
        digest="",
        epoch=-1,
        clock_ms=time.time_ns() // 1_000_000,
        sessions=0,
        half_open=0,
        held=0,
        workers=0,
        listening=False,
        parked=False,
        draining=True,
        in_sync=False,
    )


def _end(directory: StateDirectory, enrolment: int) -> None:
    """The enrolment is ended by a tombstone on disk."""
    assert directory.tombstone is not None
    if directory.tombstone.enrolment < enrolment:
        directory.write_tombstone(Tombstone.now(enrolment, "left"))


def not_told(directory: StateDirectory, error: MshaError) -> str:
    """What to say of a node that has left unnoticed."""
    return (
        "This node has left and will not start from its file, but the console was not told and still counts "
        f"it: run `python -m msha.edge leave --state-dir {directory.path}` again later. ({error})"
    )


def _stop_agent(path: Path, request: LeaveRequest | None) -> None:
    """No agent runs on the directory; one that ran was asked to leave and took its time to drain."""
    agent = Neighbour.look(path)
    try:
        with agent.process() as ended:
            agent.ask_to_leave(request)
            select.select([ended], [], [])
    except ProcessLookupError:
        return
