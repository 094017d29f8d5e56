"""MSFE clusters, edge nodes, SLBs."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from msha.steering.errors import MshaError
from units import clusters, enrolment, slbs
from units.admin.base import InNamespaceAdmin, InNamespaceForm
from units.current import current_namespace
from units.models import Cluster, EdgeNode, Slb
from units.node_pages import DeclareDead, NodePage, NodeToken, token_page
from units.standing import standing

_LABELS = {"good": "success", "warn": "warning", "bad": "danger", "info": "info"}


class _Members(forms.ModelMultipleChoiceField):
    """Rows to choose from, each with its unit."""

    widget = UnfoldAdminCheckboxSelectMultipleWidget

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.name} ({obj.unit.code})"


class ClusterForm(InNamespaceForm):
    nodes = _Members(
        EdgeNode.objects.none(),
        label=_("Edge nodes"),
        required=False,
        help_text=_("Registered nodes of the unit that are in no other cluster."),
    )
    slbs = _Members(
        Slb.objects.none(),
        label=_("SLBs"),
        required=False,
        help_text=_("Load balancers of the unit in front of this cluster; sync SLBs to see more."),
    )

    class Meta:
        model = Cluster
        fields = ("name", "unit", "protocol")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cluster = self.instance
        free = Q(cluster=None)
        here = Q(unit__namespace=self.namespace)
        if cluster.pk is None:
            self.fields["unit"].queryset = self.namespace.units.all()  # type: ignore[attr-defined]
        else:
            free |= Q(cluster=cluster)
            here = Q(unit=cluster.unit)
            self.initial["nodes"] = list(cluster.nodes.all())
            self.initial["slbs"] = list(cluster.slbs.all())
        usable = ~Q(state__in=(EdgeNode.State.DEAD, EdgeNode.State.LEFT)) | ~Q(cluster=None)
        nodes = EdgeNode.objects.filter(here & free & usable).select_related("unit")
        self.fields["nodes"].queryset = nodes  # type: ignore[attr-defined]
        balancers = Slb.objects.filter(here & free).select_related("unit")
        self.fields["slbs"].queryset = balancers  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        super().clean()
        data = self.cleaned_data
        unit = data.get("unit") or (self.instance.unit if self.instance.pk else None)
        if unit is None:
            return data
        for field in ("nodes", "slbs"):
            strangers = [member.name for member in data.get(field, ()) if member.unit_id != unit.pk]
            if strangers:
                self.add_error(
                    field,
                    gettext("%(names)s: not of unit %(unit)s. A cluster belongs to one unit.")
                    % {"names": ", ".join(strangers), "unit": unit.code},
                )
        return data


@admin.register(Cluster)
class ClusterAdmin(InNamespaceAdmin):
    form = ClusterForm
    list_display = ("name", "unit", "protocol", "node_count", "slb_names", "access_layer")
    list_select_related = ("unit",)
    search_fields = ("name",)
    change_form_outer_before_template = "units/_join_access_layer.html"
    empty_hint = _(
        "A cluster is the edge nodes of one unit for one protocol. Register the nodes, then make one of them."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Cluster]:
        rows = super().get_queryset(request).prefetch_related("slbs")
        return rows.annotate(node_number=Count("nodes", distinct=True))

    def get_fieldsets(self, request: HttpRequest, obj: Cluster | None = None) -> Any:
        return (
            (None, {"fields": ("name", "unit", "protocol")}),
            (_("Members"), {"fields": ("nodes", "slbs")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Cluster | None = None) -> tuple[str, ...]:
        return () if obj is None else ("name", "unit", "protocol")

    @display(description=_("edge nodes"), ordering="node_number")
    def node_count(self, row: Any) -> int:
        return int(row.node_number)

    @display(description=_("SLBs"))
    def slb_names(self, row: Cluster) -> str:
        return ", ".join(slb.name for slb in row.slbs.all()) or "–"

    @display(description=_("access layer"), label={"joined": "success", "outside": "warning"})
    def access_layer(self, row: Cluster) -> tuple[str, str]:
        return ("joined", gettext("joined")) if row.joined else ("outside", gettext("not joined"))

    def save_model(self, request: HttpRequest, obj: Cluster, form: Any, change: bool) -> None:
        nodes, balancers = form.cleaned_data["nodes"], form.cleaned_data["slbs"]
        actor = self.actor(request)
        if change:
            clusters.set_members(obj, actor=actor, nodes=nodes, slbs=balancers)
            return
        made = clusters.make(
            obj.unit, obj.name, actor=actor, protocol=obj.protocol, nodes=nodes, slbs=balancers
        )
        obj.pk, obj._state.adding = made.pk, False
        obj.namespace_id = made.namespace_id

    def delete_model(self, request: HttpRequest, obj: Cluster) -> None:
        clusters.remove(obj, actor=self.actor(request))

    def obstacles(self, row: Cluster) -> list[str]:
        return clusters.obstacles(row)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Only the cluster goes: its nodes and load balancers stay, in no cluster."""
        return [str(row) for row in objs], {Cluster._meta.verbose_name_plural: len(objs)}, set(), []

    def get_urls(self) -> list[URLPattern]:
        join = self.admin_site.admin_view(self.join)
        return [path("<int:pk>/join/", join, name="units_cluster_join"), *super().get_urls()]

    def join(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The cluster joins the access layer, so that domains may choose it."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_change_permission(request):
            raise PermissionDenied
        cluster = get_object_or_404(Cluster, pk=pk)
        try:
            clusters.join(cluster, actor=self.actor(request))
        except MshaError as error:
            messages.error(request, str(error))
        else:
            messages.success(
                request,
                gettext("Cluster %(name)s has joined the access layer; domains may choose it.")
                % {"name": cluster.name},
            )
        return HttpResponseRedirect(self.address(cluster))


class EdgeNodeForm(InNamespaceForm):
    class Meta:
        model = EdgeNode
        fields = ("name", "unit", "cluster")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["unit"].queryset = self.namespace.units.all()  # type: ignore[attr-defined]
        self.fields["unit"].help_text = _("A node never changes its unit.")
        chosen = Cluster.objects.filter(namespace=self.namespace)
        self.fields["cluster"].queryset = chosen.select_related("unit")  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        super().clean()
        unit, cluster = self.cleaned_data.get("unit"), self.cleaned_data.get("cluster")
        if unit and cluster and cluster.unit_id != unit.pk:
            raise ValidationError(
                {
                    "cluster": gettext("Cluster %(cluster)s belongs to unit %(unit)s.")
                    % {"cluster": cluster.name, "unit": cluster.unit.code}
                }
            )
        return self.cleaned_data


@admin.register(EdgeNode)
class EdgeNodeAdmin(InNamespaceAdmin):
    form = EdgeNodeForm
    list_display = ("name", "unit", "cluster", "stands", "applied_version", "sessions", "address", "software")
    list_select_related = ("unit", "cluster", "namespace")
    list_filter = ("unit", "state")
    search_fields = ("name", "address")
    empty_hint = _("Add an edge node: its page shows the command that joins it, with its token, once.")

    def get_fieldsets(self, request: HttpRequest, obj: EdgeNode | None = None) -> Any:
        return ((None, {"fields": ("name", "unit", "cluster")}),)

    @display(description=_("state"), label=_LABELS)
    def stands(self, row: EdgeNode) -> tuple[str, str]:
        now = standing(row)
        return str(now.level), now.word

    def save_model(self, request: HttpRequest, obj: EdgeNode, form: Any, change: bool) -> None:
        node, token = enrolment.register(obj.unit, obj.name, actor=self.actor(request), cluster=obj.cluster)
        obj.pk, obj._state.adding = node.pk, False
        request._registered = (node, token)  # type: ignore[attr-defined]

    def response_add(
        self, request: HttpRequest, obj: EdgeNode, post_url_continue: str | None = None
    ) -> HttpResponse:
        node, token = request._registered  # type: ignore[attr-defined]
        return token_page(request, node, token)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponseBase:
        return NodePage.as_view()(request, pk=object_id)

    def get_urls(self) -> list[URLPattern]:
        site = self.admin_site
        return [
            path("<int:pk>/token/", site.admin_view(NodeToken.as_view()), name="units_edgenode_token"),
            path(
                "<int:pk>/declare-dead/", site.admin_view(DeclareDead.as_view()), name="units_edgenode_dead"
            ),
            *super().get_urls(),
        ]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its page removes it, when it may be


@admin.register(Slb)
class SlbAdmin(InNamespaceAdmin):
    list_display = ("name", "unit", "address", "external_id", "cluster")
    list_select_related = ("unit", "cluster")
    list_filter = ("unit",)
    search_fields = ("name", "address", "external_id")
    fields = ("name", "unit", "address", "external_id", "cluster")
    actions_list = ("sync",)
    empty_hint = _("Sync SLBs: pick the load balancers of your units from the inventory.")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # they are picked from the inventory

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_pick_permission(self, request: HttpRequest) -> bool:
        # A method, because unfold's check looks up a dotted name in the database, before there is a table.
        return bool(request.user.has_perm("units.add_slb"))

    def delete_model(self, request: HttpRequest, obj: Slb) -> None:
        slbs.remove(obj, actor=self.actor(request))

    @action(description=_("Sync SLBs"), url_path="sync", permissions=["pick"], icon="sync")
    def sync(self, request: HttpRequest) -> HttpResponse:
        """Lists the inventory's load balancers that are not picked yet; adds those that are ticked."""
        namespace = current_namespace(request)
        if namespace is None:
            return HttpResponseRedirect(reverse("admin:units_namespace_add"))
        found: list[slbs.Entry] = []
        refusal = ""
        try:
            if request.method == "POST":
                added = slbs.pick(namespace, request.POST.getlist("slb"), actor=self.actor(request))
                count = ngettext("%(n)d SLB was added.", "%(n)d SLBs were added.", len(added)) % {
                    "n": len(added)
                }
                messages.success(request, count)
                return HttpResponseRedirect(reverse("admin:units_slb_changelist"))
            found = slbs.to_pick(namespace)
        except MshaError as error:
            refusal = str(error)
        except ValidationError as error:
            refusal = " ".join(error.messages)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Sync SLBs"),
            "entries": found,
            "refusal": refusal,
        }
        return render(request, "units/sync_slbs.html", context)
