"""What a run has found: its samples, and where and with what they were taken."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from bench.candidates import find_program, version_of
from bench.programs import HERE, BenchError
from bench.workloads import Sample

FILE = HERE / "results.json"

_PACKAGES = ("msha", "httptools", "daphne", "channels", "websockets")

#: More digits would be noise.
_DIGITS = 5


@dataclass(slots=True)
class Results:
    """One run.

    Attributes:
        taken: the day.
        machine: what it ran on, in words, by what the words are about.
        versions: of the programs, by name.
        samples: by workload, by candidate: one a round.
        notes: why a candidate has no samples of a workload, by both.
        others_share: of the machine's processor time during the run that had nothing to do with it.
    """

    taken: str
    rounds: int
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    others_share: float = 0.0

    @classmethod
    def begin(cls, rounds: int) -> Self:
        """A run that has found nothing yet."""
        return cls(datetime.now(UTC).date().isoformat(), rounds, _machine(), _versions())

    @classmethod
    def read(cls, path: Path = FILE) -> Self:
        """The run that was saved.

        Raises:
            BenchError: none was.
        """
        if not path.exists():
            raise BenchError(f"{path.name} is missing: run `python -m bench --save` first.")
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path = FILE) -> None:
        """The run is saved."""
        rounded = json.loads(json.dumps(asdict(self)), parse_float=_rounded)
        path.write_text(json.dumps(rounded, indent=1, ensure_ascii=False) + "\n")

    def of(self, workload: str, kind: str) -> Sequence[Sample]:
        """The samples of a row; none if it was not measured, or failed in any round."""
        if kind in self.notes.get(workload, {}):
            return []
        return self.samples.get(workload, {}).get(kind, [])

    def add(self, workload: str, kind: str, sample: Sample) -> None:
        """One more sample."""
        self.samples.setdefault(workload, {}).setdefault(kind, []).append(sample)

    def note(self, workload: str, kind: str, sentence: str) -> None:
        """It has no figures, and this is why."""
        self.notes.setdefault(workload, {})[kind] = sentence


def _rounded(text: str) -> float:
    return float(f"{float(text):.{_DIGITS}g}")


def _machine() -> dict[str, str]:
    fields: dict[str, Any] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    memory = Path("/proc/meminfo").read_text().split()[1]
    cores = len(os.sched_getaffinity(0))
    return {
        "processor": f"{cores} cores of {fields.get('model name', platform.machine())}",
        "virtual": "yes" if "hypervisor" in fields.get("flags", "").split() else "no",
        "memory": f"{int(memory) / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
    }


def _origin() -> str:
    """Where the interpreter comes from, since how it was compiled makes a fifth and packages do not tell."""
    return "the system's" if sys.base_prefix == "/usr" else "not the system's"


def _versions() -> dict[str, str]:
    """Of what is installed; a program that is missing is left out."""
    found = {
        "Python": f"{sys.version.split()[0]} ({_origin()})",
        **{name: version(name) for name in ("msha", "httptools", "daphne", "channels", "websockets")},
    }
    for name, option in (("nginx", "-v"), ("haproxy", "-v"), ("cc", "--version")):
        try:
            found[name] = version_of([find_program(name), option])
        except BenchError:
            continue
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=False, cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    if commit:
        found["msha"] += f" ({commit})"
    return found
