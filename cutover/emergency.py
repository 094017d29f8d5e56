"""Emergency: the losing unit is gone, so its nodes are declared dead instead of drained (PROTOCOL C7, J4).

The phases are the same ones. What changes is who speaks for a losing node that does not answer: in a planned
cutover nobody, so it undoes itself; in an emergency an operator, who has fenced it and says so.
"""

from collections.abc import Collection

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from cutover.errors import Refused
from cutover.losing import losing_units
from cutover.models import Cutover, CutoverEvent
from cutover.safety import approval
from cutover.situation import as_read
from cutover.steps import advance
from units import audit, enrolment, publishing
from units.models import EdgeNode

Mode = Cutover.Mode

#: Beside the permission to start a cutover.
PERMISSION = "cutover.emergency_cutover"


def set_mode(cutover: Cutover, mode: str, actor: str, reason: str, typed: str) -> Cutover:
    """The cutover is in this mode, before its start or while it runs; what follows from it was done at once.

    Raises:
        Refused: the name was mistyped, no reason was given, it has ended, or it is in this mode already.
    """
    if mode not in Mode.values:
        raise Refused(
            gettext("There is no mode “%(mode)s”; there is %(known)s.")
            % {"mode": mode[:40], "known": ", ".join(Mode.values)}
        )
    reason = reason.strip()
    if not reason:
        raise Refused(gettext("Give a reason; it is kept in the audit trail."))
    if typed.strip() != cutover.namespace.name:
        raise Refused(
            gettext("Type the name of the namespace, %(name)s, to change the mode.")
            % {"name": cutover.namespace.name}
        )
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        cutover.refresh_from_db()
        if cutover.ended:
            raise Refused(
                gettext("Cutover %(cutover)s is %(state)s: it has no mode any more.")
                % {"cutover": cutover, "state": cutover.get_state_display()}
            )
        if cutover.mode == mode:
            raise Refused(
                gettext("Cutover %(cutover)s is in the mode “%(mode)s” already.")
                % {"cutover": cutover, "mode": cutover.get_mode_display()}
            )
        _change(cutover, Mode(mode), actor, reason)
    if cutover.active:
        advance(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def _change(cutover: Cutover, mode: Cutover.Mode, actor: str, reason: str) -> None:
    """Under the namespace's lock."""
    before = cutover.mode
    as_read(cutover).update(mode=mode, updated=timezone.now())
    CutoverEvent.objects.create(
        cutover=cutover, kind="mode", data={"by": actor, "mode": str(mode), "reason": reason}
    )
    audit.record(
        actor,
        "cutover.set_mode",
        cutover,
        namespace=cutover.namespace,
        before={"mode": before},
        after={"mode": str(mode)},
        reason=reason,
    )
    approval.unapprove(cutover, actor)
    cutover.mode = mode


def declare_unit_dead(
    cutover: Cutover,
    unit: str,
    *,
    actor: str,
    typed: str,
    reason: str,
    fencing: str,
    names: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Names of the nodes that count as dead now; the gates do not wait for them any more.

    Nodes that can be heard are left out, and drain.

    Args:
        typed: the code of the unit, typed again.
        fencing: how it was made sure that none of them starts again from its file: the promise rests on it.
        names: those that the operator has seen listed; others that fell silent since then are left out.

    Raises:
        Refused: the cutover is not in emergency mode, the unit gives no ids away, nobody of it is silent, or
            something was not typed; says what to do.
    """
    reason, fencing = reason.strip(), fencing.strip()
    if typed.strip() != unit:
        raise Refused(
            gettext("Type the code of the unit, %(unit)s, to declare its silent nodes dead.") % {"unit": unit}
        )
    if not reason:
        raise Refused(gettext("Give a reason; it is kept in the audit trail."))
    if not fencing:
        raise Refused(
            gettext(
                "Say how these nodes were fenced (power, SLB, disk): the promise that no id is served twice"
                " rests on it."
            )
        )
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        cutover.refresh_from_db()
        silent = _silent_of(cutover, unit, names)
        for node in silent:
            enrolment.declare_dead(
                node,
                actor=actor,
                typed_name=node.name,
                reason=gettext("%(reason)s Fenced: %(fencing)s (cutover #%(number)d)")
                % {"reason": reason, "fencing": fencing, "number": cutover.number},
            )
        told = tuple(node.name for node in silent)
        data = {"by": actor, "unit": unit, "nodes": list(told), "reason": reason, "fencing": fencing}
        CutoverEvent.objects.create(cutover=cutover, kind="declared_dead", data=data)
        audit.record(
            actor,
            "cutover.declare_unit_dead",
            cutover,
            namespace=cutover.namespace,
            after=data,
            reason=reason,
        )
    if cutover.active:
        advance(cutover.pk)
    cutover.refresh_from_db()
    return told


def _silent_of(cutover: Cutover, unit: str, names: Collection[str] | None) -> list[EdgeNode]:
    """The nodes to declare dead.

    Raises:
        Refused: there is none, or this cutover does not allow it.
    """
    if cutover.ended or not cutover.emergency:
        raise Refused(
            gettext(
                "Cutover %(cutover)s is not an emergency. Switch it to emergency first, or declare single"
                " nodes dead on their pages."
            )
            % {"cutover": cutover}
        )
    known = {losing.unit: losing for losing in losing_units(cutover)}
    if unit not in known:
        raise Refused(
            gettext("Unit %(unit)s gives no ids away in this cutover; %(units)s does.")
            % {"unit": unit[:63], "units": ", ".join(known)}
        )
    wanted = [name for name in known[unit].silent if names is None or name in names]
    if not wanted:
        raise Refused(
            gettext("Every node of unit %(unit)s that was named is connected and will drain.")
            % {"unit": unit}
        )
    rows = EdgeNode.objects.filter(namespace=cutover.namespace_id, name__in=wanted)
    return list(rows.select_related("unit", "namespace").order_by("name"))
