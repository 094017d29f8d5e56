"""Which processes live below a process; read from /proc."""

import time
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Running, and not merely waiting to be reaped."""
    try:
        return _state_and_parent(pid)[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> set[int]:
    """The ids of all living processes that descend from this one."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            children.setdefault(_state_and_parent(int(directory.name))[1], []).append(int(directory.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
    found, waiting = set(), [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting.extend(below)
    return {each for each in found if is_alive(each)}


def outlive(pids: set[int], timeout_s: float) -> set[int]:
    """Those that still live after `timeout_s`; sooner when none does."""
    deadline = time.monotonic() + timeout_s
    while (living := {pid for pid in pids if is_alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return living


def _state_and_parent(pid: int) -> tuple[str, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[1])
