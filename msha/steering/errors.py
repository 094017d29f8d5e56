"""Every error of the product, by what the caller should do about it.

Leaves hold data and build their sentence in ``__str__``; the two branches drive policy.
"""

from dataclasses import dataclass


class MshaError(Exception):
    """The root of all errors that msha raises on purpose."""


class Transient(MshaError):
    """Trying again later may succeed without anybody changing anything."""


class Terminal(MshaError):
    """Trying again is useless until somebody changes the input or the world."""


@dataclass(eq=False)
class InvalidRule(Terminal):
    """A rule, or a part of it, that cannot be obeyed.

    Attributes:
        place: where in the document or form, for example ``ranges.center``.
        problem: the rest of the sentence.
    """

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}" if self.place else self.problem


class InvalidRange(InvalidRule):
    """A range that is not text of the form ``0~5997``, is empty, or leaves the key space."""


class Gap(InvalidRule):
    """Ids that no range covers."""


class Overlap(InvalidRule):
    """Ids that more than one range covers."""


class InvalidSource(InvalidRule):
    """A place to read the routerId from, or a transform of it, that does not exist."""


@dataclass(eq=False)
class InvalidRouterId(Terminal):
    """A handshake whose routerId is unusable; answered with 400."""

    source: str
    problem: str

    def __str__(self) -> str:
        return f"routerId in {self.source}: {self.problem}"


@dataclass(eq=False)
class InvalidSnapshot(Terminal):
    """A snapshot document that no edge may obey.

    Attributes:
        place: path into the document, for example ``config.domains[0].uris[1].path``.
        problem: the rest of the sentence.
    """

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}" if self.place else self.problem


@dataclass(eq=False)
class InvalidMessage(Terminal):
    """A control-stream message that does not have the agreed form."""

    problem: str

    def __str__(self) -> str:
        return f"control message: {self.problem}"


@dataclass(eq=False)
class InvalidStep(Terminal):
    """A cutover step that the phase it starts from does not allow."""

    problem: str

    def __str__(self) -> str:
        return self.problem
