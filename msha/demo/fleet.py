"""A whole fleet on one machine: console, Celery, edges, back-sources, clients, all real processes.

The demo's supervisor runs one with fixed ports, the integration tests run them on free ones.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from msha.demo import ports, redis_server
from msha.demo.plan import Address, Plan, UnitPlan
from msha.demo.processes import Child, stop

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 60.0
"""A slow, busy machine is slow, not broken."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge node of a fleet."""

    name: str
    unit: str
    address: Address
    child: Child
    state_dir: Path

    @property
    def status_url(self) -> str:
        return f"http://{self.address}/.well-known/msha/status"


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    password: str
    token: str


def _http_status(url: str) -> int:
    """The status that a GET is answered with; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310  our own http:// addresses
            return int(response.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except OSError:
        return 0


class Fleet:
    """The processes of one plan, by name: ``redis``, ``console``, ``worker``, ``beat``, ``edge-center``,
    ``source-center-1``, ``clients`` and so on.

    `start_all` brings them up in order, each only when what it needs has answered. After that any of them may
    be killed and started again with `kill` and `start`.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        say: Callable[[str], None] = lambda line: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan = plan
        self.directory = plan.directory
        self.children: dict[str, Child] = {}
        self._say = say
        self._meanwhile = meanwhile
        self._gates: dict[str, Callable[[Child], bool]] = {}
        self._redis_socket: Path | None = None
        self.redis_url = plan.redis_url or ""

    # -- what tests and scripts ask --

    @property
    def console_url(self) -> str:
        return self.plan.console_url

    @property
    def logins(self) -> dict[str, Login]:
        """By role: ``admin``, ``operator`` and ``viewer``."""
        stored = json.loads((self.directory / "logins.json").read_text())
        return {role: Login(**login) for role, login in stored.items()}

    @property
    def api_token(self) -> str:
        return self.logins["admin"].token

    def edge(self, unit: str, number: int = 1) -> Edge:
        """The unit's edge node, or its `number`-th."""
        plan = self.plan.unit(unit)
        name = plan.edge_names[number - 1]
        return Edge(name, unit, plan.edges[number - 1], self.children[name], self.directory / name)

    def edges(self) -> list[Edge]:
        return [self.edge(u.code, n + 1) for u in self.plan.units for n in range(len(u.edges))]

    def logs(self, name: str) -> str:
        return self.children[name].text()

    # -- starting and stopping --

    def start_all(self) -> None:
        """Everything runs and has answered.

        Raises:
            PortsTaken: before anything was started.
            ProcessEnded, NotReadyInTime: what was started still runs; call `stop_all`.
        """
        self._refuse_taken_ports()
        self._prepare()
        self._bring_up(["redis"] if self._redis_socket else [])
        for name in self._sources():
            self.children[name].start()  # they need nobody; their gate comes when the edges need them
        self._say("database: migrating and seeding")
        self.run_once("seed", self._seed_argv())
        self._bring_up(["console", "worker", "beat"])
        self._bring_up([edge.name for edge in self.edges()])
        for name in self._sources():
            self.children[name].wait_until(self._gates[name], START_S, meanwhile=self._meanwhile)
        self._say(f"back-sources: {len(self._sources())} ready")
        if self.plan.clients:
            self._bring_up(["clients"])

    def start(self, name: str) -> Child:
        """The process runs and has answered."""
        self._bring_up([name])
        return self.children[name]

    def kill(self, name: str, signum: int = signal.SIGKILL) -> None:
        """The process was sent the signal; after SIGKILL it is gone."""
        child = self.children[name]
        child.send_signal(signum)
        if signum == signal.SIGKILL:
            child.wait(10)

    def stop_all(self) -> None:
        """Nothing of it runs: clients first, then what serves them, Redis last."""
        edges = [edge.name for edge in self.edges()] if self.children else []
        for names in (["clients"], edges, [*self._sources(), "beat", "worker", "console"], ["redis"]):
            stop([self.children[name] for name in names if name in self.children])
        if self._redis_socket is not None and self._redis_socket.parent != self.directory:
            self._redis_socket.unlink(missing_ok=True)
            self._redis_socket.parent.rmdir()
        self._redis_socket = None

    def run_once(self, name: str, argv: list[str], timeout_s: float = START_S) -> str:
        """What the program printed, after it ended well.

        Raises:
            ProcessEnded: it ended with something else than 0.
        """
        child = Child(name, argv, log=self._log(name), env=self.console_environment(), cwd=REPOSITORY)
        self.children[name] = child.start()
        try:
            child.wait_until(lambda it: it.returncode == 0, timeout_s, meanwhile=self._meanwhile)
        finally:
            child.kill_group()
        return child.text()

    def manage(self, *arguments: str) -> str:
        """What ``manage.py ...`` printed in this fleet's environment."""
        return self.run_once("manage", [sys.executable, "manage.py", *arguments])

    def mshactl(
        self, *arguments: str, role: str = "admin", timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """What ``mshactl ...`` did, with the token of that role."""
        environment = self._plain_environment()
        environment |= {"MSHA_URL": self.console_url, "MSHA_TOKEN": self.logins[role].token}
        argv = [sys.executable, "-m", "msha.cli", *arguments]
        return subprocess.run(
            argv,
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    # -- how each is run --

    def console_environment(self) -> dict[str, str]:
        """The variables of the console, the worker, beat and management commands."""
        database = self.plan.database_url or f"sqlite:///{self.directory / 'msha.sqlite3'}"
        return {
            **self._plain_environment(),
            "DJANGO_SETTINGS_MODULE": "msha.settings",
            "MSHA_DEMO": "1",
            "MSHA_SECRET_KEY": (self.directory / "secret-key").read_text(),
            "MSHA_DATABASE_URL": database,
            "MSHA_CONSOLE_URL": self.console_url,
            "MSHA_SLB_INVENTORY": str(self.directory / "slb-inventory.yaml"),
            "REDIS_URL": self.redis_url,
            **self.plan.environment,
        }

    @staticmethod
    def _plain_environment() -> dict[str, str]:
        """Ours without what configures another installation."""
        ours = {
            k: v for k, v in os.environ.items() if not k.startswith(("MSHA_", "DJANGO_", "CELERY_", "REDIS_"))
        }
        return {**ours, "PYTHONUNBUFFERED": "1"}

    def _prepare(self) -> None:
        directory = self.directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)  # tokens, passwords, the key
        _write_once(directory / "secret-key", secrets.token_urlsafe(50))
        _write_yaml(directory / "topology.yaml", self.plan.topology())
        _write_yaml(directory / "slb-inventory.yaml", self.plan.slb_inventory())
        if not self.plan.redis_url:
            self._redis_socket = redis_server.socket_path(directory)
            self.redis_url = f"unix://{self._redis_socket}"
        self.children = {child.name: child for child in self._make_children()}

    def _make_children(self) -> Iterable[Child]:
        if self._redis_socket is not None:
            path = self._redis_socket
            yield self._child(
                "redis", redis_server.command(redis_server.binary(), path), self._plain_environment()
            )
            self._gates["redis"] = lambda _: redis_server.answers(path)
        yield from self._make_control_plane()
        for unit in self.plan.units:
            yield from self._make_edges(unit)
            yield from self._make_sources(unit)
        if self.plan.clients:
            yield self._child("clients", self._clients_argv(), self._plain_environment())
            self._gates["clients"] = lambda it: "clients are connected" in it.text()

    def _make_control_plane(self) -> Iterable[Child]:
        environment = self.console_environment()
        console = self.plan.console
        python = [sys.executable, "-m"]
        daphne = ["daphne", "--bind", console.host, "--port", str(console.port), "msha.asgi:application"]
        yield self._child("console", [*python, *daphne], environment)
        self._gates["console"] = lambda _: _http_status(f"{self.console_url}/admin/login/") == 200
        celery = [*python, "celery", "--app", "msha", "--quiet"]
        worker = [
            "worker",
            "--concurrency",
            "2",
            "--loglevel",
            "INFO",
            "--without-gossip",
            "--without-mingle",
        ]
        # Said at every start to whoever is root, as one is in a container.
        calm = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}
        yield self._child("worker", [*celery, *worker], environment | calm)
        self._gates["worker"] = lambda it: " ready." in it.text()
        schedule = str(self.directory / "celerybeat-schedule")
        beat = ["beat", "--loglevel", "INFO", "--schedule", schedule, "--pidfile="]
        yield self._child("beat", [*celery, *beat], environment)
        self._gates["beat"] = lambda it: "beat: Starting" in it.text()

    def _make_edges(self, unit: UnitPlan) -> Iterable[Child]:
        for name, address in zip(unit.edge_names, unit.edges, strict=True):
            options = {
                "--bind": str(address),
                "--control": self.plan.control_url,
                "--token-file": str(self.directory / f"{name.removeprefix('edge-')}.token"),
                "--state-dir": str(self.directory / name),
                "--workers": str(self.plan.edge_workers),
                "--metrics-bind": f"{address.host}:0",
            }
            words = [word for option in options.items() for word in option]
            argv = [sys.executable, "-m", "msha.edge", "run", *words]
            yield self._child(name, argv, self._plain_environment())
            self._gates[name] = lambda it: any(line.strip() == "ready" for line in it.text().splitlines())

    def _make_sources(self, unit: UnitPlan) -> Iterable[Child]:
        for name, address in zip(unit.back_source_names, unit.back_sources, strict=True):
            options = ["--city", unit.city, "--host", address.host, "--port", str(address.port)]
            options += ["--every-s", str(self.plan.every_s)]
            if self.plan.tick_s is not None:
                options += ["--tick-s", str(self.plan.tick_s)]
            argv = [sys.executable, "-m", "msha.demo.backsource", *options]
            yield self._child(name, argv, self._plain_environment())
            self._gates[name] = lambda it: "ready" in it.text()

    def _clients_argv(self) -> list[str]:
        edges = [word for unit in self.plan.units for word in ("--edge", f"{unit.code}={unit.edges[0]}")]
        options = ["--domain", self.plan.domain, "--count", str(self.plan.clients), *edges]
        return [sys.executable, "-m", "msha.demo.clients", *options]

    def _seed_argv(self) -> list[str]:
        nodes = [
            word
            for unit in self.plan.units
            for name in unit.edge_names
            for word in (
                "--node",
                f"{name}={unit.cluster}:{self.directory / name.removeprefix('edge-')}.token",
            )
        ]
        return [sys.executable, "-m", "msha.demo.seed", "--directory", str(self.directory), *nodes]

    # -- small steps --

    def _sources(self) -> list[str]:
        return [name for unit in self.plan.units for name in unit.back_source_names]

    def _log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def _child(self, name: str, argv: list[str], env: dict[str, str]) -> Child:
        return Child(name, argv, log=self._log(name), env=env, cwd=REPOSITORY)

    def _bring_up(self, names: list[str]) -> None:
        for name in names:
            self.children[name].start()
        self._wait(names)

    def _wait(self, names: list[str]) -> None:
        def look_around() -> None:
            self._meanwhile()
            for each in names:
                self.children[each].check_running()

        for name in names:
            child = self.children[name]
            waited_s = child.wait_until(self._gates[name], START_S, meanwhile=look_around)
            self._say(f"{name}: ready after {waited_s:.1f} s")

    def _refuse_taken_ports(self) -> None:
        wanted = {(address.host, address.port): purpose for address, purpose in self.plan.addresses()}
        taken = ports.taken(wanted)
        if taken:
            raise ports.PortsTaken(taken)


def _write_once(path: Path, text: str) -> None:
    if not path.exists():
        path.touch(0o600)
        path.write_text(text)


def _write_yaml(path: Path, document: object) -> None:
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))
