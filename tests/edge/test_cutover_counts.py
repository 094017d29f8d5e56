"""What a worker counts for a cutover: live sessions before it, closed and reconnected ones during it."""

from typing import Any

import pytest

from msha.edge.session import cutover_progress
from msha.edge.session.cutover_progress import runs
from msha.steering.wire import progress_key
from tests.support.edge_worker import EdgeWorker, make_config, make_cutover, make_rule
from tests.support.websocket_wire import BackSource

OLD = {"center": ["0~5997"], "unbj": ["5998~9999"]}
NEW = {"center": ["0~999", "2000~5997"], "unbj": ["1000~1999", "5998~9999"]}
AWAY = [[1000, 1999, "center", "unbj"]]
BACK = [[1000, 1999, "unbj", "center"]]


def config(back_source: BackSource) -> dict[str, object]:
    return make_config({"center": [back_source.address], "unbj": ["127.0.0.1:9"]})


def count(worker: EdgeWorker, unit_type: str, *ranges: list[int]) -> list[int]:
    worker.agent.say("count", id=7, unit_type=unit_type, ranges=list(ranges))
    counts: list[int] = worker.agent.hear("count", lambda word: word["id"] == 7)["counts"]
    return counts


def told(worker: EdgeWorker, cutover: int, among: list[list[int]] | None = None) -> Any:
    worker.agent.say("returns", id=9, cutover=cutover, among=among)
    return worker.agent.hear("returns", lambda word: word["id"] == 9)["told"]


def test_live_sessions_are_counted_by_range(worker: EdgeWorker, back_source: BackSource) -> None:
    for router_id in (10, 11, 11, 300, None):
        worker.open(back_source, router_id)
    assert count(worker, "unit_type", [10, 11], [12, 299], [300, 400]) == [3, 0, 1]
    assert count(worker, "unit_type", [0, 9999]) == [4]
    assert count(worker, "another", [0, 9999]) == [0]
    assert count(worker, "unit_type") == []


def test_what_a_cutover_closed_is_still_told_after_its_later_steps(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    worker.open(back_source, 1111)
    worker.apply(config(back_source), make_rule(OLD, epoch=2, cutover=make_cutover("freeze", AWAY)))
    closed = worker.agent.stats(lambda said: said["by_phase"]["closed"] == 1)
    assert closed["by_phase"]["remaining"] == 0
    worker.apply(config(back_source), make_rule(NEW, epoch=3, cutover=make_cutover("activate", AWAY)))
    worker.apply(config(back_source), make_rule(NEW, epoch=4))
    later = worker.agent.stats(lambda said: said["by_phase"]["epoch"] == 4)["by_phase"]
    assert (later["closed"], later["cutover"]) == (1, closed["by_phase"]["cutover"])


def test_another_cutover_is_counted_from_zero(worker: EdgeWorker, back_source: BackSource) -> None:
    worker.open(back_source, 1111)
    worker.apply(config(back_source), make_rule(OLD, epoch=2, cutover=make_cutover("freeze", AWAY)))
    first = worker.agent.stats(lambda said: said["by_phase"]["closed"] == 1)["by_phase"]
    worker.apply(config(back_source), make_rule(NEW, epoch=3))
    another = {**make_cutover("activate", BACK), "id": "c2"}
    worker.apply(config(back_source), make_rule(OLD, epoch=4, cutover=another))
    worker.open(back_source, 1111)
    second = worker.agent.stats(lambda said: said["by_phase"]["reconnected"] == 1)["by_phase"]
    assert second["closed"] == 0
    assert second["cutover"] != first["cutover"]


def test_a_worker_remembers_whose_sessions_a_cutover_closed_and_who_of_them_is_back(
    worker: EdgeWorker, back_source: BackSource
) -> None:
    for router_id in (1111, 1112, 1500):
        worker.open(back_source, router_id)
    worker.apply(config(back_source), make_rule(OLD, epoch=2, cutover=make_cutover("freeze", AWAY)))
    key = worker.agent.stats(lambda said: said["by_phase"]["closed"] == 3)["by_phase"]["cutover"]
    assert told(worker, key) == {"ids": [[1111, 1112], [1500, 1500]], "left_out": 0}
    assert told(worker, key + 1) is None, "it was asked of another cutover"
    worker.apply(config(back_source), make_rule(OLD, epoch=3))  # aborted: the ids are served here again
    worker.open(back_source, 1112)
    assert told(worker, key)["ids"] == [[1111, 1111], [1500, 1500]]
    assert told(worker, key, [[1000, 1999]])["ids"] == [[1112, 1112]]
    assert told(worker, key, [[1113, 1999]])["ids"] == []
    assert told(worker, key, [])["ids"] == []


def test_a_worker_of_the_gaining_unit_remembers_who_came(worker: EdgeWorker, back_source: BackSource) -> None:
    worker.apply(config(back_source), make_rule(NEW, epoch=2))
    worker.apply(config(back_source), make_rule(OLD, epoch=3, cutover=make_cutover("activate", BACK)))
    for router_id in (1111, 1112, 5):
        worker.open(back_source, router_id)
    key = worker.agent.stats(lambda said: said["by_phase"]["reconnected"] == 2)["by_phase"]["cutover"]
    assert told(worker, key, [[0, 9999]]) == {"ids": [[1111, 1112]], "left_out": 0}
    assert told(worker, key) == {"ids": [], "left_out": 0}


def test_ids_are_written_as_runs() -> None:
    assert runs([]) == []
    assert runs([1, 2, 3, 7, 9, 10]) == [[1, 3], [7, 7], [9, 10]]


def test_no_more_ids_are_remembered_than_the_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutover_progress, "REMEMBERED_LIMIT", 2)
    progress = cutover_progress.CutoverProgress("center")
    for router_id in (5, 6, 7, 6):
        progress._remember(progress.gone, router_id)
    progress._cutover = "c1"
    assert progress.returns(progress_key("c1"), None) == {"ids": [[5, 6]], "left_out": 1}
