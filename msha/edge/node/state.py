"""The state directory of a node: what a node knows about itself when its processes are gone.

======================  =====================================================================================
``lock``                held with flock by the agent and, through the inherited descriptor, by every worker;
                        its text is the agent's process id
``instance``            the identity of this directory, a UUID, made once
``snapshot.json``       the canonical body of the newest snapshot
``snapshot.meta``       whose body that is: version, digest, enrolment, node, unit, namespace
``tombstone``           the enrolment that this node has left, or that was revoked
``control``             where the console is and which file has the token, for ``leave`` of a stopped node
======================  =====================================================================================

Every file is replaced as a whole: temporary file, fsync, rename, fsync of the directory. The description is
written before the body and also names the body that it replaces, so that a crash between the two leaves the
older snapshot whole instead of none.
"""

import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from msha.steering.errors import Terminal, Transient
from msha.steering.snapshot import digest_of

LOCK = "lock"
INSTANCE = "instance"
BODY = "snapshot.json"
DESCRIPTION = "snapshot.meta"
TOMBSTONE = "tombstone"
REHEARSAL = "rehearsal"
CONTROL = "control"
AGENT = "agent"
LEAVE = "leave"

#: The reason of a tombstone whose text is lost.
UNREADABLE = "unreadable"

#: How long opening waits for the workers of an agent that was killed; they end by themselves.
LOCK_WAIT_S = 2.0


@dataclass(eq=False)
class DirectoryInUse(Transient):
    """The lock of the state directory is held by another process."""

    directory: Path
    holder: int | None
    holder_alive: bool

    def __str__(self) -> str:
        if self.holder_alive:
            return (
                f"The state directory {self.directory} is in use by the agent with process id {self.holder}. "
                "Stop that agent first, or give this one a --state-dir of its own."
            )
        return (
            f"A worker of an agent that is gone still holds the state directory {self.directory}. "
            "It ends by itself within seconds; try again then."
        )


@dataclass(eq=False)
class UnusableDirectory(Terminal):
    """The state directory cannot be used as it is."""

    directory: Path
    problem: str

    def __str__(self) -> str:
        return f"The state directory {self.directory} cannot be used: {self.problem}"


@dataclass(eq=False)
class OlderVersion(Terminal):
    """A snapshot below the one that the directory has (PROTOCOL I6)."""

    version: int
    stored: int

    def __str__(self) -> str:
        return f"Version {self.version} is below version {self.stored}, which this node has stored already."


@dataclass(eq=False)
class OtherDigest(Terminal):
    """A second content for a version that the directory has (PROTOCOL I5)."""

    version: int
    digest: str
    stored: str

    def __str__(self) -> str:
        return (
            f"Version {self.version} came with digest {self.digest[:12]}…, but this node has stored the same "
            f"version with digest {self.stored[:12]}…; a version has one digest for ever."
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the node is, as the console told it; a state directory belongs to one node for ever."""

    node: str
    unit: str
    namespace_id: str


@dataclass(frozen=True, slots=True)
class Description:
    """What ``snapshot.meta`` says of a body."""

    version: int
    digest: str
    enrolment: int
    node: str
    unit: str
    namespace_id: str

    @property
    def identity(self) -> Identity:
        """The node that the body was sent to."""
        return Identity(self.node, self.unit, self.namespace_id)


@dataclass(frozen=True, slots=True)
class Stored:
    """A snapshot with the description it was stored under; ``body`` has the digest that is described."""

    description: Description
    body: bytes

    @property
    def version(self) -> int:
        """The version of the body."""
        return self.description.version

    @property
    def digest(self) -> str:
        """The digest of the body."""
        return self.description.digest

    @property
    def enrolment(self) -> int:
        """The enrolment under which the body was received."""
        return self.description.enrolment


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The statement that the node may not start from its file.

    Attributes:
        enrolment: the enrolment that ended; a later one makes the tombstone void.
        reason: ``left`` or ``revoked``.
        told: whether the console is known to have been told.
    """

    enrolment: int
    reason: str
    at: str
    told: bool = False

    @classmethod
    def now(cls, enrolment: int, reason: str, *, told: bool = False) -> Self:
        """A tombstone of this moment."""
        return cls(enrolment, reason, datetime.now(UTC).isoformat(timespec="seconds"), told)


@dataclass(frozen=True, slots=True)
class ControlAddress:
    """Where the console is and where the token lies; the token itself is never copied."""

    url: str
    token_file: str


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """What the agent of a node says of itself for as long as it runs.

    Attributes:
        address: where its workers listen.
        leaving: whether it has been told to leave and does so.
    """

    pid: int
    address: str
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class LeaveRequest:
    """How the agent shall leave; it looks for one when it gets the signal.

    Attributes:
        drain_s: how long sessions may take to end, or None for as long as the agent's options say.
        hand_over: another node of the unit listens on the port by now.
    """

    drain_s: float | None = None
    hand_over: bool = False


class StateDirectory:
    """A locked state directory; the lock lasts until this process and every child given the descriptor ended.

    Attributes:
        stored: the newest whole snapshot, or None.
        floor: version and digest below which nothing may be applied, or None; it outlives a torn body.
        tombstone: set while the node may start only by enrolling anew.
        torn: why a snapshot file that exists is not used, or an empty text.
    """

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.lock_fd = lock_fd
        self.stored: Stored | None = None
        self.floor: Description | None = None
        self.tombstone: Tombstone | None = None
        self.torn = ""
        self.instance = ""

    @classmethod
    def open(cls, path: Path, *, wait_s: float = LOCK_WAIT_S) -> Self:
        """The directory, made if needed, locked and read.

        Raises:
            DirectoryInUse: an agent, or a worker of one that is gone, holds the lock.
            UnusableDirectory: it cannot be written, or its identity is unreadable.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnusableDirectory(path, f"{error.strerror}.") from error
        try:
            _lock(path, lock_fd, wait_s)
            directory = cls(path, lock_fd)
            directory._read()
        except BaseException:
            os.close(lock_fd)
            raise
        return directory

    def close(self) -> None:
        """The lock is given up by this process (a child that inherited it still holds it)."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1

    def check_version(self, version: int, digest: str) -> None:
        """Nothing, if a snapshot of this version and digest may be applied here.

        Raises:
            OlderVersion: the directory has a newer one.
            OtherDigest: the directory has the same version with another content.
        """
        if self.floor is None:
            return
        if version < self.floor.version:
            raise OlderVersion(version, self.floor.version)
        if version == self.floor.version and digest != self.floor.digest:
            raise OtherDigest(version, digest, self.floor.digest)

    def write_snapshot(self, snapshot: Stored) -> None:
        """The snapshot is on disk and a restart finds it; a tombstone of an earlier enrolment is gone.

        Raises:
            OlderVersion, OtherDigest: as :meth:`check_version`.
            OSError: the disk refused; what was stored before is still whole.
        """
        self.check_version(snapshot.version, snapshot.digest)
        before = self.stored
        known = snapshot.description
        described: dict[str, Any] = asdict(known)
        if before is not None and before.description != known:
            described["replaces"] = asdict(before.description)
        self._write(DESCRIPTION, _json(described))
        if before is None or before.digest != snapshot.digest:
            self._write(BODY, snapshot.body)
        self.stored, self.floor, self.torn = snapshot, known, ""
        if self.tombstone is not None and self.tombstone.enrolment < known.enrolment:
            (self.path / TOMBSTONE).unlink(missing_ok=True)
            self._sync()
            self.tombstone = None

    def rehearse(self) -> float:
        """How long the disk takes for what is stored, in ms; it is written beside it and removed again.

        Raises:
            OSError: the disk refused, as it would a new version.
        """
        if self.stored is None:
            return 0.0
        began = time.perf_counter()
        rehearsal = self.path / REHEARSAL
        try:
            _replace(rehearsal, self.stored.body)
        finally:
            rehearsal.unlink(missing_ok=True)
        return round((time.perf_counter() - began) * 1000, 1)

    def write_tombstone(self, tombstone: Tombstone) -> None:
        """The node does not start from its file any more, whatever happens.

        Raises:
            OSError: the disk refused, and the snapshot could not be removed either.
        """
        try:
            self._write(TOMBSTONE, _json(asdict(tombstone)))
        except OSError:
            # A full disk takes no tombstone, but it lets go of the file that the tombstone would forbid.
            (self.path / BODY).unlink(missing_ok=True)
            self._sync()
            self.stored = None
        self.tombstone = tombstone

    def mark_told(self) -> None:
        """The tombstone says that the console knows."""
        if self.tombstone is not None:
            self.write_tombstone(replace(self.tombstone, told=True))

    def write_control(self, address: ControlAddress) -> None:
        """``leave`` finds the console also when no agent runs."""
        if self.read_control() != address:
            self._write(CONTROL, _json(asdict(address)))

    def read_control(self) -> ControlAddress | None:
        """The console that the node was last run with, or None."""
        try:
            return ControlAddress(**json.loads((self.path / CONTROL).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write_agent(self, agent: RunningAgent) -> None:
        """Other commands on this machine can read what the agent says of itself.

        Raises:
            OSError: the disk refused.
        """
        self._write(AGENT, _json(asdict(agent)))

    def take_request(self) -> LeaveRequest | None:
        """The request that lay there, or None; it is gone."""
        taken = self.path / f".{LEAVE}.taken"
        try:
            (self.path / LEAVE).rename(taken)
            raw = json.loads(taken.read_bytes())
            drain_s = raw["drain_s"]
            return LeaveRequest(None if drain_s is None else float(drain_s), bool(raw["hand_over"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _read(self) -> None:
        self.instance = self._read_instance()
        self.tombstone = self._read_tombstone()
        self._read_snapshot()
        if self.tombstone and self.tombstone.reason == UNREADABLE and self.floor:
            self.tombstone = replace(self.tombstone, enrolment=self.floor.enrolment)
        if self.tombstone and self.stored and self.tombstone.enrolment < self.stored.enrolment:
            self.tombstone = None  # a crash came between storing the new enrolment and removing the old stone

    def _read_instance(self) -> str:
        try:
            text = (self.path / INSTANCE).read_text(encoding="ascii").strip()
            return str(uuid.UUID(text))
        except FileNotFoundError:
            made = str(uuid.uuid4())
            try:
                self._write(INSTANCE, made.encode() + b"\n")
            except OSError as error:
                raise UnusableDirectory(self.path, f"{error.strerror}.") from error
            return made
        except (OSError, ValueError) as error:
            problem = "the file instance does not hold a UUID; restore it, or start with an empty directory."
            raise UnusableDirectory(self.path, problem) from error

    def _read_tombstone(self) -> Tombstone | None:
        try:
            raw = (self.path / TOMBSTONE).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return Tombstone(
                **checked(json.loads(raw), {"enrolment": int, "reason": str, "at": str, "told": bool})
            )
        except (ValueError, TypeError):
            # Unreadable is not absent: it stays in force until the node is enrolled anew.
            return Tombstone(0, UNREADABLE, "")

    def _read_snapshot(self) -> None:
        try:
            raw = json.loads((self.path / DESCRIPTION).read_bytes())
            described = _description(raw)
            replaced = _description(raw["replaces"]) if "replaces" in raw else None
        except FileNotFoundError:
            if (self.path / BODY).exists():
                self.torn = f"{BODY} has no {DESCRIPTION}"
            return
        except (OSError, ValueError, TypeError) as error:
            self.torn = f"{DESCRIPTION} is unreadable ({error})"
            return
        self.floor = described
        try:
            body = (self.path / BODY).read_bytes()
        except OSError as error:
            self.torn = f"{BODY} is unreadable ({error.strerror})"
            return
        digest = digest_of(body)
        if digest == described.digest:
            self.stored = Stored(described, body)
        elif replaced is not None and digest == replaced.digest:
            self.stored, self.floor = Stored(replaced, body), replaced
        else:
            self.torn = f"{BODY} does not have the digest of version {described.version}"

    def _write(self, name: str, data: bytes) -> None:
        _replace(self.path / name, data)

    def _sync(self) -> None:
        _sync(self.path)


def _replace(path: Path, data: bytes) -> None:
    """The file holds the data, on disk; a crash leaves it whole, as it was or as it is.

    Raises:
        OSError: the disk refused; the file is as it was.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    _sync(path.parent)


def write_request(path: Path, request: LeaveRequest) -> None:
    """The agent that runs on the directory finds the request when it gets the signal.

    Raises:
        OSError: it cannot be written.
    """
    _replace(path / LEAVE, _json(asdict(request)))


def withdraw_request(path: Path) -> None:
    """No request lies there."""
    (path / LEAVE).unlink(missing_ok=True)


def holder(path: Path) -> int | None:
    """The process id of the running agent that holds the lock of the directory, or None.

    A process id in the file may belong to somebody else by now, so the process must have the lock open.
    """
    try:
        pid = int((path / LOCK).read_text(encoding="ascii") or "0")
        return pid if _has_open(pid, (path / LOCK).stat()) else None
    except (OSError, ValueError):
        return None


def processes_on(path: Path) -> list[int]:
    """The process ids of the agent and the workers that run on the directory, as far as we may see them."""
    try:
        wanted = (path / LOCK).stat()
    except OSError:
        return []
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _has_open(pid, wanted)]


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            found = descriptor.stat()
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


def _lock(path: Path, lock_fd: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise UnusableDirectory(path, f"it cannot be locked ({error.strerror}).") from error
        agent = holder(path)
        if agent is not None or time.monotonic() >= deadline:
            raise DirectoryInUse(path, agent, agent is not None)
        time.sleep(0.05)
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def _description(raw: object) -> Description:
    return Description(
        **checked(
            raw,
            {"version": int, "digest": str, "enrolment": int, "node": str, "unit": str, "namespace_id": str},
        )
    )


def checked(raw: object, wanted: Mapping[str, type]) -> dict[str, Any]:
    """The wanted members of a JSON object.

    Raises:
        ValueError: one is missing or of another type.
    """
    if not isinstance(raw, dict):
        raise ValueError("not an object")
    for name, kind in wanted.items():
        if type(raw.get(name)) is not kind:
            raise ValueError(f"{name} is missing or not {kind.__name__}")
    return {name: raw[name] for name in wanted}
