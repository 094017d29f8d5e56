"""A port that two generations of an edge share: who listens on it, and how one leaves it to the other.

Linux spreads new connections over all listeners of a port with SO_REUSEPORT. A listener that is closed takes
two kinds of connections with it: those that wait to be accepted, and those whose handshake is not over, which
with TCP_DEFER_ACCEPT is every client whose first bytes are still on their way. Their clients get a reset. So
a listener is left to run dry before it is closed: a filter on it drops further SYN segments, which clients
repeat after a second, and so that no client has to, a program on the port steers new connections to the
listeners that stay. Both are classic BPF and need no privilege.
"""

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Numbers of <asm-generic/socket.h> that the socket module does not have.
_SO_ATTACH_FILTER = 26
_SO_ATTACH_REUSEPORT_CBPF = 51
_SO_DETACH_REUSEPORT_BPF = 68

# Operations of <linux/bpf_common.h>: code, jump if true, jump if false, operand.
_Instruction = tuple[int, int, int, int]
_LOAD_BYTE, _LOAD_WORD, _AND, _ADD, _MODULO = 0x30, 0x20, 0x54, 0x04, 0x94
_IF_EQUAL, _RETURN, _RETURN_LOADED = 0x15, 0x06, 0x16
_RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_TCP_FLAGS, _SYN, _SYN_OR_ACK = 13, 0x02, 0x12

_NO_NEW_CONNECTIONS: tuple[_Instruction, ...] = (
    (_LOAD_BYTE, 0, 0, _TCP_FLAGS),
    (_AND, 0, 0, _SYN_OR_ACK),
    (_IF_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, 0xFFFFFFFF),
)

_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket of this machine."""

    host: str
    port: int
    inode: int

    def answers_for(self, host: str, port: int) -> bool:
        """Whether connections to the address may reach it."""
        if self.port != port:
            return False
        every = any(ipaddress.ip_address(each).is_unspecified for each in (self.host, host))
        return every or self.host == host


def run_dry(listener: socket.socket) -> None:
    """No further connection reaches the listener; those that were on their way to it still do.

    Connections that it has accepted since have the filter, too. It is of no consequence there.

    Raises:
        OSError: the kernel takes no filter.
    """
    _attach(listener, _SO_ATTACH_FILTER, _NO_NEW_CONNECTIONS)


def prefer(listener: socket.socket, first: int, count: int) -> None:
    """New connections to the port go to the ``count`` listeners that joined it after the ``first`` ones.

    A number for which there is no listener (any more) means any of them.

    Raises:
        OSError: the kernel takes no program, or the listener shares no port.
    """
    steps = (
        (_LOAD_WORD, 0, 0, _RANDOM),
        (_MODULO, 0, 0, count),
        (_ADD, 0, 0, first),
        (_RETURN_LOADED, 0, 0, 0),
    )
    _attach(listener, _SO_ATTACH_REUSEPORT_CBPF, steps)


def prefer_none(listener: socket.socket) -> None:
    """New connections to the port are spread over all its listeners."""
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
    except OSError:
        pass  # there is no program


def listeners(proc: Path = Path("/proc")) -> list[Listener]:
    """Every listening TCP socket that this process can see."""
    found: list[Listener] = []
    for name in ("tcp", "tcp6"):
        try:
            with (proc / "net" / name).open(encoding="ascii") as lines:
                found += _listening(lines)
        except FileNotFoundError:
            pass  # a machine without IPv6
    return found


def sockets_of(pid: int, proc: Path = Path("/proc")) -> set[int]:
    """The inodes of the sockets that the process has open; none of a process that is gone or not ours."""
    inodes = set()
    try:
        for descriptor in (proc / str(pid) / "fd").iterdir():
            try:
                kind, _, number = descriptor.readlink().name.partition(":[")
            except OSError:
                continue
            if kind == "socket":
                inodes.add(int(number.rstrip("]")))
    except OSError:
        pass
    return inodes


def _attach(sock: socket.socket, option: int, program: Iterable[_Instruction]) -> None:
    packed = [struct.pack("=HBBI", *step) for step in program]
    code = ctypes.create_string_buffer(b"".join(packed))
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("HP", len(packed), ctypes.addressof(code)))


def _listening(lines: Iterable[str]) -> Iterator[Listener]:
    """What a table such as ``/proc/net/tcp`` says; listeners stand first in it, however long it is."""
    for line in list(_head(lines)):
        words = line.split()
        address, _, port = words[1].partition(":")
        raw = b"".join(struct.pack("=I", int(address[at : at + 8], 16)) for at in range(0, len(address), 8))
        yield Listener(str(ipaddress.ip_address(raw)), int(port, 16), int(words[9]))


def _head(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number == 0:
            continue
        if line.split(maxsplit=4)[3] != _LISTEN:
            return
        yield line
