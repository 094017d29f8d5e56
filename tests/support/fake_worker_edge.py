"""An edge whose workers do what a test wants: ``python fake_worker_edge.py run …`` with a real agent.

Without an instruction these workers are well-behaved but serve nobody. Instructions are files in the
directory ``FAKE_WORKERS``: ``refuse`` holds the version that is refused, ``mute`` the version that is never
answered by the worker that finds the file first, ``undrained`` the pid of a worker that never says drained,
``deaf`` makes workers outlive their agent, ``stillborn`` makes them exit at once, ``quiet`` stops their
statistics.
"""

import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msha.edge import __main__ as edge
from msha.edge.node.process import WorkerCommand
from msha.edge.session.tally import Tally

FOLDER = Path(os.environ["FAKE_WORKERS"])


def instruction(name: str) -> str | None:
    try:
        return (FOLDER / name).read_text()
    except OSError:
        return None


def taken(name: str) -> bool:
    """Whether the instruction was for us: one worker removes the file, the others find it gone."""
    try:
        (FOLDER / name).unlink()
    except FileNotFoundError:
        return False
    return True


class FakeWorker:
    def __init__(self, ipc_fd: int) -> None:
        self.agent = socket.socket(fileno=ipc_fd)
        self.epoch = -1

    def say(self, word: str, **fields: Any) -> None:
        self.agent.sendall(json.dumps({"is": word, **fields}).encode() + b"\n")

    def run(self) -> None:
        if instruction("stillborn") is not None:
            sys.exit("no life in it")
        self.say("started", pid=os.getpid())
        buffer, next_stats = b"", 0.0
        while True:
            if time.monotonic() >= next_stats and instruction("quiet") is None:
                next_stats = time.monotonic() + 0.3
                figures = {"sessions": 0, "half_open": 0, "held": 0, "counters": {}, "by_phase": {}}
                self.say("stats", **figures, tally=Tally().said(), lag_s=0.0, report=0)
            if not select.select([self.agent], [], [], 0.1)[0]:
                continue
            data = self.agent.recv(1 << 20)
            if not data:
                while instruction("deaf") is not None:
                    time.sleep(0.05)
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self.obey(json.loads(line))

    def obey(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "apply":
                self.apply(order)
            case "listen":
                self.say("listening", port=0)
            case "park":
                self.say("parked")
            case "drain":
                self.say("empty")
            case "exit":
                sys.exit(0)

    def apply(self, order: dict[str, Any]) -> None:
        version = order["version"]
        if instruction("refuse") == str(version):
            self.say("refused", version=version, reason="not this one")
            return
        if instruction("mute") == str(version) and taken("mute"):
            time.sleep(60)
        self.epoch = json.loads(order["body"])["rule"]["epoch"]
        self.say("applied", version=version, digest=order["digest"], epoch=self.epoch)
        if instruction("undrained") != str(os.getpid()):
            self.say("drained", epoch=self.epoch)


def command(access_log: str, lock_fd: int | None, words: Sequence[str]) -> WorkerCommand:
    return lambda ipc_fd, address, unit: [sys.executable, __file__, "worker", str(ipc_fd)]


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        FakeWorker(int(sys.argv[2])).run()
    else:
        edge.worker_command = command
        sys.exit(edge.main())
