"""Calls to addresses of other people's systems: signed, and bounded in time and size, whatever is out there.

Who is called can check three headers: ``X-Msha-Signature`` is ``sha256=`` and the hexadecimal HMAC-SHA256,
under the secret that both know, of the timestamp, a dot and the body; ``X-Msha-Timestamp`` is when the call
was made, in seconds since 1970, so that an old call can be told from a new one; ``X-Msha-Delivery`` is the
same for every attempt at one thing, so that nothing is done twice.
"""

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.translation import gettext

from msha.steering.errors import Transient

SIGNATURE = "X-Msha-Signature"
TIMESTAMP = "X-Msha-Timestamp"
DELIVERY = "X-Msha-Delivery"

#: What is read of an answer; one with more has failed.
ANSWER_LIMIT = 64 * 1024
#: So much of an answer is repeated to people.
QUOTED = 200


@dataclass(eq=False)
class CallFailed(Transient):
    """Nobody answered, or not within the limits.

    Attributes:
        facts: what the sentence is made from, in whose language it is read; fit for JSON.
    """

    facts: dict[str, Any]

    @property
    def problem(self) -> str:
        """What was wrong, in the reader's language."""
        match self.facts.get("what"):
            case "late":
                return gettext("did not answer within %(seconds)g s") % self.facts
            case "large":
                return gettext("answered %(status)d with more than %(limit)d KiB") % self.facts
            case _:
                return gettext("cannot be reached: %(reason)s") % self.facts

    def __str__(self) -> str:
        return self.problem


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP; a redirect is an answer like any other, it is never followed.
        body: at most `ANSWER_LIMIT` bytes.
        elapsed_ms: from the dial to the last byte.
        retry_after_s: when it asks to be called again, if it says so in seconds.
    """

    status: int
    body: bytes
    elapsed_ms: int
    retry_after_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the call was accepted (2xx)."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def __str__(self) -> str:
        said = " ".join(self.text.split())[:QUOTED]
        if 300 <= self.status < 400:
            return gettext("answered %(status)d; redirects are not followed") % {"status": self.status}
        if not said:
            return gettext("answered %(status)d") % {"status": self.status}
        return gettext("answered %(status)d: %(said)s") % {"status": self.status, "said": said}


def check_address(url: str) -> None:
    """Nothing, if the address is one that `call` can dial; host names of one label are fine.

    Raises:
        django.core.exceptions.ValidationError: says what is wrong with it.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unfinished IPv6 address, or a port that is none
        known = False
    if not known or not url.isprintable() or " " in url:
        raise ValidationError(gettext("Give an address such as https://pager.example/msha."))
    if "@" in parts.netloc or parts.fragment:
        raise ValidationError(
            gettext("Leave out user, password and fragment: calls are signed with the secret instead.")
        )


#: A transport that was told to close does so in the loop's next turn; one with TLS in the turn after that.
_TURNS_TO_CLOSE = 3


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The value of ``X-Msha-Signature`` for a body sent at a time (seconds since 1970)."""
    signed = b"%d." % timestamp + body
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def call(url: str, secret: str, payload: Mapping[str, Any], *, delivery: str, timeout_s: float) -> Answer:
    """The answer to the payload, POSTed as JSON once.

    Blocks its thread, for `timeout_s` at most: resolving, dialling, TLS, sending and reading together, also
    where every single byte comes late. Not for a thread that runs an event loop.

    Args:
        delivery: names what is delivered; the same for all attempts at it.

    Raises:
        CallFailed: no whole answer within the time and size.
    """
    body = json.dumps(payload, cls=DjangoJSONEncoder, ensure_ascii=False, sort_keys=True).encode()
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "msha",
        SIGNATURE: sign(secret, timestamp, body),
        TIMESTAMP: str(timestamp),
        DELIVERY: delivery,
    }
    # A loop of our own, closed without waiting: a name server that is silent holds nobody but its own thread.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_within(timeout_s, url, body, headers))
    finally:
        loop.run_until_complete(_let_go(loop))
        loop.close()


async def _let_go(loop: asyncio.AbstractEventLoop) -> None:
    """What the call left behind is cancelled, and its sockets are closed."""
    left = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await loop.shutdown_asyncgens()
    for _ in range(_TURNS_TO_CLOSE):
        await asyncio.sleep(0)


async def _within(timeout_s: float, url: str, body: bytes, headers: dict[str, str]) -> Answer:
    try:
        async with asyncio.timeout(timeout_s):
            return await _post(url, body, headers)
    except TimeoutError:
        raise CallFailed({"what": "late", "seconds": timeout_s}) from None
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, ValueError) as error:
        reason = str(error).strip() or type(error).__name__
        raise CallFailed({"what": "unreachable", "reason": reason[:QUOTED]}) from error


async def _post(url: str, body: bytes, headers: dict[str, str]) -> Answer:
    began = time.monotonic()
    # The system's certificates (and SSL_CERT_FILE), but neither proxies nor passwords from the environment.
    verify = ssl.create_default_context() if urlsplit(url).scheme == "https" else False
    async with (
        httpx.AsyncClient(
            verify=verify,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - the whole call has one, around this
        ) as client,
        client.stream("POST", url, content=body, headers=headers) as response,
    ):
        read = bytearray()
        async for piece in response.aiter_raw():
            read += piece
            if len(read) > ANSWER_LIMIT:
                raise CallFailed(
                    {"what": "large", "status": response.status_code, "limit": ANSWER_LIMIT // 1024}
                )
        elapsed_ms = int((time.monotonic() - began) * 1000)
        again = _seconds(response.headers.get("Retry-After", ""))
        return Answer(response.status_code, bytes(read), elapsed_ms, again)


def _seconds(text: str) -> float | None:
    """A ``Retry-After`` in seconds; one that is a date would compare two clocks, and is left alone."""
    digits = text.strip()
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
