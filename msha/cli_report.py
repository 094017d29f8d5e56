"""The report of a cutover as text for a terminal."""

from collections.abc import Iterator
from typing import Any

from msha.remote import table

Report = dict[str, Any]


def report_text(report: Report) -> str:
    """What a colleague wants to know first; the JSON has the rest."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield f"cutover #{report['number']} of {report['namespace']} ({report['unit_type']}): {report['phase']}"
    if report["outcome"]:
        yield report["outcome"]
    if report["rule"]["impact"]:
        yield report["rule"]["impact"]
    yield from _people(report)
    yield from _figures(report)
    yield from _section(
        "steps",
        ["AT", "BATCH", "STEP", "MS"],
        [
            [step["at"][11:23], str(step["batch"]), step["title"], _shown(step["ms"])]
            for step in report["phases"]
        ],
    )
    if len(report["batches"]) > 1:
        yield from _section(
            "batches",
            ["BATCH", "IDS", "STATE", "HELD MS"],
            [
                [str(one["number"]), str(one["ids"]), one["state_title"], _shown(one["frozen_ms"])]
                for one in report["batches"]
            ],
        )
    yield from _section(
        "checks",
        ["STATE", "CHECK", "BY", "REASON"],
        [
            [one["state"], one["title"], one["skipped_by"], one["skip_reason"] or one["reason"]]
            for one in report["checks"]
        ],
    )
    yield from _section(
        "overrides",
        ["RULE", "BY", "REASON"],
        [[one["rule"], one["by"], one["reason"]] for one in report["overrides"]],
    )
    yield from _section(
        "hooks",
        ["HOOK", "MOMENT", "STATE", "CALLS", "ANSWER"],
        [
            [one["name"], one["moment"], one["state"], str(one["calls"]), one["skip_reason"] or one["answer"]]
            for one in report["hooks"]
        ],
    )
    yield from _section(
        "alarms", ["AT", "ALARM"], [[one["at"][11:23], one["sentence"]] for one in report["alarms"]]
    )


def _people(report: Report) -> Iterator[str]:
    if report["reason"]:
        yield f"why               {report['reason']}"
    yield f"drafted by        {report['created_by'] or '–'}"
    if report["approval"]["approved_by"]:
        yield f"approved by       {report['approval']['approved_by']}  {report['approval']['comment']}"
    if report["started_at"]:
        yield f"started by        {report['started_by']}  {report['started_at']}"
    if report["ended_at"]:
        yield f"ended             {report['ended_at']}"


def _figures(report: Report) -> Iterator[str]:
    sessions, stragglers = report["sessions"], report["stragglers"]
    asked, moved = report["asked"]["ids"], report["moved"]
    yield f"moved ids         {moved['ids']} of {asked}  {moved['text']}"
    yield f"sessions          {sessions['closed']} closed, {sessions['reconnected']} reconnected"
    if report["frozen"]["ms"] is not None:
        yield f"frozen at most    {report['frozen']['ms']} ms"
    if stragglers["nodes"]:
        yield f"ended without     {', '.join(stragglers['nodes'])}"
    if stragglers["ids"] is not None:
        found = stragglers["ids"]
        more = f" and {found['left_out']} more" if found["left_out"] else ""
        yield f"not come back     {found['count']}  {', '.join(found['ranges'])}{more}"


def _section(title: str, head: list[str], rows: list[list[str]]) -> Iterator[str]:
    if rows:
        yield f"\n{title}"
        yield table(rows, head)


def _shown(ms: int | None) -> str:
    return "–" if ms is None else str(ms)
