"""The page of a namespace's safety rules, with its blocked windows in it."""

from typing import Any

from django import forms
from django.contrib import admin
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline

from cutover.models import BlockedWindow, SafetyRules
from cutover.safety import stored
from units import publishing
from units.admin.base import InNamespaceAdmin, InNamespaceForm
from units.current import current_namespace


class SafetyRulesForm(InNamespaceForm):
    class Meta:
        model = SafetyRules
        fields = ("min_share_percent", "max_ids", "max_sessions", "quiet_s", "approval")


class WindowForm(forms.ModelForm):
    class Meta:
        model = BlockedWindow
        fields = ("day", "begins", "ends", "time_zone", "note")

    def clean_time_zone(self) -> str:
        name = str(self.cleaned_data["time_zone"]).strip()
        stored.refuse_unknown_zone(name)
        return name


class Windows(TabularInline):
    model = BlockedWindow
    form = WindowForm
    formset = BaseInlineFormSet
    extra = 0


@admin.register(SafetyRules)
class SafetyRulesAdmin(InNamespaceAdmin):
    """One form per namespace: its list leads straight to it."""

    form = SafetyRulesForm
    inlines = (Windows,)
    list_display = ("namespace",)

    def get_fieldsets(self, request: HttpRequest, obj: SafetyRules | None = None) -> Any:
        return (
            (
                _("Limits"),
                {
                    "fields": (("min_share_percent", "quiet_s"), ("max_ids", "max_sessions")),
                    "description": _(
                        "Looked at when a cutover is previewed, and again when it starts. An empty field"
                        " limits nothing."
                    ),
                },
            ),
            (_("Approval"), {"fields": ("approval",)}),
        )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        namespace = current_namespace(request)
        rules = None if namespace is None else stored.rules_of(namespace)
        if rules is not None and rules.pk is not None:
            return HttpResponseRedirect(self.address(rules))
        if self.has_add_permission(request):
            return HttpResponseRedirect(reverse("admin:cutover_safetyrules_add"))
        return super().changelist_view(request, extra_context)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        namespace = current_namespace(request)
        rules = None if namespace is None else stored.rules_of(namespace)
        if rules is not None and rules.pk is not None:  # somebody else has made them meanwhile
            return HttpResponseRedirect(self.address(rules))
        return super().add_view(request, form_url, extra_context)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # emptied rules forbid nothing, and the audit trail tells of it

    def save_model(self, request: HttpRequest, obj: SafetyRules, form: Any, change: bool) -> None:
        publishing.locked(obj.namespace_id)
        form.rules_before = stored.value(obj.namespace_id)
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        rules: SafetyRules = form.instance
        stored.note_change(rules.namespace, form.rules_before, self.actor(request))
