"""Decides from the journals alone whether ids were ever in two units (I1) and who was closed (I4).

It knows which ids were asked to move from when on, what was printed of the end, and which edges a fault hit.
Each rule is one that a correct product cannot break however slow the machine is: times of different journals
are only compared where one event must have come before the other.
"""

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import evidence as evidence_of
from tests.chaos.evidence import END, Ask, Evidence, Session, Trouble, Tunnel

#: A client is back so long after its retry time, the end and all healing: one hold, and a busy machine.
BACK_WITHIN_S = 8.0
#: Sessions of a killed edge end within this; what neither a fault nor a cutover explains is wrongly closed.
GRACE_S = 3.0
MOVED_CODE = 1012
#: Who comes back so late finds every edge of a unit told, if there is no fault.
PATIENT_S = 0.5
#: Who comes back so fast measures how long its id was frozen.
IMPATIENT_S = 0.1
#: An answer is late after so long, if its session lasts and no fault is about.
ANSWERED_WITHIN_S = 15.0
#: In a row, at rest and while one cutover runs (I3).
REDIRECTS_AT_REST, REDIRECTS_MOVING = 2, 3


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise that was broken."""

    rule: str
    at: float
    text: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.at:.3f}: {self.text}"


@dataclass
class Verdict:
    """What was found, and the figures of it.

    Attributes:
        closed: sessions by why they ended.
        frozen_s: per moved id, as its most impatient client and the back-sources saw it.
        back_s: of moved clients, from the Close to the next welcome; of cutovers without a fault, and of all.
    """

    violations: list[Violation] = field(default_factory=list)
    closed: Counter[str] = field(default_factory=Counter)
    wrongly_closed: int = 0
    sessions: int = 0
    tunnels: int = 0
    messages: int = 0
    asks: int = 0
    most_redirects: int = 0
    lag_s: float = 0.0
    frozen_seen_s: list[float] = field(default_factory=list)
    frozen_behind_s: list[float] = field(default_factory=list)
    frozen_calm_s: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    back_late_s: list[float] = field(default_factory=list)
    """Of `back_s` what is left after the client's own retry time."""


def judge(directory: Path) -> Verdict:
    """The verdict on the journals in the directory."""
    return judged(evidence_of.read(directory))


def judged(evidence: Evidence) -> Verdict:
    verdict = Verdict(
        sessions=len(evidence.sessions),
        tunnels=len(evidence.tunnels),
        messages=evidence.messages,
        asks=len(evidence.asks),
        lag_s=evidence.lag_s,
        most_redirects=max((n for _, _, n in evidence.redirects), default=0),
    )
    found = verdict.violations
    found.extend(_two_units_by_messages(evidence))
    found.extend(_two_units_behind(evidence))
    found.extend(_wrong_unit(evidence))
    found.extend(_outlived(evidence))
    found.extend(_closings(evidence, verdict))
    found.extend(_not_back(evidence, verdict))
    found.extend(_silent(evidence))
    found.extend(_circles(evidence))
    found.extend(Violation("messages", at, text) for at, text in evidence.oddities)
    found.extend(
        Violation("end", ask.at, f"cutover {ask.number} has no end")
        for ask in evidence.asks
        if not ask.ending
    )
    found.sort(key=lambda violation: violation.at)
    _measure_freezes(evidence, verdict)
    return verdict


# -- I1 ------------------------------------------------------------------------------------------------------


def _two_units_by_messages(evidence: Evidence) -> Iterator[Violation]:
    """Both ends' view: two sessions of an id that messages prove to have been open at once in two units."""
    by_id: dict[int, list[Session]] = defaultdict(list)
    for session in evidence.sessions.values():
        if session.unit and session.proven_until > session.opened:
            by_id[session.router_id].append(session)
    for router_id, sessions in by_id.items():
        open_in: dict[str, Session] = {}  # per unit the session that is proven to last longest
        for session in sorted(sessions, key=lambda it: it.opened):
            for unit, other in open_in.items():
                if unit != session.unit and other.proven_until > session.opened:
                    yield Violation(
                        "I1",
                        session.opened,
                        f"id {router_id} was served by {unit} (session {other.number}, until at least"
                        f" {other.proven_until:.3f}) and by {session.unit} (session {session.number})",
                    )
            longest = open_in.get(session.unit)
            if longest is None or longest.proven_until < session.proven_until:
                open_in[session.unit] = session


def _two_units_behind(evidence: Evidence) -> Iterator[Violation]:
    """The kernel's view behind the edges: a new tunnel while one of another unit had not been ended."""
    for tunnel in evidence.tunnels.values():
        for unit, number, state in tunnel.elsewhere if tunnel.alive else ():
            if state == "closing" and _lost(evidence, number, tunnel.at):
                continue  # nobody waits for its back-source any more
            yield Violation(
                "I1",
                tunnel.at,
                f"id {tunnel.router_id} had tunnel {tunnel.number} in {tunnel.unit}"
                f" while {number} in {unit} was {state}",
            )


def _lost(evidence: Evidence, tunnel: int, at: float) -> bool:
    """Whether a fault may have ended the edge of the tunnel by then."""
    session = evidence.sessions.get(evidence.tunnels[tunnel].session)
    return session is None or any(
        session.port in trouble.ports and trouble.at <= at <= trouble.until for trouble in evidence.troubles
    )


def _wrong_unit(evidence: Evidence) -> Iterator[Violation]:
    """A tunnel in a unit that could not have the id at that moment.

    Before a cutover is asked for and after its end there is one owner; in between an id goes from the losing
    to the gaining unit once, and once more for each turn. An aborted cutover never left the losing unit.
    """
    assert evidence.table is not None
    tunnels = sorted((tunnel for tunnel in evidence.tunnels.values() if tunnel.alive), key=lambda it: it.at)
    by_id: dict[int, list[Tunnel]] = defaultdict(list)
    for tunnel in tunnels:
        by_id[tunnel.router_id].append(tunnel)
    for router_id, some in by_id.items():
        asks = [(ask, move) for ask in evidence.asks if (move := ask.move_of(router_id))]
        owner, position = evidence.table.owner(router_id), 0
        for ask, (losing, gaining) in asks:
            while position < len(some) and some[position].at < ask.at:
                yield from _owned(some[position], owner)
                position += 1
            switches, last = 0, losing
            while position < len(some) and some[position].at <= ask.ended:
                unit = some[position].unit
                switches, last = (switches + 1, unit) if unit != last else (switches, last)
                position += 1
                if unit not in (losing, gaining) or switches > _switches(ask):
                    yield Violation(
                        "I1",
                        some[position - 1].at,
                        f"id {router_id} was taken to {unit} in cutover {ask.number} ({ask.ending}), which is"
                        f" {switches} changes of its unit",
                    )
            if _moved(ask):
                owner = gaining
        for tunnel in some[position:]:
            yield from _owned(tunnel, owner)


def _owned(tunnel: Tunnel, owner: str) -> Iterator[Violation]:
    if tunnel.unit != owner:
        yield Violation(
            "I1", tunnel.at, f"id {tunnel.router_id} was taken to {tunnel.unit} while it belonged to {owner}"
        )


def _switches(ask: Ask) -> int:
    """How often an id may change its unit in the course of a cutover."""
    return 0 if ask.ending in ("aborted", "stale") else 1 + ask.turns


def _moved(ask: Ask) -> bool:
    return ask.ending == "done"


def _outlived(evidence: Evidence) -> Iterator[Violation]:
    """I4, all of them: a session that was still served where the id was taken away, after the end."""
    for session in evidence.sessions.values():
        for ask in evidence.asks:
            if session.opened > ask.ended or session.proven_until <= ask.ended or not ask.ending:
                continue
            move = ask.move_of(session.router_id)
            if move and session.unit == (move[0] if _moved(ask) else move[1]):
                yield Violation(
                    "I4",
                    ask.ended,
                    f"session {session.number} of id {session.router_id} was served by {session.unit} after"
                    f" cutover {ask.number} ended as {ask.ending}",
                )


# -- I4 ------------------------------------------------------------------------------------------------------


def _closings(evidence: Evidence, verdict: Verdict) -> Iterator[Violation]:
    """Every session that its client did not end is explained by one cutover, once, or by a fault."""
    times: Counter[tuple[int, int, int]] = Counter()
    calm = {ask.number for ask in _calm(evidence)}
    for session in evidence.sessions.values():
        if session.by == "self" or session.left < session.closed or session.closed >= evidence.over:
            verdict.closed["by the client" if session.closed < END else "not"] += 1
            continue
        if any(_ends(trouble, session) for trouble in evidence.troubles):
            verdict.closed["fault"] += 1  # whatever code it was closed with: a worker that has lost its agent
            continue
        ask = _ask_that_closes(evidence, session)
        if ask is not None:
            verdict.closed["moved"] += 1
            # An edge that has frozen an id takes it no more. Another one of its unit may be told a little
            # later, so that a client may be closed there again that comes back before that.
            patient = evidence.characters[session.client]["retry_s"] >= PATIENT_S and ask.number in calm
            key = ask.number, session.client, 0 if patient else session.port
            times[key] += 1
            if times[key] > 1 + ask.turns:
                where = "" if patient else f" at port {session.port}"
                yield Violation(
                    "I4",
                    session.closed,
                    f"client {session.client} was closed {times[key]} times by cutover {ask.number}{where}",
                )
        else:
            verdict.closed["wrongly"] += 1
            verdict.wrongly_closed += 1
            yield Violation(
                "I4",
                session.closed,
                f"session {session.number} of id {session.router_id} in {session.unit or 'no unit'} (port"
                f" {session.port}) was closed with {session.code}, which nothing explains",
            )


def _ask_that_closes(evidence: Evidence, session: Session) -> Ask | None:
    """The cutover that closed the session: it runs, moves the id, and closes with its own code."""
    for ask in evidence.asks:
        if not ask.at <= session.closed <= ask.until or session.code != MOVED_CODE or ask.ending == "stale":
            continue
        move = ask.move_of(session.router_id)
        # A session that ended before its welcome was there is in the one or the other.
        if move and (session.unit in (move[0], "") or (session.unit == move[1] and ask.turns)):
            return ask
    return None


def _ends(trouble: Trouble, session: Session) -> bool:
    return session.port in trouble.ports and trouble.at <= session.closed <= max(
        trouble.at + GRACE_S, min(trouble.until, trouble.healed + GRACE_S)
    )


# -- coming back, being answered, going in circles -----------------------------------------------------------


def _not_back(evidence: Evidence, verdict: Verdict) -> Iterator[Violation]:
    """Every client whose session was ended is served again within its own retry time and a bound."""
    calm = {ask.number for ask in _calm(evidence)}
    for client, sessions in evidence.client_sessions().items():
        retry_s = evidence.characters[client]["retry_s"]
        welcomes = sorted(session.welcomed for session in sessions if session.welcomed < END)
        for session in sessions:
            if session.closed >= evidence.over or session.by != "peer":
                continue
            index = bisect.bisect_right(welcomes, session.closed)
            back = welcomes[index] if index < len(welcomes) else END
            due = max([session.closed, *_excuses(evidence, session.closed)]) + retry_s + BACK_WITHIN_S
            if min(back, evidence.over) > due:
                told = f"client {client} (id {session.router_id}) was not back by {due:.3f}"
                yield Violation("back", session.closed, told)
            ask = _ask_that_closes(evidence, session)
            if ask is not None and back < END and ask.number in calm:
                verdict.back_s.append(back - session.closed)
                verdict.back_late_s.append(back - session.closed - retry_s)


def _calm(evidence: Evidence) -> list[Ask]:
    """The cutovers in whose course there was no fault."""
    return [ask for ask in evidence.asks if not any(_touches(trouble, ask) for trouble in evidence.troubles)]


def _touches(trouble: Trouble, ask: Ask) -> bool:
    return trouble.at <= ask.until and trouble.until >= ask.at


def _excuses(evidence: Evidence, closed: float) -> Iterator[float]:
    """Until when a client closed then may have to wait: the ends of cutovers and faults about it."""
    for ask in evidence.asks:
        if ask.at <= closed + BACK_WITHIN_S and closed <= ask.until:
            yield ask.ended if ask.ended < END else closed
    for trouble in evidence.troubles:
        if trouble.at <= closed + BACK_WITHIN_S and closed <= trouble.until:
            yield trouble.healed if trouble.healed < END else closed


def _silent(evidence: Evidence) -> Iterator[Violation]:
    """A session at the end whose messages are not answered any more."""
    for session in evidence.sessions.values():
        waits = session.last_sent > session.last_answer and session.closed >= evidence.over
        if waits and evidence.over - session.last_sent_at > ANSWERED_WITHIN_S:
            yield Violation("messages", session.last_sent_at, f"session {session.number} is not answered")


def _circles(evidence: Evidence) -> Iterator[Violation]:
    """I3: redirects in a row, at rest and while one cutover runs."""
    for at, client, count in evidence.redirects:
        running = [ask for ask in evidence.asks if ask.at <= at <= ask.until]
        limit = REDIRECTS_MOVING if running else REDIRECTS_AT_REST
        if count > limit + sum(ask.turns for ask in running):
            yield Violation("I3", at, f"client {client} was redirected {count} times in a row")


# -- figures -------------------------------------------------------------------------------------------------


def _measure_freezes(evidence: Evidence, verdict: Verdict) -> None:
    """Per cutover and id how long nobody served it, for its most impatient client and behind the edges."""
    impatient = {
        client
        for client, it in evidence.characters.items()
        if it["retry_s"] <= IMPATIENT_S and not it["life_s"]
    }
    calm = {ask.number for ask in _calm(evidence)}
    last: dict[tuple[int, int], float] = {}
    opened: dict[int, list[float]] = defaultdict(list)
    for session in evidence.sessions.values():
        opened[session.router_id].append(session.opened)
        if session.client not in impatient:
            continue
        ask = _ask_that_closes(evidence, session) if session.by == "peer" else None
        if ask is not None:
            key = ask.number, session.router_id
            last[key] = max(last.get(key, 0.0), session.closed)
    seen = {}
    for key, closed in last.items():
        later = [at for at in opened[key[1]] if at > closed]
        if later:
            seen[key] = min(later) - closed
    verdict.frozen_seen_s = list(seen.values())
    verdict.frozen_calm_s = [value for (number, _), value in seen.items() if number in calm]
    verdict.frozen_behind_s = list(_behind(evidence, seen))


def _behind(evidence: Evidence, keys: Iterable[tuple[int, int]]) -> Iterator[float]:
    """The same from behind the edges: from the last end in the losing unit to the next tunnel anywhere."""
    by_id: dict[int, list[Tunnel]] = defaultdict(list)
    for tunnel in evidence.tunnels.values():
        by_id[tunnel.router_id].append(tunnel)
    asks = {ask.number: ask for ask in evidence.asks}
    for number, router_id in keys:
        ask = asks[number]
        ended = [it.ended for it in by_id[router_id] if ask.at <= it.ended <= ask.until and it.at < ask.at]
        begun = [it.at for it in by_id[router_id] if ask.at < it.at <= ask.until and it.alive]
        begun = [at for at in begun if at > max(ended, default=END)]
        if begun:
            yield min(begun) - max(ended)
