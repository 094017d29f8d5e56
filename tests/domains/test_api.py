import json
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from domains import topology
from tests.support.topologies import WALK_THROUGH
from units.models import ApiToken, AuditEvent, EdgeNode, Namespace, Snapshot, Unit, UnitType
from units.tokens import API_PREFIX, make_token


class Api:
    """The API as one user sees it."""

    def __init__(self, token: str) -> None:
        self._client = Client(headers={"Authorization": f"Bearer {token}"})

    def get(self, path: str, **query: Any) -> tuple[int, Any]:
        response = self._client.get(f"/api/v1/{path}", query)
        return response.status_code, response.json()

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        response = self._client.post(f"/api/v1/{path}", body, content_type="application/json")
        return response.status_code, response.json()


def api_of(name: str, *groups: str) -> Api:
    user = User.objects.create_user(name, password="x")
    user.groups.set(Group.objects.filter(name__in=groups))
    token = make_token(API_PREFIX)
    ApiToken.objects.create(user=user, name="test", token_hash=token.hash)
    return Api(token.text)


@pytest.fixture
def operator(db: None) -> Api:
    return api_of("olga", "operator")


@pytest.fixture
def viewer(db: None) -> Api:
    return api_of("victor", "viewer")


@pytest.fixture
def stranger(db: None) -> Api:
    return api_of("nobody")


READS = [
    "namespaces",
    "namespaces/demo",
    "namespaces/demo/topology",
    "namespaces/demo/changes",
    "namespaces/demo/versions",
    "namespaces/demo/versions/1",
    "namespaces/demo/versions/1/diff/1",
    "namespaces/demo/nodes",
    "namespaces/demo/sessions",
    "namespaces/demo/route?router_id=1",
    "namespaces/demo/audit",
]
ACTS: list[tuple[str, dict[str, Any]]] = [
    ("topology/apply", {"topology": WALK_THROUGH.replace("9201", "9202"), "put_into_effect": False}),
    ("namespaces/demo/put-into-effect", {"comment": "x"}),
    ("namespaces/demo/nodes", {"name": "edge-9", "unit": "unbj", "cluster": "ws-bj-2"}),
]


@pytest.mark.parametrize("path", READS)
def test_a_viewer_may_read_and_a_user_without_a_group_may_not(
    published: Namespace, viewer: Api, stranger: Api, path: str
) -> None:
    status, value = viewer.get(path)
    assert status == 200, value
    status, value = stranger.get(path)
    assert status == 403
    assert value["error"]["code"] == "forbidden"
    assert "nobody may not do this" in value["error"]["sentence"]


@pytest.mark.parametrize(("path", "body"), ACTS)
def test_an_operator_may_act_and_a_viewer_may_not(
    published: Namespace, operator: Api, viewer: Api, path: str, body: dict[str, Any]
) -> None:
    before = (Snapshot.objects.count(), topology.export(published), AuditEvent.objects.count())
    status, value = viewer.post(path, **body)
    assert (status, value["error"]["code"]) == (403, "forbidden")
    assert before == (Snapshot.objects.count(), topology.export(published), AuditEvent.objects.count())
    status, value = operator.post(path, **body)
    assert status == 200, value


def test_putting_into_effect_needs_its_own_permission_also_inside_apply(
    published: Namespace, operator: Api
) -> None:
    from django.contrib.auth.models import Permission

    Group.objects.get(name="operator").permissions.remove(Permission.objects.get(codename="publish"))
    text = WALK_THROUGH.replace("9201", "9202")
    status, value = operator.post("topology/apply", topology=text, put_into_effect=True)
    assert (status, value["error"]["code"]) == (403, "forbidden")
    assert "units.publish" in value["error"]["sentence"]
    assert operator.post("topology/apply", topology=text, put_into_effect=False)[0] == 200


def test_a_missing_permission_for_one_kind_undoes_all(published: Namespace, operator: Api) -> None:
    from django.contrib.auth.models import Permission

    Group.objects.get(name="operator").permissions.remove(Permission.objects.get(codename="delete_domain"))
    before = topology.export(published)
    text = WALK_THROUGH[: WALK_THROUGH.index("domains:")].replace("北京单元", "Beijing")
    status, value = operator.post("topology/apply", topology=text)
    assert (status, value["error"]["code"]) == (403, "forbidden")
    assert topology.export(published) == before


@pytest.mark.parametrize("spoil", ["revoked", "inactive", "unknown", "none", "node"])
def test_a_token_that_is_no_good_is_not_let_in(demo: Namespace, spoil: str) -> None:
    user = User.objects.create_superuser("root", password="x")
    token = make_token(API_PREFIX)
    row = ApiToken.objects.create(user=user, name="t", token_hash=token.hash)
    text = token.text
    if spoil == "revoked":
        from django.utils import timezone

        row.revoked_at = timezone.now()
        row.save()
    elif spoil == "inactive":
        User.objects.update(is_active=False)
    elif spoil == "unknown":
        text = make_token(API_PREFIX).text
    elif spoil == "node":
        text = text.replace("msha_api_", "msha_node_")
    headers = {} if spoil == "none" else {"Authorization": f"Bearer {text}"}
    response = Client(headers=headers).get("/api/v1/namespaces")
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "unauthenticated"


def test_the_use_of_a_token_is_noted(viewer: Api) -> None:
    viewer.get("namespaces")
    first = ApiToken.objects.get().last_used_at
    assert first is not None
    viewer.get("namespaces")
    assert ApiToken.objects.get().last_used_at == first


@pytest.mark.parametrize(
    ("old", "new", "code", "place"),
    [
        ("9201", "99201", "invalid", "domains[0].uris[0].back_sources.unbj"),
        ("5998~", "6000~", "invalid", "unit_types[0].ranges"),
        ("namespace: demo", "namespace: [", "invalid", ""),
        ("max: 9999", "max: 9998", "invalid", "unit_types[0].ranges.unbj"),
    ],
)
def test_a_refusal_names_code_sentence_and_place(
    published: Namespace, operator: Api, old: str, new: str, code: str, place: str
) -> None:
    for path in ("topology/diff", "topology/apply"):
        status, value = operator.post(path, topology=WALK_THROUGH.replace(old, new))
        assert status == 422
        assert value["error"]["code"] == code
        assert value["error"]["place"] == place
        assert value["error"]["sentence"].startswith("line ")


def test_malformed_requests_are_refused_in_the_same_form(demo: Namespace, operator: Api) -> None:
    status, value = operator.post("topology/apply")
    assert status == 422
    assert value["error"]["code"] == "malformed"
    assert "topology" in value["error"]["place"]
    assert operator.get("namespaces/none")[1]["error"]["code"] == "not_found"
    assert "there is demo" in operator.get("namespaces/none")[1]["error"]["sentence"]
    assert operator.get("namespaces/demo/versions/9")[1]["error"]["code"] == "not_found"
    status, value = operator.get("namespaces/demo/route", router_id="1")
    assert (status, value["error"]["code"]) == (409, "refused")


def test_apply_saves_publishes_and_leaves_a_draft_at_once(published: Namespace, operator: Api) -> None:
    text = WALK_THROUGH.replace("9201", "9202").replace("0~5997", "0~6380").replace("5998~", "6381~")
    status, plan = operator.post("topology/diff", topology=text)
    assert status == 200
    assert [d["name"] for d in plan["differences"]] == ["unit_type", "websocket.msha.tech"]
    assert "becomes the draft of a cutover" in plan["sentences"][0]

    status, applied = operator.post(
        "topology/apply", topology=text, base=plan["base"], put_into_effect=True, comment="move"
    )

    assert status == 200, applied
    assert applied["version"] == 2
    assert applied["published"]
    assert [draft["number"] for draft in applied["drafts"]] == [1]
    assert "5998~6380 unbj→center" in applied["sentences"][1]
    snapshot = Snapshot.objects.get(version=2)
    assert snapshot.author == "olga"
    assert json.loads(snapshot.body)["rule"]["unit_types"][0]["ranges"]["center"] == ["0~5997"]
    assert UnitType.objects.get().ranges["center"] == ["0~6380"]

    status, value = operator.post("topology/apply", topology=text, base=plan["base"])
    assert (status, value["error"]["code"]) == (409, "conflict")


def test_a_new_namespace_is_made_by_apply(operator: Api) -> None:
    status, applied = operator.post("topology/apply", topology=WALK_THROUGH, put_into_effect=True)
    assert (status, applied["version"]) == (200, 1)
    assert [n["name"] for n in operator.get("namespaces")[1]["namespaces"]] == ["demo"]


def test_a_file_about_another_namespace_is_refused(demo: Namespace, operator: Api) -> None:
    status, value = operator.post("topology/diff", topology=WALK_THROUGH, namespace="other")
    assert (status, value["error"]["place"]) == (422, "namespace")


def test_a_route_says_what_each_unit_decides(published: Namespace, viewer: Api) -> None:
    status, routed = viewer.get("namespaces/demo/route", router_id="16249")
    assert status == 200
    assert (routed["router_id"], routed["unit"], routed["decision"], routed["reason"]) == (
        6249,
        "unbj",
        "tunnel",
        "owned",
    )
    center, unbj = routed["decisions"]
    assert center["location"] == "http://unbj.websocket.msha.tech/"
    assert unbj["servers"] == ["127.0.0.1:9201"]
    status, refused = viewer.get("namespaces/demo/route", router_id="x1")
    assert (refused["unit"], refused["decision"], refused["reason"]) == ("", "refuse", "invalid_router_id")
    status, refused = viewer.get("namespaces/demo/route", router_id="1", unit_type="other")
    assert (status, refused["error"]["place"]) == (422, "unit_type")
    status, refused = viewer.get("namespaces/demo/route", router_id="1\n")
    assert (status, refused.get("unit")) == (200, "center")
    status, refused = viewer.get("namespaces/demo/route", router_id="1\n2")
    assert (status, refused["error"]["place"]) == (422, "router_id")


def test_sessions_are_counted_by_unit_and_node_and_dead_ones_not(published: Namespace, viewer: Api) -> None:
    from django.utils import timezone

    unit = Unit.objects.get(code="unbj")
    for name, connected in (("edge-bj-1", True), ("edge-bj-2", False)):
        EdgeNode.objects.create(
            unit=unit,
            name=name,
            token_hash=name,
            state=EdgeNode.State.ENROLLED,
            connected=connected,
            status_at=timezone.now(),
            sessions=12,
        )
    _, counted = viewer.get("namespaces/demo/sessions")
    assert counted["total"] == 12
    assert [(u["unit"], u["sessions"], len(u["nodes"])) for u in counted["units"]] == [
        ("center", 0, 0),
        ("unbj", 12, 2),
    ]
    _, nodes = viewer.get("namespaces/demo/nodes")
    assert [(n["name"], n["live"]) for n in nodes["nodes"]] == [("edge-bj-1", True), ("edge-bj-2", False)]


def test_versions_can_be_read_and_compared(published: Namespace, operator: Api) -> None:
    text = WALK_THROUGH.replace("9201", "9202")
    operator.post("topology/apply", topology=text, put_into_effect=True)
    _, versions = operator.get("namespaces/demo/versions")
    assert [v["version"] for v in versions["versions"]] == [2, 1]
    _, compared = operator.get("namespaces/demo/versions/1/diff/2")
    changed = [line for line in compared["lines"] if line[0] in "+-"]
    assert len(changed) == 4  # the version and the servers
    _, whole = operator.get("namespaces/demo/versions/2")
    assert whole["document"]["version"] == 2
    assert "127.0.0.1:9202" in whole["text"]


def test_the_audit_can_be_filtered_and_paged(published: Namespace, operator: Api) -> None:
    _, everything = operator.get("namespaces/demo/audit")
    assert everything["events"][0]["action"] == "snapshot.publish"
    _, domains = operator.get("namespaces/demo/audit", action="domain.")
    assert [event["action"] for event in domains["events"]] == ["domain.create"]
    oldest = everything["events"][-1]["id"]
    assert operator.get("namespaces/demo/audit", before=oldest)[1]["events"] == []


def test_a_stopped_namespace_says_so(published: Namespace, operator: Api) -> None:
    Namespace.objects.update(publishing_stopped="a node is ahead")
    text = WALK_THROUGH.replace("9201", "9202")
    status, value = operator.post("topology/apply", topology=text, put_into_effect=True)
    assert (status, value["error"]["code"]) == (409, "publishing_stopped")
    assert "a node is ahead" in value["error"]["sentence"]
    assert topology.export(published) == topology.export(Namespace.objects.get())


def test_the_schema_is_served_without_a_token_and_documents_every_call(db: None) -> None:
    schema = Client().get("/api/v1/openapi.json").json()
    assert "/api/v1/topology/apply" in schema["paths"]
    assert all(operation.get("summary") for path in schema["paths"].values() for operation in path.values())


def test_the_page_of_the_api_loads_nothing_from_elsewhere(admin_client: Client) -> None:
    html = admin_client.get("/api/docs").content.decode()
    assert "POST /api/v1/topology/apply" in html
    assert "https://" not in html.replace("https://github.com/unfoldadmin", "")
    assert Client().get("/api/docs").status_code == 302


@pytest.mark.parametrize("path", ["/api/v1/nope", "/api/nope/", "/api/", "/api"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_an_unknown_address_is_refused_in_the_form_of_all_errors(db: None, path: str, method: str) -> None:
    response = getattr(Client(enforce_csrf_checks=True), method)(path)
    assert response.status_code == 404
    assert response.json()["error"] == {
        "code": "not_found",
        "sentence": f"There is nothing at {path}. The addresses are listed at /api/docs.",
        "place": "",
    }


def test_a_method_that_an_address_does_not_take_is_refused_in_the_form_of_all_errors(db: None) -> None:
    response = Client(enforce_csrf_checks=True).delete("/api/v1/topology/diff")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.json()["error"] == {
        "code": "method_not_allowed",
        "sentence": "This address takes POST, not DELETE.",
        "place": "",
    }
