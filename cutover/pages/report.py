"""What has happened, to keep and to print."""

from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect

from cutover import services
from cutover.batches import kept
from cutover.models import Cutover
from cutover.pages.base import ADD, CHANGE
from cutover.pages.progress import Running
from cutover.pages.shown import batches_shown, checks_shown
from cutover.pages.wizard import Place
from units.pages import ConsolePage


class Report(Running):
    """What happened, to keep and to print; the way back stays visible."""

    place = Place.REPORT
    template_name = "cutover/report.html"
    acts: ClassVar[dict[str, str]] = {"rollback": ADD, "ask": CHANGE}

    def do_ask(self) -> HttpResponse:
        services.find_stragglers(self.cutover)
        return redirect("cutover:report", self.cutover.pk)

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
                "report": services.report(cutover),
                "batches": batches_shown(self.status),
                "rollbacks": cutover.rollbacks.exclude(state=Cutover.State.DISCARDED),
                "rollback_possible": self.status["actions"]["rollback"],
                "kept_ids": kept(cutover).count,
                **self.titles,
                **context,
            },
            status=status,
        )


class ReportFile(ConsolePage):
    """The report as a JSON file, to keep beside the ticket."""

    permission_required = "cutover.view_cutover"

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        cutover = get_object_or_404(Cutover.objects.select_related("namespace"), pk=pk)
        answer = JsonResponse(
            services.report(cutover), json_dumps_params={"indent": 2, "ensure_ascii": False}
        )
        name = f"cutover-{cutover.namespace.name}-{cutover.number}.json"
        answer["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer
