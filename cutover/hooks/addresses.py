"""Which hosts hooks may be at.

Whoever edits hooks makes the console POST to addresses of his choice and sees the beginning of the answer;
``MSHA_HOOK_ALLOWED_HOSTS`` says which hosts those may be. It is looked at when a hook is saved and before
every call, by name: what a permitted name resolves to is the business of whoever rules its DNS.
"""

from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host
from django.utils.translation import gettext

from cutover.errors import Refused


def host_of(url: str) -> str:
    """The host of the address, in lower case; "" where it has none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_allowed(url: str) -> bool:
    """Whether hooks may be at this address; without the setting, at any."""
    allowed: list[str] = settings.HOOK_ALLOWED_HOSTS
    host = host_of(url)
    return bool(host) and (not allowed or validate_host(host, [one.lower() for one in allowed]))


def refuse_forbidden(url: str) -> None:
    """Nothing, where hooks may be at this address.

    Raises:
        Refused: names the host and the setting.
    """
    if not is_allowed(url):
        raise Refused(
            gettext(
                "Hooks may not be at %(host)s: the setting MSHA_HOOK_ALLOWED_HOSTS of the console does not"
                " name it."
            )
            % {"host": host_of(url)}
        )
