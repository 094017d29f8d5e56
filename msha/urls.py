from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

from msha import api

urlpatterns: list[URLPattern | URLResolver] = [
    # Brand and sign-in lead to the admin's index, a list of tables; our first page is the overview.
    path("admin/", RedirectView.as_view(pattern_name="overview"), name="admin-home"),
    path("admin/", admin.site.urls),
    path("login/", RedirectView.as_view(pattern_name="admin:login", query_string=True), name="login"),
    path("i18n/", include("django.conf.urls.i18n")),
    path("api/", api.urls()),
    re_path("^api(/|$)", api.nowhere),
    path("", include("units.urls")),
    path("", include("domains.urls")),
    path("", include("cutover.urls")),
]

handler403 = "msha.refusals.forbidden"
handler404 = "msha.refusals.not_found"
