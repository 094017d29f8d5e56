"""`make chaos`: cutovers back and forth in one fleet under load, most with a fault, judged by the journals.

The campaign strikes, heals, and acts as an operator would; whether the product kept its promises is decided
by `tests.chaos.checker` from the journals alone. What it asserts itself, after each cutover, is that it
ended, that the table in effect is the old one or the new one, and that the fleet gets well.
"""

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from msha.demo.processes import Child, end_with_parent
from tests.chaos import faults, figures
from tests.chaos.checker import judge
from tests.chaos.faults import BEFORE, Fault, Scene
from tests.chaos.fleet import ChaosFleet, own_mounts
from tests.chaos.journal import Journal
from tests.chaos.operating import NoAnswer, Operator
from tests.chaos.swarm import Character
from tests.chaos.tables import FIRST, MOVING, SIZE, Table, another
from tests.chaos.watching import Seen, Watch, opener

#: After the last fault was healed a cutover ends by itself, or by what an operator may do, within this time.
ENDS_WITHIN_S = 60.0
#: After that every process answers and every client is where it belongs.
WELL_WITHIN_S = 60.0
#: An operator acts when a step has waited so long.
OPERATOR_PATIENCE_S = 13.0
OPEN = ("draft", "previewed", "checking", "checked")
ENDED = ("done", "aborted", "discarded")


class Broken(Exception):
    """The campaign cannot go on: the product did not do what it promises."""


@dataclass
class Options:
    """What is asked of a campaign."""

    cutovers: int = 200
    seed: int = 1
    clients: int = 200
    consoles: int = 1
    edge_workers: int = 1
    kinds: Sequence[str] = ()
    calm: float = 0.25
    """Share of the cutovers without any fault."""
    away_s: float = 60.0
    script: Sequence[str] = ()
    """Kinds to strike in this order, one per cutover, instead of drawn ones."""
    database_url: str | None = None
    postgres: Child | None = None
    minutes: float = 0.0
    """Begin no cutover after so long; 0 for no limit."""


@dataclass
class Course:
    """What a campaign did, as it goes into the figures."""

    endings: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    frozen_ms: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def population(count: int, dice: random.Random) -> list[Character]:
    """Clients over the whole key space, half of them in the ids that move; some ids have two."""
    moving = [dice.randrange(MOVING.start, MOVING.stop) for _ in range(count // 2)]
    still = [one for one in (dice.randrange(SIZE) for _ in range(count * 3)) if one not in MOVING]
    ids = [*moving, *still[: count - len(moving)]]
    ids[1::4] = ids[0::4][: len(ids[1::4])]  # twins
    return [_character(router_id, dice) for router_id in ids]


def _character(router_id: int, dice: random.Random) -> Character:
    kind = dice.random()
    if kind < 0.25:  # impatient: it knocks while its id is frozen, and measures for how long
        return Character(router_id, retry_s=0.01, every_s=0.2, keeps=dice.random() < 0.5)
    if kind < 0.40:  # restless: handshakes are under way at every moment
        return Character(router_id, retry_s=0.05, every_s=0.3, life_s=dice.uniform(0.5, 3), keeps=False)
    return Character(router_id, retry_s=dice.choice((0.5, 1.5)), every_s=1.0, keeps=dice.random() < 0.7)


class Campaign:
    """One fleet, its operator, and one cutover after the other."""

    def __init__(self, fleet: ChaosFleet, options: Options, say: Any = print) -> None:
        self.fleet = fleet
        self.options = options
        self.dice = random.Random(options.seed)
        self.journal = Journal(fleet.journal("operator"))
        self.operator = Operator(fleet, self.journal)
        self.course = Course()
        self.table = FIRST
        self.known = sorted({it.router_id for it in fleet.characters} & set(MOVING))
        self.numbers: list[int] = []
        self.say = say
        self._connect = opener(options.database_url, fleet.directory / "msha.sqlite3")

    def run(self) -> Course:
        """What happened; problems that stopped it are in it."""
        began = time.monotonic()
        self.journal.note("table", **self.table.as_json())
        try:
            self.get_well([])
            for index in range(self.options.cutovers):
                if self.options.minutes and time.monotonic() - began > self.options.minutes * 60:
                    break
                self.one(index)
        except (Broken, NoAnswer) as broken:
            self.course.problems.append(str(broken))
            self.journal.note("broken", why=str(broken))
            self.say(f"BROKEN: {broken}")
        time.sleep(2.5)  # what is still on its way arrives, and who is closed comes back
        self.journal.note("over")
        self.operator.close()
        self.journal.close()
        return self.course

    # -- one cutover

    def one(self, index: int) -> None:
        """A cutover has ended, its fault is healed, and everything is well again."""
        began = time.monotonic()
        dice = random.Random(f"{self.options.seed}/{index}")  # threads draw, too: their order must not matter
        new = another(self.table, dice, self.known)
        moves = self.table.moves_to(new)
        number = self.operator.prepare(new)
        self.numbers.append(number)
        struck = self._drawn(index, number, moves, dice)
        for fault in struck:
            if fault.at == BEFORE:
                fault.strike(self.journal)
        self.operator.ask_for(number, moves)
        by_step = [fault for fault in struck if fault.at != BEFORE]

        timers: list[threading.Timer] = []

        def told(seen: Seen) -> None:
            for fault in by_step:
                if fault.at == seen[0] and not fault.struck_at:
                    timers.append(threading.Timer(fault.after_s, fault.strike, (self.journal,)))
                    timers[-1].start()

        with Watch(self._connect, number, told) as watch:
            self.operator.start(number)
            status = self._ended(number, struck, watch)
        for timer in timers:
            timer.join()
        self._conclude(number, status, new, watch)
        self.get_well(struck)
        took_s = time.monotonic() - began
        self.course.seconds.append(took_s)
        self._tell(index, struck, status, took_s, sum(last + 1 - first for first, last, _, _ in moves))

    def _drawn(self, index: int, number: int, moves: Sequence[Any], dice: random.Random) -> list[Fault]:
        losing = {move[2] for move in moves}
        gaining = {move[3] for move in moves}
        scene = Scene(
            self.fleet,
            self.journal,
            dice,
            [edge for edge in self.fleet.edges() if edge.unit in losing],
            [edge for edge in self.fleet.edges() if edge.unit in gaining],
            number,
            range(1, number + 1),
            self.options.postgres,
            self.options.away_s,
            lambda name: self.operator.act(number, name),
            self.operator.publish,
        )
        if self.options.script:
            wanted = self.options.script[index % len(self.options.script)]
            return [faults.KINDS[name](scene) for name in wanted.split("+") if name != "none"]
        if dice.random() < self.options.calm:
            return []
        return faults.draw(scene, self.options.kinds or list(faults.KINDS))

    def _ended(self, number: int, struck: Sequence[Fault], watch: Watch) -> dict[str, Any]:
        """The status after the end; faults are healed in time, and an operator acts where a step waits."""
        began = time.monotonic()
        acted = 0.0
        while watch.state not in ENDED:
            self._heal_due(struck)
            now = time.monotonic()
            last = max([began, *(fault.struck_at + fault.lasts_s for fault in struck if fault.struck_at)])
            waited = now - (watch.seen[-1][0] if watch.seen else began)
            if waited > OPERATOR_PATIENCE_S and now - acted > 5.0:
                acted = now
                self._help(number)
            if now - last > ENDS_WITHIN_S:
                status = self.operator.status(number, 5.0)
                raise Broken(
                    f"cutover {number} is {status['phase']} for ever: {status['waiting']} {status['alarm']}"
                )
            time.sleep(0.02)
        return self.operator.status(number)

    def _help(self, number: int) -> None:
        """What an operator does who sees the alarm of a step that waits."""
        try:
            status = self.operator.status(number, 1.0)
        except NoAnswer:
            return
        choices = [
            act
            for act, key in (("turn-around", "turn_around"), ("finish", "finish"))
            if status["actions"][key]
        ]
        if not choices or self.dice.random() < 0.3:
            return
        act = self.dice.choice(choices)
        code, said = self.operator.command("cutover", act, str(number), "--reason", "campaign")
        # No answer is no refusal: the judge must reckon with an act that was perhaps heard.
        self.journal.note(
            "act", cutover=number, name=act, accepted=code == 0 or "refused" not in said, why=said
        )

    def _heal_due(self, struck: Sequence[Fault]) -> None:
        for fault in struck:
            if fault.due:
                fault.heal(self.journal)

    def _conclude(self, number: int, status: dict[str, Any], new: Table, watch: Watch) -> None:
        """The journal has what the product said of the end, and the table in effect is one of the two."""
        effective = self.operator.table()
        expected = new if status["phase"] == "done" else self.table
        ending = "stale" if status["ending"] is None and status["phase"] == "aborted" else status["ending"]
        self.journal.note(
            "ended",
            cutover=number,
            printed=status["phase"],
            ending=ending,
            turns=status["turns"],
            frozen_ms=status["frozen_ms"],
            outcome=status["outcome"],
            steps=[(round(at, 4), *seen) for at, seen in watch.seen],
        )
        if effective.moves_to(expected):
            wrong = effective.moves_to(expected)
            raise Broken(f"cutover {number} ended as {status['phase']}, but in effect differs {wrong}")
        self.table = expected
        self.course.endings[str(ending)] += 1
        if status["frozen_ms"] is not None:
            self.course.frozen_ms.append(int(status["frozen_ms"]))

    # -- getting well

    def get_well(self, struck: Sequence[Fault]) -> None:
        """Every fault is healed, every process answers, every edge obeys, every client is where it belongs.

        Raises:
            Broken: it did not become so in time.
        """
        while any(fault.struck_at and not fault.healed for fault in struck):
            self._heal_due(struck)
            time.sleep(0.02)
        for fault in struck:
            self.course.faults[fault.kind if fault.struck_at else f"{fault.kind} (came too late)"] += 1
        deadline = time.monotonic() + WELL_WITHIN_S
        while (ailing := self._ailing()) and time.monotonic() < deadline:
            self.fleet.revive_all()
            time.sleep(0.1)
        if ailing:
            raise Broken(f"after {WELL_WITHIN_S:.0f} s without a fault still {ailing}")
        self.journal.note("well")

    def _ailing(self) -> str:
        """What is not well yet, or ""."""
        down = [name for name, child in self.fleet.children.items() if not child.running]
        down = [name for name in down if name not in ("seed", "manage")]
        if down:
            return f"down: {down}"
        try:
            known = self.operator.nodes(within_s=2.0)
        except NoAnswer as error:
            return str(error)
        for node in known["nodes"]:
            if not (node["live"] and node["listening"] and node["applied_version"] == known["version"]):
                return f"{node['name']} is not well: {json.dumps(node, default=str)}"
        lost = [
            (router_id, unit) for router_id, unit in self.fleet.where() if unit != self.table.owner(router_id)
        ]
        return f"{len(lost)} clients are elsewhere, as {lost[:5]}" if lost else ""

    def _tell(
        self, index: int, struck: Sequence[Fault], status: dict[str, Any], took_s: float, moved: int
    ) -> None:
        named = (
            ", ".join(f"{it.kind} in {it.at}{'' if it.struck_at else ' (too late)'}" for it in struck)
            or "no fault"
        )
        self.say(
            f"{index + 1:4d}  {status['ending'] or status['phase']:8s} {moved:5d} ids"
            f"  frozen {status['frozen_ms'] or 0:6d} ms  {took_s:5.1f} s  {named}"
        )


def run(options: Options, directory: Path, say: Any = print) -> int:
    """The exit code after the figures were printed."""
    mounts = own_mounts()
    characters = population(options.clients, random.Random(options.seed))
    with ExitStack() as stack:
        if options.database_url == "postgres":
            options.database_url, options.postgres = stack.enter_context(figures.postgres())
        fleet = ChaosFleet(
            directory,
            characters,
            consoles=options.consoles,
            edge_workers=options.edge_workers,
            small_disks=mounts,
            database_url=options.database_url,
        )
        stack.callback(fleet.stop_all)
        fleet.start_all()
        size = f"{options.clients} clients, 4 edges, {options.consoles} consoles"
        say(f"{size}, seed {options.seed}, in {directory}")
        course = Campaign(fleet, options, say).run()
    verdict = judge(directory)
    for line in figures.report(course, verdict):
        say(line)
    return 1 if verdict.violations or course.problems else 0


@click.command()
@click.option("--cutovers", default=200, show_default=True, envvar="CUTOVERS")
@click.option("--seed", default=None, type=int, envvar="SEED", help="Default: a new one, which is printed.")
@click.option(
    "--faults", "kinds", default="", envvar="FAULTS", help="Kinds, separated by commas; default: all."
)
@click.option(
    "--script", default="", envvar="SCRIPT", help="Kinds in this order, one per cutover; a+b for two."
)
@click.option("--clients", default=200, show_default=True, envvar="CLIENTS")
@click.option("--consoles", default=2, show_default=True, envvar="CONSOLES")
@click.option("--edge-workers", default=1, show_default=True, envvar="EDGE_WORKERS")
@click.option("--database", type=click.Choice(["sqlite", "postgres"]), default="sqlite", envvar="DATABASE")
@click.option(
    "--away-s", default=60.0, show_default=True, envvar="AWAY_S", help="Longest time without database."
)
@click.option("--minutes", default=0.0, envvar="MINUTES", help="Begin no cutover after so long.")
@click.option("--with-parent", is_flag=True, help="Stop, too, when the process that started this one ends.")
@click.option(
    "--directory", type=click.Path(path_type=Path), default=None, help="Kept; default: a temporary one."
)
def main(
    kinds: str,
    script: str,
    seed: int | None,
    database: str,
    directory: Path | None,
    with_parent: bool,
    **rest: Any,
) -> None:
    """Run a campaign; exit code 1 on any violation."""
    unknown = {
        name for name in (*_words(kinds), *_words(script.replace("+", ","))) if name not in faults.KINDS
    }
    unknown -= {"none"}
    if unknown:
        raise click.BadParameter(
            f"no faults: {', '.join(sorted(unknown))}; there are {', '.join(faults.KINDS)}"
        )
    options = Options(
        seed=random.SystemRandom().randrange(1 << 31) if seed is None else seed,
        kinds=_words(kinds),
        script=_words(script),
        database_url="postgres" if database == "postgres" else None,
        **rest,
    )
    stop_in_order(with_parent)
    kept = directory or Path(tempfile.mkdtemp(prefix="msha-chaos-"))
    code = run(options, kept, lambda line: print(line, flush=True))
    if code == 0 and directory is None:
        figures.forget(kept)
    else:
        print(f"journals and logs are kept in {kept}", flush=True)
    sys.exit(code)


def stop_in_order(with_parent: bool) -> None:
    """SIGTERM stops what was started, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(1))
    if with_parent:
        end_with_parent()


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


if __name__ == "__main__":
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    main()
