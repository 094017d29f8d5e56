"""After a restore the cutover rows follow what the fleet knows: adopted, never undone (PROTOCOL P4)."""

from typing import Any

from django.db.models import Max
from django.utils import timezone

from cutover import plans, progress, rules, sentences
from cutover.models import Cutover, CutoverEvent
from cutover.pacing import planning
from cutover.rules import Document, UnitTypeDict
from msha.steering.phases import Phase, table_of
from msha.steering.ranges import MovedIds
from units import audit, publishing
from units.models import Namespace, UnitType

State = Cutover.State

ACTOR = "after_restore"


def adopt(sender: object, *, namespace: Namespace, rule: Document, **_: Any) -> None:
    """The cutover of the adopted rule part is the active one, at its step; any other active one has ended.

    The receiver of `units.signals.rule_adopted`, in the transaction that adopts.
    """
    running = rule["cutover"]
    forgotten = Cutover.objects.filter(namespace=namespace, state__in=Cutover.ACTIVE)
    for cutover in forgotten:
        if running is None or not _is(cutover, running):
            _end(cutover, rule)
    if running is None:
        _follow(namespace, rule)
        return
    known = Cutover.objects.filter(namespace=namespace, pk=_pk(running)).first()
    cutover = known if known is not None and _is(known, running) else _reconstructed(namespace, rule)
    _take_to(cutover, rule)


def _follow(namespace: Namespace, rule: Document) -> None:
    """The saved rule is the adopted one where it was the one in effect: nobody has asked for what it says.

    Otherwise what the fleet did while the database was away would stand on every page as a change to undo.
    """
    newest = publishing.in_effect(namespace)
    if newest is None:
        return
    before = newest["rule"]
    space = rules.key_space_of(rule)
    for row in UnitType.objects.filter(namespace=namespace):
        names = {entry["name"] for entry in before["unit_types"]} & {e["name"] for e in rule["unit_types"]}
        if row.name not in names:
            continue
        saved, adopted = rules.entry_of(row), rules.unit_type_of(rule, row.name)
        columns = {key: adopted[key] for key in rules.KEYS if key != "name"}
        asked_for = not rules.same_rule(saved, rules.unit_type_of(before, row.name), space)
        if asked_for or columns == {key: saved[key] for key in columns}:
            continue
        UnitType.objects.filter(pk=row.pk).update(**columns, updated=timezone.now())
        audit.record(ACTOR, "unit_type.update", row.name, namespace=namespace, before=saved, after=adopted)


def _pk(running: Document) -> int:
    return int(running["id"]) if str(running["id"]).isdigit() else 0


def _is(cutover: Cutover, running: Document) -> bool:
    """Whether the row is the cutover that the rule part speaks of: its id alone may have been given anew."""
    same = cutover.unit_type == running["unit_type"] and _batch_of(cutover, running) is not None
    return cutover.pk == _pk(running) and same


def _batch_of(cutover: Cutover, running: Document) -> int | None:
    """The batch that the rule part moves, in whichever direction; None if it is none of the cutover's."""
    for index, rows in enumerate(_batches(cutover)):
        if running["moved"] in (rows, MovedIds.from_lists(rows).swapped().as_lists()):
            return index
    return None


def _batches(cutover: Cutover) -> list[list[Any]]:
    """As they were fixed at the start, or would be now where the database has forgotten the start."""
    return cutover.plan.get("batches") or planning.fixed(cutover)[0]


def _end(cutover: Cutover, rule: Document) -> None:
    """The row says how the cutover ended, by the table that the fleet has."""
    entry = rules.unit_type_of(rule, cutover.unit_type)
    arrived = rules.same_rule(entry, cutover.new_rule, rules.key_space_of(rule))
    state = State.DONE if arrived else State.ABORTED
    cutover.figures = {**cutover.figures, "ended": {"how": "restored", "arrived": arrived}}
    with sentences.stored():
        sentence = sentences.outcome(cutover)
    now = timezone.now()
    Cutover.objects.filter(pk=cutover.pk).update(
        state=state, outcome=sentence, figures=cutover.figures, ended_at=now, updated=now
    )
    CutoverEvent.objects.create(cutover=cutover, kind=str(state), data={"outcome": sentence}, at=now)


def _reconstructed(namespace: Namespace, rule: Document) -> Cutover:
    """A row for a cutover that the database has forgotten, in the direction in which its ids are moving."""
    running = rule["cutover"]
    entry = rules.unit_type_of(rule, running["unit_type"])
    moved = MovedIds.from_lists(running["moved"])
    table = table_of(entry, rules.key_space_of(rule))
    arrived = running["phase"] == Phase.ACTIVATE
    other = table.with_moved(moved.swapped() if arrived else moved)
    elsewhere: UnitTypeDict = {**entry, "ranges": other.ranges_text(), "exact": other.exact_ids()}
    last = Cutover.objects.filter(namespace=namespace).aggregate(last=Max("number"))["last"] or 0
    return Cutover.objects.create(
        namespace=namespace,
        number=last + 1,
        unit_type=running["unit_type"],
        old_rule=elsewhere if arrived else entry,
        new_rule=entry if arrived else elsewhere,
        moved=moved.as_lists(),
        created_by=ACTOR,
        started_by=ACTOR,
    )


def _take_to(cutover: Cutover, rule: Document) -> None:
    """The row stands at the step of the rule part; acks under its epoch go on from there."""
    running = rule["cutover"]
    document = publishing.in_effect(cutover.namespace) or {"config": {}}
    batch = _batch_of(cutover, running) or 0
    backward = running["moved"] != _batches(cutover)[batch]
    turns = (1 if backward else 2) if running["both"] else cutover.turns
    now = timezone.now()
    Cutover.objects.filter(pk=cutover.pk).update(
        state=plans.STATE_OF[Phase(running["phase"])],
        epoch=rule["epoch"],
        batch=batch,
        turns=turns,
        plan=cutover.plan or plans.fixed(cutover, {**document, "rule": rule}),
        figures=cutover.figures or progress.begun(now),
        started_at=cutover.started_at or now,
        phase_at=now,
        updated=now,
    )
    data = {"by": ACTOR, "reason": "", "version": 0, "epoch": rule["epoch"], "batch": batch, "turns": turns}
    CutoverEvent.objects.create(cutover=cutover, kind=running["phase"], data=data, at=now)
    audit.record(
        ACTOR,
        "cutover.adopt",
        cutover,
        namespace=cutover.namespace,
        before={"state": cutover.state, "epoch": cutover.epoch},
        after={"phase": running["phase"], "epoch": rule["epoch"], "turns": turns},
    )
