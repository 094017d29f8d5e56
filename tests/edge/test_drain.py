"""The plan of a drain: who is closed when, and how often all sessions are looked at for it."""

from collections.abc import Iterator
from typing import cast

import pytest

from msha.edge.session.sessions import Sessions
from msha.edge.session.tunnel import Tunnel
from msha.edge.worker.drain import Drain


class Open:
    """A session, as far as a drain looks at it."""

    def __init__(self) -> None:
        self.closing = False


class Registry:
    """Sessions that count how often somebody goes through them."""

    def __init__(self, count: int) -> None:
        self.open = [Open() for _ in range(count)]
        self.walks = 0
        self.closes_some = False

    def __iter__(self) -> Iterator[Open]:
        self.walks += 1
        return iter(list(self.open))

    def __len__(self) -> int:
        return len(self.open)


def drain(registry: Registry, seconds: float) -> Drain:
    return Drain(0.0, seconds, cast(Sessions, registry))


def close(tunnels: list[Tunnel]) -> int:
    for tunnel in cast(list[Open], tunnels):
        assert not tunnel.closing, "twice"
        tunnel.closing = True
    return len(tunnels)


def test_as_long_as_sessions_may_end_by_themselves_nobody_goes_through_them() -> None:
    registry = Registry(1_000)
    plan = drain(registry, 86_400)
    assert not any(plan.due(tick / 10) for tick in range(0, 432_000, 100))
    assert registry.walks == 0


def test_the_rest_is_closed_evenly_and_gone_through_once() -> None:
    registry = Registry(1_000)
    plan = drain(registry, 100)
    closed = [close(plan.due(tick / 10)) for tick in range(500, 900)]
    assert sum(closed) == pytest.approx(1_000, abs=5)
    assert max(closed) <= 4
    assert registry.walks == 1


@pytest.mark.parametrize("ended", [0, 500, 1_000])
def test_those_that_ended_meanwhile_are_not_closed_and_leave_the_others_their_time(ended: int) -> None:
    registry = Registry(1_000)
    plan = drain(registry, 100)
    close(plan.due(50.0))
    for tunnel in registry.open[::2][:ended]:
        tunnel.closing = True
    first = sum(close(plan.due(tick / 10)) for tick in range(500, 700))
    second = sum(close(plan.due(tick / 10)) for tick in range(700, 900))
    assert abs(first - second) < 20


def test_what_opened_meanwhile_is_closed_at_the_end() -> None:
    registry = Registry(10)
    plan = drain(registry, 100)
    for tick in range(500, 900):
        close(plan.due(tick / 10))
    registry.open.append(Open())
    assert close(plan.due(90.0)) >= 1
    assert all(tunnel.closing for tunnel in registry.open)
    registry.open.append(Open())
    assert close(plan.due(90.1)) == 1


def test_those_that_wait_for_their_close_already_are_not_told_again() -> None:
    registry = Registry(10)
    plan = drain(registry, 0)
    assert len(plan.due(0.0)) == 10
    registry.closes_some = True
    assert plan.due(0.1) == []
