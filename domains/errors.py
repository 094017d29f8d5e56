"""Why something about domains or a topology cannot be done; each error is a sentence that says what to do."""

from dataclasses import dataclass

from django.utils.translation import gettext

from units.errors import Refused, VersionConflict

__all__ = ["Misplaced", "Refused", "SavedMeanwhile"]


@dataclass(eq=False)
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


class SavedMeanwhile(VersionConflict):
    """Somebody saved something between what was looked at and the act on it."""

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace, 0, 0)

    def __str__(self) -> str:
        return gettext(
            "Something was saved in namespace %(namespace)s since you looked. Compare again and decide anew."
        ) % {"namespace": self.namespace}
