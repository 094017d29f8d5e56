from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

_DIRECTIVES = (
    "default-src 'self'",
    # Alpine, which django-unfold bundles, compiles its attributes with Function(): 33-48 errors a page
    # without 'unsafe-eval'. Nothing is inline, so injected markup still runs no script.
    "script-src 'self' 'unsafe-eval'",
    # django-unfold writes its colours as a <style> block, and Alpine toggles style attributes.
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
)
POLICY = "; ".join(_DIRECTIVES)


class ContentSecurityPolicy:
    """Every response carries the policy, unless its view has set another one."""

    sync_capable = True
    async_capable = True

    def __init__(
        self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
    ) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        response = self.get_response(request)
        return self._marked(response) if isinstance(response, HttpResponseBase) else self._later(response)

    async def _later(self, response: Awaitable[HttpResponseBase]) -> HttpResponseBase:
        return self._marked(await response)

    @staticmethod
    def _marked(response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response
