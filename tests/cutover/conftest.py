"""What every test of the cutover needs; every publish in any of them is judged by the oracle."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cutover import holds, jobs, previews
from cutover.checks import second_look
from tests.cutover.builders import Scene, make_scene
from tests.cutover.oracle import check_publish
from tests.support.live_console import LiveConsole, live_console
from units import probing, publishing

TOPOLOGY = """\
version: 1
namespace: NAME
router_id: {min: 0, max: 9999}
units:
  - {code: center, name: Hangzhou, center: true}
  - {code: unbj, name: Beijing}
unit_types:
  - name: unit_type
    sources: [{header: routerId}]
    untagged: local
    ranges: {center: ["0~5997"], unbj: ["5998~9999"]}
"""


@pytest.fixture(autouse=True)
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Background work is gathered here instead of done in threads that would outlive the test's database."""
    work: list[Callable[[], object]] = []
    monkeypatch.setattr(jobs, "in_background", work.append)
    return work


@pytest.fixture(autouse=True)
def _nodes_do_not_answer_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers probes, that need not be waited for."""
    monkeypatch.setattr(previews, "COUNT_DEADLINE_S", 0.01)
    monkeypatch.setattr(probing, "DEADLINE_S", 0.01)


@pytest.fixture(autouse=True)
def _no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers probes here; a test that wants the look asks for `second_looks`."""
    monkeypatch.setattr(holds, "HOLDERS", [one for one in holds.HOLDERS if one is not second_look.looked])


@pytest.fixture
def second_looks(monkeypatch: pytest.MonkeyPatch, _no_second_look: None) -> None:
    """The checks are made once more before ids are frozen, as everywhere but in tests."""
    monkeypatch.setattr(holds, "HOLDERS", [*holds.HOLDERS, second_look.looked])


@pytest.fixture(autouse=True)
def _judged_by_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    append = publishing.append

    def judged(namespace: Any, before: Any, change: Any, **options: Any) -> Any:
        check_publish(namespace, before, change.rule)
        return append(namespace, before, change, **options)

    monkeypatch.setattr(publishing, "append", judged)


@pytest.fixture
def scene(db: None) -> Scene:
    """Two units with one node each."""
    return make_scene()


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveConsole]:
    """A real console of the test file's own, with neither Redis nor Celery nor a node."""
    directory = tmp_path_factory.mktemp("console")
    with live_console(f"sqlite:///{directory / 'console.sqlite3'}", directory) as started:
        yield started


@pytest.fixture
def space(console: LiveConsole, request: pytest.FixtureRequest) -> str:
    """A namespace of this test's own, in effect on that console."""
    name = f"ns{abs(hash(request.node.nodeid)) % 10**8}"
    done = console.mshactl("apply", "-f", "-", "--yes", stdin=TOPOLOGY.replace("NAME", name))
    assert done.returncode == 0, done.stderr
    return name
