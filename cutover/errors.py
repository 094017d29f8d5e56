"""Why a cutover cannot be made, started or changed; each error is a sentence that says what to do."""

from dataclasses import dataclass

from units.errors import Refused

__all__ = ["InvalidChange", "Refused", "StalePreview"]


@dataclass(eq=False)
class InvalidChange(Refused):
    """A new rule that cannot be obeyed, or that moves nothing.

    Attributes:
        place: the part of the rule, for example ``ranges.center``, or "" for the whole.
    """

    place: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}" if self.place else self.sentence


class StalePreview(Refused):
    """The rule in effect is not the one that the preview was made against."""
