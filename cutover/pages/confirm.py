"""The last word before a cutover starts."""

from typing import Any, ClassVar

from django.http import HttpResponse
from django.shortcuts import redirect

from cutover import services
from cutover.models import Check, Cutover
from cutover.pages.base import REFUSED, START
from cutover.pages.gatekeeping import Gatekeeping
from cutover.pages.shown import (
    checks_shown,
)
from cutover.pages.wizard import Place, link_to
from msha.steering.errors import MshaError


class Confirm(Gatekeeping):
    """The last word: the namespace is typed, the cutover starts."""

    place = Place.CONFIRM
    template_name = "cutover/confirm.html"
    acts: ClassVar[dict[str, str]] = {**Gatekeeping.acts, "start": START}

    def do_start(self) -> HttpResponse:
        typed = self.request.POST.get("namespace", "")
        try:
            services.start(self.cutover, self.actor, typed)
        except MshaError as error:
            self.cutover.refresh_from_db()
            if self.cutover.state != Cutover.State.CHECKED:
                raise
            return self.step({"refused": str(error), "typed": typed}, status=REFUSED)
        return redirect("cutover:progress", self.cutover.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        if self.preview is None:
            return redirect(link_to(self.cutover))
        skipped = [check for check in checks_shown(self.cutover) if check.state == Check.State.SKIPPED]
        shown = {"preview": self.preview, "bar": self.bar(), "skipped": skipped, "typed": ""}
        return super().step({**shown, **context}, status=status)
