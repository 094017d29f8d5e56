"""What a worker counts for a cutover: live sessions before it, closed and reconnected ones during it."""

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
