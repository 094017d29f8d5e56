"""Which back-source servers are up, as far as this worker can tell, and the order in which they are asked.

A server that fails handshakes in a row is *down*: it is asked after all that are up, and never left out. What
shows that it is up again is of the kind that showed it to be down. One that could not be reached is connected
to, by a probe that sends nothing; one that took connections but gave no proper answer has a handshake tried
on it now and then, for which the others are there if it fails again. ``docs/decisions/0067`` says why.
"""

import errno
import os
import random
import socket
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from msha.edge.reactor import BROKEN, WRITABLE, DeadlineQueue, Reactor
from msha.edge.session.sessions import Sessions
from msha.steering.snapshot import Route

#: So many handshakes in a row, within so many seconds, and the server is down.
FAILURES_LIMIT = 3
FAILURES_WINDOW_S = 60.0

#: Each try that fails doubles the time until the next one, up to this.
LONGEST_RETRY_S = 30.0

#: Who goes down again sooner than this after having come up goes on with the times it had.
_STEADY_S = 60.0

#: Tries of several workers and nodes spread over this part of the time, earlier and later.
_JITTER = 0.2

#: Connections that are under way at once to find out whether a server is up.
_PROBES_LIMIT = 64

#: What connect() says when it is we who have run out of something.
OUR_FAULTS = (errno.EADDRNOTAVAIL, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)

NOT_IN_TIME = "did not answer in time"

log = structlog.get_logger("msha.edge.back_sources")


class Address(NamedTuple):
    """Where a server is, as the kernel wants to hear it."""

    family: socket.AddressFamily
    name: tuple[str, int]


@dataclass(slots=True)
class _Trouble:
    """What is known of a server that has failed.

    Attributes:
        failures: in a row; the first of them was at ``began``.
        reason: how it failed last.
        reached: it took a connection then, so that only an answer shows that it is well.
        down_since: 0 while it is up.
        due: when it is tried again, while it is down.
        wait_s: from one try to the next.
        trying: whether a try has begun that has not ended.
    """

    failures: int = 0
    began: float = 0.0
    reason: str = ""
    reached: bool = False
    down_since: float = 0.0
    up_since: float = -_STEADY_S
    due: float = 0.0
    wait_s: float = 0.0
    trying: bool = False


class BackSources:
    """The servers of all routes; a server that stands in several of them is the same one.

    Attributes:
        down: those that are down.
        suspects: those whose next answer is news, because they have failed last: all that are down, and more.
    """

    def __init__(
        self, reactor: Reactor, sessions: Sessions, *, retry_s: float, reach_s: float, answer_s: float
    ) -> None:
        """Nobody has failed yet.

        Args:
            retry_s: the first time from being down to being tried.
            reach_s: how long a probe may take to connect.
            answer_s: how long a handshake may take to be answered.
        """
        self.down: set[str] = set()
        self.suspects: set[str] = set()
        self._reactor = reactor
        self._sessions = sessions
        self._retry_s = retry_s
        self._answer_s = answer_s
        self._known: dict[str, _Trouble] = {}
        self._probes: dict[str, _Probe] = {}
        self._probe_deadlines = reactor.deadlines(reach_s)
        self._addresses: dict[str, Address] = {}
        self._turns: dict[tuple[str, str], int] = {}

    def keep(self, servers: Collection[str]) -> None:
        """Nothing is known any more of all others."""
        for server in [server for server in self._known if server not in servers]:
            del self._known[server]
            self.suspects.discard(server)
            self.down.discard(server)
            self._end_probe(server)
        for server in [server for server in self._addresses if server not in servers]:
            del self._addresses[server]

    def address(self, server: str) -> Address:
        """Where the server is."""
        found = self._addresses.get(server)
        if found is None:
            found = self._addresses[server] = _address(server)
        return found

    # The order

    def order(self, route: Route, router_id: int | None) -> Sequence[str]:
        """All servers of the route, in the order in which they are to be asked for this id.

        Untagged traffic has no id to hash and goes round. Only the ids of a server that is down move.
        """
        servers = route.servers
        if len(servers) < 2:
            return servers
        if self.down and not self.down.isdisjoint(servers):
            return self._order_past_those_down(route, router_id)
        if route.balance == "consistent_hash" and router_id is not None:
            return route.preference(router_id)
        return self._in_turn(route, servers)

    def _order_past_those_down(self, route: Route, router_id: int | None) -> Sequence[str]:
        hashed = route.balance == "consistent_hash" and router_id is not None
        servers = route.preference(router_id) if hashed and router_id is not None else route.servers
        up = [server for server in servers if server not in self.down]
        if not up:
            return servers if hashed else self._in_turn(route, servers)
        trial = self._trial(servers[: servers.index(up[0])] if hashed else servers)
        last = [server for server in servers if server in self.down and server not in trial]
        return (*trial, *(up if hashed else self._in_turn(route, up)), *last)

    def _in_turn(self, route: Route, servers: Sequence[str]) -> Sequence[str]:
        key = (route.domain, route.uri)
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        first = turn % len(servers)
        turned = (*servers[first:], *servers[:first])
        if route.balance == "least_sessions":
            sessions = self._sessions.by_server
            return sorted(turned, key=lambda server: sessions.get(server, 0))
        return turned

    def _trial(self, candidates: Sequence[str]) -> Sequence[str]:
        """The server on which this handshake is tried, if one is due."""
        now = time.monotonic()
        for server in candidates:
            trouble = self._known.get(server)
            if trouble is not None and trouble.down_since and trouble.reached and trouble.due <= now:
                trouble.trying = True
                # Should the client leave before the answer, nobody will say how it ended.
                trouble.due = now + trouble.wait_s + self._answer_s
                return (server,)
        return ()

    # What happens to handshakes

    def failed(self, server: str, how: str, *, reached: bool) -> None:
        """The server failed a handshake.

        Args:
            reached: it took the connection; the failure was that it gave no proper answer.
        """
        now = time.monotonic()
        trouble = self._known.setdefault(server, _Trouble())
        trouble.reason, trouble.reached = how, reached
        if trouble.down_since:
            if trouble.trying:  # others began before it was down, and say nothing new
                self._try_later(trouble, now)
            return
        if not trouble.failures or now - trouble.began > FAILURES_WINDOW_S:
            trouble.failures, trouble.began = 0, now
        trouble.failures += 1
        self.suspects.add(server)
        if trouble.failures >= FAILURES_LIMIT:
            self._go_down(server, trouble, now)

    def answered(self, server: str) -> None:
        """The server answered a handshake; whatever it said, it is up. To be called for suspects."""
        self._come_up(server, "answered")

    def _go_down(self, server: str, trouble: _Trouble, now: float) -> None:
        steady = now - trouble.up_since > _STEADY_S
        trouble.wait_s = self._retry_s / 2 if steady else trouble.wait_s
        trouble.down_since = now
        self.down.add(server)
        self._try_later(trouble, now)
        self._sessions.count("back_source_down")
        log.warning("back_source_down", server=server, reason=trouble.reason, failures=trouble.failures)

    def _come_up(self, server: str, how: str) -> None:
        self.suspects.discard(server)
        trouble = self._known[server]
        trouble.failures = 0
        if not trouble.down_since:
            return
        now = time.monotonic()
        lasted_s = round(now - trouble.down_since, 1)
        trouble.down_since, trouble.up_since, trouble.trying = 0.0, now, False
        self.down.discard(server)
        self._end_probe(server)
        self._sessions.count("back_source_up")
        log.info("back_source_up", server=server, reason=how, down_s=lasted_s)

    def _try_later(self, trouble: _Trouble, now: float) -> None:
        trouble.trying = False
        trouble.wait_s = min(trouble.wait_s * 2, LONGEST_RETRY_S)
        trouble.due = now + trouble.wait_s * random.uniform(1 - _JITTER, 1 + _JITTER)

    # Probes

    def probe(self, now: float) -> None:
        """Connect to those that could not be reached and whose time has come."""
        for server in list(self.down):
            trouble = self._known[server]
            if trouble.due <= now and not trouble.reached and len(self._probes) < _PROBES_LIMIT:
                self._end_probe(server)
                trouble.trying = True
                trouble.due = now + trouble.wait_s + self._probe_deadlines.seconds
                self._probes[server] = probe = _Probe(self, self._reactor, self._probe_deadlines, server)
                probe.begin()

    def rest(self) -> None:
        """No probe is under way; they are no reason for a process to wait with its end."""
        for server in list(self._probes):
            self._end_probe(server)

    def probed(self, server: str, failure: str) -> None:
        """The server took the connection, or there is a failure."""
        self._end_probe(server)
        trouble = self._known.get(server)
        if trouble is None or not trouble.down_since:
            return
        if failure:
            trouble.reason = failure
            self._try_later(trouble, time.monotonic())
        else:
            self._come_up(server, "connected")

    def _end_probe(self, server: str) -> None:
        probe = self._probes.pop(server, None)
        if probe is not None:
            probe.stop()


class _Probe:
    """A connection that is begun to see whether it can be."""

    __slots__ = ("_back_sources", "_deadlines", "_reactor", "_server", "_socket")

    def __init__(
        self, back_sources: BackSources, reactor: Reactor, deadlines: DeadlineQueue, server: str
    ) -> None:
        self._back_sources = back_sources
        self._reactor = reactor
        self._deadlines = deadlines
        self._server = server
        self._socket: socket.SocketType | None = None

    def begin(self) -> None:
        """It is being connected, or that has failed already."""
        address = self._back_sources.address(self._server)
        try:
            self._socket = socket.SocketType(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._back_sources.probed(self._server, no_socket(error))
            return
        code = self._socket.connect_ex(address.name)
        if code not in (0, errno.EINPROGRESS):
            self._back_sources.probed(self._server, os.strerror(code).lower())
            return
        self._reactor.watch(self._socket.fileno(), self)
        self._deadlines.add(self)

    def stop(self) -> None:
        """It is closed."""
        self._deadlines.discard(self)
        if self._socket is not None:
            self._reactor.close(self._socket)
            self._socket = None

    def on_event(self, descriptor: int, events: int) -> None:
        """It is connected, or that has failed."""
        if self._socket is None:
            return
        if events & BROKEN:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._back_sources.probed(self._server, os.strerror(code).lower())
        elif events & WRITABLE:
            self._back_sources.probed(self._server, "")

    def on_deadline(self) -> None:
        """The server did not take it in time."""
        self._back_sources.probed(self._server, NOT_IN_TIME)

    def abort(self) -> None:
        """Close it now."""
        self._back_sources.probed(self._server, "internal error")


def no_socket(error: OSError) -> str:
    """What to say when the kernel gives us none."""
    return f"no socket: {error.strerror}"


def _address(server: str) -> Address:
    host, _, port = server.rpartition(":")
    bare = host.strip("[]")
    family = socket.AF_INET if bare == host else socket.AF_INET6
    return Address(family, (bare, int(port)))
