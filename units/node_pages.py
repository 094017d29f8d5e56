"""The pages of one edge node: how it stands, its token, and declaring it dead."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from msha.steering.errors import MshaError
from units import enrolment
from units.current import choose
from units.models import Cluster, EdgeNode
from units.pages import ConsolePage
from units.standing import standing
from units.tokens import Token


class _OfNode(ConsolePage):
    permission_required = "units.view_edgenode"

    def node(self, pk: Any) -> EdgeNode:
        """The node; the pages that follow are about its namespace."""
        rows = EdgeNode.objects.select_related("unit", "cluster", "namespace")
        node = get_object_or_404(rows, pk=pk)
        choose(self.request, node.namespace)
        return node


class NodePage(_OfNode):
    """Everything that is known of the node, looked at again every two seconds, and its cluster."""

    template_name = "units/node.html"
    post_permission = "units.change_edgenode"

    def get(self, request: HttpRequest, pk: Any) -> HttpResponse:
        node = self.node(pk)
        self.title = gettext("Edge node %(name)s") % {"name": node.name}
        context = {
            "node": node,
            "standing": standing(node),
            "clusters": Cluster.objects.filter(unit=node.unit),
            "removable": node.state in (EdgeNode.State.REGISTERED, EdgeNode.State.LEFT),
        }
        if request.GET.get("part") == "facts":
            return render(request, "units/_node_facts.html", context)
        return self.page(context)

    def post(self, request: HttpRequest, pk: Any) -> HttpResponse:
        node = self.node(pk)
        try:
            if request.POST.get("act") == "remove":
                enrolment.remove(node, actor=self.actor)
                messages.success(request, gettext("Node %(name)s is removed.") % {"name": node.name})
                return HttpResponseRedirect(reverse("admin:units_edgenode_changelist"))
            chosen = request.POST.get("cluster", "")
            cluster = get_object_or_404(Cluster, pk=chosen) if chosen.isdigit() else None
            enrolment.assign(node, cluster, actor=self.actor)
            messages.success(request, gettext("Saved."))
        except MshaError as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(reverse("admin:units_edgenode_change", args=[node.pk]))


class NodeToken(_OfNode):
    """Replaces the node's token; the new one is shown once."""

    template_name = "units/replace_token.html"
    title = _("New token")
    post_permission = "units.change_edgenode"

    def get(self, request: HttpRequest, pk: Any) -> HttpResponse:
        return self.page({"node": self.node(pk)})

    def post(self, request: HttpRequest, pk: Any) -> HttpResponse:
        node = self.node(pk)
        try:
            token = enrolment.replace_token(node, actor=self.actor)
        except MshaError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(reverse("admin:units_edgenode_change", args=[node.pk]))
        return token_page(request, node, token)


class DeclareDead(_OfNode):
    """The operator's typed word that the node is dead and cannot start again from its file (PROTOCOL J4)."""

    template_name = "units/declare_dead.html"
    title = _("Declare dead")
    post_permission = "units.declare_dead"

    def get(self, request: HttpRequest, pk: Any) -> HttpResponse:
        return self.page({"node": self.node(pk)})

    def post(self, request: HttpRequest, pk: Any) -> HttpResponse:
        node = self.node(pk)
        typed, reason = request.POST.get("name", ""), request.POST.get("reason", "")
        try:
            enrolment.declare_dead(node, actor=self.actor, typed_name=typed, reason=reason)
        except MshaError as error:
            return self.page(
                {"node": node, "typed": typed, "reason": reason, "refused": str(error)}, status=422
            )
        messages.warning(request, gettext("Node %(name)s is declared dead.") % {"name": node.name})
        return HttpResponseRedirect(reverse("admin:units_edgenode_change", args=[node.pk]))


def token_page(request: HttpRequest, node: EdgeNode, token: Token) -> HttpResponse:
    """The answer that shows a token, for the only time: it is stored nowhere, not even in a session."""
    context = {
        **admin.site.each_context(request),
        "title": gettext("Join edge node %(name)s") % {"name": node.name},
        "node": node,
        "token": token.text,
        "control": control_address(request),
    }
    return render(request, "units/node_token.html", context)  # the admin forbids caches to keep any page


def control_address(request: HttpRequest) -> str:
    """What edges dial: the configured console address, or the one that the operator's browser used."""
    parts = urlsplit(settings.CONSOLE_URL or request.build_absolute_uri("/"))
    return f"{'wss' if parts.scheme in ('https', 'wss') else 'ws'}://{parts.netloc}"
