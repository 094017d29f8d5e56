"""The API of hooks: set them up, try them out, see their calls, skip one that does not come to its end."""

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext
from ninja import Field, Router, Schema

from cutover import services
from cutover.api import SKIP, CutoverOut, ReasonIn, _whole, cutover_for
from cutover.hooks import editing, shown, trying
from cutover.models import Hook
from units.access import NotFound, namespace_for

router = Router(tags=["hooks"])

VIEW, ADD, CHANGE, DELETE = (f"cutover.{act}_hook" for act in ("view", "add", "change", "delete"))


class HookIn(Schema):
    name: str
    moment: str = Field(description="before_freeze, at_freeze, before_activate or after_release.")
    url: str
    secret: str = Field(description="At least 16 characters; never shown again.")
    must_succeed: bool = True
    timeout_s: int = Field(5, description="For one call; at most 8.")
    deadline_s: int = Field(30, description="In all, with retries.")
    enabled: bool = True


class HookChange(Schema):
    moment: str | None = None
    url: str | None = None
    secret: str | None = Field(None, description="Left out: it stays.")
    must_succeed: bool | None = None
    timeout_s: int | None = None
    deadline_s: int | None = None
    enabled: bool | None = None


class HookOut(Schema):
    name: str
    moment: str
    url: str
    must_succeed: bool
    timeout_s: int
    deadline_s: int
    enabled: bool


class Hooks(Schema):
    namespace: str
    hooks: list[HookOut]


class Removed(Schema):
    removed: str


class TriedOut(Schema):
    hook: str
    ok: bool = Field(description="It said yes, or not yet.")
    verdict: str = Field(description="yes, not_yet, again or no.")
    sentence: str
    status: int | None
    text: str
    ms: int | None
    sent: dict[str, Any]


class CallOut(Schema):
    id: int
    key: str
    name: str
    moment: str
    moment_title: str
    outcome: str
    batch: int
    turns: int
    direction: str
    epoch: int
    must_succeed: bool
    state: str
    state_title: str
    stuck: bool
    calls: int
    answer: str
    sentence: str
    started: datetime | None
    finished: datetime | None
    next_at: datetime | None
    deadline: datetime | None
    ms: int | None
    skippable: bool
    skip_means: str
    skipped_by: str
    skip_reason: str


class Calls(Schema):
    number: int
    calls: list[CallOut]


@router.get("/namespaces/{namespace}/hooks", response=Hooks, summary="The hooks of a namespace")
def hooks(request: HttpRequest, namespace: str) -> dict[str, Any]:
    row = namespace_for(request, namespace, VIEW)
    return {"namespace": row.name, "hooks": [shown.hook(hook) for hook in Hook.objects.filter(namespace=row)]}


@router.post("/namespaces/{namespace}/hooks", response=HookOut, summary="Add a hook; five at most")
def add(request: HttpRequest, namespace: str, body: HookIn) -> dict[str, Any]:
    row = namespace_for(request, namespace, ADD)
    return shown.hook(editing.save(Hook(namespace=row, **body.dict()), actor=request.user))


@router.patch("/namespaces/{namespace}/hooks/{name}", response=HookOut, summary="Change a hook")
def change(request: HttpRequest, namespace: str, name: str, body: HookChange) -> dict[str, Any]:
    hook = _hook(request, namespace, name, CHANGE)
    for field, value in body.dict(exclude_none=True).items():
        setattr(hook, field, value)
    return shown.hook(editing.save(hook, actor=request.user))


@router.delete("/namespaces/{namespace}/hooks/{name}", response=Removed, summary="Delete a hook")
def remove(request: HttpRequest, namespace: str, name: str) -> dict[str, Any]:
    hook = _hook(request, namespace, name, DELETE)
    editing.remove(hook, actor=request.user)
    return {"removed": name}


@router.post(
    "/namespaces/{namespace}/hooks/{name}/test",
    response=TriedOut,
    summary="Call a hook once in practice, and say what it answered",
)
def try_out(request: HttpRequest, namespace: str, name: str) -> dict[str, Any]:
    hook = _hook(request, namespace, name, CHANGE)
    tried = trying.try_out(hook, actor=request.user)
    return {
        "hook": hook.name,
        "ok": tried.ok,
        "verdict": tried.verdict,
        "sentence": tried.sentence,
        "status": tried.facts.get("status"),
        "text": tried.facts.get("text", ""),
        "ms": tried.facts.get("ms"),
        "sent": tried.body,
    }


@router.get(
    "/namespaces/{namespace}/cutovers/{number}/hooks",
    response=Calls,
    summary="The calls of a cutover: where each stands, and what was answered",
)
def calls(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    cutover = cutover_for(request, namespace, number)
    return {"number": cutover.number, "calls": shown.calls(cutover)}


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/hooks/{name}/skip",
    response=CutoverOut,
    summary="Wait no longer for a hook's open calls, with a reason",
)
def skip(request: HttpRequest, namespace: str, number: str, name: str, body: ReasonIn) -> dict[str, Any]:
    cutover = cutover_for(request, namespace, number, SKIP)
    return _whole(services.skip_hook(cutover, name, str(request.user), body.reason))


def _hook(request: HttpRequest, namespace: str, name: str, *permissions: str) -> Hook:
    row = namespace_for(request, namespace, VIEW, *permissions)
    found = Hook.objects.filter(namespace=row, name=name).select_related("namespace").first()
    if found is None:
        known = ", ".join(Hook.objects.filter(namespace=row).values_list("name", flat=True))
        raise NotFound(
            gettext("Namespace %(namespace)s has no hook %(name)s; there is %(known)s.")
            % {"namespace": row.name, "name": name[:60], "known": known or gettext("none")}
        )
    return found
