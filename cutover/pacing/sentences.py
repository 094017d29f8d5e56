"""What an operator reads about pacing, in the language of whoever reads it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext, ngettext

from msha.steering.pacing import Measure

Facts = Mapping[str, Any]


def held(facts: Facts) -> str:
    """Why the next batch does not begin."""
    match facts["kind"]:
        case "baking":
            return gettext("The gaining units are watched until %(time)s, then batch %(batch)d begins.") % {
                "time": _clock(facts["until"]),
                "batch": facts["batch"] + 1,
            }
        case "pace":
            return gettext(
                "Batch %(batch)d begins at %(time)s, so that at most %(rate)g sessions per second are closed."
            ) % {"time": _clock(facts["until"]), "batch": facts["batch"] + 1, "rate": facts["rate"]}
        case _:
            return gettext("Before batch %(batch)d of %(batches)d: %(failing)s.") % {
                "batch": facts["batch"] + 1,
                "batches": facts["batches"],
                "failing": _listed([failing(one) for one in facts["failing"]]),
            }


def failing(one: Facts) -> str:
    """One limit that is not kept, with its figures."""
    words = {"count": one["count"], "of": one["of"], "limit": f"{100 * one['limit']:g} %"}
    match one["measure"]:
        case Measure.REFUSED:
            text = gettext(
                "the gaining units refused %(count)d of %(of)d handshakes (at most %(limit)s are allowed)"
            )
        case Measure.BACK_SOURCE:
            text = gettext(
                "no back-source answered %(count)d of %(of)d handshakes (at most %(limit)s are allowed)"
            )
        case Measure.RECONNECT:
            text = gettext(
                "%(count)d of %(of)d closed sessions have come back (at least %(limit)s are asked for)"
            )
        case Measure.STRAGGLERS:
            words["limit"] = f"{one['limit']:g}"
            text = gettext(
                "%(count)d of %(of)d closed sessions have not come back (at most %(limit)s may stay away)"
            )
        case _:
            return gettext("no edge node of %(units)s is connected") % {"units": ", ".join(one["units"])}
    return text % words


def asked(data: Facts) -> str:
    """The event that somebody has asked for another pacing."""
    return gettext("Pacing set by %(by)s: %(pacing)s") % {"by": data["by"], "pacing": said(data["pacing"])}


def said(pacing: Facts) -> str:
    """The pacing in one line, as it is stored."""
    if not pacing:
        return gettext("everything at once")
    parts = []
    if pacing.get("steps"):
        steps = ", ".join(f"{one:g} %" for one in pacing["steps"])
        parts.append(gettext("%(steps)s, then the rest") % {"steps": steps})
    if pacing.get("ids"):
        parts.append(
            ngettext("%(count)d id per step", "%(count)d ids per step", pacing["ids"])
            % {"count": pacing["ids"]}
        )
    if pacing.get("sessions_per_s"):
        parts.append(
            gettext("at most %(rate)g sessions per second of a losing unit")
            % {"rate": pacing["sessions_per_s"]}
        )
    if pacing.get("bake_s"):
        parts.append(gettext("%(seconds)g s between steps") % {"seconds": pacing["bake_s"]})
    if not parts:
        return gettext("everything at once")
    parts.append(
        gettext("undone if a gate fails")
        if pacing.get("on_failure") == "undo"
        else gettext("paused if a gate fails")
    )
    return _listed(parts)


def _listed(parts: Sequence[str]) -> str:
    return "; ".join(parts)


def _clock(text: str) -> str:
    return timezone.localtime(datetime.fromisoformat(text)).strftime("%H:%M:%S")
