"""Who asks, through the API or a page, and what he may do: fetching a thing includes checking permission."""

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext

from msha.steering.errors import Terminal
from units.models import ApiToken, Namespace
from units.tokens import API_PREFIX, hash_of_bearer

#: ``last_used_at`` is written at most this often: it is for people, and every write locks SQLite.
_USED_EVERY = timedelta(minutes=1)


class Forbidden(Terminal):
    """The user may not do this; the sentence names the permission he lacks."""


class NotFound(Terminal):
    """There is no such thing."""


def user_of_bearer(header: str) -> AbstractUser | None:
    """The active user whose unrevoked API token stands in an ``Authorization`` header, or None."""
    hashed = hash_of_bearer(header, API_PREFIX)
    if hashed is None:
        return None
    token = ApiToken.objects.select_related("user").filter(token_hash=hashed, revoked_at=None).first()
    if token is None or not token.user.is_active:
        return None
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - _USED_EVERY)
    if token.last_used_at is None or token.last_used_at < now - _USED_EVERY:
        ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)
    return token.user


def require(user: Any, *permissions: str) -> None:
    """The user holds all the permissions.

    Raises:
        Forbidden: names the first that is missing.
    """
    for permission in permissions:
        if not user.has_perm(permission):
            raise Forbidden(
                gettext("%(user)s may not do this: the permission %(permission)s is missing.")
                % {"user": user, "permission": permission}
            )


def namespace_for(request: HttpRequest, name: str, *permissions: str) -> Namespace:
    """The namespace, for a user who may look at it and holds the permissions.

    Raises:
        Forbidden, NotFound.
    """
    require(request.user, "units.view_namespace", *permissions)
    namespace = Namespace.objects.filter(name=name).first()
    if namespace is None:
        known = ", ".join(Namespace.objects.values_list("name", flat=True)[:10])
        raise NotFound(
            gettext("There is no namespace %(name)s; there is %(known)s.")
            % {"name": name, "known": known or gettext("none")}
        )
    return namespace
