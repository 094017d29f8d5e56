"""Approval: where a namespace asks for it, somebody other than the requester says yes before a start.

What is approved is a digest of everything that the approver could see; whoever changes any of it becomes the
requester, and has to ask anew. The database itself refuses an approver who is the requester, and a running
cutover without an approver where one was needed.
"""

from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from cutover.errors import Refused
from cutover.models import Cutover, CutoverEvent
from cutover.safety import stored
from msha.steering import snapshot as steering
from units import audit, publishing
from units.models import Namespace

PERMISSION = "cutover.approve_cutover"

State = Cutover.State

_VOID: dict[str, Any] = {
    "approved_by": "",
    "approved_at": None,
    "approval_comment": "",
    "approved_digest": "",
    "approval_requested_at": None,
}


def needed(namespace: Namespace | int) -> bool:
    """Whether cutovers of the namespace start only with an approval."""
    return stored.rules_of(namespace).approval


def digest(cutover: Cutover) -> str:
    """The digest of what an approval is about."""
    value = {
        "unit_type": cutover.unit_type,
        "new": cutover.new_rule,
        "moved": cutover.moved,
        "mode": cutover.mode,
        "pacing": cutover.pacing,
        "overrides": list(cutover.overrides.order_by("pk").values_list("pk", flat=True)),
    }
    return steering.digest_of(steering.canonical(value))


def requester(cutover: Cutover) -> str:
    """Who last changed what is to be approved."""
    return cutover.requested_by or cutover.created_by


def unapprove(cutover: Cutover, actor: str) -> None:
    """The actor has changed what is to be approved: the request is his, and an approval is void.

    To be called in the transaction of every change of rule, pacing, mode or overrides. A cutover that runs
    keeps the approval that it started with.
    """
    with transaction.atomic():
        row = Cutover.objects.filter(pk=cutover.pk, state__in=Cutover.BEFORE).first()
        if row is None:
            return
        Cutover.objects.filter(pk=row.pk).update(requested_by=actor[:150], updated=timezone.now(), **_VOID)
        if row.approved_by:
            data = {"by": actor, "approver": row.approved_by}
            CutoverEvent.objects.create(cutover=row, kind="approval_lapsed", data=data)
            audit.record(
                actor,
                "cutover.approval_lapsed",
                row,
                namespace=row.namespace,
                before={"approved_by": row.approved_by},
                after={"approved_by": ""},
            )


def request_approval(cutover: Cutover, actor: str, comment: str = "") -> Cutover:
    """Who may approve is told, on pages and by the API, that this cutover waits for one of them.

    Raises:
        Refused: no approval is needed or missing, or there is no preview yet.
    """
    with transaction.atomic():
        row = _open(cutover)
        if row.approved_by:
            raise Refused(_approved_already(row))
        now = timezone.now()
        Cutover.objects.filter(pk=row.pk).update(approval_requested_at=now, updated=now)
        data = {"by": actor, "comment": comment.strip()}
        CutoverEvent.objects.create(cutover=row, kind="approval_requested", data=data, at=now)
        audit.record(actor, "cutover.request_approval", row, namespace=row.namespace, reason=comment.strip())
    cutover.refresh_from_db()
    return cutover


def approve(cutover: Cutover, actor: str, comment: str = "", seen: str = "") -> Cutover:
    """The cutover may start, as it is.

    Args:
        seen: the digest of what the approver has looked at; "" for that of `cutover` as it was read.

    Raises:
        Refused: the actor is the requester, it has changed meanwhile, or no approval is needed or missing.
    """
    seen = seen or digest(cutover)
    with transaction.atomic():
        row = _open(cutover)
        if digest(row) != seen:
            raise Refused(
                gettext(
                    "%(requester)s has changed cutover %(cutover)s meanwhile. Look at it again, then approve."
                )
                % {"requester": requester(row), "cutover": row}
            )
        if actor == requester(row):
            raise Refused(
                gettext(
                    "%(actor)s changed cutover %(cutover)s last, and nobody approves what they ask for."
                    " Ask somebody else who may approve."
                )
                % {"actor": actor, "cutover": row}
            )
        if row.approved_by and may_approve(row.approved_by):
            raise Refused(_approved_already(row))
        now = timezone.now()
        as_read = Cutover.objects.filter(
            pk=row.pk, state__in=Cutover.BEFORE, requested_by=row.requested_by, mode=row.mode
        )
        changed = as_read.update(
            requested_by=requester(row),
            approved_by=actor[:150],
            approved_at=now,
            approval_comment=comment.strip(),
            approved_digest=seen,
            updated=now,
        )
        if changed != 1:
            raise Refused(gettext("The cutover was changed just now. Look at it again, then approve."))
        data = {"by": actor, "comment": comment.strip()}
        CutoverEvent.objects.create(cutover=row, kind="approved", data=data, at=now)
        audit.record(
            actor,
            "cutover.approve",
            row,
            namespace=row.namespace,
            after={"digest": seen, "requested_by": requester(row), "moved": row.moved},
            reason=comment.strip(),
        )
    cutover.refresh_from_db()
    return cutover


def withdraw_approval(cutover: Cutover, actor: str, reason: str) -> Cutover:
    """The cutover may not start any more.

    Raises:
        Refused: no reason, it is not approved, or it has started or ended.
    """
    reason = reason.strip()
    if not reason:
        raise Refused(gettext("Give a reason; it is kept in the audit trail."))
    with transaction.atomic():
        row = _open(cutover)
        if not row.approved_by:
            raise Refused(gettext("Cutover %(cutover)s is not approved.") % {"cutover": row})
        Cutover.objects.filter(pk=row.pk).update(updated=timezone.now(), **_VOID)
        data = {"by": actor, "approver": row.approved_by, "reason": reason}
        CutoverEvent.objects.create(cutover=row, kind="approval_withdrawn", data=data)
        audit.record(
            actor,
            "cutover.withdraw_approval",
            row,
            namespace=row.namespace,
            before={"approved_by": row.approved_by},
            reason=reason,
        )
    cutover.refresh_from_db()
    return cutover


def obstacle(cutover: Cutover) -> str:
    """Why the cutover may not start as far as approvals go, and what to do; "" where nothing forbids it."""
    if not needed(cutover.namespace_id):
        return ""
    words = {
        "cutover": cutover,
        "requester": requester(cutover),
        "approver": cutover.approved_by,
        "command": f"mshactl cutover request-approval -n {cutover.namespace.name} {cutover.number}",
    }
    if not cutover.approved_by:
        return (
            gettext(
                "Cutover %(cutover)s needs the approval of somebody other than %(requester)s."
                " Ask for it (%(command)s), then start it."
            )
            % words
        )
    if cutover.approved_digest != digest(cutover):
        return (
            gettext(
                "Cutover %(cutover)s has changed since %(approver)s approved it. Ask for approval again"
                " (%(command)s)."
            )
            % words
        )
    if not may_approve(cutover.approved_by):
        return (
            gettext(
                "%(approver)s, who approved cutover %(cutover)s, may not approve any more: the account is"
                " closed or has lost the permission. Ask somebody else to approve it."
            )
            % words
        )
    return ""


def may_approve(username: str) -> bool:
    """Whether there is an active user of this name with the permission."""
    user = get_user_model().objects.filter(username=username, is_active=True).first()
    return user is not None and user.has_perm(PERMISSION)


def status(cutover: Cutover) -> dict[str, Any]:
    """Where the approval of a cutover stands; fit for JSON.

    ``state`` is ``not_needed``, ``missing``, ``requested``, ``approved`` or ``void`` (given, but the start
    would refuse it); ``obstacle`` is the sentence of the start; ``digest`` is what `approve` wants as `seen`.
    """
    editable = cutover.editable
    wanted = needed(cutover.namespace_id) if editable else cutover.approval_needed
    problem = obstacle(cutover) if editable else ""
    if cutover.approved_by:
        state = "void" if problem else "approved"
    elif not wanted:
        state = "not_needed"
    else:
        state = "requested" if cutover.approval_requested_at else "missing"
    return {
        "needed": wanted,
        "state": state,
        "obstacle": problem,
        "requested_by": requester(cutover),
        "requested_at": cutover.approval_requested_at.isoformat() if cutover.approval_requested_at else None,
        "approved_by": cutover.approved_by,
        "approved_at": cutover.approved_at.isoformat() if cutover.approved_at else None,
        "comment": cutover.approval_comment,
        "digest": digest(cutover) if editable else cutover.approved_digest,
    }


def waiting(namespace: Namespace | int) -> list[Cutover]:
    """The cutovers for which somebody has asked for an approval, the oldest request first."""
    if not needed(namespace):
        return []
    pk = namespace if isinstance(namespace, int) else namespace.pk
    rows = Cutover.objects.filter(
        namespace=pk, state__in=Cutover.BEFORE, approved_by="", approval_requested_at__isnull=False
    )
    return list(rows.order_by("approval_requested_at"))


def _open(cutover: Cutover) -> Cutover:
    """The row under the namespace's lock, if it is one that can be approved.

    Raises:
        Refused: it has started or ended, no approval is needed, or there is no preview yet.
    """
    namespace = publishing.locked(cutover.namespace_id)
    row = Cutover.objects.select_related("namespace").get(pk=cutover.pk)
    words = {"cutover": row, "state": row.get_state_display(), "namespace": namespace.name}
    if not row.editable:
        raise Refused(
            gettext("Cutover %(cutover)s is %(state)s: there is nothing to approve any more.") % words
        )
    if not needed(namespace):
        raise Refused(gettext("Namespace %(namespace)s asks for no approval: start the cutover.") % words)
    if row.state == State.DRAFT:
        raise Refused(gettext("Generate the preview of cutover %(cutover)s first.") % words)
    return row


def _approved_already(cutover: Cutover) -> str:
    return gettext("Cutover %(cutover)s is approved by %(approver)s already: start it.") % {
        "cutover": cutover,
        "approver": cutover.approved_by,
    }
