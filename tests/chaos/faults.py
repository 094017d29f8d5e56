"""What goes wrong in a campaign: each fault strikes at its moment and is healed after its time.

Striking is signals, files and words to proxies alone, so that any thread may do it; healing starts processes
and belongs to the main thread. The journal names the edges whose sessions a fault may end; a fault that names
none excuses no closed session.
"""

import os
import random
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from msha.demo.fleet import Edge
from msha.demo.processes import Child
from tests.chaos.fleet import ChaosFleet
from tests.chaos.journal import Journal
from tests.support.process_tree import descendants

PHASES = ("prepare", "freeze", "activate", "release")
BEFORE = "before"
#: What the product takes to judge a gate for lost.
PAST_DEADLINE_S = (10.5, 12.5)


@dataclass
class Scene:
    """What a fault may touch.

    Attributes:
        losing, gaining: edges of the units that lose and gain ids in this cutover.
        postgres: the database server, where it is one.
        away_s: how long the database may be away.
    """

    fleet: ChaosFleet
    journal: Journal
    dice: random.Random
    losing: Sequence[Edge] = ()
    gaining: Sequence[Edge] = ()
    number: int = 0
    ids: Sequence[int] = ()
    """Of the cutovers in the database, this one's last."""
    postgres: Child | None = None
    away_s: float = 8.0
    act: Callable[[str], bool] = lambda name: False
    publish: Callable[[], str] = lambda: ""


@dataclass
class Fault:
    """One thing that goes wrong once.

    Attributes:
        at: the step in which it strikes, or ``before`` the start.
        after_s: so long after the step has begun.
        lasts_s: until it is healed.
        ends: names of edges whose sessions it may end.
    """

    kind: str
    at: str
    after_s: float
    lasts_s: float
    strike_now: Callable[[], Any]
    heal_now: Callable[[], Any] = lambda: None
    ends: Sequence[Edge] = ()
    turns: int = 0
    struck_at: float = 0.0
    healed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def strike(self, journal: Journal) -> None:
        """It has happened, once."""
        with self._lock:
            if self.struck_at:
                return
            self.struck_at = time.monotonic()
        names = [edge.name for edge in self.ends]
        ports = [edge.address.port for edge in self.ends]
        journal.note("fault", kind=self.kind, step=self.at, edges=names, ports=ports)
        told = self.strike_now()
        if told is not None:
            journal.note("told", kind=self.kind, outcome=told)

    @property
    def due(self) -> bool:
        """Whether it has lasted long enough."""
        return bool(self.struck_at) and not self.healed and time.monotonic() - self.struck_at > self.lasts_s

    def heal(self, journal: Journal) -> None:
        """It is over; processes that it ended run again."""
        self.healed = True
        if self.struck_at:
            self.heal_now()
            journal.note("healed", kind=self.kind, ports=[edge.address.port for edge in self.ends])


def kill(pids: Iterable[int], signum: int = signal.SIGKILL) -> None:
    """Each got the signal that was still there."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            pass


# -- the kinds -----------------------------------------------------------------------------------------------

Make = Callable[[Scene], Fault]
KINDS: dict[str, Make] = {}
WEIGHTS: dict[str, float] = {}


def kind(name: str, weight: float) -> Callable[[Make], Make]:
    """Adds a kind of fault; its weight says how often it is drawn."""

    def add(make: Make) -> Make:
        KINDS[name], WEIGHTS[name] = make, weight
        return make

    return add


def _moment(scene: Scene) -> float:
    """Within the few dozen milliseconds that a step lasts."""
    return scene.dice.choice((0.0, scene.dice.uniform(0, 0.03)))


def _killed(
    scene: Scene, name: str, *children: str, phases: Sequence[str] = PHASES, lasts: tuple[float, float]
) -> Fault:
    fleet = scene.fleet

    def strike() -> None:
        for child in children:
            if fleet.children[child].running:
                kill([fleet.children[child].pid])

    def heal() -> None:
        for child in children:
            fleet.children[child].kill_group()  # a pool that outlived its parent would take its tasks
            fleet.revive(child)

    return Fault(name, scene.dice.choice(phases), _moment(scene), scene.dice.uniform(*lasts), strike, heal)


@kind("worker-killed", 2)
def _worker_killed(scene: Scene) -> Fault:
    return _killed(scene, "worker-killed", "worker", lasts=(0, 2))


@kind("celery-killed", 0.7)
def _celery_killed(scene: Scene) -> Fault:
    return _killed(scene, "celery-killed", "worker", "beat", lasts=(0, 3))


@kind("pool-killed", 0.7)
def _pool_killed(scene: Scene) -> Fault:
    """A child of the Celery worker, with the task that it carries."""
    child = scene.fleet.children["worker"]

    def strike() -> None:
        if child.running:
            kill(descendants(child.pid))

    return Fault("pool-killed", scene.dice.choice(PHASES), _moment(scene), 0.0, strike)


@kind("redis-killed", 1.3)
def _redis_killed(scene: Scene) -> Fault:
    return _killed(scene, "redis-killed", "redis", lasts=(0.2, 4))


@kind("console-killed", 2)
def _console_killed(scene: Scene) -> Fault:
    names = scene.fleet.console_names
    some = names if scene.dice.random() < 0.4 else [scene.dice.choice(names)]
    return _killed(scene, "console-killed", *some, lasts=(0, 3))


def _edge_killed(scene: Scene, name: str, edge: Edge, at: str, lasts_s: float) -> Fault:
    """The agent alone: its workers have to notice."""
    fleet = scene.fleet
    return Fault(
        name,
        at,
        _moment(scene),
        lasts_s,
        lambda: kill([edge.child.pid]) if edge.child.running else None,
        lambda: fleet.revive(edge.name),
        ends=[edge],
    )


@kind("losing-edge-killed", 2)
def _losing_edge_killed(scene: Scene) -> Fault:
    edge = scene.dice.choice(scene.losing)
    return _edge_killed(scene, "losing-edge-killed", edge, "freeze", scene.dice.uniform(0, 3))


@kind("losing-edge-gone", 0.4)
def _losing_edge_gone(scene: Scene) -> Fault:
    edge = scene.dice.choice(scene.losing)
    lasts_s = scene.dice.uniform(*PAST_DEADLINE_S)
    return _edge_killed(scene, "losing-edge-gone", edge, scene.dice.choice(("prepare", "freeze")), lasts_s)


@kind("gaining-edge-killed", 1)
def _gaining_edge_killed(scene: Scene) -> Fault:
    edge = scene.dice.choice(scene.gaining)
    at = scene.dice.choice(("freeze", "activate", "release"))
    return _edge_killed(scene, "gaining-edge-killed", edge, at, scene.dice.uniform(0, 3))


@kind("edge-torn", 1)
def _edge_torn(scene: Scene) -> Fault:
    """Killed, and what it finds on disk when it comes back is half a snapshot."""
    edge = scene.dice.choice([*scene.losing, *scene.gaining])
    fault = _edge_killed(scene, "edge-torn", edge, scene.dice.choice(PHASES), scene.dice.uniform(0.5, 2))
    revive = fault.heal_now

    def heal() -> None:
        body = edge.state_dir / "snapshot.json"
        if not edge.child.running and body.exists():
            body.write_bytes(body.read_bytes()[: scene.dice.randrange(0, body.stat().st_size)])
        revive()

    fault.heal_now = heal
    return fault


@kind("edge-worker-killed", 1.5)
def _edge_worker_killed(scene: Scene) -> Fault:
    """One worker process of an edge; its agent starts another one."""
    edge = scene.dice.choice([*scene.losing, *scene.gaining])

    def strike() -> None:
        workers = sorted(descendants(edge.child.pid)) if edge.child.running else []
        kill(workers[:1])

    at = scene.dice.choice(("freeze", "freeze", "prepare", "activate", "release"))
    return Fault("edge-worker-killed", at, _moment(scene), 0.0, strike, ends=[edge])


def _stopped(
    scene: Scene, name: str, edge: Edge, at: str, lasts_s: float, *, agent_only: bool = False
) -> Fault:
    stopped: list[int] = []

    def strike() -> None:
        if edge.child.running:
            stopped.extend([edge.child.pid] if agent_only else scene.fleet.processes_of(edge.name))
            kill(stopped, signal.SIGSTOP)

    return Fault(name, at, _moment(scene), lasts_s, strike, lambda: kill(stopped, signal.SIGCONT))


@kind("losing-edge-stopped-past-deadline", 0.8)
def _stopped_past_deadline(scene: Scene) -> Fault:
    edge, lasts_s = scene.dice.choice(scene.losing), scene.dice.uniform(*PAST_DEADLINE_S)
    at = scene.dice.choice(("prepare", "freeze", "freeze"))
    return _stopped(scene, "losing-edge-stopped-past-deadline", edge, at, lasts_s)


@kind("edge-stopped", 1)
def _stopped_shortly(scene: Scene) -> Fault:
    edge = scene.dice.choice([*scene.losing, *scene.gaining])
    lasts_s = scene.dice.uniform(0.3, 4)
    return _stopped(scene, "edge-stopped", edge, scene.dice.choice(PHASES), lasts_s)


@kind("agent-stopped", 0.6)
def _agent_stopped(scene: Scene) -> Fault:
    """Its workers go on by what they were told last."""
    edge = scene.dice.choice(scene.losing)
    lasts_s = scene.dice.choice((scene.dice.uniform(0.3, 4), scene.dice.uniform(*PAST_DEADLINE_S)))
    at = scene.dice.choice(("prepare", "freeze"))
    return _stopped(scene, "agent-stopped", edge, at, lasts_s, agent_only=True)


@kind("partition", 2.5)
def _partition(scene: Scene) -> Fault:
    """One edge and the consoles: both ways, one way, or now and then."""
    edges = scene.dice.choice(
        [[edge] for edge in (*scene.losing, *scene.gaining)] + [list(scene.losing), list(scene.gaining)]
    )
    mode = scene.dice.choice(("silent-up", "silent-down", "silent", "cut", "flapping"))
    lasts_s = scene.dice.choice((2.0, 4.0, 12.0)) * scene.dice.uniform(0.7, 1.0)
    at = scene.dice.choice((*PHASES, "freeze"))
    fleet = scene.fleet

    def set_all(to: str) -> None:
        for edge in edges:
            fleet.link(edge.name, to)

    return Fault(
        f"partition-{mode}", at, _moment(scene), lasts_s, lambda: set_all(mode), lambda: set_all("through")
    )


@kind("stale-tasks", 2)
def _stale_tasks(scene: Scene) -> Fault:
    """Every task of this cutover again and again, and those of cutovers that ended long ago."""

    def strike() -> str:
        broker = f"redis+socket://{scene.fleet.redis_url.removeprefix('unix://')}"
        with Celery("campaign", broker=broker) as sender:
            ids = [*scene.dice.sample(list(scene.ids), min(4, len(scene.ids))), *[scene.ids[-1]] * 4]
            for one in ids:
                for name in ("start", "disconnect", "report", "reconcile", "run_prechecks"):
                    arguments = () if name == "reconcile" else (one,)
                    sender.send_task(f"cutover.tasks.{name}", args=arguments, retry=False)
        return f"{len(ids) * 5} tasks"

    return Fault("stale-tasks", scene.dice.choice((BEFORE, *PHASES)), _moment(scene), 0.0, strike)


def _disk_full(scene: Scene, name: str, edge: Edge, at: str, lasts_s: float, ends: Sequence[Edge]) -> Fault:
    filler = edge.state_dir / "filler"

    def strike() -> None:
        if scene.fleet.small_disks:
            _fill(filler)
        elif edge.child.running:
            _limit_files(edge.child.pid, 0)

    def heal() -> None:
        filler.unlink(missing_ok=True)
        if not scene.fleet.small_disks and edge.child.running:
            _limit_files(edge.child.pid, resource.RLIM_INFINITY)

    return Fault(name, at, 0.0, lasts_s, strike, heal, ends=ends)


def _fill(filler: Any) -> None:
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 9, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    continue
    except OSError:
        pass


def _limit_files(pid: int, size: int) -> None:
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@kind("losing-disk-full", 1)
def _losing_disk_full(scene: Scene) -> Fault:
    """It cannot store what it is sent: it neither acks nor closes anybody."""
    edge = scene.dice.choice(scene.losing)
    lasts_s = scene.dice.choice((scene.dice.uniform(1, 5), scene.dice.uniform(*PAST_DEADLINE_S)))
    return _disk_full(
        scene, "losing-disk-full", edge, scene.dice.choice((BEFORE, "prepare", "freeze")), lasts_s, ()
    )


@kind("gaining-disk-full", 0.6)
def _gaining_disk_full(scene: Scene) -> Fault:
    """Where it cannot store ACTIVATE it parks, and that ends its sessions."""
    edge = scene.dice.choice(scene.gaining)
    lasts_s = scene.dice.uniform(1, 6)
    return _disk_full(
        scene, "gaining-disk-full", edge, scene.dice.choice(("prepare", "freeze")), lasts_s, [edge]
    )


@kind("database-away", 0.8)
def _database_away(scene: Scene) -> Fault:
    fleet = scene.fleet
    server = scene.postgres
    at = scene.dice.choice(PHASES)
    lasts_s = scene.away_s * scene.dice.uniform(0.3, 1.0)
    if server is not None:

        def revive() -> None:
            server.kill_group()
            server.start()

        return Fault(
            "database-away", at, _moment(scene), lasts_s, lambda: kill([server.pid], signal.SIGQUIT), revive
        )
    over = threading.Event()
    held = threading.Event()

    def hold() -> None:
        locked = sqlite3.connect(fleet.directory / "msha.sqlite3", isolation_level=None, timeout=5)
        try:
            locked.execute("BEGIN EXCLUSIVE")
            held.set()
            over.wait(300)
            locked.execute("ROLLBACK")
        except sqlite3.OperationalError:
            held.set()
        finally:
            locked.close()

    def strike() -> None:
        threading.Thread(target=hold, name="database-away", daemon=True).start()
        held.wait(6)

    return Fault("database-away", at, _moment(scene), lasts_s, strike, over.set)


@kind("sluggish-sources", 1)
def _sluggish_sources(scene: Scene) -> Fault:
    """Back-sources that let a Close lie: the edges have to wait for them, and not for ever."""
    fleet = scene.fleet
    return Fault(
        "sluggish-sources",
        "prepare",
        0.0,
        4.0,
        lambda: fleet.back_sources_are("sluggish"),
        lambda: fleet.back_sources_are("quick"),
    )


# -- what operators do at the wrong moment -------------------------------------------------------------------


@kind("aborted", 1)
def _aborted(scene: Scene) -> Fault:
    """An operator's abort; with a losing edge stopped, so that there is time for it."""
    edge = scene.dice.choice(scene.losing)
    fault = _stopped(
        scene, "aborted", edge, scene.dice.choice(("prepare", "freeze")), scene.dice.uniform(0.2, 2)
    )
    return _with_act(scene, fault, "abort")


@kind("turned-around", 1.5)
def _turned_around(scene: Scene) -> Fault:
    at = scene.dice.choice(("activate", "release"))
    if scene.dice.random() < 0.4:
        quick = Fault("turned-around", at, 0.0, 0.0, lambda: None)
        return _with_act(scene, quick, "turn-around")
    edge = scene.dice.choice(scene.gaining if at == "activate" else scene.losing)
    fault = _stopped(scene, "turned-around", edge, at, scene.dice.uniform(0.2, 3))
    return _with_act(scene, fault, "turn-around")


@kind("turned-twice", 0.6)
def _turned_twice(scene: Scene) -> Fault:
    """There, back and there again while an edge sleeps."""
    edge = scene.dice.choice(scene.gaining)
    fault = _stopped(scene, "turned-twice", edge, "activate", scene.dice.uniform(0.5, 3))
    return _with_act(scene, _with_act(scene, fault, "turn-around"), "turn-around")


@kind("finished-early", 0.6)
def _finished_early(scene: Scene) -> Fault:
    """RELEASE ended without an edge that sleeps: it goes on holding what it lost."""
    edge = scene.dice.choice(scene.losing)
    fault = _stopped(scene, "finished-early", edge, "release", scene.dice.uniform(0.5, 3))
    return _with_act(scene, fault, "finish")


def _with_act(scene: Scene, fault: Fault, name: str) -> Fault:
    strike = fault.strike_now

    def strike_and_act() -> str:
        strike()
        return f"{name}: {scene.act(name)}"

    fault.strike_now = strike_and_act
    return fault


@kind("publish", 1)
def _publish(scene: Scene) -> Fault:
    """An ordinary publish in between."""
    return Fault("publish", scene.dice.choice(PHASES), 0.0, 0.0, scene.publish)


def draw(scene: Scene, kinds: Sequence[str]) -> list[Fault]:
    """One fault of these kinds, by their weights; now and then two at once."""
    chosen = scene.dice.choices(kinds, [WEIGHTS[name] for name in kinds])
    if scene.dice.random() < 0.15:
        chosen += scene.dice.choices(kinds, [WEIGHTS[name] for name in kinds])
    return [KINDS[name](scene) for name in dict.fromkeys(chosen)]
