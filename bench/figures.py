"""Middles and ratios of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.workloads import Sample

#: Of these more is better, of all others less.
_RATES = ("rate",)


def middle(samples: Sequence[Sample], name: str) -> float | None:
    """The median of one figure; None if it is not measured there."""
    values = [sample[name] for sample in samples if name in sample]
    return median(values) if values else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times better than the baseline, compared round by round: the median and both ends."""

    middle: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f}-{self.most:.2f})"


def ratio(figure: str, candidate: Sequence[Sample], baseline: Sequence[Sample]) -> Ratio | None:
    """A candidate against a baseline; None where one of them has no such figure."""
    pairs = [
        ours[figure] / theirs[figure] if figure in _RATES else theirs[figure] / ours[figure]
        for ours, theirs in zip(candidate, baseline, strict=False)
        if ours.get(figure) and theirs.get(figure)
    ]
    return Ratio(median(pairs), min(pairs), max(pairs)) if pairs else None
