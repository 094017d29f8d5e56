from importlib import import_module
from importlib.util import find_spec

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

urlpatterns: list[URLPattern | URLResolver] = [
    # Brand and sign-in lead to the admin's index, a list of tables; our first page is the overview.
    path("admin/", RedirectView.as_view(pattern_name="overview"), name="admin-home"),
    path("admin/", admin.site.urls),
    path("login/", RedirectView.as_view(pattern_name="admin:login", query_string=True), name="login"),
    path("i18n/", include("django.conf.urls.i18n")),
]

handler403 = "msha.refusals.forbidden"
handler404 = "msha.refusals.not_found"

if find_spec("msha.api") is not None:
    api = import_module("msha.api")
    urlpatterns.append(path("api/", api.urls()))
    urlpatterns.append(re_path("^api(/|$)", api.nowhere))

for app in ("units", "domains", "cutover"):
    if find_spec(f"{app}.urls") is not None:
        urlpatterns.append(path("", include(f"{app}.urls")))
