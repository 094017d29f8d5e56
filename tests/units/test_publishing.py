import json
from typing import Any

import pytest

from msha.steering import snapshot as steering
from msha.steering.errors import InvalidSnapshot
from tests.units.builders import (
    a_config,
    a_domain,
    a_published_namespace,
    a_rule,
    make_namespace,
    publish_config,
    publish_first,
    publish_step,
)
from units import in_use, publishing
from units.errors import PublishingStopped, Refused, VersionConflict
from units.in_use import InUse, Thing
from units.models import AuditEvent, Namespace, Snapshot
from units.publishing import Change

pytestmark = pytest.mark.django_db


def part(snapshot: Snapshot, name: str) -> bytes:
    """The bytes of one part as they stand in the body."""
    return steering.canonical(json.loads(snapshot.body)[name])


def test_the_first_version_has_both_parts_and_number_one() -> None:
    namespace = make_namespace()
    snapshot = publish_first(namespace)
    assert (snapshot.version, snapshot.epoch, snapshot.kind) == (1, 0, Snapshot.Kind.CONFIG)
    assert steering.load(snapshot.body.encode(), snapshot.digest).namespace_id == str(namespace.uuid)
    assert publishing.newest(namespace) == snapshot


def test_the_first_version_cannot_have_one_part_alone() -> None:
    namespace = make_namespace()
    with pytest.raises(Refused, match="put it into effect first"):
        publish_config(namespace)
    with pytest.raises(Refused, match="put it into effect first"):
        publish_step(namespace)


def test_an_ordinary_publish_copies_the_rule_part_byte_for_byte() -> None:
    namespace = a_published_namespace()
    moved = publish_step(namespace, center="0~6380", unbj="6381~9999")
    ordinary = publish_config(namespace)
    assert ordinary.version == 3
    assert part(ordinary, "rule") == part(moved, "rule")
    assert part(ordinary, "rule") in ordinary.body.encode()
    assert ordinary.epoch == moved.epoch == 1


def test_a_cutover_step_copies_the_config_part_byte_for_byte() -> None:
    namespace = a_published_namespace()
    before = publishing.newest(namespace)
    assert before is not None
    step = publish_step(namespace)
    assert part(step, "config") == part(before, "config")
    assert step.kind == Snapshot.Kind.RULE


def test_content_is_computed_from_what_the_lock_guards() -> None:
    namespace = a_published_namespace()
    seen: list[tuple[int, int]] = []

    def compute(row: Namespace, newest: dict[str, Any] | None) -> Change:
        assert newest is not None
        seen.append((row.version, newest["version"]))
        return Change(config=newest["config"])

    publish_config(namespace)  # somebody else, after the caller last looked
    publishing.publish(namespace.pk, author="test", compute=compute)
    assert seen == [(2, 2)]


def test_content_computed_outside_needs_the_version_it_was_computed_from() -> None:
    namespace = a_published_namespace()
    with pytest.raises(TypeError, match="expected_version"):
        publishing.publish(namespace.pk, author="test", config=a_config())


def test_a_publish_on_top_of_another_version_than_expected_is_refused() -> None:
    namespace = a_published_namespace()
    publish_config(namespace)
    with pytest.raises(VersionConflict, match="is at version 2, not 1"):
        publishing.publish(namespace.pk, author="test", config=a_config(), expected_version=1)
    assert Snapshot.objects.count() == 2


def test_a_step_that_is_not_the_next_epoch_is_refused() -> None:
    namespace = a_published_namespace()
    with pytest.raises(TypeError, match="epoch"):
        publishing.publish(namespace.pk, author="test", rule=a_rule(2), expected_version=1)


def test_both_parts_of_a_published_namespace_are_never_replaced_at_once() -> None:
    namespace = a_published_namespace()
    with pytest.raises(TypeError, match="exactly one part"):
        publishing.publish(namespace.pk, author="test", config=a_config(), rule=a_rule(1), expected_version=1)


def test_what_the_computation_wrote_is_undone_when_the_document_is_invalid() -> None:
    namespace = a_published_namespace()

    def compute(row: Namespace, newest: dict[str, Any] | None) -> Change:
        Namespace.objects.filter(pk=row.pk).update(title="half done")
        return Change(rule=a_rule(1, center="0~5", unbj="7~9999"))

    with pytest.raises(InvalidSnapshot, match="6"):
        publishing.publish(namespace.pk, author="test", compute=compute)
    namespace.refresh_from_db()
    assert (namespace.title, namespace.version) == ("", 1)


def test_nothing_is_published_while_publishing_is_stopped() -> None:
    namespace = a_published_namespace()
    Namespace.objects.update(publishing_stopped="a node is ahead")
    with pytest.raises(PublishingStopped, match="a node is ahead"):
        publish_config(namespace)
    with pytest.raises(PublishingStopped):
        publish_step(namespace)


def test_every_publish_is_in_the_audit_record() -> None:
    namespace = a_published_namespace()
    publish_config(namespace)
    event = AuditEvent.objects.filter(action="snapshot.publish").first()
    assert event is not None
    assert (event.before["version"], event.after["version"]) == (1, 2)


@pytest.fixture
def everything_is_in_use(monkeypatch: pytest.MonkeyPatch) -> list[Thing]:
    asked: list[Thing] = []

    def used(namespace: Namespace, thing: Thing) -> str:
        asked.append(thing)
        return f"The cutover uses {thing}."

    monkeypatch.setattr(in_use, "_checks", [used])
    return asked


def without_unit() -> dict[str, Any]:
    return a_config("center", domains=[a_domain("center")])


def with_moved_cluster() -> dict[str, Any]:
    config = a_config(domains=[a_domain("center")])
    config["clusters"][1]["unit"] = "center"
    return config


def without_domain() -> dict[str, Any]:
    return a_config(domains=[])


def with_fewer_back_sources() -> dict[str, Any]:
    config = a_config()
    config["domains"][0]["uris"][0]["back_sources"]["unbj"] = ["10.0.1.1:80"]
    return config


def without_uri() -> dict[str, Any]:
    config = a_config()
    config["domains"][0]["uris"] = []
    return config


@pytest.mark.parametrize(
    ("config", "thing"),
    [
        (without_unit, "unit unbj"),
        (with_moved_cluster, "cluster ws-unbj"),
        (without_domain, "domain websocket.localhost"),
        (with_fewer_back_sources, "back-source 10.0.1.2:80"),
        (without_uri, "URI websocket.localhost/"),
    ],
)
def test_what_a_running_cutover_uses_cannot_be_published_away(
    config: Any, thing: str, everything_is_in_use: list[Thing]
) -> None:
    namespace = a_published_namespace()
    with pytest.raises(InUse, match=thing):
        publishing.publish(namespace.pk, author="test", config=config(), expected_version=1)
    assert Snapshot.objects.count() == 1


def test_additions_are_published_while_a_cutover_runs(everything_is_in_use: list[Thing]) -> None:
    namespace = a_published_namespace()
    assert publish_config(namespace, "center", "unbj", "unsh").version == 2
    assert everything_is_in_use == []
