"""What an operator reads about hooks; facts come from rows, in the language of whoever reads."""

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext, ngettext

from cutover.hooks.answers import sentence
from cutover.models import Cutover, Hook, HookRun

State, Moment = HookRun.State, Hook.Moment

Facts = dict[str, Any]


def held(facts: Facts) -> str:
    """Whom a step waits for, or whose failure undid it."""
    words = {"hooks": _names(facts["hooks"]), "moment": str(Moment(facts["moment"]).label)}
    if "answers" in facts:
        return ngettext(
            "hook %(hooks)s (%(moment)s) did not succeed: %(answer)s",
            "hooks %(hooks)s (%(moment)s) did not succeed: %(answer)s",
            len(facts["hooks"]),
        ) % {**words, "answer": "; ".join(sentence(said) for said in facts["answers"])}
    return (
        ngettext(
            "Waits for the hook %(hooks)s (%(moment)s).",
            "Waits for the hooks %(hooks)s (%(moment)s).",
            len(facts["hooks"]),
        )
        % words
    )


def waited_for(facts: Facts) -> str:
    """The hooks as a gate names its nodes."""
    return ngettext("the hook %(hooks)s", "the hooks %(hooks)s", len(facts["hooks"])) % {
        "hooks": _names(facts["hooks"])
    }


def what_to_do(facts: Facts) -> str:
    """What can be done about hooks that are waited for while ids are frozen."""
    return gettext(
        "The moved ids are held. Look at what these hooks ask for, skip them with a reason, or take the way"
        " back."
    )


def undone(cutover: Cutover, facts: Facts) -> str:
    """Why the cutover undid itself, and what follows."""
    return gettext(
        "Cutover %(cutover)s undid itself: %(why)s. No id of this step has moved."
        " Look at the hook, then start again."
    ) % {"cutover": cutover, "why": held(facts)}


def stuck(cutover: Cutover, hooks: Sequence[Facts]) -> str:
    """The alarm of hooks that must succeed, do not, and whose failure undoes nothing."""
    told = "; ".join(
        gettext("%(hook)s (%(moment)s, batch %(batch)d): %(answer)s")
        % {
            "hook": one["hook"],
            "moment": str(Moment(one["moment"]).label),
            "batch": one["batch"] + 1,
            "answer": sentence(one["said"]),
        }
        for one in hooks
    )
    return gettext(
        "Hooks of cutover %(cutover)s that must succeed have not within their time: %(told)s."
        " They are called again until they do. Mend what answers there, or skip them with a reason."
    ) % {"cutover": cutover, "told": told}


def stuck_facts(run: HookRun) -> Facts:
    return {"hook": run.name, "moment": run.moment, "batch": run.batch, "said": run.said}


def settled(data: Facts) -> str:
    """A line of the timeline: what became of a call."""
    words = {
        "hook": data["hook"],
        "moment": str(Moment(data["moment"]).label),
        "answer": sentence(data["said"]),
        "by": data.get("by", ""),
        "reason": data.get("reason", ""),
    }
    match data["state"]:
        case State.SUCCEEDED:
            return gettext("Hook %(hook)s (%(moment)s): %(answer)s") % words
        case State.SKIPPED:
            return gettext("Hook %(hook)s (%(moment)s) skipped by %(by)s: %(reason)s") % words
        case _ if data["must_succeed"]:
            return gettext("Hook %(hook)s (%(moment)s) failed: %(answer)s") % words
        case _:
            return gettext("Hook %(hook)s (%(moment)s), which may fail, failed: %(answer)s") % words


def stands(run: HookRun) -> str:
    """Where one run stands now, in a sentence."""
    answer = sentence(run.said)
    match run.state:
        case State.SKIPPED:
            return gettext("Skipped by %(by)s: %(reason)s") % {
                "by": run.skipped_by,
                "reason": run.skip_reason,
            }
        case State.CANCELLED:
            return gettext("No longer wanted: another step overtook it.")
        case State.PENDING | State.RUNNING if not answer:
            return gettext("Is being called.")
        case State.PENDING | State.RUNNING if run.stuck:
            return gettext("Has not succeeded in time, and is called again until it does: %(answer)s") % {
                "answer": answer
            }
        case State.PENDING | State.RUNNING:
            return gettext("Is called again: %(answer)s") % {"answer": answer}
        case _:
            return answer


def skip_means(run: HookRun) -> str:
    """What happens when the run is skipped."""
    match run.moment:
        case Moment.BEFORE_FREEZE:
            return gettext("FREEZE follows although this hook has not agreed to it.")
        case Moment.AT_FREEZE:
            return gettext(
                "ACTIVATE may follow although this hook has not confirmed: writes of the moved ids may go on"
                " where they should be forbidden."
            )
        case Moment.BEFORE_ACTIVATE:
            return gettext(
                "ACTIVATE follows although this hook has not said yes: what it waits for, such as data that"
                " is still being copied, may be missing in the new unit."
            )
        case _ if run.outcome == HookRun.Outcome.ABORTED:
            return gettext(
                "This hook will not learn that the ids stay: what it forbade at FREEZE may remain forbidden."
            )
        case _:
            return gettext("This hook will not learn that the ids have moved; the next batch may begin.")


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)
