"""Inputs worth keeping: one file each, under a name that says what it is, its verdict in ``verdicts.tsv``."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from msha.edge.wire.frames import FrameTracker
from tests.edge.fuzz import answers, requests

CORPUS = Path(__file__).parents[1] / "corpus"
TABLE = CORPUS / "verdicts.tsv"


@dataclass(frozen=True)
class Kind:
    """One directory of the corpus.

    Attributes:
        verdict: what the edge makes of an input, in a few words.
    """

    directory: str
    verdict: Callable[[bytes], str]

    def kept(self) -> list[bytes]:
        """The inputs, in the order of their names."""
        return [path.read_bytes() for path in sorted((CORPUS / self.directory).iterdir())]

    def keep(self, data: bytes, name: str) -> Path:
        """The file is there, and its verdict of today is in the table, for a person to look at."""
        path = CORPUS / self.directory / f"{name}-{sha256(data).hexdigest()[:8]}"
        path.write_bytes(data)
        verdicts = table() | {f"{self.directory}/{path.name}": self.verdict(data)}
        TABLE.write_text("".join(f"{name}\t{verdict}\n" for name, verdict in sorted(verdicts.items())))
        return path


def table() -> dict[str, str]:
    """The expected verdict of each file."""
    lines = TABLE.read_text().splitlines()
    return {name: verdict for name, _, verdict in (line.partition("\t") for line in lines)}


def _stream(data: bytes) -> str:
    """How many frames end in it, and in which state it ends."""
    tracker, ended = FrameTracker(), 0
    for index in range(len(data)):
        tracker.feed(data[index : index + 1])
        ended += tracker.between
    words = [f"{ended} frames"]
    words += [] if tracker.between else ["then part of one"]
    words += ["fragmented"] if tracker.fragmented else []
    words += ["closed"] if tracker.closed else []
    return ", ".join(words)


REQUESTS = Kind("requests", lambda data: requests.read(data)[0])
RESPONSES = Kind("responses", answers.verdict)
FRAMES = Kind("frames", _stream)
KINDS = {kind.directory: kind for kind in (REQUESTS, RESPONSES, FRAMES)}
