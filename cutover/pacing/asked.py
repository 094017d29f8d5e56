"""The pacing that somebody asks of a cutover: read from untrusted input, stored with the draft.

As stored: ``{"steps": [1, 10, 50], "bake_s": 30, "gate": {"reconnect": 0.9}, "on_failure": "undo",
"sessions_per_s": 500, "interval_s": 2}``, or ``ids`` (per stage) instead of ``steps``. What is left out has
the value that `msha.steering.pacing` gives it; a limit that is null is not looked at.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any

from django.db import transaction
from django.utils.translation import gettext

from cutover.drafts import claim_editable
from cutover.errors import InvalidChange
from cutover.models import Cutover, CutoverEvent
from cutover.safety import approval
from msha.steering.pacing import Gate, OnFailure, Pacing
from msha.steering.phases import reads_differently
from units import audit, publishing

Asked = Mapping[str, Any]

STEPS_LIMIT = 20
IDS_LIMIT = 10**9
BAKE_LIMIT_S = 86_400.0
RETRY_LIMIT_S = 600.0
RATE_LIMIT = 1e6
INTERVAL_LEAST_S, INTERVAL_LIMIT_S = 0.5, 300.0

_SHARES = ("refused", "back_source", "reconnect")


def set_pacing(cutover: Cutover, asked: Asked, actor: str) -> Cutover:
    """The draft is divided and paced as asked; an empty value is everything at once.

    Preview and checks stay as they are: they are about what moves, and that is the same.

    Raises:
        InvalidChange: what is asked cannot be done; names the place.
        Refused: the cutover has started or ended.
    """
    pacing = checked(asked)
    with transaction.atomic():
        publishing.locked(cutover.namespace_id)
        cutover.refresh_from_db()
        refuse_if_indivisible(cutover, pacing)
        before, after = cutover.pacing, as_stored(pacing) if asked else {}
        if before == after and cutover.editable:
            return cutover
        claim_editable(cutover, pacing=after)
        approval.unapprove(cutover, actor)
        CutoverEvent.objects.create(cutover=cutover, kind="pacing", data={"by": actor, "pacing": after})
        audit.record(
            actor,
            "cutover.set_pacing",
            cutover,
            namespace=cutover.namespace,
            before={"pacing": before},
            after={"pacing": after},
        )
    cutover.refresh_from_db()
    return cutover


def refuse_if_indivisible(cutover: Cutover, pacing: Pacing) -> None:
    """Nothing, where ids before and after the cutover are the same ids.

    Raises:
        InvalidChange: no mixed table of the two rules can be right, so everything moves at once.
    """
    if pacing.divides and reads_differently(cutover.old_rule, cutover.new_rule):
        raise InvalidChange(
            gettext(
                "This cutover changes how the routerId is read (sources or transform), so every id moves at"
                " once: it cannot be divided. Take the steps and the drain rate away."
            ),
            "pacing",
        )


def pacing_of(cutover: Cutover) -> Pacing:
    """The pacing that was asked for; everything at once where none was."""
    return checked(cutover.pacing)


def as_stored(pacing: Pacing) -> dict[str, Any]:
    """The pacing as the row keeps it, with every value written out."""
    stored: dict[str, Any] = {}
    if pacing.percents:
        stored["steps"] = list(pacing.percents)
    if pacing.ids_per_stage:
        stored["ids"] = pacing.ids_per_stage
    if pacing.sessions_per_s:
        stored.update(sessions_per_s=pacing.sessions_per_s, interval_s=pacing.interval_s)
    return {
        **stored,
        "bake_s": pacing.bake_s,
        "gate": asdict(pacing.gate),
        "on_failure": str(pacing.on_failure),
    }


def words_of(stored: Asked) -> list[str]:
    """The options of ``mshactl cutover start`` that ask for the same pacing."""
    if not stored:
        return []
    pacing, default = checked(stored), Pacing()
    words = []
    if pacing.percents:
        words += ["--batches", ",".join(f"{one:g}" for one in pacing.percents)]
    if pacing.ids_per_stage:
        words += ["--ids-per-batch", str(pacing.ids_per_stage)]
    if pacing.bake_s:
        words += ["--bake", f"{pacing.bake_s:g}"]
    if pacing.on_failure is not default.on_failure:
        words += ["--on-failure", str(pacing.on_failure)]
    limits = [
        f"{field.name}={'none' if limit is None else f'{limit:g}'}"
        for field in fields(Gate)
        if (limit := getattr(pacing.gate, field.name)) != getattr(default.gate, field.name)
    ]
    if limits:
        words += ["--gate", ",".join(limits)]
    if pacing.sessions_per_s:
        words += ["--sessions-per-s", f"{pacing.sessions_per_s:g}"]
        if pacing.interval_s != default.interval_s:
            words += ["--interval-s", f"{pacing.interval_s:g}"]
    return words


# -- reading -------------------------------------------------------------------------------------------------


def checked(asked: Asked) -> Pacing:
    """The pacing that is asked for.

    Raises:
        InvalidChange: names the place.
    """
    known = {"steps", "ids", "bake_s", "gate", "on_failure", "sessions_per_s", "interval_s"}
    _refuse_unknown(asked, known, "pacing")
    default = Pacing()
    percents, ids = _steps(asked.get("steps") or []), asked.get("ids") or 0
    if percents and ids:
        raise InvalidChange(
            gettext("Give either steps in percent or ids per step, not both."), "pacing.steps"
        )
    return Pacing(
        percents=percents,
        ids_per_stage=int(_number(ids, "pacing.ids", 0, IDS_LIMIT, whole=True)),
        bake_s=_number(asked.get("bake_s") or 0, "pacing.bake_s", 0, BAKE_LIMIT_S),
        gate=_gate(asked.get("gate") or {}),
        on_failure=_on_failure(asked.get("on_failure") or default.on_failure),
        sessions_per_s=_number(asked.get("sessions_per_s") or 0, "pacing.sessions_per_s", 0, RATE_LIMIT),
        interval_s=_number(
            asked.get("interval_s") or default.interval_s,
            "pacing.interval_s",
            INTERVAL_LEAST_S,
            INTERVAL_LIMIT_S,
        ),
    )


def _steps(asked: object) -> tuple[float, ...]:
    place = "pacing.steps"
    if not isinstance(asked, list | tuple):
        raise InvalidChange(gettext("Write the steps as a list of percents, as [1, 10, 50]."), place)
    if len(asked) > STEPS_LIMIT:
        raise InvalidChange(gettext("Give at most %(count)d steps.") % {"count": STEPS_LIMIT}, place)
    percents = tuple(_number(one, place, 0, 100) for one in asked)
    if 0 in percents or any(after <= before for before, after in pairwise(percents)):
        raise InvalidChange(
            gettext("Steps are cumulative: each is larger than the one before, as 1, 10, 50."), place
        )
    return tuple(one for one in percents if one < 100)


def _gate(asked: object) -> Gate:
    if not isinstance(asked, Mapping):
        raise InvalidChange(gettext("Write the gate as limits by name, as reconnect=0.9."), "pacing.gate")
    _refuse_unknown(asked, {field.name for field in fields(Gate)}, "pacing.gate")
    limits: dict[str, Any] = {}
    for name, value in asked.items():
        place = f"pacing.gate.{name}"
        if name == "retry_s":
            limits[name] = _number(value, place, 0, RETRY_LIMIT_S)
        elif value is None:
            limits[name] = None
        elif name in _SHARES:
            limits[name] = _number(value, place, 0, 1)
        else:
            limits[name] = int(_number(value, place, 0, IDS_LIMIT, whole=True))
    return Gate(**limits)


def _on_failure(asked: object) -> OnFailure:
    try:
        return OnFailure(str(asked))
    except ValueError as error:
        raise InvalidChange(
            gettext("A failing gate may “pause” the cutover or “undo” it; there is no “%(word)s”.")
            % {"word": str(asked)[:40]},
            "pacing.on_failure",
        ) from error


def _number(value: object, place: str, least: float, most: float, *, whole: bool = False) -> float:
    fits = type(value) is int or (type(value) is float and not whole)
    if not fits or not least <= value <= most:  # type: ignore[operator]  # a number, as was just seen
        kind = gettext("a whole number") if whole else gettext("a number")
        raise InvalidChange(
            gettext("“%(value)s” is not %(kind)s from %(least)g to %(most)g.")
            % {"value": str(value)[:40], "kind": kind, "least": least, "most": most},
            place,
        )
    return value  # type: ignore[return-value]  # a number, as was just seen


def _refuse_unknown(asked: object, known: set[str], place: str) -> None:
    unknown = sorted(set(asked) - known) if isinstance(asked, Mapping) else [str(asked)[:40]]
    if unknown:
        raise InvalidChange(
            gettext("There is no “%(name)s” here; there is %(known)s.")
            % {"name": unknown[0], "known": ", ".join(sorted(known))},
            place,
        )
