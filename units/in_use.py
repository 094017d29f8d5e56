"""What must not be removed or moved now, because something that runs relies on it (PROTOCOL P3).

The users register themselves: imports point down, so units and domains cannot ask a cutover by name.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from msha.steering.errors import Terminal
from units.models import Namespace


class Kind(StrEnum):
    """What kind of thing would be removed or moved."""

    UNIT = "unit"
    UNIT_TYPE = "unit type"
    CLUSTER = "cluster"
    NODE = "edge node"
    DOMAIN = "domain"
    URI = "URI"
    BACK_SOURCE = "back-source"


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that would be removed or moved.

    Attributes:
        name: code of a unit, name of a cluster, node or domain; ``domain/path`` of a URI; ``IP:PORT``.
        unit: code of the unit it belongs to, or "" where it belongs to none.
        domain: name of the domain of a URI or back-source.
    """

    kind: Kind
    name: str
    unit: str = ""
    domain: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(eq=False)
class InUse(Terminal):
    """Something that runs relies on what would be removed or moved."""

    thing: Thing
    sentence: str

    def __str__(self) -> str:
        return self.sentence


UseCheck = Callable[[Namespace, Thing], str | None]
"""Returns a whole sentence that says what uses the thing and until when, or None when nothing does."""

_checks: list[UseCheck] = []


def register_use_check(check: UseCheck) -> None:
    """The check is asked before anything is removed or moved; registering it again changes nothing."""
    if check not in _checks:
        _checks.append(check)


def sentences_against_removal(namespace: Namespace, things: Iterable[Thing]) -> list[str]:
    """Why some of the things must stay as they are now; empty when all may go."""
    said = (check(namespace, thing) for thing in things for check in _checks)
    return list(dict.fromkeys(sentence for sentence in said if sentence))


def refuse_removal_if_used(namespace: Namespace, *things: Thing) -> None:
    """Nothing that runs relies on the things.

    Call it in the transaction that holds the namespace's row lock: a cutover starts under the same lock.

    Raises:
        InUse: with the first sentence.
    """
    for thing in things:
        for sentence in sentences_against_removal(namespace, [thing]):
            raise InUse(thing, sentence)
