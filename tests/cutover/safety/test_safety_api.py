"""Safety rules, overrides, approvals and kinds by the API: who may, what is answered, what is refused."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from cutover import services
from cutover.models import Cutover
from cutover.safety import stored
from tests.cutover.builders import Scene, make_checked
from tests.cutover.test_api import bearer
from units.groups import OPERATOR, SUPERVISOR, VIEWER


class Asked:
    """The API as one user sees it."""

    def __init__(self, scene: Scene, name: str, *groups: str) -> None:
        self.base = f"/api/v1/namespaces/{scene.namespace.name}"
        self._headers = bearer(name, *groups)

    def __call__(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        call = getattr(Client(), method)
        content = {} if method == "get" else {"data": json.dumps(body), "content_type": "application/json"}
        response = call(self.base + path, **content, **self._headers)
        return response.status_code, response.json()


@pytest.fixture
def olga(scene: Scene) -> Asked:
    return Asked(scene, "olga", OPERATOR)


@pytest.fixture
def sue(scene: Scene) -> Asked:
    return Asked(scene, "sue", SUPERVISOR)


WINDOW = {"day": 4, "begins": "22:00", "ends": "06:00", "time_zone": "Asia/Shanghai", "note": "report"}


def test_a_supervisor_sets_the_rules_and_everybody_reads_them(scene: Scene, sue: Asked, olga: Asked) -> None:
    status, rules = sue("put", "/safety", max_ids=100, blocked_windows=[WINDOW], reason="audit")
    assert (status, rules["max_ids"], rules["blocked_windows"]) == (200, 100, [WINDOW])
    assert olga("get", "/safety") == (200, rules)
    status, kept = sue("put", "/safety", quiet_s=60)
    assert (status, kept["max_ids"], kept["quiet_s"], len(kept["blocked_windows"])) == (200, 100, 60, 1)
    assert sue("put", "/safety", max_ids=None)[1]["max_ids"] is None
    viewer = Asked(scene, "victor", VIEWER)
    assert viewer("get", "/safety")[0] == 200


def test_operators_neither_change_the_rules_nor_override_them(scene: Scene, olga: Asked) -> None:
    stored.save(scene.namespace, {"max_ids": 1}, "boss")
    make_checked(scene)
    status, refused = olga("put", "/safety", max_ids=None)
    assert (status, refused["error"]["code"]) == (403, "forbidden")
    status, refused = olga("post", "/cutovers/latest/override", rules=["all"], reason="fire")
    assert (status, "cutover.override_safety" in refused["error"]["sentence"]) == (403, True)


def test_a_rule_that_cannot_be_is_refused_with_its_place(sue: Asked) -> None:
    status, refused = sue("put", "/safety", blocked_windows=[{**WINDOW, "time_zone": "Mars"}])
    assert (status, refused["error"]["place"]) == (422, "blocked_windows.0.time_zone")
    assert "Asia/Shanghai" in refused["error"]["sentence"]


def test_findings_come_with_the_preview_and_an_override_lets_it_start(
    scene: Scene, olga: Asked, sue: Asked
) -> None:
    stored.save(scene.namespace, {"max_ids": 100}, "boss")
    cutover = make_checked(scene)
    status, preview = olga("post", "/cutovers/latest/preview")
    assert (status, [one["rule"] for one in preview["findings"]]) == (200, ["max_ids"])
    status, found = olga("get", "/cutovers/latest/safety")
    assert (found["findings"][0]["blocks"], found["overrides"]) == (True, [])
    status, after = sue("post", "/cutovers/latest/override", rules=["max_ids"], reason="fire")
    assert (status, after["findings"][0]["overridden_by"], after["overrides"][0]["reason"]) == (
        200,
        "sue",
        "fire",
    )
    assert Cutover.objects.get(pk=cutover.pk).requested_by == "sue"


def test_one_operator_asks_and_another_approves(scene: Scene, olga: Asked) -> None:
    stored.save(scene.namespace, {"approval": True}, "boss")
    oskar = Asked(scene, "oskar", OPERATOR)
    assert olga("post", "/cutovers", ranges={"center": ["0~9999"]})[0] == 200
    olga("post", "/cutovers/latest/preview")
    status, asked = olga("post", "/cutovers/latest/request-approval", comment="please")
    assert (status, asked["approval"]["state"]) == (200, "requested")
    assert olga("post", "/cutovers/latest/approve")[0] == 409
    digest = asked["approval"]["digest"]
    status, refused = oskar("post", "/cutovers/latest/approve", seen="0" * 64)
    assert (status, "meanwhile" in refused["error"]["sentence"]) == (409, True)
    status, approved = oskar("post", "/cutovers/latest/approve", seen=digest, comment="fine")
    assert (status, approved["approval"]["approved_by"]) == (200, "oskar")
    status, withdrawn = oskar("post", "/cutovers/latest/withdraw-approval", reason="no")
    assert (status, withdrawn["approval"]["state"]) == (200, "missing")
    assert Asked(scene, "victor", VIEWER)("post", "/cutovers/latest/approve")[0] == 403


def test_a_share_is_shifted_and_a_unit_cut_to_zero(olga: Asked) -> None:
    shift = {"losing": "unbj", "gaining": "center", "percent": 10}
    status, draft = olga("post", "/cutovers", shift=[shift])
    assert (status, draft["kind"], draft["moved_ids"]) == (200, "shift", 400)
    assert draft["asked"] == "10 % of the 4002 ids of unbj, which is 400, go to center"
    status, draft = olga("patch", "/cutovers/latest", to_zero={"unit": "unbj"})
    assert (status, draft["kind"], draft["new"]["ranges"]) == (200, "zero", {"center": ["0~9999"]})
    status, refused = olga("post", "/cutovers", shift=[shift], to_zero={"unit": "unbj"})
    assert (status, "Give one of" in refused["error"]["sentence"]) == (409, True)
    for percent in (0, -1, 101, "nan"):
        assert olga("post", "/cutovers", shift=[{**shift, "percent": percent}])[0] == 422


# -- the page of the rules -----------------------------------------------------------------------------------


def signed_in(group: str) -> Client:
    user = User.objects.create_user(f"page-{group}", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


FORM = {
    "min_share_percent": "20",
    "quiet_s": "",
    "max_ids": "",
    "max_sessions": "500",
    "approval": "on",
    "blocked_windows-TOTAL_FORMS": "1",
    "blocked_windows-INITIAL_FORMS": "0",
    "blocked_windows-0-day": "4",
    "blocked_windows-0-begins": "22:00",
    "blocked_windows-0-ends": "06:00",
    "blocked_windows-0-time_zone": "Asia/Shanghai",
    "blocked_windows-0-note": "report",
}


def test_the_page_of_the_rules_is_one_form_with_its_windows(scene: Scene) -> None:
    client = signed_in(SUPERVISOR)
    listed = client.get("/admin/cutover/safetyrules/", {"namespace": scene.namespace.name}, follow=True)
    assert listed.redirect_chain[-1][0].endswith("/add/")
    saved = client.post("/admin/cutover/safetyrules/add/", FORM)
    assert saved.status_code == 302
    value = stored.value(scene.namespace)
    assert (value["min_share_percent"], value["max_sessions"], value["approval"]) == (20, 500, True)
    assert [window["time_zone"] for window in value["blocked_windows"]] == ["Asia/Shanghai"]
    from units.models import AuditEvent

    event = AuditEvent.objects.get(action="safety_rules.update")
    assert (event.before["min_share_percent"], event.after["min_share_percent"]) == (None, 20)
    assert len(event.after["blocked_windows"]) == 1
    page = client.get("/admin/cutover/safetyrules/", follow=True)
    assert page.redirect_chain[-1][0].endswith("/change/")
    assert "Asia/Shanghai" in page.content.decode()


def test_a_time_zone_that_does_not_exist_is_refused_beside_its_field(scene: Scene) -> None:
    client = signed_in(SUPERVISOR)
    client.get("/", {"namespace": scene.namespace.name})
    wrong = {**FORM, "blocked_windows-0-time_zone": "Mars/Olympus"}
    page = client.post("/admin/cutover/safetyrules/add/", wrong)
    assert page.status_code == 200
    assert "There is no time zone Mars/Olympus" in page.content.decode()
    assert stored.value(scene.namespace)["min_share_percent"] is None


def test_an_operator_sees_the_rules_and_changes_nothing(scene: Scene) -> None:
    stored.save(scene.namespace, {"max_ids": 100}, "boss")
    client = signed_in(OPERATOR)
    page = client.get("/admin/cutover/safetyrules/", {"namespace": scene.namespace.name}, follow=True)
    assert page.status_code == 200
    assert 'name="max_ids"' not in page.content.decode()
    client.post(page.redirect_chain[-1][0], {**FORM, "max_ids": "7"})
    assert stored.value(scene.namespace)["max_ids"] == 100
    assert services.status(make_checked(scene))["findings"][0]["rule"] == "max_ids"
