"""Pacing, emergency mode and consequences by the API: who may, what is answered, what is refused."""

import pytest
from django.contrib.auth.models import Permission, User

from cutover import services
from cutover.models import Check, Cutover
from tests.cutover.builders import Scene, make_checked, make_draft, make_started, step
from tests.cutover.test_api import Api, bearer
from units.groups import OPERATOR, VIEWER

State = Cutover.State


@pytest.fixture
def olga(scene: Scene) -> Api:
    """An operator."""
    return Api(scene, bearer("olga", OPERATOR))


@pytest.fixture
def victor(scene: Scene) -> Api:
    """A viewer."""
    return Api(scene, bearer("victor", VIEWER))


def test_a_draft_is_paced_and_says_so(scene: Scene, olga: Api) -> None:
    make_draft(scene)
    gate = {"reconnect": 0.9, "refused": None, "stragglers": 20}
    status, draft = olga.put("/1/pacing", steps=[1, 10], bake_s=30, gate=gate, on_failure="undo")
    assert status == 200
    assert draft["pacing"]["steps"] == [1, 10]
    assert draft["pacing"]["gate"]["stragglers"] == 20
    assert draft["pacing_said"] == "1 %, 10 %, then the rest; 30 s between steps; undone if a gate fails"
    assert draft["command"].endswith(
        "--batches 1,10 --bake 30 --on-failure undo --gate refused=none,reconnect=0.9,stragglers=20"
    )
    _, draft = olga.put("/1/pacing")
    assert (draft["pacing"], draft["pacing_said"]) == ({}, "everything at once")


def test_a_pacing_that_cannot_be_is_refused_with_its_place(scene: Scene, olga: Api, victor: Api) -> None:
    make_draft(scene)
    status, answer = olga.put("/1/pacing", steps=[10, 1])
    assert (status, answer["error"]["place"]) == (422, "pacing.steps")
    status, answer = victor.put("/1/pacing", steps=[1])
    assert status == 403


def test_the_batches_and_what_holds_them_are_told(scene: Scene, olga: Api) -> None:
    cutover = make_checked(scene)
    services.set_pacing(cutover, {"steps": [50], "bake_s": 60}, "op")
    services.start(cutover, "op", scene.namespace.name)
    for _ in range(5):
        step(scene, cutover)
    _, status = olga.get("/1")
    assert [(batch["stage"], batch["ids"], batch["state"]) for batch in status["batches_detail"]] == [
        (1, 192, "moved"),
        (2, 191, "waiting"),
    ]
    assert status["hold"]["kind"] == "baking"
    assert status["held"].startswith("The gaining units are watched until ")
    assert status["baking_since"] is not None


def test_every_possible_act_says_first_what_it_would_do(scene: Scene, olga: Api) -> None:
    cutover = make_checked(scene)
    Cutover.objects.filter(pk=cutover.pk).update(impact={"pairs": [["unbj", "center", 400]]})
    cutover.refresh_from_db()
    services.set_pacing(cutover, {"steps": [50], "bake_s": 60}, "op")
    services.start(cutover, "op", scene.namespace.name)
    for _ in range(5):
        step(scene, cutover)
    status, said = olga.get("/1/consequences")
    assert status == 200
    assert set(said) == {"pause", "turn_around", "stop_here", "emergency"}
    assert "About 201 sessions are closed by it." in said["turn_around"]
    assert "A batch was frozen for at most" in said["turn_around"]
    services.pause(cutover, "op", "look")
    _, said = olga.get("/1/consequences")
    assert "191 ids are frozen" in said["resume"]
    assert "About 199 sessions" in said["resume"]


def test_the_mode_is_switched_by_who_may(scene: Scene, olga: Api, victor: Api) -> None:
    make_started(scene)
    said = {"mode": "emergency", "reason": "site down", "namespace": scene.namespace.name}
    assert victor.put("/running/mode", **said)[0] == 403
    status, cutover = olga.put("/running/mode", **said)
    assert (status, cutover["mode"]) == (200, "emergency")
    status, answer = olga.put("/running/mode", **said)
    assert (status, "already" in answer["error"]["sentence"]) == (409, True)


def test_a_unit_is_declared_dead_by_who_may(scene: Scene, olga: Api, victor: Api) -> None:
    cutover = make_started(scene)
    services.set_mode(cutover, "emergency", "op", "site down", scene.namespace.name)
    scene["unbj-1"].disconnect()
    said = {"unit": "unbj", "typed": "unbj", "reason": "site down", "fencing": "no power"}
    assert victor.post("/running/declare-dead", **said)[0] == 403
    _, status = olga.get("/running")
    listed = status["losing"][0]["silent"]
    status, answer = olga.post("/running/declare-dead", **said, nodes=listed)
    assert (status, answer["declared"]) == (200, listed)
    assert answer["cutover"]["losing"] == [{"unit": "unbj", "silent": [], "live": []}]


def test_an_emergency_starts_only_for_who_may(scene: Scene) -> None:
    cutover = make_checked(scene)
    services.set_mode(cutover, "emergency", "op", "site down", scene.namespace.name)
    Check.objects.update(state=Check.State.PASSED)
    api = Api(scene, bearer("oleg", OPERATOR))
    user = User.objects.get(username="oleg")
    user.groups.clear()
    names = ("view_namespace", "view_cutover", "start_cutover")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    status, answer = api.post("/1/start", namespace=scene.namespace.name)
    assert (status, "cutover.emergency_cutover" in answer["error"]["sentence"]) == (403, True)
    user.user_permissions.add(Permission.objects.get(codename="emergency_cutover"))
    assert api.post("/1/start", namespace=scene.namespace.name)[0] == 200
