"""The command line of the benchmark: ``python -m bench``."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import report
from bench.candidates import KINDS, Kind, Running
from bench.programs import BenchError, Cores, allow_descriptors, compile_programs
from bench.workloads import WORKLOADS, Sample, Scale, Stage, Workload

QUICK = Scale(seconds=0.5, warm_s=0.1, sessions=0.2)


def chosen(names: str | None, known: Sequence[str], what: str) -> list[str]:
    """The names of a comma-separated list; all of them without one.

    Raises:
        BenchError: one is not known.
    """
    if names is None:
        return list(known)
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in known:
            raise BenchError(f"There is no {what} {name!r}; there are {', '.join(known)}.")
    return found


class Run:
    """All measurements of one call."""

    def __init__(self, stage: Stage, rounds: int) -> None:
        self._stage = stage
        self._rounds = rounds
        self.samples: dict[str, dict[str, list[Sample]]] = {}
        self.failures: dict[tuple[str, str], str] = {}
        self.failed = False

    def workload(self, workload: Workload, kinds: Sequence[Kind]) -> None:
        """Every candidate in turn, in reverse order every other round."""
        able = []
        for kind in kinds:
            if workload.name in kind.cannot:
                self.failures[workload.name, kind.name] = kind.cannot[workload.name]
            else:
                able.append(kind)
        with ExitStack() as stack:
            running = {} if workload.fresh else {kind.name: self._start(kind, stack) for kind in able}
            for number in range(self._rounds):
                for kind in able if number % 2 == 0 else reversed(able):
                    self._measure(workload, kind, running.get(kind.name))

    def _start(self, kind: Kind, stack: ExitStack) -> Running:
        running = kind.make(self._stage.place(kind.name))
        stack.callback(running.stop)
        return running

    def _measure(self, workload: Workload, kind: Kind, running: Running | None) -> None:
        if (workload.name, kind.name) in self.failures:
            return
        print(f"{workload.name} {kind.name}", file=sys.stderr, flush=True)
        try:
            with ExitStack() as stack:
                sample = workload.measure(self._stage, running or self._start(kind, stack), kind)
        except BenchError as error:
            self.failures[workload.name, kind.name] = f"failed: {error}"
            self.failed = True
            return
        self.samples.setdefault(workload.name, {}).setdefault(kind.name, []).append(sample)


def parser() -> argparse.ArgumentParser:
    """The options that README.md describes."""
    top = argparse.ArgumentParser(prog="python -m bench", description="Compares the edge with other proxies.")
    top.add_argument("--only", metavar="WORKLOADS", help=f"of {', '.join(WORKLOADS)}")
    top.add_argument("--candidates", metavar="NAMES", help=f"of {', '.join(KINDS)}")
    top.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    top.add_argument("--quick", action="store_true", help="short windows: shows that it works, not how fast")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if a candidate made an error, 2 if the benchmark cannot run."""
    options = parser().parse_args(arguments)
    try:
        workloads = [WORKLOADS[name] for name in chosen(options.only, list(WORKLOADS), "workload")]
        kinds = [KINDS[name] for name in chosen(options.candidates, list(KINDS), "candidate")]
        compile_programs()
        allow_descriptors()
        with tempfile.TemporaryDirectory(prefix="bench") as directory:
            scale = QUICK if options.quick else Scale()
            with Stage(Cores.divide(), scale, Path(directory)) as stage:
                run = Run(stage, options.rounds)
                for workload in workloads:
                    run.workload(workload, [kind for kind in kinds if kind.name in workload.kinds])
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    print(report.as_text(report.rows(run.samples, run.failures)))
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
