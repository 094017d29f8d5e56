"""`mshactl cutover` as a process: batches, pauses, roll backs and emergencies, against a real console."""

import json
import time
from typing import Any

import click
import pytest

from msha.cli_pacing import parse_batches, parse_gate
from tests.cutover.test_mshactl import RULE, SKIPS
from tests.support.live_console import LiveConsole


def ran(console: LiveConsole, space: str, *arguments: str, code: int = 0) -> Any:
    """What the command answered with, as JSON if there is any, and what it said."""
    done = console.mshactl("cutover", *arguments, "-n", space, "-o", "json")
    assert done.returncode == code, done.stderr + done.stdout
    return (json.loads(done.stdout) if done.stdout else None), done.stderr


def until_paused(console: LiveConsole, space: str) -> Any:
    """The status once the cutover has paused by itself: there is no node that could take more."""
    deadline = time.monotonic() + 20
    while True:
        status, _ = ran(console, space, "status")
        if status["paused"]:
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.2)


def test_a_gate_that_fails_pauses_and_an_operator_decides(console: LiveConsole, space: str) -> None:
    paced = ("--batches", "10,50", "--bake", "600", "--gate", "reconnect=none")
    started, _ = ran(console, space, "start", *RULE, *paced, "--yes", *SKIPS)
    assert started["pacing"]["steps"] == [10, 50]
    assert "--batches 10,50 --bake 600 --gate reconnect=none" in started["command"]
    held = until_paused(console, space)
    assert (held["phase"], held["paused_by"]) == ("release", "")
    assert "no edge node of center is connected" in held["held"]
    assert "resume it, stop it here or roll it back" in held["alarm"]
    _, said = ran(console, space, "pause", "--reason", "look first", code=1)
    assert "paused already" in said
    _, said = ran(console, space, "resume", "--reason", "there is nobody to look at")
    assert "The gate that failed is passed over this once" in said
    status, _ = ran(console, space, "status")
    assert status["hold"]["kind"] == "baking"
    _, said = ran(console, space, "pause", "--reason", "look first")
    assert "wait with their old owners" in said
    stopped, said = ran(console, space, "stop", "--reason", "enough")
    assert (stopped["phase"], stopped["ending"]) == ("done", "stopped")
    assert "stay with their new owners" in said


def test_a_roll_back_of_a_running_cutover_is_its_own(console: LiveConsole, space: str) -> None:
    ran(console, space, "start", *RULE, "--batches", "10,50", "--bake", "600", "--yes", *SKIPS)
    back, _ = ran(console, space, "rollback", "--reason", "wrong day", "--wait")
    assert (back["phase"], back["ending"], back["number"]) == ("aborted", "turned", 1)
    assert back["new"] != back["old"]
    _, said = ran(console, space, "rollback", "--reason", "x", code=1)
    assert "nothing to roll back" in said


def test_a_rule_on_the_line_forgets_an_older_pacing(console: LiveConsole, space: str) -> None:
    first, _ = ran(console, space, "preview", *RULE, "--ids-per-batch", "100")
    second, _ = ran(console, space, "preview", *RULE)
    assert second["id"] == first["id"]
    status, _ = ran(console, space, "status")
    assert status["pacing"] == {}


def test_a_draft_beside_it_does_not_stand_between_an_operator_and_what_runs(
    console: LiveConsole, space: str
) -> None:
    running, _ = ran(console, space, "start", *RULE, "--batches", "10,50", "--bake", "600", "--yes", *SKIPS)
    draft, said = ran(console, space, "preview", "--shift", "center:unbj:7", "--batches", "50")
    assert "50 %" in said
    status, _ = ran(console, space, "status")
    assert status["number"] == running["number"] != draft["number"]
    back, _ = ran(console, space, "rollback", "--reason", "wrong day", "--wait")
    assert back["number"] == running["number"]
    report, _ = ran(console, space, "report")
    assert report["number"] == running["number"]
    gone, _ = ran(console, space, "discard")
    assert (gone["number"], gone["phase"]) == (draft["number"], "discarded")
    _, said = ran(console, space, "discard", code=1)
    assert "has no cutover draft" in said


def test_a_preview_says_what_the_safety_rules_find(console: LiveConsole, space: str) -> None:
    console.mshactl("safety", "set", "-n", space, "--max-ids", "5", user="sue")
    _, said = ran(console, space, "preview", *RULE)
    assert "FORBIDDEN  max_ids: " in said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--batches", "nan"), ("--batches", "inf"), ("--bake", "nan"), ("--sessions-per-s", "inf")],
)
def test_numbers_that_nobody_can_count_get_a_sentence(
    console: LiveConsole, space: str, option: str, value: str
) -> None:
    _, said = ran(console, space, "preview", *RULE, option, value, code=2)
    assert "A number is infinite or none at all" in said
    assert "Traceback" not in said


def test_an_emergency_is_started_and_ended_from_a_shell(console: LiveConsole, space: str) -> None:
    _, said = ran(console, space, "start", *RULE, "--emergency", "--yes", code=2)
    assert "--emergency needs a --reason" in said
    paced = ("--batches", "10", "--bake", "600")
    started, said = ran(
        console, space, "start", *RULE, *paced, "--emergency", "--reason", "site down", "--yes", *SKIPS
    )
    assert started["mode"] == "emergency"
    assert "no longer undo themselves" in said
    fenced = ("--reason", "site down", "--fenced", "no power", "--yes")
    _, said = ran(console, space, "declare-dead", "unbj", *fenced, code=1)
    assert "is connected and will drain" in said
    planned, _ = ran(console, space, "emergency", "--back", "--reason", "it is back", "--yes")
    assert planned["mode"] == "planned"
    _, said = ran(console, space, "declare-dead", "unbj", *fenced, code=1)
    assert "Switch it first" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("start", *RULE, "--batches", "1,x", "--yes"), 2, "write them as 1,10,50"),
        (("start", *RULE, "--gate", "reconnect", "--yes"), 2, "not of the form NAME=LIMIT"),
        (("start", *RULE, "--batches", "50,10", "--yes"), 1, "each is larger than the one before"),
        (("start", *RULE, "--sessions-per-s", "5", "--yes", *SKIPS), 1, "could measure how many handshakes"),
        (("emergency",), 2, "--reason"),
        (("resume", "--reason", "x"), 1, "No cutover of namespace"),
    ],
)
def test_bad_calls_get_a_sentence_and_their_exit_code(
    console: LiveConsole, space: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    _, said = ran(console, space, *arguments, code=code)
    assert words in said


def test_what_is_written_is_read() -> None:
    assert parse_batches("1, 10,12.5") == [1, 10, 12.5]
    assert parse_gate("reconnect=0.9, refused=none,stragglers=20") == {
        "reconnect": 0.9,
        "refused": None,
        "stragglers": 20,
    }
    with pytest.raises(click.BadParameter):
        parse_gate("reconnect=much")
