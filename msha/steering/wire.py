"""The messages of the control stream: JSON text frames, each with its ``type``.

Node to console: hello, ack, nack, drained, status, left, workers_exited, probe_result.
Console to node: welcome, deliver, confirm, revoked, refused, probe. Source: PROTOCOL 1-4.
"""

import json
import zlib
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, get_args, get_type_hints

from msha.steering.errors import InvalidMessage

#: Both sides refuse a peer of another generation.
PROTOCOL = 1

#: A snapshot of 1,000 domains and 1,000 ranges takes about 0.5 MB.
MESSAGE_LIMIT_BYTES = 16 * 1024 * 1024

#: A text that is sent to sessions, in UTF-8.
TEXT_LIMIT_BYTES = 16 * 1024

#: Close codes of the control stream, in the private range of RFC 6455 7.4.2.
CLOSE_BAD_TOKEN = 4401
CLOSE_REVOKED = 4403
CLOSE_OTHER_INSTANCE = 4409
CLOSE_PROTOCOL = 4400

STATUS_PERIOD_S = 1.0
#: PROTOCOL 1: a worker is in sync while a confirmation is at most this old.
IN_SYNC_S = 3.0
#: PROTOCOL 1: a node is live while its status is younger than this.
LIVE_S = 5.0


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a node on a connection.

    Attributes:
        instance: UUID of its state directory.
        enrolment: the enrolment that the directory remembers, or None.
        version, digest, epoch: what is on its disk; version 0 for nothing.
        left: the enrolment whose tombstone lies in the directory, or None.
    """

    TYPE: ClassVar[str] = "hello"
    instance: str
    software: str
    address: str
    workers: int
    pid: int
    enrolment: int | None = None
    version: int = 0
    digest: str = ""
    epoch: int = -1
    left: int | None = None
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Ack:
    """The version is on disk and in every worker; sessions the table does not give to the unit are closed."""

    TYPE: ClassVar[str] = "ack"
    enrolment: int
    version: int
    digest: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Nack:
    """The version was refused; the last good one stays in force."""

    TYPE: ClassVar[str] = "nack"
    enrolment: int
    version: int
    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class Drained:
    """No session and no half-open handshake of a frozen id is left in any worker."""

    TYPE: ClassVar[str] = "drained"
    enrolment: int
    epoch: int


def progress_key(cutover_id: str) -> int:
    """The number that stands for a cutover in the progress of a status."""
    return zlib.crc32(cutover_id.encode())


@dataclass(frozen=True, slots=True)
class Status:
    """What a node has and does; sent every second and after each change.

    Attributes:
        seq: number of this status on the present connection, from 1.
        clock_ms: the node's wall clock, Unix milliseconds; only ever shown, never compared for safety.
        progress: ``{"cutover", "epoch", "closed", "remaining", "reconnected"}``, or empty: what the newest
            cutover has done to this node's sessions since it began; ``cutover`` is its `progress_key`.
    """

    TYPE: ClassVar[str] = "status"
    enrolment: int
    seq: int
    version: int
    digest: str
    epoch: int
    clock_ms: int
    sessions: int
    half_open: int
    held: int
    workers: int
    listening: bool
    parked: bool
    draining: bool
    in_sync: bool
    counters: dict[str, int] = field(default_factory=dict)
    progress: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Left:
    """The node has drained, stopped and written its tombstone; it will not start from its file again."""

    TYPE: ClassVar[str] = "left"
    enrolment: int


@dataclass(frozen=True, slots=True)
class WorkersExited:
    """With this epoch's FREEZE on disk, no worker process is left."""

    TYPE: ClassVar[str] = "workers_exited"
    enrolment: int
    epoch: int


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The answer to a probe; ``result`` has ``ok`` (bool), ``ms`` and what the kind adds."""

    TYPE: ClassVar[str] = "probe_result"
    probe: int
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Welcome:
    """The console knows the node; ``unit`` never changes for it."""

    TYPE: ClassVar[str] = "welcome"
    node: str
    unit: str
    namespace: str
    namespace_id: str
    enrolment: int | None = None
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True)
class Deliver:
    """A snapshot to apply, under the enrolment it is for."""

    TYPE: ClassVar[str] = "deliver"
    enrolment: int
    version: int
    digest: str
    body: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """The newest version, read in the transaction that answered status ``seq``."""

    TYPE: ClassVar[str] = "confirm"
    seq: int
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """The node was declared dead: close sessions, stop listening, write a tombstone."""

    TYPE: ClassVar[str] = "revoked"
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The console will not talk to this node now; the sentence says what to do."""

    TYPE: ClassVar[str] = "refused"
    reason: str


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """Something to try from where the node stands, or to do there at once.

    ``echo``: no params. ``handshake``: ``host``, ``target``, ``headers``; against the node's own listener.
    ``back_source``: ``server`` (IP:PORT), ``host``, ``target``. ``count``: ``unit_type``, ``ranges``
    (``[[first, last], ...]``); the result has ``counts``, the live sessions in each. ``send``: ``unit_type``,
    ``ranges`` as above or ``all`` (true), ``text``; the result has ``delivered``, ``queued`` and ``skipped``
    (``{why: n}``), in sessions. It is done at most once: whoever gets no answer does not know whether it was.
    ``accepts``: no params; the result has ``accepts_per_s``, the handshakes that the node takes at least.
    """

    TYPE: ClassVar[str] = "probe"
    probe: int
    kind: str
    params: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = 3.0


FromNode = Hello | Ack | Nack | Drained | Status | Left | WorkersExited | ProbeResult
FromConsole = Welcome | Deliver | Confirm | Revoked | Refused | ProbeRequest
Message = FromNode | FromConsole

_CLASSES: dict[str, type[Any]] = {cls.TYPE: cls for cls in get_args(Message)}
_HINTS: dict[str, dict[str, Any]] = {
    name: {f.name: get_type_hints(cls)[f.name] for f in fields(cls)} for name, cls in _CLASSES.items()
}


def encode(message: Message) -> str:
    """The text frame of a message."""
    return json.dumps({"type": message.TYPE, **asdict(message)}, separators=(",", ":"), ensure_ascii=False)


def decode(text: str) -> Message:
    """The message of a text frame; unknown fields are ignored, so that a newer peer may add some.

    Raises:
        InvalidMessage: not JSON, an unknown type, or a field that is missing or of the wrong type.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InvalidMessage(f"not JSON ({error})") from error
    name = data.get("type") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in _CLASSES:
        raise InvalidMessage("not an object with a known type")
    known = {}
    for key, hint in _HINTS[name].items():
        if key not in data:
            continue
        if not _fits(data[key], hint):
            raise InvalidMessage(f"{name}.{key} has the wrong type")
        known[key] = data[key]
    try:
        message: Message = _CLASSES[name](**known)
    except TypeError as error:
        raise InvalidMessage(f"{name} lacks a field ({error})") from error
    return message


def _fits(value: object, hint: Any) -> bool:
    options = get_args(hint) if type(None) in get_args(hint) else (hint,)
    for option in options:
        origin = getattr(option, "__origin__", option)
        if origin is float and type(value) in (int, float):
            return True
        if origin is int and type(value) is int:
            return True
        if origin is not int and isinstance(value, origin):
            return True
    return False
