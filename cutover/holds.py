"""What keeps a step back although its gate has passed: a pause, a bake, a failing health, a hook.

A gate of the protocol says when a step is safe; a hold says that it is not wanted yet. Holds can only make a
cutover wait, or send it back by the ways that are open to an operator as well, so none of them can weaken
what the gates promise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from cutover.situation import Situation
from msha.steering.phases import Phase, Step


class Then(StrEnum):
    """What a hold asks for."""

    WAIT = "wait"  # look again later
    PAUSE = "pause"  # an operator has to resume
    ABORT = "abort"  # undo the present batch, of which nothing has moved; what batches before it moved stays
    UNDO = "undo"  # go back: what has not moved stays, what has moved returns


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a step is not taken that its gate allows.

    Attributes:
        kind: what holds it, for pages and reports: ``paused``, ``baking``, ``health``, ``hook``, ``checks``.
        facts: what the sentence about it is made of.
    """

    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    then: Then = Then.WAIT

    def as_dict(self) -> dict[str, Any]:
        """As it is stored in the cutover's row."""
        return {"kind": self.kind, "then": str(self.then), **self.facts}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`as_dict`."""
        facts = {name: value for name, value in stored.items() if name not in ("kind", "then")}
        return cls(stored["kind"], facts, Then(stored["then"]))


Holder = Callable[[Situation, Step], Hold | None]


def paused(situation: Situation, to: Step) -> Hold | None:
    """A pause keeps the next batch back; a batch that is under way is brought to its end.

    Inside a batch ids are frozen, and a pause there would keep their clients out. What paused the cutover by
    itself goes on being told as it was then.
    """
    cutover = situation.cutover
    if not cutover.paused or not opens_a_batch(to):
        return None
    if not cutover.paused_by and cutover.hold.get("then") == Then.PAUSE:
        return Hold.of(cutover.hold)
    return Hold("paused", {"by": cutover.paused_by, "reason": cutover.pause_reason})


def opens_a_batch(to: Step) -> bool:
    """Whether ids that are served now would be frozen by the step."""
    return to.phase is Phase.FREEZE and to.turns == 0


#: Asked in this order; the first that holds is told.
HOLDERS: list[Holder] = [paused]


def register(holder: Holder) -> None:
    """The holder is asked, after those that are asked already; registering it again changes nothing.

    Called when the app is ready: what holders look at is built on top of what they answer with.
    """
    if holder not in HOLDERS:
        HOLDERS.append(holder)


def holding(situation: Situation, to: Step) -> Hold | None:
    """What keeps the step back, or None."""
    for holder in HOLDERS:
        hold = holder(situation, to)
        if hold is not None:
            return hold
    return None
