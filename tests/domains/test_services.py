import json

import pytest

from domains import editing, services, topology
from domains.errors import Misplaced, Refused
from domains.models import Domain
from domains.saved import domain_value, topology_of
from msha.steering import snapshot as steering
from msha.steering.errors import Terminal
from msha.steering.topology import Uri
from tests.support.topologies import WALK_THROUGH
from units.errors import VersionConflict
from units.models import AuditEvent, Cluster, EdgeNode, Namespace, Snapshot, Unit, UnitType

MOVED = {"center": ["0~6380"], "unbj": ["6381~9999"]}


def save_rule(namespace: Namespace, **values: object) -> None:
    UnitType.objects.filter(namespace=namespace).update(**values)


def parts(snapshot: Snapshot) -> tuple[bytes, bytes]:
    document = json.loads(snapshot.body)
    return steering.canonical(document["config"]), steering.canonical(document["rule"])


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict, str]]:
    """Draft makers of this test only; returns what they were asked for."""
    asked: list[tuple[str, dict, str]] = []

    def make(namespace: Namespace, unit_type: str, entry: dict, *, actor: str, reason: str) -> services.Draft:
        asked.append((unit_type, entry, actor))
        return services.Draft(len(asked), f"/cutover/{len(asked)}/")

    monkeypatch.setattr(services, "_draft_maker", make)
    return asked


def test_the_first_publish_takes_config_and_rule_from_saved_data(demo: Namespace) -> None:
    outcome = services.put_into_effect(demo, "olga", "go")
    assert outcome.sentences == ["Version 1 is in effect."]
    assert outcome.snapshot is not None
    loaded = steering.load(outcome.snapshot.body.encode(), outcome.snapshot.digest)
    assert (loaded.version, loaded.epoch, loaded.namespace_id) == (1, 1, str(demo.uuid))
    assert loaded.unit_types["unit_type"].table.owner(6249) == "unbj"
    assert (outcome.snapshot.author, outcome.snapshot.comment) == ("olga", "go")
    assert services.has_unpublished_changes(demo) == []


def test_a_later_publish_copies_the_rule_part_byte_for_byte(
    published: Namespace, maker: list[tuple[str, dict, str]]
) -> None:
    save_rule(published, ranges=MOVED)
    Unit.objects.filter(code="unbj").update(name="Beijing")
    before = parts(Snapshot.objects.get(version=1))

    outcome = services.put_into_effect(published, "olga")

    assert outcome.snapshot is not None
    after = parts(outcome.snapshot)
    assert after[1] == before[1]
    assert after[0] != before[0]


def test_a_change_of_ownership_becomes_a_draft_and_publishes_nothing(
    published: Namespace, maker: list[tuple[str, dict, str]]
) -> None:
    save_rule(published, ranges=MOVED)
    assert services.has_unpublished_changes(published) == [
        "the rule of unit_type moves 383 ids: 5998~6380 unbj→center"
    ]

    outcome = services.put_into_effect(published, "olga")

    assert outcome.snapshot is None
    assert Snapshot.objects.count() == 1
    assert outcome.cutover_draft == services.Draft(1, "/cutover/1/")
    assert maker[0][0] == "unit_type"
    assert maker[0][1]["ranges"] == MOVED
    assert outcome.sentences == [
        "The configuration of version 1 is in effect already.",
        (
            "Not in effect yet: the rule of unit_type moves 383 ids: 5998~6380 unbj→center."
            " Owners change only by a cutover; draft #1 is prepared for it."
        ),
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"untagged": "reject"},
        {"sources": [{"query": "user"}]},
        {"transform": [{"modulo": 5000}]},
        {"exact": {"unbj": [1]}},
    ],
)
def test_whatever_changes_owners_needs_a_cutover(
    published: Namespace, maker: list[tuple[str, dict, str]], values: dict
) -> None:
    save_rule(published, **values)
    assert services.put_into_effect(published, "olga").drafts
    assert Snapshot.objects.count() == 1


def test_the_same_table_written_otherwise_is_no_change(
    published: Namespace, maker: list[tuple[str, dict, str]]
) -> None:
    save_rule(
        published, ranges={"unbj": ["5998~7000", "7001~9999"], "center": ["0~5997"]}, exact={"center": [7]}
    )
    outcome = services.put_into_effect(published, "olga")
    assert (outcome.snapshot, outcome.drafts) == (None, [])
    assert services.unpublished_changes(published).nothing


def test_a_draft_that_cannot_be_made_is_told_and_the_rest_is_published(
    published: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> services.Draft:
        raise Refused("Another cutover is running.")

    monkeypatch.setattr(services, "_draft_maker", refuse)
    save_rule(published, ranges=MOVED)
    Unit.objects.filter(code="unbj").update(name="Beijing")
    outcome = services.put_into_effect(published, "olga")
    assert outcome.snapshot is not None
    assert "no draft could be made: Another cutover is running." in outcome.sentences[1]


def test_putting_nothing_new_into_effect_makes_no_version(published: Namespace) -> None:
    outcome = services.put_into_effect(published, "olga")
    assert outcome.snapshot is None
    assert Snapshot.objects.count() == 1


def test_a_changed_key_space_is_refused_after_the_first_publish(published: Namespace) -> None:
    Namespace.objects.filter(pk=published.pk).update(key_max=19999)
    published.refresh_from_db()
    with pytest.raises(Refused, match="key space is 0~9999 in effect and 0~19999 saved"):
        services.put_into_effect(published, "olga")


def test_a_unit_that_owns_ids_in_effect_is_not_taken_away(published: Namespace) -> None:
    Domain.objects.all().delete()
    Cluster.objects.filter(unit__code="unbj").delete()
    Unit.objects.filter(code="unbj").delete()
    save_rule(published, ranges={"center": ["0~9999"]})
    with pytest.raises(Refused, match="Unit unbj owns 4002 ids of unit_type in effect: cut it to zero"):
        services.put_into_effect(published, "olga")


def test_a_unit_that_owns_nothing_is_added_and_removed_by_an_ordinary_publish(published: Namespace) -> None:
    spare = Unit.objects.create(namespace=published, code="unsz", name="Shenzhen", position=2)
    assert services.put_into_effect(published, "olga").snapshot is not None
    spare.delete()
    outcome = services.put_into_effect(published, "olga")
    assert outcome.snapshot is not None
    assert outcome.snapshot.version == 3


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda ns: Unit.objects.update(is_center=False), "exactly one unit must be the center, not 0"),
        (lambda ns: save_rule(ns, ranges={"center": ["0~5997"]}), "unit type unit_type, .*owns 5998~"),
        (
            lambda ns: Domain.objects.get().uris.get().back_sources.update(servers="10.0.0.5:99999"),
            "domain websocket.msha.tech, URI /, back_sources.*port '99999' is not a number from 1 to 65535",
        ),
        (lambda ns: UnitType.objects.all().delete(), "There is no unit type yet"),
        (lambda ns: Namespace.objects.update(default_unit_type="gone"), "'gone' is not one of the unit"),
    ],
)  # fmt: skip
def test_what_no_edge_could_obey_is_refused_with_a_sentence(
    demo: Namespace, spoil: object, sentence: str
) -> None:
    spoil(demo)  # type: ignore[operator]
    demo.refresh_from_db()
    with pytest.raises(Terminal, match=sentence):
        services.put_into_effect(demo, "olga")
    assert not Snapshot.objects.exists()


def test_an_empty_namespace_says_what_to_do_first(db: None) -> None:
    namespace = Namespace.objects.create(name="empty")
    assert services.has_unpublished_changes(namespace) == []
    with pytest.raises(Refused, match="There are no units yet"):
        services.put_into_effect(namespace, "olga")


def test_a_publish_against_an_older_version_is_refused(published: Namespace) -> None:
    Unit.objects.filter(code="unbj").update(name="Beijing")
    with pytest.raises(VersionConflict, match="at version 1, not 0 any more"):
        services.put_into_effect(published, "olga", expected_version=0)
    with pytest.raises(VersionConflict):
        services.put_into_effect(published, "olga", expected_version=7)


def test_a_publish_against_an_older_version_is_refused_also_when_the_config_is_in_effect(
    published: Namespace,
) -> None:
    with pytest.raises(VersionConflict):
        services.put_into_effect(published, "olga", expected_version=7)


def test_a_new_unit_whose_sub_domain_belongs_to_another_namespace_is_refused(published: Namespace) -> None:
    text = WALK_THROUGH.replace("namespace: demo", "namespace: two")
    topology.apply(topology.parse(text.replace("websocket.msha.tech", "unsz.websocket.msha.tech")), "tester")
    Unit.objects.create(namespace=published, code="unsz", position=2)
    with pytest.raises(Misplaced, match=r"unsz\.websocket\.msha\.tech belongs to domain .* of namespace two"):
        services.put_into_effect(published, "olga")


def test_changes_that_nobody_looked_at_are_not_published(published: Namespace) -> None:
    Unit.objects.filter(code="unbj").update(name="Beijing")
    seen = services.unpublished_changes(published).seen
    Unit.objects.filter(code="unbj").update(name="Peking")
    with pytest.raises(VersionConflict, match="Something was saved in namespace demo since you looked"):
        services.put_into_effect(published, "olga", seen=seen)
    seen = services.unpublished_changes(published).seen
    assert services.put_into_effect(published, "olga", seen=seen).snapshot is not None


def test_unpublished_changes_are_shown_as_lines_of_yaml(published: Namespace) -> None:
    Domain.objects.get().uris.get().back_sources.filter(unit__code="unbj").update(servers="127.0.0.1:9202")
    changes = services.unpublished_changes(published)
    shown = [(line.change, line.text.strip()) for line in changes.lines() if line.change != "same"]
    assert len(shown) == 2
    assert shown[0][0] == "removed"
    assert "127.0.0.1:9201" in shown[0][1]
    assert "127.0.0.1:9202" in shown[1][1]
    assert changes.sentences() == ["domain websocket.msha.tech changes"]
    assert services.pending_domains(published) == {"websocket.msha.tech"}


def test_saved_rules_can_be_set_back_to_those_in_effect(published: Namespace) -> None:
    save_rule(published, ranges=MOVED)
    assert services.revert_saved_rules(published, "olga", "not now") == ["unit_type"]
    assert services.has_unpublished_changes(published) == []
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.action, event.reason) == ("unit_type.revert", "not now")


def test_a_cluster_that_has_not_joined_cannot_be_chosen(demo: Namespace) -> None:
    Cluster.objects.filter(name="ws-bj-2").update(joined_at=None)
    domain = Domain.objects.get()
    with pytest.raises(Misplaced, match="Cluster ws-bj-2 has not joined") as refusal:
        editing.save_domain(demo, domain_value(domain), "olga", domain=domain)
    assert refusal.value.place == "clusters.unbj"


@pytest.mark.parametrize(
    ("path", "servers", "place", "sentence"),
    [
        ("/x", "10.0.0.5:99999", "uris[1].back_sources.unbj", "port '99999'"),
        ("/x", "10.0.0.5;8080", "uris[1].back_sources.unbj", "write a colon before the port"),
        ("/", "10.0.0.5:80", "uris", "path '/' is named twice"),
        ("/a b", "10.0.0.5:80", "uris[1].path", "is not a path such as /chat"),
    ],
)
def test_bad_input_is_refused_at_its_place(
    demo: Namespace, path: str, servers: str, place: str, sentence: str
) -> None:
    domain = Domain.objects.get()
    value = domain_value(domain)
    wanted = type(value)(value.name, uris=(*value.uris, Uri(path, back_sources={"unbj": (servers,)})))
    with pytest.raises(Misplaced, match=sentence) as refusal:
        editing.save_domain(demo, wanted, "olga", domain=domain)
    assert refusal.value.place == place
    assert topology_of(demo) == topology.parse(WALK_THROUGH)


def test_deleting_a_domain_is_pending_until_it_is_put_into_effect(published: Namespace) -> None:
    editing.delete_domain(Domain.objects.get(), "olga")
    assert services.has_unpublished_changes(published) == ["domain websocket.msha.tech is removed"]
    services.put_into_effect(published, "olga")
    assert services.has_unpublished_changes(published) == []


def test_edge_nodes_are_no_part_of_what_is_published(published: Namespace) -> None:
    unit = Unit.objects.get(code="unbj")
    EdgeNode.objects.create(unit=unit, cluster=unit.clusters.get(), name="edge-bj-1", token_hash="x")
    assert services.has_unpublished_changes(published) == []
