"""What the console asks a node to try from where it stands: an echo, a handshake with itself, a back-source.

Such a probe is a real WebSocket handshake by a client of its own; it never touches the data path. What the
workers have to answer, a count of sessions or a text to them, is only read here.
"""

import asyncio
import ipaddress
import re
import time
from collections.abc import Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, WebSocketException

from msha.edge.node import capacity
from msha.edge.session.messages import Address, usable_text
from msha.steering.errors import InvalidSnapshot
from msha.steering.snapshot import check_server
from msha.steering.wire import TEXT_LIMIT_BYTES, ProbeRequest

#: Handshakes that are tried at once; the others wait for their turn.
AT_ONCE = 16
#: More than this are answered with an error instead of piling up.
WAITING_LIMIT = 1_000
LONGEST_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0

#: A host name with an optional port; everything else could change the request line or the destination.
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?")
_TARGET = re.compile(r"/[!-~]*")
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Result = dict[str, Any]


class _Connect(connect):
    """Reports a redirect instead of following it."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def run(request: ProbeRequest, listener: tuple[str, int], user_agent: str) -> Result:
    """What came of the probe: ``ok``, ``ms``, and what the kind adds; never raises for what was probed.

    Args:
        listener: where the node itself listens, for ``handshake``.
    """
    timeout_s = min(max(request.timeout_s, 0.1), LONGEST_TIMEOUT_S)
    params = request.params
    match request.kind:
        case "echo":
            return {"ok": True, "ms": 0}
        case "handshake":
            return await _handshake(listener, params, timeout_s, user_agent, any_status=True)
        case "back_source":
            try:
                server = check_server(params.get("server"), "server")
            except InvalidSnapshot as error:
                return _failed(str(error))
            return await _handshake(server, params, timeout_s, user_agent, any_status=False)
        case "accepts":
            return await capacity.measured((reachable(listener[0]), listener[1]))
        case other:
            return _failed(f"This node knows no probe {other!r}.")


def countable(params: Mapping[str, Any]) -> tuple[str, list[list[int]] | None]:
    """Unit type and ranges of a ``count``; None where the ranges are not ascending, disjoint pairs of ids."""
    ranges = params.get("ranges")
    last = -1
    if not isinstance(ranges, list):
        return "", None
    for pair in ranges:
        match pair:
            case [int(first), int(end)] if last < first <= end:
                last = end
            case _:
                return "", None
    return str(params.get("unit_type", "")), ranges


def speakable(params: Mapping[str, Any]) -> tuple[Address, str] | str:
    """Whom a ``send`` is for and its text, or the sentence that says what is wrong with it."""
    text = params.get("text")
    if usable_text(text) is None:
        return f"The text must have 1 to {TEXT_LIMIT_BYTES} bytes of UTF-8."
    unit_type = str(params.get("unit_type", ""))
    if params.get("all") is True:
        return Address(unit_type, None), str(text)
    _, ranges = countable(params)
    if not ranges:
        return "The ranges are not [[first, last], ...], and it is not for all."
    return Address(unit_type, ranges), str(text)


async def _handshake(
    address: tuple[str, int],
    params: Mapping[str, Any],
    timeout_s: float,
    user_agent: str,
    *,
    any_status: bool,
) -> Result:
    host, target, headers = params.get("host"), params.get("target", "/"), params.get("headers") or {}
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        return _failed(f"{host!r} is not a host name.")
    if not isinstance(target, str) or not _TARGET.fullmatch(target) or "#" in target:
        return _failed(f"{target!r} is not a path.")
    if not isinstance(headers, dict) or not all(_sendable(name, value) for name, value in headers.items()):
        return _failed("The headers of the probe cannot be sent.")
    started = time.perf_counter()
    try:
        socket = await _Connect(
            f"ws://{host}{target}",
            host=reachable(address[0]),
            port=address[1],
            additional_headers=headers,
            user_agent_header=user_agent,
            compression=None,
            proxy=None,
            open_timeout=timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,
        )
    except InvalidStatus as refused:
        response = refused.response
        result: Result = {"ok": any_status, "ms": _ms(started), "status": response.status_code}
        if not any_status:
            result["error"] = f"It answered {response.status_code} instead of 101."
        if "Location" in response.headers:
            result["location"] = response.headers["Location"]
        return result
    except TimeoutError:
        return {**_failed(f"No answer within {timeout_s:g} s."), "ms": _ms(started)}
    except InvalidMessage:
        return {**_failed("The connection was closed without an answer."), "ms": _ms(started)}
    except InvalidHandshake as error:
        return {**_failed(f"The answer is not a valid 101: {error}."), "ms": _ms(started)}
    except (OSError, WebSocketException) as error:
        return {**_failed(f"No connection to {address[0]}:{address[1]}: {error}."), "ms": _ms(started)}
    opened_ms = _ms(started)
    await _close(socket)
    return {"ok": True, "ms": opened_ms, "status": 101}


async def _close(socket: ClientConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S * 2):
            await socket.close()
    except (TimeoutError, OSError):
        socket.transport.abort()


def reachable(host: str) -> str:
    """An address that leads to a listener on ``host``, also when that is every address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _sendable(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and _FIELD.fullmatch(name) is not None
        and all(" " <= char <= "~" for char in value)
    )


def _failed(sentence: str) -> Result:
    return {"ok": False, "ms": 0, "error": sentence}


def _ms(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)
