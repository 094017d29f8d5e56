"""How many handshakes this node accepts per second, measured by itself on its own listener.

A few hundred requests for the node's own status go through accept, parsing, decision and answer, as a
handshake does, but reach no back-source and are written to no log. A tunnel costs more than such an answer,
so a part of the rate is told. The asking takes its share of the machine: the figure is what the node accepts
at least, under the load it has at the moment.
"""

import asyncio
import time

#: How long it is measured, and by how many at once.
MEASURED_S = 0.3
AT_ONCE = 8

#: A handshake that becomes a tunnel takes 2.3 times the CPU of a short answer (docs/performance.md); the rest
#: is what its session then wants.
ANSWERS_PER_TUNNEL = 3.0

_REQUEST = (
    b"GET /.well-known/msha/status HTTP/1.1\r\nHost: capacity.invalid\r\nConnection: close\r\n"
    b"User-Agent: msha capacity\r\n\r\n"
)
_ANSWER_LIMIT_BYTES = 4096
_ANSWER_S = 2.0

Result = dict[str, object]


async def measured(listener: tuple[str, int], measured_s: float = MEASURED_S) -> Result:
    """``accepts_per_s``, and the ``answers_per_s`` it follows from; or a sentence why there is none.

    Args:
        listener: an address at which this node listens without TLS.
    """
    began = time.perf_counter()
    until = began + measured_s
    answered = await asyncio.gather(*(_ask_until(listener, until) for _ in range(AT_ONCE)))
    took_s = time.perf_counter() - began
    per_s = sum(answered) / took_s
    if per_s < ANSWERS_PER_TUNNEL:
        return {"ok": False, "ms": round(took_s * 1000, 1), "error": "Its own listener does not answer it."}
    return {
        "ok": True,
        "ms": round(took_s * 1000, 1),
        "answers_per_s": int(per_s),
        "accepts_per_s": int(per_s / ANSWERS_PER_TUNNEL),
    }


async def _ask_until(listener: tuple[str, int], until: float) -> int:
    """How many requests were answered before the time was over."""
    count = 0
    while time.perf_counter() < until:
        if not await _answered(listener):
            return count
        count += 1
    return count


async def _answered(listener: tuple[str, int]) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(*listener)
            try:
                writer.write(_REQUEST)
                head = await reader.read(_ANSWER_LIMIT_BYTES)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return head.startswith(b"HTTP/1.1 200")
