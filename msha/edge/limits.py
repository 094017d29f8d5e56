"""What an edge takes from its peers, and how much: one number for each limit, set by the environment.

The agent reads them to refuse wrong ones before anything runs; its workers inherit the environment and read
them again.
"""

import dataclasses
import difflib
import math
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from msha.steering.errors import Terminal

#: ``head_s`` is set by ``MSHA_EDGE_HEAD_S``.
PREFIX = "MSHA_EDGE_"

#: With fewer descriptors an edge does not start: they would do for some dozen sessions.
DESCRIPTORS_NEEDED = 256

#: With fewer it starts, and says that they are few.
_DESCRIPTORS_WANTED = 8_192

#: Of a worker itself: loop, epoll, listener, log, lock, agent, standard streams.
_OWN_DESCRIPTORS = 64


@dataclass(eq=False)
class InvalidSetting(Terminal):
    """A variable of the environment that cannot be obeyed."""

    name: str
    problem: str

    def __str__(self) -> str:
        return f"{self.name} {self.problem}"


def _limit(default: float, least: float, most: float, *, or_none: bool = False) -> Any:
    """A limit that operators may set.

    Args:
        or_none: whether 0 stands for no limit.
    """
    return dataclasses.field(default=default, metadata={"least": least, "most": most, "or_none": or_none})


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one worker. The last six are figures of ours and of the protocol, which nobody sets.

    Attributes:
        connections: of clients, in whatever state; 0: as many as there are descriptors for.
        connections_per_address: of clients, by one address; 0: no limit.
        handshakes_per_address_per_s: so many are answered, and as many at once; 0: no limit.
        tls_handshakes: of clients, at once; each takes 46 kB.
        tls_handshakes_per_address: the same, by one address; 0: no limit.
        head_bytes, head_fields: of a request or of a back-source's answer.
        head_s: a client, for its request head.
        connect_s: a back-source, from the connect to its whole answer; then the next one is asked.
        idle_s: a session in which nothing moves, or whose client does not even answer pings; 0: no limit.
        ping_s: a client that says nothing for so long is sent a ping; 0: none is.
        buffer_bytes: what a session holds that could not be sent yet.
        reach_s: a back-source, to take a connection while there are others to ask.
        retry_s: a back-source that is down, until it is tried again for the first time.
        linger_s: a client, to close after an answer.
        close_s: both, to end a session after a Close of ours.
        end_s: a peer, to end a session after the other did.
        hold_s: a held handshake, from the first hold on.
    """

    connections: int = _limit(0, 1, 10_000_000, or_none=True)
    connections_per_address: int = _limit(10_000, 1, 10_000_000, or_none=True)
    handshakes_per_address_per_s: int = _limit(0, 1, 1_000_000, or_none=True)
    tls_handshakes: int = _limit(2_000, 1, 100_000)
    tls_handshakes_per_address: int = _limit(1_000, 1, 100_000, or_none=True)
    head_bytes: int = _limit(16_384, 1_024, 65_536)
    head_fields: int = _limit(100, 10, 1_000)
    head_s: float = _limit(5.0, 0.1, 60)
    connect_s: float = _limit(5.0, 0.1, 60)
    idle_s: float = _limit(3_600.0, 61, 604_800, or_none=True)
    ping_s: float = _limit(0.0, 5, 86_400, or_none=True)
    buffer_bytes: int = _limit(262_144, 65_536, 4_194_304)
    reach_s: float = 1.5
    retry_s: float = 1.0
    linger_s: float = 1.0
    close_s: float = 0.9
    end_s: float = 5.0
    hold_s: float = 5.0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """The limits that the environment sets.

        Raises:
            InvalidSetting: one of them is not a number, or out of its range.
        """
        given = {
            field.name: _read(field, environment[name])
            for field in settings()
            if (name := setting_name(field.name)) in environment
        }
        limits = cls(**given)
        if limits.ping_s and 0 < limits.idle_s <= limits.ping_s:
            raise InvalidSetting(
                setting_name("ping_s"),
                f"must be below {setting_name('idle_s')}, which is {limits.idle_s:g}: a ping leaves the "
                "client no time to answer otherwise.",
            )
        return limits


def settings() -> list[dataclasses.Field[Any]]:
    """The limits that operators may set."""
    return [field for field in dataclasses.fields(Limits) if field.metadata]


def setting_name(field: str) -> str:
    """The variable that sets a limit."""
    return PREFIX + field.upper()


def unknown_settings(environment: Mapping[str, str], others: Iterable[str] = ()) -> dict[str, str]:
    """Variables that look like settings and are none, misspelt ones most likely: the setting that was meant.

    Args:
        others: settings beside the limits.
    """
    known = {setting_name(field.name) for field in settings()} | set(others)
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    return {name: "".join(difflib.get_close_matches(name, sorted(known), 1)) for name in unknown}


def _read(field: dataclasses.Field[Any], text: str) -> Any:
    least, most = field.metadata["least"], field.metadata["most"]
    whole = field.type is int
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = math.nan
    if not (least <= value <= most or (value == 0 and field.metadata["or_none"])):
        number = "a whole number" if whole else "a number"
        none = ", or 0 for none" if field.metadata["or_none"] else ""
        raise InvalidSetting(
            setting_name(field.name), f"is {text!r}, not {number} from {least} to {most}{none}."
        )
    return value


@dataclass(frozen=True, slots=True)
class Room:
    """What the descriptors of a process allow.

    Attributes:
        connections: of clients; each may come to need a second descriptor, for its back-source.
        spare: descriptors beside those, for connections that end.
    """

    connections: int
    spare: int

    @classmethod
    def of(cls, descriptors: int) -> Self:
        """The room that so many descriptors give."""
        spare = max(descriptors // 20, 32)
        return cls(max((descriptors - _OWN_DESCRIPTORS - spare) // 2, 1), spare)


def descriptors() -> int:
    """How many descriptors a worker may have open; it raises its soft limit to the hard one."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] % (1 << 64)


def check_descriptors(limits: Limits, available: int) -> str:
    """What the operator should be told about the descriptors; empty when they do.

    Raises:
        InvalidSetting: there are too few to begin with.
    """
    remedy = "Raise the hard limit: LimitNOFILE= under systemd, else ulimit -Hn or the container's nofile."
    if available < DESCRIPTORS_NEEDED:
        raise InvalidSetting(
            "RLIMIT_NOFILE",
            f"allows {available} file descriptors, and {DESCRIPTORS_NEEDED} are needed. {remedy}",
        )
    possible = Room.of(available).connections
    if limits.connections > possible:
        name = setting_name("connections")
        return (
            f"{available} file descriptors are enough for {possible} connections per worker, "
            f"not for the {limits.connections} of {name}. {remedy}"
        )
    if available < _DESCRIPTORS_WANTED and not limits.connections:
        return (
            f"{available} file descriptors are few: they do for {possible} connections per worker. {remedy}"
        )
    return ""
