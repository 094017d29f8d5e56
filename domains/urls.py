from django.urls import path

from domains import views

app_name = "domains"

urlpatterns = [
    path("effect/<slug:name>/", views.PutIntoEffect.as_view(), name="put_into_effect"),
    path("versions/", views.Versions.as_view(), name="versions"),
    path("versions/<slug:name>/compare/", views.CompareVersions.as_view(), name="compare"),
    path("versions/<slug:name>/<int:version>/", views.VersionPage.as_view(), name="version"),
    path("route/", views.RouteTester.as_view(), name="route"),
]
