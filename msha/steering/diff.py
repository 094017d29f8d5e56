"""Snapshots and rules as text, and the difference of two texts line by line, for people to compare."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml


class Change(StrEnum):
    """What happened to a line."""

    SAME = "same"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a comparison; the numbers are from 1, None on the side where it does not stand."""

    change: Change
    before: int | None
    after: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a side-by-side comparison; a side is None where nothing stands opposite."""

    left: Line | None
    right: Line | None

    @property
    def changed(self) -> bool:
        """Whether the two sides differ."""
        return self.left is None or self.right is None or self.left.text != self.right.text


def as_text(value: Any) -> str:
    """A document or a part of one as YAML, in the order of its keys as they stand."""
    text: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, default_flow_style=None, width=100)
    return text


#: The order in which the keys of a snapshot's document are read most easily; all others follow by name.
_READING_ORDER = (
    "schema", "namespace", "namespace_id", "version", "config", "rule",
    "code", "name", "unit", "center", "protocol", "slbs",
    "dns", "multi_unit", "correction", "redirect_scheme", "ports",
    "units", "clusters", "domains", "uris", "path", "balance", "back_sources", "limits",
    "epoch", "cutover", "key_space", "default_unit_type", "unit_types",
    "sources", "transform", "untagged", "ranges", "exact",
    "id", "unit_type", "phase", "both", "moved", "min", "max",
)  # fmt: skip
_RANK = {key: rank for rank, key in enumerate(_READING_ORDER)}


def document_text(value: Any) -> str:
    """A snapshot's document, or a part of one, as YAML for people; equal values give equal texts."""
    return as_text(_in_reading_order(value))


def _in_reading_order(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_reading_order(item) for item in value]
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (_RANK.get(key, len(_RANK)), key))
        return {key: _in_reading_order(value[key]) for key in keys}
    return value


def rule_text(namespace: str, key_space: dict[str, int], unit_type: dict[str, Any]) -> str:
    """The rule of one unit type as operators read it: the 规则文本 of the cutover page."""
    lines = [
        f"namespace: {namespace}",
        f"unit type: {unit_type['name']}",
        f"key space: {key_space['min']}~{key_space['max']}",
        "read from: "
        + ", then ".join(f"{k} {v}" for source in unit_type["sources"] for k, v in source.items()),
    ]
    if unit_type.get("transform"):
        steps = (f"{k} {v}" for step in unit_type["transform"] for k, v in step.items())
        lines.append("transform: " + ", then ".join(steps))
    lines.append(f"untagged: {unit_type['untagged']}")
    lines.append("rules:")
    exact = unit_type.get("exact", {})
    for unit in sorted({*unit_type["ranges"], *exact}, key=lambda unit: _first_id(unit_type, unit)):
        lines.append(f"  {unit}:")
        lines.extend(f"    routerId: {text}" for text in unit_type["ranges"].get(unit, []))
        lines.extend(f"    routerId: {router_id} (exact)" for router_id in exact.get(unit, []))
    return "\n".join(lines) + "\n"


def _first_id(unit_type: dict[str, Any], unit: str) -> int:
    texts = unit_type["ranges"].get(unit) or []
    starts = [int(text.split("~")[0]) for text in texts] + list(unit_type.get("exact", {}).get(unit, []))
    return min(starts, default=0)


def compare(before: str, after: str) -> list[Line]:
    """All lines of both texts in one column, each marked same, removed or added."""
    return [line for row in side_by_side(before, after) for line in _stacked(row)]


def _stacked(row: Row) -> Iterator[Line]:
    if row.left is not None:
        yield row.left
    if row.right is not None and row.right.change is not Change.SAME:
        yield row.right


def side_by_side(before: str, after: str) -> list[Row]:
    """The two texts opposite each other, changed blocks aligned at their first line."""
    left, right = before.splitlines(), after.splitlines()
    rows: list[Row] = []
    matcher = difflib.SequenceMatcher(a=left, b=right, autojunk=False)
    for tag, left_from, left_to, right_from, right_to in matcher.get_opcodes():
        if tag == "equal":
            for offset in range(left_to - left_from):
                line = Line(
                    Change.SAME, left_from + offset + 1, right_from + offset + 1, left[left_from + offset]
                )
                rows.append(Row(line, line))
            continue
        removed = _lines(Change.REMOVED, left, left_from, left_to)
        added = _lines(Change.ADDED, right, right_from, right_to)
        for index in range(max(len(removed), len(added))):
            rows.append(Row(_at(removed, index), _at(added, index)))
    return rows


def _lines(change: Change, texts: Sequence[str], start: int, end: int) -> list[Line]:
    if change is Change.REMOVED:
        return [Line(change, index + 1, None, texts[index]) for index in range(start, end)]
    return [Line(change, None, index + 1, texts[index]) for index in range(start, end)]


def _at(lines: Sequence[Line], index: int) -> Line | None:
    return lines[index] if index < len(lines) else None
