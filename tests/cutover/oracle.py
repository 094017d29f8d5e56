"""What must hold at every publish, judged from stored documents and rows alone.

Knows nothing of the code that drives a cutover. Whenever a version lets a unit accept an id that it did not
accept before, no node of another unit may still accept or serve it, whichever of the versions since its last
ack it obeys (PROTOCOL I1, I2, I8).
"""

import json
from collections.abc import Iterator
from typing import Any

from msha.steering.ranges import KeySpace, RangeTable
from units.models import EdgeNode, Namespace, Snapshot

Rule = dict[str, Any]


class Broken(AssertionError):
    """A promise of the protocol was broken."""


def check_publish(namespace: Namespace, before: Snapshot | None, rule: Rule | None) -> None:
    """The rule part may follow the version before it.

    Raises:
        Broken: the epoch does not follow, or an id could be served by two units.
    """
    if before is None or rule is None:
        return
    bodies = Snapshot.objects.filter(namespace=namespace).order_by("version").values_list("body", flat=True)
    history = [json.loads(body)["rule"] for body in bodies]
    if rule["epoch"] != history[-1]["epoch"] + 1:
        raise Broken(f"epoch {rule['epoch']} after {history[-1]['epoch']}")
    nodes = EdgeNode.objects.filter(namespace=namespace, state=EdgeNode.State.ENROLLED)
    for name, router_id in _samples([*history, rule]):
        unit = _accepting(rule, name, router_id)
        if unit is None or _accepting(history[-1], name, router_id) == unit:
            continue
        for node in nodes.exclude(unit__code=unit).select_related("unit"):
            last = _last_accepted(history, name, router_id, node.unit.code)
            gone = min(node.applied_epoch, node.drained_epoch) > last or node.workers_exited_epoch > last
            if last >= 0 and not gone:
                raise Broken(f"{unit} would accept {router_id} although {node.name} may still serve it")


def _last_accepted(history: list[Rule], name: str, router_id: int, unit: str) -> int:
    """The newest epoch in which the unit accepted the id; -1 if it never did."""
    return max((rule["epoch"] for rule in history if _accepting(rule, name, router_id) == unit), default=-1)


def _accepting(rule: Rule, name: str, router_id: int) -> str | None:
    """The unit that accepts the id under the rule, or None while it is frozen."""
    entry = next(entry for entry in rule["unit_types"] if entry["name"] == name)
    unit = _table(rule, entry).owner(router_id)
    running = rule["cutover"]
    if running is None or running["phase"] == "prepare" or running["unit_type"] != name:
        return unit
    for first, last, losing, gaining in running["moved"]:
        if first <= router_id <= last:
            if running["phase"] == "freeze":
                holding = {losing, gaining} if running["both"] else {losing}
            else:
                holding = {losing} - {gaining}
            return None if unit in holding else unit
    return unit


def _samples(history: list[Rule]) -> Iterator[tuple[str, int]]:
    """One id of each stretch that no rule divides, per unit type."""
    for entry in history[-1]["unit_types"]:
        edges = set()
        for rule in history:
            for other in rule["unit_types"]:
                if other["name"] == entry["name"]:
                    edges.update(start for start, _, _ in _table(rule, other).segments())
            for first, last, _, _ in (rule["cutover"] or {}).get("moved", []):
                edges.update((first, last + 1))
        space = history[-1]["key_space"]
        for edge in sorted(edges):
            if space["min"] <= edge <= space["max"]:
                yield entry["name"], edge


def _table(rule: Rule, entry: Rule) -> RangeTable:
    space = KeySpace(rule["key_space"]["min"], rule["key_space"]["max"])
    return RangeTable.parse(space, entry["ranges"], entry.get("exact", {}))
