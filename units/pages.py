"""What all pages of our own have in common: who may see them, and the frame round them."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.mixins import AccessMixin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views import View

from units.current import current_namespace
from units.models import Namespace

SHOWN = {"GET", "HEAD", "OPTIONS"}


class ConsolePage(AccessMixin, View):
    """A page inside ``console/shell.html`` for members of the staff.

    Attributes:
        permission_required: to see it.
        post_permission: to send its form; a page without one takes no POST at all, so that a forgotten
            permission refuses instead of allowing.
    """

    title: Any = ""
    template_name = ""
    permission_required: str | None = None
    post_permission: str | None = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        user = request.user
        if not user.is_authenticated:
            return self.handle_no_permission()
        if not (user.is_active and user.is_staff):
            raise PermissionDenied
        if self.permission_required is not None and not user.has_perm(self.permission_required):
            raise PermissionDenied
        if request.method not in SHOWN and (
            self.post_permission is None or not user.has_perm(self.post_permission)
        ):
            raise PermissionDenied
        return super().dispatch(request, *args, **kwargs)

    @property
    def namespace(self) -> Namespace | None:
        return current_namespace(self.request)

    @property
    def actor(self) -> str:
        """The name under which the user's acts are recorded."""
        return self.request.user.get_username()

    def page(self, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
        """The page, inside the shell."""
        frame = {
            **admin.site.each_context(self.request),
            "title": self.title,
            "namespace": self.namespace,
            **context,
        }
        return render(self.request, self.template_name, frame, status=status)
