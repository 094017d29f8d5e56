"""What is compared: each candidate is a process tree that does the same routing job on one core."""

import os
import re
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import snapshots
from bench.deciding import Decider
from bench.measuring import tree
from bench.programs import HERE, BenchError, accepts, free_port, start_process, stop_process, wait_until

ROOT = HERE.parent
_VERSION = re.compile(r"\d+\.\d+[^\s)]*")
_SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def find_program(name: str) -> str:
    """Where it is.

    Raises:
        BenchError: it is not installed.
    """
    found = shutil.which(name, path=_SBIN)
    if found is None:
        raise BenchError(f"{name} is missing: install it, or name the others with --candidates.")
    return found


def version_of(command: Sequence[str]) -> str:
    """The first version number that a program says."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = _VERSION.search(done.stdout)
    return found[0] if found else "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a candidate runs.

    Attributes:
        directory: its own, for files it needs.
        servers: the back-source of each path, as HOST:PORT; "/" is the one of all the others.
        core: that it is pinned to; None: not pinned.
    """

    directory: Path
    servers: Mapping[str, str]
    core: int | None


class Candidate(ABC):
    """One running candidate.

    Attributes:
        port: where it takes connections.
        pids: of its processes.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.port = free_port()
        place.directory.mkdir(parents=True, exist_ok=True)
        self._log = place.directory / "log"
        self._process = start_process(
            self.command(), core=place.core, environment=self.environment(), log=self._log
        )
        try:
            wait_until(self._ready, f"{type(self).__name__} did not listen")
        except BenchError as error:
            self.stop()
            raise BenchError(f"{error}; it said: {self._log.read_text()[-3000:].strip()}") from error
        self.pids = tree(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def command(self) -> list[str]:
        """How it is started."""

    def environment(self) -> dict[str, str]:
        """What it wants in its environment beside ours."""
        return {}

    def stop(self) -> None:
        """It is gone."""
        stop_process(self._process)

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise BenchError(f"{type(self).__name__} ended with exit code {self._process.returncode}")
        return accepts(self.port)

    def _fill(self, template: str, **values: object) -> Path:
        """The configuration with its places filled in."""
        text = (HERE / template).read_text()
        for name, value in {"port": self.port, "directory": self.place.directory, **values}.items():
            text = text.replace(f"@{name.upper()}@", str(value))
        path = self.place.directory / template
        path.write_text(text)
        return path


class Msha(Candidate):
    """The edge, obeying a file."""

    def __init__(
        self,
        place: Place,
        *,
        log: bool = False,
        workers: int = 1,
        ranges: Mapping[str, Sequence[str]] = snapshots.RANGES,
    ) -> None:
        self._access_log = str(place.directory / "access.log") if log else "off"
        self._workers = workers
        self._snapshot = place.directory / "snapshot.json"
        self._version = 1
        place.directory.mkdir(parents=True, exist_ok=True)
        snapshots.write(self._snapshot, place.servers, ranges)
        super().__init__(place)

    def command(self) -> list[str]:
        line = [sys.executable, "-m", "msha.edge", "run", "--bind", f"127.0.0.1:{self.port}"]
        line += ["--snapshot", str(self._snapshot), "--unit", "center", "--drain-s", "0"]
        return [*line, "--workers", str(self._workers), "--access-log", self._access_log]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT)}

    def prepare(self, ranges: Mapping[str, Sequence[str]]) -> None:
        """The file has the next snapshot; nobody has read it."""
        self._version += 1
        snapshots.write(self._snapshot, self.place.servers, ranges, self._version)

    def obey(self, ranges: Mapping[str, Sequence[str]]) -> None:
        """It decides by these ranges now."""
        before = self._applied()
        self.prepare(ranges)
        self.reload()
        wait_until(lambda: self._applied() > before, "msha did not apply the snapshot")

    def reload(self) -> None:
        """It has been told to read its file."""
        self._process.send_signal(signal.SIGHUP)

    def _applied(self) -> int:
        return self._log.read_text().count('"applied"')

    def _ready(self) -> bool:
        # Not by a connection: its listener is there before its workers are.
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != b"ready":
            raise BenchError(f"msha ended with exit code {self._process.wait()}")
        return True


class Nginx(Candidate):
    """nginx with one worker."""

    def __init__(self, place: Place, *, log: bool = False, more: str = "") -> None:
        self._access_log = place.directory / "access.log" if log else "off"
        self._more = more
        super().__init__(place)

    def command(self) -> list[str]:
        path = self._fill(
            "nginx.conf",
            access_log=self._access_log,
            back_source=self.place.servers["/"].rpartition(":")[2],
            more=self._more,
        )
        return [find_program("nginx"), "-p", str(self.place.directory), "-c", str(path), "-e", "stderr"]

    def _ready(self) -> bool:
        return super()._ready() and len(tree(self._process.pid)) > 1


class HaProxy(Candidate):
    """HAProxy with one thread."""

    def command(self) -> list[str]:
        path = self._fill("haproxy.cfg", back_source=self.place.servers["/"].rpartition(":")[2])
        return [find_program("haproxy"), "-db", "-f", str(path)]


class Naive(Candidate):
    """A relay as a Django user would write it."""

    def command(self) -> list[str]:
        line = [sys.executable, "-m", "daphne", "--bind", "127.0.0.1", "--port", str(self.port)]
        return [*line, "--verbosity", "0", "bench.naive_relay:application"]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT), "BENCH_BACK_SOURCE": self.place.servers["/"]}


class Bare(Candidate):
    """A loop in Python that does nothing but call the kernel."""

    def command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "bench.bare_loop",
            str(self.port),
            self.place.servers["/"].rpartition(":")[2],
        ]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT)}


class Direct:
    """No candidate: the generator speaks with the back-source, which shows how much the two can do."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.port = int(place.servers["/"].rpartition(":")[2])
        self.pids: list[int] = []

    def stop(self) -> None:
        """There is nothing to stop."""


Running = Candidate | Direct | Decider
_LARGE_BUFFERS = "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table.

    Attributes:
        baseline: whose CPU its own is compared with.
        pace: how much of the usual number of operations is enough; less for what is slow.
        pinned: to the core that candidates have; otherwise it shares all cores with the load.
        cannot: workloads that it has no answer to, and why.
        program: that has to be installed for it.
    """

    name: str
    title: str
    make: Callable[[Place], Running]
    baseline: str = "nginx"
    pace: float = 1.0
    pinned: bool = True
    cannot: Mapping[str, str] = field(default_factory=dict)
    program: str = ""


_NO_CLOSE = "cannot: a reload leaves all sessions to the old worker, or ends them all without a Close"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("msha", "msha", Msha),
        Kind("msha-log", "msha, access log", lambda place: Msha(place, log=True), baseline="nginx-log"),
        Kind("nginx", "nginx", Nginx, cannot={"close": _NO_CLOSE}, program="nginx"),
        Kind(
            "nginx-log",
            "nginx, access log",
            lambda place: Nginx(place, log=True),
            baseline="nginx-log",
            program="nginx",
        ),
        Kind(
            "nginx-64k",
            "nginx, 64k buffers",
            lambda place: Nginx(place, more=_LARGE_BUFFERS),
            program="nginx",
        ),
        Kind("haproxy", "HAProxy", HaProxy, cannot={"close": _NO_CLOSE}, program="haproxy"),
        Kind(
            "naive",
            "Daphne + consumer",
            Naive,
            pace=0.1,
            cannot={"redirect": "Daphne cannot answer a handshake with 302", "close": "knows no ranges"},
        ),
        Kind(
            "nginx-close",
            "nginx, keepalive_timeout 0",
            lambda place: Nginx(place, more="keepalive_timeout 0;"),
            program="nginx",
        ),
        Kind("bare", "a Python loop without logic", Bare),
        Kind("direct", "no edge: the load's own ceiling", Direct),
        Kind("msha-1", "msha, 1 worker, any core", Msha, baseline="msha-1", pinned=False),
        Kind(
            "msha-2",
            "msha, 2 workers, any core",
            lambda place: Msha(place, workers=2),
            baseline="msha-1",
            pinned=False,
        ),
        Kind("decide", "1 range, 1 domain", lambda _: Decider(1, 1), baseline="decide"),
        Kind("decide-ranges", "1,000 ranges, 1 domain", lambda _: Decider(1000, 1), baseline="decide"),
        Kind("decide-domains", "1 range, 1,000 domains", lambda _: Decider(1, 1000), baseline="decide"),
        Kind("decide-both", "1,000 ranges, 1,000 domains", lambda _: Decider(1000, 1000), baseline="decide"),
    )
}
