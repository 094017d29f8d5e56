"""The header of the PROXY protocol as a value: what is believed, what is waited for, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msha.edge.wire.proxy_protocol import V2_LIMIT_BYTES, InvalidProxyHeader, Proxied, read

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes((192, 0, 2, 7)) + bytes((10, 0, 0, 1)) + (50_000).to_bytes(2) + (80).to_bytes(2)
V6 = bytes.fromhex("20010db8000000000000000000000007") * 2 + (50_000).to_bytes(2) + (80).to_bytes(2)
MAPPED = (b"\0" * 10 + b"\xff\xff" + bytes((192, 0, 2, 7))) * 2 + (50_000).to_bytes(2) + (80).to_bytes(2)
CLIENT4, CLIENT6 = ("192.0.2.7", 50_000), ("2001:db8::7", 50_000)


def v2(body: bytes = V4, family: int = 0x11, command: int = 0x21, *, size: int | None = None) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes((command, family)) + (len(body) if size is None else size).to_bytes(2) + body


def tlv(kind: int, value: bytes) -> bytes:
    """A type-length-value."""
    return bytes((kind,)) + len(value).to_bytes(2) + value


GOOD = {
    "version 1, IPv4": (b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\r\n", CLIENT4, False),
    "version 1, IPv6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 80\r\n", CLIENT6, False),
    "version 1, IPv4 as IPv6": (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 50000 80\r\n", CLIENT4, False),
    "version 1, unknown": (b"PROXY UNKNOWN\r\n", None, False),
    "version 1, unknown with more": (b"PROXY UNKNOWN ffff:f::1 ffff::2 65535 65535\r\n", None, False),
    "version 1, port 0": (b"PROXY TCP4 192.0.2.7 10.0.0.1 0 80\r\n", ("192.0.2.7", 0), False),
    "version 2, IPv4": (v2(), CLIENT4, False),
    "version 2, IPv6": (v2(V6, 0x21), CLIENT6, False),
    "version 2, IPv4 as IPv6": (v2(MAPPED, 0x21), CLIENT4, False),
    "version 2, a health check": (v2(b"", 0x00, 0x20), None, False),
    "version 2, a health check with addresses": (v2(V4, 0x11, 0x20), None, False),
    "version 2, of no family": (v2(b"", 0x00), None, False),
    "version 2, a Unix socket": (v2(b"/a".ljust(216, b"\0"), 0x31), None, False),
    "version 2, unknown values": (v2(V4 + tlv(0xE0, b"x" * 300) + tlv(0x04, b"")), CLIENT4, False),
    "version 2, by TLS": (v2(V4 + tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3"))), CLIENT4, True),
    "version 2, not by TLS": (v2(V4 + tlv(0x20, b"\x00\0\0\0\x01")), CLIENT4, False),
}

BAD = {
    "a request": b"GET / HTTP/1.1\r\n",
    "another word": b"PROXIES TCP4 192.0.2.7 10.0.0.1 50000 80\r\n",
    "lower case": b"proxy TCP4 192.0.2.7 10.0.0.1 50000 80\r\n",
    "no family": b"PROXY 192.0.2.7 10.0.0.1 50000 80\r\n",
    "UDP": b"PROXY UDP4 192.0.2.7 10.0.0.1 50000 80\r\n",
    "the other family": b"PROXY TCP4 2001:db8::7 2001:db8::1 50000 80\r\n",
    "the other family, too": b"PROXY TCP6 192.0.2.7 10.0.0.1 50000 80\r\n",
    "no address": b"PROXY TCP4 192.0.2.777 10.0.0.1 50000 80\r\n",
    "an address with a zone": b"PROXY TCP6 fe80::1%eth0 ::1 50000 80\r\n",
    "two spaces": b"PROXY TCP4  192.0.2.7 10.0.0.1 50000 80\r\n",
    "a space at the end": b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 80 \r\n",
    "a port too high": b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n",
    "a port with a zero before it": b"PROXY TCP4 192.0.2.7 10.0.0.1 050 80\r\n",
    "a port with a sign": b"PROXY TCP4 192.0.2.7 10.0.0.1 +50 80\r\n",
    "only a line feed": b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\n",
    "no line end": b"PROXY UNKNOWN ".ljust(107, b"x"),
    "another signature": b"\r\n\r\n\0\r\nQUIX\n",
    "version 3": v2(command=0x31),
    "an unknown command": v2(command=0x22),
    "a datagram": v2(family=0x12),
    "an unknown family": v2(family=0x41),
    "too short for its addresses": v2(V4[:11]),
    "too short for a Unix path": v2(b"/a", 0x31),
    "endless": v2(V4, size=V2_LIMIT_BYTES),
    "a value beyond the end": v2(V4 + b"\x04\0\x02a"),
    "half the head of a value": v2(V4 + b"\x04\0"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_header_tells_the_client_and_where_it_ends(name: str) -> None:
    header, source, secure = GOOD[name]
    assert read(header + b"GET / HTTP/1.1\r\n") == Proxied(len(header), source, secure)


@pytest.mark.parametrize("name", GOOD)
def test_a_header_that_comes_byte_by_byte_is_waited_for(name: str) -> None:
    header = GOOD[name][0]
    for end in range(len(header)):
        assert read(header[:end]) is None
    assert read(header) is not None


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_exactly_a_header_is_refused(name: str) -> None:
    with pytest.raises(InvalidProxyHeader):
        read(BAD[name])


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(v2)))
def test_any_bytes_are_a_header_or_refused_or_waited_for_within_the_bound(data: bytes) -> None:
    try:
        found = read(data)
    except InvalidProxyHeader:
        return
    assert found is None or (0 < found.size <= len(data) and read(data[: found.size]) == found)


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 250), st.integers(0, 255))
def test_a_header_with_one_byte_changed_is_a_header_or_refused_and_never_endless(
    name: str, position: int, byte: int
) -> None:
    header = GOOD[name][0]
    changed = header[: position % len(header)] + bytes((byte,)) + header[position % len(header) + 1 :]
    try:
        found = read(changed + b"\0" * V2_LIMIT_BYTES)
    except InvalidProxyHeader:
        return
    assert found is not None
    assert found.size <= V2_LIMIT_BYTES
