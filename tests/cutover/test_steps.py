"""The steps of a cutover against the real rows: each gate, each way back, each at most once."""

from cutover import services
from cutover.models import Cutover
from tests.cutover.builders import (
    MOVED_COUNT,
    NEW_RANGES,
    Scene,
    make_started,
    step,
)

State = Cutover.State
OLD_RANGES = {"center": ["0~5997"], "unbj": ["5998~9999"]}


def test_a_cutover_goes_through_its_four_phases(scene: Scene) -> None:
    cutover = make_started(scene)
    assert cutover.state == State.PREPARE
    assert scene.ranges() == OLD_RANGES
    assert step(scene, cutover) == State.FREEZE
    assert scene.ranges() == OLD_RANGES
    assert scene.rule()["cutover"]["phase"] == "freeze"
    assert step(scene, cutover) == State.ACTIVATE
    assert scene.ranges() == NEW_RANGES
    assert step(scene, cutover) == State.RELEASE
    assert scene.rule()["cutover"] is None
    assert step(scene, cutover) == State.DONE
    status = services.status(cutover)
    assert status["moved_ids"] == MOVED_COUNT
    assert status["frozen_ms"] >= 0
    assert status["phase"] == "done"
