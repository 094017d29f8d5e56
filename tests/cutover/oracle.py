"""What must hold at every publish of a cutover step, judged from rows and documents alone.

Knows nothing of the code that drives a cutover: it compares the table in force with the one that is about to
be published (PROTOCOL I2, I5, I8).
"""

import json
from collections.abc import Iterator
from typing import Any

from msha.steering.ranges import KeySpace, MovedRange, RangeTable, diff
from units.models import EdgeNode, Namespace, Snapshot


class Broken(AssertionError):
    """A promise of the protocol was broken."""


def check_publish(namespace: Namespace, before: Snapshot | None, rule: dict[str, Any] | None) -> None:
    """The rule part may follow the version before it.

    Raises:
        Broken: ids would change their owner while somebody who is not proven harmless may still serve them.
    """
    if before is None or rule is None:
        return
    old = json.loads(before.body)["rule"]
    if rule["epoch"] != old["epoch"] + 1:
        raise Broken(f"epoch {rule['epoch']} after {old['epoch']}")
    for move in _moves(old, rule):
        _check_frozen(old, move)
        for node in EdgeNode.objects.filter(
            namespace=namespace, unit__code=move.losing, state=EdgeNode.State.ENROLLED
        ):
            drained = node.applied_epoch >= old["epoch"] and node.drained_epoch >= old["epoch"]
            if not drained and node.workers_exited_epoch < old["epoch"]:
                raise Broken(f"{move} although {node.name} may still serve them")


def _moves(old: dict[str, Any], new: dict[str, Any]) -> Iterator[MovedRange]:
    space = KeySpace(old["key_space"]["min"], old["key_space"]["max"])
    after = {entry["name"]: entry for entry in new["unit_types"]}
    for entry in old["unit_types"]:
        tables = [
            RangeTable.parse(space, one["ranges"], one.get("exact", {}))
            for one in (entry, after[entry["name"]])
        ]
        yield from diff(*tables)


def _check_frozen(old: dict[str, Any], move: MovedRange) -> None:
    running = old["cutover"]
    if running is None or running["phase"] != "freeze":
        raise Broken(f"{move} without a FREEZE before")
    for router_id in (move.start, move.end - 1):
        if not any(
            first <= router_id <= last and losing == move.losing
            for first, last, losing, _ in running["moved"]
        ):
            raise Broken(f"{move} although {router_id} was not frozen at {move.losing}")
