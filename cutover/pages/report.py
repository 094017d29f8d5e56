"""What has happened, to keep and to print."""

from typing import Any, ClassVar

from django.http import HttpResponse
from django.shortcuts import redirect

from cutover import services
from cutover.models import Cutover
from cutover.pages.base import ADD
from cutover.pages.progress import Running
from cutover.pages.shown import (
    checks_shown,
    duration,
)
from cutover.pages.wizard import Place


class Report(Running):
    """What happened, to keep and to print; the way back stays visible."""

    place = Place.REPORT
    template_name = "cutover/report.html"
    acts: ClassVar[dict[str, str]] = {"rollback": ADD}

    def do_rollback(self) -> HttpResponse:
        draft = services.rollback(self.cutover, self.actor)
        return redirect("cutover:adjust", draft.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        cutover = self.cutover
        if self.preview is None:
            return redirect("cutover:start")
        return super().step(
            {
                "checks": checks_shown(cutover),
                "duration": duration(cutover),
                "rollbacks": cutover.rollbacks.exclude(state=Cutover.State.DISCARDED),
                "rollback_possible": self.status["actions"]["rollback"],
                **self.titles,
                **context,
            },
            status=status,
        )
