"""After a restore: what the fleet knows of a cutover is adopted, never undone (PROTOCOL P4)."""

import json
from typing import Any

import pytest

from cutover import services
from cutover.models import Cutover
from tests.cutover.builders import NEW_RANGES, OLD_RANGES, Scene, make_checked, make_started, step, take_to
from units import publishing, restore
from units.models import EdgeNode, Namespace, Snapshot, UnitType

State = Cutover.State


class Backup:
    """The rows of a namespace as they were; `restore` makes them so again while the fleet has gone on."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.version, self.epoch = self._numbers()
        self.cutovers = list(Cutover.objects.filter(namespace=scene.namespace).values())

    def _numbers(self) -> tuple[int, int]:
        row = Namespace.objects.get(pk=self.scene.namespace.pk)
        return row.version, row.epoch

    def restore(self) -> bytes:
        """The body that the fleet obeys, which the database has forgotten now."""
        namespace = self.scene.namespace
        body: str = Snapshot.objects.filter(namespace=namespace).order_by("-version")[0].body
        document = json.loads(body)
        Snapshot.objects.filter(namespace=namespace, version__gt=self.version)._raw_delete("default")
        Namespace.objects.filter(pk=namespace.pk).update(version=self.version, epoch=self.epoch)
        from cutover.models import Check, CutoverEvent, ProgressSample

        kept = [row["id"] for row in self.cutovers]
        for model in (Check, CutoverEvent, ProgressSample):
            model.objects.exclude(cutover__in=kept)._raw_delete("default")
        Cutover.objects.exclude(pk__in=kept)._raw_delete("default")
        for row in self.cutovers:
            Cutover.objects.filter(pk=row["id"]).update(**{k: v for k, v in row.items() if k != "id"})
        for node in EdgeNode.objects.filter(namespace=namespace):
            EdgeNode.objects.filter(pk=node.pk).update(
                applied_version=self.version,
                applied_epoch=self.epoch,
                drained_epoch=0,
                reported_version=document["version"],
                reported_epoch=document["rule"]["epoch"],
                reported_digest="unknown here",
            )
        return body.encode()


def resume(scene: Scene, body: bytes) -> None:
    restore.resume(scene.namespace, actor="op", body=body)
    scene.namespace.refresh_from_db()


@pytest.fixture(autouse=True)
def _the_oracle_has_forgotten_too(_judged_by_the_oracle: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The publish that adopts copies what the fleet has; it is no step that the oracle could judge."""
    from tests.cutover import conftest

    judged = conftest.check_publish

    def but_not_the_adoption(namespace: Any, before: Any, rule: Any) -> None:
        if before is None or rule is None or rule["epoch"] == namespace.epoch + 1:
            judged(namespace, before, rule)

    monkeypatch.setattr(conftest, "check_publish", but_not_the_adoption)


@pytest.mark.parametrize("phase", [State.FREEZE, State.ACTIVATE])
def test_a_cutover_whose_later_steps_were_forgotten_goes_on_where_the_fleet_is(
    scene: Scene, phase: str
) -> None:
    cutover = make_started(scene)
    backup = Backup(scene)
    take_to(scene, cutover, phase)
    body = backup.restore()
    cutover.refresh_from_db()
    assert cutover.state == State.PREPARE
    resume(scene, body)
    cutover.refresh_from_db()
    assert (cutover.state, cutover.epoch) == (phase, scene.rule()["epoch"])
    take_to(scene, cutover, State.DONE)
    assert scene.ranges() == NEW_RANGES


@pytest.mark.parametrize("known", ["checked", "first batch"])
def test_a_forgotten_step_of_a_later_batch_is_adopted_with_its_batch(scene: Scene, known: str) -> None:
    cutover = make_checked(scene)
    services.set_pacing(cutover, {"steps": [10, 50], "gate": {"reconnect": None}}, "op")
    backup = Backup(scene)
    services.start(cutover, "op", scene.namespace.name)
    take_to(scene, cutover, State.RELEASE)
    if known == "first batch":
        backup = Backup(scene)
    for _ in range(8):
        if (cutover.batch, cutover.state) == (1, State.FREEZE):
            break
        step(scene, cutover)
    resume(scene, backup.restore())
    cutover.refresh_from_db()
    assert (cutover.state, cutover.batch, cutover.turns) == (State.FREEZE, 1, 0)
    assert len(cutover.plan["batches"]) == 3
    take_to(scene, cutover, State.DONE)
    assert scene.ranges() == NEW_RANGES


def test_a_cutover_that_was_forgotten_altogether_is_made_anew_and_goes_on(scene: Scene) -> None:
    backup = Backup(scene)
    take_to(scene, make_started(scene), State.ACTIVATE)
    resume(scene, backup.restore())
    cutover = Cutover.objects.get(namespace=scene.namespace)
    assert (cutover.state, cutover.created_by) == (State.ACTIVATE, "after_restore")
    assert cutover.old_rule["ranges"] == OLD_RANGES
    services.turn_around(cutover, "op", "after all")
    take_to(scene, cutover, State.ABORTED)
    assert scene.ranges() == OLD_RANGES


def test_a_forgotten_freeze_of_a_turn_around_never_aborts(scene: Scene) -> None:
    from tests.cutover.builders import grow_old

    backup = Backup(scene)
    first = make_started(scene)
    take_to(scene, first, State.ACTIVATE)
    services.turn_around(first, "op", "back")
    resume(scene, backup.restore())
    cutover = Cutover.objects.get(namespace=scene.namespace)
    grow_old(cutover, 60)
    assert services.advance(cutover.pk) == State.FREEZE
    take_to(scene, cutover, State.DONE)
    assert scene.ranges() == OLD_RANGES


@pytest.mark.parametrize(("ending", "ranges"), [(State.DONE, NEW_RANGES), (State.ABORTED, OLD_RANGES)])
def test_a_cutover_that_ended_after_the_backup_has_ended(
    scene: Scene, ending: str, ranges: dict[str, list[str]]
) -> None:
    cutover = make_started(scene)
    backup = Backup(scene)
    if ending == State.ABORTED:
        services.abort(cutover, "op", "no")
    take_to(scene, cutover, ending)
    resume(scene, backup.restore())
    cutover.refresh_from_db()
    assert cutover.state == ending
    assert "database was restored" in cutover.outcome
    assert scene.ranges() == ranges


def test_the_number_of_another_cutover_is_not_mistaken_for_the_forgotten_one(scene: Scene) -> None:
    other = make_checked(scene, {"center": ["0~99"], "unbj": ["100~9999"]})
    backup = Backup(scene)
    take_to(scene, make_started(scene), State.FREEZE)
    body = backup.restore()
    document = json.loads(body)
    document["rule"]["cutover"]["id"] = str(other.pk)
    from msha.steering.snapshot import canonical

    resume(scene, canonical(document))
    other.refresh_from_db()
    assert other.state == State.CHECKED
    assert Cutover.objects.get(namespace=scene.namespace, state=State.FREEZE).pk != other.pk


def test_the_saved_rule_follows_a_rule_that_the_fleet_got_without_the_console(scene: Scene) -> None:
    """A break-glass file moves ids with no cutover; nobody has asked for the old rule, so it is no draft."""
    document = json.loads(publishing.newest(scene.namespace.pk).body)  # type: ignore[union-attr]
    document["version"] += 5
    rule = document["rule"]
    rule["epoch"] += 1
    rule["unit_types"][0]["ranges"] = NEW_RANGES
    body = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    for node in EdgeNode.objects.filter(namespace=scene.namespace):
        EdgeNode.objects.filter(pk=node.pk).update(
            reported_version=document["version"], reported_epoch=rule["epoch"], reported_digest="not here"
        )

    resume(scene, body)

    assert scene.ranges() == NEW_RANGES
    saved = UnitType.objects.get(namespace=scene.namespace)
    assert saved.ranges == NEW_RANGES
    assert not Cutover.objects.filter(namespace=scene.namespace).exists()
