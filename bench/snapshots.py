"""The snapshots that the edge obeys in the benchmark."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.programs import HOST
from msha.steering.snapshot import Published, build

NAMESPACE_ID = "0b1d6a52-6f0e-4c55-8f61-7f5f3f1f0b02"

#: The routing job of every candidate.
RANGES = {"center": ["0~5997"], "unbj": ["5998~9999"]}
CENTER_IDS = (1000, 5997)
UNBJ_IDS = (5998, 9999)


def domain(name: str, uris: Mapping[str, str]) -> dict[str, Any]:
    """A domain of two units with a back-source per path, the same for both."""
    return {
        "name": name,
        "protocol": "websocket",
        "dns": "none",
        "multi_unit": True,
        "correction": "redirect",
        "redirect_scheme": "http",
        "ports": {"center": 8101, "unbj": 8102},
        "clusters": {"center": "ws-hz", "unbj": "ws-bj"},
        "uris": [
            {
                "path": path,
                "balance": "consistent_hash",
                "back_sources": {"center": [server], "unbj": [server]},
            }
            for path, server in uris.items()
        ],
    }


def config(domains: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A config part with these domains."""
    return {
        "units": [
            {"code": "center", "name": "Hangzhou", "center": True},
            {"code": "unbj", "name": "Beijing", "center": False},
        ],
        "clusters": [
            {"name": "ws-hz", "unit": "center", "protocol": "websocket", "slbs": []},
            {"name": "ws-bj", "unit": "unbj", "protocol": "websocket", "slbs": []},
        ],
        "domains": [dict(each) for each in domains],
        "limits": {},
    }


def rule(ranges: Mapping[str, Sequence[str]], epoch: int = 1) -> dict[str, Any]:
    """A rule part: the id comes by header, modulo 10000."""
    return {
        "epoch": epoch,
        "key_space": {"min": 0, "max": 9999},
        "default_unit_type": "unit_type",
        "unit_types": [
            {
                "name": "unit_type",
                "sources": [{"header": "routerId"}],
                "transform": [{"modulo": 10000}],
                "untagged": "local",
                "ranges": {unit: list(parts) for unit, parts in ranges.items()},
                "exact": {},
            }
        ],
        "cutover": None,
    }


def publish(
    version: int, ranges: Mapping[str, Sequence[str]], domains: Sequence[Mapping[str, Any]]
) -> Published:
    """A snapshot of that version."""
    return build(NAMESPACE_ID, "bench", version, config(domains), rule(ranges, epoch=version))


def write(
    path: Path, uris: Mapping[str, str], ranges: Mapping[str, Sequence[str]] = RANGES, version: int = 1
) -> None:
    """The file has a snapshot with one domain; readers never see half of it."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(publish(version, ranges, [domain(HOST, uris)]).body)
    fresh.replace(path)
