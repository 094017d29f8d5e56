"""A worker, and a back-source behind it."""

from collections.abc import Iterator

import pytest

from tests.support.edge_worker import EdgeWorker, make_config, make_rule
from tests.support.websocket_wire import BackSource


@pytest.fixture
def back_source() -> Iterator[BackSource]:
    """The only back-source of unit center."""
    server = BackSource()
    yield server
    server.close()


@pytest.fixture
def bare_worker() -> Iterator[EdgeWorker]:
    """A worker of unit center without a snapshot."""
    worker = EdgeWorker().start()
    yield worker
    worker.stop()


@pytest.fixture
def worker(bare_worker: EdgeWorker, back_source: BackSource) -> EdgeWorker:
    """A worker of unit center that listens and obeys the walk-through's rule."""
    bare_worker.apply(make_config({"center": [back_source.address], "unbj": ["127.0.0.1:9"]}), make_rule())
    bare_worker.listen()
    return bare_worker
