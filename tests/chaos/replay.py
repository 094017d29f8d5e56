"""`make replay`: the walk-through of the product's document under thousands of live sessions.

Clients 1111, 6249 and 8330 connect to the domain, which happens to resolve to Beijing. Then ids 5998 to 6380
move to Hangzhou: 6249 is disconnected once and is served there after its own retry time, and so is every
other client of these ids; 1111, 8330 and everybody else never miss a message.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from msha.demo.plan import NAMESPACE
from tests.chaos import evidence as evidence_of
from tests.chaos import figures
from tests.chaos.campaign import stop_in_order
from tests.chaos.checker import Verdict, judged
from tests.chaos.evidence import END, Evidence, Session
from tests.chaos.fleet import ChaosFleet
from tests.chaos.journal import Journal
from tests.chaos.swarm import Character
from tests.chaos.tables import BRANCH, CENTER, FIRST, SIZE, Table

NEW = Table.parse({CENTER: ["0~6380"], BRANCH: ["6381~9999"]})
#: Clients look up the domain in turn, and places 2 and 3 of four are Beijing's edges.
PLACES = {2: 6249, 3: 8330, 6: 1111}
CONNECTED_WITHIN_S = 120.0
BACK_WITHIN_S = 60.0
#: Of its own retry time and so much more, for two handshakes on a busy machine, each client has to be back.
BEYOND_RETRY_S = 3.0
LISTENED_S = 3.0


def population(count: int, dice: random.Random) -> list[Character]:
    """The three of the document, and others at even distances over the key space."""
    others = [
        Character(int(SIZE * (place + 0.5) / count), retry_s=dice.choice((0.5, 1.0, 1.5, 3.0)), every_s=2.0)
        for place in range(count)
    ]
    for place, router_id in PLACES.items():
        others.insert(place, Character(router_id, retry_s=1.5, every_s=0.25))
    return others


def replay(directory: Path, clients: int, say: Callable[[str], None]) -> int:
    """The exit code after the figures were printed."""
    characters = population(clients - len(PLACES), random.Random(11))
    with ExitStack() as stack:
        fleet = ChaosFleet(directory, characters)
        stack.callback(fleet.stop_all)
        fleet.start_all()
        journal = Journal(fleet.journal("operator"))
        journal.note("table", **FIRST.as_json())
        waited_s = _until_at_home(fleet, FIRST, CONNECTED_WITHIN_S)
        say(f"{len(characters)} clients are served by their units after {waited_s:.1f} s, in {directory}")
        time.sleep(LISTENED_S)
        journal.note("asked", cutover=1, moves=FIRST.moves_to(NEW))
        done = fleet.mshactl(
            *("cutover", "start", "-n", NAMESPACE, "--ranges", "center=0~6380,unbj=6381~9999"),
            *("--yes", "--wait", "-o", "json"),
            timeout_s=120.0,
        )
        if done.returncode != 0:
            say(done.stderr)
            return 1
        printed = json.loads(done.stdout)
        facts = {key: printed[key] for key in ("ending", "turns", "frozen_ms")}
        journal.note("ended", cutover=1, printed=printed["phase"], **facts)
        _until_at_home(fleet, NEW, BACK_WITHIN_S)
        journal.note("well")
        time.sleep(LISTENED_S)
        journal.note("over")
    evidence = evidence_of.read(directory)
    verdict = judged(evidence)
    faults = [*map(str, verdict.violations), *_deviations(evidence)]
    for line in _report(evidence, verdict, facts["frozen_ms"], faults):
        say(line)
    return 1 if faults else 0


def _until_at_home(fleet: ChaosFleet, table: Table, within_s: float) -> float:
    """The seconds until every client was served by the unit of its id."""
    began = time.monotonic()
    while True:
        away = [(router_id, unit) for router_id, unit in fleet.where() if unit != table.owner(router_id)]
        if not away:
            return time.monotonic() - began
        if time.monotonic() - began > within_s:
            raise TimeoutError(f"{len(away)} clients are elsewhere after {within_s:.0f} s, as {away[:5]}")
        time.sleep(0.1)


def _deviations(evidence: Evidence) -> Iterator[str]:
    """How what each client went through differs from the document."""
    for client, sessions in evidence.client_sessions().items():
        character = evidence.characters[client]
        router_id = character["router_id"]
        if FIRST.owner(router_id) == NEW.owner(router_id):
            yield from _disturbed(router_id, sessions)
        else:
            yield from _badly_moved(router_id, sessions, character["retry_s"])
    came = {it["router_id"]: client for client, it in evidence.characters.items() if client in PLACES}
    expected = {1111: 1, 6249: 1, 8330: 0}
    for router_id, client in came.items():
        redirects = sum(one == client for _, one, _ in evidence.redirects)
        if redirects != expected[router_id]:
            yield f"client {router_id} was redirected {redirects} times instead of {expected[router_id]}"


def _disturbed(router_id: int, sessions: Sequence[Session]) -> Iterator[str]:
    if len(sessions) != 1 or sessions[0].closed < END:
        yield f"client {router_id}, which does not move, had {len(sessions)} sessions"
    elif sessions[0].last_answer < sessions[0].last_sent - 1:
        yield f"client {router_id} misses answers after the {sessions[0].last_answer}th"


def _badly_moved(router_id: int, sessions: Sequence[Session], retry_s: float) -> Iterator[str]:
    if [session.unit for session in sessions] != [BRANCH, CENTER]:
        yield f"client {router_id} was served by {[session.unit for session in sessions]}"
        return
    before, after = sessions
    if before.code != 1012:
        yield f"client {router_id} was closed with {before.code}"
    if after.welcomed - before.closed > retry_s + BEYOND_RETRY_S:
        took_s = after.welcomed - before.closed
        yield f"client {router_id} was back after {took_s:.2f} s, its retry time is {retry_s} s"


def _report(evidence: Evidence, verdict: Verdict, frozen_ms: int, faults: Sequence[str]) -> Iterator[str]:
    ids = [it["router_id"] for it in evidence.characters.values()]
    moved = [router_id for router_id in ids if FIRST.owner(router_id) != NEW.owner(router_id)]
    closed = [it.closed for it in evidence.sessions.values() if it.closed < END]
    yield f"clients             {len(evidence.characters)}, of which {len(moved)} move"
    within_ms = 1000 * (max(closed) - min(closed)) if closed else 0
    yield f"sessions closed     {len(closed)}, within {within_ms:.0f} ms"
    yield f"frozen at most      {frozen_ms} ms"
    yield f"back after          {figures.spread(verdict.back_s)}"
    yield f"  beyond own retry  {figures.spread(verdict.back_late_s)}"
    yield f"messages            {verdict.messages}, all answered in order" if not faults else "violations"
    yield from (f"  {fault}" for fault in faults[: figures.MOST_SHOWN])
    yield f"violations          {len(faults)}"


@click.command()
@click.option("--clients", default=2000, show_default=True, envvar="CLIENTS", type=click.IntRange(10, 9000))
@click.option("--with-parent", is_flag=True, help="Stop, too, when the process that started this one ends.")
@click.option(
    "--directory", type=click.Path(path_type=Path), default=None, help="Kept; default: a temporary one."
)
def main(clients: int, with_parent: bool, directory: Path | None) -> None:
    """Replay it; exit code 1 on any deviation."""
    stop_in_order(with_parent)
    kept = directory or Path(tempfile.mkdtemp(prefix="msha-replay-"))
    code = replay(kept, clients, lambda line: print(line, flush=True))
    if code == 0 and directory is None:
        figures.forget(kept)
    else:
        print(f"journals and logs are kept in {kept}", flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
