"""A line chart as SVG: small, readable in a diff, light and dark like the page that shows it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 680, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 56, 52  # the right margin holds the names of the lines
COLOURS = ("#2f6fd0", "#d1590a", "#7b7f87", "#2e8b57")
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.quiet { fill: #57606a; font-size: 12px }
.grid { stroke: #d0d7de; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9aa4ae } .grid { stroke: #3b434b }
}
"""


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    title: str
    across: str
    up: str
    lines: Sequence[Line]
    log_up: bool = False
    log_across: bool = True

    def svg(self) -> str:
        return _Drawing(self).text()


def short(value: float) -> str:
    """200000 → 200 k: for the marks of an axis."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def marks(least: float, most: float, log: bool) -> list[float]:
    """Round numbers for an axis; the first is at most `least`, the last at least `most`."""
    if log:
        first, last = math.floor(math.log10(least) + 1e-9), math.ceil(math.log10(most) - 1e-9)
        return [10.0**power for power in range(first, max(last, first + 1) + 1)]
    rough = most / 5
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    return [step * index for index in range(math.ceil(most / step) + 1)]


class _Drawing:
    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        xs = sorted({x for line in chart.lines for x, _ in line.points})
        ys = [y for line in chart.lines for _, y in line.points]
        self.xs = xs
        self.rungs = marks(min(ys), max(ys), chart.log_up)

    def x(self, value: float) -> float:
        scale = math.log10 if self.chart.log_across else float
        first, last = scale(self.xs[0]), scale(self.xs[-1])
        return LEFT + (scale(value) - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        scale = math.log10 if self.chart.log_up else float
        first, last = scale(self.rungs[0]), scale(self.rungs[-1])
        return HEIGHT - BOTTOM - (scale(value) - first) / (last - first) * (HEIGHT - TOP - BOTTOM)

    def text(self) -> str:
        chart = self.chart
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(chart.title)}">',
            f"<style>{STYLE}</style>",
            _text(14, 24, chart.title, "title"),
            _text(14, 43, chart.up, "quiet"),
            _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, chart.across, "quiet", anchor="middle"),
        ]
        for rung in self.rungs:
            y = self.y(rung)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(_text(LEFT - 8, y + 4, short(rung), "quiet", anchor="end"))
        for x in self.xs:
            parts.append(_text(self.x(x), HEIGHT - BOTTOM + 18, short(x), "quiet", anchor="middle"))
        parts += self.lines()
        return "\n".join([*parts, "</svg>", ""])

    def lines(self) -> list[str]:
        parts = []
        heights = self.label_heights()
        for line, colour, height in zip(self.chart.lines, COLOURS, heights, strict=False):
            places = [(self.x(x), self.y(y)) for x, y in line.points]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
            for (x, y), (_, value) in zip(places, line.points, strict=True):
                title = f"<title>{escape(line.name)}: {value:.4g}</title>"
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">{title}</circle>')
            parts.append(_text(places[-1][0] + 12, height, line.name, style=f"fill:{colour}"))
        return parts

    def label_heights(self) -> list[float]:
        """Where each line's name stands: beside its end, pushed down where two would overlap."""
        wanted = sorted((self.y(line.points[-1][1]) + 4, place) for place, line in enumerate(self.chart.lines))
        heights = [0.0] * len(wanted)
        least = 0.0
        for height, place in wanted:
            heights[place] = max(height, least)
            least = heights[place] + 16
        return heights


def _text(x: float, y: float, content: str, kind: str = "", *, anchor: str = "start", style: str = "") -> str:
    attributes = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    attributes += f' class="{kind}"' if kind else ""
    attributes += f' style="{style}"' if style else ""
    return f"<text {attributes}>{escape(content)}</text>"
