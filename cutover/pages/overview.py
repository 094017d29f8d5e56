"""The overview: what is in effect, who serves it, what happened last, and what is still missing.

It stands in the topmost app because it shows all three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cutover.models import Cutover
from cutover.pages.bars import Bar, Looks, UnitLook, draw, shares, table_or_none
from cutover.pages.checklist import checklist
from cutover.rules import entry_of, key_space_of
from msha.steering.ranges import KeySpace, MovedIds
from units import publishing
from units.models import EdgeNode, Namespace
from units.pages import ConsolePage


@dataclass(frozen=True, slots=True)
class NodeLook:
    """An edge node in one word, and why.

    Attributes:
        kind: ``good``, ``warn``, ``bad`` or "" for one that is not expected to serve.
    """

    node: EdgeNode
    kind: str
    icon: str
    word: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class UnitCard:
    """One unit at a glance."""

    unit: UnitLook
    sessions: int
    percent: float
    ranges: tuple[str, ...]
    exact: tuple[int, ...]
    nodes: int
    live: int


@dataclass(frozen=True, slots=True)
class RuleInEffect:
    """The rule of one unit type, drawn."""

    name: str
    bar: Bar
    default: bool


def node_look(node: EdgeNode, version: int) -> NodeLook:
    """How the node stands to the newest version, judged as its page does."""
    match node.state:
        case EdgeNode.State.REGISTERED:
            return NodeLook(
                node, "", "hourglass_empty", _("never started"), _("Start it with its join command.")
            )
        case EdgeNode.State.LEFT:
            return NodeLook(node, "", "logout", _("has left"))
        case EdgeNode.State.DEAD:
            return NodeLook(node, "", "dangerous", _("declared dead"), node.declared_dead_reason)
    if not node.live:
        return NodeLook(
            node,
            "bad",
            "link_off",
            _("lost"),
            _("It is still enrolled: no cutover of its unit passes without it."),
        )
    if node.nack_version > node.applied_version:
        why = _("It refused version %(version)d: %(reason)s") % {
            "version": node.nack_version,
            "reason": node.nack_reason,
        }
        return NodeLook(node, "bad", "block", _("refused"), why)
    if node.parked:
        return NodeLook(node, "warn", "pause_circle", _("parked"), _("It accepts no connections."))
    if node.draining:
        return NodeLook(
            node, "warn", "output", _("draining"), _("It is shutting down and takes no new sessions.")
        )
    if node.applied_version < version:
        return NodeLook(node, "warn", "history", _("stale"), _("It has not applied the newest version yet."))
    if not node.in_sync:
        return NodeLook(
            node, "warn", "sync_problem", _("not confirmed"), _("The console has not confirmed it in time.")
        )
    return NodeLook(node, "good", "check_circle", _("in sync"))


def _rules(namespace: Namespace, document: dict[str, Any] | None, looks: Looks) -> list[RuleInEffect]:
    """The rules in effect; before the first publish the saved ones."""
    if document is not None:
        rule = document["rule"]
        entries, key_space, default = rule["unit_types"], key_space_of(rule), rule["default_unit_type"]
    else:
        entries = [entry_of(row) for row in namespace.unit_types.all()]
        key_space, default = KeySpace(namespace.key_min, namespace.key_max), namespace.default_unit_type
    found = []
    for entry in entries:
        table = table_or_none(entry, key_space)
        if table is None:
            continue
        moved = _moving(document, entry["name"])
        found.append(RuleInEffect(entry["name"], draw(table, looks, moved), entry["name"] == default))
    return sorted(found, key=lambda one: not one.default)


def _moving(document: dict[str, Any] | None, unit_type: str) -> MovedIds | None:
    running = document["rule"]["cutover"] if document is not None else None
    if running is None or running["unit_type"] != unit_type:
        return None
    return MovedIds.from_lists(running["moved"])


def _cards(
    namespace: Namespace,
    document: dict[str, Any] | None,
    looks: Looks,
    nodes: Sequence[NodeLook],
) -> list[UnitCard]:
    owned = {}
    if document is not None:
        rule = document["rule"]
        entry = next((e for e in rule["unit_types"] if e["name"] == rule["default_unit_type"]), None)
        entry = entry or next(iter(rule["unit_types"]), None)
        table = table_or_none(entry, key_space_of(rule)) if entry is not None else None
        owned = {share.unit.code: share for share in shares(table, looks)} if table is not None else {}
    counted = (
        EdgeNode.objects.filter(namespace=namespace, connected=True, state=EdgeNode.State.ENROLLED)
        .values("unit__code")
        .annotate(total=Sum("sessions"))
    )
    sessions = {row["unit__code"]: row["total"] or 0 for row in counted}
    cards = []
    for code, look in looks.items():
        share = owned.get(code)
        expected = [n for n in nodes if n.node.unit.code == code and n.kind]
        cards.append(
            UnitCard(
                look,
                sessions.get(code, 0),
                share.percent if share else 0.0,
                share.ranges if share else (),
                share.exact if share else (),
                len(expected),
                sum(n.node.live for n in expected),
            )
        )
    return cards


def figures(namespace: Namespace) -> dict[str, Any]:
    """All that changes while the page is open."""
    document = publishing.in_effect(namespace)
    looks = Looks.of(namespace)
    rows = namespace.edgenodes.select_related("unit", "cluster").order_by(
        "unit__position", "unit__code", "name"
    )
    nodes = [node_look(node, namespace.version) for node in rows]
    expected = [node for node in nodes if node.kind]
    return {
        "document": document,
        "looks": looks,
        "rules": _rules(namespace, document, looks),
        "cards": _cards(namespace, document, looks, nodes),
        "nodes": nodes,
        "in_sync": sum(node.kind == "good" for node in expected),
        "expected": len(expected),
        "cutovers": Cutover.objects.filter(namespace=namespace).exclude(state=Cutover.State.DISCARDED)[:5],
        "now": timezone.now(),
    }


class Overview(ConsolePage):
    """The first page."""

    title = gettext_lazy("Overview")
    template_name = "console/overview.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        namespace = self.namespace
        if namespace is None:
            return self.page({"todo": []})
        return self.page({**figures(namespace), "todo": checklist(namespace)})


class OverviewFigures(ConsolePage):
    """What htmx puts into the overview every few seconds."""

    def get(self, request: HttpRequest) -> HttpResponse:
        namespace = self.namespace
        if namespace is None:
            return HttpResponse()
        return render(request, "console/_overview_live.html", {"namespace": namespace, **figures(namespace)})
