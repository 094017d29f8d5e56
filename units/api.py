"""The API of the platform: namespaces, versions, edge nodes, sessions, audit."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Field, Query, Router, Schema

from msha.steering.diff import Change, compare, document_text
from units import enrolment, messages
from units.access import NotFound, namespace_for, require
from units.errors import Refused
from units.models import AuditEvent, Cluster, EdgeNode, Namespace, Snapshot, Unit

router = Router(tags=["platform"])

PAGE = 200


class NamespaceOut(Schema):
    name: str
    uuid: str
    title: str
    key_min: int
    key_max: int
    version: int
    epoch: int
    publishing_stopped: str


class Namespaces(Schema):
    namespaces: list[NamespaceOut]


class VersionOut(Schema):
    version: int
    digest: str
    epoch: int
    kind: str
    author: str
    comment: str
    created: datetime


class Versions(Schema):
    namespace: str
    versions: list[VersionOut]


class VersionDocument(VersionOut):
    document: dict[str, Any]
    text: str


class VersionDiff(Schema):
    before: int
    after: int
    lines: list[str]


class NodeOut(Schema):
    name: str
    unit: str
    cluster: str
    state: str
    live: bool
    in_sync: bool
    connected: bool
    listening: bool
    parked: bool
    draining: bool
    address: str
    software: str
    workers: int
    applied_version: int
    applied_epoch: int
    enrolment: int
    sessions: int
    half_open: int
    clock_skew_ms: int
    nack_version: int
    nack_reason: str
    status_at: datetime | None


class Nodes(Schema):
    namespace: str
    version: int
    nodes: list[NodeOut]


class NodeIn(Schema):
    name: str
    unit: str
    cluster: str = ""


class RegisteredNode(NodeIn):
    namespace: str
    token: str


class NodeSessions(Schema):
    node: str
    live: bool
    sessions: int
    half_open: int


class UnitSessions(Schema):
    unit: str
    name: str
    center: bool
    sessions: int
    nodes: list[NodeSessions]


class Sessions(Schema):
    namespace: str
    total: int
    units: list[UnitSessions]


class MessageIn(Schema):
    text: str = Field(description="At most 16 KiB of UTF-8; sessions get it as one text message.")
    unit_type: str = Field("", description="Default: the namespace's default unit type.")
    ids: list[int] = Field([], description="As the rule knows them, after the transforms.")
    ranges: list[str] = Field([], description="As 0~99.")
    all: bool = Field(False, description="Every session of the unit type, also those without a routerId.")


class NodeTold(Schema):
    node: str
    unit: str
    reached: bool
    delivered: int
    queued: int
    skipped: dict[str, int]
    problem: str


class MessageSent(Schema):
    namespace: str
    to: str
    delivered: int
    queued: int
    skipped: dict[str, int]
    nodes: list[NodeTold]


class AuditOut(Schema):
    id: int
    at: datetime
    actor: str
    action: str
    target: str
    before: Any = None
    after: Any = None
    reason: str


class Audit(Schema):
    namespace: str
    events: list[AuditOut]


@router.get("/namespaces", response=Namespaces, summary="All namespaces")
def namespaces(request: HttpRequest) -> dict[str, Any]:
    require(request.user, "units.view_namespace")
    return {"namespaces": [_namespace(row) for row in Namespace.objects.all()]}


@router.get("/namespaces/{namespace}", response=NamespaceOut, summary="One namespace")
def namespace(request: HttpRequest, namespace: str) -> dict[str, Any]:
    return _namespace(namespace_for(request, namespace))


@router.get("/namespaces/{namespace}/versions", response=Versions, summary="Published versions, newest first")
def versions(
    request: HttpRequest, namespace: str, before: int | None = None, limit: int = Query(50, ge=1, le=PAGE)
) -> dict[str, Any]:
    row = namespace_for(request, namespace, "units.view_snapshot")
    rows = Snapshot.objects.filter(namespace=row).order_by("-version").defer("body")
    if before is not None:
        rows = rows.filter(version__lt=before)
    return {"namespace": row.name, "versions": [_version(snapshot) for snapshot in rows[:limit]]}


@router.get(
    "/namespaces/{namespace}/versions/{int:version}", response=VersionDocument, summary="One version, whole"
)
def version(request: HttpRequest, namespace: str, version: int) -> dict[str, Any]:
    snapshot = snapshot_for(request, namespace, version)
    document = json.loads(snapshot.body)
    return {**_version(snapshot), "document": document, "text": document_text(document)}


@router.get(
    "/namespaces/{namespace}/versions/{int:before}/diff/{int:after}",
    response=VersionDiff,
    summary="Two versions compared, as the lines of a diff",
)
def version_diff(request: HttpRequest, namespace: str, before: int, after: int) -> dict[str, Any]:
    texts = [
        document_text(json.loads(snapshot_for(request, namespace, number).body)) for number in (before, after)
    ]
    sign = {Change.SAME: " ", Change.REMOVED: "-", Change.ADDED: "+"}
    lines = [f"{sign[line.change]}{line.text}" for line in compare(*texts)]
    return {"before": before, "after": after, "lines": lines}


@router.get("/namespaces/{namespace}/nodes", response=Nodes, summary="Edge nodes as they report themselves")
def nodes(request: HttpRequest, namespace: str) -> dict[str, Any]:
    row = namespace_for(request, namespace, "units.view_edgenode")
    found = EdgeNode.objects.filter(namespace=row).select_related("unit", "cluster")
    return {"namespace": row.name, "version": row.version, "nodes": [_node(node) for node in found]}


@router.post(
    "/namespaces/{namespace}/nodes",
    response=RegisteredNode,
    summary="Register an edge node; its token is told this once",
)
def register_node(request: HttpRequest, namespace: str, body: NodeIn) -> dict[str, Any]:
    row = namespace_for(request, namespace, "units.view_edgenode", "units.add_edgenode")
    unit = Unit.objects.filter(namespace=row, code=body.unit).first()
    if unit is None:
        raise NotFound(f"Namespace {row.name} has no unit {body.unit}.")
    cluster = Cluster.objects.filter(namespace=row, name=body.cluster).first() if body.cluster else None
    if body.cluster and cluster is None:
        raise NotFound(f"Namespace {row.name} has no cluster {body.cluster}.")
    try:
        node, token = enrolment.register(unit, body.name, actor=request.user, cluster=cluster)
    except ValidationError as error:
        raise Refused(" ".join(error.messages)) from error
    return {"namespace": row.name, "name": node.name, **body.dict(exclude={"name"}), "token": token.text}


@router.get(
    "/namespaces/{namespace}/sessions", response=Sessions, summary="Open sessions by unit and edge node"
)
def sessions(request: HttpRequest, namespace: str) -> dict[str, Any]:
    row = namespace_for(request, namespace, "units.view_edgenode")
    found = Unit.objects.filter(namespace=row).order_by("position", "code").prefetch_related("edgenodes")
    units = [_unit_sessions(unit) for unit in found]
    return {"namespace": row.name, "total": sum(unit["sessions"] for unit in units), "units": units}


@router.post(
    "/namespaces/{namespace}/messages",
    response=MessageSent,
    summary="Send a text to open sessions, at most once",
)
def send_message(request: HttpRequest, namespace: str, body: MessageIn) -> dict[str, Any]:
    """Name either ids, or ranges, or all. Sessions that open later do not get it."""
    row = namespace_for(request, namespace, "units.send_message")
    to = messages.addressees(row, body.unit_type, ids=body.ids, ranges=body.ranges, everybody=body.all)
    sent = messages.send(row, to, body.text, request.user)
    return {
        "namespace": row.name,
        "to": str(to),
        "delivered": sent.delivered,
        "queued": sent.queued,
        "skipped": sent.skipped,
        "nodes": [asdict(told) for told in sent.nodes],
    }


@router.get("/namespaces/{namespace}/audit", response=Audit, summary="Who did what, newest first")
def audit(
    request: HttpRequest,
    namespace: str,
    action: str = "",
    actor: str = "",
    before: int | None = None,
    limit: int = Query(50, ge=1, le=PAGE),
) -> dict[str, Any]:
    row = namespace_for(request, namespace, "units.view_auditevent")
    events = AuditEvent.objects.filter(namespace=row).order_by("-pk")
    if action:
        events = events.filter(action__startswith=action)
    if actor:
        events = events.filter(actor=actor)
    if before is not None:
        events = events.filter(pk__lt=before)
    return {"namespace": row.name, "events": [_event(event) for event in events[:limit]]}


def snapshot_for(request: HttpRequest, namespace: str, version: int) -> Snapshot:
    """The published version, for a user who may look at it.

    Raises:
        Forbidden, NotFound.
    """
    row = namespace_for(request, namespace, "units.view_snapshot")
    snapshot = Snapshot.objects.filter(namespace=row, version=version).first()
    if snapshot is None:
        raise NotFound(f"Namespace {row.name} has no version {version}; the newest is {row.version}.")
    return snapshot


def _namespace(row: Namespace) -> dict[str, Any]:
    return {
        "name": row.name,
        "uuid": str(row.uuid),
        "title": row.title,
        "key_min": row.key_min,
        "key_max": row.key_max,
        "version": row.version,
        "epoch": row.epoch,
        "publishing_stopped": row.publishing_stopped,
    }


def _version(snapshot: Snapshot) -> dict[str, Any]:
    names = ("version", "digest", "epoch", "kind", "author", "comment", "created")
    return {name: getattr(snapshot, name) for name in names}


def _node(node: EdgeNode) -> dict[str, Any]:
    named = {"unit": node.unit.code, "cluster": node.cluster.name if node.cluster else ""}
    names = [name for name in NodeOut.model_fields if name not in named]
    return {**named, **{name: getattr(node, name) for name in names}}


def _unit_sessions(unit: Unit) -> dict[str, Any]:
    """What the unit's nodes hold; a node that is not live has said nothing lately and counts for nothing."""
    rows: list[dict[str, Any]] = [
        {
            "node": node.name,
            "live": node.live,
            "sessions": node.sessions if node.live else 0,
            "half_open": node.half_open if node.live else 0,
        }
        for node in unit.edgenodes.all()
    ]
    return {
        "unit": unit.code,
        "name": unit.name,
        "center": unit.is_center,
        "sessions": sum(row["sessions"] for row in rows),
        "nodes": rows,
    }


def _event(event: AuditEvent) -> dict[str, Any]:
    names = ("id", "at", "actor", "action", "target", "before", "after", "reason")
    return {name: getattr(event, name) for name in names}
