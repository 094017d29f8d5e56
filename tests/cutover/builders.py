"""A namespace with two units whose nodes speak through the control stream's own functions, not a network.

Each `Speaker` is one edge node as the console sees it: what it acks, drains and reports is stored by the same
conditional UPDATEs that a real stream uses.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from cutover import checking, holds, services
from cutover.checks import second_look
from cutover.models import Check, Cutover
from msha.steering import wire
from tests.units.builders import a_config, a_hello, a_rule, a_status, make_cluster, make_namespace, make_unit
from units import enrolment, publishing, reports
from units.models import EdgeNode, Namespace, Snapshot, UnitType
from units.publishing import Change

OLD_RANGES = {"center": ["0~5997"], "unbj": ["5998~9999"]}
NEW_RANGES = {"center": ["0~6380"], "unbj": ["6381~9999"]}
MOVED_COUNT = 383


@dataclass
class Speaker:
    """One enrolled edge node."""

    pk: int
    connection: str = "c1"

    @property
    def row(self) -> EdgeNode:
        """The node as it is stored now."""
        return EdgeNode.objects.select_related("unit").get(pk=self.pk)

    def newest(self) -> Snapshot:
        """The version it should have."""
        found = publishing.newest(self.row.namespace_id)
        assert found is not None
        return found

    def ack(self, snapshot: Snapshot | None = None, **changed: Any) -> bool:
        """It obeys the version (the newest)."""
        row, snapshot = self.row, snapshot or self.newest()
        values = {
            "enrolment": row.enrolment,
            "version": snapshot.version,
            "digest": snapshot.digest,
            "epoch": snapshot.epoch,
            **changed,
        }
        return reports.ack(self.pk, row.namespace_id, wire.Ack(**values))

    def drained(self, epoch: int | None = None, enrolment_number: int | None = None) -> bool:
        """Nothing frozen is left."""
        row = self.row
        number = row.enrolment if enrolment_number is None else enrolment_number
        epoch = self.newest().epoch if epoch is None else epoch
        return reports.drained(self.pk, row.namespace_id, wire.Drained(number, epoch))

    def workers_exited(self, epoch: int | None = None) -> bool:
        """No worker process is left, with the newest version on disk."""
        row = self.row
        epoch = self.newest().epoch if epoch is None else epoch
        return reports.workers_exited(self.pk, row.namespace_id, wire.WorkersExited(row.enrolment, epoch))

    def status(self, **fields: Any) -> None:
        """It says what it has."""
        row = self.row
        said = a_status(
            row.enrolment, row.applied_version, row.applied_digest, epoch=row.applied_epoch, **fields
        )
        reports.status(self.pk, row.namespace_id, self.connection, said)

    def disconnect(self) -> None:
        """Its stream is lost; it stays enrolled."""
        enrolment.disconnected(self.pk, self.connection)

    def leave(self) -> None:
        """It leaves for good."""
        enrolment.left(self.pk, self.row.enrolment)

    def greet(self) -> None:
        """It has dialled again, and says what it has."""
        self.connection = f"{self.connection}+"
        enrolment.greet(self.pk, a_hello(instance=self.row.instance), self.connection)
        self.status()

    def rejoin(self) -> None:
        """It is enrolled anew and handed the newest version."""
        enrolment.greet(self.pk, a_hello(instance=self.row.instance), "c2")
        self.connection = "c2"
        assert enrolment.join(self.pk, "c2") is not None
        self.status()

    def declare_dead(self) -> None:
        """An operator says that it cannot start again."""
        enrolment.declare_dead(self.row, actor="op", typed_name=self.row.name, reason="fenced")


@dataclass
class Scene:
    """A published namespace, its nodes by name, and a rule in effect: center 0~5997, unbj 5998~9999."""

    namespace: Namespace
    nodes: dict[str, Speaker]

    def __getitem__(self, name: str) -> Speaker:
        return self.nodes[name]

    def all_ack(self, *but: str) -> None:
        """Every node (but these) obeys the newest version."""
        newest = self.nodes[next(iter(self.nodes))].newest()
        for name, node in self.nodes.items():
            if name not in but and node.row.enrolled:
                node.ack(newest)

    def rule(self) -> dict[str, Any]:
        """The rule part in effect."""
        document = publishing.in_effect(self.namespace)
        assert document is not None
        rule: dict[str, Any] = document["rule"]
        return rule

    def ranges(self) -> dict[str, list[str]]:
        """The ranges in effect."""
        ranges: dict[str, list[str]] = self.rule()["unit_types"][0]["ranges"]
        return ranges

    def published(self) -> int:
        """How many versions there are."""
        return Snapshot.objects.filter(namespace=self.namespace).count()


def without_second_look() -> None:
    """Ids are frozen as soon as the gates allow it: no node answers probes in this process."""
    holds.HOLDERS[:] = [one for one in holds.HOLDERS if one is not second_look.looked]


def make_scene(*, per_unit: int = 1, codes: tuple[str, ...] = ("center", "unbj")) -> Scene:
    """A namespace with `per_unit` live, enrolled, current nodes in each unit; center and unbj own the ids."""
    namespace = make_namespace()
    rule = a_rule()
    UnitType.objects.create(
        namespace=namespace,
        **rule["unit_types"][0],
    )
    units = [make_unit(namespace, code) for code in codes]
    clusters = [make_cluster(unit) for unit in units]
    publishing.publish(
        namespace.pk, author="test", compute=lambda _namespace, _newest: Change(a_config(*codes), rule)
    )
    nodes = {}
    for unit, cluster in zip(units, clusters, strict=True):
        for number in range(1, per_unit + 1):
            name = f"{unit.code}-{number}"
            node, _token = enrolment.register(unit, f"{namespace.name}-{name}", actor="test", cluster=cluster)
            enrolment.greet(node.pk, a_hello(), "c1")
            assert enrolment.join(node.pk, "c1") is not None
            speaker = Speaker(node.pk)
            speaker.ack()
            speaker.status()
            nodes[name] = speaker
    namespace.refresh_from_db()
    return Scene(namespace, nodes)


def make_draft(scene: Scene, ranges: dict[str, list[str]] | None = None, **options: Any) -> Cutover:
    return services.create_draft(
        scene.namespace, "unit_type", ranges=ranges or NEW_RANGES, actor="op", **options
    )


def make_checked(scene: Scene, ranges: dict[str, list[str]] | None = None) -> Cutover:
    """A cutover whose preview is current and whose checks have passed."""
    cutover = make_draft(scene, ranges)
    services.preview(cutover, "op")
    pass_checks(cutover)
    return cutover


def pass_checks(cutover: Cutover) -> None:
    """All checks have passed, on the test's word."""
    services.run_prechecks(cutover, "op")
    Check.objects.filter(cutover=cutover).update(state=Check.State.PASSED, reason="said the test")
    checking._settle(cutover.pk)
    cutover.refresh_from_db()


def make_started(
    scene: Scene, ranges: dict[str, list[str]] | None = None, *, advance: bool = True
) -> Cutover:
    """A cutover that has published PREPARE, or is about to."""
    cutover = services.start(make_checked(scene, ranges), "op", scene.namespace.name)
    if advance:
        services.advance(cutover.pk)
    cutover.refresh_from_db()
    return cutover


def take_to(scene: Scene, cutover: Cutover, state: str) -> None:
    """The nodes do what is asked of them until the cutover is in this state."""
    for _ in range(20):
        cutover.refresh_from_db()
        if cutover.state == state:
            return
        step(scene, cutover)
    raise AssertionError(f"{cutover} is {cutover.state}, not {state}")


def step(scene: Scene, cutover: Cutover) -> str:
    """Every node does what the running step asks of it; the state that follows."""
    newest = scene.nodes[next(iter(scene.nodes))].newest()
    epoch = newest.epoch
    for node in scene.nodes.values():
        if node.row.connected:
            node.status()
        if node.row.enrolled:
            node.ack(newest)
            if cutover.state == Cutover.State.FREEZE:
                node.drained(epoch)
    state = services.advance(cutover.pk)
    cutover.refresh_from_db()
    return state


def grow_old(cutover: Cutover, seconds: float) -> None:
    """The running step began so long ago."""
    began = timezone.now() - timedelta(seconds=seconds)
    Cutover.objects.filter(pk=cutover.pk).update(phase_at=began)
    cutover.refresh_from_db()
