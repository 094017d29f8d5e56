"""The console of the model: it judges and publishes by `msha.steering.phases`, and obeys its operator."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from msha.steering import phases
from msha.steering.errors import InvalidStep
from msha.steering.phases import ClusterWithoutAck, Ending, NodeView, Outcome, Phase, Step, Verdict
from tests.model.clients import Client
from tests.model.edges import Broken
from tests.model.published import Published

#: Seconds that a step has lasted, before and after its deadline.
IN_TIME, OVERDUE = 1.0, 11.0


class Stale(NamedTuple):
    """What a second driver has read, a while ago."""

    step: Step
    epoch: int
    to: Step


class World(NamedTuple):
    """Everything but the edges.

    Attributes:
        newest: the number of the newest snapshot.
        budget: how often each kind of fault may still happen.
        plan: the cutover that runs, or ran last; -1 before the first.
        step: the published step that runs.
        driver: what a second driver is about to do.
        read: the rule part that somebody has read to publish it later (a mutation).
        moved_away: whether the cluster of a losing node was moved (a mutation).
    """

    newest: int
    budget: tuple[int, ...]
    plan: int = -1
    step: Step | None = None
    ending: Ending | None = None
    emergency: bool = False
    driver: Stale | None = None
    read: int = -1
    moved_away: bool = False
    client: Client | None = None

    def spent(self, kind: int) -> "World":
        """One fault of the kind less."""
        left = (*self.budget[:kind], self.budget[kind] - 1, *self.budget[kind + 1 :])
        return self._replace(budget=left)


#: What happens, the world after it, and whether it happens sooner or later without faults.
Turn = tuple[str, World, bool]


class Consoles:
    """The moves of consoles and operators; all of them see the same database."""

    def __init__(self, published: Published, wrongs: frozenset[str], heeded: int) -> None:
        self.published = published
        self.wrongs = wrongs
        self.heeded = heeded

    def moves(self, world: World, views: Sequence[NodeView], kinds: Mapping[str, int]) -> Iterator[Turn]:
        """Everything that may be published or decided next.

        Args:
            kinds: the faults that may still happen, each with its place in the budget.

        Raises:
            Broken: I5, I7 or I10.
        """
        if world.step is None:
            yield from self._begin(world, kinds)
        else:
            yield from self._judge(world, world.step, self._counted(world, views))
            yield from self._operate(world, world.step, kinds)
        yield from self._second_driver(world, self._counted(world, views), kinds)
        if "publish" in kinds:
            yield from self._publish_ordinarily(world.spent(kinds["publish"]))
        if world.read >= 0:
            after = self._published(world, world.read, epochs=0)._replace(read=-1)
            yield "the change is published, with the rule part that was read before", after, False

    # steps

    def _begin(self, world: World, kinds: Mapping[str, int]) -> Iterator[Turn]:
        plan = world.plan + 1
        if plan >= len(self.published.plans) or (plan > 0 and "next" not in kinds):
            return
        if self.published.starts_from(self.published.rule_of(world.newest), plan):
            begun = world.spent(kinds["next"]) if plan > 0 else world
            begun = begun._replace(plan=plan, ending=None, emergency=False)
            yield f"cutover {plan + 1} begins", self._step(begun, Step(Phase.PREPARE)), False

    def _judge(self, world: World, step: Step, views: Sequence[NodeView]) -> Iterator[Turn]:
        plan, epoch = self.published.plans[world.plan], self.published.epoch_of(world.newest)
        in_time, overdue = (
            phases.judge(plan, step, epoch, views, lasted_s, emergency=world.emergency)
            for lasted_s in (IN_TIME, OVERDUE)
        )
        if overdue.outcome is Outcome.WAIT and not overdue.alarm:
            raise Broken(f"I10: {step} waits for {overdue.missing} and raises no alarm")
        for verdict, words in ((in_time, "the gate has passed"), (overdue, "the deadline has passed")):
            if verdict.to is not None:
                yield f"{words}: {_named(verdict.to)} is published", self._step(world, verdict.to), True
            elif verdict.outcome is Outcome.FINISH:
                yield f"{words}: {verdict.ending}", self._ended(world, step, verdict), True
            if in_time.outcome is not Outcome.WAIT:
                return
        if world.emergency and self.heeded:
            calm = world._replace(emergency=False)
            yield "the operator heeds the alarm: no emergency any more", calm, True
        if step.phase is Phase.ACTIVATE and step.turns < self.heeded and _hopeless(overdue):
            to = phases.turned_around(step)
            yield f"the operator heeds the alarm: {_named(to)}", self._step(world, to), True

    def _operate(self, world: World, step: Step, kinds: Mapping[str, int]) -> Iterator[Turn]:
        ways = {"abort": phases.aborted, "turn": phases.turned_around, "rollback": phases.rolled_back}
        for kind, way in ways.items():
            if kind not in kinds:
                continue
            try:
                to = way(step)
            except InvalidStep:
                continue
            spent = world.spent(kinds[kind])
            after = spent._replace(step=to) if to == replace(step, unwinding=True) else self._step(spent, to)
            yield f"the operator asks for {kind}: {_named(to)}", after, False
        if "stop" in kinds:
            try:
                phases.refuse_to_stop_in(self.published.plans[world.plan], step)
            except InvalidStep:
                pass
            else:
                stopped = world.spent(kinds["stop"])._replace(step=None, ending=Ending.STOPPED)
                yield "the operator stops it between two batches", stopped, False
        if "finish" in kinds and self._finishes(world, step):
            finished = world.spent(kinds["finish"])._replace(step=None, ending=Ending.DONE)
            yield "the operator finishes it with stragglers", finished, False
        if "emergency" in kinds:
            switched = world.spent(kinds["emergency"])._replace(emergency=not world.emergency)
            yield "the operator switches emergency mode", switched, False

    def _finishes(self, world: World, step: Step) -> bool:
        """Whether the step may be finished without all nodes, as `cutover.commands` allows it."""
        last = not phases.goes_on(self.published.plans[world.plan], step)
        return last and step.phase in (Phase.RELEASE, Phase.ABORT)

    def _second_driver(
        self, world: World, views: Sequence[NodeView], kinds: Mapping[str, int]
    ) -> Iterator[Turn]:
        """A worker that has read everything, sleeps, and then publishes by compare-and-set."""
        epoch = self.published.epoch_of(world.newest)
        if "driver" in kinds and world.step is not None and world.driver is None:
            plan = self.published.plans[world.plan]
            verdict = phases.judge(plan, world.step, epoch, views, IN_TIME, emergency=world.emergency)
            if verdict.to is not None:
                read = world.spent(kinds["driver"])
                read = read._replace(driver=Stale(world.step, epoch, verdict.to))
                yield f"a second driver reads that {_named(verdict.to)} may follow", read, False
        if world.driver is not None:
            stands = (world.step, epoch) == (world.driver.step, world.driver.epoch)
            done = world._replace(driver=None)
            if stands or "a step is published without compare-and-set" in self.wrongs:
                after = self._step(done, world.driver.to)
                yield f"the second driver publishes {_named(world.driver.to)}", after, False
            else:
                yield "the second driver finds that its step was taken", done, False

    def _step(self, world: World, to: Step) -> World:
        rule = self.published.rule_after(self.published.rule_of(world.newest), world.plan, to)
        after = self._published(world, rule, epochs=1)._replace(step=to)
        if after.client is not None and (
            to.phase is Phase.PREPARE or (to.phase is Phase.FREEZE and to.turns)
        ):
            after = after._replace(client=after.client._replace(begun=True))
        return after

    def _ended(self, world: World, step: Step, verdict: Verdict) -> World:
        plan, rule = self.published.plans[world.plan], self.published.rule_of(world.newest)
        if self.published.rule(rule)["cutover"] is not None:
            raise Broken("end: the cutover has ended and its rule part still tells of it")
        if not self.published.table_is(rule, plan.after(plan.finished_batches(step))):
            raise Broken("end: the cutover has ended and left another table than its ending says")
        return world._replace(step=None, ending=verdict.ending, driver=None)

    # publishing

    def _published(self, world: World, rule: int, *, epochs: int) -> World:
        version = self.published.version_of(world.newest) + 1
        epoch = self.published.epoch_of(world.newest) + epochs
        client = world.client
        if client is not None:
            client = client._replace(published=True, redirected_by=frozenset())
        return world._replace(newest=self.published.snapshot(rule, version, epoch), client=client)

    def _publish_ordinarily(self, world: World) -> Iterator[Turn]:
        rule = self.published.rule_of(world.newest)
        if "content is computed outside the transaction" in self.wrongs:
            yield "somebody reads the rule part, to publish it later", world._replace(read=rule), False
            return
        if "a cluster is moved in mid-cutover" in self.wrongs:
            moved = world._replace(moved_away=True)
            yield "the cluster of a node is moved to another unit", moved, False
        if "an ordinary publish composes the rule from saved data" in self.wrongs and world.plan >= 0:
            rule = self.published.saved_rule(world.plan)
        yield "an ordinary change is published", self._published(world, rule, epochs=0), False

    def _counted(self, world: World, views: Sequence[NodeView]) -> Sequence[NodeView]:
        """The nodes as the gates count them."""
        if not world.moved_away or world.step is None:
            return views
        moving = self.published.plans[world.plan].moving(world.step)
        move = next(iter(moving))
        place = next(i for i, view in enumerate(views) if view.unit == move.losing)
        return [replace(v, unit=move.gaining) if i == place else v for i, v in enumerate(views)]


def _hopeless(verdict: Verdict) -> bool:
    """Whether a cluster that must serve has no node at all, so that only going back helps."""
    clusters = (ClusterWithoutAck.parse(text) for text in verdict.missing)
    return any(cluster is not None and not cluster.nodes for cluster in clusters)


def _named(step: Step) -> str:
    turns = f", turned {step.turns} times" if step.turns else ""
    return f"{step.phase} of batch {step.batch + 1}{turns}{', unwinding' if step.unwinding else ''}"
