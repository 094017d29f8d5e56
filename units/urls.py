from django.urls import URLPattern, URLResolver, path

from units.metrics import metrics

urlpatterns: list[URLPattern | URLResolver] = [path("metrics", metrics, name="metrics")]
