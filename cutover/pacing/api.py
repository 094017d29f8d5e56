"""The API of pacing, of emergency mode, and of what each act would do."""

from typing import Any

from django.http import HttpRequest
from ninja import Field, Router, Schema

from cutover import services
from cutover.api import CHANGE, START, CutoverOut, _whole, cutover_for
from cutover.consequences import consequences
from cutover.emergency import PERMISSION as EMERGENCY

router = Router(tags=["cutovers"])

DECLARE_DEAD = "units.declare_dead"


class PacingIn(Schema):
    """How a cutover is divided; nothing at all is everything at once."""

    steps: list[float] = Field([], description="Cumulative percents of the moved ids, as [1, 10, 50].")
    ids: int = Field(0, description="Ids per step, instead of percents.")
    bake_s: float = Field(0, description="How long a step is left alone before the next, in seconds.")
    gate: dict[str, float | None] = Field(
        {},
        description="Limits by name: refused, back_source, reconnect (shares), stragglers (number), retry_s;"
        " null is not looked at.",
    )
    on_failure: str = Field("pause", description="What a failing gate does: pause, or undo.")
    sessions_per_s: float = Field(0, description="Most sessions that one losing unit closes per second.")
    interval_s: float | None = Field(None, description="What a batch of a paced drain is sized for.")

    def asked(self) -> dict[str, Any]:
        """As the service takes it; {} where nothing was said."""
        said = self.dict(exclude_unset=True)
        if "gate" in said:
            said["gate"] = {name: _plain(name, value) for name, value in said["gate"].items()}
        return {name: value for name, value in said.items() if value is not None}


def _plain(name: str, value: float | None) -> float | None:
    """JSON knows one kind of number, the gate two."""
    whole_number = name == "stragglers" and value is not None and value == int(value)
    return int(value) if whole_number and value is not None else value


class ModeIn(Schema):
    mode: str = Field(description="planned or emergency.")
    reason: str = ""
    namespace: str = Field("", description="The namespace's name again, as a confirmation.")


class DeclareDeadIn(Schema):
    unit: str
    typed: str = Field("", description="The code of the unit again, as a confirmation.")
    reason: str = ""
    fencing: str = Field("", description="How it was made sure that none of the nodes starts again.")
    nodes: list[str] | None = Field(
        None, description="Those that were listed to you; default: all silent ones."
    )


class DeclaredOut(Schema):
    declared: list[str]
    cutover: CutoverOut


@router.put(
    "/namespaces/{namespace}/cutovers/{number}/pacing",
    response=CutoverOut,
    summary="Divide a draft into batches",
)
def pacing(request: HttpRequest, namespace: str, number: str, body: PacingIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, CHANGE)
    return _whole(services.set_pacing(found, body.asked(), str(request.user)))


@router.get(
    "/namespaces/{namespace}/cutovers/{number}/consequences",
    response=dict[str, str],
    summary="What each act that is possible now would do",
)
def told(request: HttpRequest, namespace: str, number: str) -> dict[str, str]:
    return consequences(cutover_for(request, namespace, number))


@router.put(
    "/namespaces/{namespace}/cutovers/{number}/mode",
    response=CutoverOut,
    summary="Switch to emergency, or back to planned",
)
def mode(request: HttpRequest, namespace: str, number: str, body: ModeIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, START, EMERGENCY)
    return _whole(services.set_mode(found, body.mode, str(request.user), body.reason, body.namespace))


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/declare-dead",
    response=DeclaredOut,
    summary="Declare the silent nodes of a losing unit dead",
)
def declare_dead(request: HttpRequest, namespace: str, number: str, body: DeclareDeadIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, START, EMERGENCY, DECLARE_DEAD)
    declared = services.declare_unit_dead(
        found,
        body.unit,
        actor=str(request.user),
        typed=body.typed,
        reason=body.reason,
        fencing=body.fencing,
        names=body.nodes,
    )
    return {"declared": list(declared), "cutover": _whole(found)}
