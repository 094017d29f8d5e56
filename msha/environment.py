"""Readers of the environment: each returns a checked value, or refuses and names the variable."""

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def text(name: str, default: str | None = None) -> str:
    """The variable's value; without a default it must be set and not be empty."""
    value = os.environ.get(name, "").strip()
    if value:
        return value
    if default is None:
        raise ImproperlyConfigured(f"{name} is not set. Set it in the environment of every console process.")
    return default


def boolean(name: str, default: bool) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if not value:
        return default
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name} is {value!r}. Use one of 1, true, yes, on, 0, false, no, off.")


def integer(name: str, default: int, *, minimum: int, maximum: int) -> int:
    value = os.environ.get(name, "").strip()
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and minimum <= int(value) <= maximum):
        raise ImproperlyConfigured(f"{name} is {value!r}. Use a whole number from {minimum} to {maximum}.")
    return int(value)


def words(name: str, default: list[str]) -> list[str]:
    """The variable's comma-separated items, without blanks."""
    value = os.environ.get(name, "").strip()
    return [item.strip() for item in value.split(",") if item.strip()] if value else list(default)


def resolvers(name: str) -> list[tuple[str, int]]:
    """The DNS servers of a comma-separated list of ``ADDRESS`` and ``ADDRESS:PORT``, IPv6 in brackets."""
    return [_resolver(name, text) for text in words(name, [])]


def _resolver(name: str, text: str) -> tuple[str, int]:
    address, port = text, "53"
    if not text.endswith("]") and (text.startswith("[") or text.count(":") == 1):
        address, _, port = text.rpartition(":")
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        port = ""
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ImproperlyConfigured(
            f"{name} holds {text!r}. Use ADDRESS or ADDRESS:PORT, separated by commas."
        )
    return bare, int(port)


def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = text(name, default)
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} is {value!r}. Use one of {', '.join(allowed)}.")
    return value


def database(name: str, default: str) -> dict[str, Any]:
    """Django's settings of the database named by a ``sqlite:///FILE`` or ``postgres://`` URL.

    SQLite: WAL, so that readers do not wait for the writer; ``IMMEDIATE``, because a transaction that first
    reads and then writes otherwise fails with "database is locked" instead of waiting; ``synchronous=FULL``,
    because the database must not forget a published version (PROTOCOL P4).
    """
    url = text(name, default)
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        file = unquote(parts.path)[1:]
        if parts.netloc or not file:
            raise ImproperlyConfigured(
                f"{name} is {url!r}. Write sqlite:///FILE, with four slashes for /FILE."
            )
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(Path(file)),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
        }
    if parts.scheme in ("postgres", "postgresql"):
        options = dict(parse_qsl(parts.query))
        host = options.pop("host", "") or unquote(parts.hostname or "")
        if not parts.path.strip("/"):
            raise ImproperlyConfigured(
                f"{name} names no database. Write postgres://USER:PASSWORD@HOST:PORT/NAME."
            )
        options.setdefault("connect_timeout", "5")
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path[1:]),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": host,
            "PORT": str(parts.port or ""),
            "OPTIONS": options,
        }
    raise ImproperlyConfigured(
        f"{name} is {url!r}. Use sqlite:///FILE or postgres://USER:PASSWORD@HOST:PORT/NAME."
    )


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One Redis server, spelt as each of the two libraries wants it; ``""`` when there is none."""

    layer: str = field(default="")
    """For channels-redis and redis-py: ``redis://``, ``rediss://`` or ``unix:///path``."""
    broker: str = field(default="")
    """For Celery: the same, but ``redis+socket:///path``."""


def redis(name: str, *, required: bool) -> RedisAddress:
    url = text(name, None if required else "")
    if not url:
        return RedisAddress()
    parts = urlsplit(url)
    if parts.scheme in ("redis", "rediss") and parts.netloc:
        return RedisAddress(url, url)
    if parts.scheme in ("unix", "redis+socket") and parts.path.startswith("/"):
        db = dict(parse_qsl(parts.query)).get("db", "") or dict(parse_qsl(parts.query)).get(
            "virtual_host", ""
        )
        layer = f"unix://{parts.path}" + (f"?db={db}" if db else "")
        broker = f"redis+socket://{parts.path}" + (f"?virtual_host={db}" if db else "")
        return RedisAddress(layer, broker)
    raise ImproperlyConfigured(
        f"{name} is {url!r}. Use redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH."
    )
