"""Changing the hooks of a namespace: checked, locked and audited; secrets go in and never come out."""

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext

from cutover.errors import Refused
from cutover.hooks.addresses import refuse_forbidden
from cutover.models import Cutover, Hook, HookRun
from units import audit, publishing
from units.models import Namespace

#: Each is waited for while ids are frozen; more of them would be a workflow, which is not built here.
HOOKS_LIMIT = 5

#: What the audit record has of a hook; of its secret it has only that it was replaced.
FIELDS = ("name", "moment", "url", "must_succeed", "timeout_s", "deadline_s", "enabled")
#: What a running cutover relies on: changing it would pair calls that do not belong together.
_FIXED = ("name", "moment", "must_succeed", "enabled")


@dataclass(eq=False)
class InvalidHook(Refused):
    """A hook that cannot be saved.

    Attributes:
        place: the field at fault, or "".
    """

    place: str = ""


def save(hook: Hook, *, actor: object) -> Hook:
    """The hook is saved, and called by every cutover that reaches its moment from now on.

    Raises:
        InvalidHook: a field is wrong; names it.
        Refused: there are five already, its host is not allowed, or a running cutover relies on it.
    """
    try:
        hook.full_clean(validate_constraints=False)
    except ValidationError as error:
        place, problems = next(iter(error.message_dict.items()))
        raise InvalidHook(problems[0], "" if place == "__all__" else place) from error
    with transaction.atomic():
        namespace = publishing.locked(hook.namespace_id)
        stored = Hook.objects.filter(pk=hook.pk).first() if hook.pk else None
        before = None if stored is None else value(stored)
        refuse(hook, stored)
        hook.save()
        after = value(hook)
        replaced = stored is not None and stored.secret != hook.secret
        if before != after or replaced:
            audit.record(
                actor,
                "hook.create" if before is None else "hook.update",
                hook.name,
                namespace=namespace,
                before=before,
                after={**after, "secret": "replaced"} if replaced else after,
            )
    return hook


def refuse(hook: Hook, stored: Hook | None) -> None:
    """Nothing, where the hook may be saved as it is now.

    Raises:
        Refused: says why not.
    """
    refuse_forbidden(hook.url)
    others = Hook.objects.filter(namespace=hook.namespace_id).exclude(pk=hook.pk)
    if others.filter(name=hook.name).exists():
        raise InvalidHook(gettext("This namespace already has a hook with this name."), "name")
    if stored is None and others.count() >= HOOKS_LIMIT:
        raise Refused(
            gettext(
                "Namespace %(namespace)s has %(limit)d hooks already, which is all it may have."
                " Delete one, or let one receiver do the work of two."
            )
            % {"namespace": hook.namespace, "limit": HOOKS_LIMIT}
        )
    if stored is None or any(getattr(stored, name) != getattr(hook, name) for name in _FIXED):
        _refuse_while_running(hook.namespace)


def remove(hook: Hook, *, actor: object) -> None:
    """The hook is gone; what it was told and answered stays in the reports.

    Raises:
        Refused: a running cutover relies on it, or a call of it is still open.
    """
    with transaction.atomic():
        namespace = publishing.locked(hook.namespace_id)
        if sentences := obstacles(hook):
            raise Refused(" ".join(sentences))
        before, name = value(hook), hook.name
        hook.delete()
        audit.record(actor, "hook.delete", name, namespace=namespace, before=before)


def obstacles(hook: Hook) -> list[str]:
    """Why the hook cannot be removed now; empty when nothing forbids it."""
    running = _running(hook.namespace)
    if running is not None:
        return [_relied_on(running)]
    late = (
        hook.runs.filter(state__in=HookRun.OPEN, practice=False).select_related("cutover__namespace").first()
    )
    if late is None:
        return []
    return [
        gettext("Its call for cutover %(cutover)s is still open: wait for it, or skip it with a reason.")
        % {"cutover": late.cutover}
    ]


def value(hook: Hook) -> dict[str, Any]:
    """The hook as the audit record has it; without its secret."""
    return {name: getattr(hook, name) for name in FIELDS}


def _refuse_while_running(namespace: Namespace) -> None:
    running = _running(namespace)
    if running is not None:
        raise Refused(_relied_on(running))


def _running(namespace: Namespace) -> Cutover | None:
    rows = Cutover.objects.filter(namespace=namespace, state__in=Cutover.ACTIVE)
    return rows.select_related("namespace").first()


def _relied_on(cutover: Cutover) -> str:
    return gettext(
        "Cutover %(cutover)s is running and calls the hooks as they are. Wait for its end; a call that does"
        " not succeed can be skipped. Address, secret and times of a hook may be changed meanwhile."
    ) % {"cutover": cutover}
