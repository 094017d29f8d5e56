"""The form of a cutover's pacing, and what it means in plain words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cutover.errors import InvalidChange
from cutover.models import Cutover
from cutover.pacing.asked import checked, pacing_of
from msha.steering.pacing import Gate, Pacing, stages
from msha.steering.ranges import MovedIds

#: Divisions that are one choice away; each lists where its stages end, in percent.
PRESETS: dict[str, tuple[Any, list[float]]] = {
    "all": (gettext_lazy("everything at once"), []),
    "careful": (gettext_lazy("1 %, 10 %, 50 %, then the rest"), [1, 10, 50]),
    "half": (gettext_lazy("one half, then the other"), [50]),
}

#: Shown as percent, kept as a share.
_SHARES = ("refused", "back_source", "reconnect")


@dataclass
class PacingForm:
    """What stands in the form, as text.

    Attributes:
        errors: by field; "" is about the whole.
    """

    values: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> "PacingForm":
        pacing = checked(stored)
        gate = pacing.gate
        steps = list(pacing.percents)
        preset = next((name for name, (_title, ends) in PRESETS.items() if ends == steps), "steps")
        return cls(
            {
                "divide": "ids" if pacing.ids_per_stage else preset,
                "steps": ", ".join(f"{one:g}" for one in steps) if preset == "steps" else "",
                "ids": str(pacing.ids_per_stage or ""),
                "bake_s": f"{pacing.bake_s:g}" if pacing.bake_s else "",
                "sessions_per_s": f"{pacing.sessions_per_s:g}" if pacing.sessions_per_s else "",
                "on_failure": str(pacing.on_failure),
                **{name: _percent(getattr(gate, name)) for name in _SHARES},
                "stragglers": "" if gate.stragglers is None else str(gate.stragglers),
                "retry_s": f"{gate.retry_s:g}",
            }
        )

    @classmethod
    def of_post(cls, data: QueryDict) -> "PacingForm":
        names = ("divide", "steps", "ids", "bake_s", "sessions_per_s", "on_failure", *_SHARES)
        return cls({name: data.get(name, "").strip() for name in (*names, "stragglers", "retry_s")})

    @property
    def presets(self) -> list[tuple[str, str]]:
        return [(name, str(title)) for name, (title, _ends) in PRESETS.items()]

    @property
    def strict(self) -> bool:
        """Whether the limits of the gate are others than the usual ones, or one of them is wrong."""
        usual = PacingForm.of_stored({}).values
        names = (*_SHARES, "stragglers", "retry_s")
        return any(self.values[name] != usual[name] or name in self.errors for name in names)

    def asked(self) -> dict[str, Any] | None:
        """What the service is asked for; None if a field is not a number, which then bears its fault."""
        values = self.values
        gate = {name: self._number(name, 0.01) for name in _SHARES}
        asked: dict[str, Any] = {
            "bake_s": self._number("bake_s") or 0,
            "sessions_per_s": self._number("sessions_per_s") or 0,
            "on_failure": values["on_failure"] or "pause",
            "gate": {**gate, "stragglers": self._number("stragglers")},
        }
        retry_s = self._number("retry_s")
        if retry_s is not None:
            asked["gate"]["retry_s"] = retry_s
        if values["divide"] == "ids":
            asked["ids"] = self._number("ids")
            if asked["ids"] is None and "ids" not in self.errors:
                self.errors["ids"] = _("Write how many ids a step has, for example 100.")
        elif values["divide"] == "steps":
            words = values["steps"].replace("%", " ").replace("，", ",").replace(",", " ").split()
            asked["steps"] = [self._read("steps", word) for word in words]
            if not words:
                self.errors["steps"] = _("Write where the steps end, in percent, for example 1, 10, 50.")
        else:
            asked["steps"] = list(PRESETS.get(values["divide"], PRESETS["all"])[1])
        return None if self.errors else asked

    def refuse(self, error: InvalidChange) -> None:
        """The fault stands at its field, if it has one here."""
        name = error.place.rpartition(".")[2]
        self.errors[name if name in self.values else ""] = error.sentence

    def _number(self, name: str, scale: float = 1) -> float | int | None:
        text = self.values[name]
        found = self._read(name, text) if text else None
        if found is None or scale == 1:
            return found
        return round(found * scale, 6)

    def _read(self, name: str, word: str) -> float | int | None:
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.errors[name] = _("“%(word)s” is not a number.") % {"word": word[:40]}
            return None
        return int(number) if number == int(number) else number


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:g}"


def summary(cutover: Cutover) -> str:
    """What the pacing means for this cutover: batches, sessions, least duration, what a failure does."""
    pacing, moved = pacing_of(cutover), MovedIds.from_lists(cutover.moved)
    sessions = sum(count for _losing, _gaining, count in cutover.impact.get("pairs", []))
    sizes = [part.count for part in stages(moved, pacing)]
    sentences = [_division(sizes, sessions)]
    least_s = pacing.bake_s * max(0, len(sizes) - 1)
    if pacing.sessions_per_s:
        sentences.append(
            _("Each is drained in small batches: at most %(rate)g sessions per second of a losing unit.")
            % {"rate": pacing.sessions_per_s}
        )
        least_s = max(least_s, sessions / pacing.sessions_per_s)
    if least_s >= 1:
        sentences.append(_("It takes at least %(duration)s.") % {"duration": _lasting(least_s)})
    if len(sizes) > 1 or pacing.sessions_per_s:
        sentences.append(_watching(pacing))
    return " ".join(sentences)


def _division(sizes: list[int], sessions: int) -> str:
    total = sum(sizes)
    if len(sizes) <= 1:
        return ngettext(
            "%(count)d id moves at once.", "All %(count)d ids move at once.", total
        ) % {"count": total}  # fmt: skip
    shown = ", ".join(map(str, sizes[:4])) + (", …" if len(sizes) > 4 else "")
    told = _("%(steps)d steps of %(sizes)s ids.") % {"steps": len(sizes), "sizes": shown}
    if sessions:
        each = [round(sessions * size / total) for size in sizes]
        least, most = min(each), max(each)
        told += " " + (
            _("About %(n)d sessions each.") % {"n": most}
            if least == most
            else _("About %(least)d to %(most)d sessions each.") % {"least": least, "most": most}
        )
    return told


def _watching(pacing: Pacing) -> str:
    gate: Gate = pacing.gate
    watched = [getattr(gate, name) for name in (*_SHARES, "stragglers")]
    if all(limit is None for limit in watched):
        return _("Nothing is looked at between the steps.")
    if pacing.on_failure == "undo":
        return _("Between them the gaining units are looked at; if one is not well, everything goes back.")
    return _("Between them the gaining units are looked at; if one is not well, it pauses.")


def _lasting(seconds: float) -> str:
    whole = math.ceil(seconds)
    if whole < 60:
        return _("%(n)d s") % {"n": whole}
    if whole % 60 == 0:
        return _("%(n)d min") % {"n": whole // 60}
    return _("%(minutes)d min %(seconds)d s") % {"minutes": whole // 60, "seconds": whole % 60}
