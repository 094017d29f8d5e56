"""The API of cutovers: who may do what, what is answered, and the form of every refusal."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from cutover.models import Check, Cutover
from cutover.prechecks import PRECHECKS
from tests.cutover.builders import NEW_RANGES, Scene, make_checked, make_draft, make_started, take_to
from units.groups import OPERATOR, VIEWER
from units.models import ApiToken
from units.tokens import API_PREFIX, make_token

State = Cutover.State


def bearer(name: str, *groups: str) -> dict[str, str]:
    user = User.objects.create_user(name, password="a-password-of-tests")
    user.groups.set(Group.objects.filter(name__in=groups))
    token = make_token(API_PREFIX)
    ApiToken.objects.create(user=user, name="test", token_hash=token.hash)
    return {"HTTP_AUTHORIZATION": f"Bearer {token.text}"}


class Api:
    """The API as one user sees it."""

    def __init__(self, scene: Scene, headers: dict[str, str]) -> None:
        self.base = f"/api/v1/namespaces/{scene.namespace.name}/cutovers"
        self._client = Client()
        self._headers = headers

    def get(self, path: str = "") -> tuple[int, Any]:
        return self._value(self._client.get(self.base + path, **self._headers))

    def post(self, path: str = "", **body: Any) -> tuple[int, Any]:
        return self._send(self._client.post, path, body)

    def put(self, path: str = "", **body: Any) -> tuple[int, Any]:
        return self._send(self._client.put, path, body)

    def patch(self, path: str = "", **body: Any) -> tuple[int, Any]:
        return self._send(self._client.patch, path, body)

    def _send(self, method: Callable[..., Any], path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return self._value(
            method(self.base + path, json.dumps(body), content_type="application/json", **self._headers)
        )

    @staticmethod
    def _value(response: Any) -> tuple[int, Any]:
        return response.status_code, response.json()


@pytest.fixture
def olga(scene: Scene) -> Api:
    """An operator."""
    return Api(scene, bearer("olga", OPERATOR))


@pytest.fixture
def victor(scene: Scene) -> Api:
    """A viewer."""
    return Api(scene, bearer("victor", VIEWER))


def test_a_cutover_is_drafted_previewed_checked_and_started(scene: Scene, olga: Api) -> None:
    status, draft = olga.post(ranges=NEW_RANGES, reason="more room")
    assert (status, draft["id"], draft["phase"], draft["moved_ids"]) == (200, 1, "draft", 383)
    status, preview = olga.post("/1/preview")
    assert status == 200
    assert preview["impact"].startswith("383 of 10000 ids (5998~6380)")
    assert [unit["code"] for unit in preview["units"]] == ["center", "unbj"]
    status, checking = olga.post("/1/checks")
    assert (status, checking["phase"], len(checking["checks"])) == (200, "checking", len(PRECHECKS))
    Check.objects.update(state=Check.State.PASSED)
    Cutover.objects.update(state=State.CHECKED)
    status, started = olga.post("/1/start", namespace=scene.namespace.name)
    assert (status, started["phase"], started["started_by"]) == (200, "starting", "olga")


def test_latest_and_running_stand_for_a_number(scene: Scene, olga: Api) -> None:
    running = make_started(scene)
    make_draft(scene, {"center": ["0~9"], "unbj": ["10~9999"]})
    assert olga.get("/latest")[1]["id"] == 2
    assert olga.get("/running")[1]["id"] == running.number
    assert olga.get("/1")[1]["pk"] == running.pk


def test_the_list_has_the_newest_first(scene: Scene, olga: Api) -> None:
    make_draft(scene)
    make_draft(scene, {"center": ["0~9"], "unbj": ["10~9999"]})
    status, listed = olga.get()
    assert (status, [line["id"] for line in listed["cutovers"]]) == (200, [2, 1])
    assert olga.get("?before=2")[1]["cutovers"][0]["id"] == 1


def test_a_draft_is_adjusted_and_discarded(scene: Scene, olga: Api) -> None:
    make_draft(scene)
    status, changed = olga.patch("/1", exact={"unbj": [42]})
    assert (status, changed["moved_ids"]) == (200, 1)
    assert olga.post("/1/discard")[1]["phase"] == "discarded"


def test_a_failed_check_is_retried_and_skipped(scene: Scene, olga: Api) -> None:
    cutover = make_checked(scene)
    Cutover.objects.filter(pk=cutover.pk).update(state=State.CHECKING)
    Check.objects.filter(cutover=cutover, key="clocks").update(state=Check.State.FAILED)
    assert olga.post("/1/checks/clocks/skip", reason="known")[0] == 200
    assert olga.get("/1")[1]["phase"] == "checked"
    status, retried = olga.post("/1/checks/clocks/retry")
    states = {check["key"]: check["state"] for check in retried["checks"]}
    assert (status, states["clocks"]) == (200, "pending")


@pytest.mark.parametrize(
    ("act", "state", "after"),
    [
        ("abort", State.FREEZE, "aborting"),
        ("turn-around", State.ACTIVATE, "freeze"),
        ("finish", State.RELEASE, "done"),
    ],
)
def test_a_running_cutover_is_commanded(scene: Scene, olga: Api, act: str, state: str, after: str) -> None:
    take_to(scene, make_started(scene), state)
    status, commanded = olga.post(f"/running/{act}", reason="as the runbook says")
    assert (status, commanded["phase"]) == (200, after)


def test_a_roll_back_is_a_new_draft(scene: Scene, olga: Api) -> None:
    take_to(scene, make_started(scene), State.DONE)
    status, back = olga.post("/1/rollback")
    assert (status, back["id"], back["rollback_of"], back["phase"]) == (200, 2, 1, "draft")


def test_a_bad_rule_names_its_place(olga: Api) -> None:
    status, refused = olga.post(ranges={"center": ["0~10000"]})
    assert status == 422
    assert refused["error"]["place"] == "ranges.center"
    assert "leaves the key space" in refused["error"]["sentence"]


def test_what_the_state_does_not_allow_is_a_conflict_with_a_sentence(scene: Scene, olga: Api) -> None:
    make_draft(scene)
    status, refused = olga.post("/1/start", namespace=scene.namespace.name)
    assert (status, refused["error"]["code"]) == (409, "refused")
    assert "preview" in refused["error"]["sentence"]


@pytest.mark.parametrize("number", ["7", "latest", "running", "first", "9" * 30])
def test_a_cutover_that_does_not_exist_is_not_found(olga: Api, number: str) -> None:
    status, refused = olga.get(f"/{number}")
    assert (status, refused["error"]["code"]) == (404, "not_found")


CHANGES = [
    ("post", ""),
    ("patch", "/1"),
    ("post", "/1/preview"),
    ("post", "/1/checks"),
    ("post", "/1/checks/clocks/retry"),
    ("post", "/1/checks/clocks/skip"),
    ("post", "/1/start"),
    ("post", "/1/abort"),
    ("post", "/1/turn-around"),
    ("post", "/1/finish"),
    ("post", "/1/rollback"),
    ("post", "/1/discard"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_viewer_may_look_and_change_nothing(scene: Scene, victor: Api, method: str, path: str) -> None:
    before = make_draft(scene)
    assert victor.get("/1")[0] == 200
    status, refused = getattr(victor, method)(path, reason="x", ranges=NEW_RANGES)
    assert (status, refused["error"]["code"]) == (403, "forbidden")
    before.refresh_from_db()
    assert before.state == State.DRAFT


@pytest.mark.parametrize("path", ["", "/1"])
def test_nobody_looks_without_a_token(scene: Scene, path: str) -> None:
    make_draft(scene)
    assert Api(scene, {}).get(path)[0] == 401
    assert Api(scene, bearer("nora")).get(path)[0] == 403
