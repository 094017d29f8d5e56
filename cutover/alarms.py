"""Alarms of a cutover (PROTOCOL I10): raised by whoever advances it, so by the console itself, too."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Q

from cutover import plans, sentences
from cutover.hooks import wording
from cutover.models import Cutover, CutoverEvent
from msha.steering import phases
from msha.steering.phases import ClusterWithoutAck, Step
from units.alarms import clear_alarm, raise_alarm
from units.models import Alarm, EdgeNode

OVERDUE = "cutover_overdue"
UNDONE = "cutover_undone"
FROZEN = "cutover_frozen"
HELD = "cutover_held"
HOOK = "cutover_hook"

#: Those that `said` knows.
KINDS = (OVERDUE, UNDONE, FROZEN, HELD, HOOK)


def _subject(cutover: Cutover) -> str:
    return f"#{cutover.number}"


def overdue(cutover: Cutover, step: Step, missing: Sequence[str]) -> None:
    """The alarm of a step that has waited too long is raised, once per step."""
    raised = Alarm.objects.filter(
        namespace=cutover.namespace_id, kind=OVERDUE, subject=_subject(cutover), cleared_at=None
    )
    if not raised.exists():
        with sentences.stored():
            sentence = sentences.overdue(cutover, step.phase, missing)
        _raise(cutover, OVERDUE, sentence, missing, phase=str(step.phase))


def held_too_long(cutover: Cutover, step: Step, hold: dict[str, Any]) -> None:
    """The alarm of ids that are frozen too long by what holds the step is raised, once per step."""
    raised = Alarm.objects.filter(
        namespace=cutover.namespace_id, kind=OVERDUE, subject=_subject(cutover), cleared_at=None
    )
    if not raised.exists():
        with sentences.stored():
            sentence = sentences.held_too_long(cutover, step.phase, hold)
        _raise(cutover, OVERDUE, sentence, (), phase=str(step.phase), hold=hold)


def hooks_stuck(cutover: Cutover) -> None:
    """The alarm of hooks that must succeed and do not is raised; it stays until none of them is left."""
    raised = Alarm.objects.filter(
        namespace=cutover.namespace_id, kind=HOOK, subject=_subject(cutover), cleared_at=None
    )
    facts = [wording.stuck_facts(run) for run in cutover.hook_runs.filter(stuck=True)]
    if facts and not raised.exists():
        with sentences.stored():
            sentence = wording.stuck(cutover, facts)
        _raise(cutover, HOOK, sentence, (), hooks=facts)


def settle_hooks() -> None:
    """Alarms of hooks are cleared where none of the cutover's is stuck any more."""
    for alarm in Alarm.objects.filter(kind=HOOK, cleared_at=None):
        cutover = _of(alarm)
        if cutover is None or not cutover.hook_runs.filter(stuck=True).exists():
            clear_alarm(alarm.namespace_id, HOOK, alarm.subject)


def _of(alarm: Alarm) -> Cutover | None:
    number = alarm.subject.removeprefix("#")
    known = number.isascii() and number.isdigit()
    return Cutover.objects.filter(namespace=alarm.namespace_id, number=int(number)).first() if known else None


def clear_overdue(cutover: Cutover) -> None:
    """The step that waited is over."""
    if clear_alarm(cutover.namespace_id, OVERDUE, _subject(cutover)):
        CutoverEvent.objects.create(cutover=cutover, kind="alarm_cleared", data={"epoch": cutover.epoch})


def undone(cutover: Cutover, missing: Sequence[str]) -> None:
    """The alarm that the cutover undid itself is raised; it stays until its nodes are back in line."""
    with sentences.stored():
        sentence = sentences.outcome(cutover)
    _raise(cutover, UNDONE, sentence, missing, ended=cutover.figures["ended"])


def held(cutover: Cutover, hold: dict[str, Any]) -> None:
    """The alarm that the cutover has paused by itself is raised; it stays until it goes on or back."""
    with sentences.stored():
        sentence = sentences.paused_by_itself(cutover, hold)
    _raise(cutover, HELD, sentence, (), hold=hold)


def clear_held(cutover: Cutover) -> None:
    """The cutover is not paused any more."""
    if clear_alarm(cutover.namespace_id, HELD, _subject(cutover)):
        CutoverEvent.objects.create(cutover=cutover, kind="alarm_cleared", data={"epoch": cutover.epoch})


def still_frozen(cutover: Cutover, nodes: Sequence[str]) -> None:
    """The alarm that nodes may hold ids after the cutover ended is raised; it stays until they are back."""
    with sentences.stored():
        sentence = sentences.still_frozen(cutover, nodes)
    _raise(cutover, FROZEN, sentence, nodes)


def _raise(cutover: Cutover, kind: str, sentence: str, missing: Sequence[str], **facts: Any) -> None:
    """The English sentence is for logs and metrics; pages make theirs from the facts in the event."""
    raise_alarm(cutover.namespace_id, kind, sentence, _subject(cutover))
    data = {"alarm": kind, "sentence": sentence, "missing": list(missing), "epoch": cutover.epoch, **facts}
    CutoverEvent.objects.create(cutover=cutover, kind="alarm", data=data)


def said(alarm: Alarm) -> str:
    """The alarm in the reader's language where its facts are known; as it was stored otherwise.

    A step that still waits names whom it waits for now: that may be fewer than when the alarm was raised.
    """
    number = alarm.subject.removeprefix("#")
    if alarm.kind not in KINDS or not number.isdigit():
        return alarm.sentence
    cutover = Cutover.objects.filter(namespace=alarm.namespace_id, number=int(number)).first()
    if cutover is None:
        return alarm.sentence
    if alarm.kind == OVERDUE and alarm.cleared_at is None and (waited := _waits(cutover)):
        return waited
    stuck = list(cutover.hook_runs.filter(stuck=True)) if alarm.kind == HOOK else []
    if stuck and alarm.cleared_at is None:
        return wording.stuck(cutover, [wording.stuck_facts(run) for run in stuck])
    told = CutoverEvent.objects.filter(cutover=cutover, kind="alarm", data__sentence=alarm.sentence).last()
    return sentences.alarm(cutover, told.data) if told else alarm.sentence


def _waits(cutover: Cutover) -> str:
    """The sentence of the step that waits now, or ""."""
    if cutover.state not in plans.PHASE_OF:
        return ""
    views = plans.views(plans.enrolled_nodes(cutover.namespace_id))
    step = plans.step_of(cutover)
    missing = phases.judge(plans.plan_of(cutover), step, cutover.epoch, views, 0.0).missing
    return sentences.overdue(cutover, step.phase, missing) if missing else ""


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
        if cutover.figures.get("ended", {}).get("how") == "held":  # no node is missing: the next start clears
            continue
        named = cutover.figures.get("ended", {}).get("missing" if alarm.kind == UNDONE else "frozen", [])
        behind = EdgeNode.objects.filter(
            Q(applied_epoch__lt=cutover.epoch) | Q(connected=False),
            namespace=alarm.namespace_id,
            state=EdgeNode.State.ENROLLED,
            name__in=_node_names(named),
        )
        if not behind.exists():
            clear_alarm(alarm.namespace_id, alarm.kind, alarm.subject)


def _node_names(waited_for: Iterable[str]) -> set[str]:
    """The nodes that a gate waited for, by name or as those of a cluster without any."""
    names: set[str] = set()
    for text in waited_for:
        cluster = ClusterWithoutAck.parse(text)
        names.update([text] if cluster is None else [name for name, _ in cluster.nodes])
    return names
