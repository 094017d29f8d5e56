"""The servers and the skip rule that other tests stand on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from msha.demo.processes import Child, NotReadyInTime, ProcessEnded, stop
from tests.support import needs
from tests.support.process_tree import is_alive, outlive
from tests.support.servers import another_database


def test_what_is_missing_skips_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setitem(needs._FINDERS, "moon", (lambda: None, "wait for the night"))
    with pytest.raises(pytest.skip.Exception, match="needs moon, which is missing: wait for the night"):
        needs.need("moon")


def test_what_is_missing_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setitem(needs._FINDERS, "moon", (lambda: None, "wait for the night"))
    with pytest.raises(pytest.fail.Exception, match="needs moon"):
        needs.need("moon")


def test_the_redis_of_the_tests_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


def test_the_postgres_of_the_tests_makes_databases(postgres_url: str) -> None:
    fresh = another_database(postgres_url)
    assert fresh != postgres_url
    with psycopg.connect(fresh) as connection:
        assert connection.execute("select 40 + 2").fetchone() == (42,)


def make_child(tmp_path: Path, code: str) -> Child:
    return Child(
        "child", [sys.executable, "-c", code], log=tmp_path / "child.log", env=dict(os.environ), cwd=tmp_path
    )


def test_a_child_that_ends_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    child = make_child(tmp_path, "print('no disk'); raise SystemExit(3)").start()
    with pytest.raises(ProcessEnded, match=r"(?s)child ended with 3.*no disk"):
        child.wait_until(lambda it: False, 20)


def test_a_child_that_is_slow_is_reported_after_its_deadline(tmp_path: Path) -> None:
    child = make_child(tmp_path, "import time; time.sleep(60)").start()
    try:
        with pytest.raises(NotReadyInTime, match="child was not ready after 0 s"):
            child.wait_until(lambda it: False, 0.2)
    finally:
        stop([child])


def test_a_child_that_ignores_the_request_to_stop_is_forced(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = make_child(tmp_path, f"{deaf}; print('up', flush=True); time.sleep(60)").start()
    child.wait_until(lambda it: "up" in it.text(), 20)
    stop([child], grace_s=0.2)
    assert child.returncode == -signal.SIGKILL


def test_a_child_goes_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = f"""
import os, sys, time
from pathlib import Path
from msha.demo.processes import Child
child = Child("grandchild", [sys.executable, "-c", "import time; time.sleep(60)"],
              log=Path({str(tmp_path)!r}) / "log", env=dict(os.environ), cwd=Path.cwd()).start()
print(child.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        assert is_alive(grandchild)
        process.kill()
    assert outlive({grandchild}, 5) == set(), "the grandchild outlived its killed parent"
