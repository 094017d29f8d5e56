"""The wizard's steps: which there are, which may be opened, and which one a cutover is at."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from cutover.models import Cutover

State = Cutover.State


class Place(StrEnum):
    """A step, as it stands in its address."""

    ADJUST = "adjust"
    PREVIEW = "preview"
    RULES = "rules"
    PRECHECK = "precheck"
    CONFIRM = "confirm"
    PROGRESS = "progress"
    REPORT = "report"


TITLES: dict[Place, Any] = {
    Place.ADJUST: _("Adjust ranges"),
    Place.PREVIEW: _("Preview"),
    Place.RULES: _("Rule text"),
    Place.PRECHECK: _("Precheck"),
    Place.CONFIRM: _("Confirm"),
    Place.PROGRESS: _("Live progress"),
    Place.REPORT: _("Report"),
}

_THOUGHT = (Place.ADJUST, Place.PREVIEW, Place.RULES, Place.PRECHECK)
_RUN = (*_THOUGHT, Place.CONFIRM, Place.PROGRESS)

_OPEN: dict[str, tuple[Place, ...]] = {
    State.DRAFT: (Place.ADJUST,),
    State.PREVIEWED: _THOUGHT,
    State.CHECKING: _THOUGHT,
    State.CHECKED: (*_THOUGHT, Place.CONFIRM),
    State.DONE: (*_RUN, Place.REPORT),
    State.ABORTED: (*_RUN, Place.REPORT),
    State.DISCARDED: (Place.ADJUST,),
}

_AT: dict[str, Place] = {
    State.DRAFT: Place.ADJUST,
    State.PREVIEWED: Place.PREVIEW,
    State.CHECKING: Place.PRECHECK,
    State.CHECKED: Place.PRECHECK,
    State.DONE: Place.REPORT,
    State.ABORTED: Place.REPORT,
    State.DISCARDED: Place.ADJUST,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step as the line across the top shows it; without a link it cannot be opened yet."""

    number: int
    place: Place
    title: Any
    link: str
    done: bool
    here: bool


def places_open(cutover: Cutover) -> tuple[Place, ...]:
    """The steps that have something to show."""
    return _OPEN.get(cutover.state, _RUN)


def place_of(cutover: Cutover) -> Place:
    """Where the cutover stands, and a colleague who takes over begins."""
    return _AT.get(cutover.state, Place.PROGRESS)


def link_to(cutover: Cutover, place: Place | None = None) -> str:
    """The address of a step, of the present one unless another is named."""
    return reverse(f"cutover:{place or place_of(cutover)}", args=[cutover.pk])


def steps(cutover: Cutover | None, here: Place) -> list[Step]:
    """The line of steps; None is a cutover that nobody has drafted yet."""
    shown = places_open(cutover) if cutover is not None else (Place.ADJUST,)
    places = list(Place)
    at = max(places.index(here), places.index(place_of(cutover)) if cutover is not None else 0)
    return [
        Step(
            index + 1,
            place,
            TITLES[place],
            link_to(cutover, place) if cutover is not None and place in shown else "",
            done=index < at and place in shown,
            here=place is here,
        )
        for index, place in enumerate(places)
    ]
