"""The command line of the benchmark: ``python -m bench``."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import page, report
from bench.candidates import KINDS, Kind, Running, find_program
from bench.measuring import Bystanders
from bench.programs import BenchError, Cores, allow_descriptors, compile_programs
from bench.results import Results
from bench.workloads import WORKLOADS, Scale, Stage, Workload

FULL = Scale()
QUICK = Scale(seconds=0.5, warm_s=0.1, sessions=0.2)
ROUNDS = 5


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
    """The measurements of one call.

    Attributes:
        failed: whether a candidate made an error.
    """

    def __init__(self, stage: Stage, results: Results) -> None:
        self._stage = stage
        self._results = results
        self.failed = False

    def workload(self, workload: Workload, kinds: Sequence[Kind]) -> None:
        """Every candidate in turn, in reverse order every other round."""
        able = [kind for kind in kinds if workload.name not in kind.cannot]
        for kind in kinds:
            if kind not in able:
                self._results.note(workload.name, kind.name, kind.cannot[workload.name])
        with ExitStack() as stack:
            running = {} if workload.fresh else {kind.name: self._start(kind, stack) for kind in able}
            for number in range(self._results.rounds):
                print(f"{workload.title}: round {number + 1}", file=sys.stderr, flush=True)
                for kind in able if number % 2 == 0 else reversed(able):
                    self._measure(workload, kind, running.get(kind.name))

    def _start(self, kind: Kind, stack: ExitStack) -> Running:
        running = self._stage.start(kind)
        stack.callback(running.stop)
        return running

    def _measure(self, workload: Workload, kind: Kind, running: Running | None) -> None:
        if kind.name in self._results.notes.get(workload.name, {}):
            return
        try:
            with ExitStack() as stack:
                sample = workload.measure(self._stage, running or self._start(kind, stack), kind)
        except BenchError as error:
            self._results.note(workload.name, kind.name, f"failed: {error}")
            self.failed = True
            return
        self._results.add(workload.name, kind.name, sample)


def parser() -> argparse.ArgumentParser:
    """The options that README.md describes."""
    top = argparse.ArgumentParser(prog="python -m bench", description="Compares the edge with other proxies.")
    top.add_argument("--only", metavar="WORKLOADS", help=f"of {', '.join(WORKLOADS)}")
    top.add_argument("--candidates", metavar="NAMES", help=f"of {', '.join(KINDS)}")
    top.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default: {ROUNDS}")
    top.add_argument("--quick", action="store_true", help="short windows: shows that it works, not how fast")
    top.add_argument("--calls", action="store_true", help="count system calls, too; takes perf")
    top.add_argument("--save", action="store_true", help="write results.json and docs/performance.md")
    top.add_argument(
        "--render", action="store_true", help="measure nothing; write the page from results.json"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if a candidate made an error, 2 if the benchmark cannot run."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what we started is stopped
    try:
        return _render() if options.render else _run(options)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2


def _render() -> int:
    page.write(Results.read())
    return 0


def _run(options: argparse.Namespace) -> int:
    partial = options.only or options.candidates or options.quick or options.calls
    if options.save and (partial or options.rounds < ROUNDS):
        raise BenchError(
            f"What is published is one whole run: --save takes no selection and {ROUNDS} rounds or more."
        )
    workloads = [WORKLOADS[name] for name in chosen(options.only, list(WORKLOADS), "workload")]
    kinds = [KINDS[name] for name in chosen(options.candidates, list(KINDS), "candidate")]
    for kind in kinds:
        if kind.program and any(kind.name in workload.kinds for workload in workloads):
            find_program(kind.program)
    compile_programs()
    allow_descriptors()
    results = Results.begin(options.rounds)
    bystanders = Bystanders()
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        scale = QUICK if options.quick else FULL
        with Stage(Cores.divide(), scale, Path(directory), counts_calls=options.calls) as stage:
            run = Run(stage, results)
            for workload in workloads:
                run.workload(workload, [KINDS[name] for name in workload.kinds if KINDS[name] in kinds])
    results.others_share = bystanders.share()
    print(report.as_text(results))
    if run.failed:
        return 1
    if options.save:
        results.write()
        page.write(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
