"""What a campaign prints at its end, and small things that it needs around it."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msha.demo.processes import Child
from tests.chaos.checker import Verdict

if TYPE_CHECKING:
    from tests.chaos.campaign import Course

MOST_SHOWN = 20


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def spread(values: Sequence[float], unit: str = "ms", factor: float = 1000.0) -> str:
    """p50, p99 and the largest, with the count."""
    if not values:
        return "none"
    shown = (percentile(values, 0.5) * factor, percentile(values, 0.99) * factor, max(values) * factor)
    return "p50 {:.0f}, p99 {:.0f}, max {:.0f} {} ({} of them)".format(*shown, unit, len(values))


def report(course: "Course", verdict: Verdict) -> Iterator[str]:
    """The lines."""
    yield ""
    endings = ", ".join(f"{count} {name}" for name, count in sorted(course.endings.items()))
    yield f"cutovers             {sum(course.endings.values())}: {endings}"
    yield f"seconds for each     {spread(course.seconds, 's', 1.0)}"
    yield f"faults               {sum(course.faults.values())}"
    for name, count in sorted(course.faults.items()):
        yield f"  {name:40s} {count}"
    yield f"sessions             {verdict.sessions}, tunnels {verdict.tunnels}, messages {verdict.messages}"
    yield "closed               " + ", ".join(
        f"{count} {name}" for name, count in sorted(verdict.closed.items())
    )
    yield f"wrongly closed       {verdict.wrongly_closed}"
    yield f"most redirects       {verdict.most_redirects} in a row"
    yield f"frozen, product      {spread([ms / 1000 for ms in course.frozen_ms])} per cutover"
    yield f"frozen, clients      {spread(verdict.frozen_seen_s)} per id"
    yield f"frozen, back-sources {spread(verdict.frozen_behind_s)} per id"
    yield f"  without a fault    {spread(verdict.frozen_calm_s)} per id, clients"
    yield f"back, without fault  {spread(verdict.back_s)}"
    yield f"  beyond own retry   {spread(verdict.back_late_s)}"
    yield f"observers' worst lag {verdict.lag_s * 1000:.0f} ms"
    yield f"violations           {len(verdict.violations)}"
    for violation in verdict.violations[:MOST_SHOWN]:
        yield f"  {violation}"
    if len(verdict.violations) > MOST_SHOWN:
        yield f"  and {len(verdict.violations) - MOST_SHOWN} more"
    for problem in course.problems:
        yield f"PROBLEM: {problem}"


def forget(directory: Path) -> None:
    """Nothing of a campaign that went well is left."""
    for below in directory.iterdir():
        if below.is_mount():
            subprocess.run(["umount", "--lazy", str(below)], check=False)
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[tuple[str, Child]]:
    """URL and process of a PostgreSQL of the campaign's own."""
    from tests.support.servers import running_postgres

    with running_postgres(fsync=True) as (url, child):
        yield url, child
