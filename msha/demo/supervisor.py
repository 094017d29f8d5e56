"""`make demo`: brings a fleet up, shows its logs, starts again what ends by itself, and leaves nothing
behind."""

import fcntl
import os
import shutil
import signal
import sys
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import TextIO

from msha.demo.fleet import Fleet
from msha.demo.log_view import LogView
from msha.demo.plan import NAMESPACE, Plan
from msha.demo.processes import Child
from msha.steering.errors import MshaError, Terminal

RESTARTS = 5
RESTART_WINDOW_S = 60.0
RESTART_AFTER_S = 3.0


class RunsAlready(Terminal):
    def __init__(self, directory: Path, pid: str) -> None:
        super().__init__(directory, pid)
        self.directory = directory
        self.pid = pid

    def __str__(self) -> str:
        return f"The demo runs already, as process {self.pid}. Stop that one with Ctrl-C first."


class Stopped(BaseException):
    """A signal asked for the end. Not an Exception: nothing on the way may take it for an error."""


class Restarts:
    """Starts again what ended by itself, a bounded number of times."""

    def __init__(self, fleet: Fleet, view: LogView) -> None:
        self.fleet = fleet
        self.view = view
        self._due: dict[str, float] = {}
        self._recent: dict[str, deque[float]] = {}
        self._settled: set[str] = set()

    def look_after(self, child: Child) -> None:
        if child.running or child.name in self._settled:
            return
        now = time.monotonic()
        if child.name not in self._due:
            self._notice(child, now)
        elif now >= self._due[child.name]:
            del self._due[child.name]
            child.start()

    def _notice(self, child: Child, now: float) -> None:
        if child.returncode == 0:
            self._settled.add(child.name)
            self.view.say(f"{child.name} ended by itself")
            return
        recent = self._recent.setdefault(child.name, deque(maxlen=RESTARTS))
        if len(recent) == RESTARTS and now - recent[0] < RESTART_WINDOW_S:
            self._settled.add(child.name)
            self.view.say(
                f"{child.name} ended {RESTARTS} times within a minute and stays down; see {child.log}"
            )
            return
        recent.append(now)
        self._due[child.name] = now + RESTART_AFTER_S
        self.view.say(
            f"{child.name} ended with {child.returncode}; starting it again in {RESTART_AFTER_S:.0f} s"
        )


def run(plan: Plan, stream: TextIO = sys.stdout) -> int:
    """The exit code, after Ctrl-C or a failure; nothing that was started is left."""
    began = time.monotonic()
    view = LogView(stream)
    fleet = Fleet(plan, say=view.say, meanwhile=lambda: view.show_news(list(fleet.children.values())))
    plan.directory.mkdir(parents=True, exist_ok=True)
    try:
        with open(plan.directory / "lock", "a+") as lock:
            _take(lock, plan.directory)
            return _run_locked(fleet, view, began)
    except RunsAlready as error:
        print(error, file=sys.stderr)
        return 1


def _take(lock: TextIO, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise RunsAlready(directory, lock.read().strip()) from None
    lock.truncate(0)
    print(os.getpid(), file=lock, flush=True)


def _run_locked(fleet: Fleet, view: LogView, began: float) -> int:
    _listen_to_signals()
    try:
        fleet.start_all()
        view.show_news(list(fleet.children.values()))
        _say_ready(fleet, view, time.monotonic() - began)
        view.every_handshake = True
        _watch(fleet, view)
    except MshaError as error:
        view.show_news(list(fleet.children.values()))
        print(f"The demo could not start. {error}", file=sys.stderr, flush=True)
        return 1
    except Stopped:
        return 0
    finally:
        _stop(fleet, view)
    return 0


def _listen_to_signals() -> None:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stopped

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)


def _watch(fleet: Fleet, view: LogView) -> None:
    """Never returns by itself."""
    restarts = Restarts(fleet, view)
    served = [child for child in fleet.children.values() if child.name not in ("seed", "manage")]
    while True:
        view.show_news(served)
        for child in served:
            restarts.look_after(child)
        time.sleep(0.1)


def _stop(fleet: Fleet, view: LogView) -> None:
    if not fleet.children:
        return
    view.every_handshake = False
    view.say("stopping everything")
    try:
        fleet.stop_all()
    except Stopped:  # asked twice: at once, then
        for child in fleet.children.values():
            child.kill_group()
    view.say("stopped")


def _say_ready(fleet: Fleet, view: LogView, took_s: float) -> None:
    admin = fleet.logins["admin"]
    env = fleet.directory / "env"
    env.touch(0o600)
    env.write_text(f"export MSHA_URL={fleet.console_url}\nexport MSHA_TOKEN={admin.token}\n")
    edges = ", ".join(
        f"{edge.unit} http://{fleet.plan.domain}:{edge.address.port}/" for edge in fleet.edges()
    )
    view.say(f"everything answered after {took_s:.1f} s; logs are in {fleet.directory / 'logs'}")
    view.say("in another terminal:  . .demo/env; .venv/bin/mshactl sessions -n " + NAMESPACE)
    print(
        f"ready: console {fleet.console_url}/ user {admin.user} password {admin.password} edges {edges}",
        file=view.stream,
        flush=True,
    )


def reset(directory: Path) -> int:
    """Nothing that a demo kept in the directory is left."""
    if not directory.exists():
        print("There is no state of a demo to forget.")
        return 0
    with open(directory / "lock", "a+") as lock:
        try:
            _take(lock, directory)
        except RunsAlready as error:
            print(error, file=sys.stderr)
            return 1
        shutil.rmtree(directory)
    print(f"{directory} is gone; the next `make demo` begins anew.")
    return 0
