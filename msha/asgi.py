import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "msha.settings")
http_application = get_asgi_application()  # before anything below imports a model

from importlib import import_module  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from typing import Any  # noqa: E402

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.conf import settings  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from cutover import watch  # noqa: E402
from units.consumers import ControlConsumer, NothingHere  # noqa: E402


def live_patterns() -> list[Any]:
    """The WebSocket addresses of the live pages, gathered from the apps that have a ``routing`` module."""
    patterns: list[Any] = []
    for app in ("units", "domains", "cutover"):
        if find_spec(f"{app}.routing") is not None:
            patterns += import_module(f"{app}.routing").websocket_urlpatterns
    return patterns


application = ProtocolTypeRouter(
    {
        "http": http_application,
        "websocket": URLRouter(
            [
                # Edges prove themselves by a token; sessions, cookies and Origin mean nothing here.
                path("control/", ControlConsumer.as_asgi()),
                re_path(
                    r"^(?=live/)",  # consumes nothing: the apps write whole addresses
                    AllowedHostsOriginValidator(
                        AuthMiddlewareStack(
                            URLRouter([*live_patterns(), re_path(r"", NothingHere.as_asgi())])
                        )
                    ),
                ),
                re_path(r"", NothingHere.as_asgi()),
            ]
        ),
    }
)

if not settings.TESTING:
    watch.start()  # this process serves: it also sees to deadlines and alarms of running cutovers
