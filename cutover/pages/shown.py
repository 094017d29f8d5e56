"""What progress and report show of a status: phases, acts with their consequence, checks, events, nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext

from cutover.consequences import consequences
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
        name: as in the ``actions`` of a status.
        css: of the button that opens it, and of the one that does it.
        possible: the present state allows it; ``allowed``: so do the user's permissions.
        typed: it wants the name of the namespace typed.
        command: the same act as a line for a shell.
    """

    name: str
    title: str
    does: str
    icon: str
    css: str
    consequence: str
    possible: bool
    allowed: bool
    typed: bool
    command: str


#: Acts that want the name of the namespace typed.
TYPED = frozenset({"turn_around", "roll_back", "emergency", "planned"})

#: Name, title, what the last button says, icon, colour; in the order of how much they change.
_ACTS: tuple[tuple[str, Any, Any, str, str], ...] = (
    ("pause", gettext_lazy("Pause"), gettext_lazy("Pause after this batch"), "pause", ""),
    (
        "resume",
        gettext_lazy("Resume"),
        gettext_lazy("Resume: let the next batch begin"),
        "play_arrow",
        "primary",
    ),
    ("stop_here", gettext_lazy("Stop here"), gettext_lazy("Stop here and keep what has moved"), "stop", ""),
    ("abort", gettext_lazy("Abort"), gettext_lazy("Abort"), "close", "danger-soft"),
    (
        "turn_around",
        gettext_lazy("Turn around"),
        gettext_lazy("Turn this batch around"),
        "u_turn_left",
        "danger-soft",
    ),
    ("roll_back", gettext_lazy("Roll back"), gettext_lazy("Roll everything back"), "undo", "danger-soft"),
    (
        "finish",
        gettext_lazy("Finish without the stragglers"),
        gettext_lazy("Finish without the stragglers"),
        "done",
        "warn-soft",
    ),
    (
        "emergency",
        gettext_lazy("Switch to emergency"),
        gettext_lazy("Switch to emergency"),
        "emergency_home",
        "danger-soft",
    ),
    (
        "planned",
        gettext_lazy("Back to planned mode"),
        gettext_lazy("Switch back to planned mode"),
        "event_available",
        "",
    ),
)

#: What an act is called in a shell, where that is not its name.
_IN_A_SHELL = {"stop_here": "stop", "planned": "emergency --back"}


def acts_shown(status: Mapping[str, Any], allowed: Mapping[str, bool]) -> list[Act]:
    """Every act on a running cutover; also those not possible now, for the script to show later."""
    words = f"{status['number']} -n {status['namespace']} --reason '…'"
    return [
        Act(
            name,
            str(title),
            str(does),
            icon,
            css,
            status["consequences"].get(name, ""),
            status["actions"][name],
            allowed[name],
            name in TYPED,
            f"mshactl cutover {_IN_A_SHELL.get(name, name.replace('_', '-'))} {words}",
        )
        for name, title, does, icon, css in _ACTS
    ]


def mode_acts(cutover: Cutover) -> list[tuple[str, str, str, str]]:
    """The switch of the mode before the start: name, title, what the button says, consequence."""
    told = consequences(cutover)
    return [
        (name, str(title), str(does), told[name])
        for name, title, does, _icon, _css in _ACTS
        if name in ("emergency", "planned") and name in told
    ]


_EVENT_LOOKS: dict[str, tuple[str, str]] = {
    "drafted": ("edit_note", ""),
    "previewed": ("preview", ""),
    "checks": ("fact_check", ""),
    "skipped": ("skip_next", "warn"),
    "started": ("play_arrow", ""),
    "paused": ("pause", "warn"),
    "resumed": ("play_arrow", ""),
    "held": ("hourglass_top", "warn"),
    "adjusted": ("edit_note", ""),
    "pacing": ("speed", ""),
    "mode": ("emergency_home", "bad"),
    "declared_dead": ("dangerous", "bad"),
    "overridden": ("gavel", "warn"),
    "approval_requested": ("how_to_reg", ""),
    "approved": ("verified", "good"),
    "approval_withdrawn": ("person_off", "warn"),
    "approval_lapsed": ("person_off", "warn"),
    "hook": ("webhook", ""),
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
