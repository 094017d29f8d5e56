"""What the safety rules say about a cutover now, and which of it somebody has overridden."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from cutover import plans
from cutover.models import Cutover, Override
from cutover.safety import sentences, stored
from cutover.safety.findings import FLAP_WITHIN, Asked, Finding, Limits, Past, Rule, Severity, covers, judged
from msha.steering import snapshot as steering
from msha.steering.errors import InvalidRule
from msha.steering.phases import Ending, table_of
from msha.steering.ranges import KeySpace, MovedIds

State = Cutover.State


@dataclass(frozen=True, slots=True)
class Shown:
    """A finding as preview, precheck and API show it.

    Attributes:
        rule: the name by which it is overridden.
        overridable: a reason is enough to start nevertheless.
        overridden_by: who has overridden just this; "" for nobody.
        blocks: the cutover does not start because of it.
    """

    rule: str
    title: str
    sentence: str
    severity: str
    overridable: bool
    overridden_by: str
    override_reason: str
    blocks: bool


def shown(cutover: Cutover, now: datetime | None = None) -> list[Shown]:
    """Every finding about a cutover that has frozen nothing yet, in the reader's language."""
    overridden = overrides(cutover)
    return [_shown(finding, standing(finding, cutover, overridden)) for finding in assessed(cutover, now)]


def assessed(cutover: Cutover, now: datetime | None = None) -> list[Finding]:
    """What the rules of its namespace say about the cutover; nothing once an id of it has been frozen."""
    if not cutover.editable and cutover.state != State.PREPARE:
        return []
    now = now or timezone.now()
    limits = stored.limits(cutover.namespace)
    return judged(limits, _asked(cutover), _past(cutover, limits, now), now)


def blocking(cutover: Cutover, now: datetime | None = None) -> list[Finding]:
    """The findings that keep the cutover from starting."""
    overridden = overrides(cutover)
    return [
        finding
        for finding in assessed(cutover, now)
        if finding.severity is Severity.VIOLATION and standing(finding, cutover, overridden) is None
    ]


def overrides(cutover: Cutover) -> list[Override]:
    """What has been overridden for the cutover, the newest first."""
    return list(cutover.overrides.order_by("-pk"))


def told(cutover: Cutover) -> list[dict[str, Any]]:
    """Who has overridden what, oldest first, with what the rule said then; fit for JSON."""
    return [
        {
            "rule": one.rule,
            "title": sentences.title(one.rule),
            "sentence": sentences.said(Finding(Rule(one.rule), one.facts)) if one.facts else one.sentence,
            "by": one.by,
            "reason": one.reason,
            "at": one.at.isoformat(),
        }
        for one in reversed(overrides(cutover))
    ]


def standing(finding: Finding, cutover: Cutover, overridden: list[Override]) -> Override | None:
    """The override that holds for the finding: made for this draft, and for nothing less bad."""
    digest = digest_of(cutover, finding.rule)
    for one in overridden:
        if one.rule == finding.rule and one.digest == digest and covers(one.rule, one.facts, finding.facts):
            return one
    return None


def digest_of(cutover: Cutover, rule: str) -> str:
    """The digest of what is overridden: the rule that would be in effect, and the ids that would move."""
    value = {"safety": str(rule), "new": cutover.new_rule, "moved": cutover.moved}
    return steering.digest_of(steering.canonical(value))


def _shown(finding: Finding, override: Override | None) -> Shown:
    return Shown(
        rule=str(finding.rule),
        title=sentences.title(finding.rule),
        sentence=sentences.said(finding),
        severity=str(finding.severity),
        overridable=finding.overridable and finding.severity is Severity.VIOLATION,
        overridden_by=override.by if override else "",
        override_reason=override.reason if override else "",
        blocks=finding.severity is Severity.VIOLATION and override is None,
    )


def _asked(cutover: Cutover) -> Asked:
    namespace, impact = cutover.namespace, cutover.impact
    space = KeySpace(namespace.key_min, namespace.key_max)
    counted = impact.get("at")
    return Asked(
        key_space_size=space.size,
        shares=_shares(cutover, space),
        moved=MovedIds.from_lists(cutover.moved),
        sessions=sum(count for _losing, _gaining, count in impact["pairs"]) if counted else None,
        uncounted=tuple(impact.get("uncounted", [])),
        counted_at=datetime.fromisoformat(counted) if counted else None,
    )


def _shares(cutover: Cutover, space: KeySpace) -> dict[str, tuple[int, int]]:
    try:
        before, after = (table_of(rule, space).share() for rule in (cutover.old_rule, cutover.new_rule))
    except InvalidRule:  # not one of this key space any more; the check of the rule says so
        return {}
    return {unit: (before.get(unit, 0), after.get(unit, 0)) for unit in {**before, **after}}


def _past(cutover: Cutover, limits: Limits, now: datetime) -> list[Past]:
    """The cutovers of the namespace that ended lately and closed sessions on their way."""
    lately = now - max(FLAP_WITHIN, timedelta(seconds=limits.quiet_s or 0))
    rows = Cutover.objects.filter(
        namespace=cutover.namespace_id, state__in=(State.DONE, State.ABORTED), ended_at__gte=lately
    ).exclude(pk=cutover.pk)
    return [
        Past(row.number, row.ended_at, _disturbed(row) if row.unit_type == cutover.unit_type else MovedIds())
        for row in rows.order_by("-ended_at")
        if row.ended_at is not None and (row.figures.get("freezes") or row.state == State.DONE)
    ]


def _disturbed(row: Cutover) -> MovedIds:
    """The ids that an ended cutover has moved, or closed and given back."""
    ended = row.figures.get("ended", {})
    if ended.get("how") == Ending.STOPPED and row.plan.get("batches"):
        batches = plans.plan_of(row).batches[: ended["batches"]]
        return MovedIds(tuple(sorted(move for batch in batches for move in batch)))
    return MovedIds.from_lists(row.moved)
