"""Banners: what an operator must know on whatever page he is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cutover.models import Cutover
from cutover.safety import approval
from domains import services as domains
from units import alarms, stopped
from units.current import current_namespace
from units.models import Alarm, EdgeNode, Namespace

#: Above this difference a node's times cannot be compared with the console's by eye.
SKEW_MS = 1000

#: So many alarms are shown on every page; the rest is a number and a link.
ALARMS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Banner:
    """One line across the top.

    Attributes:
        kind: ``bad``, ``warn`` or ``info``; the colour.
        lead: the first words, set in bold.
        link, act: where a button leads and what it says; "" for none.
    """

    kind: str
    icon: str
    sentence: str
    lead: str = ""
    link: str = ""
    act: str = ""


def banners_for(request: HttpRequest) -> list[Banner]:
    """The banners of the namespace worked in, the worst first."""
    namespace = current_namespace(request)
    if namespace is None:
        return []
    user: Any = request.user
    here = _page(request)
    found: list[Banner] = []
    if user.has_perm("units.view_namespace"):
        found += [*_stopped(namespace), *_alarms(namespace)]
    if user.has_perm("cutover.view_cutover"):
        found += _running(namespace, here)
    if user.has_perm(approval.PERMISSION):
        found += _to_approve(namespace, user.get_username(), here)
    if user.has_perm("domains.view_domain"):
        found += _unpublished(namespace, user.has_perm("units.publish"), here)
    if user.has_perm("units.view_edgenode"):
        found += _skewed(namespace)
    return found


def _page(request: HttpRequest) -> str:
    """The path of the page that the banners stand on, also when htmx asks for them alone."""
    return urlsplit(request.headers.get("HX-Current-URL", "")).path or request.path


def _stopped(namespace: Namespace) -> Iterator[Banner]:
    if namespace.publishing_stopped:
        yield Banner("bad", "block", stopped.why(namespace), _("Publishing is stopped."))


def _alarms(namespace: Namespace) -> Iterator[Banner]:
    raised = Alarm.objects.filter(namespace=namespace, cleared_at=None).order_by("raised_at")
    told = [alarm for alarm in raised if alarm.sentence != namespace.publishing_stopped]
    for alarm in told[:ALARMS_SHOWN]:
        yield Banner("bad", "warning", alarms.said(alarm), _("Alarm."))
    more = len(told) - ALARMS_SHOWN
    if more > 0:
        yield Banner(
            "bad",
            "warning",
            ngettext("There is %(count)d more.", "There are %(count)d more.", more) % {"count": more},
            _("Alarm."),
            _link("admin:units_alarm_changelist"),
            _("See them all"),
        )


def _running(namespace: Namespace, here: str) -> Iterator[Banner]:
    for cutover in Cutover.objects.filter(namespace=namespace, state__in=Cutover.ACTIVE):
        if here.startswith(reverse("cutover:cutover", args=[cutover.pk])):
            continue  # its own pages say more
        link = reverse("cutover:progress", args=[cutover.pk])
        yield Banner(
            "info",
            "swap_horiz",
            _("It is in step “%(phase)s”, started by %(who)s.")
            % {"phase": cutover.get_state_display(), "who": cutover.started_by or "–"},
            _("Cutover #%(number)d is running.") % {"number": cutover.number},
            link,
            _("Watch it"),
        )


def _to_approve(namespace: Namespace, username: str, here: str) -> Iterator[Banner]:
    """Drafts of others that wait for the user's approval."""
    for cutover in approval.waiting(namespace):
        if approval.requester(cutover) == username or here.startswith(
            reverse("cutover:cutover", args=[cutover.pk])
        ):
            continue
        yield Banner(
            "info",
            "approval",
            _("%(who)s asks for it: look at what would move, then approve it or not.")
            % {"who": approval.requester(cutover)},
            _("Cutover #%(number)d waits for an approval.") % {"number": cutover.number},
            reverse("cutover:preview", args=[cutover.pk]),
            _("Look at it"),
        )


def _unpublished(namespace: Namespace, may_publish: bool, here: str) -> Iterator[Banner]:
    changes = domains.has_unpublished_changes(namespace)
    if not changes:
        return
    link = _link("domains:put_into_effect", namespace.name)
    lead = ngettext(
        "%(count)d saved change is not in effect yet.",
        "%(count)d saved changes are not in effect yet.",
        len(changes),
    ) % {"count": len(changes)}
    yield Banner(
        "warn",
        "pending_actions",
        "; ".join(str(change) for change in changes[:3]) + ("; …" if len(changes) > 3 else ""),
        lead,
        link if may_publish and here != link else "",
        _("Put into effect"),
    )


def _skewed(namespace: Namespace) -> Iterator[Banner]:
    nodes = EdgeNode.objects.filter(namespace=namespace, connected=True, state=EdgeNode.State.ENROLLED)
    skewed = [node for node in nodes if abs(node.clock_skew_ms) > SKEW_MS]
    if skewed:
        yield Banner(
            "warn",
            "schedule",
            ", ".join(f"{node.name} ({node.clock_skew_ms:+d} ms)" for node in skewed),
            _("Clocks of edge nodes differ from the console's. Only times in logs and on pages suffer:"),
        )


def _link(name: str, *args: str) -> str:
    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return ""
