"""What an operator reads about a cutover, in the language of whoever reads it.

Rows keep facts (states, names, reasons); the sentences are made from them each time. Where a sentence itself
is stored (alarms, audit), it is in English: `stored` makes it so.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.utils import translation
from django.utils.translation import gettext

from cutover import kinds
from cutover.hooks import wording as hooks
from cutover.models import Cutover, CutoverEvent
from cutover.pacing import sentences as pace
from cutover.plans import STATE_OF
from cutover.safety import sentences as safety
from msha.steering.phases import GATE_DEADLINE_S, ClusterWithoutAck, Ending, Phase, Silence, Step

State = Cutover.State


@contextmanager
def stored() -> Iterator[None]:
    """Sentences made inside are in English, whoever acts."""
    with translation.override("en"):
        yield


def names(missing: Sequence[str]) -> str:
    """What a gate waits for, one after the other; the core says it in English."""
    return ", ".join(map(_name, missing))


def _name(text: str) -> str:
    cluster = ClusterWithoutAck.parse(text)
    if cluster is None:
        return text
    words = {"cluster": cluster.cluster, "unit": cluster.unit}
    if not cluster.nodes:
        return gettext("a node of cluster %(cluster)s (%(unit)s)") % words
    told = "; ".join(_silent(node, silence) for node, silence in cluster.nodes)
    return gettext("a node of cluster %(cluster)s (%(unit)s; %(nodes)s)") % {**words, "nodes": told}


def _silent(node: str, silence: Silence) -> str:
    match silence:
        case Silence.PARKED:
            return gettext("%(node)s is parked") % {"node": node}
        case Silence.NOT_LIVE:
            return gettext("%(node)s is not connected") % {"node": node}
        case _:
            return gettext("%(node)s has not answered") % {"node": node}


def waiting(step: Step, missing: Sequence[str]) -> str:
    """What the running step waits for, or "" when nothing is missing."""
    if not missing:
        return ""
    words = {"nodes": names(missing)}
    match step.phase:
        case Phase.FREEZE:
            return gettext("Waits for %(nodes)s to hold the moved ids and to close their sessions.") % words
        case Phase.ACTIVATE:
            return gettext("Waits for %(nodes)s to accept the moved ids.") % words
        case _:
            return gettext("Waits for %(nodes)s to acknowledge.") % words


def overdue(cutover: Cutover, phase: Phase, missing: Sequence[str]) -> str:
    """What an operator reads at 3 a.m.: what waits, for whom, and what can be done."""
    head = gettext(
        "Cutover %(cutover)s has waited in %(phase)s for more than %(seconds)d s for %(nodes)s."
    ) % {
        "cutover": cutover,
        "phase": STATE_OF[phase].label,
        "seconds": int(GATE_DEADLINE_S),
        "nodes": names(missing),
    }
    match phase:
        case Phase.PREPARE | Phase.FREEZE if cutover.emergency and not cutover.turns:
            tail = gettext(
                "In an emergency it does not undo itself: fence these nodes and declare them dead, bring them"
                " back, or abort."
            )
        case Phase.FREEZE:
            tail = gettext(
                "The moved ids are held in both units. Bring these nodes back, turn the cutover around,"
                " or fence them and declare them dead."
            )
        case Phase.ACTIVATE:
            tail = gettext(
                "The moved ids are not served by every node of their new unit."
                " Bring these nodes back, or turn the cutover around."
            )
        case Phase.RELEASE:
            tail = gettext("Every id is served by its unit. Bring these nodes back, or finish without them.")
        case _:
            tail = gettext("Bring these nodes back, or finish without them.")
    return f"{head} {tail}"


def held_too_long(cutover: Cutover, phase: Phase, hold: dict[str, Any]) -> str:
    """The same where the gate has passed, and something else keeps the ids frozen."""
    known = hold.get("kind") == "hook"
    head = gettext(
        "Cutover %(cutover)s has waited in %(phase)s for more than %(seconds)d s for %(what)s."
    ) % {
        "cutover": cutover,
        "phase": STATE_OF[phase].label,
        "seconds": int(GATE_DEADLINE_S),
        "what": hooks.waited_for(hold) if known else held(hold),
    }
    tail = hooks.what_to_do(hold) if known else gettext("The moved ids are held. Take the way back.")
    return f"{head} {tail}"


def still_frozen(cutover: Cutover, nodes: Sequence[str]) -> str:
    """What an operator reads when a cutover has ended without nodes that were cut off from the console."""
    return gettext(
        "Cutover %(cutover)s has ended, but %(nodes)s may still hold its moved ids: the last step did not"
        " reach them. Bring these nodes back, or fence them and declare them dead."
    ) % {"cutover": cutover, "nodes": ", ".join(nodes)}


def alarm(cutover: Cutover, data: dict[str, Any]) -> str:
    """What an alarm said when it was raised; as it was stored where its facts were not kept yet."""
    match data.get("alarm"):
        case "cutover_overdue" if data.get("hold"):
            return held_too_long(cutover, Phase(data["phase"]), data["hold"])
        case "cutover_overdue":
            return overdue(cutover, Phase(data["phase"]), data["missing"])
        case "cutover_undone":
            return _ending(cutover, data["ended"])
        case "cutover_hook":
            return hooks.stuck(cutover, data["hooks"])
        case "cutover_held":
            return paused_by_itself(cutover, data["hold"])
        case "cutover_frozen":
            return still_frozen(cutover, data["missing"])
        case _:
            return str(data["sentence"])


def outcome(cutover: Cutover) -> str:
    """How the cutover ended, or is being undone; "" while it goes forward."""
    facts: dict[str, Any] = cutover.figures.get("ended", {})
    if not facts:
        return cutover.outcome
    sentence = _ending(cutover, facts)
    if facts.get("stragglers"):
        sentence += " " + gettext("Finished by %(actor)s without %(nodes)s: %(reason)s") % {
            "actor": facts["finished_by"],
            "nodes": names(facts["stragglers"]),
            "reason": facts["finish_reason"],
        }
    return sentence


def _ending(cutover: Cutover, facts: dict[str, Any]) -> str:
    match facts.get("how"):
        case Ending.DONE:
            return gettext("Done: every moved id is served by its new unit.")
        case Ending.TURNED:
            return gettext("Turned round: every id is served by the unit it came from.")
        case Ending.STOPPED:
            return gettext(
                "Stopped by %(actor)s after batch %(done)d of %(all)d: what had moved stays, the rest has not"
                " moved. %(reason)s"
            ) % {
                "actor": facts["by"],
                "done": facts["batches"],
                "all": len(cutover.plan["batches"]),
                "reason": facts["reason"],
            }
        case "overdue":
            return gettext(
                "Cutover %(cutover)s undid itself after %(seconds)d s in %(phase)s: %(nodes)s did not answer."
                " No id of this step has moved. Look at these nodes, then start again."
            ) % {
                "cutover": cutover,
                "seconds": int(GATE_DEADLINE_S),
                "phase": State(facts["state"]).label,
                "nodes": names(facts["missing"]),
            }
        case "held" if facts["hold"]["kind"] == "hook":
            return hooks.undone(cutover, facts["hold"])
        case "held":
            return gettext(
                "Cutover %(cutover)s undid itself: %(why)s Every id is served by the unit it came from."
            ) % {"cutover": cutover, "why": held(facts["hold"])}
        case "stale":
            return gettext(
                "Not started: the rule in effect changed after the preview. Generate the preview again."
            )
        case "restored":
            if facts["arrived"]:
                return gettext("Done before the database was restored: the edges have the new rule.")
            return gettext("Undone before the database was restored: the edges have another rule.")
        case "invalid":
            return gettext("Not started: %(problem)s") % {"problem": facts["problem"]}
        case _:
            return gettext("Aborted by %(actor)s: %(reason)s") % {
                "actor": facts.get("by", ""),
                "reason": facts.get("reason", ""),
            }


def held(facts: dict[str, Any]) -> str:
    """What keeps the next step back although its gate has passed; "" where nothing does."""
    match facts.get("kind"):
        case None:
            return ""
        case "paused" if facts["by"]:
            return gettext("Paused by %(by)s: %(reason)s") % {"by": facts["by"], "reason": facts["reason"]}
        case "health" | "baking" | "pace":
            return pace.held(facts)
        case "hook":
            return hooks.held(facts)
        case "checks":
            from cutover.checks import second_look  # it runs checks, which say sentences of their own

            return second_look.said(facts)
        case _:
            return str(facts["kind"])


def paused_by_itself(cutover: Cutover, hold: dict[str, Any]) -> str:
    """What an operator reads when something else than an operator has paused the cutover."""
    return gettext(
        "Cutover %(cutover)s has paused: %(why)s"
        " Look at the units, then resume it, stop it here or roll it back."
    ) % {"cutover": cutover, "why": held(hold)}


def asked(cutover: Cutover) -> str:
    """The share of a unit, or the cut to zero, that somebody asked for; "" for a rule that was written."""
    last = cutover.events.filter(kind__in=("drafted", "adjusted")).order_by("at", "pk").last()
    return "" if last is None else kinds.words(last.data.get("asked", []))


def _asked(sentence: str, data: dict[str, Any]) -> str:
    words = kinds.words(data.get("asked", []))
    return f"{sentence}: {words}" if words else sentence


def event(row: CutoverEvent) -> str:
    """One line of the timeline."""
    data = row.data
    by = {"by": data.get("by", "")}
    match row.kind:
        case "drafted":
            return _asked(gettext("Drafted by %(by)s") % by, data)
        case "adjusted":
            return _asked(gettext("Adjusted by %(by)s") % by, data)
        case "overridden" | "approval_requested" | "approved" | "approval_withdrawn" | "approval_lapsed":
            return safety.event(row.kind, data)
        case "previewed":
            return gettext("Previewed by %(by)s against version %(version)d") % {
                **by,
                "version": data["version"],
            }
        case "checks":
            return gettext("Checks run by %(by)s") % by
        case "skipped":
            from cutover.prechecks import BY_KEY  # it asks nodes, and says sentences of its own

            known = BY_KEY.get(data.get("key", ""))
            return gettext("Check “%(check)s” skipped by %(by)s: %(reason)s") % {
                **by,
                "check": known.title if known else data["title"],
                "reason": data["reason"],
            }
        case "looked":
            from cutover.checks import second_look

            return second_look.said(data) if data["failed"] else str(second_look.PASSED)
        case "started":
            return gettext("Started by %(by)s") % by
        case "paused":
            return gettext("Paused by %(by)s: %(reason)s") % {**by, "reason": data["reason"]}
        case "resumed":
            return gettext("Resumed by %(by)s: %(reason)s") % {**by, "reason": data["reason"]}
        case "held":
            return held(data)
        case "pacing":
            return pace.asked(data)
        case "mode" | "declared_dead":
            return _of_emergency(row.kind, data)
        case "hook":
            return hooks.settled(data)
        case "acked":
            return gettext("%(node)s acknowledged") % {"node": data["node"]}
        case "drained":
            return gettext("%(node)s closed the sessions of the moved ids") % {"node": data["node"]}
        case "exited":
            return gettext("All workers of %(node)s have exited") % {"node": data["node"]}
        case "parked":
            return gettext("%(node)s is parked: it refused the version and serves nobody") % {
                "node": data["node"]
            }
        case "alarm":
            return gettext("Alarm: %(sentence)s") % {"sentence": alarm(row.cutover, data)}
        case "alarm_cleared":
            return gettext("Alarm cleared")
        case Phase.PREPARE | Phase.FREEZE | Phase.ACTIVATE | Phase.RELEASE | Phase.ABORT:
            return _step(row.kind, data)
        case _:
            return str(State(row.kind).label) if row.kind in State.values else row.kind


def _of_emergency(kind: str, data: dict[str, Any]) -> str:
    words = {**data, "mode": Cutover.Mode(data["mode"]).label if "mode" in data else ""}
    if kind == "mode":
        return gettext("Mode set to “%(mode)s” by %(by)s: %(reason)s") % words
    words["nodes"] = ", ".join(data["nodes"])
    return gettext("%(nodes)s of %(unit)s declared dead by %(by)s: %(reason)s Fenced: %(fencing)s") % words


def _step(phase: str, data: dict[str, Any]) -> str:
    """A step of the timeline; an operator's act behind it is named with its reason."""
    back = data.get("turns", 0) % 2 == 1
    match phase:
        case Phase.PREPARE:
            sentence = gettext("PREPARE: every node learns what is coming")
        case Phase.FREEZE if back:
            sentence = gettext("FREEZE: turned round, both units hold the moved ids")
        case Phase.FREEZE:
            sentence = gettext("FREEZE: losing units hold the moved ids and close their sessions")
        case Phase.ACTIVATE if back:
            sentence = gettext("ACTIVATE: the old owners accept their ids again")
        case Phase.ACTIVATE:
            sentence = gettext("ACTIVATE: gaining units accept the moved ids")
        case Phase.RELEASE:
            sentence = gettext("RELEASE: the plain rule is in force everywhere")
        case _:
            sentence = gettext("ABORT: the rule before this step is in force again")
    if data.get("by"):
        sentence += " " + gettext("(%(by)s: %(reason)s)") % {"by": data["by"], "reason": data["reason"]}
    return sentence
