"""The API under ``/api/v1/``: its routers, who asks, and the one form of its errors.

An error is ``{"error": {"code", "sentence", "place"}}``: the code is a stable word, the sentence says what to
do, the place is a field or a path into the input, or "".
"""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

import structlog
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.translation import gettext, gettext_lazy
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.security import HttpBearer

import cutover.api
import cutover.hooks.api
import cutover.pacing.api
import cutover.practice.api
import cutover.safety.api
import domains.api
import units.api
import units.api_alarms
from domains.errors import Misplaced
from msha.steering.errors import MshaError, Transient
from units.access import Forbidden, NotFound, user_of_bearer
from units.errors import PublishingStopped, VersionConflict
from units.in_use import InUse
from units.pages import ConsolePage

log = structlog.get_logger(__name__)


class ApiToken(HttpBearer):
    """``Authorization: Bearer msha_api_…``; the request's user is the token's."""

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        user: Any = user_of_bearer(f"Bearer {token}")
        if user is not None:
            request.user = user
        return user


api = NinjaAPI(
    title="msha",
    version="1",
    description="Steers WebSocket traffic between data centres that serve one domain at the same time.",
    auth=ApiToken(),
    urls_namespace="api",
    docs_url=None,  # ninja's page loads its scripts from a CDN; ours is below
    openapi_url="/v1/openapi.json",
)

for router in (
    units.api.router,
    units.api_alarms.router,
    domains.api.router,
    cutover.api.router,
    cutover.hooks.api.router,
    cutover.pacing.api.router,
    cutover.safety.api.router,
    cutover.practice.api.router,
):
    api.add_router("/v1", router)


class Docs(ConsolePage):
    """What ``openapi.json`` says, as a page of the console."""

    title = gettext_lazy("API")
    template_name = "domains/api.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page({"operations": operations()})


@api.get("/docs", auth=None, include_in_schema=False, url_name="docs")
def docs(request: HttpRequest) -> Any:
    return Docs.as_view()(request)


def operations() -> list[dict[str, Any]]:
    """Every operation of the schema with its parameters and shapes, for people."""
    schema = api.get_openapi_schema()
    shapes = schema.get("components", {}).get("schemas", {})
    found = []
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            body = _json_schema(operation.get("requestBody", {}))
            answer = _json_schema(operation["responses"].get(200, {}))
            found.append(
                {
                    "method": method.upper(),
                    "path": path,
                    "tag": (operation.get("tags") or [""])[0],
                    "summary": operation.get("summary", ""),
                    "parameters": [
                        {
                            "name": parameter["name"],
                            "in": parameter["in"],
                            "required": parameter["required"],
                            "type": _type(parameter["schema"]),
                        }
                        for parameter in operation.get("parameters", [])
                    ],
                    "body": _members(body, shapes),
                    "answer": _members(answer, shapes),
                }
            )
    return found


def _json_schema(holder: dict[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = holder.get("content", {}).get("application/json", {}).get("schema", {})
    return shape


def _members(shape: dict[str, Any], shapes: dict[str, Any]) -> list[dict[str, Any]]:
    named = shapes.get(shape.get("$ref", "").rpartition("/")[2], shape)
    needed = named.get("required", [])
    return [
        {
            "name": name,
            "type": _type(member),
            "required": name in needed,
            "description": member.get("description", ""),
        }
        for name, member in named.get("properties", {}).items()
    ]


def _type(shape: dict[str, Any]) -> str:
    if "$ref" in shape:
        return str(shape["$ref"].rpartition("/")[2])
    if "anyOf" in shape:
        return " | ".join(_type(option) for option in shape["anyOf"])
    if shape.get("type") == "array":
        return f"[{_type(shape.get('items', {}))}]"
    return str(shape.get("type", "any"))


# -- errors --------------------------------------------------------------------------------------------------

_BY_TYPE: tuple[tuple[type[MshaError], int, str], ...] = (
    (Forbidden, HTTPStatus.FORBIDDEN, "forbidden"),
    (NotFound, HTTPStatus.NOT_FOUND, "not_found"),
    (VersionConflict, HTTPStatus.CONFLICT, "conflict"),
    (PublishingStopped, HTTPStatus.CONFLICT, "publishing_stopped"),
    (InUse, HTTPStatus.CONFLICT, "in_use"),
    (Transient, HTTPStatus.SERVICE_UNAVAILABLE, "try_again"),
)


def _answer(request: HttpRequest, status: int, code: str, sentence: str, place: str = "") -> HttpResponse:
    body = {"error": {"code": code, "sentence": sentence, "place": place}}
    return api.create_response(request, body, status=int(status))


@api.exception_handler(MshaError)
def refused(request: HttpRequest, error: MshaError) -> HttpResponse:
    for kind, status, code in _BY_TYPE:
        if isinstance(error, kind):
            return _answer(request, status, code, str(error))
    place = getattr(error, "place", "")
    if place or isinstance(error, Misplaced):
        return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", str(error), place)
    return _answer(request, HTTPStatus.CONFLICT, "refused", str(error))


@api.exception_handler(AuthenticationError)
def unknown(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    sentence = gettext("Send an API token that is not revoked, as Authorization: Bearer msha_api_….")
    return _answer(request, HTTPStatus.UNAUTHORIZED, "unauthenticated", sentence)


@api.exception_handler(ValidationError)
def malformed(request: HttpRequest, error: ValidationError) -> HttpResponse:
    first = error.errors[0] if error.errors else {}
    place = ".".join(str(step) for step in first.get("loc", ())[1:] if step != "body")
    problem = first.get("msg", gettext("the request is malformed"))
    return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, "malformed", f"{place}: {problem}.", place)


@api.exception_handler(HttpError)
def failed(request: HttpRequest, error: HttpError) -> HttpResponse:
    return _answer(request, error.status_code, "malformed", str(error))


@api.exception_handler(Http404)
def missing(request: HttpRequest, error: Http404) -> HttpResponse:
    return _answer(request, HTTPStatus.NOT_FOUND, "not_found", gettext("There is no such thing."))


@api.exception_handler(Exception)
def broken(request: HttpRequest, error: Exception) -> HttpResponse:
    log.error("api_failed", path=request.path, exc_info=error)
    sentence = gettext("The console failed; its log says why.")
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", sentence)


# -- addresses -----------------------------------------------------------------------------------------------


def urls() -> tuple[list[Any], str, str]:
    """The addresses of the API; each answers a method it does not know in the form of all errors."""
    patterns, app_name, namespace = api.urls
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            # The root must keep its name, which the schema needs, but nothing is there.
            pattern.callback = nowhere if pattern.name == "api-root" else _in_error_form(pattern.callback)
    return patterns, app_name, namespace


def _in_error_form(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = view(request, *args, **kwargs)
        if response.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
            return response
        allowed = ", ".join(sorted(response.headers["Allow"].split(", ")))
        sentence = gettext("This address takes %(allowed)s, not %(method)s.") % {
            "allowed": allowed,
            "method": request.method,
        }
        answer = _answer(request, HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", sentence)
        answer.headers["Allow"] = allowed
        return answer

    return wrapped


@csrf_exempt
def nowhere(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponse:
    """The answer at an address under ``/api/`` that does not exist."""
    sentence = gettext("There is nothing at %(path)s. The addresses are listed at /api/docs.") % {
        "path": request.path
    }
    return _answer(request, HTTPStatus.NOT_FOUND, "not_found", sentence)
