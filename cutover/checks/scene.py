"""A check: what it asks, what it sees, and the verdict it comes to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from django.utils.functional import Promise

from cutover import plans
from cutover.models import Cutover
from cutover.rules import Document
from cutover.trials import Trial, trials
from msha.steering.phases import Phase
from msha.steering.ranges import MovedIds
from units import publishing
from units.models import EdgeNode
from units.probing import Answer, Question


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a check passed, and the sentence that says why, also in the console's other languages.

    Attributes:
        amber: it passed, but the sentence is a warning.
    """

    passed: bool
    reason: str
    reasons: dict[str, str] = field(default_factory=dict)
    amber: bool = False


@dataclass
class Scene:
    """What the checks look at, read once.

    Attributes:
        nodes: every enrolled node of the namespace.
    """

    cutover: Cutover
    document: Document
    newest: publishing.Snapshot
    nodes: list[EdgeNode]
    moved: MovedIds = field(init=False)

    def __post_init__(self) -> None:
        self.moved = MovedIds.from_lists(self.cutover.moved)

    @cached_property
    def live(self) -> list[EdgeNode]:
        """The nodes that can be asked something."""
        return [node for node in self.nodes if node.live]

    def excused(self, node: EdgeNode) -> bool:
        """Whether nobody expects an answer: in an emergency the nodes of the losing units may be gone."""
        unit = node.unit.code
        lost = unit in self.moved.losing_units and unit not in self.moved.gaining_units
        return self.cutover.emergency and lost

    @cached_property
    def gaining(self) -> list[EdgeNode]:
        """Live nodes of units that gain ids."""
        return [node for node in self.live if node.unit.code in self.moved.gaining_units]

    @cached_property
    def trials(self) -> list[Trial]:
        """The trial handshakes of this cutover."""
        return trials(self.document, self.cutover.unit_type, self.moved, self.live, self.coming)

    @cached_property
    def coming(self) -> MovedIds:
        """The ids of the next batch while the cutover runs, else all of them."""
        if self.cutover.state not in plans.PHASE_OF:
            return self.moved
        plan, step = plans.plan_of(self.cutover), plans.step_of(self.cutover)
        batch = step.batch if step.phase is Phase.PREPARE else step.batch + 1
        return plan.batches[batch] if batch < len(plan.batches) else self.moved


Answered = Sequence[tuple[Question, Answer | None]]


@dataclass(frozen=True, slots=True)
class Precheck:
    """One line of the precheck page.

    Attributes:
        skippable: False where the start itself would refuse all the same.
        ask: what to ask which nodes.
        judge: what the answers, in the order of the questions, and the scene amount to.
    """

    key: str
    title: str | Promise
    judge: Callable[[Scene, Answered], Verdict]
    ask: Callable[[Scene], list[Question]] = lambda scene: []
    skippable: bool = True
