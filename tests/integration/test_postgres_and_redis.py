"""The whole product on PostgreSQL and a Redis of one's own: a matter of two settings."""

import json
from collections.abc import Callable

import psycopg
import pytest
import redis

from msha.demo.fleet import Fleet
from tests.support.servers import another_database


@pytest.mark.slow
def test_a_cutover_runs_on_postgresql_and_redis(
    make_fleet: Callable[..., Fleet], postgres_url: str, redis_url: str
) -> None:
    # A database number of its own: fleets on one number take each other's tasks.
    numbered_redis_url = redis_url.removesuffix("/0") + "/5"
    database_url = another_database(postgres_url)
    fleet = make_fleet(database_url=database_url, redis_url=numbered_redis_url, clients=20)

    done = fleet.mshactl(
        *("cutover", "start", "-n", "demo", "--ranges", "center=0~6380,unbj=6381~9999"),
        *("--yes", "--wait", "-o", "json"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["phase"] == "done"
    assert result["moved_ids"] == 383
    assert result["sessions_closed"] >= 1

    assert not (fleet.directory / "msha.sqlite3").exists()
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("select state from cutover_cutover").fetchall()
    assert rows == [("done",)]
    with redis.Redis.from_url(numbered_redis_url) as client:
        assert client.smembers("_kombu.binding.celery"), "the worker's queue is in this Redis"
