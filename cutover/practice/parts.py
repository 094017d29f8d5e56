"""What a practice run looks at: the checks, the hooks, the drain and the way back of the clients.

Nothing is published and nobody is closed. The drain is rehearsed by the nodes themselves: each writes what it
obeys to its disk once more, reads it as it would a new version, and counts the sessions that it would close.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cutover import checking, plans, rules, sentences
from cutover.hooks import shown as hooks_shown
from cutover.hooks import trying
from cutover.models import Check, Cutover, HookRun
from cutover.prechecks import PRECHECKS
from cutover.trials import trials
from msha.steering.decision import Tunnel
from msha.steering.ranges import MovedIds
from units import probing
from units.models import EdgeNode, Probe
from units.probing import Answer, Question

Findings = dict[str, Any]

#: Handshakes of clients that each gaining node tries with itself, through to a back-source.
HANDSHAKES = 10


def found(cutover: Cutover) -> Findings:
    """Everything that was measured; ``obstacles`` is how much of it would stop the cutover."""
    nodes = [node for node in plans.enrolled_nodes(cutover.namespace_id) if node.live]
    checks = _checks(cutover)
    hooks = [hooks_shown.call(run) for run in trying.rehearse(cutover)]
    drain = _drain(cutover, nodes)
    obstacles = sum(not check["passed"] and not check["skipped"] for check in checks)
    obstacles += sum(hook["must_succeed"] and hook["state"] == HookRun.State.FAILED for hook in hooks)
    obstacles += sum("error" in node for node in drain["nodes"])
    return {
        "checks": checks,
        "hooks": hooks,
        "drain": drain,
        "recovery": _recovery(cutover, nodes, drain["sessions"]),
        "obstacles": obstacles,
    }


def _checks(cutover: Cutover) -> list[Findings]:
    skipped = set(cutover.checks.filter(state=Check.State.SKIPPED).values_list("key", flat=True))
    with sentences.stored():
        return [
            {
                "key": check.key,
                "title": str(check.title),
                "passed": verdict.passed,
                "skipped": check.key in skipped,
                "reason": verdict.reason,
                "reasons": verdict.reasons,
            }
            for check, verdict in checking.judged(cutover, PRECHECKS)
        ]


# -- the drain -----------------------------------------------------------------------------------------------


def _drain(cutover: Cutover, nodes: Sequence[EdgeNode]) -> Findings:
    """How long every losing node takes to obey a FREEZE, and how many sessions it would close.

    The estimate is the slowest node's: ids are frozen until the last of them has answered.
    """
    moved = MovedIds.from_lists(cutover.moved)
    asked = [
        Question(node, Probe.Kind.REHEARSE, _ranges(cutover, moved, node))
        for node in nodes
        if node.unit.code in moved.losing_units
    ]
    answers = probing.ask(asked).answers()
    found_at = [_rehearsed(question, answer) for question, answer in zip(asked, answers, strict=True)]
    sessions = sum(node.get("sessions", 0) for node in found_at)
    slowest = max((node["ms"] for node in found_at if "ms" in node), default=None)
    return {"nodes": found_at, "sessions": sessions, "freeze_ms": slowest}


def _ranges(cutover: Cutover, moved: MovedIds, node: EdgeNode) -> dict[str, Any]:
    ranges = [[move.start, move.end - 1] for move in moved if move.losing == node.unit.code]
    return {"unit_type": cutover.unit_type, "ranges": ranges}


def _rehearsed(question: Question, answer: Answer | None) -> Findings:
    node = {"node": question.node.name, "unit": question.node.unit.code}
    if not answer or not answer.get("ok"):
        return {**node, "error": (answer or {}).get("error", "")}
    return {
        **node,
        "ms": round(answer["round_trip_ms"]),
        "disk_ms": answer["disk_ms"],
        "read_ms": answer["read_ms"],
        "sessions": sum(answer["counts"]),
    }


# -- the way back --------------------------------------------------------------------------------------------


def _recovery(cutover: Cutover, nodes: Sequence[EdgeNode], sessions: int) -> list[Findings]:
    """By gaining unit: what a handshake takes there, how many it accepts, and how long all would take.

    Clients wait for their own retry time first; that is theirs, and not in it.
    """
    moved = MovedIds.from_lists(cutover.moved)
    gaining = [node for node in nodes if node.unit.code in moved.gaining_units and node.listening]
    took = _handshakes(cutover, moved, gaining)
    asked = [Question(node, Probe.Kind.ACCEPTS) for node in gaining]
    rates = Counter[str]()
    for question, answer in zip(asked, probing.ask(asked).answers(), strict=True):
        rates[question.node.unit.code] += int((answer or {}).get("accepts_per_s", 0))
    coming = _coming(cutover, sessions, moved)
    return [
        {
            "unit": unit,
            "sessions": coming[unit],
            "handshake_ms": round(statistics.median(took[unit]), 1) if took.get(unit) else None,
            "slowest_ms": round(max(took[unit]), 1) if took.get(unit) else None,
            "accepts_per_s": rates[unit],
            "all_back_s": round(coming[unit] / rates[unit], 2) if rates[unit] else None,
        }
        for unit in sorted(moved.gaining_units)
    ]


def _handshakes(cutover: Cutover, moved: MovedIds, gaining: Sequence[EdgeNode]) -> dict[str, list[float]]:
    """Milliseconds of handshakes through to a back-source, by unit; of ids that the unit owns already."""
    document = rules.in_effect(cutover.namespace)
    served = [
        trial.question
        for trial in trials(document, cutover.unit_type, moved, list(gaining))
        if isinstance(trial.expected, Tunnel)
    ]
    asked = served * HANDSHAKES if served else []
    took: dict[str, list[float]] = {}
    for question, answer in zip(asked, probing.ask(asked).answers(), strict=True):
        if answer and answer.get("status") == 101:
            took.setdefault(question.node.unit.code, []).append(float(answer["ms"]))
    return took


def _coming(cutover: Cutover, sessions: int, moved: MovedIds) -> Counter[str]:
    """How many sessions each gaining unit is sent, of those that the rehearsal counted."""
    previewed = Counter[str]()
    for _losing, unit, count in cutover.impact.get("pairs", []):
        previewed[unit] += count
    if previewed.total():
        return Counter({unit: round(sessions * n / previewed.total()) for unit, n in previewed.items()})
    share = Counter[str]()
    for move in moved:
        share[move.gaining] += move.end - move.start
    return Counter({unit: round(sessions * ids / moved.count) for unit, ids in share.items()})
