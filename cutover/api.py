"""The API of cutovers: draft, preview, check, start, watch, undo.

``id`` in every answer is the number that pages show and that addresses take. In its place are understood:
``latest``, ``running``, ``current`` (the running one, else the one started last, else the latest) and
``draft`` (the newest that has not been started).
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from fractions import Fraction
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext
from ninja import Field, Query, Router, Schema

from cutover import services
from cutover.errors import InvalidChange
from cutover.kinds import Shift, ToZero
from cutover.models import Cutover
from units.access import NotFound, namespace_for, require
from units.models import Namespace

router = Router(tags=["cutovers"])

VIEW = "cutover.view_cutover"
ADD = "cutover.add_cutover"
CHANGE = "cutover.change_cutover"
START = "cutover.start_cutover"
SKIP = "cutover.skip_check"
EMERGENCY = "cutover.emergency_cutover"

PAGE = 100


class ShiftIn(Schema):
    losing: str = Field(description="Code of the unit that gives ids.")
    gaining: str = Field(description="Code of the unit that gets them.")
    ids: int | None = Field(None, description="How many; or else percent.")
    percent: float | None = Field(None, gt=0, le=100, description="Of the ids that the losing unit owns.")
    of_all: bool = Field(False, description="The percentage is one of the whole key space.")

    def wish(self) -> Shift:
        percent = None if self.percent is None else Fraction(str(self.percent))
        return Shift(self.losing, self.gaining, self.ids, percent, self.of_all)


class ToZeroIn(Schema):
    unit: str = Field(description="Code of the unit that gives everything.")
    to: str = Field("", description="Who gets it; empty: the others, in proportion to their shares.")


class DraftIn(Schema):
    unit_type: str = Field("", description="Default: the namespace's default unit type.")
    ranges: dict[str, list[str]] | None = Field(
        None, description='Per unit, as {"center": ["0~6380"]}; together they cover the key space once.'
    )
    exact: dict[str, list[int]] | None = Field(None, description='Per unit, as {"unbj": [42]}.')
    entry: dict[str, Any] | None = Field(None, description="A whole unit type, as snapshots hold it.")
    shift: list[ShiftIn] | None = Field(None, description="Instead of a rule: ids go from unit to unit.")
    to_zero: ToZeroIn | None = Field(None, description="Instead of a rule: a unit gives everything away.")
    reason: str = ""

    def asked(self) -> dict[str, Any]:
        """The rule, or the wish, as the services take it.

        Raises:
            InvalidChange: it is more than one of them.
        """
        wishes = [one for one in (self.shift, self.to_zero) if one]
        rule = self.ranges is not None or self.exact is not None or self.entry is not None
        if len(wishes) + rule > 1:
            raise InvalidChange(gettext("Give one of a rule, a shift and a cut to zero."))
        if self.to_zero is not None:
            return {"wish": ToZero(self.to_zero.unit, self.to_zero.to or None)}
        if self.shift:
            return {"wish": [one.wish() for one in self.shift]}
        return {"ranges": self.ranges, "exact": self.exact, "entry": self.entry}


class ReasonIn(Schema):
    reason: str = ""


class StartIn(Schema):
    namespace: str = Field("", description="The namespace's name again, as a confirmation.")


class CutoverOut(Schema):
    """The whole state of a cutover."""

    id: int
    number: int
    pk: int
    namespace: str
    unit_type: str
    kind: str
    asked: str
    phase: str
    phase_title: str
    direction: str
    turns: int
    batch: int
    batches: int
    batch_list: list[dict[str, Any]]
    held: str
    paused: bool
    paused_by: str
    hold: dict[str, Any]
    baking_since: datetime | None
    unwinding: bool
    mode: str
    losing: list[dict[str, Any]]
    pacing: dict[str, Any]
    pacing_said: str
    batches_detail: list[dict[str, Any]]
    epoch: int
    moved_ids: int
    moved: list[dict[str, Any]]
    moved_text: str
    old: dict[str, Any]
    new: dict[str, Any]
    command: str
    sessions_expected: int
    sessions_closed: int
    sessions_remaining: int | None
    reconnected: int
    frozen_ms: int | None
    frozen_now_ms: int | None
    freezes: list[dict[str, Any]]
    waiting: str
    missing: list[str]
    alarm: str | None
    outcome: str
    ending: str | None
    stragglers: list[str]
    reason: str
    created_by: str
    started_by: str
    rollback_of: int | None
    started_at: datetime | None
    phase_at: datetime | None
    ended_at: datetime | None
    now: datetime
    settled: bool
    actions: dict[str, bool]
    consequences: dict[str, str]
    findings: list[dict[str, Any]]
    overrides: list[dict[str, Any]]
    approval: dict[str, Any]
    checks: list[dict[str, Any]]
    events: list[dict[str, Any]]
    samples: list[dict[str, int]]
    hooks: list[dict[str, Any]]
    nodes: list[dict[str, Any]]


class CutoverLine(Schema):
    id: int
    number: int
    unit_type: str
    phase: str
    moved_ids: int
    created_by: str
    started_by: str
    started_at: datetime | None
    ended_at: datetime | None
    outcome: str


class Cutovers(Schema):
    namespace: str
    cutovers: list[CutoverLine]


class PreviewOut(Schema):
    id: int
    number: int
    moved_ids: int
    key_space_size: int
    sessions: int
    uncounted: list[str]
    impact: str
    command: str
    base_version: int
    stale: bool
    findings: list[dict[str, Any]]
    units: list[dict[str, Any]]
    moves: list[dict[str, Any]]
    old_text: str
    new_text: str


@router.get("/namespaces/{namespace}/cutovers", response=Cutovers, summary="Cutovers, newest first")
def cutovers(
    request: HttpRequest, namespace: str, before: int | None = None, limit: int = Query(20, ge=1, le=PAGE)
) -> dict[str, Any]:
    row = namespace_for(request, namespace, VIEW)
    rows = Cutover.objects.filter(namespace=row).order_by("-number")
    if before is not None:
        rows = rows.filter(number__lt=before)
    return {"namespace": row.name, "cutovers": [_line(cutover) for cutover in rows[:limit]]}


@router.post("/namespaces/{namespace}/cutovers", response=CutoverOut, summary="Draft a cutover to a rule")
def draft(request: HttpRequest, namespace: str, body: DraftIn) -> dict[str, Any]:
    """An open draft that asks for the same is answered with instead of a second one."""
    row = namespace_for(request, namespace, VIEW, ADD)
    cutover = services.open_draft(
        row,
        body.unit_type or row.default_unit_type,
        **body.asked(),
        actor=str(request.user),
        reason=body.reason,
    )
    return _whole(cutover)


@router.get("/namespaces/{namespace}/cutovers/{number}", response=CutoverOut, summary="One cutover, whole")
def cutover(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    return _whole(cutover_for(request, namespace, number))


@router.get(
    "/namespaces/{namespace}/cutovers/{number}/report",
    response=dict[str, Any],
    summary="Who did what when: steps, batches, checks, overrides, approval, hooks, alarms, stragglers",
)
def report(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    return services.report(cutover_for(request, namespace, number))


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/stragglers",
    response=dict[str, Any],
    summary="Ask the nodes again who has not come back; the report afterwards",
)
def stragglers(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    return services.report(services.find_stragglers(cutover_for(request, namespace, number, CHANGE)))


@router.patch("/namespaces/{namespace}/cutovers/{number}", response=CutoverOut, summary="Adjust a draft")
def update(request: HttpRequest, namespace: str, number: str, body: DraftIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, CHANGE)
    changed = services.update_draft(
        found,
        **body.asked(),
        actor=str(request.user),
        reason=body.reason or None,
    )
    return _whole(changed)


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/preview",
    response=PreviewOut,
    summary="Preview against the rule now in effect, with live sessions counted",
)
def preview(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, CHANGE)
    made = asdict(services.preview(found, str(request.user)))
    del made["rows"]
    return {**made, "id": found.number, "number": found.number}


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/checks", response=CutoverOut, summary="Run all checks"
)
def check(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, CHANGE)
    services.run_prechecks(found, str(request.user))
    return _whole(found)


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/checks/{key}/retry",
    response=CutoverOut,
    summary="Run one check again",
)
def retry(request: HttpRequest, namespace: str, number: str, key: str) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, CHANGE)
    services.retry_check(found, key, str(request.user))
    return _whole(found)


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/checks/{key}/skip",
    response=CutoverOut,
    summary="Skip a failed check, with a reason",
)
def skip(request: HttpRequest, namespace: str, number: str, key: str, body: ReasonIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, SKIP)
    services.skip_check(found, key, str(request.user), body.reason)
    return _whole(found)


@router.post("/namespaces/{namespace}/cutovers/{number}/start", response=CutoverOut, summary="Start")
def start(request: HttpRequest, namespace: str, number: str, body: StartIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, START)
    if found.emergency:
        require(request.user, EMERGENCY)
    return _whole(services.start(found, str(request.user), body.namespace))


def _act(path: str, summary: str, act: Callable[[Cutover, str, str], Cutover]) -> None:
    """Adds the route of an operator's act on a running cutover, which wants a reason."""

    def obey(request: HttpRequest, namespace: str, number: str, body: ReasonIn) -> dict[str, Any]:
        found = cutover_for(request, namespace, number, START)
        return _whole(act(found, str(request.user), body.reason))

    obey.__name__ = path.replace("-", "_")  # the API's document names the operation after it
    route = f"/namespaces/{{namespace}}/cutovers/{{number}}/{path}"
    router.post(route, response=CutoverOut, summary=summary)(obey)


_act("abort", "Undo, as long as nothing has moved", services.abort)
_act("turn-around", "Bring the ids back, after they have begun to move", services.turn_around)
_act("pause", "Begin no further batch until it is resumed", services.pause)
_act("resume", "Let the next batch begin", services.resume)
_act("stop-here", "End between two batches: what has moved stays", services.stop_here)
_act(
    "roll-back",
    "Bring back everything that the running cutover has moved, the last batch first",
    services.roll_back,
)
_act("finish", "End the last step without the nodes that do not answer", services.finish_with_stragglers)


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/rollback",
    response=CutoverOut,
    summary="Draft the reverse of a cutover that is done",
)
def rollback(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, ADD)
    return _whole(services.rollback(found, str(request.user)))


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/discard", response=CutoverOut, summary="Put a draft aside"
)
def discard(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, CHANGE)
    services.discard(found, str(request.user))
    return _whole(found)


def cutover_for(request: HttpRequest, namespace: str, number: str, *permissions: str) -> Cutover:
    """The cutover of that number or name (see above), for a user with the permissions.

    Raises:
        Forbidden, NotFound.
    """
    row = namespace_for(request, namespace, VIEW, *permissions)
    found = _named(row, number)
    if found is None:
        sentences = {
            "latest": gettext("Namespace %(namespace)s has no cutover yet."),
            "current": gettext("Namespace %(namespace)s has no cutover yet."),
            "running": gettext("No cutover of namespace %(namespace)s is running."),
        }
        sentence = sentences.get(number, gettext("Namespace %(namespace)s has no cutover %(number)s."))
        raise NotFound(sentence % {"namespace": row.name, "number": number[:40]})
    return found


def _named(namespace: Namespace, number: str) -> Cutover | None:
    rows = Cutover.objects.filter(namespace=namespace).select_related("namespace").order_by("-number")
    if number == "latest":
        return rows.first()
    if number == "running":
        return rows.filter(state__in=Cutover.ACTIVE).first()
    if number == "current":
        started = rows.filter(started_at__isnull=False).order_by("-started_at")
        return rows.filter(state__in=Cutover.ACTIVE).first() or started.first() or rows.first()
    if number == "draft":
        return rows.filter(state__in=Cutover.BEFORE).first()
    if not (number.isascii() and number.isdigit() and len(number) <= 9):
        return None
    return rows.filter(number=int(number)).first()


def _whole(cutover: Cutover) -> dict[str, Any]:
    value = services.status(cutover)
    return {**value, "pk": value["id"], "id": value["number"]}


def _line(cutover: Cutover) -> dict[str, Any]:
    value = services.summary(cutover)
    return {**value, "id": cutover.number}
