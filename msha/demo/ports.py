"""Which TCP ports are free on this machine."""

import errno
import random
import socket
from collections.abc import Mapping

from msha.steering.errors import Terminal


class PortsTaken(Terminal):
    def __init__(self, taken: Mapping[tuple[str, int], str]) -> None:
        super().__init__(taken)
        self.taken = dict(taken)

    def __str__(self) -> str:
        listed = ", ".join(f"{host}:{port} ({purpose})" for (host, port), purpose in self.taken.items())
        verb, noun, them = ("is", "Port", "it") if len(self.taken) == 1 else ("are", "Ports", "them")
        return f"{noun} {listed} {verb} taken. Stop the program that uses {them}, then try again."


def taken(wanted: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    """Those of the wanted (host, port) pairs that another program listens on."""
    return {address: purpose for address, purpose in wanted.items() if not _is_free(*address)}


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As servers do it: a connection that lingers in TIME_WAIT is not in the way, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different ports that nobody listens on now, each given out once by this process.

    They lie below the range from which the kernel takes the ports of outgoing connections: one of those could
    otherwise come in between, long before the server that a port is meant for has started.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(*_SERVER_PORTS)
        if port not in _given_out and _is_free(host, port):
            _given_out.add(port)
            found.append(port)
    return found


_SERVER_PORTS = (12_000, 32_000)
_given_out: set[int] = set()
