"""What progress and report show of a status: phases, acts with their consequence, checks, events, nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext

from cutover.models import Check, Cutover
from cutover.pages.bars import Looks
from cutover.prechecks import BY_KEY
from msha.steering.phases import reads_differently
from msha.steering.ranges import KeySpace, MovedIds

_PHASES: tuple[tuple[str, Any, Any], ...] = (
    ("prepare", gettext_lazy("Prepare"), gettext_lazy("every node learns what is coming")),
    ("freeze", gettext_lazy("Freeze"), gettext_lazy("losing units hold the ids and close their sessions")),
    ("activate", gettext_lazy("Activate"), gettext_lazy("gaining units accept the ids")),
    ("release", gettext_lazy("Release"), gettext_lazy("losing units redirect")),
    ("done", gettext_lazy("Done"), gettext_lazy("the new rule is the plain one")),
)
_ORDER = [name for name, _title, _what in _PHASES]


@dataclass(frozen=True, slots=True)
class PhaseShown:
    """One mark of the phase line; ``state`` is "", ``done``, ``now`` or ``failed``."""

    name: str
    title: str
    what: str
    state: str

    @property
    def icon(self) -> str:
        return {"done": "check", "now": "more_horiz", "failed": "close"}.get(self.state, "")


def phases_shown(status: Mapping[str, Any]) -> list[PhaseShown]:
    """The line of phases; the script of the page draws the same one (`static/js/progress.js`)."""
    phase = status["phase"]
    reached = max((_ORDER.index(e["kind"]) for e in status["events"] if e["kind"] in _ORDER), default=-1)
    states = [""] * len(_ORDER)
    if phase == "done":
        states = ["done"] * len(_ORDER)
    elif phase in ("aborting", "aborted"):
        states = [
            "done" if index < reached else "failed" if index == reached else ""
            for index in range(len(_ORDER))
        ]
    elif phase in _ORDER:
        at = _ORDER.index(phase)
        states = ["done" if index < at else "now" if index == at else "" for index in range(len(_ORDER))]
    return [
        PhaseShown(name, str(title), str(what), state)
        for (name, title, what), state in zip(_PHASES, states, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Act:
    """An act on the running cutover, its consequence stated first.

    Attributes:
        possible: the present state allows it; ``allowed``: so do the user's permissions.
        command: the same act as a line for a shell.
    """

    name: str
    title: str
    consequence: str
    css: str
    possible: bool
    allowed: bool
    command: str


def acts_shown(status: Mapping[str, Any], *, may: bool) -> list[Act]:
    """Abort, turn around, finish; also those not possible now, for the script to show later."""
    possible = status["actions"]
    command = f"mshactl cutover %s {status['number']} -n {status['namespace']} --reason '…'"
    return [
        Act(
            "abort",
            _("Abort"),
            _(
                "Nothing has moved to another unit yet. The rule from before is in force again; clients whose"
                " session was closed come back to the unit they were in."
            ),
            "danger",
            possible["abort"],
            may,
            command % "abort",
        ),
        Act(
            "turn_around",
            _("Turn around"),
            _(
                "The ids may be served by their new units already. Both units hold them, sessions of these"
                " ids are closed once more, and the ids go back to the units they came from. It needs every"
                " enrolled node of the gaining units and does not undo itself."
            ),
            "danger",
            possible["turn_around"],
            may,
            command % "turn-around",
        ),
        Act(
            "finish",
            _("Finish without the stragglers"),
            _(
                "The cutover ends although some nodes have not acknowledged its last step. That is safe:"
                " nodes of a losing unit go on holding the moved ids, others work by an older table that"
                " gives them none. Look after these nodes."
            ),
            "warn-soft",
            possible["finish"],
            may,
            command % "finish",
        ),
    ]


_EVENT_LOOKS: dict[str, tuple[str, str]] = {
    "drafted": ("edit_note", ""),
    "previewed": ("preview", ""),
    "checks": ("fact_check", ""),
    "skipped": ("skip_next", "warn"),
    "started": ("play_arrow", ""),
    "acked": ("done", ""),
    "drained": ("done_all", ""),
    "exited": ("power_settings_new", "warn"),
    "parked": ("pause_circle", "warn"),
    "alarm": ("warning", "bad"),
    "alarm_cleared": ("notifications_off", "good"),
    "prepare": ("campaign", ""),
    "freeze": ("ac_unit", ""),
    "activate": ("bolt", ""),
    "release": ("lock_open", ""),
    "abort": ("undo", "warn"),
    "done": ("check_circle", "good"),
    "aborted": ("cancel", "bad"),
}


def events_shown(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events with their icon and colour; still fit for JSON but for the moment."""
    shown = []
    for event in events:
        icon, css = _EVENT_LOOKS.get(event["kind"], ("circle", ""))
        shown.append({**event, "icon": icon, "css": css, "moment": datetime.fromisoformat(event["at"])})
    return shown


def nodes_shown(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Nodes with the name of their role, and whether the running step waits for them."""
    titles = {
        "losing": pgettext("role of a node", "losing"),
        "gaining": pgettext("role of a node", "gaining"),
        "both": pgettext("role of a node", "losing and gaining"),
        "bystander": pgettext("role of a node", "bystander"),
    }
    missing = set(status["missing"])
    drained: set[str] = set()  # said of the FREEZE; it stays true in the steps that follow
    for event in status["events"]:
        if event["kind"] == "freeze":
            drained.clear()
        elif event["kind"] == "drained":
            drained.add(event["data"]["node"])
    return [
        {
            **node,
            "role_title": titles.get(node["role"], node["role"]),
            "waited_for": node["name"] in missing,
            "drained": node["name"] in drained,
        }
        for node in status["nodes"]
    ]


@dataclass(frozen=True, slots=True)
class CheckShown:
    """A check with its title in the reader's language."""

    check: Check
    heading: str
    skippable: bool

    def __getattr__(self, name: str) -> Any:
        return getattr(self.check, name)


def checks_shown(cutover: Cutover) -> list[CheckShown]:
    """The checks of a cutover in their order."""
    shown = []
    for check in cutover.checks.all():
        known = BY_KEY.get(check.key)
        shown.append(
            CheckShown(check, str(known.title) if known else check.title, bool(known and known.skippable))
        )
    return shown


_BATCH_LOOKS: dict[str, tuple[str, str]] = {
    "waiting": ("schedule", ""),
    "moving": ("sync_alt", "info"),
    "moved": ("check", "good"),
    "going_back": ("undo", "warn"),
    "back": ("undo", "warn"),
    "left": ("block", ""),
}


def batches_shown(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The batches with icon and colour; the script of the page draws the same (`static/js/progress.js`)."""
    running = not status["ended_at"]
    shown = []
    for batch in status["batch_list"]:
        icon, css = _BATCH_LOOKS[batch["state"]]
        began = datetime.fromisoformat(batch["began"]) if batch["began"] else None
        now = running and batch["number"] == status["batch"] + 1
        shown.append(
            {**batch, "icon": icon, "css": css, "title": batch["state_title"], "began": began, "now": now}
        )
    return shown


def moves_sentence(moved: MovedIds, key_space: KeySpace, looks: Looks) -> str:
    """What the table of the form moves, as the script of the page says it; "" when nothing moves."""
    if not moved:
        return ""
    moves = _("; ").join(
        _("%(range)s from %(losing)s to %(gaining)s")
        % {
            "range": str(move.start) if move.end == move.start + 1 else f"{move.start}~{move.end - 1}",
            "losing": looks.at(move.losing).label,
            "gaining": looks.at(move.gaining).label,
        }
        for move in moved
    )
    return ngettext(
        "%(count)d of %(size)d ids moves: %(moves)s. All others stay where they are.",
        "%(count)d of %(size)d ids move: %(moves)s. All others stay where they are.",
        moved.count,
    ) % {"count": moved.count, "size": key_space.size, "moves": moves}


def reading_notice(cutover: Cutover) -> str:
    """What the draft changes beside the table; "" when nothing."""
    old, new = cutover.old_rule, cutover.new_rule
    if reads_differently(old, new):
        return _(
            "This cutover also changes how the routerId is read (sources or transform), so every session of"
            " this unit type is closed and decided anew. Change that on the page of the unit type."
        )
    if old.get("untagged") != new.get("untagged"):
        return _("This cutover also changes what happens to untagged traffic.")
    return ""
