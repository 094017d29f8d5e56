"""Rows and documents for tests; each call says only what the test is about."""

import itertools
import uuid
from typing import Any

from django.utils import timezone

from msha.steering import wire
from units import enrolment, publishing
from units.models import Cluster, EdgeNode, Namespace, Snapshot, Unit
from units.publishing import Change
from units.tokens import Token

_numbers = itertools.count(1)


def make_namespace(name: str = "") -> Namespace:
    return Namespace.objects.create(name=name or f"space-{next(_numbers)}", default_unit_type="unit_type")


def make_unit(namespace: Namespace, code: str = "center", *, is_center: bool | None = None) -> Unit:
    center = code == "center" if is_center is None else is_center
    return Unit.objects.create(namespace=namespace, code=code, name=code.title(), is_center=center)


def make_cluster(unit: Unit, name: str = "") -> Cluster:
    return Cluster.objects.create(unit=unit, name=name or f"ws-{unit.code}", joined_at=timezone.now())


def make_node(unit: Unit, name: str = "", cluster: Cluster | None = None) -> tuple[EdgeNode, Token]:
    return enrolment.register(
        unit, name or f"edge-{unit.code}-{next(_numbers)}", actor="test", cluster=cluster
    )


def a_config(*codes: str, domains: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    units = codes or ("center", "unbj")
    return {
        "units": [{"code": code, "name": code.title(), "center": code == units[0]} for code in units],
        "clusters": [
            {"name": f"ws-{code}", "unit": code, "protocol": "websocket", "slbs": []} for code in units
        ],
        "domains": [a_domain(*units)] if domains is None else domains,
        "limits": {},
    }


def a_domain(*codes: str, name: str = "websocket.localhost") -> dict[str, Any]:
    return {
        "name": name,
        "protocol": "websocket",
        "dns": "none",
        "multi_unit": True,
        "correction": "redirect",
        "redirect_scheme": "http",
        "ports": dict.fromkeys(codes, 80),
        "clusters": {code: f"ws-{code}" for code in codes},
        "uris": [
            {
                "path": "/",
                "balance": "consistent_hash",
                "back_sources": {code: [f"10.0.{i}.1:80", f"10.0.{i}.2:80"] for i, code in enumerate(codes)},
            }
        ],
    }


def a_rule(epoch: int = 0, center: str = "0~5997", unbj: str = "5998~9999") -> dict[str, Any]:
    return {
        "epoch": epoch,
        "key_space": {"min": 0, "max": 9999},
        "default_unit_type": "unit_type",
        "unit_types": [
            {
                "name": "unit_type",
                "sources": [{"header": "routerId"}],
                "transform": [],
                "untagged": "local",
                "ranges": {"center": [center], "unbj": [unbj]},
                "exact": {},
            }
        ],
        "cutover": None,
    }


def publish_first(namespace: Namespace) -> Snapshot:
    return publishing.publish(
        namespace.pk, author="test", compute=lambda _namespace, _newest: Change(a_config(), a_rule())
    )


def publish_step(namespace: Namespace, **rule: Any) -> Snapshot:
    """A version with a new rule part, as a step of a cutover makes it."""
    return publishing.publish(
        namespace.pk,
        author="test",
        compute=lambda row, _newest: Change(rule=a_rule(row.epoch + 1, **rule)),
    )


def publish_config(namespace: Namespace, *codes: str) -> Snapshot:
    return publishing.publish(
        namespace.pk, author="test", compute=lambda _namespace, _newest: Change(config=a_config(*codes))
    )


def a_published_namespace() -> Namespace:
    """Two units, center and unbj, and version 1."""
    namespace = make_namespace()
    make_unit(namespace, "center")
    make_unit(namespace, "unbj")
    publish_first(namespace)
    namespace.refresh_from_db()
    return namespace


def a_hello(**fields: Any) -> wire.Hello:
    values: dict[str, Any] = {
        "instance": str(uuid.uuid4()),
        "software": "test",
        "address": "127.0.0.1:1",
        "workers": 1,
        "pid": 1,
    }
    return wire.Hello(**{**values, **fields})


def a_status(enrolment: int, version: int = 0, digest: str = "", **fields: Any) -> wire.Status:
    values: dict[str, Any] = {
        "seq": 1,
        "epoch": 0,
        "clock_ms": round(timezone.now().timestamp() * 1000),
        "sessions": 0,
        "half_open": 0,
        "held": 0,
        "workers": 1,
        "listening": True,
        "parked": False,
        "draining": False,
        "in_sync": False,
        "counters": {"connections_limit": 1000},
    }
    return wire.Status(enrolment=enrolment, version=version, digest=digest, **{**values, **fields})


def an_enrolled_node(unit: Unit, **hello: Any) -> EdgeNode:
    """A node that has greeted on connection "c1" and was handed the newest snapshot."""
    node, _ = make_node(unit)
    enrolment.greet(node.pk, a_hello(**hello), "c1")
    assert enrolment.join(node.pk, "c1") is not None
    node.refresh_from_db()
    return node


def an_ack(node: EdgeNode, snapshot: Snapshot, enrolment_number: int | None = None) -> wire.Ack:
    number = node.enrolment if enrolment_number is None else enrolment_number
    return wire.Ack(number, snapshot.version, snapshot.digest, snapshot.epoch)
