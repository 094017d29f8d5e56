"""The console in a real browser. Nothing may appear in its console: a breach of the CSP is an error there."""

import pytest

from msha.demo.fleet import Fleet
from tests.browser.conftest import Play

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_the_whole_wizard_by_clicks(play: Play) -> None:
    wizard = play("wizard", last=6380)
    assert wizard.errors == []
    assert wizard["sentenceWhileTyping"].startswith("383 of 10000 ids move: 5998~6380 from ")
    assert wizard["slider"] == "6380"
    assert wizard["impact"].startswith("383 of 10000 ids (5998~6380), ")
    assert [line.strip() for line in wizard["removed"]] == ["routerId: 0~5997", "routerId: 5998~9999"]
    assert [line.strip() for line in wizard["added"]] == ["routerId: 0~6380", "routerId: 6381~9999"]
    # Amber where another scenario has moved these ids a moment ago.
    assert set(wizard["checks"]) <= {"passed", "passed amber"}
    assert wizard["checks"]
    assert wizard["startText"] == "Start cutover: move 383 ids"
    assert (wizard["lockedBefore"], wizard["lockedWhileWrong"], wizard["lockedWhenTyped"]) == (
        True,
        True,
        False,
    )
    assert wizard["samePage"], "the live page was loaded again instead of following the WebSocket"
    assert wizard["bannersAsked"] > 0, "the banners were left to their own poll when the step changed"
    assert wizard["closed"] == wizard["reconnected"] > 0
    assert wizard["remaining"] == 0
    assert wizard["frozenMs"] > 0
    assert wizard["state"] == "done"
    assert wizard["lateTimeline"] == len(wizard["timeline"]) > 8
    assert (
        wizard["outcome"] == wizard["reportAfterReload"] == "Done: every moved id is served by its new unit."
    )
    assert wizard["printed"] == {"navigation": False, "buttons": False, "diff": True}
    assert wizard["rollBackLast"] == "5997"


def test_the_range_bar_by_keyboard_and_mouse(play: Play) -> None:
    bar = play("range_bar")
    start = bar["start"][0]
    assert bar["handles"] == 1
    assert bar["start"] == [start, start]
    assert bar["right"] == [start + 1] * 2
    assert bar["left"] == [start] * 2
    assert bar["pageUp"] == [start + 100] * 2
    assert bar["pageDown"] == [start] * 2
    assert bar["shiftRight"] == [start + 10] * 2
    assert bar["escape"] == [start] * 2
    assert bar["home"] == [0, 0]
    assert bar["end"] == [9998, 9998]
    assert bar["escapeAgain"] == [start] * 2
    assert bar["grabbed"] == [start] * 2, "taking hold of the handle moved the boundary"
    assert 990 <= bar["dragged"][0] - start <= 1010
    assert bar["released"] == bar["dragged"]
    assert bar["typed"] == [6380, 6380]
    assert bar["row"] == "6381"
    before = ["center" if router_id <= start else "unbj" for router_id in range(10000)]
    after = ["center" if i <= 6380 and i not in (7, 6000, 9998) else "unbj" for i in range(10000)]
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert bar["withExact"].startswith(f"{moved} of 10000 ids move: "), bar["withExact"]
    assert bar["invalid"] == "true"
    assert "leaves no id for what follows" in bar["refusal"]
    assert [error for error in bar.errors if "422" not in error] == []


def test_every_page_in_both_languages_light_and_dark(play: Play) -> None:
    walk = play("everywhere", more=["/cutover/new/"])
    assert walk.errors == []
    assert walk["refused"] == []
    assert walk["wide"] == []
    assert walk["lit"] == []
    assert "unnamed" not in walk.facts, walk["unnamed"]
    assert len(set(walk["visited"])) > 8


def test_the_frame_keeps_its_promises(play: Play) -> None:
    shell = play("shell")
    assert shell.errors == []
    assert shell["firstStop"] == "skip-link"
    assert shell["palette"] == "/cutover/history/"
    assert (shell["lostAtFirst"], shell["lostWhenOffline"], shell["lostAfterwards"]) == (False, True, False)


def test_a_lost_node_is_named_skipped_and_the_cutover_aborted(fleet: Fleet, play: Play) -> None:
    fleet.kill("edge-unbj")
    try:
        trouble = play("trouble", last=7500, node="edge-unbj")
    finally:
        fleet.start("edge-unbj")
    assert trouble.errors == []
    assert "edge-unbj" in trouble["impact"]
    assert trouble["locked"] == 0
    assert any("edge-unbj" in reason for reason in trouble["failed"])
    assert trouble["skipped"] >= 1
    assert "the node burns" in trouble["warned"]
    assert "edge-unbj" in trouble["waiting"]
    assert trouble["highlighted"] == ["edge-unbj"]
    assert "Nothing has moved to another unit yet" in trouble["consequence"]
    assert "it is not coming back" in trouble["outcome"]


def test_a_cutover_in_batches_is_paused_resumed_and_rolled_back_by_clicks(play: Play) -> None:
    batches = play("batches")
    assert batches.errors == []
    moved = int(batches["after"]) - int(batches["before"])
    assert moved > 100
    assert batches["shiftShown"].startswith(f"{moved} of 10000 ids move: {int(batches['before']) + 1}~")
    assert batches["chosenByTyping"]
    assert batches["pacing"].startswith("3 steps of ")
    assert "It takes at least 12 s." in batches["pacing"]
    assert "The gaining units are watched until" in batches["baking"]
    assert "s left" in batches["baking"]
    assert batches["whileBaking"] == ["moved", "waits for its turn", "waits for its turn"]
    assert "No further batch begins until somebody resumes" in batches["pauseSaid"]
    assert batches["paused"] == "Paused by olga: the dashboards first"
    assert {"resume", "stop_here", "turn_around"} <= set(batches["possible"])
    assert batches["stillPaused"] == batches["whileBaking"]
    assert batches["resumeSaid"].startswith("Batch 2 of 3 begins")
    assert "in 2 batches" in batches["rollBackSaid"]
    assert batches["lockedBefore"]
    assert batches["atTheEnd"] == ["back at its old owner", "back at its old owner", "never moved"]
    assert "Every client that was disconnected has come back." in batches["stragglers"]
    assert batches["given"] == batches["before"]
    assert batches["file"].startswith("cutover-demo-")
