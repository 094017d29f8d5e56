"""What has happened since the start: counted in a worker, told to the agent, kept when the worker is gone."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from msha.edge.session.sessions import DECISION_BOUNDS_S, Sessions

Pair = tuple[str, str]


@dataclass(slots=True)
class Tally:
    """Numbers of one worker or the sum of several; none of them ever goes down.

    Attributes:
        handshakes: by decision and reason.
        ended: sessions that are over, by who ended them and why; the reason is empty unless it was the edge.
        failures: how often a back-source server failed a handshake, by server.
        bytes_up, bytes_down: relayed from and to clients, those of open sessions included.
        decisions: how many took so long, by the interval of ``DECISION_BOUNDS_S``; the last has no end.
        decision_s: how long all of them took together.
    """

    handshakes: Counter[Pair] = field(default_factory=Counter)
    ended: Counter[Pair] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    bytes_down: int = 0
    decisions: list[int] = field(default_factory=lambda: [0] * (len(DECISION_BOUNDS_S) + 1))
    decision_s: float = 0.0

    @classmethod
    def of(cls, sessions: Sessions) -> Self:
        """What a worker has counted."""
        return cls(
            handshakes=Counter(sessions.answered),
            ended=Counter(sessions.ended),
            failures=Counter(sessions.failures),
            bytes_up=sessions.moved_up,
            bytes_down=sessions.moved_down,
            decisions=list(sessions.decision_buckets),
            decision_s=sessions.decision_s,
        )

    def said(self) -> dict[str, Any]:
        """The tally as JSON carries it."""
        return {
            "handshakes": [[*pair, count] for pair, count in self.handshakes.items()],
            "ended": [[*pair, count] for pair, count in self.ended.items()],
            "failures": self.failures,
            "bytes": [self.bytes_up, self.bytes_down],
            "decisions": self.decisions,
            "decision_s": self.decision_s,
        }

    def by_name(self) -> dict[str, int]:
        """What the console's page of the node shows of it."""
        names: Counter[str] = Counter()
        for (decision, reason), count in self.handshakes.items():
            names["handshakes"] += count
            names[f"decision_{decision}"] += count
            if reason:
                names[f"reason_{reason}"] += count
        for (ended_by, _), count in self.ended.items():
            names[f"ended_by_{ended_by}"] += count
        if self.failures:
            names["back_source_failed"] = self.failures.total()
        return dict(names)

    @classmethod
    def heard(cls, said: Mapping[str, Any]) -> Self:
        """The tally of a worker, from what :meth:`said` gave."""
        up, down = said["bytes"]
        return cls(
            handshakes=_pairs(said["handshakes"]),
            ended=_pairs(said["ended"]),
            failures=Counter({str(server): int(count) for server, count in said["failures"].items()}),
            bytes_up=int(up),
            bytes_down=int(down),
            decisions=[int(count) for count in said["decisions"]],
            decision_s=float(said["decision_s"]),
        )

    def add(self, other: "Tally") -> None:
        """The other's numbers are part of these."""
        self.handshakes.update(other.handshakes)
        self.ended.update(other.ended)
        self.failures.update(other.failures)
        self.bytes_up += other.bytes_up
        self.bytes_down += other.bytes_down
        self.decisions = [one + more for one, more in zip(self.decisions, other.decisions, strict=True)]
        self.decision_s += other.decision_s


class Highest:
    """The highest of the values of the last ``window_s`` seconds."""

    __slots__ = ("_falling", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        #: Only values that no later one exceeds: the first is the highest, and it is the next to grow old.
        self._falling: deque[tuple[float, float]] = deque()

    def add(self, value: float, now: float) -> None:
        """One more value, at this monotonic time."""
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((now, value))

    def at(self, now: float) -> float:
        """The highest at this monotonic time; 0 when there was none."""
        while self._falling and self._falling[0][0] < now - self.window_s:
            self._falling.popleft()
        return self._falling[0][1] if self._falling else 0.0


def _pairs(rows: Iterable[tuple[str, str, int]]) -> Counter[Pair]:
    return Counter({(str(one), str(other)): int(count) for one, other, count in rows})
