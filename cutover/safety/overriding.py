"""Overriding: somebody who may says, with a reason, that a cutover starts against a safety rule."""

from collections.abc import Sequence

from django.db import transaction
from django.utils.translation import gettext

from cutover import checking
from cutover.errors import Refused
from cutover.models import Cutover, CutoverEvent, Override
from cutover.safety import approval, assessing, sentences
from cutover.safety.findings import Finding
from cutover.sentences import stored as in_english
from units import audit, publishing

#: Overrides whatever keeps the cutover from starting now.
ALL = "all"
#: The check that shows the findings.
CHECK = "safety"


def override(cutover: Cutover, rule: str | Sequence[str], actor: str, reason: str) -> list[Override]:
    """The named findings do not keep the cutover from starting any more; one reason may serve several.

    An override holds for this draft and for what the rule says now: it lapses when the draft changes or the
    finding gets worse. It is a change of what is to be approved, so an approval is void.

    Args:
        rule: one or more names of rules, or `ALL`.

    Raises:
        Refused: no reason, nothing of this name is found now, or it cannot be overridden.
    """
    reason = reason.strip()
    if not reason:
        raise Refused(gettext("Give a reason; it is kept in the audit trail."))
    names = [rule] if isinstance(rule, str) else list(rule)
    if not names:
        raise Refused(gettext("Name the safety rules that are to be overridden."))
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        row = Cutover.objects.select_related("namespace").get(pk=cutover.pk)
        made = [_overridden(row, finding, actor, reason) for finding in _named(row, names)]
        approval.unapprove(row, actor)
        checked = row.checks.filter(key=CHECK).exists()
        if checked:
            checking.retry_check(row, CHECK, actor)
    if checked:
        checking.run(cutover.pk, [CHECK])  # it asks no node, so nobody has to wait for a worker
    cutover.refresh_from_db()
    return made


def _named(cutover: Cutover, names: Sequence[str]) -> list[Finding]:
    if not cutover.editable:
        raise Refused(
            gettext("Cutover %(cutover)s is %(state)s: there is nothing to override.")
            % {"cutover": cutover, "state": cutover.get_state_display()}
        )
    if cutover.state == Cutover.State.DRAFT:
        raise Refused(gettext("Generate the preview of cutover %(cutover)s first.") % {"cutover": cutover})
    blocking = assessing.blocking(cutover)
    found = {str(finding.rule): finding for finding in blocking if finding.overridable}
    if ALL in names and found:
        return list(found.values())
    for name in names:
        if name in found:
            continue
        for finding in blocking:
            if finding.rule == name:
                raise Refused(
                    gettext("This cannot be overridden: %(sentence)s") % {"sentence": sentences.said(finding)}
                )
        raise Refused(
            gettext(
                "Safety rule %(name)s does not stand against cutover %(cutover)s now;"
                " what can be overridden: %(found)s."
            )
            % {"name": name[:40], "cutover": cutover, "found": ", ".join(found) or gettext("nothing")}
        )
    return [found[name] for name in dict.fromkeys(names)]


def _overridden(cutover: Cutover, finding: Finding, actor: str, reason: str) -> Override:
    with in_english():
        sentence = sentences.said(finding)
    row = Override.objects.create(
        cutover=cutover,
        rule=str(finding.rule),
        digest=assessing.digest_of(cutover, finding.rule),
        facts=finding.facts,
        sentence=sentence,
        by=actor[:150],
        reason=reason,
    )
    data = {"by": actor, "rule": str(finding.rule), "reason": reason, "facts": finding.facts}
    CutoverEvent.objects.create(cutover=cutover, kind="overridden", data=data)
    audit.record(
        actor,
        "cutover.override_safety",
        cutover,
        namespace=cutover.namespace,
        before={"rule": str(finding.rule), "said": sentence},
        after={"overridden": True},
        reason=reason,
    )
    return row
