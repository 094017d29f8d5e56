"""Messages of ours to sessions: one text to one id, to ranges of ids, or to every session of a unit type."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from msha.edge.reactor import Reactor
from msha.edge.session.sessions import Sessions
from msha.edge.session.tunnel import Heard, Tunnel
from msha.edge.wire.frames import text_frame
from msha.steering.wire import TEXT_LIMIT_BYTES

#: Sessions that are spoken to, and ids that are looked at, in one turn of the loop.
SPOKEN_TO_PER_TURN = 200
_LOOKED_AT_PER_TURN = 2000

Ranges = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Address:
    """Whom a text is for.

    Attributes:
        ranges: ``[first, last]``, ascending and disjoint; None is every session of the unit type, also those
            without an id.
    """

    unit_type: str
    ranges: Ranges | None


@dataclass(slots=True)
class Outcome:
    """What became of a text, in numbers of sessions.

    Attributes:
        skipped: why sessions were not told, and how many.
    """

    delivered: int = 0
    queued: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """The outcome in somebody's answer."""
        skipped = {str(why): int(count) for why, count in said["skipped"].items()}
        return cls(int(said["delivered"]), int(said["queued"]), skipped)

    def heard(self, what: Heard) -> None:
        """One session more."""
        if what is Heard.DELIVERED:
            self.delivered += 1
        elif what is Heard.QUEUED:
            self.queued += 1
        else:
            self.skipped[what.value] = self.skipped.get(what.value, 0) + 1

    def add(self, other: "Outcome") -> None:
        """The sessions of another worker or node, too."""
        self.delivered += other.delivered
        self.queued += other.queued
        self.skipped = dict(Counter(self.skipped) + Counter(other.skipped))

    def as_dict(self) -> dict[str, Any]:
        """The form that :meth:`read` takes."""
        return {"delivered": self.delivered, "queued": self.queued, "skipped": self.skipped}


def usable_text(text: object) -> bytes | None:
    """The UTF-8 of a text that may be sent; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        payload = text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return payload if 0 < len(payload) <= TEXT_LIMIT_BYTES else None


@dataclass(slots=True)
class _Speech:
    """A text on its way."""

    frame: bytes
    left: Iterator[Tunnel | None]
    spoken: Callable[[Outcome], None]
    outcome: Outcome = field(default_factory=Outcome)


class Messages:
    """Says texts to sessions, one after the other and some sessions a turn, so that each hears them in order.

    Sessions that are about to be closed are closed first: none of those is told anything any more (I1).
    """

    def __init__(self, reactor: Reactor, sessions: Sessions) -> None:
        self._reactor = reactor
        self._sessions = sessions
        self._speeches: deque[_Speech] = deque()

    def send(self, address: Address, payload: bytes, spoken: Callable[[Outcome], None]) -> None:
        """The text goes to the sessions of the address; ``spoken`` is called when each has had its turn."""
        left = self._sessions.of_ranges(address.unit_type, address.ranges)
        self._speeches.append(_Speech(text_frame(payload), left, spoken))
        if len(self._speeches) == 1:
            self._reactor.again(self)

    def on_turn(self) -> None:
        """Speak to the next sessions."""
        if not self._sessions.closes_some:
            speech = self._speeches[0]
            if self._speak(speech):
                self._speeches.popleft()
                self._account(speech.outcome)
                speech.spoken(speech.outcome)
        if self._speeches:
            self._reactor.again(self)

    def abort(self) -> None:
        """Go on after an error of ours with one text: it is given up."""
        self._speeches.popleft()
        if self._speeches:
            self._reactor.again(self)

    def _speak(self, speech: _Speech) -> bool:
        """Whether everybody has had his turn."""
        spoken_to = 0
        for looked_at, tunnel in enumerate(speech.left, start=1):
            if tunnel is not None:
                speech.outcome.heard(tunnel.say(speech.frame))
                spoken_to += 1
            if spoken_to >= SPOKEN_TO_PER_TURN or looked_at >= _LOOKED_AT_PER_TURN:
                return False
        return True

    def _account(self, outcome: Outcome) -> None:
        count = self._sessions.count
        if outcome.delivered:
            count("messages_delivered", outcome.delivered)
        if outcome.queued:
            count("messages_queued", outcome.queued)
        for why, number in outcome.skipped.items():
            count(f"messages_skipped_{why}", number)
