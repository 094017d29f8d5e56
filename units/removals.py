"""What a new config part takes away from the one in effect."""

from collections.abc import Iterator
from typing import Any

from units.in_use import Kind, Thing

Document = dict[str, Any]


def removed(before: Document, after: Document) -> Iterator[Thing]:
    """Everything that stands in ``before`` and is gone from ``after``, or leads somewhere else there.

    Args:
        before, after: config parts.
    """
    codes = {unit["code"] for unit in after["units"]}
    for unit in before["units"]:
        if unit["code"] not in codes:
            yield Thing(Kind.UNIT, unit["code"], unit["code"])
    homes = {cluster["name"]: cluster["unit"] for cluster in after.get("clusters", [])}
    for cluster in before.get("clusters", []):
        if homes.get(cluster["name"]) != cluster["unit"]:
            yield Thing(Kind.CLUSTER, cluster["name"], cluster["unit"])
    domains = {domain["name"]: domain for domain in after.get("domains", [])}
    for domain in before.get("domains", []):
        if domain["name"] in domains:
            yield from _of_domain(domain, domains[domain["name"]])
        else:
            yield Thing(Kind.DOMAIN, domain["name"], domain=domain["name"])


def _of_domain(before: Document, after: Document) -> Iterator[Thing]:
    for unit, cluster in before.get("clusters", {}).items():
        if after.get("clusters", {}).get(unit) != cluster:
            yield Thing(Kind.CLUSTER, cluster, unit, before["name"])
    uris = {uri["path"]: uri for uri in after.get("uris", [])}
    for uri in before.get("uris", []):
        new = uris.get(uri["path"])
        if new is None:
            yield Thing(Kind.URI, f"{before['name']}{uri['path']}", domain=before["name"])
            continue
        for unit, servers in uri.get("back_sources", {}).items():
            for server in servers:
                if server not in new.get("back_sources", {}).get(unit, ()):
                    yield Thing(Kind.BACK_SOURCE, server, unit, before["name"])
