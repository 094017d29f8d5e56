"""What a process tree has taken of the processor and of memory; read from /proc."""

import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for directory in PROC.glob("[0-9]*"):
        try:
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        children.setdefault(parent, []).append(int(directory.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor time of some processes; seconds.

    Attributes:
        total: from the scheduler's own account, exact when the processes sleep.
        user, system: from the 100 Hz clock, so good for shares only.
    """

    total: float
    user: float
    system: float

    @classmethod
    def read(cls, pids: Sequence[int]) -> Self:
        """What they have taken since they began."""
        total, user, system = 0, 0, 0
        for pid in pids:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            user += int(fields[11])
            system += int(fields[12])
            for task in (PROC / str(pid) / "task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return cls(total / 1e9, user * _TICK_S, system * _TICK_S)

    def since(self, earlier: "Cpu") -> "Cpu":
        """What was taken between the two."""
        return Cpu(self.total - earlier.total, self.user - earlier.user, self.system - earlier.system)

    @property
    def user_share(self) -> float:
        """Which part was spent outside the kernel, from 0 to 1."""
        return self.user / (self.user + self.system) if self.user + self.system else 0.0


def private_bytes(pids: Sequence[int]) -> int:
    """Memory that belongs to these processes alone; the kernel's socket buffers are not in it."""
    kilobytes = 0
    for pid in pids:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024


class Bystanders:
    """What other processes take of the machine from now on: figures of a busy one are not to be trusted."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = self._busy() - self._ours()

    def share(self) -> float:
        """Their part of all processor time, from 0 to 1; what we started has to have ended."""
        taken = self._busy() - self._ours() - self._before
        return max(0.0, taken / (time.monotonic() - self._began) / (os.cpu_count() or 1))

    @staticmethod
    def _busy() -> float:
        user, nice, system, _, _, irq, softirq, steal, *_ = (
            int(field) for field in (PROC / "stat").read_text().splitlines()[0].split()[1:]
        )
        return (user + nice + system + irq + softirq + steal) * _TICK_S

    @staticmethod
    def _ours() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)
