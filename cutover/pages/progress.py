"""The running cutover, live."""

from collections.abc import Callable
from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.functional import cached_property

from cutover import services
from cutover.models import Cutover
from cutover.pages.base import REFUSED, START, Refusal, WizardPage
from cutover.pages.shown import (
    Act,
    acts_shown,
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


class Progress(Running):
    """The running cutover, live; abort, turn-around and finish with their consequence."""

    place = Place.PROGRESS
    template_name = "cutover/progress.html"
    acts: ClassVar[dict[str, str]] = {"abort": START, "turn_around": START, "finish": START}

    def do_abort(self) -> HttpResponse:
        return self._done(services.abort)

    def do_turn_around(self) -> HttpResponse:
        return self._done(services.turn_around)

    def do_finish(self) -> HttpResponse:
        return self._done(services.finish_with_stragglers)

    def _done(self, act: Callable[[Cutover, str, str], Cutover]) -> HttpResponse:
        act(self.cutover, self.actor, self.request.POST.get("reason", ""))
        return redirect("cutover:progress", self.cutover.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        shown: list[Act] = acts_shown(self.status, may=self.request.user.has_perm(START))
        any_act = any(act.possible for act in shown)
        return super().step({"acts": shown, "any_act": any_act, **context}, status=status)


class Status(ConsolePage):
    """The status as JSON: for the live page while its WebSocket is down."""

    permission_required = "cutover.view_cutover"

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return JsonResponse(services.status(get_object_or_404(Cutover, pk=pk)))
