"""Each way of getting the protocol wrong is found: the mutation is made, and an invariant is seen to break.

Mutations of the phases and the decision are made in the code that runs in production; those of edges and
consoles, of which the model has only the outside, are made in the model. Source: PROTOCOL 8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from msha.steering import phases
from msha.steering.phases import NodeView, Outcome, Phase, Plan, Step, Verdict
from tests.model import clients
from tests.model.published import Change
from tests.model.scenarios import (
    BATCHES,
    CHAIN,
    GAINERS,
    LOSERS,
    ONE_EACH,
    ONE_WAY,
    ONWARD,
    THREE,
    TRIPLE,
    TWO,
)
from tests.model.search import Violation, search
from tests.model.world import Scenario

Patch = pytest.MonkeyPatch

#: A search that has found nothing by then has not noticed the mutation.
LIMIT = 400_000


@dataclass(frozen=True)
class Mutation:
    """A wrong way, where it is tried, and what it must break.

    Attributes:
        words: as PROTOCOL 8 names it.
        wrong: the name of what the model does wrong, if it is done there.
        patch: makes the mutation in the code, if it is done there.
    """

    words: str
    breaks: str
    faults: dict[str, int]
    wrong: tuple[str, ...] = ()
    patch: Callable[[Patch], None] | None = None
    changes: tuple[Change, ...] = (ONE_WAY,)
    nodes: tuple[tuple[str, int], ...] = tuple(ONE_EACH.items())
    strangers: tuple[tuple[str, int], ...] = ()
    ids: tuple[int, ...] = (6, 9)
    clients: str = "saturated"
    three: bool = False
    late_client: bool = False

    def scenario(self, *, honest: bool = False) -> Scenario:
        return Scenario(
            self.words,
            THREE if self.three else TWO,
            self.changes,
            dict(self.nodes),
            self.ids,
            self.faults,
            dict(self.strangers),
            clients=self.clients,
            late_client=self.late_client,
            settles=False,
            wrongs=frozenset() if honest else frozenset(self.wrong),
        )


# -- in the code that runs in production ---------------------------------------------------------------------


def harmless_if(judgement: Callable[[NodeView, int], bool]) -> Callable[[Patch], None]:
    """FREEZE's gate believes another proof."""
    return lambda patch: patch.setattr(phases, "_harmless", judgement)


def said_both(node: NodeView, epoch: int) -> bool:
    return node.acked_epoch >= epoch and node.drained_epoch >= epoch


def a_time_out_counts_as_gone(patch: Patch) -> None:
    genuine = phases.judge

    def hasty(plan: Plan, step: Step, epoch: int, nodes: Any, lasted_s: float, **how: Any) -> Verdict:
        nodes = list(nodes)
        if lasted_s > phases.GATE_DEADLINE_S and step.phase is Phase.FREEZE:
            nodes = [node for node in nodes if node.live or said_both(node, epoch)]
        return genuine(plan, step, epoch, nodes, lasted_s, **how)

    patch.setattr(phases, "judge", hasty)


def one_gate_per_pair(patch: Patch) -> None:
    genuine = phases._missing

    def of_the_first_pair(plan: Plan, step: Step, epoch: int, nodes: Any) -> Any:
        first = next(iter(plan.moving(step))).losing
        if step.phase is Phase.FREEZE:
            nodes = [node for node in nodes if node.unit == first]
        return genuine(plan, step, epoch, nodes)

    patch.setattr(phases, "_missing", of_the_first_pair)


def following(**changed: Phase) -> Callable[[Patch], None]:
    """Another order of the phases."""
    genuine = phases._passed

    def passed(plan: Plan, step: Step) -> Verdict:
        to = changed.get(step.phase.value)
        return genuine(plan, step) if to is None else Verdict(Outcome.ADVANCE, to=replace(step, phase=to))

    return lambda patch: patch.setattr(phases, "_passed", passed)


def abort_to_the_old_table(patch: Patch) -> None:
    genuine = Plan.unit_type_in
    patch.setattr(
        Plan,
        "unit_type_in",
        lambda plan, step: plan.old if step.phase is Phase.ABORT else genuine(plan, step),
    )


def turn_to_the_old_table(patch: Patch) -> None:
    genuine = Plan.unit_type_in

    def whole(plan: Plan, step: Step) -> dict[str, Any]:
        back = step.backwards and step.phase in (Phase.ACTIVATE, Phase.RELEASE)
        return plan.old if back else genuine(plan, step)

    patch.setattr(Plan, "unit_type_in", whole)


def abortable(judgement: Callable[[Step], bool]) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(phases, "_abortable", judgement)


def turned_freeze_of_live_nodes(patch: Patch) -> None:
    genuine = phases._missing

    def live(plan: Plan, step: Step, epoch: int, nodes: Any) -> Any:
        if step.turns:
            nodes = [node for node in nodes if node.live]
        return genuine(plan, step, epoch, nodes)

    patch.setattr(phases, "_missing", live)


def in_sync_for(sync_of: Callable[[bool], bool]) -> Callable[[Patch], None]:
    """The edges' decision believes something else about synchrony."""
    genuine = clients.decide
    return lambda patch: patch.setattr(
        clients,
        "decide",
        lambda snapshot, unit, request, sync: genuine(snapshot, unit, request, sync_of(sync)),
    )


def no_version_in_redirects(patch: Patch) -> None:
    """M is gone: nobody looks at the version that a redirect carries."""
    genuine = clients.decide

    def without(snapshot: Any, unit: str, request: Any, sync: bool) -> Any:
        request.query = ""
        return genuine(snapshot, unit, request, sync)

    patch.setattr(clients, "decide", without)


IN_BATCHES: dict[str, Any] = {"changes": (BATCHES,), "ids": (6, 8)}
WITH_LOSERS = tuple(LOSERS.items())
WITH_GAINERS = tuple(GAINERS.items())
A_CLIENT: dict[str, Any] = {"clients": "none", "ids": (6,), "late_client": True}

MUTATIONS = [
    Mutation("ack before drained", "I[128]", {}, patch=harmless_if(lambda n, e: n.acked_epoch >= e)),
    Mutation("ack before disk", "I[1268]", {"crash": 1}, ("an ack comes before the disk",)),
    Mutation("drained without the half-open ones", "I[128]", {}, ("drained forgets half-open handshakes",),
             clients="handshakes"),
    Mutation("applying an older version", "I[1268]", {"delay": 1}, ("an older version is applied",)),
    Mutation("live instead of enrolled in FREEZE", "I[128]", {"flap": 1},
             patch=harmless_if(lambda n, e: not n.live or said_both(n, e))),
    Mutation("a lost stream counted as gone at once", "I[128]", {"silence": 1}, nodes=WITH_LOSERS,
             patch=harmless_if(lambda n, e: not n.live or said_both(n, e))),
    Mutation("a lost stream counted as gone after 10 s", "I[128]", {"flap": 1},
             patch=a_time_out_counts_as_gone),
    Mutation("a draining node counted as gone", "I[128]", {"term": 1}, ("a draining node counts as gone",)),
    Mutation("a node that listens before it is enrolled", "I[1268]", {},
             ("a node listens before it is enrolled",), strangers=(("unbj", 1),)),
    Mutation("a node that starts below its own file", "I[1268]", {"crash": 1},
             ("a node starts below its own file",)),
    Mutation("a node that starts from its file after a tombstone", "I[1268]", {"leave": 1},
             ("a node starts after its tombstone",)),
    Mutation("one gate per pair of units instead of over all", "I[128]", {}, patch=one_gate_per_pair,
             changes=(CHAIN,), ids=(2, 6), nodes=tuple(TRIPLE.items()), three=True),
    Mutation("an ordinary publish that composes the rule part from saved data", "I[1258]", {"publish": 1},
             ("an ordinary publish composes the rule from saved data",)),
    Mutation("content computed outside the publishing transaction", "I[1258]|end", {"publish": 1},
             ("content is computed outside the transaction",)),
    Mutation("a step without compare-and-set", "I[1278]", {"driver": 1, "abort": 1},
             ("a step is published without compare-and-set",)),
    Mutation("abort to the old table in batch 2", "I[128]", {"abort": 1}, patch=abort_to_the_old_table,
             **IN_BATCHES),
    Mutation("abort by the old table after ACTIVATE", "I[128]", {"abort": 1},
             patch=abortable(lambda step: step.phase is not Phase.ABORT and step.turns == 0)),
    Mutation("un-freezing on a timer", "I[1268]", {}, ("frozen ids are served again on a timer",)),
    Mutation("a hold answered from the snapshot of its arrival", "I[128]", {},
             ("a hold is answered from the snapshot of its arrival",), clients="handshakes"),
    Mutation("stream-up instead of in-sync in S", "I3", {"connect": 1, "silence": 1},
             ("a node is in sync while its stream is up",), nodes=WITH_GAINERS, **A_CLIENT),
    Mutation("no S", "I3", {"connect": 1, "flap": 1}, patch=in_sync_for(lambda sync: True),
             nodes=WITH_GAINERS, **A_CLIENT),
    Mutation("a console that confirms from a stale read, without M", "I3",
             {"connect": 1, "stale-confirm": 1, "silence": 1}, patch=no_version_in_redirects,
             nodes=WITH_GAINERS, **A_CLIENT),
    Mutation("proxy straight to a back-source", "I1", {"next": 1},
             ("a stranger is proxied straight to a back-source",), changes=ONWARD, ids=(2,), three=True,
             nodes=tuple(TRIPLE.items())),
    Mutation("freezing only the losing side and then switching everybody at once", "I3", {"connect": 1},
             patch=following(freeze=Phase.RELEASE), **A_CLIENT),
    Mutation("gaining first", "I[128]", {}, patch=following(prepare=Phase.ACTIVATE)),
    Mutation("pushing at once", "I[128]", {}, patch=following(prepare=Phase.RELEASE)),
    Mutation("joining outside the namespace lock", "I[1268]", {}, ("joining is not locked",),
             strangers=(("unbj", 1),)),
    Mutation("a late left counted for a newer enrolment", "I[128]", {"leave": 1, "late": 1},
             ("a late left is believed",)),
    Mutation("a late drained counted for a newer epoch", "I[128]", {"turn": 2},
             patch=harmless_if(lambda n, e: n.acked_epoch >= e and n.drained_epoch >= 0)),
    Mutation("a cluster moved in mid-cutover", "I[128]", {"publish": 1},
             ("a cluster is moved in mid-cutover",)),
    Mutation("a turn-around's FREEZE that aborts on a time-out", "I[128]", {"turn": 1},
             patch=abortable(lambda step: step.phase in (Phase.PREPARE, Phase.FREEZE))),
    Mutation("a turn-around's FREEZE that waits only for live nodes", "I[128]", {"turn": 1, "flap": 1},
             patch=turned_freeze_of_live_nodes),
    Mutation("a turn-around in batch 2 to the whole old table", "I[128]", {"turn": 1},
             patch=turn_to_the_old_table, **IN_BATCHES),
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.words)
def test_the_mutation_breaks_an_invariant(mutation: Mutation, monkeypatch: Patch) -> None:
    if mutation.patch is not None:
        mutation.patch(monkeypatch)
    with pytest.raises(Violation, match=rf": ({mutation.breaks}):"):
        search(mutation.scenario(), LIMIT)


@pytest.mark.parametrize(
    "mutation",
    [m for m in MUTATIONS if not m.late_client and "late" not in m.faults],
    ids=lambda mutation: mutation.words,
)
def test_without_the_mutation_nothing_breaks(mutation: Mutation) -> None:
    assert search(mutation.scenario(honest=True), LIMIT).states > 100
