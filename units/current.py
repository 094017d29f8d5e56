"""The namespace an operator works in: named by the page's address, else remembered, else the first."""

from django.http import HttpRequest

from units.models import Namespace

_KEY = "namespace"


def current_namespace(request: HttpRequest) -> Namespace | None:
    """The namespace of ``?namespace=NAME``, remembered for the next pages; None when there is no namespace.

    Looked up once per request: the shell and the page ask for the same one.
    """
    if not hasattr(request, "_msha_namespace"):
        request._msha_namespace = _find(request)  # type: ignore[attr-defined]
    found: Namespace | None = request._msha_namespace  # type: ignore[attr-defined]
    return found


def choose(request: HttpRequest, namespace: Namespace) -> None:
    """The pages of this request and the next ones are about the namespace."""
    request._msha_namespace = namespace  # type: ignore[attr-defined]
    if request.session.get(_KEY) != namespace.name:
        request.session[_KEY] = namespace.name


def _find(request: HttpRequest) -> Namespace | None:
    wanted = request.GET.get("namespace", "")
    named = Namespace.objects.filter(name=wanted).first() if wanted else None
    if named is not None:
        if request.session.get(_KEY) != named.name:
            request.session[_KEY] = named.name
        return named
    remembered = request.session.get(_KEY, "")
    return Namespace.objects.filter(name=remembered).first() or Namespace.objects.order_by("pk").first()
