"""`mshactl safety`, overrides, approvals, shifts and cuts to zero as processes, against a real console."""

import json
from typing import Any

import click
import pytest

from msha.cli_kinds import parse_shift, parse_to_zero
from msha.cli_safety import parse_window
from tests.cutover.test_mshactl import RULE, SKIPS
from tests.support.live_console import LiveConsole


def ran(console: LiveConsole, space: str, *arguments: str, code: int = 0, user: str = "olga") -> Any:
    """What the command answered with; its JSON if there is any, else what it said."""
    done = console.mshactl(*arguments, "-n", space, "-o", "json", user=user)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout) if done.stdout else done.stderr


def test_rules_are_set_shown_and_overridden(console: LiveConsole, space: str) -> None:
    block = "daily 00:00-00:00 Asia/Shanghai stocktaking"
    rules = ran(
        console, space, "safety", "set", "--max-ids", "100", "--block", block, "--reason", "audit", user="sue"
    )
    assert (rules["max_ids"], rules["blocked_windows"][0]["note"]) == (100, "stocktaking")
    assert ran(console, space, "safety", "show") == rules
    text = console.mshactl("safety", "show", "-n", space).stdout
    assert "most ids of a cutover       100" in text
    assert "daily    00:00-00:00  Asia/Shanghai  stocktaking" in text
    refused = ran(console, space, "safety", "set", "--max-ids", "none", code=1)
    assert "cutover.change_safetyrules" in refused

    refused = ran(console, space, "cutover", "start", *RULE, "--yes", *SKIPS, code=1)
    assert "FORBIDDEN  max_ids: 383 ids would move" in refused
    assert "Not started: safety failed" in refused
    assert "1`, with --override all --reason TEXT if you may override safety rules." in refused
    ran(console, space, "cutover", "override", "max_ids", "--reason", "fire", code=1)
    status = ran(console, space, "cutover", "override", "max_ids", "--reason", "fire", user="sue")
    assert [one["rule"] for one in status["overrides"]] == ["max_ids"]
    done = ran(
        console, space, "cutover", "start", "1", "--override", "all", "--reason", "fire in Beijing",
        "--yes", "--wait", *SKIPS, user="sue",
    )  # fmt: skip
    assert (done["phase"], [one["rule"] for one in done["overrides"]]) == ("done", ["max_ids", "window"])


def test_one_asks_another_approves_and_then_it_starts(console: LiveConsole, space: str) -> None:
    ran(console, space, "safety", "set", "--approval", user="sue")
    refused = ran(console, space, "cutover", "start", *RULE, "--yes", *SKIPS, code=1)
    assert "needs the approval of somebody other than olga" in refused
    asked = ran(console, space, "cutover", "request-approval", "1", "--comment", "please")
    assert asked["approval"]["state"] == "requested"
    refused = ran(console, space, "cutover", "approve", "1", "--yes", code=1)
    assert "nobody approves what they ask for" in refused
    approved = ran(console, space, "cutover", "approve", "1", "--yes", user="sue")
    assert approved["approval"]["approved_by"] == "sue"
    done = ran(console, space, "cutover", "start", "1", "--yes", "--wait", *SKIPS)
    assert (done["phase"], done["approval"]["approved_by"]) == ("done", "sue")


def test_an_approval_is_withdrawn(console: LiveConsole, space: str) -> None:
    ran(console, space, "safety", "set", "--approval", user="sue")
    ran(console, space, "cutover", "preview", *RULE)
    ran(console, space, "cutover", "approve", "--yes", user="sue")
    status = ran(console, space, "cutover", "withdraw-approval", "--reason", "not tonight", user="sue")
    assert status["approval"]["state"] == "missing"


def test_a_share_is_shifted_and_a_unit_is_cut_to_zero(console: LiveConsole, space: str) -> None:
    done = console.mshactl(
        "cutover", "start", "--shift", "unbj:center:10%", "--yes", "--wait", *SKIPS, "-n", space
    )
    assert done.returncode == 0, done.stderr
    assert "10 % of the 4002 ids of unbj, which is 400, go to center." in done.stderr
    zero = ran(console, space, "cutover", "start", "--to-zero", "unbj", "--yes", "--wait", *SKIPS)
    assert (zero["phase"], zero["kind"], zero["new"]["ranges"]) == ("done", "zero", {"center": ["0~9999"]})
    back = ran(console, space, "cutover", "preview", "--shift", "center:unbj:4002")
    assert back["units"][1]["new_ranges"] == ["5998~9999"]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("unbj:center:10%", {"percent": 10.0, "of_all": False}),
        ("unbj:center:2.5%-of-all", {"percent": 2.5, "of_all": True}),
        (" unbj : center : 400 ", {"ids": 400}),
    ],
)
def test_a_shift_is_read(text: str, parsed: dict[str, Any]) -> None:
    assert parse_shift(text) == {"losing": "unbj", "gaining": "center", **parsed}


@pytest.mark.parametrize("text", ["unbj:center", "unbj:center:", "unbj:center:x%", "a:b:10%-of-it", "a:b:-1"])
def test_what_is_no_shift_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_shift(text)


def test_a_cut_to_zero_is_read() -> None:
    assert parse_to_zero("unbj") == {"unit": "unbj", "to": ""}
    assert parse_to_zero("unbj:center") == {"unit": "unbj", "to": "center"}
    for text in ("", ":center", "a:b:c"):
        with pytest.raises(click.BadParameter):
            parse_to_zero(text)


def test_a_window_is_read() -> None:
    assert parse_window("Fri 22:00-06:00") == {
        "day": 4, "begins": "22:00", "ends": "06:00", "time_zone": "UTC", "note": "",
    }  # fmt: skip
    assert parse_window("daily 08:00-09:00 Asia/Shanghai the daily peak")["note"] == "the daily peak"
    for text in ("friday 22:00-06:00", "fri 22-06", "22:00-06:00"):
        with pytest.raises(click.BadParameter):
            parse_window(text)
