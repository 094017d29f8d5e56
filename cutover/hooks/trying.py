"""Calling hooks in practice: everything but the consequence."""

import json
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from cutover import plans, rules
from cutover.hooks import answers, calling, messages
from cutover.hooks.answers import Verdict
from cutover.models import Cutover, Hook, HookRun
from msha.steering.phases import Phase, Step
from msha.steering.ranges import MovedIds
from units import audit
from units.models import Namespace

#: What the body of a test speaks of: the first ids of the namespace.
SAMPLE_IDS = 3

_STEPS = {
    Hook.Moment.BEFORE_FREEZE: Phase.FREEZE,
    Hook.Moment.AT_FREEZE: Phase.FREEZE,
    Hook.Moment.BEFORE_ACTIVATE: Phase.FREEZE,
    Hook.Moment.AFTER_RELEASE: Phase.RELEASE,
}


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one call in practice.

    Attributes:
        ok: the receiver understood it: it said yes, or not yet.
        sentence: the answer, in the reader's language.
    """

    ok: bool
    verdict: str
    sentence: str
    facts: dict[str, Any]
    body: dict[str, Any]

    @property
    def body_text(self) -> str:
        """What was sent, for people."""
        return json.dumps(self.body, ensure_ascii=False, indent=2)


def try_out(hook: Hook, *, actor: object) -> Tried:
    """The hook was called once with ``practice`` set; a receiver does nothing then but answer."""
    key = uuid.uuid4()
    body = {**_sample(hook), "id": str(key), "attempt": 1}
    verdict, said = calling.made(hook, body, str(key))
    audit.record(
        actor,
        "hook.test",
        hook.name,
        namespace=hook.namespace,
        after={"verdict": str(verdict), "status": said.get("status")},
    )
    ok = verdict in (Verdict.YES, Verdict.NOT_YET)
    return Tried(ok, str(verdict), answers.sentence(said), said, body)


def rehearse(cutover: Cutover) -> list[HookRun]:
    """Every hook was called once in practice, with what it would be told of the first batch."""
    cutover.plan = cutover.plan or plans.fixed(cutover, rules.in_effect(cutover.namespace))  # not saved
    plan, now = plans.plan_of(cutover), timezone.now()
    made = []
    for hook in Hook.objects.filter(namespace=cutover.namespace_id, enabled=True):
        moment = Hook.Moment(hook.moment)
        outcome = HookRun.Outcome.MOVED if moment is Hook.Moment.AFTER_RELEASE else ""
        told = messages.about(cutover, plan, Step(_STEPS[moment]), hook, outcome=outcome)
        run = HookRun.objects.create(
            cutover=cutover,
            hook=hook,
            name=hook.name,
            moment=hook.moment,
            outcome=outcome,
            practice=True,
            must_succeed=hook.must_succeed,
            told=told,
            started=now,
            next_at=now,
            give_up_at=now + timedelta(seconds=hook.timeout_s),
        )
        calling.attempt(run.pk)
        made.append(HookRun.objects.select_related("cutover").get(pk=run.pk))
    return made


def _sample(hook: Hook) -> messages.Body:
    namespace = hook.namespace
    units = [*namespace.units.order_by("position", "code").values_list("code", flat=True), "", ""]
    moving = MovedIds.from_lists(
        [[namespace.key_min, min(namespace.key_max, namespace.key_min + SAMPLE_IDS - 1), units[0], units[1]]]
    )
    return {
        "form": messages.FORM,
        "hook": hook.name,
        "moment": hook.moment,
        "outcome": "moved" if hook.moment == Hook.Moment.AFTER_RELEASE else "",
        "namespace": namespace.name,
        "cutover": 0,
        "unit_type": namespace.default_unit_type,
        "batch": 1,
        "batches": 1,
        "turns": 0,
        "direction": "forward",
        "epoch": _epoch(namespace),
        "must_succeed": hook.must_succeed,
        "practice": True,
        "reading_changes": False,
        "moved_ids": moving.count,
        "moved": messages.grouped(moving),
    }


def _epoch(namespace: Namespace) -> int:
    return int(Namespace.objects.values_list("epoch", flat=True).get(pk=namespace.pk))
