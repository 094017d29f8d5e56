"""The pages that say that an address leads nowhere, or that the user may not see what is there."""

from http import HTTPStatus
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The page for what this user may not see or do."""
    return _page(request, "403.html", gettext("Not permitted"), HTTPStatus.FORBIDDEN)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The page for an address at which there is nothing."""
    return _page(request, "404.html", gettext("Nothing here"), HTTPStatus.NOT_FOUND)


def _page(request: HttpRequest, template: str, title: str, status: HTTPStatus) -> HttpResponse:
    """The page inside the shell for members of the staff; others see no navigation."""
    # A request that a middleware refused early has no user yet.
    user: Any = getattr(request, "user", None)
    inside = user is not None and user.is_active and user.is_staff
    context = {
        **admin.site.each_context(request),
        "title": title,
        "inside": inside,
        "frame": "console/shell.html" if inside else "console/outside.html",
    }
    return render(request, template, context, status=status)
