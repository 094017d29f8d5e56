"""The page that shows a run: ``docs/performance.md`` and its picture."""

from pathlib import Path

from bench.drawing import draw
from bench.programs import HERE, BenchError
from bench.report import as_markdown
from bench.results import Results

DOCS = HERE.parent / "docs"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def write(results: Results, docs: Path = DOCS) -> None:
    """The page and the picture show this run; what people wrote round them is kept.

    Raises:
        BenchError: the page has lost its markers.
    """
    path = docs / "performance.md"
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{path.name} has no place for figures: put {BEGIN} and {END} on two lines.")
    path.write_text(f"{before}{BEGIN}\n\n{as_markdown(results)}\n\n{END}{after}")
    (docs / "images" / "performance.svg").write_text(draw(results))
