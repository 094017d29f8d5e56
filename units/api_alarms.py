"""The API of alarms and of whom webhooks tell of them."""

from datetime import datetime
from typing import Any

from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext
from ninja import Query, Router, Schema

from units import alarm_calls, alarm_targets, alarms
from units.access import NotFound, namespace_for, require
from units.models import Alarm, AlarmDelivery, AlarmTarget, Namespace

router = Router(tags=["alarms"])

PAGE = 200


class AlarmOut(Schema):
    id: int
    kind: str
    subject: str
    sentence: str
    raised_at: datetime
    cleared_at: datetime | None


class Alarms(Schema):
    namespace: str
    alarms: list[AlarmOut]


class DeliveryOut(Schema):
    id: str
    event: str
    state: str
    calls: int
    answer: str
    created: datetime
    next_at: datetime
    finished: datetime | None


class TargetOut(Schema):
    name: str
    namespace: str
    url: str
    enabled: bool
    waiting: int
    last: DeliveryOut | None


class Targets(Schema):
    targets: list[TargetOut]


class TargetIn(Schema):
    name: str
    url: str
    secret: str
    namespace: str = ""
    enabled: bool = True


class TargetChange(Schema):
    url: str | None = None
    secret: str | None = None
    enabled: bool | None = None


class Tested(DeliveryOut):
    target: str
    delivered: bool


@router.get("/namespaces/{namespace}/alarms", response=Alarms, summary="Alarms, newest first")
def list_alarms(
    request: HttpRequest, namespace: str, raised: bool = True, limit: int = Query(50, ge=1, le=PAGE)
) -> dict[str, Any]:
    """Those that are not over; with ``raised=false`` all."""
    row = namespace_for(request, namespace, "units.view_alarm")
    rows = Alarm.objects.filter(namespace=row).order_by("-raised_at", "-pk")
    if raised:
        rows = rows.filter(cleared_at=None)
    return {"namespace": row.name, "alarms": [_alarm(alarm) for alarm in rows[:limit]]}


@router.get("/alarm-targets", response=Targets, summary="Whom webhooks tell of alarms")
def targets(request: HttpRequest, namespace: str = "") -> dict[str, Any]:
    """All, or those that are told of a namespace's alarms."""
    require(request.user, "units.view_alarmtarget")
    rows = AlarmTarget.objects.select_related("namespace")
    if namespace:
        rows = rows.filter(Q(namespace=None) | Q(namespace=namespace_for(request, namespace)))
    return {"targets": [_target(row) for row in rows]}


@router.post("/alarm-targets", response=TargetOut, summary="Add an alarm target")
def add_target(request: HttpRequest, body: TargetIn) -> dict[str, Any]:
    require(request.user, "units.add_alarmtarget")
    namespace: Namespace | None = namespace_for(request, body.namespace) if body.namespace else None
    row = AlarmTarget(**{**body.dict(), "namespace": namespace})
    alarm_targets.save(row, actor=request.user)
    return _target(row)


@router.patch("/alarm-targets/{name}", response=TargetOut, summary="Change an alarm target")
def change_target(request: HttpRequest, name: str, body: TargetChange) -> dict[str, Any]:
    row = _found(request, name, "units.change_alarmtarget")
    for key, value in body.dict(exclude_none=True).items():
        setattr(row, key, value)
    alarm_targets.save(row, actor=request.user)
    return _target(row)


@router.delete("/alarm-targets/{name}", response=Targets, summary="Remove an alarm target")
def remove_target(request: HttpRequest, name: str) -> dict[str, Any]:
    row = _found(request, name, "units.delete_alarmtarget")
    alarm_targets.remove(row, actor=request.user)
    return {"targets": [_target(other) for other in AlarmTarget.objects.select_related("namespace")]}


@router.post("/alarm-targets/{name}/test", response=Tested, summary="Send a test to an alarm target, once")
def test_target(request: HttpRequest, name: str) -> dict[str, Any]:
    row = _found(request, name, "units.change_alarmtarget")
    delivery = alarm_calls.test(row)
    delivered = delivery.state == AlarmDelivery.State.DELIVERED
    return {"target": row.name, "delivered": delivered, **_delivery(delivery)}


def _found(request: HttpRequest, name: str, permission: str) -> AlarmTarget:
    require(request.user, "units.view_alarmtarget", permission)
    row = AlarmTarget.objects.select_related("namespace").filter(name=name).first()
    if row is None:
        known = ", ".join(AlarmTarget.objects.values_list("name", flat=True)[:10])
        raise NotFound(
            gettext("There is no alarm target %(name)s; there is %(known)s.")
            % {"name": name, "known": known or gettext("none")}
        )
    return row


def _alarm(alarm: Alarm) -> dict[str, Any]:
    names = ("id", "kind", "subject", "raised_at", "cleared_at")
    return {**{name: getattr(alarm, name) for name in names}, "sentence": alarms.said(alarm)}


def _target(target: AlarmTarget) -> dict[str, Any]:
    last = alarm_targets.last_told(target)
    waiting = target.deliveries.filter(state=AlarmDelivery.State.PENDING).count()
    return {
        **alarm_targets.value(target),
        "waiting": waiting,
        "last": None if last is None else _delivery(last),
    }


def _delivery(delivery: AlarmDelivery) -> dict[str, Any]:
    names = ("event", "state", "calls", "answer", "created", "next_at", "finished")
    return {"id": str(delivery.pk), **{name: getattr(delivery, name) for name in names}}
