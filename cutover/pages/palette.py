"""The pages that the command palette (Ctrl+K) finds beside the admin's."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _
from unfold.dataclasses import SearchResult

from cutover.models import Cutover
from units.current import current_namespace


def pages(request: HttpRequest, term: str) -> list[SearchResult]:
    """Our own pages and the cutovers (``#12``) that match the term."""
    user: Any = request.user
    found = [
        SearchResult(title=_("Overview"), description="msha", link=reverse("overview"), icon="dashboard")
    ]
    if user.has_perm("cutover.view_cutover"):
        found += [
            SearchResult(
                title=_("Cutover"), description="msha", link=reverse("cutover:start"), icon="swap_horiz"
            ),
            SearchResult(
                title=_("Cutover history"),
                description="msha",
                link=reverse("cutover:history"),
                icon="history",
            ),
        ]
    if user.has_perm("cutover.add_cutover"):
        found.append(
            SearchResult(title=_("New cutover"), description="msha", link=reverse("cutover:new"), icon="add")
        )
    found = [page for page in found if term in page.title.lower()]
    if user.has_perm("cutover.view_cutover"):
        found += _cutovers(request, term.removeprefix("#"))
    return found


def _cutovers(request: HttpRequest, term: str) -> list[SearchResult]:
    if not (term.isascii() and term.isdigit() and len(term) < 10):
        return []
    rows = Cutover.objects.filter(namespace=current_namespace(request), number=int(term))
    return [
        SearchResult(
            title=_("Cutover #%(number)d") % {"number": row.number},
            description=str(row.get_state_display()),
            link=reverse("cutover:cutover", args=[row.pk]),
            icon="swap_horiz",
        )
        for row in rows
    ]
