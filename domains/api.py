"""The API of the topology: export, compare, apply, put into effect, and where a routerId goes."""

from dataclasses import asdict
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext
from ninja import Field, Router, Schema

from domains import routes, services, topology
from domains.errors import Misplaced
from domains.permissions import require_for, view
from msha.steering.diff import Change
from msha.steering.topology import Difference
from units.access import namespace_for, require
from units.models import Namespace

router = Router(tags=["topology"])


class DifferenceOut(Schema):
    act: str
    kind: str
    name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    details: list[str]


class TopologyIn(Schema):
    topology: str = Field(description="The text of a topology file.")
    namespace: str = Field("", description="Refuse if the file is about another namespace.")


class ApplyIn(TopologyIn):
    base: str | None = Field(None, description="From the comparison; refuse if something was saved since.")
    put_into_effect: bool = Field(False, description="Also publish it, in the same transaction.")
    comment: str = ""


class PlanOut(Schema):
    namespace: str
    base: str
    differences: list[DifferenceOut]
    sentences: list[str]
    unpublished: list[str] = Field(description="What is saved already and not in effect.")


class DraftOut(Schema):
    number: int
    url: str


class OutcomeOut(Schema):
    namespace: str
    version: int
    published: bool
    drafts: list[DraftOut]
    sentences: list[str]


class AppliedOut(OutcomeOut):
    differences: list[DifferenceOut]


class ExportOut(Schema):
    namespace: str
    topology: dict[str, Any]
    text: str


class RuleOut(Schema):
    unit_type: str
    sentence: str
    moved: list[list[int | str]] | None


class ChangesOut(Schema):
    namespace: str
    version: int
    seen: str
    pending: bool
    sentences: list[str]
    lines: list[str]
    rules: list[RuleOut]
    obstacles: list[str]


class EffectIn(Schema):
    comment: str = ""
    expected_version: int | None = Field(None, description="Refuse if another version is in effect by now.")
    seen: str | None = Field(None, description="From the changes; refuse if others would come into effect.")


class DecisionOut(Schema):
    unit: str
    decision: str
    reason: str
    status: int
    location: str
    to: str
    servers: list[str]
    sentence: str


class RouteOut(Schema):
    version: int
    host: str
    path: str
    unit_type: str
    given: str
    router_id: int | None
    unit: str
    decision: str
    reason: str
    decisions: list[DecisionOut]
    refused: bool = Field(description="Whether the edges of every unit refuse it.")


@router.get("/namespaces/{namespace}/topology", response=ExportOut, summary="What is saved, as a file")
def export(request: HttpRequest, namespace: str) -> dict[str, Any]:
    row = namespace_for(request, namespace, *view())
    return {"namespace": row.name, "topology": topology.export(row), "text": topology.export_text(row)}


@router.post("/topology/diff", response=PlanOut, summary="What applying a topology file would change")
def diff(request: HttpRequest, body: TopologyIn) -> dict[str, Any]:
    require(request.user, "units.view_namespace", *view())
    plan = topology.plan(_parsed(body))
    return {
        "namespace": plan.topology.namespace,
        "base": plan.base,
        "differences": [_difference(change) for change in plan.differences],
        "sentences": plan.sentences,
        "unpublished": plan.unpublished,
    }


@router.post("/topology/apply", response=AppliedOut, summary="Save a topology file, and put it into effect")
def apply(request: HttpRequest, body: ApplyIn) -> dict[str, Any]:
    require(request.user, "units.view_namespace", *view())
    wanted = _parsed(body)
    if body.put_into_effect:
        require(request.user, "units.publish")
    applied = topology.apply(
        wanted,
        request.user,
        base=body.base,
        allow=lambda change: require_for(request.user, change),
        effect=body.put_into_effect,
        comment=body.comment,
    )
    row = Namespace.objects.get(name=wanted.namespace)
    outcome = applied.outcome or services.Outcome(None)
    return {
        **_outcome(row, outcome),
        "differences": [_difference(change) for change in applied.differences],
    }


@router.get("/namespaces/{namespace}/changes", response=ChangesOut, summary="What is saved and not in effect")
def changes(request: HttpRequest, namespace: str) -> dict[str, Any]:
    row = namespace_for(request, namespace, *view())
    unpublished = services.unpublished_changes(row)
    sign = {Change.SAME: " ", Change.REMOVED: "-", Change.ADDED: "+"}
    return {
        "namespace": row.name,
        "version": unpublished.version,
        "seen": unpublished.seen,
        "pending": not unpublished.nothing,
        "sentences": unpublished.sentences(),
        "lines": [f"{sign[line.change]}{line.text}" for line in unpublished.lines()],
        "rules": [
            {
                "unit_type": rule.name,
                "sentence": str(rule),
                "moved": None if rule.moved is None else rule.moved.as_lists(),
            }
            for rule in unpublished.rules
        ],
        "obstacles": unpublished.obstacles,
    }


@router.post("/namespaces/{namespace}/put-into-effect", response=OutcomeOut, summary="Publish what is saved")
def put_into_effect(request: HttpRequest, namespace: str, body: EffectIn) -> dict[str, Any]:
    row = namespace_for(request, namespace, *view(), "units.publish")
    outcome = services.put_into_effect(
        row, request.user, body.comment, expected_version=body.expected_version, seen=body.seen
    )
    return _outcome(row, outcome)


@router.get("/namespaces/{namespace}/route", response=RouteOut, summary="Where a routerId goes, and why")
def route(
    request: HttpRequest,
    namespace: str,
    router_id: str = "",
    unit_type: str = "",
    host: str = "",
    path: str = "",
) -> dict[str, Any]:
    row = namespace_for(request, namespace, "domains.view_domain")
    snapshot = routes.in_effect(row)
    return asdict(routes.route(snapshot, router_id, unit_type=unit_type, host=host, path=path))


def _parsed(body: TopologyIn) -> Any:
    wanted = topology.parse(body.topology)
    if body.namespace and body.namespace != wanted.namespace:
        raise Misplaced(
            gettext("The file is about namespace %(file)s, not %(asked)s.")
            % {"file": wanted.namespace, "asked": body.namespace},
            "namespace",
        )
    return wanted


def _difference(change: Difference) -> dict[str, Any]:
    return {**asdict(change), "details": change.details()}


def _outcome(namespace: Namespace, outcome: services.Outcome) -> dict[str, Any]:
    return {
        "namespace": namespace.name,
        "version": namespace.version,
        "published": outcome.snapshot is not None,
        "drafts": [asdict(draft) for draft in outcome.drafts],
        "sentences": list(outcome.sentences),
    }
