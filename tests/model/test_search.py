"""No order of events breaks an invariant: the short search; `make model` searches further."""

import pytest

from msha.steering.phases import Ending
from tests.model.edges import Broken
from tests.model.scenarios import FULL, SHORT
from tests.model.search import TooMany, Violation, search
from tests.model.world import Machine, Scenario, State


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
def test_no_order_of_events_breaks_an_invariant(scenario: Scenario) -> None:
    found = search(scenario)
    # A model in which nothing can go on would break nothing, either.
    assert {"done", "aborted"} <= found.endings


def test_the_search_reaches_every_ending() -> None:
    scenario = next(scenario for scenario in SHORT if scenario.name == "roll back")
    assert search(scenario).endings == {str(ending) for ending in Ending}


def test_the_full_search_has_all_that_the_short_one_has() -> None:
    assert [scenario.name for scenario in FULL] == [scenario.name for scenario in SHORT]


def test_a_violation_tells_the_shortest_way_to_it_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(machine: Machine, state: State) -> None:
        step = machine.world(state).step
        if step is not None and step.phase == "freeze":
            raise Broken("I0: nothing may freeze")

    monkeypatch.setattr(Machine, "check", broken)
    with pytest.raises(Violation, match="I0: nothing may freeze") as raised:
        search(SHORT[0])
    lines = str(raised.value).splitlines()
    assert lines[1] == "  1. cutover 1 begins"
    assert "applies version 2 (prepare)" in str(raised.value)
    assert any(line.endswith("the gate has passed: freeze of batch 1 is published") for line in lines)


def test_a_state_without_a_way_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "settled", lambda machine, state: False)
    with pytest.raises(Violation, match="no quiet end"):
        search(SHORT[0])


def test_a_search_that_would_never_end_is_given_up() -> None:
    with pytest.raises(TooMany, match="more than 10 states"):
        search(SHORT[0], limit=10)
