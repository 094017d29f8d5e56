"""The worker processes of an agent: started, told what to obey, restarted when they crash, counted as one.

What the workers should do is kept as a desired state (snapshot, posture, synchrony), so that a worker that
is started late is told the same as one that was there before. A worker is gone when its process was reaped,
never because it is silent.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import structlog

from msha.edge.session.cutover_progress import runs
from msha.edge.session.messages import Address, Outcome
from msha.edge.session.tally import Highest, Tally
from msha.steering.errors import Transient

#: How long a worker may take to apply a snapshot before it is taken for hung.
APPLY_TIMEOUT_S = 5.0
#: How long a new worker may take on a busy machine.
START_TIMEOUT_S = 30.0
#: Ticks (seconds in which the agent ran) without a word from a worker, after which it is killed.
SILENT_TICKS_LIMIT = 10
#: The same before its first word: a cold start on a busy machine is slow.
STARTING_TICKS_LIMIT = 60
#: A worker that listened and lived longer than this is restarted at once.
STABLE_AFTER_S = 5.0
LONGEST_RESTART_DELAY_S = 2.0
#: How long a worker may take to close everything and exit before it is killed.
EXIT_TIMEOUT_S = 3.0
#: How long the words of a process that has exited may still take to be read.
LAST_WORDS_S = 1.0
#: How long a listener that hands its port over runs dry. Whoever has begun to connect has sent the request by
#: then, or has been accepted without it a second after the first segment; one that was lost is sent again
#: after a second, too.
HAND_OVER_S = 3.0
#: How long a worker may take to say that it steers new connections.
PREFER_TIMEOUT_S = 2.0
#: Adding up the bytes of open sessions takes a worker 0.1 ms for each thousand; not asked more often.
REPORT_EVERY_S = 0.5
#: The worst delay of a worker's loop is remembered so long, for scrapers that come rarely, or are several.
LAG_WINDOW_S = 60.0
#: A line from a worker is a few hundred bytes.
LINE_LIMIT_BYTES = 1024 * 1024

log = structlog.get_logger("msha.edge.workers")

#: A word of a worker, or to it.
Said = Mapping[str, Any]

#: Builds the command line of a worker from its end of the socket pair.
Command = Callable[[int], list[str]]


@dataclass(eq=False)
class NotApplied(Transient):
    """At least one worker does not obey the snapshot."""

    problem: str

    def __str__(self) -> str:
        return self.problem


class Posture(StrEnum):
    """What every worker should do with the listener."""

    IDLE = "idle"
    LISTENING = "listening"
    PARKED = "parked"
    DRAINING = "draining"
    STOPPING = "stopping"


#: Crashed workers are not replaced any more.
_ENDING = (Posture.DRAINING, Posture.STOPPING)


@dataclass(frozen=True, slots=True)
class Order:
    """A snapshot to obey."""

    version: int
    digest: str
    epoch: int
    body: bytes

    def line(self) -> bytes:
        """The order as a worker reads it."""
        return _line(
            {"do": "apply", "body": self.body.decode(), "version": self.version, "digest": self.digest}
        )


@dataclass(slots=True)
class Stats:
    """What a worker last said of itself.

    Attributes:
        down: back-source servers that it holds for down.
    """

    sessions: int = 0
    half_open: int = 0
    held: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    progress: dict[str, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    down: frozenset[str] = frozenset()

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """The statistics in a worker's line."""
        return cls(
            sessions=int(said["sessions"]),
            half_open=int(said["half_open"]),
            held=int(said["held"]),
            counters={str(name): int(count) for name, count in said["counters"].items()},
            progress={str(name): int(count) for name, count in (said.get("by_phase") or {}).items()},
            tally=Tally.heard(said["tally"]),
            down=frozenset(map(str, said.get("down", ()))),
        )


class Worker:
    """One worker process and what it said."""

    def __init__(self, slot: int, process: subprocess.Popen[bytes], started_at: float) -> None:
        # process
        self.slot = slot
        self.process = process
        self.pidfd = os.pidfd_open(process.pid)
        self.started_at = started_at
        self.writer: asyncio.StreamWriter | None = None
        self.talking: asyncio.Task[None] | None = None
        self.silent_ticks = 0
        # what it said
        self.started = False
        self.version = 0
        self.refused: tuple[int, str] | None = None
        self.listening = False
        self.parked = False
        self.empty = False
        self.drained_epoch = -1
        self.preferring = 0
        self.stats = Stats()
        self.stats_at = started_at
        self.lag = Highest(LAG_WINDOW_S)
        self.reported = 0
        self.answers: dict[int, Said] = {}

    def answered(self, version: int) -> bool:
        """Whether it has applied or refused the version."""
        return self.version == version or (self.refused is not None and self.refused[0] == version)

    def tell(self, line: bytes) -> None:
        """The line is on its way; a worker that is going away misses it."""
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(line)

    def kill(self) -> None:
        """The process ends now; it is gone when it has been reaped."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


class Fleet:
    """All workers of an agent.

    Args:
        inherited: descriptors that every worker gets besides its own: the lock of the state directory.
        changed: called after each word or exit of a worker.
    """

    def __init__(
        self, command: Command, count: int, inherited: tuple[int, ...], changed: Callable[[], None]
    ) -> None:
        self._command = command
        self._count = count
        self._inherited = inherited
        self._changed = changed
        # desired
        self._posture = Posture.IDLE
        self._order: Order | None = None
        self._sync_until = 0.0
        self._drain_s = 0.0
        self._listen_until = 0.0
        # observed
        self._workers: dict[int, Worker] = {}
        self._failures: Counter[int] = Counter()
        self._restarts: dict[int, asyncio.TimerHandle] = {}
        self._retired: Counter[str] = Counter()
        self._retired_tally = Tally()
        self._crashes = 0
        self._retired_progress: dict[str, int] = {}
        self._burials: set[asyncio.Task[None]] = set()
        self._waiters: set[asyncio.Future[None]] = set()
        self._listened = False
        self._question = 0
        self._open_questions: set[int] = set()
        self._report_id = 0
        self._reported_at = -REPORT_EVERY_S
        self._reporting = asyncio.Lock()

    # what the workers are

    @property
    def alive(self) -> int:
        """How many worker processes are not known to have exited."""
        return len(self._workers)

    @property
    def workers(self) -> list[Worker]:
        """Those that are not known to have exited, by slot."""
        return [self._workers[slot] for slot in sorted(self._workers)]

    @property
    def crashes(self) -> int:
        """How many workers ended without having been told to."""
        return self._crashes

    @property
    def posture(self) -> Posture:
        """What the workers were told to do."""
        return self._posture

    @property
    def listening(self) -> bool:
        """Whether every worker listens, and should."""
        every = len(self._workers) == self._count
        return (
            self._posture is Posture.LISTENING and every and all(w.listening for w in self._workers.values())
        )

    @property
    def parked(self) -> bool:
        """Whether every worker said that its listener is closed and that it has no session."""
        return self._posture is Posture.PARKED and all(
            worker.parked or worker.empty for worker in self._workers.values()
        )

    @property
    def empty(self) -> bool:
        """Whether the drain is over."""
        return all(worker.empty for worker in self._workers.values())

    @property
    def hopeless(self) -> bool:
        """Whether workers keep dying before any of them ever listened."""
        return not self._listened and any(failures >= 3 for failures in self._failures.values())

    def obeys(self, version: int) -> bool:
        """Whether every worker runs and has applied the version."""
        return self._complete and all(worker.version == version for worker in self._workers.values())

    def drained(self, epoch: int) -> bool:
        """Whether every worker runs and said that nothing frozen is left under the epoch."""
        return self._complete and all(worker.drained_epoch == epoch for worker in self._workers.values())

    def totals(self) -> Stats:
        """The sum over all workers; counters include those of workers that are gone."""
        workers = [worker.stats for worker in self._workers.values()]
        counters = Counter(self._retired)
        tally = Tally()
        tally.add(self._retired_tally)
        for stats in workers:
            counters.update(stats.counters)
            tally.add(stats.tally)
        return Stats(
            sessions=sum(stats.sessions for stats in workers),
            half_open=sum(stats.half_open for stats in workers),
            held=sum(stats.held for stats in workers),
            counters=dict(counters),
            progress=_summed([self._retired_progress, *(stats.progress for stats in workers)]),
            tally=tally,
            down=frozenset().union(*(stats.down for stats in workers)),
        )

    @property
    def _complete(self) -> bool:
        """Whether all workers that are wanted run; once they are ending, those that are left are enough.

        Without any there is nobody to answer for: that is another statement, and another message.
        """
        return len(self._workers) == self._count or (bool(self._workers) and self._posture in _ENDING)

    # what the workers should do

    def start(self) -> None:
        """The processes run, and will be told what is desired as soon as they listen to us."""
        for slot in range(self._count):
            self._start_worker(slot)

    async def apply(self, order: Order) -> None:
        """Every worker obeys the order.

        Raises:
            NotApplied: one refused it, or did not say in time that it applied it.
        """
        self._order = order
        for worker in self._workers.values():
            worker.refused = None
            worker.tell(order.line())
        if not await self._until(lambda: self._answered(order.version), APPLY_TIMEOUT_S):
            for worker in self._workers.values():
                if worker.started and not worker.answered(order.version):
                    log.error("worker_hung", slot=worker.slot, pid=worker.process.pid, version=order.version)
                    worker.kill()
            # Those that take their places, and those that are still starting, are given their time.
            await self._until(lambda: self._answered(order.version), START_TIMEOUT_S)
        for worker in self._workers.values():
            if worker.refused is not None:
                raise NotApplied(f"Worker {worker.slot} refused version {order.version}: {worker.refused[1]}")
        if not self.obeys(order.version):
            raise NotApplied(f"Not every worker applied version {order.version} in time.")

    def listen(self) -> None:
        """Workers that obey a snapshot accept handshakes."""
        self._move(Posture.LISTENING)

    def park(self) -> None:
        """Workers close their listeners and all their sessions."""
        self._move(Posture.PARKED)

    def drain(self, seconds: float, *, hand_over: bool = False) -> float:
        """Workers stop listening and end their sessions; in how many seconds that should be done.

        Called again, it gives the sessions that are left this time from now on.

        Args:
            seconds: for the sessions to end.
            hand_over: somebody else listens on the port: whoever was about to connect to us is served first.
        """
        now = time.monotonic()
        if hand_over and self._posture is Posture.LISTENING:
            self._listen_until = now + HAND_OVER_S
        self._drain_s = seconds
        self._move(Posture.DRAINING)
        return max(self._listen_until - now, 0.0) + seconds

    async def prefer(self, first: int) -> bool:
        """Whether new connections go to our listeners only, where ``first`` others joined the port before."""
        line = _line({"do": "prefer", "first": first, "count": self._count})
        for worker in self._workers.values():
            worker.tell(line)
        return await self._until(
            lambda: all(worker.preferring for worker in self._workers.values()), PREFER_TIMEOUT_S
        )

    def prefer_none(self) -> None:
        """New connections are spread over all listeners of the port."""
        for worker in self._workers.values():
            worker.tell(_line({"do": "prefer", "first": 0, "count": 0}))

    def sync(self, until: float) -> None:
        """Workers are in sync until then (monotonic seconds); 0 is not at all."""
        if until != self._sync_until:
            self._sync_until = until
            for worker in self._workers.values():
                worker.tell(self._sync_line())

    def look_at_certificates(self) -> None:
        """Workers read those that have changed."""
        for worker in self._workers.values():
            worker.tell(_line({"do": "certificates"}))

    async def count(
        self, unit_type: str, ranges: Sequence[Sequence[int]], timeout_s: float
    ) -> list[int] | None:
        """How many sessions have an id in each of the ranges; None if a worker did not say in time.

        A worker that exits meanwhile takes its sessions with it.
        """
        question = {"do": "count", "unit_type": unit_type, "ranges": list(ranges)}
        answers, complete = await self._ask(question, timeout_s)
        counts = [[int(count) for count in answer["counts"]] for answer in answers]
        if not complete:
            return None
        return [sum(each) for each in zip(*counts, strict=True)] if counts else [0] * len(ranges)

    async def returns(
        self, cutover: int, among: Sequence[Sequence[int]] | None, timeout_s: float
    ) -> tuple[list[list[int]], int] | None:
        """The ids that are gone, or those of some that are back, and how many were left out.

        None if a worker did not say in time, or was not there for the whole cutover.
        """
        question = {"do": "returns", "cutover": cutover, "among": among and list(among)}
        answers, complete = await self._ask(question, timeout_s)
        told = [answer["told"] for answer in answers]
        if not complete or not told or None in told:
            return None
        ids = sorted({one for each in told for first, last in each["ids"] for one in range(first, last + 1)})
        return runs(ids), sum(int(each["left_out"]) for each in told)

    async def send(self, address: Address, text: str, timeout_s: float) -> tuple[Outcome, bool]:
        """What became of a text to sessions, and whether every worker said so in time.

        Texts reach the workers in the order of the calls.
        """
        order = {"do": "send", "unit_type": address.unit_type, "ranges": address.ranges, "text": text}
        answers, complete = await self._ask(order, timeout_s)
        total = Outcome()
        for answer in answers:
            total.add(Outcome.read(answer))
        return total, complete

    async def _ask(self, question: Said, timeout_s: float) -> tuple[list[Said], bool]:
        """The answers of the workers, and whether they are all; one that has exited has none."""
        self._question += 1
        number = self._question
        self._open_questions.add(number)
        asked = [worker for worker in self._workers.values() if worker.started]
        line = _line({**question, "id": number})
        for worker in asked:
            worker.tell(line)

        def answered() -> bool:
            return all(number in worker.answers for worker in asked if worker in self._workers.values())

        try:
            complete = await self._until(answered, timeout_s)
        finally:
            self._open_questions.discard(number)
        return [worker.answers.pop(number) for worker in asked if number in worker.answers], complete

    async def report(self, timeout_s: float) -> None:
        """Every worker's figures are of this moment; of one that is too busy to say them, the last ones."""
        async with self._reporting:  # whoever waits here finds the figures fresh
            loop = asyncio.get_running_loop()
            if loop.time() - self._reported_at < REPORT_EVERY_S:
                return
            self._report_id += 1
            number = self._report_id
            asked = [worker for worker in self._workers.values() if worker.started]
            for worker in asked:
                worker.tell(_line({"do": "report", "id": number}))

            def answered() -> bool:
                return all(worker.reported >= number for worker in asked if worker.process.returncode is None)

            await self._until(answered, timeout_s)
            self._reported_at = loop.time()

    async def until_empty(self, timeout_s: float, enough: Callable[[], bool]) -> bool:
        """Whether the drain ended within the time and before there was enough of it."""
        return await self._until(lambda: self.empty or enough(), timeout_s) and self.empty

    async def stop(self, reason: str) -> None:
        """No worker process is left; sessions that were still open got a Close with 1012."""
        self._posture = Posture.STOPPING
        for handle in self._restarts.values():
            handle.cancel()
        self._restarts.clear()
        for worker in self._workers.values():
            worker.tell(_line({"do": "close_all", "code": 1012, "reason": reason}))
            worker.tell(_line({"do": "exit"}))
        if not await self._until(lambda: not self._workers, EXIT_TIMEOUT_S):
            for worker in self._workers.values():
                log.error("worker_does_not_exit", slot=worker.slot, pid=worker.process.pid)
                worker.kill()
            await self._until(lambda: not self._workers, EXIT_TIMEOUT_S)

    def tick(self) -> None:
        """Workers that have said nothing for too long are killed; call this once a second.

        Ticks are counted instead of seconds, so that a machine that was suspended kills nobody.
        """
        for worker in self._workers.values():
            worker.silent_ticks += 1
            if worker.silent_ticks > (SILENT_TICKS_LIMIT if worker.started else STARTING_TICKS_LIMIT):
                log.error("worker_silent", slot=worker.slot, pid=worker.process.pid)
                worker.kill()

    # words

    def _move(self, posture: Posture) -> None:
        self._posture = posture
        for worker in self._workers.values():
            worker.parked = False
            self._tell_posture(worker)

    def _tell_posture(self, worker: Worker) -> None:
        match self._posture:
            case Posture.LISTENING if worker.version > 0:  # never before it has something to obey
                worker.tell(_line({"do": "listen"}))
            case Posture.PARKED:
                worker.tell(_line({"do": "park"}))
            case Posture.DRAINING:
                until = {"listen_until": self._listen_until, "listeners": self._count}
                worker.tell(_line({"do": "drain", "seconds": self._drain_s, **until}))
            case _:
                pass

    def _sync_line(self) -> bytes:
        return _line({"do": "sync", "until": self._sync_until})

    def _hear(self, worker: Worker, said: Mapping[str, Any]) -> None:
        match said["is"]:
            case "started":
                worker.started = True
            case "applied":
                first = worker.version == 0
                worker.version = int(said["version"])
                if first:
                    self._tell_posture(worker)
            case "refused":
                worker.refused = (int(said["version"]), str(said["reason"]))
            case "listening":
                worker.listening, self._listened = True, True
            case "preferring":
                worker.preferring = int(said["count"])
            case "parked":
                worker.listening, worker.parked = False, True
            case "drained":
                worker.drained_epoch = int(said["epoch"])
            case "empty":
                worker.listening, worker.empty = False, True
            case "stats":
                now = asyncio.get_running_loop().time()
                worker.stats, worker.stats_at = Stats.read(said), now
                worker.lag.add(float(said["lag_s"]), now)
                worker.reported = max(worker.reported, int(said["report"]))
            case "count" | "sent" | "returns":
                if said["id"] in self._open_questions:  # a late one would be kept for ever
                    worker.answers[said["id"]] = said
            case other:
                raise ValueError(f"unknown word {other}")

    def _answered(self, version: int) -> bool:
        nobody_comes = self.hopeless or (self._posture in _ENDING and not self._workers)
        return (self._complete or nobody_comes) and all(
            worker.answered(version) for worker in self._workers.values()
        )

    async def _until(self, fact: Callable[[], bool], timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                while not fact():
                    waiter = loop.create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError:
            return fact()
        return True

    # processes

    def _start_worker(self, slot: int) -> None:
        if self._posture in _ENDING:
            return
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        try:
            # A group of its own: Ctrl-C in a terminal is for the agent, which then drains the workers.
            # Standard output of an edge has one line, `ready`; an access log to `-` goes beside the log.
            process = subprocess.Popen(
                self._command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                pass_fds=(theirs.fileno(), *self._inherited),
                process_group=0,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = Worker(slot, process, loop.time())
        self._workers[slot] = worker
        worker.talking = loop.create_task(self._talk(worker, ours))
        loop.add_reader(worker.pidfd, self._exited, worker)
        log.info("worker_started", slot=slot, pid=process.pid)

    async def _talk(self, worker: Worker, ours: socket.socket) -> None:
        reader, worker.writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_LIMIT_BYTES)
        worker.tell(self._sync_line())
        if self._order is not None:
            worker.tell(self._order.line())
        if self._posture is not Posture.LISTENING:
            self._tell_posture(worker)
        try:
            async for line in reader:
                worker.silent_ticks = 0
                try:
                    self._hear(worker, json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    log.error("worker_not_understood", slot=worker.slot, problem=repr(error))
                self.notice()
        except (OSError, ValueError) as error:
            log.error("worker_not_readable", slot=worker.slot, problem=repr(error))
        finally:
            worker.writer.close()
            # A process that can no longer be told anything is of no use, but it may be about to exit.
            asyncio.get_running_loop().call_later(EXIT_TIMEOUT_S, worker.kill)

    def _exited(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(worker.pidfd)
        burial = loop.create_task(self._bury(worker))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    async def _bury(self, worker: Worker) -> None:
        """The process is reaped, its last words are counted, and another takes its place."""
        code = worker.process.wait()
        if worker.talking is not None:
            await asyncio.wait([worker.talking], timeout=LAST_WORDS_S)
            worker.talking.cancel()
        os.close(worker.pidfd)
        worker.pidfd = -1
        self._workers.pop(worker.slot)
        self._retired.update(worker.stats.counters)
        self._retired_tally.add(worker.stats.tally)
        if worker.stats.progress:
            self._retired_progress = _summed(
                [self._retired_progress, {**worker.stats.progress, "remaining": 0}]
            )
        if self._posture in _ENDING:
            log.info("worker_exited", slot=worker.slot, pid=worker.process.pid, code=code)
        else:
            self._restart_later(worker, code)
        self.notice()

    def _restart_later(self, worker: Worker, code: int) -> None:
        loop = asyncio.get_running_loop()
        if worker.listening and loop.time() - worker.started_at > STABLE_AFTER_S:
            self._failures[worker.slot] = 0
        self._failures[worker.slot] += 1
        self._crashes += 1
        failures = self._failures[worker.slot]
        delay = 0.0 if failures == 1 else min(0.1 * 2.0**failures, LONGEST_RESTART_DELAY_S)
        log.error("worker_crashed", slot=worker.slot, pid=worker.process.pid, code=code, restart_in_s=delay)
        self._restarts[worker.slot] = loop.call_later(delay, self._start_worker, worker.slot)

    def notice(self) -> None:
        """Whoever waits for a fact looks again."""
        self._changed()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of those progress reports that are about the same cutover as the newest one."""
    known = [part for part in parts if "epoch" in part]
    if not known:
        return {}
    newest = max(known, key=lambda part: part["epoch"])
    about = {name: newest[name] for name in ("cutover", "epoch") if name in newest}
    total: Counter[str] = Counter()
    for part in known:
        if part.get("cutover") == newest.get("cutover"):
            total.update({name: count for name, count in part.items() if name not in about})
    return {**about, **total}
