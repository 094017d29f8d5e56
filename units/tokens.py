"""Tokens of edge nodes and API clients: shown once, kept as a hash."""

import hashlib
import re
import secrets
from dataclasses import dataclass

NODE_PREFIX = "msha_node_"
API_PREFIX = "msha_api_"

_FORM = re.compile(r"msha_(?:node|api)_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Token:
    """A new token: its text for the one who will use it, its hash for the database."""

    text: str
    hash: str

    def __repr__(self) -> str:
        return "Token(…)"  # never in a log


def make_token(prefix: str) -> Token:
    """A token of 256 random bits."""
    text = prefix + secrets.token_urlsafe(32)
    return Token(text, hash_of(text))


def hash_of(text: str) -> str:
    """The SHA-256 of a token in hex. A plain hash is enough: the text is random, nobody can guess it."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_of_bearer(header: str, prefix: str) -> str | None:
    """The hash of the token in an ``Authorization: Bearer`` header; None when it holds none of this kind."""
    scheme, _, text = header.partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text.startswith(prefix) or not _FORM.fullmatch(text):
        return None
    return hash_of(text)
