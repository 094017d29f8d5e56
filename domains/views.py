"""The pages of what is in effect: putting saved changes into effect, versions, and where routerIds go."""

import json
import re
from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from domains import routes, services
from msha.steering.diff import document_text, side_by_side
from msha.steering.errors import MshaError
from units.current import choose
from units.models import Namespace, Snapshot, Unit
from units.pages import ConsolePage

PAGE = 100


class PutIntoEffect(ConsolePage):
    """What would come into effect, side by side with what is; a POST publishes exactly what was shown."""

    template_name = "domains/put_into_effect.html"
    permission_required = "domains.view_domain"
    post_permission: str | None = "units.publish"
    title = _("Put into effect")

    @cached_property
    def home(self) -> Namespace:
        row = get_object_or_404(Namespace, name=self.kwargs["name"])
        choose(self.request, row)
        return row

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        return self._shown()

    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        comment = request.POST.get("comment", "").strip()
        try:
            if request.POST.get("act") == "revert":
                return self._reverted(comment)
            outcome = services.put_into_effect(
                self.home, self.actor, comment, seen=request.POST.get("seen", "")
            )
        except MshaError as error:
            return self._shown(str(error), status=409)
        for sentence in outcome.sentences:
            say = messages.success if sentence == outcome.sentences[0] else messages.warning
            say(request, _linked(sentence, outcome.drafts))
        if outcome.snapshot is not None:
            return redirect("domains:version", self.home.name, outcome.snapshot.version)
        if outcome.cutover_draft is not None and outcome.cutover_draft.url:
            return redirect(outcome.cutover_draft.url)
        return redirect("domains:versions")

    def _reverted(self, reason: str) -> HttpResponse:
        changed = services.revert_saved_rules(self.home, self.actor, reason)
        if changed:
            messages.success(
                self.request,
                gettext("The saved rule of %(names)s is the one in effect again.")
                % {"names": ", ".join(changed)},
            )
        return redirect("domains:put_into_effect", self.home.name)

    def _shown(self, refused: str = "", status: int = 200) -> HttpResponse:
        changes = services.unpublished_changes(self.home)
        whole = "whole" in self.request.GET
        user: Any = self.request.user
        return self.page(
            {
                "home": self.home,
                "changes": changes,
                "config_rows": changes.rows() if whole or changes.first else _near_changes(changes.rows()),
                "whole": whole,
                "next_version": self.home.version + 1,
                "rules": [(rule, rule.rows(self.home.name)) for rule in changes.rules],
                "refused": refused,
                "comment": self.request.POST.get("comment", ""),
                "may_publish": user.has_perm("units.publish"),
                "may_revert": user.has_perm("units.publish") and user.has_perm("units.change_unittype"),
                "command": f"mshactl put-into-effect -n {self.home.name}",
            },
            status=status,
        )

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if request.POST.get("act") == "revert" and not request.user.has_perm("units.change_unittype"):
            self.post_permission = None
        return super().dispatch(request, *args, **kwargs)


def _linked(sentence: str, drafts: Sequence[services.Draft]) -> SafeString:
    """The sentence, with the numbers of drafts leading to their pages."""
    addresses = {f"#{draft.number}": draft.url for draft in drafts if draft.url}
    parts = [
        format_html('<a class="link underline" href="{}">{}</a>', addresses[part], part)
        if part in addresses
        else part
        for part in re.split(r"(#\d+)", sentence)
    ]
    return format_html_join("", "{}", ((part,) for part in parts))


class Versions(ConsolePage):
    """Every published version, newest first; two of them can be chosen and compared."""

    template_name = "domains/versions.html"
    permission_required = "units.view_snapshot"
    title = _("Versions")

    def get(self, request: HttpRequest) -> HttpResponse:
        rows = Snapshot.objects.filter(namespace=self.namespace).order_by("-version").defer("body")
        before = request.GET.get("before", "")
        if before.isascii() and before.isdigit() and len(before) < 16:
            rows = rows.filter(version__lt=int(before))
        found = list(rows[: PAGE + 1])
        return self.page(
            {
                "versions": found[:PAGE],
                "older": found[PAGE - 1].version if len(found) > PAGE else None,
                "newest": self.namespace.version if self.namespace else 0,
            }
        )


class VersionPage(ConsolePage):
    """One version as text, beside the one before it."""

    template_name = "domains/version.html"
    permission_required = "units.view_snapshot"

    def get(self, request: HttpRequest, name: str, version: int) -> HttpResponse:
        namespace = get_object_or_404(Namespace, name=name)
        choose(request, namespace)
        snapshot = get_object_or_404(Snapshot, namespace=namespace, version=version)
        numbers = Snapshot.objects.filter(namespace=namespace).values_list("version", flat=True)
        before = numbers.filter(version__lt=version).order_by("-version").first()
        return self.page(
            {
                "title": gettext("Version %(version)d") % {"version": version},
                "home": namespace,
                "snapshot": snapshot,
                "text": document_text(json.loads(snapshot.body)),
                "before": before,
                "after": numbers.filter(version__gt=version).order_by("version").first(),
                "in_effect": version == namespace.version,
            }
        )


class CompareVersions(ConsolePage):
    """Any two versions, side by side."""

    template_name = "domains/compare.html"
    permission_required = "units.view_snapshot"
    title = _("Compare versions")

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        namespace = get_object_or_404(Namespace, name=name)
        choose(request, namespace)
        before, after = self._chosen(namespace, "before"), self._chosen(namespace, "after")
        if before.version > after.version:
            before, after = after, before
        texts = [document_text(json.loads(snapshot.body)) for snapshot in (before, after)]
        rows = side_by_side(*texts)
        whole = "whole" in request.GET
        return self.page(
            {
                "home": namespace,
                "before": before,
                "after": after,
                "rows": rows if whole else _near_changes(rows),
                "whole": whole,
                "changed": sum(row.changed for row in rows),
                "before_title": gettext("Version %(version)d") % {"version": before.version},
                "after_title": gettext("Version %(version)d") % {"version": after.version},
            }
        )

    def _chosen(self, namespace: Namespace, key: str) -> Snapshot:
        text = self.request.GET.get(key, "")
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise Http404(gettext("Choose two versions to compare."))
        return get_object_or_404(Snapshot, namespace=namespace, version=int(text))


def _near_changes(rows: list[Any], context: int = 4) -> list[Any]:
    """The rows that differ, with a few around them."""
    near = [
        any(row.changed for row in rows[max(0, index - context) : index + context + 1])
        for index in range(len(rows))
    ]
    return [row for row, kept in zip(rows, near, strict=True) if kept]


class RouteTester(ConsolePage):
    """What the edges of every unit would decide about a handshake, and why."""

    template_name = "domains/route.html"
    permission_required = "domains.view_domain"
    title = _("Route tester")

    def get(self, request: HttpRequest) -> HttpResponse:
        asked = {key: request.GET.get(key, "").strip() for key in ("router_id", "unit_type", "host", "path")}
        context: dict[str, Any] = {"asked": asked, "routed": None, "refused": "", "place": ""}
        if self.namespace is not None:
            context |= self._answer(self.namespace, asked)
        return self.page(context)

    def _answer(self, namespace: Namespace, asked: dict[str, str]) -> dict[str, Any]:
        try:
            snapshot = routes.in_effect(namespace)
        except MshaError as error:
            return {"refused": str(error)}
        answer: dict[str, Any] = {
            "hosts": [domain["name"] for domain in snapshot.document["config"]["domains"]],
            "unit_types": list(snapshot.unit_types),
            "default_unit_type": snapshot.default_unit_type,
        }
        if "router_id" not in self.request.GET:
            return answer
        given = asked["router_id"]
        try:
            routed = routes.route(
                snapshot, given, unit_type=asked["unit_type"], host=asked["host"], path=asked["path"]
            )
        except MshaError as error:
            return {**answer, "refused": str(error), "place": getattr(error, "place", "")}
        units = {unit.code: unit for unit in Unit.objects.filter(namespace=namespace)}
        return {
            **answer,
            "routed": routed,
            "decisions": [
                (units.get(decision.unit), decision, routes.reason_text(decision))
                for decision in routed.decisions
            ],
            "command": _route_command(namespace, given, asked),
        }


def _route_command(namespace: Namespace, router_id: str, asked: dict[str, str]) -> str:
    options = [
        f"{option} {asked[key]}"
        for key, option in (("unit_type", "--unit-type"), ("host", "--host"), ("path", "--path"))
        if asked[key]
    ]
    return " ".join(["mshactl route", router_id or "''", "-n", namespace.name, *options])
