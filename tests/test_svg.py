"""The plots are well-formed, show what they are given, and break no page."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest

from flake8_torchmem.output.svg import HEIGHT, WIDTH, Series, line_plot, quantity

POINT = re.compile(r"([ML])([\d.-]+) ([\d.-]+)")


def lines(svg: str) -> list[list[tuple[str, float, float]]]:
    """The points of each series, in the order in which they are drawn."""
    paths = [path.get("d", "") for path in ET.fromstring(svg).iter("path") if path.get("fill") == "none"]
    return [[(pen, float(x), float(y)) for pen, x, y in POINT.findall(path)] for path in paths]


def words(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter("text")]


def test_growth_rises_and_a_plateau_does_not() -> None:
    svg = line_plot([Series("as it is", "bad", [0, 50, 100]), Series("mended", "fixed", [100, 100, 100])], "drift", "steps", "bytes")
    mended, bad = lines(svg)  # the first series lies on top, so it is drawn last
    assert len({y for _, _, y in mended}) == 1
    assert [y for _, _, y in bad] == sorted((y for _, _, y in bad), reverse=True)
    assert bad[-1] == mended[-1]
    assert [x for _, x, _ in bad] == [x for _, x, _ in mended]
    assert {"as it is", "mended", "steps", "100 B"} <= set(words(svg))


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [-3.0, 2.0], [1e15, 2e15], [1e-9, 3e-9], [0.0, math.inf, 2.0]])
def test_everything_lies_within_the_picture(values: list[float]) -> None:
    svg = line_plot([Series("one", "bad", values)], "any", "steps", "nodes")
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for _, x, y in lines(svg)[0])
    assert len(words(svg)) <= 20


def test_what_is_not_finite_is_a_gap() -> None:
    (points,) = lines(line_plot([Series("one", "bad", [1, 2, math.nan, 4, 5])], "any", "steps", "nodes"))
    assert [pen for pen, _, _ in points] == ["M", "L", "M", "L"]


@pytest.mark.parametrize("series", [[], [Series("one", "bad", [])], [Series("one", "bad", [math.nan])]])
def test_nothing_to_show_is_no_picture(series: list[Series]) -> None:
    assert not line_plot(series, "any", "steps", "bytes")


def test_names_stay_text() -> None:
    svg = line_plot([Series("<script>", "bad", [1, 2])], 'a "title" & <b>', "</svg>", "<i>")
    assert {"<script>", "</svg>", "<i>"} <= set(words(svg))
    assert ET.fromstring(svg).get("aria-label") == 'a "title" & <b>'


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0, "bytes", "0"),
        (4, "bytes", "4 B"),
        (1280, "bytes", "1.28 kB"),
        (-42_500, "bytes", "-42.5 kB"),
        (2.5e10, "bytes", "25 GB"),
        (4e15, "bytes", "4,000 TB"),
        (1280, "nodes", "1,280 nodes"),
        (0.5921, "", "0.592"),
    ],
)
def test_quantity(value: float, unit: str, shown: str) -> None:
    assert quantity(value, unit) == shown
