"""The load balancers in front of an edge: which addresses are theirs, and what they say of a client."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msha.steering.errors import Terminal

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Of ``X-Forwarded-For``, so many hops are looked at, from the nearest on.
_HOPS_LIMIT = 32

#: Addresses of which is remembered whether they are a balancer's.
_REMEMBERED = 4_096

#: The schemes of a client that came by TLS, as ``X-Forwarded-Proto`` has them.
SECURE_SCHEMES = frozenset((b"https", b"wss"))


@dataclass(eq=False)
class InvalidNetwork(Terminal):
    """A load balancer's address that is none.

    Attributes:
        meant: ways to write it.
    """

    text: str
    meant: str = "10.0.0.5 or 10.0.0.0/24"

    def __str__(self) -> str:
        return f"{self.text!r} is not the address of load balancers: write it as {self.meant}."


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of these addresses and CIDRs.

    Raises:
        InvalidNetwork: one of them is neither, or has bits set beyond its prefix.
    """
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            raise _invalid(text) from None
    return tuple(found)


def _invalid(text: str) -> InvalidNetwork:
    """The error that says how to write it: one address of a network could mean either."""
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        return InvalidNetwork(text)
    return InvalidNetwork(text, f"{found.ip}, or the whole network as {found.network}")


@dataclass(frozen=True, slots=True)
class Chain:
    """What a balancer says of the way that a handshake came.

    Attributes:
        hops: the client and what it passed, the nearest last; further claims, which nobody vouches for, are
            not among them.
    """

    hops: tuple[str, ...]

    @property
    def client(self) -> str:
        """The address from which the first balancer of ours was reached."""
        return self.hops[0]


class Balancers:
    """The addresses whose word is believed.

    Attributes:
        proxy_protocol: whether each of their connections begins with a header of the PROXY protocol.
    """

    def __init__(self, trusted: Sequence[Network], *, proxy_protocol: bool = False) -> None:
        self.proxy_protocol = proxy_protocol
        self._trusted = tuple(trusted)
        self._known: dict[str, bool] = {}

    def __contains__(self, host: str) -> bool:
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[host] = self._is_trusted(host)
        return known

    def _is_trusted(self, host: str) -> bool:
        address = ip_address(host)
        return address is not None and any(
            address.version == network.version and address in network for network in self._trusted
        )

    def chain(self, peer: str, forwarded_for: Sequence[bytes]) -> Chain:
        """The way that a handshake came, judged from its nearest end.

        Args:
            peer: whose connection it is; believed only if it is a balancer.
            forwarded_for: every ``X-Forwarded-For`` of the handshake.
        """
        hops = [peer]
        said = [item for value in forwarded_for for item in value.split(b",")] if peer in self else []
        for item in said[: -_HOPS_LIMIT - 1 : -1]:
            host = _forwarded_host(item)
            if host is None:
                break
            hops.append(host)
            if host not in self:
                break
        return Chain(tuple(reversed(hops)))


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, an IPv4 one if it is that in the dress of IPv6; None if it is none."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _forwarded_host(item: bytes) -> str | None:
    """The address in one item of ``X-Forwarded-For``, which may have a port; None if there is none."""
    text = item.strip(b" \t").decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = ip_address(text)
    return None if address is None else str(address)
