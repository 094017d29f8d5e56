"""Namespaces, units, unit types."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from units import editing, stopped
from units.admin.base import ConsoleAdmin, InNamespaceAdmin, InNamespaceForm
from units.admin.unit_type_form import exact_field, form_for, ranges_field
from units.current import choose, current_namespace
from units.models import Namespace, Unit, UnitType

SAVED = _(
    "Saved, not in effect yet: put it into effect."
    " What changes the owner of an id becomes the draft of a cutover."
)


class NamespaceForm(forms.ModelForm):
    class Meta:
        model = Namespace
        fields = ("name", "title", "key_min", "key_max", "default_unit_type")

    def clean_default_unit_type(self) -> str:
        name = str(self.cleaned_data["default_unit_type"])
        known = (
            set()
            if self.instance.pk is None
            else set(self.instance.unit_types.values_list("name", flat=True))
        )
        if name and known and name not in known:
            raise forms.ValidationError(
                gettext("%(name)s is not a unit type of this namespace; there is %(known)s.")
                % {"name": name, "known": ", ".join(sorted(known))}
            )
        return name


@admin.register(Namespace)
class NamespaceAdmin(ConsoleAdmin):
    form = NamespaceForm
    namespace_path = ""
    list_display = ("name", "title", "key_space", "unit_count", "version", "epoch", "publishing")
    search_fields = ("name", "title")
    empty_hint = _("A namespace is one multi-active environment. Add the first one, then its units.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Namespace]:
        return super().get_queryset(request).annotate(unit_number=Count("units"))

    def get_readonly_fields(self, request: HttpRequest, obj: Namespace | None = None) -> tuple[str, ...]:
        shown = () if obj is None else ("uuid", "version", "epoch", "publishing")
        if obj is not None and obj.version:
            return ("name", "key_min", "key_max", "default_unit_type", *shown)
        return shown

    def get_fieldsets(self, request: HttpRequest, obj: Namespace | None = None) -> Any:
        first = (None, {"fields": (("name", "title"),)})
        keys = (
            _("routerId"),
            {
                "fields": (("key_min", "key_max"), "default_unit_type"),
                "description": _("Fixed once the namespace has been published for the first time."),
            },
        )
        if obj is None:
            return (first, keys)
        return (first, keys, (_("State"), {"fields": (("version", "epoch"), "uuid", "publishing")}))

    @display(description=_("routerIds"))
    def key_space(self, row: Namespace) -> str:
        return f"{row.key_min}~{row.key_max}"

    @display(description=_("units"), ordering="unit_number")
    def unit_count(self, row: Any) -> int:
        return int(row.unit_number)

    @display(description=_("publishing"), label={"ok": "success", "stopped": "danger"})
    def publishing(self, row: Namespace) -> tuple[str, str]:
        if row.publishing_stopped:
            return "stopped", gettext("stopped: %(reason)s") % {"reason": stopped.why(row)}
        return "ok", gettext("possible")

    def save_model(self, request: HttpRequest, obj: Namespace, form: Any, change: bool) -> None:
        editing.save(obj, actor=self.actor(request))
        choose(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # versions and audit events belong to it for ever


class UnitForm(InNamespaceForm):
    class Meta:
        model = Unit
        fields = ("code", "name", "is_center", "position")


@admin.register(Unit)
class UnitAdmin(InNamespaceAdmin):
    form = UnitForm
    list_display = ("code", "name", "center", "position", "cluster_count", "node_count")
    search_fields = ("code", "name")
    empty_hint = _("A unit is a data centre. Add at least two; one of them is the center.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Unit]:
        rows = super().get_queryset(request)
        return rows.annotate(
            cluster_number=Count("clusters", distinct=True), node_number=Count("edgenodes", distinct=True)
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Unit | None = None) -> tuple[str, ...]:
        return () if obj is None else ("code",)

    @display(description=_("center"), label={"yes": "info"})
    def center(self, row: Unit) -> tuple[str, str] | None:
        return ("yes", gettext("center")) if row.is_center else None

    @display(description=_("clusters"))
    def cluster_count(self, row: Any) -> int:
        return int(row.cluster_number)

    @display(description=_("edge nodes"))
    def node_count(self, row: Any) -> int:
        return int(row.node_number)

    def save_model(self, request: HttpRequest, obj: Unit, form: Any, change: bool) -> None:
        editing.save(obj, actor=self.actor(request))

    def delete_model(self, request: HttpRequest, obj: Unit) -> None:
        editing.remove(obj, actor=self.actor(request))

    def obstacles(self, row: Unit) -> list[str]:
        return editing.obstacles(row)


@admin.register(UnitType)
class UnitTypeAdmin(InNamespaceAdmin):
    list_display = ("name", "found_in", "untagged", "rule")
    search_fields = ("name",)
    empty_hint = _(
        "A unit type says where the routerId of a handshake is found and which unit owns which range of ids."
    )

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        namespace = current_namespace(request) if obj is None else obj.namespace
        return super().get_form(request, obj, change, **{**kwargs, "form": form_for(namespace)})

    def get_fieldsets(self, request: HttpRequest, obj: UnitType | None = None) -> Any:
        namespace = current_namespace(request) if obj is None else obj.namespace
        units = [] if namespace is None else namespace.units.order_by("position", "code")
        return (
            (None, {"fields": (("name", "untagged"),)}),
            (_("Where the routerId is found"), {"fields": ("sources_text", "transform_text")}),
            (
                _("Rule"),
                {
                    "fields": tuple((ranges_field(unit), exact_field(unit)) for unit in units),
                    "description": _(
                        "What is saved here takes effect by a cutover once the namespace has been published."
                    ),
                },
            ),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: UnitType | None = None) -> tuple[str, ...]:
        return () if obj is None else ("name",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        namespace = current_namespace(request)
        published = namespace is not None and namespace.version > 0  # that fixes the unit types
        return super().has_add_permission(request) and not published

    @display(description=_("routerId"))
    def found_in(self, row: UnitType) -> str:
        return ", ".join(f"{kind} {name}" for source in row.sources for kind, name in source.items())

    @display(description=_("saved rule"))
    def rule(self, row: UnitType) -> str:
        return "; ".join(f"{unit} {', '.join(ranges)}" for unit, ranges in row.ranges.items())

    def save_model(self, request: HttpRequest, obj: UnitType, form: Any, change: bool) -> None:
        editing.save(obj, actor=self.actor(request))
        if obj.namespace.version and form.has_changed():
            messages.info(request, SAVED)

    def delete_model(self, request: HttpRequest, obj: UnitType) -> None:
        editing.remove(obj, actor=self.actor(request))

    def obstacles(self, row: UnitType) -> list[str]:
        return editing.obstacles(row)
