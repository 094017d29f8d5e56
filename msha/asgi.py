import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "msha.settings")
http_application = get_asgi_application()  # before anything below imports a model

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.conf import settings  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from cutover import watch  # noqa: E402
from cutover.routing import websocket_urlpatterns  # noqa: E402
from units.consumers import ControlConsumer, NothingHere  # noqa: E402

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
                            URLRouter([*websocket_urlpatterns, re_path(r"", NothingHere.as_asgi())])
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
