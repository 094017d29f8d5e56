"""The generator and the back-source: compiled, started, spoken with."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
HOST = "websocket.test"

#: A program that has not answered by then never will.
START_S = 20.0
ANSWER_S = 120.0
STOP_S = 10.0


class BenchError(Exception):
    """A sentence for the person who runs the benchmark."""


def compile_programs() -> None:
    """Both programs are built and newer than their sources.

    Raises:
        BenchError: there is no C compiler, or it refuses.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("The generator is written in C and cc is missing: install gcc and libc6-dev.")
    BUILD.mkdir(exist_ok=True)
    for name in ("load", "back_source"):
        source, program = HERE / f"{name}.c", BUILD / name
        newest = max(source.stat().st_mtime, (HERE / "wire.h").stat().st_mtime)
        if program.exists() and program.stat().st_mtime > newest:
            continue
        fresh = BUILD / f"{name}.{os.getpid()}"
        done = subprocess.run(
            [compiler, "-O2", "-o", fresh, source], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise BenchError(f"cc refused {source.name}: {done.stderr.strip()[-500:]}")
        fresh.replace(program)


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def allow_descriptors() -> None:
    """We, and so what we start, may have as many descriptors as the machine allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the candidate has and which one everything else; None where there is only one."""

    edge: int | None
    load: int | None

    @classmethod
    def divide(cls) -> Self:
        """The first core for the candidate, the second for the load."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1]) if len(cores) > 1 else cls(None, None)


def start_process(
    command: Sequence[str | Path],
    *,
    core: int | None,
    nice: int = 0,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> subprocess.Popen[bytes]:
    """A process on one core; our caller stops it."""
    prefix = ["nice", "-n", str(nice)] if nice else []
    prefix += ["taskset", "-c", str(core)] if core is not None else []
    log_file = log.open("ab") if log is not None else None
    try:
        return subprocess.Popen(
            [*prefix, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file or None,
            env={**os.environ, **(environment or {})},
        )
    finally:
        if log_file is not None:
            log_file.close()


def stop_process(process: subprocess.Popen[bytes], signal_number: int = signal.SIGTERM) -> None:
    """It has ended, at the latest by force."""
    if process.poll() is None:
        process.send_signal(signal_number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


class Program:
    """A program of ours that takes commands by line and answers each with a line of JSON."""

    def __init__(self, name: str, *arguments: object, core: int | None, nice: int = 0) -> None:
        command: list[str | Path] = [BUILD / name, *(str(each) for each in arguments)]
        self._name = name
        self._process = start_process(command, core=core, nice=nice)
        if self._line() != b"ready":
            raise BenchError(f"{name} did not start")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_process(self._process)

    def say(self, *words: object) -> None:
        """A command; its answer is to be heard."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(str(word) for word in words).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The answer to the oldest command that has none yet.

        Raises:
            BenchError: the program has ended, or saw errors: figures with errors in them are worth nothing.
        """
        answer: dict[str, Any] = json.loads(self._line())
        if answer.get("errors") or (answer.get("error") and "errors" not in answer):
            raise BenchError(
                f"{self._name} saw {answer.get('errors', 1)} errors, the first: {answer['error']}"
            )
        return answer

    def ask(self, *words: object) -> dict[str, Any]:
        """The answer to a command."""
        self.say(*words)
        return self.hear()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self._name} has ended with exit code {self._process.wait()}")
        return line.strip()


def back_source(port: int, core: int | None, nice: int = 0, *, redirects: bool = False) -> Program:
    """A running back-source; one that redirects every handshake stands for an edge that costs nothing."""
    return Program("back_source", port, *(["redirect"] if redirects else []), core=core, nice=nice)


def load(port: int, core: int | None, path: str = "/im", nice: int = 0) -> Program:
    """A generator whose target is an edge."""
    return Program("load", port, HOST, path, core=core, nice=nice)


def wait_until(fact: Callable[[], bool], what: str, seconds: float = START_S) -> None:
    """The fact holds.

    Raises:
        BenchError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} within {seconds:.0f} s")
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
