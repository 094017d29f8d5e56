import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra.django import TestCase

from domains import services, topology
from domains.errors import Misplaced
from domains.models import BackSources, Domain, DomainUnit, Uri
from domains.saved import topology_of
from msha.steering.topology import Act, Topology
from msha.steering.topology_file import to_yaml
from tests.support.topologies import WALK_THROUGH, topologies
from units.errors import VersionConflict
from units.in_use import InUse
from units.models import AuditEvent, Cluster, EdgeNode, Namespace, Slb, Unit, UnitType

MORE = """  - {name: more, sources: [{query: q}], ranges: {center: ["0~9999"]}}\n"""


class RoundTrips(TestCase):
    """Hypothesis needs a fresh transaction for every example, which its Django test case gives."""

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(topologies())
    def test_applying_what_was_exported_changes_nothing(self, any_topology: Topology) -> None:
        topology.apply(any_topology, "tester")
        namespace = Namespace.objects.get(name=any_topology.namespace)
        assert topology_of(namespace) == any_topology
        events = AuditEvent.objects.count()

        exported = topology.parse(topology.export_text(namespace))
        applied = topology.apply(exported, "tester")

        assert applied.differences == []
        assert AuditEvent.objects.count() == events

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(topologies(), topologies())
    def test_any_topology_can_become_any_other(self, one: Topology, other: Topology) -> None:
        topology.apply(one, "tester")
        applied = topology.apply(other, "tester")
        namespace = Namespace.objects.get(name=other.namespace)
        assert topology_of(namespace) == other
        assert (applied.differences == []) == (one == other)

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(topologies())
    def test_every_topology_can_be_published_and_then_has_no_unpublished_changes(
        self, any_topology: Topology
    ) -> None:
        topology.apply(any_topology, "tester", effect=True)
        namespace = Namespace.objects.get(name=any_topology.namespace)
        assert namespace.version == 1
        assert services.has_unpublished_changes(namespace) == []
        assert services.unpublished_changes(namespace).nothing


def changed(demo: Namespace, old: str, new: str) -> Topology:
    text = topology.export_text(demo)
    assert old in text, text
    return topology.parse(text.replace(old, new))


def test_a_plan_lists_what_would_change_and_changes_nothing(demo: Namespace) -> None:
    plan = topology.plan(changed(demo, "127.0.0.1:9201", "127.0.0.1:9202"))
    assert [str(change) for change in plan.differences] == [
        "~ domain websocket.msha.tech\n    uris./.back_sources.unbj: 127.0.0.1:9201 → 127.0.0.1:9202"
    ]
    assert BackSources.objects.get(unit__code="unbj").servers == "127.0.0.1:9201"


def test_apply_creates_updates_and_deletes(demo: Namespace) -> None:
    wanted = topology.parse(
        WALK_THROUGH.replace("  - {code: unbj, name: 北京单元}", "  - {code: unsz, name: 深圳单元}")
        .replace("unbj", "unsz")
        .replace("ws-bj-2", "ws-sz-1")
    )
    applied = topology.apply(wanted, "tester")
    assert [(c.act, c.kind, c.name) for c in applied.differences] == [
        (Act.CREATE, "unit", "unsz"),
        (Act.CREATE, "cluster", "ws-sz-1"),
        (Act.UPDATE, "unit type", "unit_type"),
        (Act.UPDATE, "domain", "websocket.msha.tech"),
        (Act.DELETE, "cluster", "ws-bj-2"),
        (Act.DELETE, "unit", "unbj"),
    ]
    assert list(Unit.objects.values_list("code", flat=True)) == ["center", "unsz"]
    assert Cluster.objects.get(name="ws-sz-1").joined
    assert DomainUnit.objects.count() == 2


def test_the_center_can_change_places(demo: Namespace) -> None:
    wanted = topology.parse(
        WALK_THROUGH.replace(", center: true", "").replace("北京单元}", "北京单元, center: true}")
    )
    topology.apply(wanted, "tester")
    assert Unit.objects.get(is_center=True).code == "unbj"


def test_every_change_is_audited_with_before_and_after(demo: Namespace) -> None:
    AuditEvent.objects.filter(pk__lt=0)
    topology.apply(changed(demo, "dns: none", "dns: managed"), "olga", comment="ticket 7")
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.actor, event.action, event.target, event.reason) == (
        "olga",
        "domain.update",
        "websocket.msha.tech",
        "ticket 7",
    )
    assert event.before["dns"] == "none"
    assert event.after["dns"] == "managed"


def test_a_failing_apply_leaves_nothing_behind(demo: Namespace) -> None:
    unit = Unit.objects.get(code="unbj")
    EdgeNode.objects.create(
        unit=unit, cluster=Cluster.objects.get(name="ws-bj-2"), name="edge-bj-1", token_hash="x"
    )
    before = topology_of(demo)
    wanted = topology.parse(
        WALK_THROUGH.replace("ws-bj-2", "ws-bj-3").replace("127.0.0.1:9201", "127.0.0.1:9202")
    )
    with pytest.raises(Misplaced, match="ws-bj-2 cannot be removed while it has: edge node edge-bj-1"):
        topology.apply(wanted, "tester")
    assert topology_of(demo) == before


def test_a_cluster_with_nodes_cannot_move_to_another_unit(demo: Namespace) -> None:
    EdgeNode.objects.create(
        unit=Unit.objects.get(code="unbj"),
        cluster=Cluster.objects.get(name="ws-bj-2"),
        name="edge-bj-1",
        token_hash="x",
    )
    text = WALK_THROUGH.replace("clusters: {center: ws-hz-2, unbj: ws-bj-2}", "clusters: {center: ws-bj-2}")
    wanted = topology.parse(text.replace("ws-bj-2, unit: unbj", "ws-bj-2, unit: center"))
    with pytest.raises(Misplaced, match="a node never changes its unit"):
        topology.apply(wanted, "tester")


def test_what_was_saved_since_the_plan_refuses_it(demo: Namespace) -> None:
    wanted = changed(demo, "127.0.0.1:9201", "127.0.0.1:9202")
    base = topology.plan(wanted).base
    Namespace.objects.filter(pk=demo.pk).update(title="changed meanwhile")
    with pytest.raises(VersionConflict, match="Compare again"):
        topology.apply(wanted, "tester", base=base)
    topology.apply(wanted, "tester", base=topology.plan(wanted).base)
    assert BackSources.objects.get(unit__code="unbj").servers == "127.0.0.1:9202"


def test_slbs_are_attached_by_name_and_unknown_ones_refused(demo: Namespace) -> None:
    unit = Unit.objects.get(code="center")
    Slb.objects.create(unit=unit, name="lb-1", address="10.0.0.1", external_id="lb-1")
    with_slb = topology.parse(WALK_THROUGH.replace("slbs: []", "slbs: [lb-1]"))
    topology.apply(with_slb, "tester")
    assert Slb.objects.get().cluster == Cluster.objects.get(name="ws-hz-2")
    assert topology_of(demo) == with_slb
    topology.apply(topology.parse(WALK_THROUGH), "tester")
    assert Slb.objects.get().cluster is None
    with pytest.raises(Misplaced, match="SLB lb-9 is not among those of unit center"):
        topology.apply(topology.parse(WALK_THROUGH.replace("slbs: []", "slbs: [lb-9]")), "tester")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("max: 9999}", "max: 9998}", "router_id: is 0~9999 and cannot become 0~9998"),
        (
            "clusters:\n",
            f"{MORE}clusters:\n",
            "unit_types: more cannot be added",
        ),
        (
            "clusters:\n",
            f"{MORE}default_unit_type: more\nclusters:\n",
            "default_unit_type: is unit_type and cannot become more",
        ),
    ],
)
def test_what_the_first_publish_fixed_is_refused(
    published: Namespace, old: str, new: str, complaint: str
) -> None:
    text = WALK_THROUGH.replace(old, new).replace("5998~9999", "5998~9998" if "9998" in new else "5998~9999")
    with pytest.raises(Misplaced, match=complaint):
        topology.apply(topology.parse(text), "tester")
    assert UnitType.objects.get().name == "unit_type"


def test_a_second_unit_type_keeps_the_named_default(demo: Namespace) -> None:
    more = """  - {name: a_type, sources: [{query: user}], ranges: {center: ["0~9999"]}}\nclusters:"""
    topology.apply(topology.parse(WALK_THROUGH.replace("clusters:", more, 1)), "tester")
    demo.refresh_from_db()
    assert demo.default_unit_type == "unit_type"
    assert "default_unit_type: unit_type" in topology.export_text(demo)


def test_a_domain_of_another_namespace_is_refused(demo: Namespace) -> None:
    with pytest.raises(Misplaced, match=r"websocket\.msha\.tech is a domain of namespace demo already"):
        topology.apply(topology.parse(WALK_THROUGH.replace("namespace: demo", "namespace: two")), "tester")
    assert not Namespace.objects.filter(name="two").exists()


def test_a_domain_that_is_a_sub_domain_elsewhere_is_refused(demo: Namespace) -> None:
    text = WALK_THROUGH.replace("namespace: demo", "namespace: two")
    wanted = topology.parse(text.replace("name: websocket.msha.tech", "name: unbj.websocket.msha.tech"))
    with pytest.raises(Misplaced, match=r"unbj.websocket.msha.tech belongs to domain websocket.msha.tech"):
        topology.apply(wanted, "tester")


def test_what_a_running_cutover_uses_cannot_be_removed(published: Namespace, use_checks: list) -> None:
    use_checks.append(lambda namespace, thing: f"Cutover #1 uses {thing}." if thing.kind == "URI" else None)
    text = WALK_THROUGH.replace("- path: /", "- path: /chat")
    with pytest.raises(InUse, match=r"Cutover #1 uses URI websocket.msha.tech/\."):
        topology.apply(topology.parse(text), "tester")
    assert Uri.objects.get().path == "/"


def test_deleting_the_domain_deletes_its_rows(demo: Namespace) -> None:
    text = WALK_THROUGH[: WALK_THROUGH.index("domains:")]
    applied = topology.apply(topology.parse(text), "tester")
    assert [str(change) for change in applied.differences] == ["- domain websocket.msha.tech"]
    assert not Domain.objects.exists()
    assert not BackSources.objects.exists()


def test_the_exported_text_is_the_file_that_was_applied(demo: Namespace) -> None:
    assert topology.export_text(demo) == to_yaml(topology.parse(WALK_THROUGH))


def test_a_file_that_asks_for_the_rule_in_effect_drops_the_saved_change_of_it(published: Namespace) -> None:
    in_effect = topology.parse(WALK_THROUGH)
    UnitType.objects.update(ranges={"center": ["0~6380"], "unbj": ["6381~9999"]})
    plan = topology.plan(in_effect)
    assert plan.sentences == [
        "The saved change of the rule of unit_type is dropped: the rule in effect stays, and nothing moves."
    ]
    assert plan.unpublished == []
    assert topology.apply(in_effect, "tester", effect=True).outcome.drafts == []


def test_a_plan_names_of_what_was_saved_before_only_what_it_leaves_as_it_is(published: Namespace) -> None:
    Unit.objects.filter(code="unbj").update(name="Beijing")
    BackSources.objects.filter(unit__code="unbj").update(servers="127.0.0.1:9203")
    wanted = changed(published, "127.0.0.1:9203", "127.0.0.1:9202")
    plan = topology.plan(wanted)
    assert [change.name for change in plan.differences] == ["websocket.msha.tech"]
    assert plan.unpublished == ["unit unbj changes"]
