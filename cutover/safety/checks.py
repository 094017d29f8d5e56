"""The checks that show, before a start, what the safety rules will say at it."""

from django.utils.translation import gettext

from cutover.checks.scene import Answered, Scene, Verdict
from cutover.safety import assessing
from cutover.safety.findings import Rule, Severity


def rules_hold(scene: Scene, _answers: Answered) -> Verdict:
    """Passed, where no safety rule keeps the cutover from starting; overridden ones are named."""
    findings = [one for one in assessing.shown(scene.cutover) if one.severity == Severity.VIOLATION]
    blocking = [one.sentence for one in findings if one.blocks]
    if blocking:
        if any(one.blocks and one.overridable for one in findings):
            blocking.append(gettext("Change the draft, or override the rule with a reason."))
        return Verdict(False, " ".join(blocking))
    if findings:
        each = "; ".join(
            gettext("%(title)s, overridden by %(by)s: %(reason)s")
            % {"title": one.title, "by": one.overridden_by, "reason": one.override_reason}
            for one in findings
        )
        return Verdict(True, each)
    return Verdict(True, gettext("No safety rule of this namespace stands against it."))


def not_flapping(scene: Scene, _answers: Answered) -> Verdict:
    """Always passed: that ids have just moved is a warning, and the way back must not wait for it."""
    for one in assessing.shown(scene.cutover):
        if one.rule == Rule.FLAP:
            return Verdict(True, gettext("Mind: %(sentence)s") % {"sentence": one.sentence}, amber=True)
    return Verdict(True, gettext("None of these ids has moved lately."))
