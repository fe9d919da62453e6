"""Charts as inline SVG, drawn without any library: lines, horizontal bars and dots, histograms.

Every chart is 380 units wide, so that its text stays readable where a phone shows it at 360 pixels, and takes its
colors from the page's style sheet. Marks carry what they stand for in `data-tip`, lines in `data-points` of the svg
element; page.js shows it under the pointer.
Units: x and y are data values, px and py are units of the drawing (y grows downwards).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import pairwise

WIDTH = 380
COLORS = 7
"""Series colors of the style sheet: classes c0 to c6."""

_RIGHT, _TOP, _BOTTOM = 14, 10, 44
_CHARACTER = 7.0  # width of a character at the charts' font size, for margins of labels
_MOST_POINTS = 480  # more cannot be told apart on a screen


@dataclass(frozen=True)
class Chart:
    """A drawn chart and what stands around it."""

    title: str
    note: str
    """A sentence for people: what it shows and how to read it."""
    svg: str
    legend: tuple[tuple[str, int], ...] = ()
    """Name and color of each series; empty if there is only one."""


@dataclass(frozen=True)
class Series:
    """One line of a line chart; xs and ys [n], n >= 1."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Bar:
    """One row of a bar or dot chart."""

    label: str
    begin: float
    end: float
    text: str
    """What stands at its end."""
    tip: str
    color: int = 0


@dataclass(frozen=True)
class Axis:
    """A scale from values to units of the drawing, with ticks. Logarithmic ones take positive values only."""

    label: str
    low: float
    high: float
    start: float
    """Where `low` is drawn."""
    stop: float
    """Where `high` is drawn."""
    logarithmic: bool = False
    ticks: tuple[float, ...] = field(default=())

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return self.start + (self.stop - self.start) * (value - low) / (high - low)


def number(value: float) -> str:
    """A tick's text: 1500000 -> 1.5M, 0.00012 -> 1.2e-4, 2.50 -> 2.5."""
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e12):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"


def ticks_between(low: float, high: float, most: int) -> tuple[float, ...]:
    """At most `most` + 1 round values (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def linear_axis(label: str, low: float, high: float, start: float, stop: float, most: int = 5) -> Axis:
    """An axis over [low, high]; values that are all the same get room on both sides."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        spread = abs(low) * 0.05 or 1.0
        low, high = low - spread, high + spread
    return Axis(label, low, high, start, stop, ticks=ticks_between(low, high, most))


def rounded_axis(label: str, low: float, high: float, start: float, stop: float) -> Axis:
    """A linear axis that begins and ends at a tick."""
    axis = linear_axis(label, low, high, start, stop)
    step = axis.ticks[1] - axis.ticks[0] if len(axis.ticks) > 1 else axis.high - axis.low
    return linear_axis(label, step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9), start, stop)


def log_axis(label: str, low: float, high: float, start: float, stop: float) -> Axis:
    """A logarithmic axis over whole powers of ten around [low, high]."""
    begin, end = math.floor(math.log10(low)), math.ceil(math.log10(high))
    end = max(end, begin + 1)
    step = math.ceil((end - begin) / 6)
    ticks = tuple(10.0**e for e in range(begin, end + 1, step))
    return Axis(label, 10.0**begin, 10.0**end, start, stop, logarithmic=True, ticks=ticks)


def thinned(series: Series) -> Series:
    """At most 480 points: means of as many runs of neighbours."""
    count = len(series.xs)
    if count <= _MOST_POINTS:
        return series
    edges = [count * i // _MOST_POINTS for i in range(_MOST_POINTS + 1)]
    means = [[sum(v[a:b]) / (b - a) for a, b in pairwise(edges)] for v in (series.xs, series.ys)]
    return Series(series.name, means[0], means[1], series.color, series.faint, series.dots)


def line_chart(
    title: str,
    note: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    logarithmic: bool = False,
    height: int = 260,
) -> Chart:
    """Lines over a common x axis. The readout under the pointer shows every line's value at the nearest x."""
    lines = [thinned(s) for s in series]
    xs = [x for s in lines for x in s.xs]
    ys = [y for s in lines for y in s.ys]
    low, high = y_range or (min(ys), max(ys))
    make = log_axis if logarithmic else rounded_axis
    y_axis = make(y_label, low, high, height - _BOTTOM, _TOP)
    x_axis = _x_axis(x_label, xs, _left_of(y_axis))
    marks = [_line(s, x_axis, y_axis) for s in lines]
    points = json.dumps(_readouts(lines, x_axis), ensure_ascii=False)
    body = [
        *_grid(x_axis, y_axis, height),
        *marks,
        f'<line class="cursor" y1="{_TOP}" y2="{height - _BOTTOM}"/>',
    ]
    legend = tuple((s.name, s.color) for s in series) if len(series) > 1 else ()
    return Chart(title, note, _svg(title, note, height, body, points), legend)


def _x_axis(label: str, xs: Sequence[float], left: float) -> Axis:
    """From 0 if the values begin near it; ticks at whole numbers only if all values are."""
    low, high = min(xs), max(xs)
    axis = linear_axis(label, 0.0 if 0 < low < 0.05 * high else low, high, left, WIDTH - _RIGHT)
    return _whole(axis) if all(float(x).is_integer() for x in xs) else axis


def _whole(axis: Axis) -> Axis:
    """The axis with ticks at whole numbers only."""
    return replace(axis, ticks=tuple(t for t in axis.ticks if float(t).is_integer()))


def _left_of(y_axis: Axis) -> float:
    """Room for the axis' label and its longest tick."""
    return 30 + _CHARACTER * max(len(number(tick)) for tick in y_axis.ticks)


def _line(series: Series, x_axis: Axis, y_axis: Axis) -> str:
    points = [(x_axis(x), y_axis(y)) for x, y in zip(series.xs, series.ys, strict=True)]
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
    style = f"line c{series.color}{' faint' if series.faint else ''}"
    dots = "".join(f'<circle class="dot c{series.color}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points)
    return f'<path class="{style}" d="{path}"/>' + (dots if series.dots or len(points) == 1 else "")


def _readouts(lines: Sequence[Series], x_axis: Axis) -> list[list[float | str]]:
    """[px, text] of every x that a line has a point at."""
    texts: dict[float, list[str]] = {}
    for s in lines:
        prefix = f"{s.name} " if len(lines) > 1 else ""
        for x, y in zip(s.xs, s.ys, strict=True):
            texts.setdefault(x, []).append(f"{prefix}{y:.5g}")
    unit = x_axis.label
    return [[round(x_axis(x), 1), f"{unit} {number(x)}: {', '.join(parts)}"] for x, parts in sorted(texts.items())]


def bar_chart(
    title: str,
    note: str,
    bars: Sequence[Bar],
    *,
    x_label: str,
    x_range: tuple[float, float] | None = None,
    limit: tuple[float, str] | None = None,
    dots: bool = False,
) -> Chart:
    """Horizontal bars from `begin` to `end`, or dots at `end`, one row each; `limit` is a marked value with its name.

    Bars begin at 0 unless `x_range` says otherwise, which is for dots: a dot's place carries the value, not a length.
    """
    row, left = 26, 12 + _CHARACTER * max(len(bar.label) for bar in bars)
    right = 10 + _CHARACTER * max(len(bar.text) for bar in bars)
    top = _TOP + (16 if limit else 0)
    bottom = top + row * len(bars)
    low, high = x_range or (0.0, max([b.end for b in bars] + ([limit[0]] if limit else [])) or 1.0)
    axis = linear_axis(x_label, low, high, left, WIDTH - right, most=4)
    body = _x_grid(axis, top, bottom)
    for i, bar in enumerate(bars):
        body.append(_bar(bar, axis, top + row * i, row, dots))
    if limit:
        px = axis(limit[0])
        anchor = "end" if px > WIDTH / 2 else "start"
        body.append(f'<line class="limit" x1="{px:.1f}" x2="{px:.1f}" y1="{top - 4}" y2="{bottom}"/>')
        body.append(_text(px, top - 8, limit[1], "limit", anchor))
    return Chart(title, note, _svg(title, note, bottom + _BOTTOM, body))


def _bar(bar: Bar, axis: Axis, top: float, row: float, dot: bool) -> str:
    middle, begin, end = top + row / 2, axis(bar.begin), axis(bar.end)
    tip = f'data-tip="{escape(bar.tip)}"'
    if dot:
        mark = f'<circle class="dot c{bar.color}" cx="{end:.1f}" cy="{middle:.1f}" r="5" {tip}/>'
    else:
        mark = (
            f'<rect class="bar c{bar.color}" x="{begin:.1f}" y="{top + 4:.1f}" width="{max(end - begin, 1):.1f}" '
            f'height="{row - 8}" rx="2" {tip}/>'
        )
    label = _text(axis.start - 8, middle + 4, bar.label, "label", "end")
    return label + mark + _text(max(end, begin + 1) + (9 if dot else 6), middle + 4, bar.text, "value", "start")


def histogram(
    title: str, note: str, values: Sequence[float], *, x_label: str, y_label: str, mark: tuple[float, str]
) -> Chart:
    """How many values fall in each of up to 30 equal bins; `mark` is a value to point out, with its name."""
    height, top = 260, _TOP + 16
    bins = max(5, min(30, round(2 * math.sqrt(len(values)))))
    x_axis = linear_axis(x_label, min(values), max(values), 60, WIDTH - _RIGHT)
    width = (x_axis.high - x_axis.low) / bins
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - x_axis.low) / width))] += 1
    y_axis = _whole(linear_axis(y_label, 0, max(counts), height - _BOTTOM, top))
    body = _grid(x_axis, y_axis, height)
    for i, count in enumerate(counts):
        begin, end = x_axis.low + i * width, x_axis.low + (i + 1) * width
        px, py = x_axis(begin), y_axis(count)
        tip = f"{number(begin)} to {number(end)}: {count:,}"
        body.append(
            f'<rect class="bar c0" x="{px + 0.5:.1f}" y="{py:.1f}" width="{x_axis(end) - px - 1:.1f}" '
            f'height="{height - _BOTTOM - py:.1f}" data-tip="{escape(tip)}"/>'
        )
    px = x_axis(mark[0])
    anchor = "end" if px > WIDTH / 2 else "start"
    body.append(f'<line class="limit" x1="{px:.1f}" x2="{px:.1f}" y1="{top - 4}" y2="{height - _BOTTOM}"/>')
    body.append(_text(px, top - 8, mark[1], "limit", anchor))
    return Chart(title, note, _svg(title, note, height, body))


def _grid(x_axis: Axis, y_axis: Axis, height: float) -> list[str]:
    parts = _x_grid(x_axis, y_axis.stop, height - _BOTTOM)
    for tick in y_axis.ticks:
        py = y_axis(tick)
        parts.append(f'<line class="grid" x1="{x_axis.start}" x2="{x_axis.stop}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(_text(x_axis.start - 6, py + 4, number(tick), "tick", "end"))
    middle = (y_axis.start + y_axis.stop) / 2
    label = f'<text class="axis" text-anchor="middle" transform="translate(13 {middle:.0f}) rotate(-90)">'
    parts.append(f"{label}{escape(y_axis.label)}</text>")
    return parts


def _x_grid(axis: Axis, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in axis.ticks:
        px = axis(tick)
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(_text(px, bottom + 16, number(tick), "tick", "middle"))
    parts.append(_text((axis.start + axis.stop) / 2, bottom + 35, axis.label, "axis", "middle"))
    return parts


def _text(px: float, py: float, text: str, style: str, anchor: str) -> str:
    return f'<text class="{style}" x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, note: str, height: float, body: Sequence[str], points: str = "") -> str:
    name = "chart-" + "".join(c if c.isalnum() else "-" for c in title.lower())
    data = f' data-points="{escape(points)}"' if points else ""
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{name}-t {name}-d"{data}>'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(note)}</desc>{"".join(body)}</svg>'
    )
