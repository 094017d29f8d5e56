"""`mshactl cutover` as a process, against a real console with neither Redis nor Celery nor a node."""

import json
from typing import Any

import pytest

from msha.steering.errors import InvalidRule
from msha.steering.rule_text import parse_exact, parse_ranges
from tests.support.live_console import LiveConsole

RULE = ("--ranges", "center=0~6380,unbj=6381~9999")
#: What cannot pass where there is no node.
SKIPS = ("--skip", "nodes=none yet", "--skip", "round_trip=none yet")


def ran(console: LiveConsole, space: str, *arguments: str, code: int = 0, user: str = "olga") -> Any:
    """What the command answered with; its JSON if there is any, else what it said."""
    done = console.mshactl("cutover", *arguments, "-n", space, "-o", "json", user=user)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout) if done.stdout else done.stderr


def test_a_cutover_runs_to_its_end_and_is_rolled_back(console: LiveConsole, space: str) -> None:
    result = ran(console, space, "start", *RULE, "--yes", "--wait", *SKIPS)
    assert (result["phase"], result["moved_ids"], result["sessions_closed"]) == ("done", 383, 0)
    assert isinstance(result["frozen_ms"], int)
    skipped = [check for check in result["checks"] if check["state"] == "skipped"]
    assert {check["key"]: check["skip_reason"] for check in skipped} == {
        "nodes": "none yet",
        "round_trip": "none yet",
    }
    assert ran(console, space, "status")["new"]["ranges"]["center"] == ["0~6380"]
    refused = ran(console, space, "rollback", "--yes", "--wait", code=1)
    assert "nodes" in refused
    back = ran(console, space, "start", "2", "--yes", "--wait", *SKIPS)
    assert (back["phase"], back["rollback_of"]) == ("done", 1)


def test_a_preview_changes_nothing_and_keeps_a_draft(console: LiveConsole, space: str) -> None:
    shown = ran(console, space, "preview", *RULE)
    assert shown["moved_ids"] == 383
    assert shown["command"].startswith(f"mshactl cutover start -n {space}")
    assert ran(console, space, "preview", *RULE)["id"] == shown["id"]
    assert ran(console, space, "status")["phase"] == "previewed"
    assert ran(console, space, "discard", "1")["phase"] == "discarded"


def test_failed_checks_are_named_and_the_draft_stays(console: LiveConsole, space: str) -> None:
    said = ran(console, space, "start", *RULE, "--yes", code=1)
    assert "nodes, round_trip failed" in said
    assert "--skip nodes=REASON" in said
    assert ran(console, space, "status")["phase"] == "checking"


def test_the_text_for_people_says_the_same(console: LiveConsole, space: str) -> None:
    done = console.mshactl("cutover", "start", "-n", space, *RULE, "--yes", "--wait", *SKIPS)
    assert "cutover #1" in done.stdout
    assert "moved ids         383  5998~6380 unbj→center" in done.stdout
    assert "PREPARE" in done.stderr
    assert "FREEZE" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("start", "--yes"), 2, "Give either what is to move"),
        (("start", *RULE, "1", "--yes"), 2, "Give either what is to move"),
        (("start", "--ranges", "center"), 2, "not of the form UNIT=RANGES"),
        (("preview", "--exact", "unbj=x"), 2, "are not ids"),
        (("start", *RULE, "--skip", "nodes", "--yes"), 2, "not of the form CHECK=REASON"),
        (("start", *RULE), 2, "pass --yes"),
        (("abort",), 2, "--reason"),
        (("start", "--ranges", "center=0~5997,unbj=5998~9999", "--yes"), 1, "Nothing moves"),
        (("start", "--ranges", "center=0~5,unbj=7~9999", "--yes"), 1, "no unit owns id 6"),
        (("status",), 1, "has no cutover yet"),
        (("abort", "--reason", "x"), 1, "No cutover of namespace"),
        (("watch", "77"), 1, "no cutover 77"),
    ],
)
def test_bad_calls_get_a_sentence_and_their_exit_code(
    console: LiveConsole, space: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = console.mshactl("cutover", *arguments, "-n", space)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_a_viewer_may_not_start(console: LiveConsole, space: str) -> None:
    assert "permission" in ran(console, space, "start", *RULE, "--yes", code=1, user="victor")


def test_ranges_and_exact_ids_are_read_as_they_are_written() -> None:
    assert parse_ranges("center=0~9+20~9999, unbj=10~19") == {
        "center": ["0~9", "20~9999"],
        "unbj": ["10~19"],
    }
    assert parse_ranges("center=0~9999,unbj=") == {"center": ["0~9999"], "unbj": []}
    assert parse_exact("unbj=42+43") == {"unbj": [42, 43]}
    assert parse_exact("") == {}
    for wrong in ("center", "=0~5", ",", "center=0~5,unbj"):
        with pytest.raises(InvalidRule):
            parse_ranges(wrong)
