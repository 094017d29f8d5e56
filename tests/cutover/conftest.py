"""What every test of the cutover needs."""

from collections.abc import Callable, Iterator

import pytest

from cutover import driving, jobs
from tests.cutover.builders import Scene, make_scene
from units.signals import node_reported


@pytest.fixture(autouse=True)
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Background work is gathered here instead of done in threads that would outlive the test's database."""
    work: list[Callable[[], object]] = []
    monkeypatch.setattr(jobs, "in_background", work.append)
    return work


@pytest.fixture
def deaf() -> Iterator[None]:
    """Nodes' words drive nothing: the test itself advances."""
    node_reported.disconnect(dispatch_uid="cutover.driving.heard")
    yield
    node_reported.connect(driving.heard, dispatch_uid="cutover.driving.heard")


@pytest.fixture
def scene(db: None) -> Scene:
    """Two units with one node each."""
    return make_scene()
