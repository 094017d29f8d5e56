"""The judge of the campaign finds each violation in journals made by hand, and passes good ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import BACK_WITHIN_S, Verdict, judged
from tests.chaos.evidence import gathered
from tests.chaos.journal import Journal, Line, lines
from tests.chaos.tables import BRANCH, CENTER, FIRST

MOVED, STAYING = 6249, 1111
PORTS = {CENTER: 8101, BRANCH: 8102}
OTHER_PORT = {CENTER: 8201, BRANCH: 8202}
ASKED, FROZEN, ACTIVE, ENDED, WELL, OVER = 10.0, 10.5, 10.8, 11.0, 14.0, 60.0


class Told:
    """Journals as they are written by hand."""

    def __init__(self) -> None:
        self.clients: list[Line] = []
        self.sources: list[Line] = []
        self.operator: list[Line] = [
            {"at": 0.0, "what": "table", **FIRST.as_json()},
            {"at": 0.5, "what": "well"},
        ]
        self.numbers = iter(range(1, 1000))

    def client(self, router_id: int, retry_s: float = 1.5) -> int:
        """The number of a new client."""
        number = next(self.numbers)
        character = {"router_id": router_id, "retry_s": retry_s, "every_s": 1.0, "life_s": 0.0, "keeps": True}
        self.clients.append({"at": 0.6, "what": "client", "client": number, **character})
        return number

    def session(
        self,
        client: int,
        unit: str,
        begin: float,
        end: float | None,
        *,
        code: int = 1012,
        by: str = "peer",
        port: int | None = None,
        elsewhere: Any = (),
        every_s: float = 1.0,
        alive: bool = True,
    ) -> int:
        """The number of a session that carried messages from its begin to its end."""
        number = next(self.numbers)
        router_id = next(it["router_id"] for it in self.clients if it.get("client") == client)
        same = {"session": number, "client": client}
        behind = {"conn": number, "id": router_id, "unit": unit, "session": number}
        self.sources.append(
            {"at": begin, "what": "handshake", **behind, "alive": alive, "elsewhere": list(elsewhere)}
        )
        opened = begin + 0.01
        here = port or PORTS[unit]
        self.clients.append(
            {"at": opened, "what": "open", **same, "id": router_id, "port": here, "redirects": 0}
        )
        self.clients.append({"at": opened, "what": "welcome", **same, "unit": unit, "source": number})
        last = (OVER if end is None else end) - 0.05
        for no, at in enumerate(_times(opened + 0.02, last, every_s), 1):
            self.clients.append({"at": at, "what": "sent", **same, "no": no})
            self.sources.append({"at": at + 0.001, "what": "got", "conn": number, "no": no})
            self.clients.append({"at": at + 0.002, "what": "answer", **same, "no": no, "unit": unit})
        if end is not None:
            self.clients.append({"at": end, "what": "closed", **same, "code": code, "reason": "", "by": by})
            self.sources.append({"at": end, "what": "end", "conn": number})
        return number

    def cutover(self, ending: str = "done", turns: int = 0, *, at: float = ASKED, number: int = 1) -> None:
        """Ids 5998 to 6380 were asked to move from Beijing to the center."""
        later = at - ASKED
        moves = [[5998, 6380, BRANCH, CENTER]]
        printed = {"printed": ending, "ending": ending, "turns": turns, "frozen_ms": 300}
        self.operator += [
            {"at": at, "what": "asked", "cutover": number, "moves": moves},
            {"at": ENDED + later, "what": "ended", "cutover": number, **printed},
            {"at": WELL + later, "what": "well"},
        ]

    def fault(self, *ports: int, at: float, healed: float) -> None:
        same = {"kind": "some-fault", "ports": list(ports)}
        self.operator.append({"at": at, "what": "fault", **same})
        self.operator.append({"at": healed, "what": "healed", **same})
        self.operator.sort(key=lambda line: line["at"])

    def verdict(self) -> Verdict:
        operator = sorted(self.operator, key=lambda line: line["at"])
        over = [{"at": OVER, "what": "over"}]
        for journal in (self.clients, self.sources):
            journal.sort(key=lambda line: line["at"])
        return judged(gathered(self.clients, self.sources, [*operator, *over]))

    def rules(self) -> list[str]:
        """The rules that were broken."""
        return sorted({violation.rule for violation in self.verdict().violations})


def _times(begin: float, end: float, step: float) -> Iterator[float]:
    at = begin
    while at < end:
        yield at
        at += step


@pytest.fixture
def told() -> Told:
    """A cutover that is yet to be written, and a client that does not move."""
    told = Told()
    told.session(told.client(STAYING), CENTER, 1.0, None)
    return told


def moved(told: Told, retry_s: float = 1.5) -> int:
    """A client that was closed by FREEZE and is back in the center."""
    client = told.client(MOVED, retry_s)
    told.session(client, BRANCH, 1.0, FROZEN)
    told.session(client, CENTER, max(FROZEN + retry_s, ACTIVE), None)
    return client


# -- what must pass ------------------------------------------------------------------------------------------


def test_a_cutover_that_closes_who_moves_once_is_good(told: Told) -> None:
    told.cutover()
    moved(told)
    verdict = told.verdict()
    assert verdict.violations == []
    assert verdict.closed == {"moved": 1, "not": 2}
    assert verdict.back_s == pytest.approx([1.51])


def test_the_freeze_is_measured_by_whoever_comes_back_at_once(told: Told) -> None:
    told.cutover()
    moved(told, retry_s=0.01)
    moved(told, retry_s=1.5)
    verdict = told.verdict()
    assert verdict.violations == []
    assert verdict.frozen_seen_s == pytest.approx([0.31])
    assert verdict.frozen_behind_s == pytest.approx([0.3])


def test_an_aborted_cutover_may_close_who_stays(told: Told) -> None:
    told.cutover("aborted")
    client = told.client(MOVED)
    told.session(client, BRANCH, 1.0, FROZEN)
    told.session(client, BRANCH, 12.0, None)
    assert told.verdict().violations == []


def test_a_turn_around_may_close_twice(told: Told) -> None:
    told.cutover("turned", turns=1)
    client = told.client(MOVED, retry_s=0.05)
    told.session(client, BRANCH, 1.0, 10.1)
    told.session(client, CENTER, 10.3, 10.6, every_s=0.1)
    told.session(client, BRANCH, 10.9, None)
    assert told.verdict().violations == []


def test_a_killed_edge_may_lose_its_sessions_and_no_other_edge(told: Told) -> None:
    told.fault(PORTS[CENTER], at=20.0, healed=22.0)
    client = told.client(STAYING)
    told.session(client, CENTER, 1.0, 20.1, code=1006)
    told.session(client, CENTER, 23.0, None)
    assert told.verdict().violations == []
    other = told.client(STAYING)
    told.session(other, CENTER, 1.0, 20.1, code=1006, port=OTHER_PORT[CENTER])
    told.session(other, CENTER, 23.0, None)
    assert told.rules() == ["I4"]


def test_an_edge_that_a_fault_ended_may_close_again_what_came_back(told: Told) -> None:
    told.fault(PORTS[BRANCH], at=10.1, healed=10.3)
    told.cutover()
    client = told.client(MOVED, retry_s=0.01)
    told.session(client, BRANCH, 1.0, 10.12)
    told.session(client, BRANCH, 10.4, 10.5)
    told.session(client, CENTER, 10.9, None)
    assert told.verdict().violations == []


def test_a_client_that_comes_back_too_soon_may_be_closed_at_another_edge_again(told: Told) -> None:
    told.cutover()
    client = told.client(MOVED, retry_s=0.01)
    told.session(client, BRANCH, 1.0, 10.50)
    told.session(client, BRANCH, 10.51, 10.55, port=OTHER_PORT[BRANCH])
    told.session(client, CENTER, 10.9, None)
    assert told.verdict().violations == []


def test_who_goes_by_itself_was_not_closed(told: Told) -> None:
    client = told.client(STAYING)
    told.session(client, CENTER, 1.0, 20.0, code=1000, by="self")
    assert told.verdict().violations == []


def test_a_handshake_that_was_over_when_it_was_read_shows_nothing(told: Told) -> None:
    told.cutover()
    moved(told)
    told.session(told.client(MOVED), BRANCH, 20.0, 20.02, alive=False, by="self")
    assert told.verdict().violations == []


# -- what must be found --------------------------------------------------------------------------------------


def test_two_sessions_of_an_id_in_two_units_at_once_are_found(told: Told) -> None:
    told.cutover()
    moved(told)
    told.session(told.client(MOVED), BRANCH, 2.0, 13.0)
    found = told.verdict().violations
    assert "was served by unbj" in str(next(it for it in found if "served by unbj (" in it.text))
    assert {"I1", "I4"} <= set(told.rules())


@pytest.mark.parametrize("state", ["open", "closing"])
def test_an_overlap_that_only_the_kernel_saw_is_found(told: Told, state: str) -> None:
    told.cutover()
    client = told.client(MOVED, retry_s=0.01)
    first = told.session(client, BRANCH, 1.0, FROZEN)
    told.session(client, CENTER, ACTIVE, None, elsewhere=[(BRANCH, first, state)])
    assert told.rules() == ["I1"]


def test_an_id_in_the_wrong_unit_at_rest_is_found(told: Told) -> None:
    told.session(told.client(MOVED), CENTER, 2.0, 3.0, code=1000, by="self")
    assert told.rules() == ["I1"]


def test_an_id_that_an_aborted_cutover_moved_is_found(told: Told) -> None:
    told.cutover("aborted")
    client = told.client(MOVED, retry_s=0.05)
    told.session(client, BRANCH, 1.0, 10.2)
    told.session(client, CENTER, 10.3, 10.35, code=1000, by="self")
    told.session(client, BRANCH, 12.0, None)
    assert told.rules() == ["I1"]


def test_an_id_that_goes_back_without_a_turn_is_found(told: Told) -> None:
    told.cutover()
    client = told.client(MOVED, retry_s=0.05)
    told.session(client, BRANCH, 1.0, 10.2)
    told.session(client, CENTER, 10.3, 10.4, code=1000, by="self")
    told.session(client, BRANCH, 10.5, 10.6, code=1000, by="self")
    told.session(client, CENTER, 10.7, None)
    assert told.rules() == ["I1"]


def test_a_session_that_the_cutover_forgot_is_found(told: Told) -> None:
    told.cutover()
    moved(told)
    told.session(told.client(MOVED), BRANCH, 1.0, 12.5, code=1000, by="self")
    assert "I4" in told.rules()


def test_a_closed_bystander_is_found(told: Told) -> None:
    told.cutover()
    client = told.client(STAYING)
    told.session(client, CENTER, 1.0, FROZEN)
    told.session(client, CENTER, 12.0, None)
    verdict = told.verdict()
    assert [violation.rule for violation in verdict.violations] == ["I4"]
    assert verdict.wrongly_closed == 1


def test_a_moved_session_that_was_closed_without_the_right_code_is_found(told: Told) -> None:
    told.cutover()
    client = told.client(MOVED)
    told.session(client, BRANCH, 1.0, FROZEN, code=1006)
    told.session(client, CENTER, 12.0, None)
    assert told.rules() == ["I4"]


def test_a_patient_client_that_was_closed_twice_is_found(told: Told) -> None:
    told.cutover()
    client = told.client(MOVED, retry_s=0.5)
    told.session(client, BRANCH, 1.0, 10.1)
    told.session(client, BRANCH, 10.65, 10.70, port=OTHER_PORT[BRANCH])
    told.session(client, CENTER, 11.2, None)
    assert told.rules() == ["I4"]


def test_an_edge_that_takes_an_id_after_it_froze_it_is_found(told: Told) -> None:
    told.cutover()
    client = told.client(MOVED, retry_s=0.01)
    told.session(client, BRANCH, 1.0, 10.50)
    told.session(client, BRANCH, 10.51, 10.55)
    told.session(client, CENTER, 10.9, None)
    assert told.rules() == ["I4"]


def test_a_fault_that_ends_no_session_excuses_none(told: Told) -> None:
    told.fault(at=20.0, healed=22.0)
    client = told.client(STAYING)
    told.session(client, CENTER, 1.0, 21.0, code=1006)
    told.session(client, CENTER, 22.5, None)
    assert told.rules() == ["I4"]


def test_a_fault_excuses_nothing_after_it_was_healed(told: Told) -> None:
    told.fault(PORTS[CENTER], at=20.0, healed=22.0)
    client = told.client(STAYING)
    told.session(client, CENTER, 1.0, 30.0, code=1006)
    told.session(client, CENTER, 31.0, None)
    assert told.rules() == ["I4"]


def test_a_client_that_does_not_come_back_is_found(told: Told) -> None:
    told.cutover()
    told.session(told.client(MOVED), BRANCH, 1.0, FROZEN)
    late = told.client(MOVED)
    told.session(late, BRANCH, 1.0, FROZEN)
    told.session(late, CENTER, ENDED + 1.5 + BACK_WITHIN_S + 0.1, None)
    assert [violation.rule for violation in told.verdict().violations] == ["back", "back"]


def test_a_lost_and_a_repeated_message_are_found(told: Told) -> None:
    client = told.client(STAYING)
    number = told.session(client, CENTER, 1.0, None)
    lost = next(
        it for it in told.clients if it.get("session") == number and it["what"] == "answer" and it["no"] == 5
    )
    told.clients.remove(lost)
    twice = next(it for it in told.sources if it.get("conn") == number and it.get("no") == 9)
    told.sources.append({**twice, "at": twice["at"] + 0.0001})
    assert [violation.rule for violation in told.verdict().violations] == ["messages", "messages"]


def test_a_session_that_is_not_answered_any_more_is_found(told: Told) -> None:
    client = told.client(STAYING)
    number = told.session(client, CENTER, 1.0, None)
    told.clients = [
        it
        for it in told.clients
        if not (it.get("session") == number and it["what"] in ("sent", "answer") and it["at"] > 20.0)
    ]
    told.clients.append({"at": 20.5, "what": "sent", "session": number, "client": client, "no": 20})
    assert "messages" in told.rules()


def test_a_client_that_is_sent_in_circles_is_found(told: Told) -> None:
    for count in (1, 2, 3):
        line = {"at": 20.0 + count / 100, "what": "redirect", "session": 0, "client": 1, "to": "", "n": count}
        told.clients.append(line)
    assert told.rules() == ["I3"]


def test_a_cutover_without_an_end_is_found(told: Told) -> None:
    told.operator.append(
        {"at": ASKED, "what": "asked", "cutover": 1, "moves": [[5998, 6380, BRANCH, CENTER]]}
    )
    assert told.rules() == ["end"]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.note("whole", number=1)
    journal.close()
    with (tmp_path / "journal").open("a") as file:
        file.write('{"at":1.0,"wh')
    assert [line["what"] for line in lines(tmp_path / "journal")] == ["whole"]
