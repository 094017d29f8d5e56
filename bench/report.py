"""Medians, ratios, and the table that is printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.candidates import KINDS
from bench.workloads import WORKLOADS, Sample

#: By workload, by candidate: one sample a round.
Samples = Mapping[str, Mapping[str, Sequence[Sample]]]


def middle(samples: Sequence[Sample], name: str) -> float | None:
    """The median of one figure; None if it is not measured there."""
    values = [sample[name] for sample in samples if name in sample]
    return median(values) if values else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """The baseline's figure over a candidate's, round by round: the middle and both ends."""

    middle: float
    least: float
    most: float


def ratio(figure: str, candidate: Sequence[Sample], baseline: Sequence[Sample]) -> Ratio | None:
    """How many times less the candidate takes than the baseline; None where one has no such figure."""
    pairs = [
        theirs[figure] / ours[figure]
        for ours, theirs in zip(candidate, baseline, strict=False)
        if ours.get(figure) and figure in theirs
    ]
    return Ratio(median(pairs), min(pairs), max(pairs)) if pairs else None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    workload: str
    kind: str
    figures: Mapping[str, float]
    ratio: Ratio | None
    note: str = ""
    more: Mapping[str, float] = field(default_factory=dict)


def rows(samples: Samples, failures: Mapping[tuple[str, str], str]) -> list[Row]:
    """The table's lines in its order."""
    found = []
    for name, workload in WORKLOADS.items():
        by_kind = samples.get(name, {})
        for kind_name in workload.kinds:
            note = failures.get((name, kind_name), "")
            taken = by_kind.get(kind_name, [])
            if not taken and not note:
                continue
            figures = {
                figure: value
                for figure in (taken[0] if taken else {})
                if (value := middle(taken, figure)) is not None
            }
            figure = "bytes" if "bytes" in figures else "cpu_us"
            found.append(
                Row(
                    name,
                    kind_name,
                    figures,
                    ratio(figure, taken, by_kind.get(KINDS[kind_name].baseline, [])),
                    note,
                )
            )
    return found


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cells(row: Row) -> list[str]:
    figures = row.figures
    if row.note:
        return [row.note]
    if row.workload == "memory":
        cost = f"{_number(figures['bytes'] / 1000)} kB"
    else:
        cost = _number(figures.get("cpu_us"))
    user = _number(figures.get("user_us"))
    ratio_text = (
        "" if row.ratio is None else f"{row.ratio.middle:.2f} ({row.ratio.least:.2f}-{row.ratio.most:.2f})"
    )
    rate = _number(figures.get("rate"))
    times = "" if "p50_us" not in figures else f"{_number(figures['p50_us'])} / {_number(figures['p99_us'])}"
    if "stall_ms" in figures:
        times = f"all in {figures['seconds']:.2f} s"
        times += f", longest stall {figures['stall_ms']:.1f} ms (idle {figures['still_ms']:.1f})"
    return [cost, user, rate, ratio_text, times]


HEADINGS = ("", "CPU µs", "of it user", "per second", "ratio to nginx", "p50 / p99 µs")


def as_text(found: Sequence[Row]) -> str:
    """The table for a terminal."""
    lines = []
    last = ""
    for row in found:
        workload = WORKLOADS[row.workload]
        if row.workload != last:
            target = f"; target {workload.target}" if workload.target else ""
            lines += ["", f"{workload.title} (per {workload.unit}{target})"]
            lines.append(
                "  "
                + "".join(f"{heading:>{width}}" for heading, width in zip(HEADINGS, _WIDTHS, strict=True))
            )
            last = row.workload
        cells = _cells(row)
        title = f"  {KINDS[row.kind].title:<{_WIDTHS[0]}}"
        lines.append(
            title + "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS[1:], strict=False))
        )
    return "\n".join(lines)


_WIDTHS = (32, 10, 12, 12, 20, 20)
