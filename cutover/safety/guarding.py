"""What refuses a start: a safety rule that nobody has overridden, an approval that is missing or void."""

from cutover.errors import Refused
from cutover.models import Cutover
from cutover.safety import approval, assessing, sentences


def refuse_unsafe(cutover: Cutover) -> None:
    """Nothing, if every safety rule holds now or is overridden.

    Raises:
        Refused: says what each rule found, and what to do.
    """
    findings = assessing.blocking(cutover)
    if findings:
        each = [sentences.said(finding) for finding in findings]
        overridable = all(finding.overridable for finding in findings)
        raise Refused(sentences.refusal(each, cutover.number, overridable=overridable))


def refuse_unapproved(cutover: Cutover) -> None:
    """Nothing, if no approval is needed, or a good one is there.

    Raises:
        Refused: says whom to ask.
    """
    if obstacle := approval.obstacle(cutover):
        raise Refused(obstacle)
