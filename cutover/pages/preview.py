"""What a cutover would do: in tables, and as rule text."""

from datetime import datetime
from typing import Any, ClassVar

from django.http import HttpResponse
from django.shortcuts import redirect

from cutover import services
from cutover.pages.base import CHANGE, WizardPage
from cutover.pages.gatekeeping import Gatekeeping
from cutover.pages.wizard import Place, link_to


class PreviewPage(Gatekeeping):
    """The new table, the moved ids, and what it costs."""

    place = Place.PREVIEW
    template_name = "cutover/preview.html"
    acts: ClassVar[dict[str, str]] = {**Gatekeeping.acts, "preview": CHANGE}

    def do_preview(self) -> HttpResponse:
        services.preview(self.cutover, self.actor)
        return redirect("cutover:preview", self.cutover.pk)

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        preview = self.preview
        if preview is None:
            return redirect(link_to(self.cutover))
        at = self.cutover.impact.get("at")
        return super().step(
            {
                "preview": preview,
                "bar": self.bar(),
                "counted_at": datetime.fromisoformat(at) if at else None,
                **context,
            },
            status=status,
        )


class RulesPage(WizardPage):
    """Rule text: before and after, side by side."""

    place = Place.RULES
    template_name = "cutover/rules.html"

    def step(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        if self.preview is None:
            return redirect(link_to(self.cutover))
        return super().step({"preview": self.preview, **self.titles, **context}, status=status)
