"""``python -m tests.model [NAME ...]`` searches every scenario in full and prints what it went through.

The exit code is 1 when an invariant broke; the way to it is told in words. A scenario's states are forgotten
before the next one begins, so that the largest one bounds the memory.
"""

import resource
import sys

from tests.model.scenarios import FULL
from tests.model.search import TooMany, Violation, search


def main(names: list[str]) -> int:
    """Nonzero when a scenario failed."""
    print(f"{'scenario':28} {'states':>11} {'transitions':>12} {'seconds':>8}  endings", flush=True)
    states = transitions = failed = 0
    seconds = 0.0
    for scenario in FULL:
        if names and scenario.name not in names:
            continue
        try:
            found = search(scenario)
        except (Violation, TooMany) as problem:
            print(problem, flush=True)
            failed += 1
            continue
        states, transitions = states + found.states, transitions + found.transitions
        seconds += found.seconds
        endings = ", ".join(sorted(found.endings))
        print(
            f"{found.scenario:28} {found.states:11,} {found.transitions:12,} {found.seconds:8.1f}  {endings}",
            flush=True,
        )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{'all':28} {states:11,} {transitions:12,} {seconds:8.1f}  {failed} failed, {memory} MB at most")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
