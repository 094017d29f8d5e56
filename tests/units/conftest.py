import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from msha.demo.ports import free_ports
from msha.demo.processes import Child, stop


def _database_url() -> str:
    """The URL of the database that this test run uses itself."""
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        return f"sqlite:///{database['NAME']}"
    user, host, port = database["USER"], database["HOST"], database["PORT"]
    return f"postgres://{user}:{database['PASSWORD']}@{host}:{port}/{database['NAME']}"


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Consoles:
    """Starts real consoles over the test's own database."""

    def __init__(self, directory: Path, repository: Path) -> None:
        self._directory = directory
        self._repository = repository
        self.children: list[Child] = []

    def start(self, redis_url: str = "") -> str:
        """The URL of the control stream of a new console."""
        (port,) = free_ports(1)
        child = Child(
            f"console-{port}",
            [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "msha.asgi:application"],
            log=self._directory / f"console-{port}.log",
            env={
                **os.environ,
                "MSHA_DATABASE_URL": _database_url(),
                "MSHA_SECRET_KEY": "for this test",
                "MSHA_DEBUG": "0" if redis_url else "1",
                "REDIS_URL": redis_url,
                "DJANGO_SETTINGS_MODULE": "msha.settings",
            },
            cwd=self._repository,
        )
        self.children.append(child.start())
        child.wait_until(lambda _: _accepts(port), 30)
        return f"ws://127.0.0.1:{port}/control/"

    def stop(self) -> None:
        stop(self.children)


@pytest.fixture(scope="module")
def consoles(
    tmp_path_factory: pytest.TempPathFactory, repository: Path, django_db_setup: Any
) -> Iterator[Consoles]:
    started = Consoles(tmp_path_factory.mktemp("consoles"), repository)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def console_url(consoles: Consoles) -> str:
    """The control stream of a console without Redis."""
    return consoles.start()
