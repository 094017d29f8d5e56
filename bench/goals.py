"""What the edge is meant to reach, and whether a run has shown it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.figures import middle, ratio
from bench.results import Results


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on one figure of msha.

    Attributes:
        read: the figure of a run; None if it was not measured.
        at_least: whether the bound is a lower one.
    """

    title: str
    bound: float
    read: Callable[[Results], float | None]
    at_least: bool = True
    unit: str = ""

    def met(self, value: float) -> bool:
        """Whether the value keeps to the bound."""
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"


Reader = Callable[[Results], float | None]


def _compared(workload: str, figure: str = "cpu_us", baseline: str = "nginx") -> Reader:
    def read(results: Results) -> float | None:
        found = ratio(figure, results.of(workload, "msha"), results.of(workload, baseline))
        return None if found is None else found.middle

    return read


def _measured(workload: str, figure: str, unit: float = 1.0) -> Reader:
    def read(results: Results) -> float | None:
        found = middle(results.of(workload, "msha"), figure)
        return found and found / unit

    return read


def _dearest_decision(results: Results) -> float | None:
    base = results.of("decision", "decide")
    found = [
        ratio("cpu_us", base, samples)
        for kind, samples in results.samples.get("decision", {}).items()
        if kind != "decide"
    ]
    return max((each.middle for each in found if each is not None), default=None)


GOALS = (
    Goal("handshake → 302, CPU, nginx / msha", 1.3, _compared("redirect")),
    Goal("handshake → 101, CPU, nginx / msha", 0.9, _compared("open")),
    Goal("echo of 100 B, CPU, nginx / msha", 0.9, _compared("echo")),
    Goal("push at 40,000/s, CPU, nginx / msha", 0.9, _compared("push")),
    Goal("echo of 64 KiB, CPU, nginx / msha", 6, _compared("large-echo")),
    Goal("echo of 64 KiB, MB/s, msha / nginx", 6, _compared("large-echo", "rate")),
    Goal("echo of 64 KiB, CPU, nginx 64k / msha", 1.05, _compared("large-echo", baseline="nginx-64k")),
    Goal("echo of 64 KiB, MB/s, msha / nginx 64k", 1.05, _compared("large-echo", "rate", "nginx-64k")),
    Goal("memory of an idle session", 1.5, _measured("memory", "bytes", 1000), False, " kB"),
    Goal("closing 5,000 of 9,000, CPU per session", 30, _measured("close", "cpu_us"), False, " µs"),
    Goal("closing 5,000 of 9,000, longest stall", 10, _measured("close", "stall_ms"), False, " ms"),
    Goal("dearest decision / that of 1 range and 1 domain", 1.2, _dearest_decision, False),
)


def reached(results: Results) -> Iterator[tuple[Goal, float]]:
    """Every goal that the run says something of, with its figure."""
    for goal in GOALS:
        value = goal.read(results)
        if value is not None:
            yield goal, value
