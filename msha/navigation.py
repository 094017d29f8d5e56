"""The console's name and navigation, as django-unfold wants them (setting ``UNFOLD``)."""

from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.functional import lazy
from django.utils.translation import gettext_lazy as _


def _link(name: str) -> str:
    """The page's address, or the overview's while that page is not installed."""
    try:
        return reverse(name)
    except NoReverseMatch:
        return "/"


link = lazy(_link, str)


def _item(title: Any, icon: str, target: str, permission: str | None = None) -> dict[str, Any]:
    item: dict[str, Any] = {"title": title, "icon": icon, "link": link(target)}
    if permission is not None:

        def allowed(request: HttpRequest) -> bool:
            return request.user.has_perm(permission)

        item["permission"] = allowed
    return item


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "msha",
    "SITE_HEADER": "msha",
    "SITE_SUBHEADER": _("Multi-active traffic steering"),
    "SITE_SYMBOL": "alt_route",
    "SITE_URL": "/",
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_LANGUAGES": True,
    "SHOW_BACK_BUTTON": False,
    "SIDEBAR": {
        "show_search": False,
        "command_search": True,
        "show_all_applications": False,
        "navigation": [
            {
                "title": _("Operate"),
                "items": [
                    _item(_("Overview"), "dashboard", "overview"),
                    _item(_("Cutover"), "swap_horiz", "cutover:start", "cutover.view_cutover"),
                    _item(_("Cutover history"), "history", "cutover:history", "cutover.view_cutover"),
                ],
            },
            {
                "title": _("Access layer"),
                "items": [
                    _item(_("Domains"), "language", "admin:domains_domain_changelist", "domains.view_domain"),
                    _item(_("MSFE clusters"), "hub", "admin:units_cluster_changelist", "units.view_cluster"),
                    _item(_("Edge nodes"), "dns", "admin:units_edgenode_changelist", "units.view_edgenode"),
                    _item(_("SLBs"), "balance", "admin:units_slb_changelist", "units.view_slb"),
                ],
            },
            {
                "title": _("Platform"),
                "items": [
                    _item(
                        _("Namespaces"),
                        "workspaces",
                        "admin:units_namespace_changelist",
                        "units.view_namespace",
                    ),
                    _item(_("Units"), "location_city", "admin:units_unit_changelist", "units.view_unit"),
                    _item(_("Unit types"), "rule", "admin:units_unittype_changelist", "units.view_unittype"),
                    _item(_("Versions"), "layers", "admin:units_snapshot_changelist", "units.view_snapshot"),
                    _item(
                        _("Audit"), "fact_check", "admin:units_auditevent_changelist", "units.view_auditevent"
                    ),
                ],
            },
        ],
    },
}
