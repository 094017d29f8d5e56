"""What every edge process does, with a console or without: listener address, workers, signals, the drain."""

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import structlog

from msha.edge.logs import complain
from msha.edge.node.certificate_watch import CertificateWatch
from msha.edge.node.metrics import NodeMetrics, Standing, of_workers
from msha.edge.node.metrics_server import MetricsServer
from msha.edge.node.workers import Fleet, Stats
from msha.steering.errors import Terminal

#: A drain that the workers do not report as finished is ended this long after its time.
DRAIN_GRACE_S = 2.0
TICK_S = 1.0
#: A scrape waits so long for workers that are too busy to answer, then takes what they said last.
FIGURES_S = 0.5

log = structlog.get_logger("msha.edge.agent")

#: Builds a worker's command line from its socket, the address to listen on and the unit.
WorkerCommand = Callable[[int, str, str], list[str]]


class Exit(IntEnum):
    """How an edge process ends; ``docs/edge.md`` says what to do about each."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REVOKED = 3


@dataclass(eq=False)
class InvalidBind(Terminal):
    """The address to listen on is not usable."""

    text: str
    problem: str

    def __str__(self) -> str:
        return f"Cannot listen on {self.text}: {self.problem}"


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Where TLS is spoken, and the eye on the certificates."""

    address: str
    certificates: CertificateWatch


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator decides about a process.

    Attributes:
        drain_s: how long a drain may take, in seconds.
        metrics: a socket that listens for scrapes, if they are wanted.
        tls: where TLS is spoken, too, if it is.
    """

    workers: int
    drain_s: float
    leave_on_exit: bool
    worker_command: WorkerCommand
    metrics: socket.socket | None = None
    tls: TlsOptions | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the process ends."""

    code: Exit
    sentence: str
    leave: bool = False


LEAVE = Stop(Exit.DONE, "the edge leaves", leave=True)


def parse_bind(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPv6]:PORT``; the host is an address.

    Raises:
        InvalidBind: not of that form.
    """
    host, colon, digits = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if bare == "localhost":
        bare = "127.0.0.1"
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise InvalidBind(
            text, "write an IP address and a port, such as 0.0.0.0:8080 or [::]:8080."
        ) from None
    if address.version == 6 and not host.startswith("["):
        raise InvalidBind(text, "write an IPv6 address in brackets, such as [::]:8080.")
    if not colon or not (digits.isascii() and digits.isdigit()) or len(digits) > 5 or int(digits) > 65535:
        raise InvalidBind(text, f"{digits!r} is not a port from 0 to 65535.")
    return str(address), int(digits)


def format_address(host: str, port: int) -> str:
    """``HOST:PORT`` with brackets where they belong."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reserve(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket that does not listen: the port is known and stays ours while workers come and go.

    Workers share the port with SO_REUSEPORT, which would also let two nodes share it by mistake; so
    somebody else who listens there already is looked for first.

    Args:
        shared: who else listens there has been looked at, and may.

    Raises:
        InvalidBind: the port is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if port and not shared:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        reserved = socket.socket(family, socket.SOCK_STREAM)
        try:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind((host, port))
        except OSError:
            reserved.close()
            raise
    except OSError as error:
        advice = " End what listens there, or follow that edge with --take-over."
        problem = f"{error.strerror}.{advice if error.errno == errno.EADDRINUSE else ''}"
        raise InvalidBind(format_address(host, port), problem) from error
    return reserved


def listen_for_scrapes(host: str, port: int) -> socket.socket:
    """A listening socket for the metrics, which nobody shares.

    Raises:
        InvalidBind: the port is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise InvalidBind(format_address(host, port), f"{error.strerror}.") from error
    return listener


@cache
def software() -> str:
    """Name and version of this program."""
    try:
        return f"msha/{version('msha')}"
    except PackageNotFoundError:
        return "msha"


class EdgeProcess:
    """The part of an edge process that does not depend on where its snapshots come from.

    Args:
        reserved: see :func:`reserve`.
        inherited: descriptors for the workers: the lock of the state directory.
    """

    def __init__(self, options: Options, reserved: socket.socket, inherited: tuple[int, ...] = ()) -> None:
        self.options = options
        self.host, self.port = reserved.getsockname()[:2]
        self._inherited = inherited
        self.fleet: Fleet | None = None
        self.began = time.monotonic()
        self._stop: Stop | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._announced = False
        self._drain_s = options.drain_s
        self._drain_due = 0.0
        self._hand_over = False

    @property
    def address(self) -> str:
        """Where the node listens."""
        return format_address(self.host, self.port)

    def stop(self, stop: Stop) -> None:
        """The process ends; asked a second time, it ends without waiting for the drain."""
        if self._stop is None:
            self._stop = stop
            self._stopping.set()
            log.info("stopping", reason=stop.sentence)
        else:
            if stop.code is Exit.REVOKED:
                self._stop = stop
            self._hurry.set()

    def changed(self) -> None:
        """A worker said something or ended."""
        if self.fleet is None:
            return
        if self.fleet.listening and not self._announced:
            self._announced = True
            tls = {"tls_address": self.options.tls.address} if self.options.tls else {}
            log.info("listening", address=self.address, workers=self.options.workers, **tls)
            with contextlib.suppress(OSError):  # whoever waited for the line may be gone
                sys.stdout.write("ready\n")
                sys.stdout.flush()
        if self.fleet.hopeless:
            self.stop(Stop(Exit.FAILED, "The workers do not start; their own message stands above."))

    async def serve(self) -> int:
        """The exit code, once the process has ended its work and its workers."""
        with self._signals():
            works = [*self.works(), self._tick_forever()]
            if self.options.metrics is not None:
                works.append(MetricsServer(self.options.metrics, self.metrics).run())
            if self.options.tls is not None:
                works.append(self.options.tls.certificates.run(self._certificates_looked_at))
            tasks = [asyncio.create_task(work) for work in works]
            try:
                await self._until_stopped(tasks)
                return await self.finish()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if self.fleet is not None:
                    await self.fleet.stop("the edge stops")

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What runs from the start to the end of the process."""
        raise NotImplementedError

    def standing(self) -> Standing:
        """How the node stands now."""
        raise NotImplementedError

    async def metrics(self) -> NodeMetrics:
        """What a scrape is told."""
        fleet = self.fleet
        if fleet is not None:
            await fleet.report(FIGURES_S)
        return NodeMetrics(
            software=software(),
            standing=self.standing(),
            stats=fleet.totals() if fleet else Stats(),
            workers=of_workers(fleet, asyncio.get_running_loop().time()) if fleet else (),
            wanted=self.options.workers,
            crashes=fleet.crashes if fleet else 0,
            certificates=self.options.tls.certificates.figures() if self.options.tls else None,
        )

    @property
    def draining(self) -> bool:
        """Whether the process has been told to end."""
        return self._stopping.is_set()

    def ticked(self) -> None:
        """A second has passed."""

    def reload(self) -> None:
        """The operator asked to read again what can be read again (SIGHUP)."""
        if self.options.tls is not None:
            self.options.tls.certificates.ask()
        else:
            log.info("nothing_to_reload")

    def _certificates_looked_at(self) -> None:
        if self.fleet is not None:
            self.fleet.look_at_certificates()

    def leave(self) -> None:
        """The process ends for good (SIGUSR1)."""
        self.stop(LEAVE)

    def turn_into_leaving(self) -> bool:
        """Whether the process is ending as asked already, and leaves now, too; it is in no more hurry."""
        if self._stop is None or self._stop.code is not Exit.DONE:
            return False
        self._stop = LEAVE
        return True

    async def finish(self) -> int:
        """The exit code, once sessions were drained and the workers are gone."""
        assert self._stop is not None
        await self.drain()
        if self.fleet is not None:
            await self.fleet.stop(self._stop.sentence)
        return self.ended(self._stop)

    async def drain(self) -> None:
        """No worker listens, and sessions have ended or had their time."""
        if self.fleet is None:
            return
        emptied, due = False, 0.0
        self._begin_drain()
        while not emptied and not self._hurry.is_set() and due != self._drain_due:
            due = self._drain_due
            left_s = max(due - time.monotonic(), 0.0)
            emptied = await self.fleet.until_empty(left_s, self._drain_is_other_than(due))
        log.info("drained", complete=emptied, sessions=self.fleet.totals().sessions)

    def drain_within(self, seconds: float, *, hand_over: bool = False) -> None:
        """The drain, now or when it comes, lets sessions end for so long from then on.

        Args:
            hand_over: another process listens on the port by now; no connection is lost on the way to it.
        """
        self._drain_s = seconds
        self._hand_over = self._hand_over or hand_over
        if self._drain_due and self.fleet is not None:
            self._begin_drain()
            self.fleet.notice()

    def _begin_drain(self) -> None:
        assert self.fleet is not None
        seconds = self.fleet.drain(self._drain_s, hand_over=self._hand_over)
        self._drain_due = time.monotonic() + seconds + DRAIN_GRACE_S
        log.info("draining", seconds=self._drain_s, hand_over=self._hand_over)

    def _drain_is_other_than(self, due: float) -> Callable[[], bool]:
        return lambda: self._hurry.is_set() or self._drain_due != due

    def ended(self, stop: Stop) -> int:
        """The exit code; a failure has been told on stderr."""
        if stop.code is not Exit.DONE:
            complain(stop.sentence)
        log.info("stopped", code=int(stop.code))
        return int(stop.code)

    def start_fleet(self, unit: str) -> Fleet:
        """The workers of this unit, running."""
        if self.fleet is None:
            self.fleet = Fleet(
                lambda ipc_fd: self.options.worker_command(ipc_fd, self.address, unit),
                self.options.workers,
                self._inherited,
                self.changed,
            )
            self.fleet.start()
        return self.fleet

    async def _until_stopped(self, tasks: list[asyncio.Task[None]]) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            stopping.cancel()

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self.fleet is not None:
                self.fleet.tick()
            self.ticked()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        term = Stop(Exit.DONE, "the edge stops", leave=self.options.leave_on_exit)
        handlers = {
            signal.SIGTERM: lambda: self.stop(term),
            signal.SIGINT: lambda: self.stop(term),
            signal.SIGUSR1: self.leave,
            signal.SIGHUP: self.reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
