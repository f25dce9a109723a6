"""Line plots as inline SVG, for HTML pages: no script, no font, no file beside it, and colours that the page may set.

Text and axes have the colour of the text around them, so a plot is legible on light and on dark paper. A series is drawn in the colour
`--torchmem-bad` or `--torchmem-fixed` where the page defines these, and otherwise in tones that do on both. A page that is to show it in
less than its width says so for the class `torchmem-plot`; there are no style attributes, which strict pages forbid.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 440, 210
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 26, 36
TICKS = 5
COLOURS = {"bad": "var(--torchmem-bad,#d23f38)", "fixed": "var(--torchmem-fixed,#25915f)"}
PREFIXES = ("", "k", "M", "G", "T")


@dataclass(frozen=True)
class Series:
    """One line: how the legend calls it, `bad` or `fixed`, and a value for each beat. What is not finite is a gap."""

    name: str
    colour: str
    values: Sequence[float]


def quantity(value: float, unit: str) -> str:
    """A figure for people: `42.5 kB`, `1,280 nodes`, `0.59`. `unit` is `bytes`, or a word that is written as it is."""
    if unit != "bytes":
        return f"{value:,.0f} {unit}".strip() if value == round(value) else f"{value:.3g} {unit}".strip()
    if not value:
        return "0"
    power = min(max(int(math.log10(abs(value)) // 3), 0), len(PREFIXES) - 1)
    return f"{value / 1000**power:,.4g} {PREFIXES[power]}B"


def line_plot(series: Sequence[Series], title: str, x_label: str, unit: str) -> str:
    """The `<svg>` element that shows the series over the beats, from zero upwards; empty if nothing in them is finite.

    Args:
        series: what to draw; the first lies on top.
        title: what the picture shows, for those who cannot see it.
        x_label: what is counted from left to right, `steps`.
        unit: of the values: `bytes`, which get a prefix, or a word.
    """
    finite = [value for one in series for value in one.values if math.isfinite(value)]
    if not finite:
        return ""
    steps = max(2, *(len(one.values) for one in series))
    top = max(*finite, 0.0) or 1.0
    frame = _Frame(steps - 1, min(*finite, 0.0), top * 1.04)
    return "".join(_elements(series, title, x_label, unit, frame))


@dataclass(frozen=True)
class _Frame:
    """Where a value lies in the picture."""

    last: int
    low: float
    high: float

    def x(self, beat: float) -> float:
        return round(LEFT + beat / self.last * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM), 1)


def _elements(series: Sequence[Series], title: str, x_label: str, unit: str, frame: _Frame) -> Iterator[str]:
    name = html.escape(title, quote=True)
    yield (
        f'<svg class="torchmem-plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}"'
        f' width="{WIDTH}" height="{HEIGHT}" font-family="system-ui,sans-serif" font-size="11" fill="currentColor"><title>{name}</title>'
    )
    for value in _ticks(frame.low, frame.high, TICKS):
        y = frame.y(value)
        yield f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".18"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{html.escape(quantity(value, unit if unit == "bytes" else ""))}</text>'
    for beat in _ticks(0, frame.last, 6):
        if beat == round(beat):
            yield f'<text x="{frame.x(beat)}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{beat:.0f}</text>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{html.escape(x_label)}</text>'
    for one in reversed(series):
        yield f'<path d="{_line(one.values, frame)}" fill="none" stroke="{COLOURS[one.colour]}" stroke-width="2"/>'
    x = LEFT
    for one in series:
        yield f'<path d="M{x} 10h16" stroke="{COLOURS[one.colour]}" stroke-width="2.5"/>'
        yield f'<text x="{x + 21}" y="14">{html.escape(one.name)}</text>'
        x += 38 + 6 * len(one.name)
    if unit != "bytes":
        yield f'<text x="{WIDTH - RIGHT}" y="14" text-anchor="end">{html.escape(unit)}</text>'
    yield "</svg>"


def _line(values: Sequence[float], frame: _Frame) -> str:
    """The path through the finite values."""
    path, pen = [], "M"
    for beat, value in enumerate(values):
        if math.isfinite(value):
            path.append(f"{pen}{frame.x(beat)} {frame.y(value)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(path)


def _ticks(low: float, high: float, count: int) -> Iterator[float]:
    """Round numbers from low to high, at most about `count` of them."""
    power = 10 ** math.floor(math.log10((high - low) / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if (high - low) / (factor * power) <= count)
    first = math.ceil(low / step)
    yield from (number * step for number in range(first, math.floor(high / step) + 1))
