"""A real DNS server on UDP for tests: it answers from a table, and can be made silent."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

#: By name: lines of zone-file data, as ``["A 10.0.0.1"]`` or ``["CNAME other.test."]``; a name with an empty
#: list exists and has no records.
Zone = Mapping[str, list[str]]


@contextmanager
def name_server(zone: Zone) -> Iterator[tuple[str, int]]:
    """Address and port of a server that knows the zone; a zone with the name ``silence`` never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.1)
        stopping = threading.Event()
        thread = threading.Thread(target=_serve, args=(server, zone, stopping), daemon=True)
        thread.start()
        try:
            yield "127.0.0.1", server.getsockname()[1]
        finally:
            stopping.set()
            thread.join(5)


def _serve(server: socket.socket, zone: Zone, stopping: threading.Event) -> None:
    while not stopping.is_set():
        try:
            wire, peer = server.recvfrom(4096)
        except TimeoutError:
            continue
        if "silence" in zone:
            continue
        try:
            question = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            continue
        server.sendto(_answer(question, zone).to_wire(), peer)


def _answer(question: dns.message.Message, zone: Zone) -> dns.message.Message:
    answer = dns.message.make_response(question)
    answer.flags |= dns.flags.AA | dns.flags.RA
    wanted = dns.rdatatype.to_text(question.question[0].rdtype)
    name = question.question[0].name.to_text(omit_final_dot=True).lower()
    for _ in range(8):
        if name not in zone:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer
        aliases = [data.partition(" ")[2] for data in zone[name] if data.startswith("CNAME ")]
        texts = [data.partition(" ")[2] for data in zone[name] if data.startswith(f"{wanted} ")]
        kind, texts = ("CNAME", aliases) if aliases else (wanted, texts)
        if texts:
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, *texts))
        if not aliases:
            return answer
        name = aliases[0].rstrip(".").lower()
    return answer
