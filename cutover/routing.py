from django.urls import path

from cutover.consumers import LiveCutover

websocket_urlpatterns = [path("live/cutover/<int:cutover_id>/", LiveCutover.as_asgi())]
