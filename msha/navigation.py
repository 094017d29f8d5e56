"""The console's name and navigation, as django-unfold wants them (setting ``UNFOLD``)."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the navigation.

    Attributes:
        target: name of the address it leads to.
        beyond: address prefixes below its own that belong to another item.
        exactly: it is lit on its own address only; of a page whose address all others begin with.
    """

    title: Any
    icon: str
    target: str
    permission: str | None = None
    beyond: tuple[str, ...] = ()
    exactly: bool = False

    def shown(self, request: HttpRequest) -> dict[str, Any]:
        try:
            link = reverse(self.target)
        except NoReverseMatch:  # that page is not installed
            return {"title": self.title, "link": "", "permission": lambda _request: False}
        lit = request.path == link if self.exactly else request.path.startswith(link)
        lit = lit and not any(request.path.startswith(reverse(name)) for name in self.beyond)
        return {
            "title": self.title,
            "icon": self.icon,
            "link": link,
            # Set, because unfold's own guess is "the link is part of the path", which lights two items.
            "active": lambda _request: lit,
            "permission": lambda asked: self.permission is None or asked.user.has_perm(self.permission),
        }


_GROUPS: tuple[tuple[Any, tuple[Item, ...]], ...] = (
    (
        _("Operate"),
        (
            Item(_("Overview"), "dashboard", "overview", exactly=True),
            Item(
                _("Cutover"),
                "swap_horiz",
                "cutover:start",
                "cutover.view_cutover",
                beyond=("cutover:history",),
            ),
            Item(_("Cutover history"), "history", "cutover:history", "cutover.view_cutover"),
        ),
    ),
    (
        _("Access layer"),
        (
            Item(_("Domains"), "language", "admin:domains_domain_changelist", "domains.view_domain"),
            Item(_("Route tester"), "conversion_path", "domains:route", "domains.view_domain"),
            Item(_("MSFE clusters"), "hub", "admin:units_cluster_changelist", "units.view_cluster"),
            Item(_("Edge nodes"), "dns", "admin:units_edgenode_changelist", "units.view_edgenode"),
            Item(_("SLBs"), "balance", "admin:units_slb_changelist", "units.view_slb"),
        ),
    ),
    (
        _("Platform"),
        (
            Item(_("Namespaces"), "workspaces", "admin:units_namespace_changelist", "units.view_namespace"),
            Item(_("Units"), "location_city", "admin:units_unit_changelist", "units.view_unit"),
            Item(_("Unit types"), "rule", "admin:units_unittype_changelist", "units.view_unittype"),
            Item(
                _("Safety rules"),
                "shield",
                "admin:cutover_safetyrules_changelist",
                "cutover.view_safetyrules",
            ),
            Item(_("Versions"), "layers", "domains:versions", "units.view_snapshot"),
            Item(_("Audit"), "fact_check", "admin:units_auditevent_changelist", "units.view_auditevent"),
            Item(_("Alarms"), "notifications", "admin:units_alarm_changelist", "units.view_alarm"),
            Item(_("Hooks"), "webhook", "admin:cutover_hook_changelist", "cutover.view_hook"),
            Item(_("Alarm targets"), "send", "admin:units_alarmtarget_changelist", "units.view_alarmtarget"),
            Item(_("Users"), "group", "admin:auth_user_changelist", "auth.view_user"),
            Item(_("API tokens"), "key", "admin:units_apitoken_changelist"),
        ),
    ),
)


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The navigation for this request; Cutover counts the drafts and the running one of the namespace."""
    groups = [{"title": title, "items": [item.shown(request) for item in items]} for title, items in _GROUPS]
    open_cutovers = _open_cutovers(request)
    if open_cutovers:
        # A number and no key at all otherwise: unfold shows "" and the text of a callback as a badge.
        groups[0]["items"][1]["badge"] = open_cutovers
        groups[0]["items"][1]["badge_variant"] = "warning"
    return groups


def group_of(link: str) -> str:
    """The title of the group in which the navigation has this address; "" if it has it nowhere."""
    for title, items in _GROUPS:
        for item in items:
            try:
                found = reverse(item.target) == link
            except NoReverseMatch:
                continue
            if found:
                return str(title)
    return ""


def _open_cutovers(request: HttpRequest) -> int:
    from cutover.models import Cutover
    from units.current import current_namespace

    namespace = current_namespace(request)
    if namespace is None or not request.user.has_perm("cutover.view_cutover"):
        return 0
    return Cutover.objects.filter(namespace=namespace).exclude(state__in=Cutover.ENDED).count()


def environment(request: HttpRequest) -> list[Any] | None:
    """The label at the top right: the namespace worked in, amber in the demo."""
    from django.conf import settings

    from units.current import current_namespace

    if not request.user.is_authenticated:
        return None
    namespace = current_namespace(request)
    if namespace is None:
        return None
    if settings.DEMO:
        return [_("Demo") if namespace.name == "demo" else namespace.name, "warning"]
    return [namespace.title or namespace.name, "info"]


def namespaces(request: HttpRequest) -> list[dict[str, Any]]:
    """The menu below the brand that changes the namespace; empty while there are not two."""
    from units.models import Namespace

    if not request.user.is_authenticated:
        return []
    found = list(Namespace.objects.all()[:50])
    if len(found) < 2:
        return []
    return [
        {
            "title": f"{namespace.title} ({namespace.name})" if namespace.title else namespace.name,
            "link": f"{reverse('overview')}?namespace={namespace.name}",
            "icon": "workspaces",
        }
        for namespace in found
    ]


def _console_css(_request: HttpRequest) -> str:
    return static("css/console.css")


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "msha",
    "SITE_HEADER": "msha",
    "SITE_SUBHEADER": _("Multi-active traffic steering"),
    "SITE_SYMBOL": "alt_route",
    "SITE_URL": "",  # there is no site beside the console to look at
    "SITE_DROPDOWN": "msha.navigation.namespaces",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda _request: static("img/favicon.svg")}
    ],
    "ENVIRONMENT": "msha.navigation.environment",
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_LANGUAGES": True,
    "SHOW_BACK_BUTTON": False,
    "STYLES": [_console_css],
    "COMMAND": {
        "search_models": [
            "domains.domain",
            "units.cluster",
            "units.edgenode",
            "units.slb",
            "units.unit",
            "units.unittype",
            "units.namespace",
        ],
        "search_callback": "cutover.pages.palette.pages",
    },
    "COLORS": {
        # Tailwind's blue: the violet that unfold comes with is one of the units' colours.
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        },
    },
    "SIDEBAR": {
        "show_search": True,
        "command_search": True,
        "show_all_applications": False,
        "navigation": sidebar,
    },
}
