"""Charts: well-formed, to scale, escaped, and without NaN."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from data_pipeline.report import charts
from data_pipeline.report.charts import Dot, DotRow, FlowRow, Frame, Line


def parse(svg: str) -> ElementTree.Element:
    assert "nan" not in svg
    assert "inf" not in svg
    return ElementTree.fromstring(svg)


def polyline(element: ElementTree.Element, class_: str) -> list[tuple[float, float]]:
    for line in element.iter("polyline"):
        if line.get("class") == class_:
            pairs = str(line.get("points")).split()
            return [(float(p.split(",")[0]), float(p.split(",")[1])) for p in pairs]
    raise AssertionError(f"no line of class {class_}")


@pytest.mark.parametrize(
    ("low", "high"), [(0, 10), (-3.2, 7.7), (0, 1e-4), (5.001, 5.002), (0, 3e12), (2, 2)]
)
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = charts.ticks(low, high)
    assert 1 <= len(found) <= 11
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert found == sorted(set(found))


def test_lines_are_to_scale() -> None:
    points = [(0.0, 1.0), (50.0, 3.0), (100.0, 2.0)]
    svg = parse(charts.lines([Line("loss", points, "m2")], title="t", y_range=(1, 3)))
    (x0, y0), (x1, y1), (x2, y2) = polyline(svg, "line m2")
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 < y2 < y0  # in SVG up is smaller
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.2)


@pytest.mark.parametrize("points", [[(3.0, 2.0)], [(1.0, 5.0), (2.0, 5.0)], [(1.0, 0.0)]])
def test_lines_without_extent(points: list[tuple[float, float]]) -> None:
    parse(charts.lines([Line("flat", points)], title="t", marks=[(1.0, "stage1")]))


def test_many_points_are_thinned_to_means() -> None:
    points = [(float(k), float(k % 2)) for k in range(10_000)]
    thin = charts.thin(points)
    assert len(thin) == charts.MAX_POINTS
    assert all(y == pytest.approx(0.5, abs=0.05) for _, y in thin)
    assert charts.thin(points[:10]) == points[:10]


def test_running_mean_keeps_a_slope() -> None:
    points = [(float(k), 3.0 * k + 1) for k in range(200)]
    assert [y for _, y in charts.running_mean(points)] == pytest.approx([y for _, y in points])


def test_flow_widths_are_in_proportion() -> None:
    rows = [
        FlowRow("Read", {"a": 300, "b": 100}, 0, "400"),
        FlowRow("Clean", {"a": 150, "b": 50}, 200, "200", "−200"),
    ]
    svg = parse(charts.flow(rows, {"a": "s0", "b": "s1"}, title="t"))
    widths = [float(str(r.get("width"))) for r in svg.iter("rect")]
    starts = [float(str(r.get("x"))) for r in svg.iter("rect")]
    for first in (0, 2, 3):
        assert starts[first + 1] == pytest.approx(starts[first] + widths[first], abs=1)
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.02)
    assert widths[2] == pytest.approx(widths[0] / 2, rel=0.02)
    assert widths[4] == pytest.approx(widths[2] + widths[3], rel=0.02)
    assert [str(r.get("class")) for r in svg.iter("rect")][-1] == "lost"
    bands = [path for path in svg.iter("path") if "band" in str(path.get("class"))]
    assert len(bands) == 2


def test_dots_have_spreads_and_chance() -> None:
    dots = [Dot(0.5, 0.1, "m2", "half"), Dot(0.25, 0.0, "m0", "quarter")]
    svg = parse(
        charts.dots([DotRow("task", dots, mark=0.25)], title="t", x_label="x", percent=True)
    )
    centres = [float(str(c.get("cx"))) for c in svg.iter("circle")]
    by_class = {str(line.get("class")): line for line in svg.iter("line")}
    assert float(str(by_class["chance"].get("x1"))) == pytest.approx(centres[1], abs=0.1)
    whisker = by_class["whisker m2"]
    left, right = float(str(whisker.get("x1"))), float(str(whisker.get("x2")))
    assert (left + right) / 2 == pytest.approx(centres[0], abs=0.2)
    assert right - left == pytest.approx(0.8 * (centres[0] - centres[1]), rel=0.02)


def test_interval_of_a_share_ends_at_0_and_1() -> None:
    dots = [Dot(0.05, 0.2, "m0", ""), Dot(0.95, 0.2, "m1", ""), Dot(0.0, 0, "m2", "")]
    svg = parse(charts.dots([DotRow("task", dots)], title="t", x_label="x", percent=True))
    zero = [float(str(c.get("cx"))) for c in svg.iter("circle")][2]
    ends = [
        (float(str(line.get("x1"))), float(str(line.get("x2"))))
        for line in svg.iter("line")
        if "whisker" in str(line.get("class"))
    ]
    assert ends[0][0] == zero
    assert ends[1][1] - zero == pytest.approx((ends[1][0] - zero) / 0.75, rel=0.01)
    labels = [str(text.text) for text in svg.iter("text")]
    assert "0%" in labels
    assert "100%" in labels
    assert not [label for label in labels if label.startswith("-")]


def test_every_chart_escapes_texts_and_has_a_title() -> None:
    name = "<b>\"&'"
    for svg in (
        charts.lines(
            [Line(name, [(0, 1), (1, 2)])],
            title=name,
            marks=[(0, name)],
            frame=Frame(heading=name),
        ),
        charts.flow([FlowRow(name, {name: 1}, 1, name, name)], {name: "s0"}, title=name),
        charts.dots(
            [DotRow(name, [Dot(1, 1, "m0", name)])], title=name, x_label=name, percent=False
        ),
    ):
        element = parse(svg)
        assert element.get("aria-label") == name
        assert element.findtext("title") == name
        assert "<b>" not in svg
        assert not re.search(r"(href|style|url\()", svg)
