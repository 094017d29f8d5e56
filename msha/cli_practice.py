"""A practice run of a cutover as text for a terminal."""

from collections.abc import Iterator
from typing import Any

from msha.remote import table

Practice = dict[str, Any]


def practice_text(practice: Practice) -> str:
    """What was measured, worst news first."""
    return "\n".join(_lines(practice))


def _lines(practice: Practice) -> Iterator[str]:
    yield f"practice {practice['state']}: {practice['sentence']}"
    for check in practice["checks"]:
        if not check["passed"]:
            skipped = " (skipped)" if check["skipped"] else ""
            yield f"  check {check['title']}{skipped}: {check['reason']}"
    for hook in practice["hooks"]:
        yield f"  hook {hook['name']}: {hook['sentence']}"
    nodes = (practice["drain"] or {}).get("nodes", [])
    if nodes:
        rows = [
            [node["node"], node["unit"], _of(node, "sessions"), _of(node, "ms"), node.get("error", "")]
            for node in nodes
        ]
        yield table(rows, ["LOSING NODE", "UNIT", "SESSIONS", "FREEZE MS", "PROBLEM"])
    if practice["recovery"]:
        rows = [
            [
                unit["unit"],
                _of(unit, "sessions"),
                _of(unit, "handshake_ms"),
                _of(unit, "accepts_per_s"),
                _of(unit, "all_back_s"),
            ]
            for unit in practice["recovery"]
        ]
        yield table(rows, ["GAINING UNIT", "SESSIONS", "HANDSHAKE MS", "ACCEPTS/S", "ALL BACK S"])


def _of(row: dict[str, Any], name: str) -> str:
    return str(row[name]) if row.get(name) is not None else "-"
