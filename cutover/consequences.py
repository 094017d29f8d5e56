"""What each act on a running cutover would do now: said before it is done, from counted facts."""

from django.utils.translation import gettext, ngettext

from cutover import plans, progress, sentences
from cutover.batches import Batch, BatchState, batches
from cutover.losing import losing_units
from cutover.models import Cutover
from msha.steering import phases
from msha.steering.errors import InvalidStep
from msha.steering.phases import Phase

State = Cutover.State


def possible(cutover: Cutover) -> dict[str, bool]:
    """Which acts the present state of a running cutover allows; permissions are another matter."""
    state = cutover.state
    if state not in plans.PHASE_OF:
        return {
            "abort": state == State.STARTING,
            "pause": state == State.STARTING and not cutover.paused,
            "resume": cutover.active and cutover.paused,
            "turn_around": False,
            "roll_back": False,
            "stop_here": False,
            "finish": False,
        }
    plan, step = plans.plan_of(cutover), plans.step_of(cutover)
    more = step.batch + 1 < len(plan.batches)
    forward = step.phase is not Phase.ABORT and not step.backwards and not cutover.unwinding
    turnable = step.phase in (Phase.ACTIVATE, Phase.RELEASE) or (
        step.phase is Phase.FREEZE and step.turns > 0
    )
    return {
        "abort": step.phase in (Phase.PREPARE, Phase.FREEZE) and step.turns == 0,
        "pause": not cutover.paused and forward and (more or step.phase is Phase.PREPARE),
        "resume": cutover.paused,
        "turn_around": turnable,
        "roll_back": step.batch > 0 and not cutover.unwinding,
        "stop_here": _stoppable(plan, step),
        "finish": step.phase is Phase.ABORT or (step.phase is Phase.RELEASE and not (more and forward)),
    }


def _stoppable(plan: phases.Plan, step: phases.Step) -> bool:
    try:
        phases.refuse_to_stop_in(plan, step)
    except InvalidStep:
        return False
    return True


def consequences(cutover: Cutover) -> dict[str, str]:
    """By act, what would follow from it now; acts that are not possible are left out."""
    sayers = {
        "abort": _abort,
        "pause": _pause,
        "resume": _resume,
        "turn_around": _turn_around,
        "roll_back": _roll_back,
        "stop_here": _stop_here,
        "finish": _finish,
        "emergency": _emergency,
        "planned": _planned,
        "declare_dead": _declare_dead,
    }
    allowed = possible(cutover) | of_mode(cutover)
    if not any(allowed.values()):
        return {}
    told = batches(cutover)
    return {name: sayers[name](cutover, told) for name, yes in allowed.items() if yes}


def consequence(cutover: Cutover, act: str) -> str:
    """What would follow from one act now; "" where it is not possible."""
    return consequences(cutover).get(act, "")


def of_mode(cutover: Cutover) -> dict[str, bool]:
    """Which acts of emergency mode are possible: into it, out of it, and to declare silent nodes dead."""
    open_yet = not cutover.ended
    silent = cutover.emergency and open_yet and any(unit.silent for unit in losing_units(cutover))
    return {
        "emergency": open_yet and not cutover.emergency,
        "planned": open_yet and cutover.emergency,
        "declare_dead": silent,
    }


def _ids(some: list[Batch]) -> int:
    return sum(batch.moved.count for batch in some)


def _count(ids: int) -> str:
    return ngettext("%(n)d id", "%(n)d ids", ids) % {"n": ids}


def _in_state(told: list[Batch], *states: BatchState) -> list[Batch]:
    return [batch for batch in told if batch.state in states]


def _abort(cutover: Cutover, told: list[Batch]) -> str:
    moved = _in_state(told, BatchState.MOVED)
    if not moved:
        return gettext(
            "Nothing has moved to another unit yet. The rule from before is in force again; clients whose"
            " session was closed come back to the unit they were in."
        )
    return gettext(
        "The present batch is given up: its clients come back to the unit they were in. The finished"
        " batches before it (%(ids)s) stay with their new owners, and the rest never moves. To bring the"
        " finished ones back, too, roll back instead."
    ) % {"ids": _count(_ids(moved))}


def _pause(cutover: Cutover, told: list[Batch]) -> str:
    waiting = _in_state(told, BatchState.WAITING)
    if _in_state(told, BatchState.MOVING):
        return gettext(
            "The batch that is under way is brought to its end, because its ids are frozen. Then nothing"
            " moves until somebody resumes: %(ids)s wait with their old owners and are served as before."
        ) % {"ids": _count(_ids(waiting))}
    return gettext(
        "Nothing is frozen now. No further batch begins until somebody resumes: %(ids)s wait with their old"
        " owners and are served as before."
    ) % {"ids": _count(_ids(waiting) or sum(row[1] - row[0] + 1 for row in cutover.moved))}


def _resume(cutover: Cutover, told: list[Batch]) -> str:
    waiting = _in_state(told, BatchState.WAITING)
    if not waiting:
        return gettext("The cutover goes on as soon as its gates allow it.")
    sentence = gettext(
        "Batch %(number)d of %(all)d begins as soon as its gates allow it: %(ids)s are frozen, and their"
        " sessions are closed."
    ) % {"number": waiting[0].number, "all": len(told), "ids": _count(waiting[0].moved.count)}
    if cutover.hold.get("kind") == "health":
        sentence += " " + gettext("The gate that failed is passed over this once: %(why)s") % {
            "why": sentences.held(cutover.hold)
        }
    return f"{sentence} {_toll(cutover, waiting[:1])}"


def _turn_around(cutover: Cutover, told: list[Batch]) -> str:
    sentence = gettext(
        "The ids may be served by their new units already. Both units hold them, sessions of these"
        " ids are closed once more, and the ids go back to the units they came from. It needs every"
        " enrolled node of the gaining units and does not undo itself."
    )
    if cutover.turned:
        sentence = gettext(
            "The ids are on their way back; they are turned round once more and go to their new units after"
            " all. Sessions of these ids are closed once more."
        )
    if len(told) > 1:
        present = told[cutover.batch]
        sentence += " " + gettext(
            "This concerns batch %(number)d alone (%(ids)s): finished batches before it stay, later ones"
            " never move."
        ) % {"number": present.number, "ids": _count(present.moved.count)}
    return f"{sentence} {_toll(cutover, told[cutover.batch : cutover.batch + 1])}"


def _roll_back(cutover: Cutover, told: list[Batch]) -> str:
    back = _in_state(told, BatchState.MOVED, BatchState.MOVING)
    sentence = gettext(
        "Everything that this cutover has moved goes back, batch by batch, the last one first: %(ids)s in"
        " %(batches)d batches. Each is frozen once more and its sessions are closed once more. It needs every"
        " enrolled node of the gaining units and does not undo itself; what has not moved stays."
    ) % {"ids": _count(_ids(back)), "batches": len(back)}
    return f"{sentence} {_toll(cutover, back)}"


def _stop_here(cutover: Cutover, told: list[Batch]) -> str:
    moved, waiting = _in_state(told, BatchState.MOVED), _in_state(told, BatchState.WAITING)
    return gettext(
        "The cutover ends now. %(moved)s stay with their new owners, %(rest)s never move; nobody is"
        " disconnected. Moving the rest later is a new cutover."
    ) % {"moved": _count(_ids(moved)), "rest": _count(_ids(waiting))}


def _toll(cutover: Cutover, some: list[Batch]) -> str:
    """How many sessions are closed by moving these batches, and how long each was frozen so far."""
    known = cutover.plan.get("pace", {}).get("closes") or []
    if all(batch.number <= len(known) for batch in some) and any(known):
        sessions = sum(sum(known[batch.number - 1].values()) for batch in some)
    else:
        ids = max(1, sum(row[1] - row[0] + 1 for row in cutover.moved))
        sessions = round(progress.expected(cutover) * _ids(some) / ids)
    toll = ngettext(
        "About %(count)d session is closed by it.", "About %(count)d sessions are closed by it.", sessions
    ) % {"count": sessions}
    longest = cutover.figures.get("frozen_ms")
    if longest is None:
        return toll
    return toll + " " + gettext("A batch was frozen for at most %(ms)d ms so far.") % {"ms": longest}


def _emergency(cutover: Cutover, told: list[Batch]) -> str:
    return gettext(
        "Nothing moves by this alone. PREPARE and FREEZE no longer undo themselves when nodes of the losing"
        " units do not answer: the ids stay frozen, with an alarm, until these nodes answer, are declared"
        " dead, or somebody aborts."
    )


def _planned(cutover: Cutover, told: list[Batch]) -> str:
    return gettext(
        "Nodes that do not answer make PREPARE and FREEZE undo the batch again after %(seconds)d s."
        " A step that has waited longer undoes itself at once."
    ) % {"seconds": int(phases.GATE_DEADLINE_S)}


def _declare_dead(cutover: Cutover, told: list[Batch]) -> str:
    units = losing_units(cutover)
    sentence = gettext(
        "%(nodes)s count as dead on your word, and no gate waits for them. If one of them still serves, or"
        " starts again from its file before it is told, its ids are served twice: fence them first, by power,"
        " SLB or disk. Their tokens are revoked; a node that comes back has to be registered anew."
    ) % {"nodes": ", ".join(name for unit in units for name in unit.silent)}
    live = [name for unit in units for name in unit.live]
    if live:
        sentence += " " + gettext("%(nodes)s can be heard and drain.") % {"nodes": ", ".join(live)}
    return sentence


def _finish(cutover: Cutover, told: list[Batch]) -> str:
    return gettext(
        "The cutover ends although some nodes have not acknowledged its last step. That is safe:"
        " nodes of a losing unit go on holding the moved ids, others work by an older table that"
        " gives them none. Look after these nodes."
    )
