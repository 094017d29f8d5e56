from collections.abc import Iterator

import pytest

from cutover.hooks import calling
from tests.cutover.builders import Scene, make_scene
from tests.cutover.hooks.builders import YES
from tests.support.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that says yes to everything."""
    with receiving() as running:
        running.lasting = YES
        yield running


@pytest.fixture
def scene(transactional_db: None) -> Scene:
    """Two units with one node each; calls begin after real commits."""
    return make_scene()


@pytest.fixture
def _asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits half a second for the next call."""
    monkeypatch.setattr(calling, "AGAIN_S", 0.02)
