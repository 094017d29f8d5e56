"""A running cutover as one step is decided from it: read under the namespace's lock, judged by the core."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from cutover import plans, progress
from cutover.models import Cutover
from msha.steering import phases
from msha.steering.phases import NodeView, Plan, Step, Verdict
from units import publishing
from units.models import Namespace


@dataclass(eq=False)
class Lost(Exception):
    """Somebody else has taken the step; nothing was changed."""

    cutover_id: int


@dataclass
class Situation:
    """Everything a step is decided from, read under the namespace's lock."""

    namespace: Namespace
    cutover: Cutover
    plan: Plan
    step: Step
    views: Sequence[NodeView]
    verdict: Verdict
    now: datetime

    @property
    def lasted_s(self) -> float:
        """How long the step has lasted, on the console's clock."""
        began = self.cutover.phase_at or self.now
        return (self.now - began).total_seconds()


def locked_on(cutover_id: int, act: Callable[[Namespace, Cutover], bool]) -> bool:
    """What the act says, done under the namespace's lock; False if the cutover does not run."""
    row = Cutover.objects.values("namespace_id", "state").get(pk=cutover_id)
    if row["state"] not in Cutover.ACTIVE:
        return False
    with transaction.atomic():
        namespace = publishing.locked(row["namespace_id"])
        cutover = Cutover.objects.select_related("namespace").get(pk=cutover_id)
        return cutover.active and act(namespace, cutover)


def read(namespace: Namespace, cutover: Cutover) -> Situation:
    """The situation now; acks and counts that came since the last look are noted."""
    now = timezone.now()
    nodes = plans.enrolled_nodes(namespace.pk)
    progress.observe(cutover, nodes, now)
    views = plans.views(nodes)
    plan, step = plans.plan_of(cutover), plans.step_of(cutover)
    return Situation(namespace, cutover, plan, step, views, verdict_on(cutover, views, now), now)


def verdict_on(cutover: Cutover, views: Sequence[NodeView], now: datetime) -> Verdict:
    lasted_s = (now - (cutover.phase_at or now)).total_seconds()
    return phases.judge(
        plans.plan_of(cutover),
        plans.step_of(cutover),
        cutover.epoch,
        views,
        lasted_s,
        emergency=cutover.emergency,
    )


def as_read(cutover: Cutover) -> QuerySet[Cutover]:
    """The row, if it still stands where `cutover` was read: the compare of every compare-and-set (C1)."""
    return Cutover.objects.filter(
        pk=cutover.pk,
        state=cutover.state,
        epoch=cutover.epoch,
        batch=cutover.batch,
        turns=cutover.turns,
    )
