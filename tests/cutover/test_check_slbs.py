"""The prechecks of what stands around the gaining units' nodes: their balancers, and the room they have."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cutover import checking, previews, services
from cutover.models import Check, Cutover
from tests.cutover.builders import NEW_RANGES, Scene, make_scene
from tests.support.answering import answering, well
from units import probing
from units.models import Cluster, Probe, Slb, Unit

pytestmark = pytest.mark.django_db(transaction=True)

State = Check.State


@pytest.fixture(autouse=True)
def _time_to_answer(monkeypatch: pytest.MonkeyPatch, _nodes_do_not_answer_for_long: None) -> None:
    monkeypatch.setattr(previews, "COUNT_DEADLINE_S", 2.0)
    monkeypatch.setattr(probing, "DEADLINE_S", 2.0)


@pytest.fixture
def scene() -> Scene:
    return make_scene()


def make_slb(scene: Scene, unit: str, address: str) -> Slb:
    row = Unit.objects.get(namespace=scene.namespace, code=unit)
    cluster = Cluster.objects.get(namespace=scene.namespace, name=f"ws-{unit}")
    return Slb.objects.create(
        namespace=scene.namespace,
        unit=row,
        name=f"slb-{unit}",
        address=address,
        external_id=f"id-{unit}",
        cluster=cluster,
    )


def checked(
    scene: Scene, key: str, answer: Callable[[Probe], Mapping[str, Any] | None] = well
) -> tuple[str, str, list[Probe]]:
    """State and sentence of one check, and what was asked for all of them."""
    cutover: Cutover = services.create_draft(scene.namespace, "unit_type", actor="op", ranges=NEW_RANGES)
    with answering(answer) as asked:
        services.preview(cutover, "op")
        services.run_prechecks(cutover, "op")
        checking.run(cutover.pk)
    check = Check.objects.get(cutover=cutover, key=key)
    return check.state, check.reason, [probe for probe in asked if "slb" in probe.params]


def through_the_slb(**result: Any) -> Callable[[Probe], Mapping[str, Any] | None]:
    return lambda probe: {"ms": 1, **result} if "slb" in probe.params else well(probe)


def test_without_a_known_balancer_there_is_none_to_try(scene: Scene) -> None:
    state, reason, asked = checked(scene, "slbs")
    assert (state, asked) == (State.PASSED, [])
    assert reason == "No SLB of the gaining units is known, so there is none to try."


def test_a_handshake_goes_through_the_balancer_of_the_gaining_unit_alone(scene: Scene) -> None:
    make_slb(scene, "center", "127.0.0.9:8080")
    make_slb(scene, "unbj", "127.0.0.10:8080")
    state, reason, asked = checked(scene, "slbs", through_the_slb(ok=True, status=101))
    assert (state, reason) == (State.PASSED, "SLBs passed a WebSocket handshake on: slb-center.")
    assert {probe.params["server"] for probe in asked} == {"127.0.0.9:8080"}
    assert {probe.node.unit.code for probe in asked} == {"center"}
    assert {probe.params["host"] for probe in asked} == {"websocket.localhost"}


def test_an_address_without_a_port_is_tried_at_the_port_of_the_domain(scene: Scene) -> None:
    make_slb(scene, "center", "localhost")
    _, _, asked = checked(scene, "slbs", through_the_slb(ok=True, status=101))
    assert {probe.params["server"] for probe in asked} == {"127.0.0.1:80"}


def test_a_redirect_shows_that_the_handshake_arrived_whole(scene: Scene) -> None:
    make_slb(scene, "center", "127.0.0.9:8080")
    assert checked(scene, "slbs", through_the_slb(ok=False, status=302))[0] == State.PASSED


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"ok": False, "status": 400}, "let it speak http/1.1"),
        ({"ok": False, "status": 502}, "answered 502"),
        ({"ok": False, "error": "No connection to 127.0.0.9:8080: refused."}, "No connection"),
        ({"ok": False}, "did not answer"),
    ],
)
def test_a_balancer_that_does_not_pass_it_on_is_named(
    scene: Scene, answer: dict[str, Any], words: str
) -> None:
    make_slb(scene, "center", "127.0.0.9:8080")
    state, reason, _ = checked(scene, "slbs", through_the_slb(**answer))
    assert state == State.FAILED
    assert "slb-center (127.0.0.9:8080)" in reason
    assert words.lower() in reason.lower()


def test_a_node_that_does_not_say_what_came_of_it_is_a_failure(scene: Scene) -> None:
    make_slb(scene, "center", "127.0.0.9:8080")
    state, reason, _ = checked(scene, "slbs", lambda probe: None if "slb" in probe.params else well(probe))
    assert (state, "did not answer" in reason) == (State.FAILED, True)


def test_a_unit_with_room_is_told_by_its_numbers(scene: Scene) -> None:
    state, reason, _ = checked(scene, "capacity")
    assert (state, reason) == (State.PASSED, "center gains 4 sessions and has 0 of at most 1000.")


def test_a_unit_that_would_be_filled_up_is_a_failure(scene: Scene) -> None:
    scene["center-1"].status(sessions=897)
    state, reason, _ = checked(scene, "capacity")
    assert state == State.FAILED
    assert "should take at most 900 of the 1000" in reason
    scene["center-1"].status(sessions=896)
    assert checked(scene, "capacity")[0] == State.PASSED


def test_a_node_that_does_not_listen_gives_no_room(scene: Scene) -> None:
    scene["center-1"].status(listening=False)
    assert checked(scene, "capacity")[0] == State.FAILED
