"""A cutover under whatever nodes, operators, jobs and clocks may do, on the database of the environment.

Hypothesis chooses what happens next; the rows, the locks, the services and the tasks are the real ones.
Around them stand edges as the protocol wants them: each obeys the snapshot that it has, says so late, twice
or never, and keeps its sessions until a snapshot takes them away. Whether two units ever serve one id is
judged from those edges, and knows nothing of cutovers.

Run as ``python -m tests.cutover.machine`` by `test_machine`, on an empty database.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import django

IDS = (0, 5000, 5997, 5998, 6100, 6380, 6381, 9999)
TABLES = (
    {"center": ["0~6380"], "unbj": ["6381~9999"]},
    {"center": ["0~5997"], "unbj": ["5998~9999"]},
    {"center": ["0~4999", "9000~9999"], "unbj": ["5000~8999"]},
    {"unbj": ["0~9999"]},
)
DIVISIONS: tuple[list[int], ...] = ([], [10], [1, 50])
STEPS = 60


@dataclass
class Edge:
    """One edge node as it is, whatever the console thinks of it.

    Attributes:
        obeys: the snapshot that its workers have; None while it is enrolled anew.
        sessions: ids with an open tunnel.
        said: acks and drains that it has sent at some time; each may arrive again.
        up: whether its process runs; one that was declared dead or has left never does again.
    """

    name: str
    unit: str
    obeys: Any
    sessions: set[int] = field(default_factory=set)
    said: list[tuple[str, Any]] = field(default_factory=list)
    up: bool = True
    gone: bool = False


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "msha.settings")
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis.stateful import run_state_machine_as_test

    began, seen = time.monotonic(), Counter[str]()
    run_state_machine_as_test(
        _machine(seen),
        settings=settings(
            max_examples=int(os.environ.get("MACHINE_EXAMPLES", "12")),
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize="MACHINE_SEED" not in os.environ,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] if "MACHINE_MUTATION" in os.environ else [Phase.generate, Phase.shrink],
        ),
    )
    seen["seconds"] = round(time.monotonic() - began)
    sys.stdout.write(json.dumps(seen) + "\n")


def _machine(seen: Counter[str]) -> Any:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

    from cutover import driving, jobs, previews, services
    from cutover.errors import Refused
    from cutover.models import Cutover
    from msha.steering import phases
    from msha.steering.decision import Tunnel, decide
    from msha.steering.errors import MshaError
    from msha.steering.router_id import Request
    from msha.steering.snapshot import load
    from tests.cutover.builders import Scene, grow_old, make_scene, pass_checks, without_second_look
    from tests.cutover.oracle import Broken, check_publish
    from tests.units.builders import publish_config
    from units import publishing
    from units.models import Snapshot

    previews.COUNT_DEADLINE_S = 0.01
    without_second_look()
    if os.environ.get("MACHINE_MUTATION") == "live_only":
        harmless = phases._harmless
        phases._harmless = lambda node, epoch: not node.live or harmless(node, epoch)
    append = publishing.append
    broken: list[str] = []

    def judged(namespace: Any, before: Any, change: Any, **options: Any) -> Any:
        try:
            check_publish(namespace, before, change.rule)
        except Broken as error:  # whoever drives logs it and goes on; the machine must not
            broken.append(str(error))
            raise
        return append(namespace, before, change, **options)

    publishing.append = judged

    @cache
    def accepted(namespace: str, digest: str, unit: str) -> frozenset[int]:
        """The ids that a node with this snapshot serves."""
        body = Snapshot.objects.filter(namespace__name=namespace, digest=digest).first().body  # type: ignore[union-attr]
        snapshot = load(body.encode())
        served = (
            router_id
            for router_id in IDS
            if isinstance(
                decide(
                    snapshot,
                    unit,
                    Request.of("websocket.localhost", "/", {"routerId": str(router_id)}),
                ),
                Tunnel,
            )
        )
        return frozenset(served)

    class CutoverMachine(RuleBasedStateMachine):
        edges: dict[str, Edge]
        scene: Scene

        @initialize(table=st.sampled_from(TABLES), steps=st.sampled_from(DIVISIONS), emergency=st.booleans())
        def begin(self, table: Any, steps: list[int], emergency: bool) -> None:
            self.scene = make_scene(per_unit=2)
            self.edges = {
                name: Edge(name, speaker.row.unit.code, speaker.newest())
                for name, speaker in self.scene.nodes.items()
            }
            self.work: list[Callable[[], object]] = []
            jobs.in_background = self.work.append  # type: ignore[assignment]
            seen["examples"] += 1
            broken.clear()
            self.start(table, steps, emergency=emergency)

        # -- what edges do

        def serves(self, edge: Edge) -> frozenset[int]:
            if edge.obeys is None:
                return frozenset()
            return accepted(self.scene.namespace.name, edge.obeys.digest, edge.unit)

        def edge(self, number: int) -> Edge:
            return list(self.edges.values())[number % len(self.edges)]

        @rule(number=st.integers(0, 3))
        def obeys_the_newest(self, number: int) -> None:
            edge, speaker = self.edge(number), self.scene[self.edge(number).name]
            if edge.up and edge.obeys is not None and speaker.row.connected:
                edge.obeys = speaker.newest()
                edge.sessions &= self.serves(edge)
                edge.said.append(("ack", (edge.obeys, speaker.row.enrolment)))

        @rule(number=st.integers(0, 3), which=st.integers(0, 9))
        def is_heard(self, number: int, which: int) -> None:
            """Something that the edge said arrives: the last word, or an old one once more."""
            edge, speaker = self.edge(number), self.scene[self.edge(number).name]
            if not edge.said or not speaker.row.connected:
                return
            kind, (snapshot, enrolment) = edge.said[-1 if which < 6 else which % len(edge.said)]
            if kind == "ack":
                speaker.ack(snapshot, enrolment=enrolment)
            else:
                speaker.drained(snapshot.epoch, enrolment)

        @rule(number=st.integers(0, 3))
        def says_drained(self, number: int) -> None:
            """As an edge does once no session of a frozen id is left; `obeys_the_newest` closes them."""
            edge, speaker = self.edge(number), self.scene[self.edge(number).name]
            if edge.up and edge.obeys is not None:
                edge.said.append(("drained", (edge.obeys, speaker.row.enrolment)))

        @rule(number=st.integers(0, 3), router_id=st.sampled_from(IDS))
        def serves_a_client(self, number: int, router_id: int) -> None:
            edge = self.edge(number)
            if edge.up and router_id in self.serves(edge):
                edge.sessions.add(router_id)

        @rule(number=st.integers(0, 3))
        def loses_its_stream(self, number: int) -> None:
            self.scene[self.edge(number).name].disconnect()

        @rule(number=st.integers(0, 3))
        def dials_again(self, number: int) -> None:
            edge, speaker = self.edge(number), self.scene[self.edge(number).name]
            if edge.up and not speaker.row.connected and edge.obeys is not None:
                speaker.greet()

        @rule(number=st.integers(0, 3))
        def dies(self, number: int) -> None:
            edge = self.edge(number)
            edge.up, edge.sessions = False, set()
            self.scene[edge.name].disconnect()

        @rule(number=st.integers(0, 3))
        def starts_from_its_disk(self, number: int) -> None:
            edge = self.edge(number)
            edge.up = edge.up or not edge.gone

        @rule(number=st.integers(0, 3))
        def leaves(self, number: int) -> None:
            edge = self.edge(number)
            others = [one for one in self.edges.values() if one.unit == edge.unit and not one.gone]
            if edge.up and len(others) > 1 and self.scene[edge.name].row.connected:
                edge.up, edge.gone, edge.sessions = False, True, set()
                self.scene[edge.name].leave()

        @rule(number=st.integers(0, 3))
        def is_declared_dead(self, number: int) -> None:
            """Truthfully: it was fenced, and never starts again."""
            edge = self.edge(number)
            others = [one for one in self.edges.values() if one.unit == edge.unit and not one.gone]
            if not edge.up and not edge.gone and len(others) > 1:
                edge.gone = True
                self.scene[edge.name].declare_dead()

        # -- what operators and jobs do

        @property
        def running(self) -> Cutover | None:
            return Cutover.objects.filter(namespace=self.scene.namespace, state__in=Cutover.ACTIVE).first()

        @rule(table=st.sampled_from(TABLES), steps=st.sampled_from(DIVISIONS), emergency=st.booleans())
        def an_operator_starts(self, table: Any, steps: list[int], emergency: bool) -> None:
            self.start(table, steps, emergency=emergency)

        def start(self, table: Any, steps: list[int], *, emergency: bool) -> None:
            try:
                cutover = services.create_draft(self.scene.namespace, "unit_type", ranges=table, actor="op")
                services.set_pacing(cutover, {"steps": steps, "bake_s": 0} if steps else {}, "op")
                services.preview(cutover, "op")
                pass_checks(cutover)
                if emergency:
                    Cutover.objects.filter(pk=cutover.pk).update(mode=Cutover.Mode.EMERGENCY)
                services.start(cutover, "op", self.scene.namespace.name)
                seen["started"] += 1
            except MshaError:
                seen["refused"] += 1

        @precondition(lambda self: hasattr(self, "scene") and self.running)
        @rule(
            name=st.sampled_from(
                [
                    "abort",
                    "turn_around",
                    "roll_back",
                    "stop_here",
                    "finish_with_stragglers",
                    "pause",
                    "resume",
                ]
            )
        )
        def an_operator_acts(self, name: str) -> None:
            cutover = self.running
            assert cutover is not None
            try:
                getattr(services, name)(cutover, "op", "why not")
                seen[name] += 1
            except Refused:
                seen["refused"] += 1

        @rule(which=st.integers(0, 20))
        def a_job_is_done(self, which: int) -> None:
            """Late, perhaps long after everything that it was for; and perhaps for the second time."""
            if self.work:
                work = self.work[which % len(self.work)]
                if which % 3:
                    self.work.remove(work)
                work()

        @rule()
        def somebody_looks(self) -> None:
            driving.look_at_everything()

        @precondition(lambda self: hasattr(self, "scene") and self.running)
        @rule()
        def a_deadline_passes(self) -> None:
            cutover = self.running
            assert cutover is not None
            grow_old(cutover, 11)
            services.advance(cutover.pk)

        @rule()
        def something_is_put_into_effect(self) -> None:
            publish_config(self.scene.namespace)

        @rule()
        def everybody_does_what_is_asked(self) -> None:
            """So that cutovers come to their end between all that goes wrong."""
            for edge in self.edges.values():
                if edge.up:
                    self._obey_and_report(edge)
            driving.look_at_everything()

        def _obey_and_report(self, edge: Edge) -> None:
            speaker = self.scene[edge.name]
            if not speaker.row.enrolled or edge.obeys is None:
                return
            if not speaker.row.connected:
                speaker.greet()
            edge.obeys = speaker.newest()
            edge.sessions &= self.serves(edge)
            speaker.status()
            speaker.ack(edge.obeys)
            speaker.drained(edge.obeys.epoch)

        # -- what must hold

        @invariant()
        def no_id_is_served_twice(self) -> None:
            """I1 and I2, as the edges are and not as the rows say."""
            assert not broken, broken
            if not hasattr(self, "scene"):
                return
            for router_id in IDS:
                serving = {edge.unit for edge in self.edges.values() if router_id in edge.sessions}
                assert len(serving) <= 1, f"I1: {router_id} is served by {serving}"
                willing = {e.unit for e in self.edges.values() if e.up and router_id in self.serves(e)}
                assert len(willing) <= 1, f"I2: {router_id} is accepted by {willing}"

        @invariant()
        def versions_and_cutovers_are_single(self) -> None:
            if not hasattr(self, "scene"):
                return
            rows = Snapshot.objects.filter(namespace=self.scene.namespace).order_by("version")
            versions = list(rows.values_list("version", flat=True))
            assert versions == list(range(1, len(versions) + 1)), versions
            active = Cutover.objects.filter(namespace=self.scene.namespace, state__in=Cutover.ACTIVE)
            assert active.count() <= 1

        def teardown(self) -> None:
            """When nothing goes wrong any more, every cutover comes to its end, and every edge agrees."""
            if not hasattr(self, "scene"):
                return
            for edge in self.edges.values():
                edge.up = not edge.gone
            for _ in range(60):
                self.everybody_does_what_is_asked()
                self.no_id_is_served_twice()
                cutover = self.running
                if cutover is None:
                    break
                if cutover.paused:
                    services.resume(cutover, "op", "all is well")
            assert self.running is None, services.status(self.running)["waiting"]
            self.everybody_does_what_is_asked()
            alive = [edge for edge in self.edges.values() if edge.up]
            for router_id in IDS:
                owners = {edge.unit for edge in alive if router_id in self.serves(edge)}
                assert len(owners) == 1, f"{router_id} belongs to {owners}"
            for state in Cutover.objects.filter(namespace=self.scene.namespace).values_list(
                "state", flat=True
            ):
                seen[f"ended {state}"] += 1

    return CutoverMachine


if __name__ == "__main__":
    main()
