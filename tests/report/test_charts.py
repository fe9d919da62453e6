"""Axes, ticks and places of the charts' marks."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygolf.report.charts import Bar, Series, bar_chart, histogram, line_chart, linear_axis, number, ticks_between
from pygolf.report.figures import smoothed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (1500, "1.5k"),
        (2_500_000, "2.5M"),
        (0.00012, "1.2e-4"),
        (-1e-4, "-1e-4"),
        (1.25, "1.25"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 8))
def test_ticks_are_few_round_and_inside(low: float, span: float, most: int) -> None:
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = ticks_between(low, high, most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low - 1e-3 * span <= tick <= high + 1e-3 * span for tick in ticks)


def test_a_value_is_drawn_where_the_axis_says() -> None:
    axis = linear_axis("x", 10, 20, 100, 300)
    assert [axis(v) for v in (10, 15, 20)] == [100, 200, 300]
    assert linear_axis("x", 5, 5, 0, 1)(5) == pytest.approx(0.5)  # values that are all the same


def test_lines_go_through_their_points_and_tell_them() -> None:
    chart = line_chart(
        "t", "n", [Series("a", [0, 1, 2], [1, 3, 2], 0), Series("b", [2], [1], 1)], x_label="x", y_label="y"
    )
    path = re.search(r'class="line c0" d="M([^"]*)"', chart.svg)
    assert path is not None
    heights = [float(point.split()[1]) for point in path[1].split("L")]
    assert heights[0] > heights[2] > heights[1]
    assert heights[0] - heights[1] == pytest.approx(2 * (heights[0] - heights[2]), abs=0.2)
    found = re.search(r'data-points="([^"]*)"', chart.svg)
    assert found is not None
    assert [text for _, text in json.loads(unescape(found[1]))] == ["x 0: a 1", "x 1: a 3", "x 2: a 2, b 1"]
    assert chart.legend == (("a", 0), ("b", 1))


def test_long_curves_are_thinned_to_means() -> None:
    values = [float(i % 2) for i in range(9600)]
    chart = line_chart("t", "n", [Series("a", range(9600), values, 0)], x_label="x", y_label="y", y_range=(0, 1))
    path = re.search(r'class="line c0" d="M([^"]*)"', chart.svg)
    assert path is not None
    heights = {point.split()[1] for point in path[1].split("L")}
    assert len(path[1].split("L")) == 480
    assert len(heights) == 1  # every mean is one half


def test_bars_are_as_long_as_their_values() -> None:
    chart = bar_chart(
        "t", "n", [Bar("a", 0, 2, "2", "tip"), Bar("b", 1, 2, "1", "tip")], x_label="x", limit=(4, "most")
    )
    widths = [float(w) for w in re.findall(r'class="bar[^>]* width="([\d.]+)"', chart.svg)]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert "most" in chart.svg


def test_a_histogram_counts_every_value() -> None:
    values = [1.0, 1.0, 2.0, 3.0, 3.0, 3.0]
    chart = histogram("t", "n", values, x_label="x", y_label="y", mark=(2, "mean"))
    assert sum(int(tip.rsplit(": ")[1]) for tip in re.findall(r'data-tip="([^"]*)"', chart.svg)) == 6


def test_smoothing_has_no_bias_at_its_start() -> None:
    assert smoothed([2.0] * 100) == pytest.approx([2.0] * 100)
