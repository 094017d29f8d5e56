"""The list of domains, on django-unfold; a domain's own page is in `domains.pages`."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from domains import services
from domains.models import Domain
from domains.pages import DeleteDomain, DomainPage
from units.admin.base import ConsoleAdmin
from units.current import current_namespace


class DomainList(ChangeList):
    """Domains that know whether they are in effect as they are saved."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        namespace = current_namespace(request)
        pending = services.pending_domains(namespace) if namespace is not None else set()
        for domain in self.result_list:
            domain.pending = domain.name in pending


@admin.register(Domain)
class DomainAdmin(ConsoleAdmin):
    list_display = ("name", "state", "subdomains", "types", "uri_paths")
    list_filter = ("dns", "multi_unit", "redirect_scheme")
    search_fields = ("name", "uris__path")
    ordering = ("name",)
    empty_hint = _("There is no domain yet. Add the host name that your clients connect to.")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return DomainList

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("namespace__units", "uris")

    @display(description=_("unit sub-domains"))
    def subdomains(self, row: Domain) -> SafeString:
        codes = (unit.code for unit in sorted(row.namespace.units.all(), key=lambda u: (u.position, u.code)))
        return format_html_join("", "<div>{}.{}</div>", ((code, row.name) for code in codes))

    @display(description=_("types"))
    def types(self, row: Domain) -> SafeString:
        resolution = gettext("multi-unit resolution") if row.multi_unit else gettext("resolves to the center")
        correction = f"{row.get_correction_display()} ({row.get_redirect_scheme_display()})"
        lines = (f"{row.get_protocol_display()}, {correction}", f"DNS: {row.get_dns_display()}, {resolution}")
        return format_html_join("", "<div>{}</div>", ((line,) for line in lines))

    @display(description=_("URIs"))
    def uri_paths(self, row: Domain) -> str:
        paths = [uri.path for uri in row.uris.all()]
        return ", ".join(paths[:4]) + (", …" if len(paths) > 4 else "") or "–"

    @display(description=_("state"))
    def state(self, row: Any) -> SafeString:
        if not row.pending:
            return format_html(
                '<span class="console"><span class="badge good">{}</span></span>', gettext("IN EFFECT")
            )
        return format_html(
            '<span class="console"><a class="badge warn" href="{}">{}</a></span>',
            reverse("domains:put_into_effect", args=[row.namespace.name]),
            gettext("PENDING"),
        )

    def get_urls(self) -> list[URLPattern]:
        own = [path("<int:pk>/delete/", DeleteDomain.as_view(), name="domains_domain_delete")]
        return [*own, *super().get_urls()]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        return DomainPage.as_view()(request)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponseBase:
        if not object_id.isdigit():
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        return DomainPage.as_view()(request, pk=int(object_id))

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Leads to the audit events: the admin's own log sees only the admin."""
        return redirect(f"{reverse('admin:units_auditevent_changelist')}?q=domain.")
