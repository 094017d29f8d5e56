"""The Channels application of an edge: what happens with a handshake, as ASGI.

``ProtocolTypeRouter`` with plain callables under it, because a consumer object costs a hundred times the
decision. A handshake is answered in one of three ways:

- ``websocket.http.response.start`` and ``.body``, the ASGI extension: a redirect or a refusal;
- ``msha.tunnel``, our extension: the shell connects the client with one of the ``servers`` in their order,
  sends ``target`` and ``fields`` in the request, registers the session under ``unit_type`` and ``router_id``;
- ``msha.drop``, our extension: the connection is closed without an answer.

Whoever is asked again, because the snapshot changed before a 101 had come, decides again from the beginning.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode

from channels.routing import ProtocolTypeRouter

from msha.edge.access_log import HandshakeRecord
from msha.edge.handshake import WELL_KNOWN, Field
from msha.edge.reactor import Reactor
from msha.steering.decision import Drop, Hold, Redirect, Refuse, Tunnel, decide, host_key
from msha.steering.errors import InvalidRouterId
from msha.steering.router_id import Request, RouterIdReader, Source, SourceKind
from msha.steering.snapshot import Route, Snapshot, UnitTypeRule

#: From the first hold on (PROTOCOL C6).
HOLD_S = 5.0

#: Held handshakes that are decided anew in one turn of the loop.
_WOKEN_PER_TURN = 100

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON: Field = (b"content-type", b"application/json")
_TEXT: Field = (b"content-type", b"text/plain; charset=utf-8")
_NO_STORE: Field = (b"cache-control", b"no-store")
_CORS: Field = (b"access-control-allow-origin", b"*")

_ASKED = Source(SourceKind.QUERY, "routerId")


class Asgi(Protocol):
    """An ASGI application."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Serve one connection."""


class WaitingRoom:
    """Held handshakes, each waiting for the next snapshot or for its time to be over."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._waiting: dict[asyncio.Future[bool], float] = {}
        self._to_wake: deque[asyncio.Future[bool]] = deque()
        reactor.every_tick(self._expire)

    def __len__(self) -> int:
        return len(self._waiting)

    async def next_snapshot(self, until: float) -> bool:
        """Whether a new snapshot came before the monotonic time ``until``."""
        future: asyncio.Future[bool] = self._reactor.loop.create_future()
        self._waiting[future] = until
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    def wake(self) -> None:
        """Everybody here now decides again, some in each turn of the loop."""
        idle = not self._to_wake
        self._to_wake.extend(self._waiting)
        if idle and self._to_wake:
            self._reactor.again(self)

    def empty(self) -> None:
        """Everybody's time is over."""
        self._expire(float("inf"))

    def on_turn(self) -> None:
        """Wake the next ones."""
        for _ in range(min(_WOKEN_PER_TURN, len(self._to_wake))):
            _resolve(self._to_wake.popleft(), result=True)
        if self._to_wake:
            self._reactor.again(self)

    def abort(self) -> None:
        """Go on after an error of ours."""
        if self._to_wake:
            self._reactor.again(self)

    def _expire(self, now: float) -> None:
        for future in [future for future, until in self._waiting.items() if until <= now]:
            _resolve(future, result=False)


def _resolve(future: asyncio.Future[bool], *, result: bool) -> None:
    if not future.done():
        future.set_result(result)


class Balancer:
    """In which order the back-source servers of a route are tried."""

    def __init__(self, sessions_by_server: dict[str, int]) -> None:
        self._sessions = sessions_by_server
        self._turns: dict[tuple[str, str], int] = {}

    def order(self, route: Route, router_id: int | None) -> tuple[str, ...]:
        """All servers of the route. Untagged traffic has no id to hash and goes round."""
        servers = route.servers
        if len(servers) < 2:
            return servers
        if route.balance == "consistent_hash" and router_id is not None:
            return route.preference(router_id)
        key = (route.domain, route.uri)
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        first = turn % len(servers)
        turned = servers[first:] + servers[:first]
        if route.balance == "least_sessions":
            return tuple(sorted(turned, key=lambda server: self._sessions.get(server, 0)))
        return turned


class Steering:
    """Decides by the snapshot in force.

    Attributes:
        snapshot: swapped as a whole; None until the first one is applied.
        sync_until: monotonic time until which the snapshot is known to be current (PROTOCOL 1).
        draining: whether load balancers should look elsewhere.
        router: the ASGI application.
    """

    def __init__(
        self, unit: str, sessions_by_server: dict[str, int], waiting: WaitingRoom, *, hold_s: float = HOLD_S
    ) -> None:
        self.unit = unit
        self.snapshot: Snapshot | None = None
        self.sync_until = 0.0
        self.draining = False
        self.router: Asgi = ProtocolTypeRouter({"websocket": self.steer, "http": self.answer})
        self._waiting = waiting
        self._hold_s = hold_s
        self._balancer = Balancer(sessions_by_server)
        self._unit_field: Field = (b"X-Msha-Unit", unit.encode("ascii"))

    async def steer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a WebSocket handshake."""
        handed: dict[str, Any] = scope["extensions"]["msha.tunnel"]
        record: HandshakeRecord = handed["record"]
        request: Request = handed["request"]
        while True:
            snapshot = self.snapshot
            if snapshot is None:
                await _refuse(send, 503, "This edge has no routing snapshot yet.")
                return
            decision = decide(snapshot, self.unit, request, time.monotonic() <= self.sync_until)
            record.reason = decision.reason
            record.snapshot = snapshot.version
            if not isinstance(decision, Refuse):
                record.unit_type = decision.unit_type
                record.router_id = decision.router_id
            if not isinstance(decision, Hold):
                break
            record.decision = "hold"
            if not record.held_until:
                record.held_until = time.monotonic() + self._hold_s
            if not await self._waiting.next_snapshot(record.held_until):
                await send({"type": "msha.drop"})
                return
        match decision:
            case Tunnel():
                record.decision = "tunnel"
                fields = [self._unit_field]
                if decision.router_id is not None:
                    fields.append((b"X-Msha-Router-Id", b"%d" % decision.router_id))
                await send(
                    {
                        "type": "msha.tunnel",
                        "servers": self._balancer.order(decision.route, decision.router_id),
                        "target": decision.target,
                        "fields": fields,
                        "unit_type": decision.unit_type,
                        "router_id": decision.router_id,
                    }
                )
            case Redirect():
                record.decision = "redirect"
                location: Field = (b"location", decision.location.encode("ascii"))
                await _respond(send, decision.status, [location, _NO_STORE], b"")
            case Drop():
                record.decision = "drop"
                await send({"type": "msha.drop"})
            case Refuse():
                record.decision = "refuse"
                await _refuse(send, decision.status, decision.sentence)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain GET: our own addresses, and a sentence for people who took a wrong door."""
        path = scope["raw_path"].decode("ascii")
        if path == f"{WELL_KNOWN}status":
            await self._status(send)
        elif path == f"{WELL_KNOWN}locate":
            await self._locate(scope, send)
        elif path.startswith(WELL_KNOWN):
            await _refuse(send, 404, "Known here are status and locate.", kind="http")
        elif self.snapshot is None:
            await _refuse(send, 503, "This edge has no routing snapshot yet.", kind="http")
        elif self._domain_name(scope["extensions"]["msha.tunnel"]["request"].host) is None:
            await _refuse(send, 421, "This edge does not answer for the requested host.", kind="http")
        else:
            await _respond(
                send,
                426,
                [_TEXT, _NO_STORE, (b"upgrade", b"websocket")],
                b"This is a WebSocket address; connect to it with a WebSocket client.\n",
                kind="http",
            )

    async def _status(self, send: Send) -> None:
        snapshot = self.snapshot
        state = "draining" if self.draining else "no snapshot" if snapshot is None else "serving"
        body = {"status": state, "unit": self.unit, "version": snapshot.version if snapshot else None}
        await _respond(send, 200 if state == "serving" else 503, [_JSON, _NO_STORE], _json(body), kind="http")

    async def _locate(self, scope: Scope, send: Send) -> None:
        """Where a client should connect to: for browsers, which never follow a redirect of a WebSocket."""
        status, body = self._location(scope["query_string"].decode("ascii"))
        await _respond(send, status, [_JSON, _NO_STORE, _CORS], _json(body), kind="http")

    def _location(self, query: str) -> tuple[int, dict[str, object]]:
        snapshot = self.snapshot
        if snapshot is None:
            return 503, {"error": "This edge has no routing snapshot yet."}
        asked = dict(parse_qsl(query, keep_blank_values=True))
        name = self._domain_name(asked.get("host", ""))
        if name is None:
            return 404, {"error": "Name a domain of this edge in the parameter host."}
        rule = snapshot.unit_types.get(asked.get("unitType", snapshot.default_unit_type))
        if rule is None:
            return 400, {"error": "The parameter unitType names no unit type of this namespace."}
        router_id: int | None = None
        owner = snapshot.center if rule.untagged == "center" else self.unit
        if "routerId" in asked:
            try:
                router_id = _read_id(rule, asked["routerId"])
            except InvalidRouterId as error:
                return 400, {"error": f"{error}."}
            owner = rule.table.owner(router_id)
        domain = snapshot.hosts[name][0]
        url = f"ws://{domain.authorities[owner]}/"
        return 200, {"unit": owner, "url": url, "router_id": router_id}

    def _domain_name(self, host: str) -> str | None:
        """The domain that a host name belongs to, itself or as a unit sub-domain."""
        assert self.snapshot is not None
        entry = self.snapshot.hosts.get(host_key(host))
        return entry[0].name if entry else None


def _read_id(rule: UnitTypeRule, text: str) -> int:
    """The routerId of a client that carries this text, wherever it will carry it.

    Raises:
        InvalidRouterId: the text is not usable as one.
    """
    reader = RouterIdReader((_ASKED,), rule.reader.transforms, rule.reader.key_space)
    found = reader.read(Request("", "/", urlencode({_ASKED.name: text})))
    assert found is not None
    return found.value


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


async def _refuse(send: Send, status: int, sentence: str, *, kind: str = "websocket.http") -> None:
    await _respond(send, status, [_TEXT, _NO_STORE], f"{sentence}\n".encode(), kind=kind)


async def _respond(
    send: Send, status: int, fields: list[Field], body: bytes, *, kind: str = "websocket.http"
) -> None:
    await send({"type": f"{kind}.response.start", "status": status, "headers": fields})
    await send({"type": f"{kind}.response.body", "body": body})
