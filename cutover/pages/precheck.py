"""The checks of a cutover: run, retry, skip."""

from collections.abc import Callable
from typing import Any, ClassVar

from django.http import HttpResponse
from django.shortcuts import redirect, render

from cutover import services
from cutover.models import Check, Cutover, Practice
from cutover.pages.base import CHANGE, REFUSED, SKIP, WizardPage
from cutover.pages.shown import (
    checks_shown,
)
from cutover.pages.wizard import Place, link_to, place_of
from cutover.practice.shown import practices as practised
from cutover.prechecks import BY_KEY
from msha.steering.errors import MshaError


class Precheck(WizardPage):
    """The checks: run, retry, skip."""

    place = Place.PRECHECK
    template_name = "cutover/precheck.html"
    acts: ClassVar[dict[str, str]] = {"run": CHANGE, "retry": CHANGE, "skip": SKIP, "practise": CHANGE}

    def do_run(self) -> HttpResponse:
        services.run_prechecks(self.cutover, self.actor)
        return redirect("cutover:precheck", self.cutover.pk)

    def do_practise(self) -> HttpResponse:
        services.practise(self.cutover, self.actor)
        return redirect("cutover:precheck", self.cutover.pk)

    def do_retry(self) -> HttpResponse:
        return self._on_check(lambda key: services.retry_check(self.cutover, key, self.actor))

    def do_skip(self) -> HttpResponse:
        reason = self.request.POST.get("reason", "")
        return self._on_check(lambda key: services.skip_check(self.cutover, key, self.actor, reason))

    def _on_check(self, act: Callable[[str], None]) -> HttpResponse:
        key = self.request.POST.get("key", "")
        try:
            act(key)
        except MshaError as error:
            self.cutover.refresh_from_db()
            if key in BY_KEY and self.cutover.editable:
                return self.step({"refused": str(error), "refused_key": key}, status=REFUSED)
            raise
        return redirect("cutover:precheck", self.cutover.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        return super().step({**self.checks(), **context}, status=status)

    def checks(self) -> dict[str, Any]:
        """The checks, and what follows from them."""
        cutover = self.cutover
        checks = checks_shown(cutover)
        open_ones = [c for c in checks if c.state in (Check.State.PENDING, Check.State.RUNNING)]
        unfinished = bool(open_ones) and cutover.editable
        ready = cutover.state == Cutover.State.CHECKED or not cutover.editable
        practices = practised(cutover)[:1]
        practising = any(one["state"] == Practice.State.RUNNING for one in practices)
        place = Place.CONFIRM if cutover.editable else place_of(cutover)
        return {
            "checks": checks,
            "counts": {
                "failed": sum(c.state == Check.State.FAILED for c in checks),
                "skipped": sum(c.state == Check.State.SKIPPED for c in checks),
            },
            "editable": cutover.editable,
            "unfinished": unfinished,
            "practices": practices,
            "practising": practising,
            "poll": unfinished or practising or cutover.state == Cutover.State.CHECKING,
            "ready": ready,
            "next_link": link_to(cutover, place),
        }


class Checks(Precheck):
    """The inner part of the precheck page, for htmx."""

    acts: ClassVar[dict[str, str]] = {}

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        shown = {"cutover": self.cutover, "looks": self.looks, **self.commands, **self.checks(), **context}
        return render(self.request, "cutover/_precheck.html", shown, status=status)
