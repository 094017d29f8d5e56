"""The platform's and access layer's pages, asked for as a browser does."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from tests.units.builders import (
    a_published_namespace,
    an_enrolled_node,
    make_cluster,
    make_namespace,
    make_node,
    make_unit,
    publish_config,
)
from units import editing, enrolment
from units.errors import Refused
from units.models import ApiToken, AuditEvent, Cluster, EdgeNode, Namespace, Slb, Unit, UnitType
from units.tokens import hash_of

pytestmark = pytest.mark.django_db


def client_of(group: str) -> Client:
    user = User.objects.create_user(group, password="x", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> Client:
    return client_of("operator")


@pytest.fixture
def viewer() -> Client:
    return client_of("viewer")


def text_of(response: Any) -> str:
    return str(response.content.decode())


def add(model: str) -> str:
    return reverse(f"admin:units_{model}_add")


def change(row: Any) -> str:
    return reverse(f"admin:units_{row._meta.model_name}_change", args=[row.pk])


def delete(row: Any) -> str:
    return reverse(f"admin:units_{row._meta.model_name}_delete", args=[row.pk])


LISTS = ("namespace", "unit", "unittype", "cluster", "edgenode", "slb", "snapshot", "auditevent", "alarm")


@pytest.mark.parametrize("model", LISTS)
def test_every_list_opens_empty_and_full(model: str, operator: Client) -> None:
    address = reverse(f"admin:units_{model}_changelist")
    assert operator.get(address).status_code == 200
    namespace = a_published_namespace()
    unit = namespace.units.get(code="unbj")
    node = an_enrolled_node(unit)
    cluster = make_cluster(unit)
    enrolment.assign(node, cluster, actor="test")
    Slb.objects.create(unit=unit, name="slb-1", address="10.0.0.1", external_id="lb-1", cluster=cluster)
    UnitType.objects.create(namespace=namespace, name="unit_type", sources=[{"header": "routerId"}])
    assert operator.get(f"{address}?namespace={namespace.name}", follow=True).status_code == 200


@pytest.mark.parametrize(
    ("address", "title"),
    [
        ("units_edgenode", "Edge nodes"),
        ("units_slb", "SLBs"),
        ("units_auditevent", "Audit events"),
        ("auth_user", "Users"),
        ("domains_domain", "Domains"),
    ],
)
def test_the_title_of_a_list_says_what_it_lists(address: str, title: str, django_user_model: Any) -> None:
    make_namespace()
    root = Client()
    root.force_login(django_user_model.objects.create_superuser("root"))
    page = text_of(root.get(reverse(f"admin:{address}_changelist")))
    assert re.search(rf"<title>\s*{title} \|", page), page[:900]


@pytest.mark.parametrize(
    ("model", "group"),
    [
        ("cluster", "Access layer"),
        ("edgenode", "Access layer"),
        ("slb", "Access layer"),
        ("unit", "Platform"),
    ],
)
def test_the_path_above_a_page_begins_with_its_group_of_the_navigation(
    model: str, group: str, operator: Client
) -> None:
    cluster = make_cluster(make_unit(make_namespace(), "center"))
    rows = {"cluster": cluster, "unit": cluster.unit}
    pages = [reverse(f"admin:units_{model}_changelist"), *([change(rows[model])] if model in rows else [])]
    for address in pages:
        page = text_of(operator.get(address))
        first = re.search(r"tracking-tight\">\s*([^<]*?)\s*</(?:a|span)", page)
        assert first is not None
        assert first[1] == group, address


def test_a_list_shows_the_current_namespace_only(operator: Client) -> None:
    one, two = make_namespace("one"), make_namespace("two")
    make_unit(one, "center")
    make_unit(two, "unsh")
    page = text_of(operator.get(reverse("admin:units_unit_changelist") + "?namespace=two", follow=True))
    assert "unsh" in page
    assert ">center<" not in page


def test_an_operator_adds_a_namespace_with_its_audit_event(operator: Client) -> None:
    response = operator.post(
        add("namespace"), {"name": "demo", "title": "Demo", "key_min": 0, "key_max": 9999}
    )
    assert response.status_code == 302
    assert Namespace.objects.get().name == "demo"
    event = AuditEvent.objects.get(action="namespace.create")
    assert (event.actor, event.target, event.after["key_max"]) == ("operator", "demo", 9999)


def test_the_key_space_is_fixed_by_the_first_publish(operator: Client) -> None:
    namespace = a_published_namespace()
    operator.post(change(namespace), {"title": "New", "key_min": 0, "key_max": 99})
    namespace.refresh_from_db()
    assert (namespace.title, namespace.key_max) == ("New", 9999)


def test_a_second_center_is_refused_with_a_sentence(operator: Client) -> None:
    namespace = make_namespace()
    make_unit(namespace, "center")
    operator.get(f"/?namespace={namespace.name}")
    response = operator.post(
        add("unit"), {"code": "unbj", "name": "Beijing", "is_center": "on", "position": 1}
    )
    assert "already has a center" in text_of(response)
    assert Unit.objects.count() == 1


def test_a_unit_code_is_a_dns_label_and_unique(operator: Client) -> None:
    namespace = make_namespace()
    make_unit(namespace, "center")
    wrong = operator.post(add("unit"), {"code": "UN_BJ", "name": "Beijing", "position": 1})
    assert "host names" in text_of(wrong)
    twice = operator.post(add("unit"), {"code": "center", "name": "Again", "position": 1})
    assert "already has a unit with this code" in text_of(twice)


def rule_fields(namespace: Namespace, **ranges: str) -> dict[str, str]:
    units = {unit.code: unit.pk for unit in namespace.units.all()}
    fields = {"name": "unit_type", "untagged": "local", "sources_text": "header routerId\nquery routerId"}
    return fields | {f"ranges_{units[code]}": text for code, text in ranges.items()}


@pytest.fixture
def namespace() -> Namespace:
    namespace = make_namespace()
    make_unit(namespace, "center")
    make_unit(namespace, "unbj")
    return namespace


def test_a_rule_is_edited_as_lines_of_text(operator: Client, namespace: Namespace) -> None:
    unbj = namespace.units.get(code="unbj")
    fields = rule_fields(namespace, center="0~2000\n2001~5997", unbj="5998~9999")
    fields |= {f"exact_{unbj.pk}": "42, 4711", "transform_text": "modulo 10000"}
    assert operator.post(add("unittype"), fields).status_code == 302
    row = UnitType.objects.get()
    assert row.ranges == {"center": ["0~2000", "2001~5997"], "unbj": ["5998~9999"]}
    assert row.exact == {"unbj": [42, 4711]}
    assert row.sources == [{"header": "routerId"}, {"query": "routerId"}]
    assert row.transform == [{"modulo": 10000}]
    page = text_of(operator.get(change(row)))
    assert "2001~5997" in page
    assert "42, 4711" in page
    assert "query routerId" in page


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unbj": "6000~9999"}, "5998~5999"),
        ({"unbj": "5990~9999"}, "5990"),
        ({"unbj": "5998-9999"}, "write it as 0~5997"),
        ({"unbj": "5998~10000"}, "key space"),
    ],
)
def test_a_gap_or_overlap_is_refused_with_a_sentence_that_names_it(
    changes: dict[str, str], sentence: str, operator: Client, namespace: Namespace
) -> None:
    fields = rule_fields(namespace, **{"center": "0~5997", "unbj": "5998~9999", **changes})
    response = operator.post(add("unittype"), fields)
    assert response.status_code == 200
    assert sentence in text_of(response)
    assert not UnitType.objects.exists()


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("sources_text", "body routerId", "Line 1"),
        ("sources_text", "header", "Line 1"),
        ("transform_text", "modulo x", "Modulo takes"),
        ("transform_text", "square 2", "Line 1"),
    ],
)
def test_a_wrong_source_or_transform_is_refused_at_its_field(
    field: str, value: str, sentence: str, operator: Client, namespace: Namespace
) -> None:
    fields = rule_fields(namespace, center="0~5997", unbj="5998~9999") | {field: value}
    response = operator.post(add("unittype"), fields)
    assert sentence in " ".join(response.context["adminform"].form.errors[field])


def test_a_saved_change_of_owners_says_that_it_is_not_in_effect(operator: Client) -> None:
    namespace = a_published_namespace()
    row = UnitType.objects.create(
        namespace=namespace,
        name="unit_type",
        sources=[{"header": "routerId"}],
        ranges={"center": ["0~5997"], "unbj": ["5998~9999"]},
    )
    fields = rule_fields(namespace, center="0~6380", unbj="6381~9999")
    response = operator.post(change(row), fields, follow=True)
    assert "not in effect yet" in text_of(response)
    row.refresh_from_db()
    assert row.ranges["center"] == ["0~6380"]
    event = AuditEvent.objects.get(action="unit_type.update")
    assert (event.before["ranges"]["center"], event.after["ranges"]["center"]) == (["0~5997"], ["0~6380"])


def test_no_unit_type_is_added_after_the_first_publish(operator: Client) -> None:
    a_published_namespace()
    assert operator.get(add("unittype")).status_code == 403


def test_a_unit_that_owns_ids_cannot_be_deleted(operator: Client) -> None:
    namespace = a_published_namespace()
    unit = namespace.units.get(code="unbj")
    for response in (
        operator.get(delete(unit), follow=True),
        operator.post(delete(unit), {"post": "yes"}, follow=True),
    ):
        assert "owns ids of unit_type in the rule in effect" in text_of(response)
    with pytest.raises(Refused, match="owns ids"):
        editing.remove(unit, actor="test")
    assert Unit.objects.filter(code="unbj").exists()


def test_a_unit_that_has_nodes_cannot_be_deleted(operator: Client, namespace: Namespace) -> None:
    unit = make_unit(namespace, "unsh")
    make_node(unit, "edge-sh-1")
    operator.post(delete(unit), {"post": "yes"}, follow=True)
    assert Unit.objects.filter(code="unsh").exists()


def test_an_unused_unit_is_deleted_with_its_audit_event(operator: Client, namespace: Namespace) -> None:
    unit = make_unit(namespace, "unsh")
    assert operator.post(delete(unit), {"post": "yes"}).status_code == 302
    assert not Unit.objects.filter(code="unsh").exists()
    assert AuditEvent.objects.get(action="unit.delete").target == "unsh"


def test_a_node_s_token_is_shown_once_with_the_join_command(operator: Client, namespace: Namespace) -> None:
    unit = namespace.units.get(code="unbj")
    response = operator.post(add("edgenode"), {"name": "edge-bj-1", "unit": unit.pk})
    page = text_of(response)
    assert "no-store" in response["Cache-Control"]
    token = next(word for word in page.replace("<", " ").replace(">", " ").split() if "msha_node_" in word)
    node = EdgeNode.objects.get()
    assert hash_of(token) == node.token_hash
    assert "python -m msha.edge run" in page
    assert "--control ws://testserver" in page
    assert token not in text_of(operator.get(change(node)))


def test_a_node_in_a_cluster_of_another_unit_is_refused(operator: Client, namespace: Namespace) -> None:
    cluster = make_cluster(namespace.units.get(code="center"))
    unit = namespace.units.get(code="unbj")
    response = operator.post(add("edgenode"), {"name": "e", "unit": unit.pk, "cluster": cluster.pk})
    assert "belongs to unit center" in text_of(response)
    assert not EdgeNode.objects.exists()


def test_the_node_page_tells_how_the_node_stands(operator: Client) -> None:
    namespace = a_published_namespace()
    node = an_enrolled_node(namespace.units.get(code="unbj"))
    EdgeNode.objects.update(nack_version=2, nack_reason="disk is full", applied_version=1)
    publish_config(namespace)
    page = text_of(operator.get(change(node)))
    assert "disconnected" in page
    assert "disk is full" in page
    facts = text_of(operator.get(change(node) + "?part=facts"))
    assert "<html" not in facts
    assert "Applied version" in facts


def test_declaring_dead_wants_the_typed_name_and_a_reason(operator: Client) -> None:
    node = an_enrolled_node(a_published_namespace().units.get(code="unbj"))
    address = reverse("admin:units_edgenode_dead", args=[node.pk])
    assert "Fence it first" in text_of(operator.get(address))
    refused = operator.post(address, {"name": "other", "reason": "power is off"})
    assert refused.status_code == 422
    assert "Type the name" in text_of(refused)
    assert operator.post(address, {"name": node.name, "reason": "power is off"}).status_code == 302
    node.refresh_from_db()
    assert (node.state, node.declared_dead_by) == (EdgeNode.State.DEAD, "operator")
    assert "power is off" in text_of(operator.get(change(node)))


def test_a_cluster_is_made_of_nodes_of_its_unit_and_joins(operator: Client, namespace: Namespace) -> None:
    unit = namespace.units.get(code="unbj")
    node, _ = make_node(unit)
    stranger, _ = make_node(namespace.units.get(code="center"))
    fields = {"name": "ws-bj-2", "unit": unit.pk, "protocol": "websocket"}
    refused = operator.post(add("cluster"), fields | {"nodes": [node.pk, stranger.pk]})
    assert "not of unit unbj" in text_of(refused)
    assert operator.post(add("cluster"), fields | {"nodes": [node.pk]}).status_code == 302
    cluster = Cluster.objects.get()
    assert list(cluster.nodes.all()) == [node]
    assert not cluster.joined
    assert "Join access layer" in text_of(operator.get(change(cluster)))
    operator.post(reverse("admin:units_cluster_join", args=[cluster.pk]))
    cluster.refresh_from_db()
    assert cluster.joined
    assert AuditEvent.objects.filter(action="cluster.join", target="ws-bj-2").exists()


def test_a_cluster_without_nodes_cannot_join(operator: Client, namespace: Namespace) -> None:
    cluster = Cluster.objects.create(unit=namespace.units.get(code="unbj"), name="ws-bj-2")
    response = operator.post(reverse("admin:units_cluster_join", args=[cluster.pk]), follow=True)
    assert "has no edge node yet" in text_of(response)
    cluster.refresh_from_db()
    assert not cluster.joined


def test_a_deleted_cluster_leaves_its_nodes(operator: Client, namespace: Namespace) -> None:
    unit = namespace.units.get(code="unbj")
    cluster = make_cluster(unit)
    node, _ = make_node(unit, cluster=cluster)
    operator.post(delete(cluster), {"post": "yes"})
    node.refresh_from_db()
    assert node.cluster is None
    assert not Cluster.objects.exists()


def test_slbs_are_picked_from_the_inventory(
    operator: Client, namespace: Namespace, settings: Any, tmp_path: Path
) -> None:
    inventory = tmp_path / "slbs.yaml"
    inventory.write_text(
        "- {unit: center, id: lb-1, name: slb-hz, address: 10.0.0.1}\n"
        "- {unit: unbj, id: lb-2, name: slb-bj, address: 10.0.0.2}\n"
        "- {unit: elsewhere, id: lb-3, name: slb-x, address: 10.0.0.3}\n"
    )
    settings.SLB_INVENTORY = str(inventory)
    address = reverse("admin:units_slb_changelist") + "sync/"
    page = text_of(operator.get(address))
    assert "slb-hz" in page
    assert "slb-x" not in page
    operator.post(address, {"slb": ["unbj/lb-2", "elsewhere/lb-3"]})
    assert [slb.name for slb in Slb.objects.all()] == ["slb-bj"]
    assert "slb-bj" not in text_of(operator.get(address)).split("<form")[-1]


@pytest.mark.parametrize("content", [None, "not: a list", "- {unit: center}", ":"])
def test_an_unusable_inventory_is_a_sentence(
    content: str | None, operator: Client, namespace: Namespace, settings: Any, tmp_path: Path
) -> None:
    settings.SLB_INVENTORY = str(tmp_path / "slbs.yaml")
    if content is not None:
        (tmp_path / "slbs.yaml").write_text(content)
    page = text_of(operator.get(reverse("admin:units_slb_changelist") + "sync/"))
    assert "inventory" in page


def test_a_viewer_sees_everything_and_changes_nothing(viewer: Client, operator: Client) -> None:
    namespace = a_published_namespace()
    unit = namespace.units.get(code="unbj")
    node = an_enrolled_node(unit)
    cluster = make_cluster(unit)
    slb = Slb.objects.create(unit=unit, name="slb-1", address="10.0.0.1", external_id="lb-1")
    for model in LISTS:
        assert viewer.get(reverse(f"admin:units_{model}_changelist")).status_code == 200
    assert viewer.get(change(node)).status_code == 200
    for address, fields in [
        (add("namespace"), {"name": "x", "key_min": 0, "key_max": 9}),
        (change(namespace), {"title": "x"}),
        (add("unit"), {"code": "x", "position": 0}),
        (delete(unit), {"post": "yes"}),
        (add("edgenode"), {"name": "x", "unit": unit.pk}),
        (change(node), {"act": "remove"}),
        (change(node), {"cluster": cluster.pk}),
        (reverse("admin:units_edgenode_token", args=[node.pk]), {}),
        (reverse("admin:units_edgenode_dead", args=[node.pk]), {"name": node.name, "reason": "x"}),
        (reverse("admin:units_cluster_join", args=[cluster.pk]), {}),
        (delete(cluster), {"post": "yes"}),
        (delete(slb), {"post": "yes"}),
        (reverse("admin:units_slb_changelist") + "sync/", {"slb": ["unbj/lb-2"]}),
    ]:
        assert viewer.post(address, fields).status_code == 403, address
    node.refresh_from_db()
    assert node.enrolled
    assert operator.post(change(node), {"cluster": cluster.pk}).status_code == 302


def test_a_stranger_is_led_to_the_login_page() -> None:
    response = Client().get(reverse("admin:units_edgenode_changelist"))
    assert response.status_code == 302
    assert "/login/" in response["Location"]


def test_versions_and_audit_events_cannot_be_edited_even_by_an_administrator() -> None:
    a_published_namespace()
    administrator = Client()
    administrator.force_login(User.objects.create_superuser("root"))
    for model in ("snapshot", "auditevent"):
        assert administrator.get(add(model)).status_code == 403
    namespace = Namespace.objects.get()
    snapshot = namespace.snapshots.get()
    page = text_of(administrator.get(change(snapshot)))
    assert "websocket.localhost" in page
    assert administrator.post(delete(snapshot), {"post": "yes"}).status_code == 403


def test_an_api_token_is_shown_once_and_belongs_to_its_user(operator: Client, viewer: Client) -> None:
    page = text_of(operator.post(add("apitoken"), {"name": "my script"}))
    token = next(word for word in page.replace("<", " ").replace(">", " ").split() if "msha_api_" in word)
    row = ApiToken.objects.get()
    assert (hash_of(token), row.user.username) == (row.token_hash, "operator")
    assert "my script" in text_of(operator.get(reverse("admin:units_apitoken_changelist")))
    assert "my script" not in text_of(viewer.get(reverse("admin:units_apitoken_changelist")))
    revoke = change(row).replace("change/", "revoke/")
    assert viewer.post(revoke).status_code == 403
    assert operator.post(revoke).status_code == 302
    row.refresh_from_db()
    assert row.revoked_at is not None


def test_every_page_carries_the_content_security_policy(operator: Client) -> None:
    policy = operator.get(reverse("admin:units_unit_changelist"))["Content-Security-Policy"]
    assert "script-src 'self' 'unsafe-eval'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
