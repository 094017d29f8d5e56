"""Emergency on pages: the switch, what it says first, and declaring the silent nodes of a unit dead."""

import pytest
from django.test import Client

from cutover import services
from cutover.models import Cutover
from tests.cutover.builders import Scene, make_checked, make_scene, make_started, take_to
from tests.cutover.pages import page_of, signed_in
from tests.cutover.test_page_gates import allowed
from units.models import EdgeNode

State = Cutover.State


@pytest.fixture
def scene(db: None) -> Scene:
    return make_scene(per_unit=2)


@pytest.fixture
def operator(scene: Scene) -> Client:
    return signed_in("operator")


def switched(cutover: Cutover) -> Cutover:
    return services.set_mode(cutover, "emergency", "op", "Beijing is gone", cutover.namespace.name)


def dead(cutover: Cutover, unit: str = "unbj") -> str:
    return f"/cutover/{cutover.pk}/declare-dead/{unit}/"


@pytest.mark.parametrize("place", ["preview", "confirm", "progress"])
def test_the_switch_says_what_it_means_wants_a_reason_and_the_namespace(
    scene: Scene, operator: Client, place: str
) -> None:
    cutover = make_started(scene) if place == "progress" else make_checked(scene)
    page = operator.get(page_of(cutover, place)).content.decode()
    assert "PREPARE and FREEZE no longer undo themselves" in page
    name = scene.namespace.name
    for reason, typed, said in ((" ", name, "Give a reason"), ("gone", "another", "Type the name")):
        sent = {"act": "emergency", "reason": reason, "namespace": typed}
        refused = operator.post(page_of(cutover, place), sent)
        assert refused.status_code == 409
        assert said in refused.content.decode()
    sent = {"act": "emergency", "reason": "Beijing is gone", "namespace": name}
    assert operator.post(page_of(cutover, place), sent)["Location"] == page_of(cutover, place)
    cutover.refresh_from_db()
    assert cutover.emergency
    back = {**sent, "act": "planned", "reason": "it is back"}
    assert operator.post(page_of(cutover, place), back).status_code == 302
    cutover.refresh_from_db()
    assert not cutover.emergency


@pytest.mark.parametrize("codenames", [(), ("emergency_cutover",), ("start_cutover",)])
def test_the_switch_needs_two_permissions(scene: Scene, codenames: tuple[str, ...]) -> None:
    cutover = make_checked(scene)
    client = allowed(signed_in("viewer"), *codenames)
    sent = {"act": "emergency", "reason": "gone", "namespace": scene.namespace.name}
    assert client.post(page_of(cutover, "preview"), sent).status_code == 403


def test_declaring_a_unit_dead_names_its_silent_nodes_and_leaves_the_others_to_drain(
    scene: Scene, operator: Client
) -> None:
    cutover = switched(make_started(scene))
    take_to(scene, cutover, State.FREEZE)
    scene["unbj-1"].disconnect()
    silent, live = scene["unbj-1"].row.name, scene["unbj-2"].row.name
    assert dead(cutover) in operator.get(page_of(cutover, "progress")).content.decode()
    page = operator.get(dead(cutover)).content.decode()
    assert f'name="node" value="{silent}"' in page
    assert f'name="node" value="{live}"' not in page
    assert "fence them first" in page
    sent = {
        "act": "declare_dead",
        "node": [silent],
        "typed": "unbj",
        "reason": "fire",
        "fencing": "power is cut",
    }
    assert operator.post(dead(cutover), sent)["Location"] == page_of(cutover, "progress")
    states = dict(EdgeNode.objects.values_list("name", "state"))
    assert (states[silent], states[live]) == ("dead", "enrolled")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("typed", "Type the code of the unit"),
        ("reason", "Give a reason"),
        ("fencing", "Say how these nodes were fenced"),
    ],
)
def test_a_declaration_that_lacks_something_is_refused_and_keeps_what_was_typed(
    scene: Scene, operator: Client, missing: str, said: str
) -> None:
    cutover = switched(make_started(scene))
    scene["unbj-1"].disconnect()
    sent = {"act": "declare_dead", "node": [scene["unbj-1"].row.name], "typed": "unbj"}
    refused = operator.post(dead(cutover), {**sent, "reason": "fire", "fencing": "power", missing: ""})
    assert refused.status_code == 409
    page = refused.content.decode()
    assert said in page
    assert ('value="fire"' in page) == (missing != "reason")
    assert EdgeNode.objects.filter(state="dead").count() == 0


def test_nothing_is_declared_outside_an_emergency_or_of_a_unit_that_loses_nothing(
    scene: Scene, operator: Client
) -> None:
    cutover = make_started(scene)
    scene["unbj-1"].disconnect()
    assert "not an emergency" in operator.get(dead(cutover)).content.decode()
    sent = {"act": "declare_dead", "node": [scene["unbj-1"].row.name], "typed": "unbj"}
    assert operator.post(dead(cutover), {**sent, "reason": "r", "fencing": "f"}).status_code == 409
    assert operator.get(dead(cutover, "center")).status_code == 404
    assert operator.get(dead(cutover, "nowhere")).status_code == 404


@pytest.mark.parametrize(
    "lacks", ["units.declare_dead", "cutover.emergency_cutover", "cutover.start_cutover"]
)
def test_declaring_needs_three_permissions(scene: Scene, lacks: str) -> None:
    cutover = switched(make_started(scene))
    scene["unbj-1"].disconnect()
    three = {"units.declare_dead", "cutover.emergency_cutover", "cutover.start_cutover"} - {lacks}
    client = allowed(signed_in("viewer"), *(name.rpartition(".")[2] for name in three))
    sent = {"act": "declare_dead", "node": [scene["unbj-1"].row.name], "typed": "unbj"}
    assert client.post(dead(cutover), {**sent, "reason": "r", "fencing": "f"}).status_code == 403
    assert 'name="fencing"' not in client.get(dead(cutover)).content.decode()
