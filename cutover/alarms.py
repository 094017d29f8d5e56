"""Alarms of a cutover (PROTOCOL I10): raised by whoever advances it, so by the console itself, too."""

from collections.abc import Sequence

from django.db.models import Q

from cutover import sentences
from cutover.models import Cutover, CutoverEvent
from msha.steering.phases import Step
from units.alarms import clear_alarm, raise_alarm
from units.models import Alarm, EdgeNode

OVERDUE = "cutover_overdue"
UNDONE = "cutover_undone"
FROZEN = "cutover_frozen"


def _subject(cutover: Cutover) -> str:
    return f"#{cutover.number}"


def overdue(cutover: Cutover, step: Step, missing: Sequence[str]) -> None:
    """The alarm of a step that has waited too long is raised, once per step."""
    raised = Alarm.objects.filter(
        namespace=cutover.namespace_id, kind=OVERDUE, subject=_subject(cutover), cleared_at=None
    )
    if not raised.exists():
        with sentences.stored():
            sentence = sentences.overdue(cutover, step, missing)
        _raise(cutover, OVERDUE, sentence, missing)


def clear_overdue(cutover: Cutover) -> None:
    """The step that waited is over."""
    if clear_alarm(cutover.namespace_id, OVERDUE, _subject(cutover)):
        CutoverEvent.objects.create(cutover=cutover, kind="alarm_cleared", data={"epoch": cutover.epoch})


def undone(cutover: Cutover, missing: Sequence[str]) -> None:
    """The alarm that the cutover undid itself is raised; it stays until its nodes are back in line."""
    with sentences.stored():
        sentence = sentences.outcome(cutover)
    _raise(cutover, UNDONE, sentence, missing)


def still_frozen(cutover: Cutover, nodes: Sequence[str]) -> None:
    """The alarm that nodes may hold ids after the cutover ended is raised; it stays until they are back."""
    with sentences.stored():
        sentence = sentences.still_frozen(cutover, nodes)
    _raise(cutover, FROZEN, sentence, nodes)


def _raise(cutover: Cutover, kind: str, sentence: str, missing: Sequence[str]) -> None:
    raise_alarm(cutover.namespace_id, kind, sentence, _subject(cutover))
    data = {"sentence": sentence, "missing": list(missing), "epoch": cutover.epoch}
    CutoverEvent.objects.create(cutover=cutover, kind="alarm", data=data)


def clear_undone(namespace_id: int) -> None:
    """A new cutover starts: the operator has seen what became of the last one."""
    clear_alarm(namespace_id, UNDONE)


def settle_undone() -> None:
    """Alarms of ended cutovers are cleared where every node that was missing has caught up or is gone."""
    for alarm in Alarm.objects.filter(kind__in=(UNDONE, FROZEN), cleared_at=None):
        number = alarm.subject.removeprefix("#")
        cutover = Cutover.objects.filter(
            namespace=alarm.namespace_id, number=int(number) if number.isdigit() else 0
        ).first()
        if cutover is None or cutover.active:
            continue
        named = "missing" if alarm.kind == UNDONE else "frozen"
        behind = EdgeNode.objects.filter(
            Q(applied_epoch__lt=cutover.epoch) | Q(connected=False),
            namespace=alarm.namespace_id,
            state=EdgeNode.State.ENROLLED,
            name__in=cutover.figures.get("ended", {}).get(named, []),
        )
        if not behind.exists():
            clear_alarm(alarm.namespace_id, alarm.kind, alarm.subject)
