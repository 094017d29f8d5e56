"""Child processes that die with the process that started them, write to log files and stop in an orderly
way."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msha.demo.visible import visible
from msha.steering.errors import Terminal, Transient

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec nothing may be imported.
_prctl: Callable[..., int] | None = (
    ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
)


class ProcessEnded(Terminal):
    """A child ended before it did what was waited for."""

    def __init__(self, name: str, returncode: int, log: Path, last_lines: str) -> None:
        super().__init__(name, returncode, log, last_lines)
        self.name = name
        self.returncode = returncode
        self.log = log
        self.last_lines = last_lines

    def __str__(self) -> str:
        how = (
            f"was killed by signal {-self.returncode}"
            if self.returncode < 0
            else f"ended with {self.returncode}"
        )
        return f"{self.name} {how}. The end of {self.log}:\n{self.last_lines}"


class NotReadyInTime(Transient):
    def __init__(self, name: str, waited_s: float, log: Path, last_lines: str) -> None:
        super().__init__(name, waited_s, log, last_lines)
        self.name = name
        self.waited_s = waited_s
        self.log = log
        self.last_lines = last_lines

    def __str__(self) -> str:
        late = f"{self.name} was not ready after {self.waited_s:.0f} s"
        return f"{late}. The end of {self.log}:\n{self.last_lines}"


def end_with_parent(signum: int = signal.SIGTERM) -> None:
    """This process will get the signal when the one that started it ends, however that ends."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


class Child:
    """One program, run any number of times, at most once at a time.

    It gets a session of its own, so that Ctrl-C in a terminal reaches only us and we decide the order of
    stopping, and a parent-death signal, so that it goes even when we are killed with -9. The kernel ties that
    signal to the *thread* that forks: start children from the main thread.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        cwd: Path,
        user: str | None = None,
        death_signal: int = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        self.env = dict(env)
        self.cwd = cwd
        self.user = user
        self.death_signal = death_signal
        self.started_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self.pid if self.running else None}>"

    def start(self) -> "Child":
        """The program runs; its log begins anew."""
        if self.running:
            raise AssertionError(f"{self.name} runs already")
        parent = os.getpid()

        def after_fork() -> None:
            end_with_parent(self.death_signal)
            if os.getppid() != parent:  # it went between fork and prctl
                os._exit(1)

        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.cwd,
                env=self.env,
                start_new_session=True,
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user is not None else None,
                preexec_fn=after_fork,  # noqa: PLW1509  calls into libc only, from the main thread
            )
        self.started_at = time.monotonic()
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def text(self) -> str:
        """What it has logged since it was last started."""
        try:
            return self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def last_lines(self, count: int = 15) -> str:
        return "\n".join("    " + visible(line) for line in self.text().splitlines()[-count:])

    def send_signal(self, signum: int) -> None:
        if self.running:
            os.kill(self.pid, signum)

    def wait(self, timeout_s: float) -> int:
        """Its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout_s`.
        """
        assert self._process is not None, f"{self.name} was never started"
        return self._process.wait(timeout_s)

    def check_running(self) -> None:
        """Nothing is wrong with it so far.

        Raises:
            ProcessEnded: it has ended.
        """
        returncode = self.returncode
        if returncode is not None:
            raise ProcessEnded(self.name, returncode, self.log, self.last_lines())

    def wait_until(
        self,
        ready: Callable[["Child"], bool],
        timeout_s: float,
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> float:
        """The seconds that it took from the start until `ready` held.

        Raises:
            ProcessEnded: it ended first.
            NotReadyInTime: `timeout_s` passed first.
        """
        deadline = time.monotonic() + timeout_s
        while not ready(self):
            meanwhile()
            if not self.running:
                if ready(self):  # it got there just before it ended
                    break
                self.check_running()
            if time.monotonic() > deadline:
                raise NotReadyInTime(self.name, timeout_s, self.log, self.last_lines())
            time.sleep(0.03)
        return time.monotonic() - self.started_at

    def kill_group(self) -> None:
        """Neither it nor any process of its session is left."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(10)


def stop(children: Sequence[Child], grace_s: float = 3.0) -> None:
    """None of these runs: asked together with SIGTERM, forced after `grace_s`."""
    for child in children:
        child.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for child in children:
        try:
            if child.running:
                child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
    for child in children:
        child.kill_group()
