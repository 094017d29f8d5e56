"""What each client address takes: its connections, its handshakes a second; and who sends downgraded ones.

Nothing here is looked at for a connection as long as no limit can be met: see ``Shell``.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from msha.edge.limits import Limits
from msha.edge.wire.handshake import InvalidHead

log = structlog.get_logger("msha.edge")

#: Addresses whose handshakes are remembered; a handshake is remembered for a second.
_REMEMBERED_ADDRESSES = 65_536

#: Peers whose downgraded handshakes are counted one by one; those of all others are counted together.
DOWNGRADING_PEERS = 20

#: A peer that downgrades is named in the log so often (seconds).
DOWNGRADE_WARNING_S = 60.0

_RETRY: tuple[tuple[bytes, bytes], ...] = ((b"Retry-After", b"1"),)
_MAPPED = b"\0" * 10 + b"\xff\xff"


def too_many_connections() -> InvalidHead:
    """What a connection is told beyond the limit for all."""
    sentence = "This edge has as many connections as it may. Try again later, or another edge."
    return InvalidHead(503, "connections", sentence, _RETRY)


def network_of(host: str) -> str:
    """Whom the limits for one address count under: an IPv4 address, or an IPv6 network of 64 bits.

    Whoever has one address of such a network has all of them.
    """
    if ":" not in host:
        return host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return packed[:8].hex()


@dataclass(slots=True)
class _Holder:
    """Somebody who has connections."""

    network: str
    connections: int = 0


class Peers:
    """The books about client addresses.

    Attributes:
        connections_limit: of one address; 0: none.
        handshakes_limit: of one address in a second; 0: none.
    """

    def __init__(self, limits: Limits) -> None:
        self.connections_limit = limits.connections_per_address
        self.handshakes_limit = limits.handshakes_per_address_per_s
        self._price = 1.0 / max(self.handshakes_limit, 1)
        self._credit = 1.0 + self._price / 2  # a full second of them, whatever rounding does
        self._holders: dict[str, _Holder] = {}
        #: By descriptor: 8 bytes for a connection, a tenth of what an entry of a dict takes.
        self._held: list[_Holder | None] = []
        #: When an address will have paid for its handshakes, each of which costs the n-th part of a second.
        self._paid_at: dict[str, float] = {}

    def excess(self, host: str, now: float) -> InvalidHead | None:
        """What the address is told instead of being served, because it has had its part; None: nothing.

        Counts a handshake where those are limited.
        """
        network = network_of(host) if ":" in host else host
        if self.connections_limit:
            holder = self._holders.get(network)
            if holder is not None and holder.connections >= self.connections_limit:
                sentence = "Your address has as many connections to this edge as it may."
                return InvalidHead(429, "connections_per_address", sentence, _RETRY)
        if self.handshakes_limit and not self._pays(network, now):
            sentence = "Your address has asked more often within a second than it may."
            return InvalidHead(429, "handshakes_per_address", sentence, _RETRY)
        return None

    def _pays(self, network: str, now: float) -> bool:
        """Whether the address may have one more handshake: it may be in debt for a second of them.

        One number for each address does what a token bucket does with two.
        """
        paid_at = self._paid_at
        due = paid_at.get(network, now)
        due = (due if due > now else now) + self._price
        if due > now + self._credit:
            return False
        if len(paid_at) >= _REMEMBERED_ADDRESSES and network not in paid_at:
            paid_at.clear()  # so many within a second: then no single one is the trouble
        paid_at[network] = due
        return True

    def forget(self, now: float) -> None:
        """Those that owe nothing any more take no memory."""
        if self._paid_at:
            self._paid_at = {network: due for network, due in self._paid_at.items() if due > now}

    def hold(self, descriptor: int, host: str) -> None:
        """The address has one connection more, on this descriptor."""
        network = network_of(host) if ":" in host else host
        holder = self._holders.get(network)
        if holder is None:
            holder = self._holders[network] = _Holder(network)
        holder.connections += 1
        held = self._held
        if descriptor >= len(held):
            held.extend([None] * (descriptor + 1024 - len(held)))
        held[descriptor] = holder

    def release(self, descriptor: int) -> None:
        """The descriptor is closed, whoever had it."""
        if descriptor < len(self._held) and (holder := self._held[descriptor]) is not None:
            self._held[descriptor] = None
            holder.connections -= 1
            if not holder.connections:
                del self._holders[holder.network]

    def connections(self, host: str) -> int:
        """How many the address has."""
        holder = self._holders.get(network_of(host))
        return holder.connections if holder else 0


class TlsHandshakes:
    """Which connections are in the middle of their TLS handshake, and hold the memory that it takes."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.tls_handshakes
        self._limit_per_address = limits.tls_handshakes_per_address
        self._of: dict[object, str] = {}
        self._by_network: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._of)

    def begin(self, connection: object, host: str) -> str:
        """Which limit forbids it to begin, as counters call it; empty if it has begun.

        Args:
            host: the client's address; empty for a load balancer, which is many clients.
        """
        if len(self._of) >= self._limit:
            return "limited_tls_handshakes"
        network = network_of(host)
        count = self._by_network.get(network, 0)
        if host and 0 < self._limit_per_address <= count:
            return "limited_tls_handshakes_per_address"
        self._of[connection] = network
        self._by_network[network] = count + 1
        return ""

    def over(self, connection: object) -> None:
        """It has ended, however; or it never began."""
        network = self._of.pop(connection, None)
        if network is None:
            return
        left = self._by_network[network] - 1
        if left:
            self._by_network[network] = left
        else:
            del self._by_network[network]


class Downgrades:
    """Who sends handshakes that lost their Upgrade or their HTTP/1.1 on the way.

    The log names each peer once a minute. Each has a counter of its own, ``downgraded_by_ADDRESS``, which the
    node's page and its metrics show.
    """

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        #: By peer, when it was last named, and how many it has sent since.
        self._peers: dict[str, tuple[float, int]] = {}

    def count(self, host: str, now: float) -> None:
        """One more by this peer."""
        known = self._peers.get(host)
        if known is None and len(self._peers) >= DOWNGRADING_PEERS:
            self._count("downgraded_by_others")
            return
        self._count(f"downgraded_by_{host}")
        named_at, unnamed = known or (-DOWNGRADE_WARNING_S, 0)
        if now - named_at < DOWNGRADE_WARNING_S:
            self._peers[host] = (named_at, unnamed + 1)
            return
        self._peers[host] = (now, 0)
        log.warning(
            "handshakes_downgraded",
            peer=host,
            count=unnamed + 1,
            advice="they come without Upgrade or by HTTP/1.0: let the load balancer or proxy at this address "
            "speak HTTP/1.1 to the edge and pass Upgrade and Connection on",
        )
