"""The picture of a run: by how much each candidate is better than nginx, or worse."""

from collections.abc import Iterator
from html import escape
from math import ceil, floor, log2

from bench.candidates import KINDS
from bench.figures import ratio
from bench.results import Results
from bench.workloads import WORKLOADS

#: Who is drawn, and in which style; nginx is the line at 1.
_SHOWN = {"msha": "a", "haproxy": "b", "naive": "c", "nginx-64k": "d"}
_WORKLOADS = ("redirect", "open", "cycle", "echo", "push", "broadcast", "large-echo", "memory")

_WIDTH, _LEFT, _RIGHT, _TOP = 960, 300, 900, 92
_BAR, _BAR_STEP, _GAP = 12, 16, 14

_STYLE = """
  .page { fill: #ffffff } .text { fill: #1f2937 } .faint { fill: #6b7280 }
  .grid { stroke: #e5e7eb } .one { stroke: #374151 }
  .a { fill: #2563eb } .b { fill: #9ca3af } .c { fill: #d97706 } .d { fill: #059669 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .text { fill: #e6edf3 } .faint { fill: #9198a1 } .grid { stroke: #2b3138 }
    .one { stroke: #c9d1d9 }
    .a { fill: #58a6ff } .b { fill: #6e7681 } .c { fill: #e3a03c } .d { fill: #3fb950 }
  }
"""


class _Scale:
    """Places on a logarithmic axis that has whole powers of two at its ends."""

    def __init__(self, values: list[float]) -> None:
        self.first = floor(log2(min([*values, 0.5])))
        self.last = ceil(log2(max([*values, 2.0])))

    def x(self, value: float) -> float:
        """Where the value stands."""
        return _LEFT + (log2(value) - self.first) / (self.last - self.first) * (_RIGHT - _LEFT)

    def marks(self) -> Iterator[float]:
        """The values that get a line."""
        step = 2 if self.last - self.first > 6 else 1
        for power in range(self.first, self.last + 1):
            if power % step == 0:
                yield 2.0**power


def draw(results: Results) -> str:
    """An SVG that is readable on light and on dark pages."""
    groups = [(name, bars) for name in _WORKLOADS if (bars := _bars(results, name))]
    scale = _Scale([value for _, bars in groups for _, value in bars])
    bottom = _TOP + sum(len(bars) * _BAR_STEP + _GAP for _, bars in groups)
    parts = [*_legend(groups), *_grid(scale, bottom)]
    y = _TOP + _GAP / 2
    for name, bars in groups:
        parts += _group(scale, name, bars, y)
        y += len(bars) * _BAR_STEP + _GAP
    x = scale.x(1)
    parts.append(f'<path class="one" d="M{x:.1f} {_TOP - 6}V{bottom}" stroke-width="1.5"/>')
    return _document(bottom + 34, parts)


def _bars(results: Results, workload: str) -> list[tuple[str, float]]:
    figure = WORKLOADS[workload].figure
    baseline = results.of(workload, "nginx")
    found = [(kind, ratio(figure, results.of(workload, kind), baseline)) for kind in _SHOWN]
    return [(kind, each.middle) for kind, each in found if each is not None]


def _legend(groups: list[tuple[str, list[tuple[str, float]]]]) -> Iterator[str]:
    yield (
        '<text class="text" x="24" y="34" font-size="17" font-weight="600">'
        "How many times less than nginx each candidate takes</text>"
    )
    yield (
        '<text class="faint" x="24" y="55">processor time per operation, or memory per session;'
        " right of the line is better than nginx, left is worse</text>"
    )
    x = 24.0
    for kind, style in _SHOWN.items():
        if any(kind == each for _, bars in groups for each, _ in bars):
            title = KINDS[kind].title
            yield f'<rect class="{style}" x="{x:.0f}" y="68" width="{_BAR}" height="{_BAR}" rx="2"/>'
            yield f'<text class="text" x="{x + 18:.0f}" y="79">{escape(title)}</text>'
            x += 44 + 7.2 * len(title)


def _grid(scale: _Scale, bottom: float) -> Iterator[str]:
    for mark in scale.marks():
        x = scale.x(mark)
        label = "nginx" if mark == 1 else f"{mark:g}" if mark > 1 else f"1/{1 / mark:g}"
        yield f'<path class="grid" d="M{x:.1f} {_TOP - 6}V{bottom}"/>'
        yield f'<text class="faint" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>'


def _group(scale: _Scale, name: str, bars: list[tuple[str, float]], y: float) -> Iterator[str]:
    middle = y + len(bars) * _BAR_STEP / 2 + 3
    title = escape(WORKLOADS[name].title)
    yield f'<text class="text" x="24" y="{middle:.1f}">{title}</text>'
    one = scale.x(1)
    for number, (kind, value) in enumerate(bars):
        end, top = scale.x(value), y + number * _BAR_STEP
        left, width = min(one, end), max(abs(end - one), 1.0)
        yield (
            f'<rect class="{_SHOWN[kind]}" x="{left:.1f}" y="{top:.1f}"'
            f' width="{width:.1f}" height="{_BAR}" rx="2"/>'
        )
        beside, anchor = (end + 5, "start") if value >= 1 else (end - 5, "end")
        yield (
            f'<text class="text" x="{beside:.1f}" y="{top + 10:.1f}" font-size="11" text-anchor="{anchor}">'
            f"{value:.2f}</text>"
        )


def _document(height: float, parts: list[str]) -> str:
    body = "\n  ".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" \
font-size="13" role="img" font-family="ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif" \
aria-label="How many times less processor time and memory each candidate takes than nginx.">
  <style>{_STYLE}  </style>
  <rect class="page" width="{_WIDTH}" height="{height:.0f}" rx="12"/>
  {body}
</svg>
"""
