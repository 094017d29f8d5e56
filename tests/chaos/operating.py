"""The operator of a campaign: acts through the API and `mshactl` alone, and keeps a journal of it."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from msha.demo.plan import NAMESPACE
from msha.remote import Console, Refusal
from tests.chaos.fleet import ChaosFleet
from tests.chaos.journal import Journal
from tests.chaos.tables import Move, Table

BASE = f"namespaces/{NAMESPACE}"
CHECKED_WITHIN_S = 60.0
ANSWERED_WITHIN_S = 150.0
"""By some console; longer than any fault that keeps all of them away."""
ATTEMPT_S = 10.0
POLL_S = 0.05

Status = dict[str, Any]


class NoAnswer(Exception):
    """No console answered in time."""


class Operator:
    """Somebody with an admin's token and patience."""

    def __init__(self, fleet: ChaosFleet, journal: Journal) -> None:
        self.fleet = fleet
        self.journal = journal
        self._consoles = [
            Console(f"http://{address}", fleet.api_token, timeout_s=ATTEMPT_S) for address in fleet.consoles
        ]

    def close(self) -> None:
        for console in self._consoles:
            console.close()

    def _tried(self, act: Callable[[Console], Any], within_s: float) -> Any:
        """What the first console that answers says; a busy database is waited for as well.

        Raises:
            NoAnswer: none did in time.
            Refusal: one did, and refused.
        """
        deadline = time.monotonic() + within_s
        while True:
            for console in self._consoles:
                try:
                    return act(console)
                except Refusal as refusal:
                    if refusal.status not in (0, 500, 502, 503, 504):
                        raise
                    last = str(refusal)
            if time.monotonic() > deadline:
                raise NoAnswer(last)
            time.sleep(POLL_S)

    def get(self, path: str, within_s: float = ANSWERED_WITHIN_S) -> Any:
        return self._tried(lambda console: console.get(path), within_s)

    def post(self, path: str, body: dict[str, Any] | None = None, within_s: float = ANSWERED_WITHIN_S) -> Any:
        return self._tried(lambda console: console.post(path, body), within_s)

    # -- a cutover

    def prepare(self, new: Table) -> int:
        """The number of a draft to the table that is previewed and checked; what failed was skipped."""
        draft = self.post(f"{BASE}/cutovers", {**new.as_json(), "reason": "campaign"})
        number = int(draft["number"])
        self.post(f"{BASE}/cutovers/{number}/preview")
        self.check(number)
        return number

    def check(self, number: int) -> list[str]:
        """The keys of the checks that failed and were skipped."""
        status = self.post(f"{BASE}/cutovers/{number}/checks")
        deadline = time.monotonic() + CHECKED_WITHIN_S
        while any(check["state"] in ("pending", "running") for check in status["checks"]):
            if time.monotonic() > deadline:
                raise NoAnswer(f"the checks of #{number} did not end: {status['checks']}")
            time.sleep(POLL_S)
            status = self.status(number)
        failed = [check for check in status["checks"] if check["state"] == "failed"]
        for check in failed:
            self.post(f"{BASE}/cutovers/{number}/checks/{check['key']}/skip", {"reason": "campaign"})
        return [f"{check['key']}: {check['reason']}" for check in failed]

    def ask_for(self, number: int, moves: Sequence[Move]) -> None:
        """The journal says that these ids shall move; written before the product is told."""
        self.journal.note("asked", cutover=number, moves=moves)

    def start(self, number: int) -> Status:
        """The cutover has started; where no answer came, its state says so."""
        begun = ("draft", "previewed", "checking", "checked")
        while True:
            try:
                return dict(self.post(f"{BASE}/cutovers/{number}/start", {"namespace": NAMESPACE}))
            except Refusal:
                status = self.status(number)
                if status["phase"] not in begun:
                    return status
                raise

    def status(self, number: int, within_s: float = ANSWERED_WITHIN_S) -> Status:
        return dict(self.get(f"{BASE}/cutovers/{number}", within_s))

    def act(self, number: int, name: str, within_s: float = 5.0) -> bool:
        """Whether the act was accepted; the journal says what came of it."""
        try:
            self.post(f"{BASE}/cutovers/{number}/{name}", {"reason": "campaign"}, within_s)
        except (Refusal, NoAnswer) as error:
            self.journal.note("act", cutover=number, name=name, accepted=False, why=str(error))
            return not isinstance(error, Refusal) and self._may_have_been_heard(number, name)
        self.journal.note("act", cutover=number, name=name, accepted=True)
        return True

    def _may_have_been_heard(self, number: int, name: str) -> bool:
        """No answer is no refusal: the checker must reckon with it."""
        self.journal.note("act", cutover=number, name=name, accepted=True, why="no answer")
        return True

    def command(self, *words: str) -> tuple[int, str]:
        """Exit code and stderr of a `mshactl` command."""
        done = self.fleet.mshactl(*words, "-n", NAMESPACE, "-o", "json")
        return done.returncode, done.stderr

    # -- the world

    def nodes(self, within_s: float = ANSWERED_WITHIN_S) -> dict[str, Any]:
        return dict(self.get(f"{BASE}/nodes", within_s))

    def table(self) -> Table:
        """The table in effect."""
        version = self.get(BASE)["version"]
        document = self.get(f"{BASE}/versions/{version}")
        body = document.get("document") or document.get("body") or document
        if isinstance(body, str):
            body = json.loads(body)
        (rule,) = body["rule"]["unit_types"]
        return Table.parse(rule["ranges"], rule.get("exact", {}))

    def publish(self) -> str:
        """What an ordinary publish came to: the balance of the only URI is another one."""
        try:
            saved = self.get(f"{BASE}/topology", 5.0)["text"]
            one, other = ("consistent_hash", "round_robin")
            one, other = (one, other) if one in saved else (other, one)
            body = {"topology": saved.replace(one, other), "put_into_effect": True, "comment": "campaign"}
            outcome = self.post("topology/apply", body, 5.0)
        except (Refusal, NoAnswer) as error:
            return str(error)
        return " ".join(outcome["sentences"]) if "sentences" in outcome else "published"
