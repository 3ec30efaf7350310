"""Charts are well-formed, and show every point."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from upfrost.metrics.chart import HEIGHT, WIDTH, line_chart

_SVG = "{http://www.w3.org/2000/svg}"


def test_every_point_is_a_mark_inside_the_chart() -> None:
    series = {"a <b>": [(0, 1.0), (5, -3.0), (9, 2.0)], "b": [(2, 0.5)]}
    root = ElementTree.fromstring(line_chart("x & y", "frame", series, marks=True))
    marks = root.findall(f"{_SVG}circle")
    assert len(marks) == 4
    assert all(0 <= float(mark.get("cx", "-1")) <= WIDTH for mark in marks)
    assert all(0 <= float(mark.get("cy", "-1")) <= HEIGHT for mark in marks)
    texts = {text.text for text in root.findall(f"{_SVG}text")}
    assert {"x & y", "frame", "a <b>", "b"} <= texts


def test_equal_values_make_a_flat_line() -> None:
    root = ElementTree.fromstring(line_chart("flat", "x", {"a": [(0, 7), (1, 7)]}))
    assert root.findall(f"{_SVG}path")


def test_no_points_are_refused() -> None:
    with pytest.raises(ValueError, match="needs points"):
        line_chart("empty", "x", {"a": []})
