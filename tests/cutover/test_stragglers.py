"""Who has not come back, by id: asked of nodes that answer through the control stream's own functions."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from cutover import services, stragglers
from cutover.errors import Refused
from cutover.models import Cutover
from msha.steering import wire
from tests.cutover.builders import Scene, make_scene, make_started, take_to
from tests.cutover.pages import page_of, signed_in
from units import probes, probing
from units.models import Probe

State = Cutover.State

Said = dict[str, tuple[list[list[int]], list[list[int]]]]


@pytest.fixture(autouse=True)
def _nodes_do_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stragglers, "ASK_DEADLINE_S", 0.4)


@pytest.fixture
def scene(db: None) -> Scene:
    return make_scene(per_unit=2)


def ended(scene: Scene, closed: int = 3) -> Cutover:
    """A cutover that is done and has closed some sessions."""
    cutover = make_started(scene)
    take_to(scene, cutover, State.DONE)
    figures = {**cutover.figures, "sessions_closed": closed}
    Cutover.objects.filter(pk=cutover.pk).update(figures=figures)
    cutover.refresh_from_db()
    return cutover


def answering(monkeypatch: pytest.MonkeyPatch, scene: Scene, said: Said) -> None:
    """Nodes answer at once: by name, the ids that are gone and those that are back."""
    names = {node.pk: name for name, node in scene.nodes.items()}
    ask = probing.ask

    def asked(questions: Any, deadline_s: float | None = None) -> Any:
        found = ask(questions, deadline_s)
        for probe in Probe.objects.filter(kind=Probe.Kind.RETURNS, state=Probe.State.PENDING):
            name = names[probe.node_id]
            if name not in said:
                continue
            gone, back = said[name]
            among = probe.params["among"]
            kept = [r for r in back if any(a <= r[0] and r[1] <= b for a, b in among)] if among else []
            probes.claim(probe.node_id)
            result = {"ok": True, "ms": 1, "ids": gone if among is None else kept, "left_out": 0}
            probes.answered(probe.node_id, scene.namespace.pk, wire.ProbeResult(probe.pk, result))
        return found

    monkeypatch.setattr(stragglers.probing, "ask", asked)


EVERYBODY: Said = {
    "unbj-1": ([[6000, 6002]], []),
    "unbj-2": ([[6100, 6100]], []),
    "center-1": ([], [[6001, 6001]]),
    "center-2": ([], [[6100, 6100]]),
}


def test_who_is_gone_by_one_node_and_back_by_none_is_named(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutover = ended(scene)
    answering(monkeypatch, scene, EVERYBODY)
    found = services.report(services.find_stragglers(cutover))["stragglers"]["ids"]
    assert (found["count"], found["ranges"]) == (2, ["6000", "6002"])
    assert (found["left_out"], found["silent"]) == (0, [])


def test_a_node_that_cannot_say_is_named_instead(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    cutover = ended(scene)
    scene["center-2"].disconnect()
    answering(monkeypatch, scene, {name: EVERYBODY[name] for name in ("unbj-1", "center-1")})
    found = services.find_stragglers(cutover).figures["stragglers"]
    assert found["silent"] == sorted(scene[name].row.name for name in ("unbj-2", "center-2"))


def test_long_lists_are_cut_and_counted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stragglers, "IDS_LIMIT", 5)
    monkeypatch.setattr(stragglers, "RANGES_LIMIT", 2)
    cutover = ended(scene)
    gone = [[6000, 6000], [6002, 6002], [6004, 6004], [6006, 6006], [6008, 6008], [6010, 6010]]
    answering(monkeypatch, scene, {**EVERYBODY, "unbj-1": (gone, []), "unbj-2": ([], [])})
    found = services.find_stragglers(cutover).figures["stragglers"]
    assert (found["count"], found["ranges"], found["left_out"]) == (5, ["6000", "6002"], 4)


def test_nobody_is_asked_about_before_the_end_or_when_nothing_was_closed(scene: Scene) -> None:
    cutover = make_started(scene)
    with pytest.raises(Refused, match="nobody can be missing"):
        services.find_stragglers(cutover)
    take_to(scene, cutover, State.DONE)
    with pytest.raises(Refused, match="nobody can be missing"):
        services.find_stragglers(cutover)


def test_the_nodes_are_asked_once_by_themselves_when_clients_have_had_their_time(
    scene: Scene, handed_over: list[Any]
) -> None:
    cutover = ended(scene)
    handed_over.clear()
    stragglers.look()
    assert handed_over == []
    Cutover.objects.filter(pk=cutover.pk).update(ended_at=timezone.now() - timedelta(seconds=31))
    stragglers.look()
    stragglers.look()
    assert len(handed_over) == 1


def test_the_page_names_them_and_lets_an_operator_ask_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutover = ended(scene)
    operator = signed_in("operator")
    page = page_of(cutover, "report")
    assert "half a minute after the end" in operator.get(page).content.decode()
    answering(monkeypatch, scene, EVERYBODY)
    assert operator.post(page, {"act": "ask"})["Location"] == page
    assert "6000, 6002" in operator.get(page).content.decode()
    assert signed_in("viewer").post(page, {"act": "ask"}).status_code == 403
