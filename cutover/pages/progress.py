"""The running cutover, live."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

from cutover import services
from cutover.errors import Refused
from cutover.losing import losing_units
from cutover.models import Cutover
from cutover.pages.base import REFUSED, SKIP, START, Refusal, WizardPage
from cutover.pages.emergency import Switching
from cutover.pages.shown import (
    TYPED,
    Act,
    acts_shown,
    batches_shown,
    events_shown,
    nodes_shown,
    phases_shown,
)
from cutover.pages.wizard import Place
from msha.steering.ranges import MovedIds
from units.pages import ConsolePage


class Running(WizardPage):
    """What progress and report share: the status, drawn."""

    @cached_property
    def status(self) -> dict[str, Any]:
        return services.status(self.cutover)

    def refused(self, refusal: Refusal) -> HttpResponse:
        self.__dict__.pop("status", None)
        self.cutover.refresh_from_db()
        return self.step({"refused": refusal.sentence, "refused_act": self.act[0]}, status=REFUSED)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        moved = MovedIds.from_lists(self.cutover.moved)
        frozen = [ms for ms in (self.status["frozen_ms"], self.status["frozen_now_ms"]) if ms is not None]
        now = {
            **self.status,
            "events": events_shown(self.status["events"]),
            "frozen_shown": max(frozen, default=None),
        }
        return super().step(
            {
                "status": now,
                "phases": phases_shown(self.status),
                "nodes": nodes_shown(self.status),
                "losing_names": [self.looks.at(code).label for code in sorted(moved.losing_units)],
                "gaining_names": [self.looks.at(code).label for code in sorted(moved.gaining_units)],
                "preview": self.preview,
                **context,
            },
            status=status,
        )


#: What the buttons of the live page do; each takes the cutover, who asks, and why.
DOES: dict[str, Callable[[Cutover, str, str], Cutover]] = {
    "pause": services.pause,
    "resume": services.resume,
    "stop_here": services.stop_here,
    "abort": services.abort,
    "turn_around": services.turn_around,
    "roll_back": services.roll_back,
    "finish": services.finish_with_stragglers,
}


class Progress(Switching, Running):
    """The running cutover, live; every act says its consequence before it is done."""

    place = Place.PROGRESS
    template_name = "cutover/progress.html"
    acts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(DOES, START),
        **Switching.acts,
        "skip_hook": SKIP,
    }

    def handler(self, name: str) -> Callable[..., HttpResponse]:
        return partial(self._done, name) if name in DOES else super().handler(name)

    def _done(self, name: str) -> HttpResponse:
        if name in TYPED:
            self.refuse_mistyped()
        DOES[name](self.cutover, self.actor, self.request.POST.get("reason", ""))
        return redirect("cutover:progress", self.cutover.pk)

    def do_skip_hook(self) -> HttpResponse:
        asked = self.request.POST
        services.skip_hook(self.cutover, asked.get("hook", ""), self.actor, asked.get("reason", ""))
        return redirect("cutover:progress", self.cutover.pk)

    def refuse_mistyped(self) -> None:
        """Nothing, if the name of the namespace was typed.

        Raises:
            Refused: it was not.
        """
        name = self.cutover.namespace.name
        if self.request.POST.get("namespace", "").strip() != name:
            raise Refused(_("Type the name of the namespace, %(name)s, to do this.") % {"name": name})

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        user = self.request.user
        starts = user.has_perm(START)
        allowed = {name: starts and user.has_perm(needed) for name, needed in self.acts.items()}
        shown: list[Act] = acts_shown(self.status, allowed)
        return super().step(
            {
                "acts": shown,
                "any_act": any(act.possible for act in shown),
                "batches": batches_shown(self.status),
                "losing_units": losing_units(self.cutover),
                "typed_reason": self.request.POST.get("reason", ""),
                **context,
            },
            status=status,
        )


class Status(ConsolePage):
    """The status as JSON: for the live page while its WebSocket is down."""

    permission_required = "cutover.view_cutover"

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return JsonResponse(services.status(get_object_or_404(Cutover, pk=pk)))
