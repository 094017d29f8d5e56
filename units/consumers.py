"""The console's end of the control stream: one WebSocket per edge node (PROTOCOL 4).

Level-triggered: what a node should have is read from the database on connect, on every nudge and on every
status, and compared with what it has. A plain ASGI application, because a Channels consumer ends when Redis
does: its group subscription is part of its main loop, while a control stream must go on without Redis
(PROTOCOL C8).
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from channels.generic.websocket import AsyncWebsocketConsumer

from msha.steering import wire
from msha.steering.errors import InvalidMessage
from units import enrolment, probes, reports
from units.delivery import Due, due
from units.enrolment import CLOSE_LATER, Delivery, Greeted, TurnedAway
from units.nudge import Watch, hub
from units.offload import offload
from units.tokens import NODE_PREFIX, hash_of_bearer

#: ``hello`` must follow the handshake, and a frame the last one, within so long.
HELLO_DEADLINE_S = 5.0
SILENCE_LIMIT_S = 10.0
SEND_DEADLINE_S = 5.0
#: The database is looked at this often, nudged or not.
LOOK_EVERY_S = 2.0
#: A snapshot that is not acked is sent again after so long.
SEND_AGAIN_S = 5.0

#: Close codes beside those of the wire: the node dials again after each. Daphne sends 1000 and 3000-4999.
CLOSE_SILENT = 4408
CLOSE_NOT_UNDERSTOOD = 4422
CLOSE_ERROR = 4500

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = structlog.get_logger(__name__)


class NothingHere(AsyncWebsocketConsumer):
    """Closes a WebSocket whose address leads nowhere, instead of an error in the log."""

    channel_layer_alias = None  # needs no Redis

    async def connect(self) -> None:
        await self.close(code=4404)


class Ended(Exception):
    """The peer has closed the connection."""


class ControlConsumer:
    """One conversation with a node, from its handshake to its close.

    Two tasks: one reads what the node says and answers it, the other sends what the console owes it.
    """

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._id = str(uuid.uuid4())
        self._node: Greeted
        self._watch: Watch
        self._may_join = False
        self._said_left = False
        self._sent_version = 0
        self._sent_at = 0.0

    @classmethod
    def as_asgi(cls) -> Any:
        """The ASGI application."""

        async def control(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await cls(scope, receive, send).run()

        return control

    async def run(self) -> None:
        """The conversation is over and the node marked as disconnected."""
        try:
            await self._converse()
        except Ended:
            pass
        except TurnedAway as refusal:
            await self._turn_away(refusal)
        except InvalidMessage as error:
            log.warning("control_message_invalid", connection=self._id, problem=str(error))
            await self._say_and_close(CLOSE_NOT_UNDERSTOOD, wire.Refused(str(error)))
        except TimeoutError:
            log.warning("control_stream_silent", connection=self._id)
            await self._close(CLOSE_SILENT)
        except Exception:
            # What was said may not be stored; the node says it again on its next connection.
            log.exception("control_stream_failed", connection=self._id)
            await self._close(CLOSE_ERROR)

    async def _converse(self) -> None:
        await self._accept()
        token = hash_of_bearer(_header(self._scope, b"authorization"), NODE_PREFIX)
        node_id = await offload(enrolment.known, token or "")
        self._node = await offload(enrolment.greet, node_id, await self._hello(), self._id)
        log.info("node_connected", node=self._node.welcome.node, connection=self._id)
        try:
            self._sent_version = self._node.acked
            await self._say(self._node.welcome)
            async with hub.watching(self._node.namespace_id) as self._watch:
                await self._both()
        finally:
            log.info("node_disconnected", node=self._node.welcome.node, connection=self._id)
            with contextlib.suppress(Exception):  # without it the row says so 5 s after the last status
                await asyncio.shield(offload(enrolment.disconnected, node_id, self._id))

    async def _both(self) -> None:
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._supply())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- what the node says ----------------------------------------------------------------------------------

    async def _hello(self) -> wire.Hello:
        async with asyncio.timeout(HELLO_DEADLINE_S):
            message = wire.decode(await self._text())
        if not isinstance(message, wire.Hello):
            raise InvalidMessage(f"{message.TYPE} before hello")
        return message

    async def _listen(self) -> None:
        while True:
            async with asyncio.timeout(SILENCE_LIMIT_S):
                text = await self._text()
            await self._handle(wire.decode(text))

    async def _handle(self, message: wire.Message) -> None:
        node, namespace = self._node.node_id, self._node.namespace_id
        match message:
            case wire.Status():
                await self._status(message)
            case wire.Ack():
                await offload(reports.ack, node, namespace, message)
            case wire.Drained():
                await offload(reports.drained, node, namespace, message)
            case wire.Nack():
                await offload(reports.nack, node, namespace, message)
            case wire.Left():
                self._said_left, self._may_join = True, False
                await offload(enrolment.left, node, message.enrolment)
            case wire.WorkersExited():
                await offload(reports.workers_exited, node, namespace, message)
            case wire.ProbeResult():
                await offload(probes.answered, node, namespace, message)
            case _:
                raise InvalidMessage(f"{message.TYPE} is not for a console")

    async def _status(self, message: wire.Status) -> None:
        answer = await offload(reports.status, self._node.node_id, self._node.namespace_id, self._id, message)
        if answer.state is None:
            raise TurnedAway(CLOSE_LATER, "A newer connection of this node has taken over.")
        await self._say(wire.Confirm(message.seq, answer.version, answer.digest))
        # A node that is on its way out, or only says goodbye, is not enrolled anew.
        self._may_join = not message.draining and not self._said_left
        self._watch.woken.set()

    # -- what the console owes ------------------------------------------------------------------------------

    async def _supply(self) -> None:
        """Sends what is due, again and again; a nudge, a status or the clock starts each look."""
        while True:
            await self._watch.wait(LOOK_EVERY_S)
            if asyncio.get_running_loop().time() - self._sent_at > SEND_AGAIN_S:
                self._sent_version = 0  # not acked: `due` looks at the stored ack alone now
            owed = await offload(due, self._node.node_id, self._id, self._sent_version)
            await self._pay(owed)

    async def _pay(self, owed: Due) -> None:
        if owed.revoked is not None:
            raise TurnedAway(wire.CLOSE_REVOKED, owed.revoked)
        if owed.superseded:
            raise TurnedAway(CLOSE_LATER, "A newer connection of this node has taken over.")
        for probe in owed.probes:
            await self._say(wire.ProbeRequest(probe.pk, probe.kind, probe.params))
        delivery = owed.delivery
        if owed.outside and self._may_join:
            delivery = await offload(enrolment.join, self._node.node_id, self._id)
        if delivery is not None:
            await self._deliver(delivery)

    async def _deliver(self, delivery: Delivery) -> None:
        self._sent_version = delivery.version
        self._sent_at = asyncio.get_running_loop().time()
        await self._say(wire.Deliver(delivery.enrolment, delivery.version, delivery.digest, delivery.body))
        log.info("snapshot_sent", node=self._node.welcome.node, version=delivery.version)

    # -- the WebSocket ---------------------------------------------------------------------------------------

    async def _accept(self) -> None:
        async with asyncio.timeout(HELLO_DEADLINE_S):
            message = await self._receive()
        if message["type"] != "websocket.connect":
            raise Ended
        await self._send({"type": "websocket.accept"})

    async def _text(self) -> str:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise Ended
        text = message.get("text")
        if text is None:
            raise InvalidMessage("a binary frame")
        if len(text) > wire.MESSAGE_LIMIT_BYTES:
            raise InvalidMessage(f"longer than {wire.MESSAGE_LIMIT_BYTES} bytes")
        return str(text)

    async def _say(self, message: wire.FromConsole) -> None:
        async with asyncio.timeout(SEND_DEADLINE_S):
            await self._send({"type": "websocket.send", "text": wire.encode(message)})

    async def _turn_away(self, refusal: TurnedAway) -> None:
        log.warning("node_turned_away", code=refusal.code, reason=refusal.reason, connection=self._id)
        if refusal.code == wire.CLOSE_REVOKED:
            await self._say_and_close(refusal.code, wire.Revoked(refusal.reason))
        else:
            await self._say_and_close(refusal.code, wire.Refused(refusal.reason))

    async def _say_and_close(self, code: int, message: wire.FromConsole) -> None:
        try:
            await self._say(message)
        except Exception as error:  # noqa: BLE001  the peer may be gone, and is not told then
            log.info("last_words_not_sent", connection=self._id, error=repr(error))
        await self._close(code)

    async def _close(self, code: int) -> None:
        try:
            async with asyncio.timeout(SEND_DEADLINE_S):
                await self._send({"type": "websocket.close", "code": code})
        except Exception as error:  # noqa: BLE001  it is closed already
            log.info("close_not_sent", connection=self._id, error=repr(error))


def _header(scope: dict[str, Any], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
