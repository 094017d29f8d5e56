"""Snapshots for tests of running edges: the walk-through's rule in any phase of its cutover."""

from typing import Any

from msha.steering.snapshot import Published
from tests.steering.builders import make_config, make_domain, make_rule, make_unit_type, publish

#: The walk-through (DESIGN 11): 5998~6380 go from unbj to center.
OLD = {"center": ["0~5997"], "unbj": ["5998~9999"]}
NEW = {"center": ["0~6380"], "unbj": ["6381~9999"]}
MOVED = [[5998, 6380, "unbj", "center"]]


def snapshot(
    version: int,
    *,
    epoch: int = 1,
    phase: str | None = None,
    new: bool = False,
    server: str = "127.0.0.1:9",
    moved: list[list[Any]] | None = None,
    comment: str = "",
    ranges: dict[str, list[str]] | None = None,
) -> Published:
    """A snapshot whose every URI leads to one server in both units.

    Args:
        phase: of the running cutover; None for a plain table.
        new: the table after the move instead of the one before it.
        comment: makes another content of the same version.
        ranges: a table of the test's own.
    """
    uri = {
        "path": "/",
        "balance": "consistent_hash",
        "back_sources": {"center": [server], "unbj": [server]},
    }
    running = None
    if phase is not None:
        running = {
            "id": "1",
            "unit_type": "unit_type",
            "phase": phase,
            "both": False,
            "moved": MOVED if moved is None else moved,
        }
    config = make_config(make_domain(uris=[uri]))
    config["limits"] = {"comment": comment} if comment else {}
    rule = make_rule(make_unit_type(ranges or (NEW if new else OLD)), epoch=epoch, cutover=running)
    return publish(config, rule, version)
