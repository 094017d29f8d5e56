"""The lists of cutovers: what runs and is drafted, and what has ended."""

from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from cutover.models import Cutover
from cutover.pages.forms import HistoryFilter
from units.pages import ConsolePage

PER_PAGE = 20


class Start(ConsolePage):
    """Running cutovers, drafts, and the way to a new one."""

    title = _("Cutover")
    template_name = "cutover/start.html"
    permission_required = "cutover.view_cutover"

    def get(self, request: HttpRequest) -> HttpResponse:
        rows = Cutover.objects.filter(namespace=self.namespace).select_related("namespace")
        return self.page(
            {
                "running": rows.filter(state__in=Cutover.ACTIVE),
                "drafts": rows.filter(state__in=Cutover.BEFORE)[:50],
                "ended": rows.filter(state__in=(Cutover.State.DONE, Cutover.State.ABORTED))[:5],
            }
        )


class History(ConsolePage):
    """Every cutover that has ended, the newest first."""

    title = _("Cutover history")
    template_name = "cutover/history.html"
    permission_required = "cutover.view_cutover"

    def get(self, request: HttpRequest) -> HttpResponse:
        rows = Cutover.objects.filter(namespace=self.namespace, state__in=Cutover.ENDED)
        unit_types = sorted(set(rows.order_by().values_list("unit_type", flat=True)))
        form = HistoryFilter(request.GET, unit_types=unit_types, states=Cutover.ENDED)
        chosen: dict[str, Any] = {}
        if form.is_valid():
            values = form.cleaned_data
            chosen = {name: values[name] for name in ("state", "unit_type") if values[name]}
            if values["who"]:
                chosen["started_by__icontains"] = values["who"]
        if "state" not in chosen:
            rows = rows.exclude(state=Cutover.State.DISCARDED)
        found = rows.filter(**chosen).select_related("namespace")
        page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
        query = request.GET.copy()
        query.pop("page", None)
        return self.page(
            {
                "filter": form,
                "filtered": bool(chosen),
                "page": page if page.paginator.count else None,
                "query": f"{query.urlencode()}&" if query else "",
            }
        )
