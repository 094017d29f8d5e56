"""What the lists and forms of this app have in common."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext
from unfold.admin import ModelAdmin

from msha.steering.errors import MshaError
from units.current import choose, current_namespace
from units.models import Namespace


def moment(at: datetime | None) -> SafeString | str:
    """The moment in UTC, marked so that the browser shows the operator's zone beside it."""
    if at is None:
        return "–"
    utc = at.astimezone(UTC)
    return format_html(
        '<time datetime="{}" data-when="full">{} UTC</time>',
        utc.isoformat(timespec="milliseconds"),
        utc.strftime("%Y-%m-%d %H:%M:%S"),
    )


class NamedList(ModelAdmin):
    """A list is called what its rows are, not "Select … to change"."""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"title": capfirst(self.opts.verbose_name_plural), **(extra_context or {})}
        response: HttpResponse = super().changelist_view(request, context)
        return response


class ConsoleAdmin(NamedList):
    """Lists show the current namespace; a refusal of a service is a sentence, never a server error.

    Attributes:
        empty_hint: what to do next, shown where a list has no row (unfold/helpers/empty_results.html).
        namespace_path: the look-up of the namespace, or "" for rows of all namespaces.
    """

    actions = None
    warn_unsaved_form = True
    empty_hint: ClassVar[Any] = ""
    namespace_path: ClassVar[str] = "namespace"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        match = request.resolver_match
        in_list = match is not None and (match.url_name or "").endswith("_changelist")
        if self.namespace_path and in_list:
            rows = rows.filter(**{self.namespace_path: current_namespace(request)})
        return rows

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if "namespace" in request.GET:  # as in deep links; the list itself would take it for a look-up
            current_namespace(request)
            query = request.GET.copy()
            del query["namespace"]
            return HttpResponseRedirect(f"{request.path}?{query.urlencode()}" if query else request.path)
        response: HttpResponse = super().changelist_view(request, extra_context)
        return response

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if object_id is not None:
            self._follow(request, object_id)
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except MshaError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(request.get_full_path())

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        if row is not None:
            if not self.has_delete_permission(request, row):
                raise PermissionDenied
            if sentences := self.obstacles(row):
                return self._refused(request, row, sentences)
        try:
            return super().delete_view(request, object_id, extra_context)
        except MshaError as error:
            assert row is not None
            return self._refused(request, row, [str(error)])

    def obstacles(self, row: Any) -> list[str]:
        """Why the row cannot be deleted now; empty when nothing forbids it."""
        return []

    def actor(self, request: HttpRequest) -> str:
        """The name under which the user's acts are recorded."""
        return request.user.get_username()

    def _refused(self, request: HttpRequest, row: Model, sentences: list[str]) -> HttpResponse:
        for sentence in sentences:
            messages.error(request, sentence)
        return HttpResponseRedirect(self.address(row))

    @staticmethod
    def address(row: Model) -> str:
        """The address of the row's page."""
        return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])

    def _follow(self, request: HttpRequest, object_id: str) -> None:
        """A deep link to a thing of another namespace brings its namespace with it."""
        row = self.get_object(request, object_id)
        namespace = getattr(row, "namespace", None)
        if isinstance(namespace, Namespace):
            choose(request, namespace)


class InNamespaceAdmin(ConsoleAdmin):
    """Rows belong to the current namespace; there must be one before a row is added."""

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if current_namespace(request) is None:
            messages.info(request, gettext("Make a namespace first: everything belongs to one."))
            return HttpResponseRedirect(reverse("admin:units_namespace_add"))
        return super().add_view(request, form_url, extra_context)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> type[forms.ModelForm]:
        form = super().get_form(request, obj, change, **kwargs)
        form.namespace = current_namespace(request) if obj is None else obj.namespace
        return form


class InNamespaceForm(forms.ModelForm):
    """A row of a namespace that the form itself does not ask for."""

    namespace: ClassVar[Namespace]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is None:
            self.instance.namespace = self.namespace

    def _get_validation_exclusions(self) -> set[str]:
        """All but the namespace, so that what is unique in it is checked here, not by the database."""
        excluded: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return excluded - {"namespace"}


class ReadOnlyAdmin(ConsoleAdmin):
    """Rows that the services alone write; people look at them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
