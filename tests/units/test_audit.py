import uuid
from datetime import UTC, datetime

import pytest

from tests.units.builders import a_published_namespace, make_namespace
from units import audit
from units.models import AppendOnly, AuditEvent, Snapshot

pytestmark = pytest.mark.django_db


def test_an_event_tells_who_what_before_after_and_why() -> None:
    namespace = make_namespace()
    audit.record(
        "ann",
        "unit.update",
        "center",
        namespace=namespace,
        before={"at": datetime(2026, 1, 2, tzinfo=UTC)},
        after={"id": uuid.UUID(int=1)},
        reason="because",
    )
    event = AuditEvent.objects.get()
    assert (event.actor, event.action, event.target, event.reason) == (
        "ann",
        "unit.update",
        "center",
        "because",
    )
    assert event.before == {"at": "2026-01-02T00:00:00Z"}
    assert event.after == {"id": "00000000-0000-0000-0000-000000000001"}


def test_an_event_can_be_neither_changed_nor_deleted() -> None:
    event = audit.record("ann", "unit.update", "center")
    event.actor = "bob"
    with pytest.raises(AppendOnly):
        event.save()
    with pytest.raises(AppendOnly):
        event.delete()
    with pytest.raises(AppendOnly):
        AuditEvent.objects.update(actor="bob")
    with pytest.raises(AppendOnly):
        AuditEvent.objects.all().delete()
    assert AuditEvent.objects.get().actor == "ann"


def test_a_published_version_can_be_neither_changed_nor_deleted() -> None:
    a_published_namespace()
    snapshot = Snapshot.objects.get()
    snapshot.body = "{}"
    with pytest.raises(AppendOnly):
        snapshot.save()
    with pytest.raises(AppendOnly):
        Snapshot.objects.all().delete()
