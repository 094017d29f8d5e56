"""The API of safety rules, of overriding them, and of approvals."""

from dataclasses import asdict
from typing import Any

from django.http import HttpRequest
from ninja import Field, Router, Schema

from cutover import services
from cutover.api import CHANGE, VIEW, CutoverOut, ReasonIn, _whole, cutover_for
from cutover.models import BlockedWindow
from cutover.safety import assessing, stored
from units.access import namespace_for

router = Router(tags=["safety"])

APPROVE = "cutover.approve_cutover"
OVERRIDE = "cutover.override_safety"
#: Windows are part of the rules: who changes these may add and remove those.
EDIT = ("cutover.change_safetyrules", "cutover.add_safetyrules")


class WindowOut(Schema):
    day: int = Field(
        BlockedWindow.Day.EVERY_DAY, description="Of the beginning; 0 is Monday, 7 is every day."
    )
    begins: str = Field(description="Wall time, as 22:30.")
    ends: str = Field(description="Wall time; on the next day if it is not later.")
    time_zone: str = Field("UTC", description="As Asia/Shanghai.")
    note: str = ""


class RulesOut(Schema):
    """The safety rules of a namespace; null limits nothing."""

    namespace: str
    min_share_percent: int | None
    max_ids: int | None
    max_sessions: int | None
    quiet_s: int | None
    approval: bool
    blocked_windows: list[WindowOut]


class RulesIn(Schema):
    """What is left out stays as it is."""

    min_share_percent: int | None = Field(None, description="A unit that loses ids keeps at least so much.")
    max_ids: int | None = None
    max_sessions: int | None = None
    quiet_s: int | None = Field(
        None, description="After the end of a cutover no other one begins for so long."
    )
    approval: bool = False
    blocked_windows: list[WindowOut] = []
    reason: str = ""


class OverrideIn(Schema):
    rules: list[str] = Field(description='Names of rules, or "all" for whatever keeps it from starting.')
    reason: str = ""


class CommentIn(Schema):
    comment: str = ""


class ApproveIn(Schema):
    comment: str = ""
    seen: str = Field("", description="approval.digest of what was looked at; another one now refuses.")


class FindingsOut(Schema):
    id: int
    number: int
    findings: list[dict[str, Any]]
    overrides: list[dict[str, Any]]


@router.get("/namespaces/{namespace}/safety", response=RulesOut, summary="The safety rules")
def rules(request: HttpRequest, namespace: str) -> dict[str, Any]:
    row = namespace_for(request, namespace, "cutover.view_safetyrules")
    return {"namespace": row.name, **stored.value(row)}


@router.put("/namespaces/{namespace}/safety", response=RulesOut, summary="Change the safety rules")
def change_rules(request: HttpRequest, namespace: str, body: RulesIn) -> dict[str, Any]:
    row = namespace_for(request, namespace, *EDIT)
    asked = body.dict(exclude_unset=True)
    reason = asked.pop("reason", "")
    return {"namespace": row.name, **stored.save(row, asked, str(request.user), reason)}


@router.get(
    "/namespaces/{namespace}/cutovers/{number}/safety",
    response=FindingsOut,
    summary="What the safety rules say about a cutover now",
)
def findings(request: HttpRequest, namespace: str, number: str) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, VIEW)
    return {
        "id": found.number,
        "number": found.number,
        "findings": [asdict(one) for one in assessing.shown(found)],
        "overrides": assessing.told(found),
    }


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/override",
    response=CutoverOut,
    summary="Override safety rules, with a reason",
)
def override(request: HttpRequest, namespace: str, number: str, body: OverrideIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, OVERRIDE)
    services.override(found, body.rules, str(request.user), body.reason)
    return _whole(found)


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/request-approval",
    response=CutoverOut,
    summary="Ask somebody else to approve",
)
def request_approval(request: HttpRequest, namespace: str, number: str, body: CommentIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, CHANGE)
    return _whole(services.request_approval(found, str(request.user), body.comment))


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/approve",
    response=CutoverOut,
    summary="Approve the cutover of somebody else",
)
def approve(request: HttpRequest, namespace: str, number: str, body: ApproveIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, APPROVE)
    return _whole(services.approve(found, str(request.user), body.comment, body.seen))


@router.post(
    "/namespaces/{namespace}/cutovers/{number}/withdraw-approval",
    response=CutoverOut,
    summary="Take an approval back",
)
def withdraw_approval(request: HttpRequest, namespace: str, number: str, body: ReasonIn) -> dict[str, Any]:
    found = cutover_for(request, namespace, number, APPROVE)
    return _whole(services.withdraw_approval(found, str(request.user), body.reason))
