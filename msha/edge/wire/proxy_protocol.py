"""The header with which a load balancer tells whose connection it passes on: PROXY protocol, version 1 and 2.

A pure parser, after HAProxy's ``proxy-protocol.txt`` (2.1, 2.2). It is strict: whoever may send the header is
known, and what is not understood exactly is not believed.
"""

import ipaddress
import re
from dataclasses import dataclass

from msha.steering.errors import Terminal

#: A header of version 1 is no longer than this, its line end included.
V1_LIMIT_BYTES = 107

#: A header of version 2 is not taken beyond this: 16 bytes, addresses, and some type-length-values.
V2_LIMIT_BYTES = 4_096

V1_BEGINNING = b"PROXY "
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD_BYTES = 16

_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})")

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
#: Address bytes of each family that a TCP connection can have; of these without a host nothing is used.
_ADDRESS_BYTES = {0x00: 0, _TCP4: 12, _TCP6: 36, 0x31: 216}
_TLV_SSL = 0x20
_CLIENT_BY_SSL = 0x01


@dataclass(eq=False)
class InvalidProxyHeader(Terminal):
    """The connection does not begin with a header that can be believed."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@dataclass(frozen=True, slots=True)
class Proxied:
    """A whole header.

    Attributes:
        size: its bytes; what follows them is the client's.
        source: address and port of the client; None where the balancer speaks for itself, as in a health
            check, or knows no address.
        secure: whether the client came by TLS, as far as the header tells.
    """

    size: int
    source: tuple[str, int] | None
    secure: bool = False


def read(data: bytes) -> Proxied | None:
    """The header at the beginning, or None while it is not whole.

    Raises:
        InvalidProxyHeader: however it goes on, it is none.
    """
    if data[:1] == _V2_SIGNATURE[:1]:
        return _read_v2(data)
    if not V1_BEGINNING.startswith(data[: len(V1_BEGINNING)]):
        raise InvalidProxyHeader("there is none")
    return _read_v1(data)


def _read_v1(data: bytes) -> Proxied | None:
    end = data.find(b"\n", 0, V1_LIMIT_BYTES)
    if end < 0:
        if len(data) >= V1_LIMIT_BYTES:
            raise InvalidProxyHeader(f"its PROXY line is longer than {V1_LIMIT_BYTES} bytes")
        return None
    line = data[: end + 1]
    if not line.endswith(b"\r\n"):
        raise InvalidProxyHeader("its PROXY line does not end with CR LF")
    line = line[:-2]
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Proxied(end + 1, None)
    found = _V1.fullmatch(line)
    if found is None:
        raise InvalidProxyHeader("its PROXY line is malformed")
    family, source, destination, port, _ = (part.decode("ascii") for part in found.groups())
    version = 4 if family == "TCP4" else 6
    try:
        hosts = [ipaddress.ip_address(text) for text in (source, destination)]
    except ValueError:
        raise InvalidProxyHeader("its PROXY line has no address where one should be") from None
    if any(host.version != version for host in hosts) or max(int(found[4]), int(found[5])) > 65_535:
        raise InvalidProxyHeader("its PROXY line has an address of the other family, or no port")
    return Proxied(end + 1, (_host(hosts[0].packed), int(port)))


def _read_v2(data: bytes) -> Proxied | None:
    if not data.startswith(_V2_SIGNATURE[: len(data)]):
        raise InvalidProxyHeader("there is none")
    if len(data) < _V2_HEAD_BYTES:
        return None
    command, family = data[12], data[13]
    end = _V2_HEAD_BYTES + int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY):
        raise InvalidProxyHeader("its PROXY header is of another version, or has an unknown command")
    if end > V2_LIMIT_BYTES:
        raise InvalidProxyHeader(f"its PROXY header is longer than {V2_LIMIT_BYTES} bytes")
    if command == _PROXY:
        if family not in _ADDRESS_BYTES:
            raise InvalidProxyHeader("its PROXY header is not about a TCP connection")
        if end < _V2_HEAD_BYTES + _ADDRESS_BYTES[family]:
            raise InvalidProxyHeader("its PROXY header is too short for its addresses")
    if len(data) < end:
        return None
    if command == _LOCAL:
        return Proxied(end, None)
    body = data[_V2_HEAD_BYTES:end]
    secure = _by_ssl(body[_ADDRESS_BYTES[family] :])
    if family == _TCP4:
        return Proxied(end, (_host(body[:4]), int.from_bytes(body[8:10])), secure)
    if family == _TCP6:
        return Proxied(end, (_host(body[:16]), int.from_bytes(body[32:34])), secure)
    return Proxied(end, None, secure)


def _by_ssl(values: bytes) -> bool:
    """Whether one of the type-length-values says that the client came by TLS.

    Raises:
        InvalidProxyHeader: one of them goes beyond the header.
    """
    position, secure = 0, False
    while position < len(values):
        begin = position + 3
        end = begin + int.from_bytes(values[position + 1 : begin])
        if begin > len(values) or end > len(values):
            raise InvalidProxyHeader("its PROXY header ends within a value")
        if values[position] == _TLV_SSL and end > begin:
            secure = bool(values[begin] & _CLIENT_BY_SSL)
        position = end
    return secure


def _host(packed: bytes) -> str:
    """The text of an address; of an IPv4 one in the dress of IPv6, that of the IPv4 one."""
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)
