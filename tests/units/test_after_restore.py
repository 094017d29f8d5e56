import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from msha.steering import snapshot as steering
from tests.units.builders import (
    a_hello,
    a_published_namespace,
    a_rule,
    a_status,
    an_enrolled_node,
    publish_config,
)
from units import enrolment, publishing, reports
from units.errors import PublishingStopped
from units.models import Alarm, EdgeNode, Namespace, Snapshot
from units.signals import rule_adopted

pytestmark = pytest.mark.django_db


@pytest.fixture
def node() -> EdgeNode:
    return an_enrolled_node(a_published_namespace().units.get(code="unbj"), instance="same")


def forgotten(namespace: Namespace, version: int, rule: dict[str, Any] | None = None) -> steering.Published:
    """A version that the fleet has and the database, restored from an older backup, has not."""
    document = publishing.in_effect(namespace)
    assert document is not None
    return steering.build(
        str(namespace.uuid), namespace.name, version, document["config"], rule or document["rule"]
    )


def report(node: EdgeNode, published: steering.Published) -> None:
    epoch = published.document["rule"]["epoch"]
    status = a_status(1, published.version, published.digest, epoch=epoch)
    reports.status(node.pk, node.namespace_id, "c1", status)


def test_publishing_stays_stopped_until_every_enrolled_node_has_reported(node: EdgeNode) -> None:
    with pytest.raises(CommandError, match=node.name):
        call_command("after_restore")
    with pytest.raises(PublishingStopped):
        publish_config(node.namespace)


def test_the_version_rises_above_the_fleets_highest(node: EdgeNode) -> None:
    report(node, forgotten(node.namespace, 9))
    assert Namespace.objects.get().publishing_stopped
    call_command("after_restore")
    snapshot = publishing.newest(node.namespace_id)
    assert snapshot is not None
    assert snapshot.version == 10
    assert not Namespace.objects.get().publishing_stopped
    assert not Alarm.objects.filter(cleared_at=None).exists()
    assert publish_config(node.namespace).version == 11


def test_nothing_is_published_when_the_database_has_forgotten_nothing(node: EdgeNode) -> None:
    first = Snapshot.objects.get()
    reports.status(node.pk, node.namespace_id, "c1", a_status(1, 1, first.digest))
    call_command("after_restore", namespace=node.namespace.name)
    assert Snapshot.objects.get() == first


def test_a_rule_that_is_ahead_is_adopted_and_not_aborted(node: EdgeNode, tmp_path: Path) -> None:
    rule = a_rule(4, center="0~6380", unbj="6381~9999")
    rule["cutover"] = {
        "id": "7",
        "unit_type": "unit_type",
        "phase": "activate",
        "both": False,
        "moved": [[5998, 6380, "unbj", "center"]],
    }
    ahead = forgotten(node.namespace, 9, rule)
    report(node, ahead)
    with pytest.raises(CommandError, match=r"--snapshot FILE"):
        call_command("after_restore", namespace=node.namespace.name)

    file = tmp_path / "snapshot.json"
    file.write_bytes(ahead.body)
    adopted: list[dict[str, Any]] = []

    def adopt(rule: dict[str, Any], **_: object) -> None:
        adopted.append(rule)

    rule_adopted.connect(adopt)
    call_command("after_restore", namespace=node.namespace.name, snapshot=file)
    snapshot = publishing.newest(node.namespace_id)
    assert snapshot is not None
    assert (snapshot.version, snapshot.epoch) == (10, 4)
    assert steering.canonical(json.loads(snapshot.body)["rule"]) == steering.canonical(rule)
    assert adopted == [rule]
    assert Namespace.objects.get().epoch == 4


def test_a_snapshot_of_another_namespace_or_an_older_rule_is_refused(node: EdgeNode, tmp_path: Path) -> None:
    report(node, forgotten(node.namespace, 9, a_rule(4)))
    older = tmp_path / "older.json"
    older.write_bytes(forgotten(node.namespace, 8, a_rule(3)).body)
    with pytest.raises(CommandError, match="furthest ahead"):
        call_command("after_restore", namespace=node.namespace.name, snapshot=older)
    other = tmp_path / "other.json"
    document = json.loads(Snapshot.objects.get().body)
    document["namespace_id"] = "00000000-0000-0000-0000-000000000000"
    other.write_bytes(steering.canonical(document))
    with pytest.raises(CommandError, match="is of namespace"):
        call_command("after_restore", namespace=node.namespace.name, snapshot=other)


def test_an_enrolment_that_the_database_has_forgotten_counts_again(node: EdgeNode) -> None:
    EdgeNode.objects.update(state=EdgeNode.State.REGISTERED, enrolment=0)  # as the older backup has it
    enrolment.greet(node.pk, a_hello(instance="same", enrolment=3, version=9, digest="f" * 64), "c2")
    now = EdgeNode.objects.get()
    assert (now.state, now.enrolment) == (EdgeNode.State.ENROLLED, 3)
    assert Namespace.objects.get().publishing_stopped


@pytest.mark.parametrize(("left", "counts"), [(None, True), (1, False)])
def test_an_enrolment_forgotten_without_any_version_counts_unless_it_has_ended(
    node: EdgeNode, left: int | None, counts: bool
) -> None:
    EdgeNode.objects.update(state=EdgeNode.State.REGISTERED, enrolment=0)  # it was enrolled after the backup
    known = publishing.newest(node.namespace_id)
    assert known is not None
    hello = a_hello(instance="same", enrolment=1, left=left, version=known.version, digest=known.digest)
    enrolment.greet(node.pk, hello, "c2")
    assert (EdgeNode.objects.get().state == EdgeNode.State.ENROLLED) is counts
    assert bool(Namespace.objects.get().publishing_stopped) is counts
