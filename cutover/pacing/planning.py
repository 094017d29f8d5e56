"""The batches of a cutover: sessions counted and accept capacity measured before the start, fixed at it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext

from cutover import rules
from cutover.drafts import claim_editable
from cutover.errors import Refused
from cutover.models import Cutover
from cutover.pacing.asked import pacing_of, refuse_if_indivisible
from msha.steering.pacing import Batch, Pacing, Slice, paced, stages, to_count
from msha.steering.phases import table_of
from msha.steering.ranges import MovedIds, MovedRange
from units import probing
from units.models import EdgeNode, Probe

#: A node that has not counted or measured by then does not.
ASK_DEADLINE_S = 4.0

Weights = dict[str, Any]


def weigh(cutover: Cutover) -> None:
    """Where a drain is to be paced, the sessions are counted finely and the gaining nodes measured.

    Asks nodes, so call it outside a transaction; what it found is kept with the draft for the start.

    Raises:
        Refused: a node could not say, so the drain cannot be paced; says what to do.
    """
    pacing = pacing_of(cutover)
    if not pacing.sessions_per_s or not cutover.editable or not cutover.moved:
        return
    slices = [move for some in _moves(cutover, pacing) for move in some]
    nodes = _nodes(cutover)
    questions = _questions(cutover, slices, [node for node in nodes if node.live])
    said = probing.ask(questions, ASK_DEADLINE_S).answers()
    answers = {
        (question.kind, question.node.name): answer or {}
        for question, answer in zip(questions, said, strict=True)
    }
    weights = {
        "at": timezone.now().isoformat(),
        "of": _of(cutover),
        "sessions": _sessions(cutover, slices, nodes, answers),
        "accepts": _accepts(cutover, nodes, answers),
    }
    claim_editable(cutover, impact={**cutover.impact, "weights": weights})
    cutover.refresh_from_db()


def refuse_unweighed(cutover: Cutover) -> None:
    """Nothing, where the cutover can be divided as it is asked now; a guard of the start.

    Raises:
        Refused: the pacing or the rule was changed since the sessions were counted, or allows no division.
    """
    pacing = pacing_of(cutover)
    refuse_if_indivisible(cutover, pacing)
    if (
        pacing.sessions_per_s
        and cutover.moved
        and cutover.impact.get("weights", {}).get("of") != _of(cutover)
    ):
        raise Refused(gettext("Somebody has just changed this cutover. Look at it again, then start it."))


def fixed(cutover: Cutover) -> tuple[list[list[Any]], dict[str, Any]]:
    """The batches as the plan stores them, and how they are paced."""
    pacing, moved = pacing_of(cutover), MovedIds.from_lists(cutover.moved)
    if not moved or not pacing.divides:
        return ([cutover.moved] if moved else []), {}
    weights: Weights = cutover.impact.get("weights", {})
    accepts: dict[str, float] = {}
    interval_s = pacing.interval_s
    if pacing.sessions_per_s and weights.get("of") == _of(cutover):
        accepts = weights["accepts"]
        batches, interval_s = paced(
            _slices(_moves(cutover, pacing), weights["sessions"]), pacing.sessions_per_s, interval_s, accepts
        )
    else:
        batches = tuple(Batch(part, index) for index, part in enumerate(stages(moved, pacing)))
    pace = {
        "stages": [batch.stage for batch in batches],
        "closes": [dict(batch.closes) for batch in batches],
        "brings": [dict(batch.brings) for batch in batches],
        "accepts": accepts,
        "interval_s": interval_s,
    }
    return [batch.moved.as_lists() for batch in batches], pace


def stage_of(cutover: Cutover, batch: int) -> int:
    """The stage that a batch is a part of; a plan without pacing has one stage for each batch."""
    known: list[int] = cutover.plan.get("pace", {}).get("stages", [])
    return known[batch] if batch < len(known) else batch


def _of(cutover: Cutover) -> list[Any]:
    """What the counts are for: another division needs other counts."""
    return [cutover.moved, cutover.pacing]


def _moves(cutover: Cutover, pacing: Pacing) -> list[list[MovedRange]]:
    return to_count(stages(MovedIds.from_lists(cutover.moved), pacing))


def _slices(moves: Sequence[Sequence[MovedRange]], sessions: Sequence[int]) -> list[list[Slice]]:
    counts = iter(sessions)
    return [[Slice(move, next(counts)) for move in some] for some in moves]


# -- asking --------------------------------------------------------------------------------------------------


def _nodes(cutover: Cutover) -> list[EdgeNode]:
    moved = MovedIds.from_lists(cutover.moved)
    rows = EdgeNode.objects.filter(
        namespace=cutover.namespace_id,
        state=EdgeNode.State.ENROLLED,
        unit__code__in=moved.losing_units | moved.gaining_units,
    )
    return list(rows.select_related("unit").order_by("name"))


def _questions(
    cutover: Cutover, slices: Sequence[MovedRange], live: Sequence[EdgeNode]
) -> list[probing.Question]:
    """A count for every losing node, a measurement for every gaining one."""
    moved = MovedIds.from_lists(cutover.moved)
    questions = []
    for node in live:
        unit = node.unit.code
        if unit in moved.losing_units:
            ranges = [[move.start, move.end - 1] for move in slices if move.losing == unit]
            params = {"unit_type": cutover.unit_type, "ranges": ranges}
            questions.append(probing.Question(node, Probe.Kind.COUNT, params))
        if unit in moved.gaining_units:
            questions.append(probing.Question(node, Probe.Kind.ACCEPTS))
    return questions


Answers = Mapping[tuple[str, str], probing.Answer]


def _sessions(
    cutover: Cutover, slices: Sequence[MovedRange], nodes: Sequence[EdgeNode], answers: Answers
) -> list[int]:
    """How many sessions each slice has, over all nodes of its losing unit.

    Raises:
        Refused: a losing node did not count; in an emergency what it said last is spread over its ids.
    """
    totals = [0] * len(slices)
    silent = []
    for node in nodes:
        mine = [index for index, move in enumerate(slices) if move.losing == node.unit.code]
        if not mine:
            continue
        counts = answers.get((Probe.Kind.COUNT, node.name), {}).get("counts")
        if not isinstance(counts, list) or len(counts) != len(mine):
            silent.append(node.name)
            counts = _spread(cutover, node, [slices[index] for index in mine])
        for index, count in zip(mine, counts, strict=True):
            totals[index] += int(count)
    if silent and not cutover.emergency:
        raise Refused(
            gettext(
                "%(nodes)s did not count its sessions, so the drain cannot be paced. Bring it back, or start"
                " without a drain rate."
            )
            % {"nodes": ", ".join(silent)}
        )
    return totals


def _spread(cutover: Cutover, node: EdgeNode, slices: Sequence[MovedRange]) -> list[int]:
    """The sessions that the node reported last, as if every id of its unit had as many as any other."""
    key_space = rules.key_space_of(rules.in_effect(cutover.namespace)["rule"])
    owned = table_of(cutover.old_rule, key_space).share()[node.unit.code]
    counts: list[int] = []
    ids = 0
    for move in slices:
        ids += move.end - move.start
        counts.append(node.sessions * ids // owned - sum(counts))
    return counts


def _accepts(cutover: Cutover, nodes: Iterable[EdgeNode], answers: Answers) -> dict[str, float]:
    """Handshakes per second that each gaining unit accepts at least, as its nodes have just measured it.

    Raises:
        Refused: no node of a gaining unit could tell; in an emergency that unit is not capped.
    """
    gaining = MovedIds.from_lists(cutover.moved).gaining_units
    rates: dict[str, float] = dict.fromkeys(gaining, 0.0)
    for node in nodes:
        answer = answers.get((Probe.Kind.ACCEPTS, node.name), {})
        if node.unit.code in gaining and answer.get("ok"):
            rates[node.unit.code] += int(answer.get("accepts_per_s", 0))
    unknown = sorted(unit for unit, rate in rates.items() if not rate)
    if unknown and not cutover.emergency:
        raise Refused(
            gettext(
                "No node of %(units)s could measure how many handshakes it accepts, so the drain cannot be"
                " paced. Upgrade its nodes or bring them back, or start without a drain rate."
            )
            % {"units": ", ".join(unknown)}
        )
    return {unit: rate for unit, rate in rates.items() if rate}
