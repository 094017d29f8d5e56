"""What each candidate is asked to do, and what that cost it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.candidates import Direct, Kind, Msha, Place, Running
from bench.deciding import Decider
from bench.measuring import Cpu, private_bytes
from bench.programs import Cores, Program, back_source, free_port, load, wait_until
from bench.snapshots import CENTER_IDS, UNBJ_IDS
from bench.system_calls import SystemCalls

#: What one measurement gives; which names there are depends on the workload.
Sample = dict[str, float]

CONCURRENT = 64
SESSIONS = 200
LARGE_SESSIONS = 8
SMALL_BYTES, LARGE_BYTES = 100, 65_536
PUSH_RATE = 40_000
IDLE_SESSIONS = 9_000
CLOSED_SESSIONS = 5_000

#: The paths of the snapshot; the probe has a back-source of its own, so it waits for nothing but the edge.
MAIN_PATH, PROBE_PATH = "/", "/probe"
_PROBE_INTERVAL_US = 1_000
#: The probe must not wait for the generator's own work.
_PROBE_NICE = -15


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done.

    Attributes:
        seconds: of a measured window.
        warm_s: of the same load before it.
        sessions: of the workloads with thousands of them, as a share.
    """

    seconds: float = 2.0
    warm_s: float = 0.3
    sessions: float = 1.0


class Stage:
    """The back-sources, and the way to a generator."""

    def __init__(self, cores: Cores, scale: Scale, directory: Path, *, counts_calls: bool = False) -> None:
        self.cores = cores
        self.scale = scale
        self.directory = directory
        self.counts_calls = counts_calls
        self._ports = {MAIN_PATH: free_port(), PROBE_PATH: free_port()}
        self.back_source = back_source(self._ports[MAIN_PATH], cores.load)
        self.probed = back_source(self._ports[PROBE_PATH], cores.load, _PROBE_NICE)
        self.redirector_port = free_port()
        self._redirector = back_source(self.redirector_port, cores.edge, redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in (self.back_source, self.probed, self._redirector):
            program.__exit__(kind, error, trace)

    def start(self, kind: Kind) -> Running:
        """The candidate, running."""
        servers = {path: f"127.0.0.1:{port}" for path, port in self._ports.items()}
        return kind.make(Place(self.directory / kind.name, servers, self.cores.edge if kind.pinned else None))

    def load(self, running: Running, path: str = "/im", nice: int = 0) -> Program:
        """A generator whose target is the candidate."""
        assert not isinstance(running, Decider)
        return load(running.port, self.cores.load, path, nice)

    def redirected(self, running: Running) -> Program:
        """A generator whose target redirects: the candidate, or what answers where there is none."""
        assert not isinstance(running, Decider)
        port = self.redirector_port if isinstance(running, Direct) else running.port
        return load(port, self.cores.load)

    def quiet(self) -> None:
        """No session is left from what was before."""
        wait_until(lambda: self.back_source.ask("stats")["open"] == 0, "the last sessions did not end")


def taken(running: Running, act: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], Cpu]:
    """What the act answered, and the processor time that the candidate took for it."""
    before = Cpu.read(running.pids)
    answer = act()
    return answer, Cpu.read(running.pids).since(before)


def per_operation(stage: Stage, running: Running, act: Callable[[], dict[str, Any]]) -> Sample:
    """Cost and rate of one operation of those that the act does; its system calls, too, if wanted."""
    counted = SystemCalls(running.pids) if stage.counts_calls and running.pids else None
    answer, cpu = taken(running, act)
    done = answer["done"]
    cost = cpu.total / done * 1e6
    sample = {
        "cpu_us": cost,
        "user_us": cost * cpu.user_share,
        "rate": done / answer["seconds"],
        "p50_us": answer["p50_us"],
        "p99_us": answer["p99_us"],
        "together": done / answer["reads"] if answer["reads"] else 0.0,
    }
    if counted is not None:
        sample |= {f"calls {name}": count / done for name, count in counted.stop().items()}
    return {name: value for name, value in sample.items() if value}


def redirect(stage: Stage, running: Running, kind: Kind) -> Sample:
    """A connection, a handshake for an id of the other unit, a 302; the client closes when it has it all."""
    with stage.redirected(running) as client:
        client.ask("redirect", stage.scale.warm_s, CONCURRENT, *UNBJ_IDS)
        return per_operation(
            stage, running, lambda: client.ask("redirect", stage.scale.seconds, CONCURRENT, *UNBJ_IDS)
        )


def open_sessions(stage: Stage, running: Running, kind: Kind) -> Sample:
    """Handshakes up to the 101 of the back-source; the sessions stay and end outside the window."""
    count = int(IDLE_SESSIONS * stage.scale.sessions * kind.pace)
    with stage.load(running) as client:
        client.ask("cycle", stage.scale.warm_s, CONCURRENT, *CENTER_IDS)
        sample = per_operation(stage, running, lambda: client.ask("open", count, CONCURRENT, *CENTER_IDS, 0))
        client.ask("drop")
    stage.quiet()
    return sample


def cycle(stage: Stage, running: Running, kind: Kind) -> Sample:
    """A session's whole life: handshake, 101, a Close of the client, its answer, the end."""
    with stage.load(running) as client:
        client.ask("cycle", stage.scale.warm_s, CONCURRENT, *CENTER_IDS)
        return per_operation(
            stage, running, lambda: client.ask("cycle", stage.scale.seconds, CONCURRENT, *CENTER_IDS)
        )


def echo(stage: Stage, running: Running, kind: Kind) -> Sample:
    """Round trips of small messages, one under way per session all the time."""
    return _echo(stage, running, SESSIONS, SMALL_BYTES)


def large_echo(stage: Stage, running: Running, kind: Kind) -> Sample:
    """Round trips of 64 KiB messages; the operation is a megabyte there and back."""
    sample = _echo(stage, running, LARGE_SESSIONS, LARGE_BYTES)
    megabytes = LARGE_BYTES / 1e6
    sample["rate"] *= megabytes
    for name in ("cpu_us", "user_us"):
        if name in sample:
            sample[name] /= megabytes
    return sample


def _echo(stage: Stage, running: Running, sessions: int, size: int) -> Sample:
    with stage.load(running) as client:
        client.ask("open", sessions, CONCURRENT, *CENTER_IDS, 0)
        client.ask("echo", stage.scale.warm_s, size, sessions)
        sample = per_operation(
            stage, running, lambda: client.ask("echo", stage.scale.seconds, size, sessions)
        )
        client.ask("drop")
    stage.quiet()
    return sample


def push(stage: Stage, running: Running, kind: Kind) -> Sample:
    """Messages from the back-source to the clients, one after the other at an even pace."""
    return _push(stage, running, kind, round(1e6 / PUSH_RATE))


def broadcast(stage: Stage, running: Running, kind: Kind) -> Sample:
    """As many messages, but one to every session at once, as when a price has changed."""
    return _push(stage, running, kind, round(1e6 / PUSH_RATE * SESSIONS))


def _push(stage: Stage, running: Running, kind: Kind, step_us: int) -> Sample:
    count = int(PUSH_RATE * stage.scale.seconds * kind.pace)

    def pushed() -> dict[str, Any]:
        client.say("count", count, SMALL_BYTES, 60)
        stage.back_source.ask("push", count, PUSH_RATE, step_us, SMALL_BYTES)
        return client.hear()

    with stage.load(running) as client:
        client.ask("open", SESSIONS, CONCURRENT, *CENTER_IDS, 0)
        client.ask("echo", stage.scale.warm_s, SMALL_BYTES, SESSIONS)
        sample = per_operation(stage, running, pushed)
        client.ask("drop")
    stage.quiet()
    return sample


def memory(stage: Stage, running: Running, kind: Kind) -> Sample:
    """Idle tunnelled sessions: what each takes of the candidate's own memory."""
    count = int(IDLE_SESSIONS * stage.scale.sessions * kind.pace)
    with stage.load(running) as client:
        client.ask("cycle", stage.scale.warm_s, CONCURRENT, *CENTER_IDS)
        stage.quiet()
        before = private_bytes(running.pids)
        client.ask("open", count, CONCURRENT, *CENTER_IDS, 0)
        grown = private_bytes(running.pids) - before
        client.ask("drop")
    stage.quiet()
    return {"bytes": grown / count} if running.pids else {}


def close(stage: Stage, running: Running, kind: Kind) -> Sample:
    """A new snapshot moves a range away; exactly its sessions get their 1012.

    Twice: the processor time without the probe, then the longest time that the loop answered nobody with it.
    """
    assert isinstance(running, Msha)
    return {**_close_cost(stage, running), **_close_stall(stage, running)}


def _ids_to_move(stage: Stage) -> tuple[int, int, int]:
    """How many sessions, how many of them move, and the last id that moves."""
    count = int(IDLE_SESSIONS * stage.scale.sessions)
    closed = int(CLOSED_SESSIONS * stage.scale.sessions)
    return count, closed, (closed - 1) * 10_000 // count


def _cut(stage: Stage, running: Msha, client: Program, closed: int, last: int) -> dict[str, Any]:
    client.say("closes", closed, 30, last)
    running.reload()
    answer = client.hear()
    assert running.pids
    return answer


def _spread_sessions(stage: Stage, running: Msha, client: Program) -> tuple[int, int]:
    """How many sessions will be closed, and the last id that moves; all are open, the snapshot is there."""
    count, closed, last = _ids_to_move(stage)
    running.obey({"center": ["0~9999"], "unbj": []})
    client.ask("open", count, CONCURRENT, 0, 9999, 1)
    running.prepare({"center": [f"{last + 1}~9999"], "unbj": [f"0~{last}"]})
    return closed, last


def _close_cost(stage: Stage, running: Msha) -> Sample:
    with stage.load(running) as client:
        closed, last = _spread_sessions(stage, running, client)
        answer, cpu = taken(running, lambda: _cut(stage, running, client, closed, last))
        client.ask("drop")
    stage.quiet()
    return {"cpu_us": cpu.total / closed * 1e6, "seconds": answer["seconds"]}


def _close_stall(stage: Stage, running: Msha) -> Sample:
    with stage.load(running) as client, stage.load(running, PROBE_PATH, _PROBE_NICE) as probe:
        closed, last = _spread_sessions(stage, running, client)
        probe.ask("open", 1, 1, 9999, 9999, 0)
        still = probe.ask("probe", 0.5, _PROBE_INTERVAL_US)["slowest_us"]
        probe.say("probe", 2.0, _PROBE_INTERVAL_US)
        _cut(stage, running, client, closed, last)
        stall = probe.hear()["slowest_us"]
        client.ask("drop")
        probe.ask("drop")
    stage.quiet()
    return {"stall_ms": stall / 1e3, "still_ms": still / 1e3}


def share_cores(stage: Stage, running: Running, kind: Kind) -> Sample:
    """Redirects, with the generator on whatever core is free, as the candidate is."""
    assert not isinstance(running, Decider)
    with load(running.port, core=None) as client:
        client.ask("redirect", stage.scale.warm_s, CONCURRENT, *UNBJ_IDS)
        return per_operation(
            stage, running, lambda: client.ask("redirect", stage.scale.seconds, CONCURRENT, *UNBJ_IDS)
        )


def decision(stage: Stage, running: Running, kind: Kind) -> Sample:
    """Decisions without sockets."""
    assert isinstance(running, Decider)
    return {"cpu_us": running.microseconds()}


@dataclass(frozen=True, slots=True)
class Workload:
    """A section of the table.

    Attributes:
        unit: of the operation that the cost is of.
        kinds: who takes part.
        fresh: each measurement has a candidate that has done nothing before.
        figure: by which candidates are compared; of a rate more is better, of all others less.
    """

    name: str
    title: str
    unit: str
    kinds: tuple[str, ...]
    measure: Callable[[Stage, Running, Kind], Sample]
    figure: str = "cpu_us"
    fresh: bool = False


_DECIDERS = ("decide", "decide-ranges", "decide-domains", "decide-both")
_HANDSHAKES = ("msha", "nginx", "haproxy", "naive", "msha-log", "nginx-log", "direct")
_RELAYS = ("msha", "nginx", "haproxy", "naive", "bare", "direct")

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("redirect", "handshake → 302", "handshake", ("nginx-close", "bare", *_HANDSHAKES), redirect),
        Workload("open", "handshake → 101", "handshake", _HANDSHAKES, open_sessions),
        Workload("cycle", "handshake → 101, Close, end", "session", _HANDSHAKES, cycle),
        Workload("echo", "echo, 200 sessions, 100 B", "round trip", _RELAYS, echo),
        Workload("push", "push, 40,000 messages/s, even", "message", _RELAYS, push),
        Workload("broadcast", "push, 40,000 messages/s, to all 200 at once", "message", _RELAYS, broadcast),
        Workload(
            "large-echo",
            "echo, 64 KiB",
            "MB",
            ("msha", "nginx", "nginx-64k", *_RELAYS[2:]),
            large_echo,
        ),
        Workload(
            "memory",
            "memory of an idle session",
            "session",
            ("msha", "nginx", "nginx-64k", "haproxy", "naive"),
            memory,
            figure="bytes",
            fresh=True,
        ),
        Workload(
            "close",
            "closing 5,000 of 9,000 sessions",
            "session",
            ("msha", "nginx", "haproxy", "naive"),
            close,
            fresh=True,
        ),
        Workload("decision", "one decision, in process", "decision", _DECIDERS, decision),
        Workload(
            "workers",
            "two workers against one, redirects, load on the same cores",
            "handshake",
            ("msha-1", "msha-2"),
            share_cores,
            figure="rate",
        ),
    )
}
