"""The safety rules of a namespace: as values, as JSON, and changed with an audit record."""

from collections.abc import Mapping, Sequence
from datetime import time
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext

from cutover.errors import InvalidChange
from cutover.models import BlockedWindow, SafetyRules
from cutover.safety.findings import Limits
from cutover.safety.windows import Window, known_zone
from units import audit, publishing
from units.models import Namespace

#: The rules that are one number each.
NUMBERS = ("min_share_percent", "max_ids", "max_sessions", "quiet_s")

Value = dict[str, Any]


def rules_of(namespace: Namespace | int) -> SafetyRules:
    """The stored rules, or unsaved ones that forbid nothing."""
    pk = namespace if isinstance(namespace, int) else namespace.pk
    return SafetyRules.objects.filter(namespace=pk).first() or SafetyRules(namespace_id=pk)


def limits(namespace: Namespace | int) -> Limits:
    """The rules as findings are judged by them."""
    rules = rules_of(namespace)
    return Limits(
        rules.min_share_percent,
        rules.max_ids,
        rules.max_sessions,
        rules.quiet_s,
        tuple(Window(row.day, row.begins, row.ends, row.time_zone, row.note) for row in _windows(rules)),
    )


def value(namespace: Namespace | int) -> Value:
    """The rules as API and audit record have them; times are ``HH:MM``, day 7 is every day."""
    rules = rules_of(namespace)
    return {
        **{name: getattr(rules, name) for name in NUMBERS},
        "approval": rules.approval,
        "blocked_windows": [
            {
                "day": row.day,
                "begins": f"{row.begins:%H:%M}",
                "ends": f"{row.ends:%H:%M}",
                "time_zone": row.time_zone,
                "note": row.note,
            }
            for row in _windows(rules)
        ],
    }


def save(namespace: Namespace, asked: Mapping[str, Any], actor: str, reason: str = "") -> Value:
    """The rules are those of `asked`, in the shape of `value`; drafts are judged by them from now on.

    What `asked` leaves out stays as it is. A cutover that runs is not touched.

    Raises:
        InvalidChange: a value cannot be; the place names it.
    """
    with transaction.atomic():
        publishing.locked(namespace.pk)
        before = value(namespace)
        rules = rules_of(namespace)
        for name in (*NUMBERS, "approval"):
            setattr(rules, name, asked.get(name, before[name]))
        _refuse_invalid(rules)
        rules.save()
        if "blocked_windows" in asked:
            _replace_windows(rules, asked["blocked_windows"])
        note_change(namespace, before, actor, reason)
        return value(namespace)


def note_change(namespace: Namespace, before: Value, actor: str, reason: str = "") -> None:
    """The audit trail says what has changed in the rules since `before`; call it in the same transaction."""
    after = value(namespace)
    if after != before:
        audit.record(
            actor,
            "safety_rules.update",
            namespace,
            namespace=namespace,
            before=before,
            after=after,
            reason=reason,
        )


def refuse_unknown_zone(name: str) -> None:
    """Nothing, if the time zone is one that exists.

    Raises:
        ValidationError: with an example.
    """
    if known_zone(name) is None:
        raise ValidationError(
            gettext("There is no time zone %(name)s; write it as Asia/Shanghai, Europe/Berlin or UTC.")
            % {"name": name}
        )


def _windows(rules: SafetyRules) -> Sequence[BlockedWindow]:
    return [] if rules.pk is None else list(rules.blocked_windows.order_by("day", "begins", "pk"))


def _replace_windows(rules: SafetyRules, asked: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for index, window in enumerate(asked):
        place = f"blocked_windows.{index}"
        row = BlockedWindow(
            rules=rules,
            day=window.get("day", BlockedWindow.Day.EVERY_DAY),
            begins=_time(window.get("begins"), f"{place}.begins"),
            ends=_time(window.get("ends"), f"{place}.ends"),
            time_zone=window.get("time_zone") or "UTC",
            note=window.get("note", ""),
        )
        _refuse_invalid(row, place)
        try:
            refuse_unknown_zone(row.time_zone)
        except ValidationError as error:
            raise InvalidChange(" ".join(error.messages), f"{place}.time_zone") from error
        rows.append(row)
    rules.blocked_windows.all().delete()
    BlockedWindow.objects.bulk_create(rows)


def _refuse_invalid(row: SafetyRules | BlockedWindow, place: str = "") -> None:
    try:
        row.clean_fields()
    except ValidationError as error:
        field, sentences = next(iter(error.message_dict.items()))
        raise InvalidChange(" ".join(sentences), f"{place}.{field}".lstrip(".")) from error


def _time(text: Any, place: str) -> time:
    try:
        if not isinstance(text, str):
            raise ValueError
        return time.fromisoformat(text).replace(tzinfo=None)
    except ValueError as error:
        raise InvalidChange(gettext("Write the time as 22:30."), place) from error
