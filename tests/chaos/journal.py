"""What the processes of a campaign saw, one JSON object per line, each with the machine's monotonic clock.

All of them run on one machine, so ``at`` (seconds of CLOCK_MONOTONIC) is comparable between journals.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Journal:
    """One process's lines; each is in the file when `note` has returned."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def note(self, what: str, **facts: Any) -> float:
        """The monotonic time that the line bears."""
        at = time.monotonic()
        self._file.write(
            json.dumps({"at": round(at, 6), "what": what, **facts}, separators=(",", ":")) + "\n"
        )
        return at

    def close(self) -> None:
        self._file.close()


def lines(path: Path) -> Iterator[Line]:
    """The lines of a journal in order; a last line that was cut off by a kill is left out."""
    with path.open() as file:
        for text in file:
            if text.endswith("\n"):
                yield json.loads(text)
