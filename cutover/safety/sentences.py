"""What operators read about safety rules and approvals, in the language of whoever reads it."""

from datetime import UTC, datetime
from typing import Any

from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from cutover.safety.findings import Facts, Finding, Rule, Severity

#: What each rule is called.
TITLES: dict[str, Any] = {
    Rule.MIN_SHARE: _("Least share of a unit"),
    Rule.MAX_IDS: _("Most ids of a cutover"),
    Rule.MAX_SESSIONS: _("Most sessions of a cutover"),
    Rule.COUNTED: _("Sessions counted lately"),
    Rule.WINDOW: _("Blocked window"),
    Rule.QUIET: _("Quiet period"),
    Rule.FLAP: _("Ids that have just moved"),
}


def title(rule: str) -> str:
    """What the rule is called."""
    return str(TITLES.get(rule, rule))


def said(finding: Finding) -> str:
    """The finding as one or two sentences: what is the case, and what to do about it."""
    facts = finding.facts
    match finding.rule:
        case Rule.MIN_SHARE:
            return _min_share(facts)
        case Rule.MAX_IDS:
            return (
                gettext(
                    "%(ids)d ids would move; one cutover may move %(limit)d."
                    " Move the rest by another cutover."
                )
                % facts
            )
        case Rule.MAX_SESSIONS:
            return _max_sessions(facts)
        case Rule.COUNTED:
            return (
                gettext(
                    "The live sessions were counted %(minutes)d minutes ago, and their number is limited."
                    " Generate the preview again."
                )
                % facts
            )
        case Rule.WINDOW:
            return " ".join(_window(window) for window in facts["windows"])
        case Rule.QUIET:
            return _quiet(facts, finding.severity)
        case _:
            return _flap(facts)


def refusal(said_each: list[str], number: int, *, overridable: bool) -> str:
    """Why a cutover is not started, and the ways on."""
    head = gettext("Not started: %(sentences)s") % {"sentences": " ".join(said_each)}
    if not overridable:
        return head
    tail = gettext(
        "Who may override safety rules can do so with a reason: mshactl cutover override RULE"
        " --number %(number)d --reason TEXT."
    ) % {"number": number}
    return f"{head} {tail}"


def at(moment: str) -> str:
    """A stored moment, in UTC."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _min_share(facts: Facts) -> str:
    each = "; ".join(
        gettext("%(unit)s would own nothing (before: %(before)s %%)")
        % {"unit": unit, "before": _percent(before, facts["size"])}
        if after == 0
        else gettext("%(unit)s would own %(after)s %% of all ids (before: %(before)s %%)")
        % {
            "unit": unit,
            "after": _percent(after, facts["size"]),
            "before": _percent(before, facts["size"]),
        }
        for unit, before, after in facts["units"]
    )
    return gettext("%(each)s; a unit keeps at least %(limit)d %%. Move fewer of its ids.") % {
        "each": each,
        "limit": facts["limit"],
    }


def _percent(ids: int, size: int) -> str:
    return f"{100 * ids / size:.2f}"


def _max_sessions(facts: Facts) -> str:
    words = {"sessions": facts["sessions"], "limit": facts["limit"], "nodes": ", ".join(facts["uncounted"])}
    if facts["sessions"] <= facts["limit"]:
        return (
            gettext(
                "One cutover may close %(limit)d sessions, but they could not be counted on %(nodes)s."
                " Bring these nodes back and generate the preview again."
            )
            % words
        )
    sentence = ngettext(
        "%(sessions)d live session would be closed; one cutover may close %(limit)d."
        " Move the rest by another cutover.",
        "%(sessions)d live sessions would be closed; one cutover may close %(limit)d."
        " Move the rest by another cutover.",
        facts["sessions"],
    )
    said = sentence % words
    if facts["uncounted"]:
        said += " " + gettext("Sessions could not be counted on %(nodes)s.") % words
    return said


def _window(window: Facts) -> str:
    if window["until"] is None:
        return gettext(
            "A blocked window names the time zone %(zone)s, which is not known here: correct the rules."
        ) % {"zone": window["zone"]}
    words = {"until": window["until"].replace("T", " "), "zone": window["zone"], "note": window["note"]}
    if window["note"]:
        return gettext("No cutover starts before %(until)s (%(zone)s): %(note)s. Wait until then.") % words
    return gettext("No cutover starts before %(until)s (%(zone)s). Wait until then.") % words


def _quiet(facts: Facts, severity: str) -> str:
    words = {"number": facts["number"], "seconds": facts["seconds"], "until": at(facts["until"])}
    if severity == Severity.WARNING:
        return (
            gettext(
                "The quiet period after cutover #%(number)d lasts until %(until)s; the way back from it need"
                " not wait."
            )
            % words
        )
    return (
        gettext("After cutover #%(number)d there is a quiet period of %(seconds)d s. Wait until %(until)s.")
        % words
    )


def _flap(facts: Facts) -> str:
    ranges = ", ".join(facts["ranges"]) + (", …" if facts["more"] else "")
    by = ", ".join(
        gettext("#%(number)d (ended at %(at)s)") % {"number": one["number"], "at": at(one["ended_at"])}
        for one in facts["cutovers"]
    )
    return ngettext(
        "%(ids)d of these ids has just moved (%(ranges)s) by %(by)s: its clients reconnect once more.",
        "%(ids)d of these ids have just moved (%(ranges)s) by %(by)s: their clients reconnect once more.",
        facts["ids"],
    ) % {"ids": facts["ids"], "ranges": ranges, "by": by}


def event(kind: str, data: Facts) -> str:
    """One line of a timeline that is about rules and approvals."""
    words = {**data, "rule": title(data.get("rule", ""))}
    match kind:
        case "overridden":
            return gettext("Safety rule “%(rule)s” overridden by %(by)s: %(reason)s") % words
        case "approval_requested":
            sentence = gettext("%(by)s asked for an approval") % words
        case "approved":
            sentence = gettext("Approved by %(by)s") % words
        case "approval_withdrawn":
            return gettext("Approval of %(approver)s withdrawn by %(by)s: %(reason)s") % words
        case _:
            return gettext("Changed by %(by)s: the approval of %(approver)s is void") % words
    return f"{sentence}: {data['comment']}" if data.get("comment") else sentence
