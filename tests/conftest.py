"""Servers and fleets that any test may ask for. They are real, private, and started only when asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.support.servers import postgres_server, redis_server


@pytest.fixture(scope="session", autouse=True)
def _loggers_that_can_be_heard() -> None:
    """A logger that keeps how it was configured when a test first used it says nothing to a later one."""
    structlog.configure(cache_logger_on_first_use=False)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of this test run's own."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """An empty database in a PostgreSQL cluster of this test run's own."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return Path(__file__).resolve().parents[1]
