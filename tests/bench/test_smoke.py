"""The benchmark's programs and workloads, for a moment each: what they measure is another matter."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import page, report
from bench.candidates import KINDS, Running
from bench.drawing import draw
from bench.goals import reached
from bench.programs import HERE, BenchError, Cores, allow_descriptors, compile_programs
from bench.results import Results
from bench.workloads import WORKLOADS, Scale, Stage, cycle, redirect
from tests.support.needs import need

MOMENT = Scale(seconds=0.1, warm_s=0.02, sessions=0.02)

#: Those that want a fresh edge leave another one behind; decisions are timed without any.
ON_THE_EDGE = [name for name, workload in WORKLOADS.items() if name != "decision" and not workload.fresh]
ON_A_FRESH_EDGE = [name for name, workload in WORKLOADS.items() if workload.fresh]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    need("cc")
    compile_programs()
    allow_descriptors()
    with Stage(Cores(None, None), MOMENT, tmp_path_factory.mktemp("bench")) as stage:
        yield stage


@pytest.fixture(scope="module")
def edge(stage: Stage) -> Iterator[Running]:
    running = stage.start(KINDS["msha"])
    yield running
    running.stop()


@pytest.mark.parametrize("name", ON_THE_EDGE)
def test_the_edge_does_a_workload_without_an_error(name: str, stage: Stage, edge: Running) -> None:
    assert WORKLOADS[name].measure(stage, edge, KINDS["msha"])["cpu_us"] > 0


@pytest.mark.parametrize("name", ON_A_FRESH_EDGE)
def test_a_fresh_edge_does_a_workload_without_an_error(name: str, stage: Stage) -> None:
    running = stage.start(KINDS["msha"])
    try:
        assert WORKLOADS[name].measure(stage, running, KINDS["msha"])
    finally:
        running.stop()


@pytest.mark.parametrize(("program", "kind"), [("nginx", "nginx"), ("haproxy", "haproxy")])
def test_another_proxy_does_the_same_job(program: str, kind: str, stage: Stage) -> None:
    need(program)
    running = stage.start(KINDS[kind])
    try:
        for measure in (redirect, cycle):
            assert measure(stage, running, KINDS[kind])["cpu_us"] > 0
    finally:
        running.stop()


def test_a_server_that_does_not_redirect_is_an_error_and_not_fast(stage: Stage, edge: Running) -> None:
    with stage.load(edge) as client, pytest.raises(BenchError, match="no 302"):
        client.ask("redirect", 0.05, 4, 1000, 5997)


def test_a_server_that_redirects_is_no_back_source(stage: Stage, edge: Running) -> None:
    with stage.load(edge) as client, pytest.raises(BenchError, match="no 101"):
        client.ask("cycle", 0.05, 4, 5998, 9999)


def test_sessions_that_get_no_close_are_an_error(stage: Stage, edge: Running) -> None:
    with stage.load(edge) as client:
        client.ask("open", 5, 5, 1000, 5997, 0)
        with pytest.raises(BenchError, match="only 0 of 5"):
            client.ask("closes", 5, 0.2, 9999)


def made_up_results() -> Results:
    results = Results.begin(2)
    for number in (1, 2):
        results.add("redirect", "msha", {"cpu_us": 20.0 * number, "rate": 100.0})
        results.add("redirect", "nginx", {"cpu_us": 30.0 * number, "rate": 90.0})
        results.add("memory", "msha", {"bytes": 1600.0})
        results.add("memory", "nginx", {"bytes": 16000.0})
    results.note("redirect", "naive", "Daphne cannot")
    return results


def test_candidates_are_compared_round_by_round() -> None:
    verdicts = {goal.title: (value, goal.met(value)) for goal, value in reached(made_up_results())}
    assert verdicts["handshake → 302, CPU, nginx / msha"] == (1.5, True)
    assert verdicts["memory of an idle session"] == (1.6, False)
    text = report.as_text(made_up_results())
    assert "1.50 (1.50-1.50)" in text
    assert "Daphne cannot" in text


def test_the_page_keeps_what_people_wrote_round_the_figures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    path = tmp_path / "performance.md"
    path.write_text(f"before\n{page.BEGIN}\nold figures\n{page.END}\nafter\n")
    results = made_up_results()
    results.write(tmp_path / "results.json")
    page.write(Results.read(tmp_path / "results.json"), tmp_path)
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old figures" not in text
    assert "| msha | 30.0 |" in text
    assert draw(results) == (tmp_path / "images" / "performance.svg").read_text()


def test_the_published_page_has_a_place_for_figures() -> None:
    text = (HERE.parent / "docs" / "performance.md").read_text()
    assert text.index(page.BEGIN) < text.index(page.END)
