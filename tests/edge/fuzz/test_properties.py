"""The properties of heads and frames, on the same inputs in every run; ``make fuzz`` tries new ones."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.edge.fuzz.corpus import CORPUS, KINDS, table
from tests.edge.fuzz.frames import steps
from tests.edge.fuzz.mutation import CUTS
from tests.edge.fuzz.properties import PROPERTIES
from tests.support.websocket_wire import frame


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_holds_for_generated_inputs(name: str) -> None:
    one = PROPERTIES[name]

    @settings(
        max_examples=one.examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(one.inputs, CUTS)
    def examine(data: bytes, cuts: list[int]) -> None:
        one.check(data, cuts)

    examine()


@pytest.mark.parametrize("name", PROPERTIES)
def test_it_holds_for_the_corpus(name: str) -> None:
    one = PROPERTIES[name]
    for data in one.kind.kept():
        for cuts in ([], [1], [len(data) // 2, len(data) // 3], [*range(0, len(data), 7)]):
            one.check(data, cuts)


@pytest.mark.parametrize("name", table())
def test_an_input_of_the_corpus_gets_the_verdict_of_the_table(name: str) -> None:
    kind = KINDS[name.partition("/")[0]]
    assert kind.verdict((CORPUS / name).read_bytes()) == table()[name]


def test_the_table_knows_every_input_of_the_corpus() -> None:
    files = {f"{kind}/{path.name}" for kind in KINDS for path in (CORPUS / kind).iterdir()}
    assert files == set(table())


@pytest.mark.parametrize(
    "data",
    [
        frame(b"") * 3000,
        frame(b"", 0, fin=False) * 3000,
        frame(b"x" * 5, mask=b"abcd") * 1000,
        b"\xff" * 6000,
        b"\x81\x7f" + b"\xff" * 6000,
        b"\x81\x7f" + bytes(8) + b"\x81\x7f" * 3000,
        bytes(range(256)) * 24,
    ],
    ids=["empty", "fragments", "masked", "ones", "huge", "liars", "all bytes"],
)
@pytest.mark.parametrize("part_bytes", [1, 7, 65_536])
def test_following_a_stream_costs_no_more_than_a_few_steps_a_byte(data: bytes, part_bytes: int) -> None:
    half, whole = steps(data[: len(data) // 2], part_bytes), steps(data, part_bytes)
    assert whole <= 30 * len(data)
    assert whole <= 2.2 * half + 100
