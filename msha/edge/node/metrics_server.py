"""The metrics address: one small HTTP server in the agent's own loop, for ``GET /metrics``.

Not the threaded server of ``prometheus_client``: it starts a thread for every connection, without a bound and
without a deadline, and the figures belong to the loop. Here a connection may take five seconds in all, the
answer fits into the kernel's buffer, and the connections are bounded.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from msha.edge.wire import handshake
from msha.edge.wire.handshake import InvalidHead

#: From being connected to having the whole answer.
EXCHANGE_S = 5.0

#: Whoever comes when so many are there takes the place of the one that came first.
CONNECTIONS_LIMIT = 32

PATH: Final = "/metrics"

log = structlog.get_logger("msha.edge.agent")

#: Finds out what is to be told.
Gather = Callable[[], Awaitable[Collector]]


class MetricsServer:
    """Answers scrapes on a socket that listens, for as long as it is run."""

    def __init__(self, listener: socket.socket, gather: Gather) -> None:
        self._listener = listener
        self._gather = gather
        self._open: dict[asyncio.Task[None], None] = {}

    async def run(self) -> None:
        """Scrapes are answered until this is cancelled."""
        host, port = self._listener.getsockname()[:2]
        server = await asyncio.start_server(self._begin, sock=self._listener)
        log.info("metrics_listening", host=host, port=port)
        try:
            await server.serve_forever()
        finally:
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_LIMIT:
            next(iter(self._open)).cancel()
        task = asyncio.create_task(self._exchange(reader, writer))
        self._open[task] = None
        task.add_done_callback(self._open.pop)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer; the connection is closed, whatever the peer does or does not do."""
        try:
            async with asyncio.timeout(EXCHANGE_S):
                answer = await self._answer(reader)
                if answer:
                    writer.write(answer)
                    writer.close()
                    await writer.wait_closed()
        except (TimeoutError, OSError) as error:
            log.info("scrape_failed", problem=str(error) or type(error).__name__)
        except Exception:
            log.exception("scrape_failed")
        finally:
            with contextlib.suppress(OSError):
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        """A whole response; empty if the peer went away."""
        try:
            head = await _read_head(reader)
            if head is None:
                return b""
            request = handshake.parse_request(head)
        except InvalidHead as error:
            return handshake.refusal(error.status, error.sentence, error.fields)
        if request.path != PATH:
            return handshake.refusal(404, f"The metrics are at {PATH}.")
        body = generate_latest(await self._gather())
        fields = [(b"Content-Type", CONTENT_TYPE_PLAIN_0_0_4.encode("ascii"))]
        return handshake.response(200, fields, body, with_body=request.method != "HEAD")


async def _read_head(reader: asyncio.StreamReader) -> bytes | None:
    """The bytes of one request head; None if the peer went away before its end.

    Raises:
        InvalidHead: it is not one, or too long.
    """
    data = b""
    while True:
        more = await reader.read(handshake.HEAD_LIMIT_BYTES)
        if not more:
            return None
        seen, data = len(data), data + more
        end = handshake.head_end(data, seen)
        if end is not None:
            return data[:end]
