"""Real servers for tests: each private, on a free port of 127.0.0.1, and gone when the tests are."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from msha.demo.ports import free_ports
from msha.demo.processes import Child, stop
from tests.support.needs import need

START_S = 30.0


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """The ``redis://`` URL of a Redis that keeps nothing."""
    program = need("redis")
    (port,) = free_ports(1)
    options = [
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(directory),
    ]
    child = Child(
        "redis", [program, *options], log=directory / "redis.log", env=_environment(), cwd=directory
    )
    child.start()
    try:
        child.wait_until(lambda _: _accepts(port), START_S)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        stop([child])


@contextmanager
def postgres_server() -> Iterator[str]:
    """The ``postgres://`` URL of a superuser's own database in a fresh cluster."""
    # A cluster that lives for one test run need not survive a power failure.
    with running_postgres(fsync=False) as (url, _):
        yield url


@contextmanager
def running_postgres(*, fsync: bool) -> Iterator[tuple[str, Child]]:
    """The same with the server's process, for who wants to kill it; with `fsync` it survives that.

    PostgreSQL refuses to run as root; then the cluster belongs to the user `postgres`, in a directory of its
    own, because that user may not enter ours.
    """
    programs = Path(need("postgres"))
    user = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="msha-postgres-"))
    try:
        if user is not None:
            shutil.chown(directory, user, user)
        data = directory / "data"
        subprocess.run(
            [
                str(programs / "initdb"),
                *("--pgdata", str(data), "--username", "msha", "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=directory,
            env=_environment(),
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
        (port,) = free_ports(1)
        child = Child(
            "postgres",
            [
                str(programs / "postgres"),
                *("-D", str(data), "-p", str(port), "-k", str(directory)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
                *("-c", f"fsync={'on' if fsync else 'off'}"),
            ],
            log=directory / "log",
            env=_environment(),
            cwd=directory,
            user=user,
            death_signal=signal.SIGQUIT,  # ends at once and gives its shared memory back
        )
        child.start()
        try:
            child.wait_until(lambda _: _accepts(port), START_S)
            name = f"msha_{secrets.token_hex(4)}"
            url = f"postgres://msha@127.0.0.1:{port}/{name}"
            _create_database(url)
            yield url, child
        finally:
            child.send_signal(signal.SIGINT)  # fast shutdown: open connections are ended, not waited for
            stop([child])
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _create_database(url: str) -> None:
    import psycopg

    parts = urlsplit(url)
    name = parts.path[1:]
    deadline = time.monotonic() + START_S
    while True:
        try:
            with psycopg.connect(parts._replace(path="/postgres").geturl(), autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
                return
        except psycopg.OperationalError:  # accepts, but still starting
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def another_database(url: str) -> str:
    """The URL of a fresh, empty database in the same cluster."""
    fresh = urlsplit(url)._replace(path=f"/msha_{secrets.token_hex(4)}").geturl()
    _create_database(fresh)
    return fresh
