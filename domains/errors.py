"""Why something about domains or a topology cannot be done; each error is a sentence that says what to do."""

from dataclasses import dataclass

from units.errors import Refused

__all__ = ["Misplaced", "Refused"]


@dataclass
class Misplaced(Refused):
    """Input that cannot be used, with the place where it stands.

    Attributes:
        place: a field of a form or a path into a file, for example ``uris[1].back_sources.unbj``.
        line: of a file, from 1; 0 when it came from no file.
    """

    place: str = ""
    line: int = 0

    def __str__(self) -> str:
        sentence = f"{self.place}: {self.sentence}" if self.place else self.sentence
        return f"line {self.line}: {sentence}" if self.line else sentence
