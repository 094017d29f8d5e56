"""The journals of a campaign as sessions, tunnels, cutovers and faults; nothing of the product is known here.

A *session* is a client's connection from the moment its 101 was there; a *tunnel* is the connection behind
an edge that a back-source saw. What happened between the two is bounded by what both ends saw: a message that
the client sent at one time and the back-source got at another was carried in between, so the session was open
then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.journal import Line, lines
from tests.chaos.tables import Move, Table

END = float("inf")


@dataclass(slots=True)
class Session:
    """A connection of a client that was answered with 101.

    Attributes:
        proven_until: the latest moment at which a message proves that it was open; -inf for none.
        by: who ended it, ``peer`` or ``self``; "" while it lasts.
    """

    number: int
    client: int
    router_id: int
    port: int
    opened: float
    redirects: int = 0
    unit: str = ""
    welcomed: float = END
    closed: float = END
    code: int = 0
    by: str = ""
    left: float = END
    proven_until: float = -END
    last_sent: int = 0
    last_answer: int = 0
    last_got: int = 0
    last_sent_at: float = -END


@dataclass(slots=True)
class Tunnel:
    """A connection behind an edge.

    Attributes:
        alive: whether nobody had ended it when its handshake was read.
        elsewhere: tunnels of the id in other units at that moment: unit, number, and ``open`` where nobody
            had ended it, or ``closing`` where the edge had to wait for its back-source.
    """

    number: int
    unit: str
    router_id: int
    session: int
    at: float
    alive: bool
    elsewhere: Sequence[tuple[str, int, str]]
    ended: float = END


@dataclass(slots=True)
class Ask:
    """A cutover as the operator asked for it, and what came of it.

    Attributes:
        until: when everything was well again after it.
        turns: how often it was turned around, as the product printed it.
    """

    number: int
    moves: Sequence[Move]
    at: float
    ended: float = END
    until: float = END
    ending: str = ""
    turns: int = 0
    printed_frozen_ms: int | None = None

    def move_of(self, router_id: int) -> tuple[str, str] | None:
        """Losing and gaining unit of the id, or None if it was not asked to move."""
        for first, last, losing, gaining in self.moves:
            if first <= router_id <= last:
                return losing, gaining
        return None


@dataclass(slots=True)
class Trouble:
    """A fault, with the ports whose sessions it may end; from its stroke until everything was well again."""

    kind: str
    ports: frozenset[int]
    at: float
    healed: float = END
    until: float = END


@dataclass
class Evidence:
    """Everything that the journals say."""

    characters: dict[int, dict[str, Any]] = field(default_factory=dict)
    sessions: dict[int, Session] = field(default_factory=dict)
    tunnels: dict[int, Tunnel] = field(default_factory=dict)
    redirects: list[tuple[float, int, int]] = field(default_factory=list)
    """When, which client, how many in a row."""
    table: Table | None = None
    asks: list[Ask] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    over: float = END
    oddities: list[tuple[float, str]] = field(default_factory=list)
    """What the messages of a session show: gaps, repetitions, an answer from somewhere else."""
    lag_s: float = 0.0
    messages: int = 0

    def client_sessions(self) -> dict[int, list[Session]]:
        """By client, in order."""
        found: dict[int, list[Session]] = {}
        for session in self.sessions.values():
            found.setdefault(session.client, []).append(session)
        for some in found.values():
            some.sort(key=lambda session: session.opened)
        return found


def read(directory: Path) -> Evidence:
    """What the three journals in the directory say."""
    return gathered(
        lines(directory / "clients.jsonl"),
        lines(directory / "sources.jsonl"),
        lines(directory / "operator.jsonl"),
    )


def gathered(clients: Iterable[Line], sources: Iterable[Line], operator: Iterable[Line]) -> Evidence:
    evidence = Evidence()
    sent: dict[int, dict[int, float]] = {}
    answers: dict[int, dict[int, float]] = {}
    for line in clients:
        _hear_client(evidence, line, sent, answers)
    for line in sources:
        _hear_source(evidence, line, sent, answers)
    for line in operator:
        _hear_operator(evidence, line)
    return evidence


# -- the clients' journal ------------------------------------------------------------------------------------

Times = dict[int, dict[int, float]]


def _hear_client(evidence: Evidence, line: Line, sent: Times, answers: Times) -> None:
    at, what = line["at"], line["what"]
    if what == "client":
        evidence.characters[line["client"]] = line
        return
    if what == "lag":
        evidence.lag_s = max(evidence.lag_s, line["s"])
        return
    if what == "redirect":
        evidence.redirects.append((at, line["client"], line["n"]))
        return
    if what == "open":
        number = line["session"]
        evidence.sessions[number] = Session(
            number, line["client"], line["id"], line["port"], at, line.get("redirects", 0)
        )
        sent[number], answers[number] = {}, {}
        return
    session = evidence.sessions.get(line.get("session", 0))
    if session is None:
        return
    match what:
        case "welcome":
            session.unit, session.welcomed = line["unit"], at
        case "sent":
            sent[session.number][line["no"]] = at
            session.last_sent, session.last_sent_at = line["no"], at
            evidence.messages += 1
        case "answer":
            answers[session.number][line["no"]] = at
            if line["no"] != session.last_answer + 1:
                told = f"answer {line['no']} came after answer {session.last_answer}"
                evidence.oddities.append((at, f"session {session.number}: {told}"))
            if line["unit"] != session.unit:
                told = f"an answer of {line['unit']} in a session of {session.unit}"
                evidence.oddities.append((at, f"session {session.number}: {told}"))
            session.last_answer = line["no"]
        case "leave":
            session.left = at
        case "closed":
            session.closed, session.code, session.by = at, line["code"], line["by"]


# -- the back-sources' journal -------------------------------------------------------------------------------


def _hear_source(evidence: Evidence, line: Line, sent: Times, answers: Times) -> None:
    at, what = line["at"], line["what"]
    if what == "handshake":
        evidence.tunnels[line["conn"]] = Tunnel(
            line["conn"],
            line["unit"],
            line["id"],
            line["session"],
            at,
            line["alive"],
            [(unit, number, state) for unit, number, state in line["elsewhere"]],
        )
        return
    tunnel = evidence.tunnels.get(line["conn"])
    if tunnel is None:
        return
    if what == "end":
        tunnel.ended = at
        return
    session = evidence.sessions.get(tunnel.session)
    if session is None or what != "got":
        return
    number = line["no"]
    if number != session.last_got + 1:
        told = f"message {number} came to {tunnel.unit} after message {session.last_got}"
        evidence.oddities.append((at, f"session {session.number}: {told}"))
    session.last_got = number
    # It was open when the message was carried, not before it was sent; and when the answer was, if it came.
    proofs = [sent[session.number].pop(number, -END)]
    if answers[session.number].pop(number, None) is not None:
        proofs.append(at)
    session.proven_until = max(session.proven_until, *proofs)


# -- the operator's journal ----------------------------------------------------------------------------------


def _hear_operator(evidence: Evidence, line: Line) -> None:
    at, what = line["at"], line["what"]
    match what:
        case "table":
            evidence.table = Table.parse(line["ranges"], line["exact"])
        case "asked":
            moves = [(first, last, losing, gaining) for first, last, losing, gaining in line["moves"]]
            evidence.asks.append(Ask(line["cutover"], moves, at))
        case "ended":
            ask = evidence.asks[-1]
            ask.ended, ask.ending, ask.turns = at, line["ending"], line["turns"]
            ask.printed_frozen_ms = line["frozen_ms"]
        case "fault":
            evidence.troubles.append(Trouble(line["kind"], frozenset(line["ports"]), at))
        case "healed":
            for trouble in evidence.troubles:
                if trouble.kind == line["kind"] and trouble.healed == END:
                    trouble.healed = at
        case "well":
            for ask in evidence.asks:
                ask.until = min(ask.until, at) if ask.ended < END else END
            for trouble in evidence.troubles:
                trouble.until = min(trouble.until, at)
        case "over":
            evidence.over = at
