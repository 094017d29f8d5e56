"""Drafts: a cutover that somebody has thought of and that has changed nothing yet."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext

from cutover import kinds, rules
from cutover.batches import kept
from cutover.errors import Refused
from cutover.kinds import Wish
from cutover.models import Cutover, CutoverEvent
from cutover.rules import Change, Document, UnitTypeDict
from cutover.safety import approval
from msha.steering.phases import reads_differently, table_of
from msha.steering.ranges import IdRange, KeySpace, MovedIds, MovedRange, RangeTable
from units import audit, publishing
from units.models import Namespace

State = Cutover.State
Kind = Cutover.Kind


def create_draft(
    namespace: Namespace,
    unit_type: str,
    *,
    ranges: Mapping[str, Sequence[str]] | None = None,
    exact: Mapping[str, Sequence[int]] | None = None,
    entry: UnitTypeDict | None = None,
    wish: Wish | None = None,
    actor: str,
    reason: str = "",
    rollback_of: Cutover | None = None,
) -> Cutover:
    """A stored draft that would bring the asked-for rule into effect.

    Args:
        wish: shifts or a cut to zero, worked out against the rule in effect, instead of a rule.

    Raises:
        InvalidChange: the rule is not valid or moves nothing; names the place.
        Refused: nothing is published yet, or there is no such unit type.
    """
    with transaction.atomic():
        locked = publishing.locked(namespace.pk)
        document = rules.in_effect(locked)
        entry, kind, said = _worked_out(document, unit_type, entry, wish)
        change = rules.change(document, unit_type, ranges=ranges, exact=exact, entry=entry)
        last = Cutover.objects.filter(namespace=locked).aggregate(last=Max("number"))["last"] or 0
        cutover = Cutover.objects.create(
            namespace=locked,
            number=last + 1,
            unit_type=unit_type,
            kind=Kind.ROLLBACK if rollback_of else kind,
            created_by=actor[:150],
            requested_by=actor[:150],
            reason=reason,
            rollback_of=rollback_of,
            **_columns(change),
        )
        data = {"by": actor, "asked": said} if said else {"by": actor}
        CutoverEvent.objects.create(cutover=cutover, kind="drafted", data=data)
        _audit(actor, "cutover.create", cutover, change, reason)
    return cutover


def open_draft(
    namespace: Namespace,
    unit_type: str,
    *,
    ranges: Mapping[str, Sequence[str]] | None = None,
    exact: Mapping[str, Sequence[int]] | None = None,
    entry: UnitTypeDict | None = None,
    wish: Wish | None = None,
    actor: str,
    reason: str = "",
) -> Cutover:
    """The newest open draft that asks for this rule, or a new one: asking twice makes no second.

    Raises:
        InvalidChange, Refused: as `create_draft`.
    """
    with transaction.atomic():
        locked = publishing.locked(namespace.pk)
        document = rules.in_effect(locked)
        asked, _kind, _said = _worked_out(document, unit_type, entry, wish)
        change = rules.change(document, unit_type, ranges=ranges, exact=exact, entry=asked)
        drafts = Cutover.objects.filter(namespace=locked, unit_type=unit_type, state__in=Cutover.BEFORE)
        for cutover in drafts.order_by("-number"):
            if cutover.new_rule == change.new:
                return cutover
        if wish is not None:
            return create_draft(locked, unit_type, wish=wish, actor=actor, reason=reason)
        return create_draft(locked, unit_type, entry=change.new, actor=actor, reason=reason)


def update_draft(
    cutover: Cutover,
    *,
    ranges: Mapping[str, Sequence[str]] | None = None,
    exact: Mapping[str, Sequence[int]] | None = None,
    entry: UnitTypeDict | None = None,
    wish: Wish | None = None,
    actor: str,
    reason: str | None = None,
) -> Cutover:
    """The draft asks for another rule; preview, checks and approval are to be made anew.

    Raises:
        InvalidChange: the rule is not valid or moves nothing; names the place.
        Refused: the cutover has started or ended.
    """
    with transaction.atomic():
        locked = publishing.locked(cutover.namespace_id)
        document = rules.in_effect(locked)
        entry, kind, said = _worked_out(document, cutover.unit_type, entry, wish)
        change = rules.change(document, cutover.unit_type, ranges=ranges, exact=exact, entry=entry)
        if wish is None and change.new == cutover.new_rule:
            kind, said = Kind(cutover.kind), _asked(cutover)  # the same rule again
        columns = _columns(change)
        if reason is not None:
            columns["reason"] = reason
        claim_editable(
            cutover, **columns, kind=kind, state=State.DRAFT, impact={}, base_version=0, base_digest=""
        )
        cutover.checks.all().delete()
        approval.unapprove(cutover, actor)
        data = {"by": actor, "asked": said} if said else {"by": actor}
        CutoverEvent.objects.create(cutover=cutover, kind="adjusted", data=data)
        _audit(actor, "cutover.update", cutover, change, cutover.reason)
    cutover.refresh_from_db()
    return cutover


def discard(cutover: Cutover, actor: str) -> None:
    """The draft is put aside; nothing else has changed.

    Raises:
        Refused: the cutover has started or ended.
    """
    with transaction.atomic():
        before = cutover.state
        claim_editable(cutover, state=State.DISCARDED)
        audit.record(
            actor,
            "cutover.discard",
            cutover,
            namespace=cutover.namespace,
            before={"state": before},
            after={"state": State.DISCARDED},
        )
    cutover.refresh_from_db()


def rollback(cutover: Cutover, actor: str) -> Cutover:
    """A draft that gives the moved ids back to the units that had them; it goes through the same gate.

    Ids that another cutover has moved on since then stay where they are.

    Raises:
        Refused: the cutover has not ended, or has moved nothing that is left to give back.
    """
    if not has_moved(cutover):
        raise Refused(
            gettext("Cutover %(cutover)s is not done: there is nothing to roll back.") % {"cutover": cutover}
        )
    return create_draft(
        cutover.namespace,
        cutover.unit_type,
        entry=_given_back(cutover),
        actor=actor,
        reason=gettext("Roll back of cutover #%(number)d") % {"number": cutover.number},
        rollback_of=cutover,
    )


def has_moved(cutover: Cutover) -> bool:
    """Whether the cutover has ended and left ids with new owners; one undone in a later batch, too."""
    return cutover.state == State.DONE or (cutover.ended and bool(kept(cutover)))


def _given_back(cutover: Cutover) -> UnitTypeDict:
    """The rule in effect, with the cutover's ids at their old owners again."""
    rule = rules.in_effect(cutover.namespace)["rule"]
    now, key_space = rules.unit_type_of(rule, cutover.unit_type), rules.key_space_of(rule)
    if rules.same_rule(now, cutover.new_rule, key_space):
        return cutover.old_rule
    if reads_differently(cutover.old_rule, cutover.new_rule):
        raise Refused(
            gettext(
                "The rule has changed since cutover %(cutover)s, which changed how the routerId is read."
                " Make a new cutover to the rule you want."
            )
            % {"cutover": cutover}
        )
    table = table_of(now, key_space)
    back = kept(cutover).swapped()
    returned = table.with_moved(MovedIds(tuple(_still_there(table, back, key_space))))
    return {**now, "ranges": returned.ranges_text(), "exact": returned.exact_ids()}


def _still_there(table: RangeTable, back: MovedIds, key_space: KeySpace) -> list[MovedRange]:
    """Those parts of the way back that begin where the ids are now."""
    owned = [IdRange(start, end, unit) for start, end, unit in table.segments()]
    parts = []
    for move in back:
        for segment in owned:
            start, end = max(move.start, segment.start), min(move.end, segment.end)
            if start < end and segment.unit == move.losing and key_space.contains(start):
                parts.append(MovedRange(start, end, move.losing, move.gaining))
    return sorted(parts)


def _worked_out(
    document: Document, unit_type: str, entry: UnitTypeDict | None, wish: Wish | None
) -> tuple[UnitTypeDict | None, Cutover.Kind, list[dict[str, Any]]]:
    """The unit type that is asked for, if it is a whole one; the kind of cutover; what the timeline says."""
    if wish is None:
        return entry, Kind.TABLE, []
    granted = kinds.granted(document, unit_type, wish)
    return granted.entry, granted.kind, granted.said


def _asked(cutover: Cutover) -> list[dict[str, Any]]:
    """What the draft was asked for last, if not as a rule."""
    last = cutover.events.filter(kind__in=("drafted", "adjusted")).last()
    return list(last.data.get("asked", [])) if last is not None else []


def _columns(change: Change) -> dict[str, Any]:
    return {"old_rule": change.old, "new_rule": change.new, "moved": change.moved.as_lists()}


def claim_editable(cutover: Cutover, **columns: Any) -> None:
    """The columns are set, if the cutover has neither started nor ended by now."""
    rows = Cutover.objects.filter(pk=cutover.pk, state__in=Cutover.BEFORE)
    if rows.update(**columns, updated=timezone.now()) != 1:
        cutover.refresh_from_db()
        raise Refused(
            gettext("Cutover %(cutover)s is %(state)s and cannot be adjusted any more. Make a new one.")
            % {"cutover": cutover, "state": cutover.get_state_display()}
        )


def _audit(actor: str, action: str, cutover: Cutover, change: Change, reason: str) -> None:
    audit.record(
        actor,
        action,
        cutover,
        namespace=cutover.namespace,
        before=change.old,
        after=change.new,
        reason=reason,
    )
