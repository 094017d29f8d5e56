"""Stored rows as the values that the core judges: the plan, the running step, the nodes."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from cutover.models import Cutover
from cutover.pacing import planning
from cutover.rules import Document
from msha.steering import wire
from msha.steering.phases import NodeView, Phase, Plan, Step
from msha.steering.ranges import KeySpace, MovedIds
from units.models import EdgeNode

State = Cutover.State

#: The states in which a step is published, and its phase.
PHASE_OF: dict[str, Phase] = {
    State.PREPARE: Phase.PREPARE,
    State.FREEZE: Phase.FREEZE,
    State.ACTIVATE: Phase.ACTIVATE,
    State.RELEASE: Phase.RELEASE,
    State.ABORTING: Phase.ABORT,
}
STATE_OF: dict[Phase, Cutover.State] = {phase: State(state) for state, phase in PHASE_OF.items()}


def fixed(cutover: Cutover, document: Document) -> dict[str, Any]:
    """What is fixed at the start of a cutover, as it is stored: key space, batches, pace, gaining clusters.

    The clusters are those that a domain in effect uses in a unit that loses or gains ids: they count for
    both directions, and a cluster that is added meanwhile counts in no gate (PROTOCOL P3).
    """
    moved = MovedIds.from_lists(cutover.moved)
    batches, pace = planning.fixed(cutover)
    concerned = moved.losing_units | moved.gaining_units
    clusters = {
        (unit, cluster)
        for domain in document["config"].get("domains", [])
        for unit, cluster in domain.get("clusters", {}).items()
        if unit in concerned
    }
    return {
        "key_space": document["rule"]["key_space"],
        "batches": batches,
        "pace": pace,
        "gaining_clusters": sorted([unit, cluster] for unit, cluster in clusters),
    }


def plan_of(cutover: Cutover) -> Plan:
    """The plan that was fixed at the start."""
    stored = cutover.plan
    return Plan(
        cutover_id=str(cutover.pk),
        unit_type=cutover.unit_type,
        key_space=KeySpace(stored["key_space"]["min"], stored["key_space"]["max"]),
        old=cutover.old_rule,
        new=cutover.new_rule,
        batches=tuple(MovedIds.from_lists(rows) for rows in stored["batches"]),
        gaining_clusters=frozenset((unit, cluster) for unit, cluster in stored["gaining_clusters"]),
    )


def step_of(cutover: Cutover) -> Step:
    """The published step that runs."""
    return Step(PHASE_OF[cutover.state], cutover.batch, cutover.turns, cutover.unwinding)


def views(nodes: Iterable[EdgeNode]) -> list[NodeView]:
    """What the gates may know of each node."""
    now = timezone.now()
    return [
        NodeView(
            name=node.name,
            unit=node.unit.code,
            cluster=node.cluster.name if node.cluster is not None else "",
            enrolled=node.enrolled,
            live=node.enrolled
            and node.connected
            and node.status_at is not None
            and now - node.status_at < timedelta(seconds=wire.LIVE_S),
            parked=node.parked,
            acked_epoch=node.applied_epoch,
            drained_epoch=node.drained_epoch,
            exited_epoch=node.workers_exited_epoch,
        )
        for node in nodes
    ]


def enrolled_nodes(namespace_id: int) -> list[EdgeNode]:
    """Every node that the gates wait for; read it under the namespace's lock to judge a step."""
    rows = EdgeNode.objects.filter(namespace=namespace_id, state=EdgeNode.State.ENROLLED)
    return list(rows.select_related("unit", "cluster").order_by("name"))
