"""The table: for a terminal, and for a page."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.candidates import KINDS
from bench.figures import Ratio, middle, ratio
from bench.goals import reached
from bench.results import Results
from bench.workloads import WORKLOADS, Workload

HEADINGS = ("CPU µs", "of it user", "per second", "ratio", "p50 / p99 µs")
_WIDTHS = (32, 12, 12, 12, 20, 20)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        cells: as HEADINGS; of a row without figures the first is the reason.
        calls: the system calls of one operation, by name, if they were counted.
    """

    title: str
    cells: tuple[str, ...]
    ratio: Ratio | None
    calls: dict[str, float]


def sections(results: Results) -> Iterator[tuple[Workload, list[Row]]]:
    """The workloads that were run, each with its rows."""
    for workload in WORKLOADS.values():
        rows = [row for kind in workload.kinds if (row := _row(results, workload, kind)) is not None]
        if rows:
            yield workload, rows


def _row(results: Results, workload: Workload, kind: str) -> Row | None:
    title = KINDS[kind].title
    note = results.notes.get(workload.name, {}).get(kind)
    if note is not None:
        return Row(title, (note,), None, {})
    samples = results.of(workload.name, kind)
    if not samples:
        return None
    figures = {name: value for name in samples[0] if (value := middle(samples, name)) is not None}
    against = ratio(workload.figure, samples, results.of(workload.name, KINDS[kind].baseline))
    calls = {
        name.removeprefix("calls "): value for name, value in figures.items() if name.startswith("calls ")
    }
    cells = (
        _cost(figures),
        number(figures.get("user_us")),
        number(figures.get("rate")),
        "" if against is None else str(against),
        _times(figures),
    )
    return Row(title, cells, against, calls)


def _cost(figures: dict[str, float]) -> str:
    if "bytes" in figures:
        return f"{figures['bytes'] / 1000:.2f} kB"
    return number(figures.get("cpu_us"))


def _times(figures: dict[str, float]) -> str:
    if "stall_ms" in figures:
        done = f"all in {figures['seconds']:.2f} s, longest stall {figures['stall_ms']:.1f} ms"
        return f"{done} ({figures['still_ms']:.1f} ms before)"
    if "together" in figures:
        return f"{figures['together']:.2f} a read"
    return f"{number(figures['p50_us'])} / {number(figures['p99_us'])}" if "p50_us" in figures else ""


def number(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def as_text(results: Results) -> str:
    """The table for a terminal."""
    lines = []
    for workload, rows in sections(results):
        lines += ["", f"{workload.title}, per {workload.unit}", _line("", HEADINGS)]
        for row in rows:
            lines.append(_line(row.title, row.cells))
            if row.calls:
                ordered = sorted(row.calls.items(), key=lambda item: -item[1])
                lines.append(
                    "    calls: "
                    + ", ".join(f"{name} {count:.2f}" for name, count in ordered if count > 0.004)
                )
    lines += ["", _disturbance(results)]
    found = list(reached(results))
    for goal, value in found:
        verdict = "met" if goal.met(value) else "MISSED"
        lines.append(f"{goal.title:<56}{number(value):>8}{goal.unit:<4}{goal.wanted:>10}  {verdict}")
    return "\n".join(lines)


def _disturbance(results: Results) -> str:
    return f"Meanwhile other processes took {results.others_share * 100:.1f} % of the machine."


def _line(title: str, cells: tuple[str, ...]) -> str:
    if len(cells) == 1:
        return f"  {title:<{_WIDTHS[0]}}{cells[0]}"
    return (
        f"  {title:<{_WIDTHS[0]}}"
        + "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS[1:], strict=True))
    ).rstrip()


def as_markdown(results: Results) -> str:
    """The goals and the table for a page."""
    lines = [f"Measured {results.taken}, {results.rounds} rounds. {_disturbance(results)}"]
    lines += ["", "| machine | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in {**results.machine, **results.versions}.items()]
    lines += ["", "| goal | wanted | measured | |", "|---|---|---|---|"]
    for goal, value in reached(results):
        verdict = "met" if goal.met(value) else "**missed**"
        lines.append(f"| {goal.title} | {goal.wanted} | {number(value)}{goal.unit} | {verdict} |")
    lines += ["", "![How many times less than nginx each candidate takes.](images/performance.svg)"]
    for workload, rows in sections(results):
        lines += ["", f"**{workload.title}**, per {workload.unit}", "", "| | " + " | ".join(HEADINGS) + " |"]
        lines.append("|---|" + "---:|" * len(HEADINGS))
        for row in rows:
            cells = [*row.cells, *[""] * (len(HEADINGS) - len(row.cells))]
            if len(row.cells) == 1:
                cells = [*[""] * (len(HEADINGS) - 1), row.cells[0]]
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
