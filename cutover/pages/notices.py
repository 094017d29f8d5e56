"""The banners by themselves, for htmx."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import View

from cutover.pages.banners import banners_for


class Banners(View):
    """The banners as they are now; 401, not a login page, for who has been signed out meanwhile."""

    def get(self, request: HttpRequest) -> HttpResponse:
        if not (request.user.is_authenticated and request.user.is_staff):
            return HttpResponse(status=401)
        return render(request, "console/_banner_list.html", {"banners": banners_for(request)})
