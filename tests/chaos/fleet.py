"""The fleet of a campaign: the product's own processes, and between and behind them what faults need.

Between each edge and the consoles lies a link that can be cut; behind the edges, one process is the
back-source of every unit; in front of them swarm the clients.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msha.demo import plan
from msha.demo.fleet import START_S, Edge, Fleet, _http_status
from msha.demo.plan import UnitPlan
from msha.demo.ports import free_ports
from msha.demo.processes import Child
from tests.chaos.asked import ask
from tests.chaos.swarm import Character
from tests.support.process_tree import descendants

_CLONE_NEWNS = 0x00020000
#: Room for some snapshots, and soon full.
STATE_BYTES = "2m"


def own_mounts() -> bool:
    """Whether this process, and what it starts, has mounts of its own now; they go with it."""
    if os.geteuid() != 0:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False).returncode == 0


class ChaosFleet(Fleet):
    """Two units with two edges each.

    Args:
        small_disks: each edge's state directory gets a small file system of its own; needs `own_mounts`.
    """

    def __init__(
        self,
        directory: Path,
        characters: Sequence[Character],
        *,
        consoles: int = 1,
        edges_per_unit: int = 2,
        edge_workers: int = 1,
        small_disks: bool = False,
        **options: Any,
    ) -> None:
        options |= {"edge_workers": edge_workers}
        super().__init__(plan.on_free_ports(directory, edges_per_unit=edges_per_unit, **options))
        self.characters = list(characters)
        self.small_disks = small_disks
        self.consoles = [self.plan.console]
        self.consoles += [plan.Address("127.0.0.1", port) for port in free_ports(consoles - 1)]
        names = [name for unit in self.plan.units for name in unit.edge_names]
        self._link_ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._born: dict[str, int] = {}

    # -- what it consists of

    @property
    def console_names(self) -> list[str]:
        return ["console", *(f"console-{number}" for number in range(2, len(self.consoles) + 1))]

    def start_all(self) -> None:
        super().start_all()
        self._bring_up(self.console_names[1:])
        self.start("swarm")

    def stop_all(self) -> None:
        from msha.demo.processes import stop

        if self.children:
            stop([self.children["swarm"]])
            stop([self.children[name] for name in self.console_names[1:]])
        super().stop_all()

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "characters.json").write_text(
            json.dumps([asdict(each) for each in self.characters])
        )
        for unit in self.plan.units if self.small_disks else ():
            for name in unit.edge_names:
                (self.directory / name).mkdir()
                tmpfs = ["mount", "-t", "tmpfs", "-o", f"size={STATE_BYTES},mode=700", "none"]
                subprocess.run([*tmpfs, str(self.directory / name)], check=True)
        super()._prepare()

    def _sources(self) -> list[str]:
        return ["links", "sources"]

    def _make_children(self) -> Iterable[Child]:
        yield from super()._make_children()
        ready = ("links", "sources")
        for name, argv in (
            ("links", self._links()),
            ("sources", self._back_sources()),
            ("swarm", self._swarm()),
        ):
            self._gates[name] = (
                (lambda it: "ready" in it.text()) if name in ready else lambda it: bool(it.text())
            )
            yield self._child(name, argv, self._plain_environment())

    def _make_control_plane(self) -> Iterable[Child]:
        yield from super()._make_control_plane()
        for name, address in zip(self.console_names[1:], self.consoles[1:], strict=True):
            daphne = [
                "-m",
                "daphne",
                "--bind",
                address.host,
                "--port",
                str(address.port),
                "msha.asgi:application",
            ]
            environment = self.console_environment() | {"MSHA_CONSOLE_URL": f"http://{address}"}
            yield self._child(name, [sys.executable, *daphne], environment)
            login = f"http://{address}/admin/login/"
            self._gates[name] = lambda _, login=login: _http_status(login) == 200  # type: ignore[misc]

    def _make_edges(self, unit: UnitPlan) -> Iterable[Child]:
        for child in super()._make_edges(unit):
            link = f"ws://127.0.0.1:{self._link_ports[child.name]}"
            argv = [link if word == self.plan.control_url else word for word in child.argv]
            yield self._child(child.name, argv, child.env)

    def _make_sources(self, unit: UnitPlan) -> Iterable[Child]:
        return ()

    def _links(self) -> list[str]:
        options = ["--state", str(self.directory / "links.sock")]
        options += [word for address in self.consoles for word in ("--console", str(address))]
        edges = [f"{name}={port}" for name, port in self._link_ports.items()]
        return [sys.executable, "-m", "tests.chaos.links", *options, *edges]

    def _back_sources(self) -> list[str]:
        addresses = [f"{unit.code}={address}" for unit in self.plan.units for address in unit.back_sources]
        words = ["--journal", str(self.journal("sources")), "--state", str(self.directory / "sources.sock")]
        return [sys.executable, "-m", "tests.chaos.sources", *words, *addresses]

    def _swarm(self) -> list[str]:
        options = {
            "--domain": self.plan.domain,
            "--characters": str(self.directory / "characters.json"),
            "--journal": str(self.journal("clients")),
            "--state": str(self.directory / "swarm.sock"),
        }
        edges = [f"{unit.code}={address}" for unit in self.plan.units for address in unit.edges]
        words = [word for option in options.items() for word in option]
        return [sys.executable, "-m", "tests.chaos.swarm", *words, *edges]

    def journal(self, name: str) -> Path:
        return self.directory / f"{name}.jsonl"

    # -- what is done to it

    def edge_named(self, name: str) -> Edge:
        return next(edge for edge in self.edges() if edge.name == name)

    def edges_of(self, unit: str) -> list[Edge]:
        return [edge for edge in self.edges() if edge.unit == unit]

    def link(self, edge: str, mode: str) -> None:
        """The edge's way to the consoles behaves so from now on."""
        ask(self.directory / "links.sock", f"{edge} {mode}")

    def back_sources_are(self, how: str) -> None:
        """``sluggish`` or ``quick`` in answering a Close."""
        ask(self.directory / "sources.sock", how)

    def where(self) -> list[tuple[int, str]]:
        """Of each client its id and the unit that serves it now, or ""."""
        return [(router_id, unit) for router_id, unit in ask(self.directory / "swarm.sock", "where")]

    def processes_of(self, name: str) -> set[int]:
        """The process and all below it."""
        child = self.children[name]
        return {child.pid, *descendants(child.pid)} if child.running else set()

    def revive(self, name: str) -> None:
        """The process runs again, its old log kept; whether it has answered is not waited for.

        An edge first waits for the workers of the agent before it, which hold its port and its directory.
        """
        child = self.children[name]
        if child.running:
            return
        self._born[name] = self._born.get(name, 0) + 1
        if child.log.exists():
            child.log.rename(child.log.with_suffix(f".{self._born[name]}.log"))
        child.start()

    def revive_all(self) -> list[str]:
        """The names of those that had ended; they run again."""
        ended = [
            name
            for name, child in self.children.items()
            if name not in ("seed", "manage") and not child.running
        ]
        for name in ended:
            self.revive(name)
        return ended

    def wait_for(self, name: str) -> None:
        """The process has answered."""
        deadline = time.monotonic() + START_S
        child = self.children[name]
        while not self._gates[name](child):
            child.check_running()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} did not answer: {child.last_lines()}")
            time.sleep(0.05)
