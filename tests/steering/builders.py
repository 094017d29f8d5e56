"""Small builders for rule and config parts; the walk-through of the product is their default."""

from typing import Any
from uuid import UUID

from msha.steering.snapshot import Published, Snapshot, build, load

NAMESPACE_ID = str(UUID(int=7))


def make_unit_type(
    ranges: dict[str, list[str]] | None = None, exact: dict[str, list[int]] | None = None, **changes: Any
) -> dict[str, Any]:
    return {
        "name": "unit_type",
        "sources": [{"header": "routerId"}, {"query": "routerId"}, {"cookie": "routerId"}],
        "transform": [],
        "untagged": "local",
        "ranges": ranges or {"center": ["0~5997"], "unbj": ["5998~9999"]},
        "exact": exact or {},
        **changes,
    }


def make_rule(*unit_types: dict[str, Any], epoch: int = 0, **changes: Any) -> dict[str, Any]:
    unit_types = unit_types or (make_unit_type(),)
    return {
        "epoch": epoch,
        "key_space": {"min": 0, "max": 9999},
        "default_unit_type": unit_types[0]["name"],
        "unit_types": list(unit_types),
        "cutover": None,
        **changes,
    }


def make_domain(name: str = "websocket.msha.tech", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "protocol": "websocket",
        "dns": "none",
        "multi_unit": True,
        "correction": "redirect",
        "redirect_scheme": "http",
        "ports": {"center": 80, "unbj": 80},
        "clusters": {"center": "ws-hz-2", "unbj": "ws-bj-2"},
        "uris": [
            {
                "path": "/",
                "balance": "consistent_hash",
                "back_sources": {"center": ["127.0.0.1:9101", "127.0.0.1:9102"], "unbj": ["127.0.0.1:9201"]},
            }
        ],
        **changes,
    }


def make_config(*domains: dict[str, Any], units: tuple[str, ...] = ("center", "unbj")) -> dict[str, Any]:
    clusters = {"center": "ws-hz-2", "unbj": "ws-bj-2"}
    return {
        "units": [{"code": code, "name": code, "center": code == "center"} for code in units],
        "clusters": [
            {"name": clusters[code], "unit": code, "protocol": "websocket", "slbs": []}
            for code in units
            if code in clusters
        ],
        "domains": list(domains or (make_domain(),)),
        "limits": {},
    }


def publish(
    config: dict[str, Any] | None = None, rule: dict[str, Any] | None = None, version: int = 1
) -> Published:
    return build(NAMESPACE_ID, "demo", version, config or make_config(), rule or make_rule())


def make_snapshot(
    config: dict[str, Any] | None = None, rule: dict[str, Any] | None = None, version: int = 1
) -> Snapshot:
    return load(publish(config, rule, version).body)
