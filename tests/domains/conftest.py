from collections.abc import Iterator

import pytest

from domains import services, topology
from tests.support.topologies import WALK_THROUGH
from units.models import Namespace


@pytest.fixture
def demo(db: None) -> Namespace:
    """The namespace of the walk-through, saved and not in effect."""
    topology.apply(topology.parse(WALK_THROUGH), "tester")
    return Namespace.objects.get(name="demo")


@pytest.fixture
def published(demo: Namespace) -> Namespace:
    """The same, with version 1 in effect."""
    services.put_into_effect(demo, "tester", "first")
    demo.refresh_from_db()
    return demo


@pytest.fixture
def use_checks() -> Iterator[list]:
    """The registry of use checks, restored afterwards."""
    from units import in_use

    before = list(in_use._checks)
    yield in_use._checks
    in_use._checks[:] = before
