"""Charts of the report as inline SVG, with text as text and with colors as CSS classes.

This file sets no color and no font. An element carries classes (`s0` to `s9` for sources, `m0` to
`m2` for models, `label`, `grid`), and the page's style sheet gives each of them a light and a dark
color. Coordinates are rounded to a tenth of a pixel, so equal data give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 960  # pixels, in the coordinates of a full-width chart; the page scales it
MAX_POINTS = 400  # per line; more cannot be distinguished at this width
CHARACTER_WIDTH = 6.7  # mean width in pixels of a character of the 12-pixel labels
MIN_SMOOTHED_POINTS = 50  # a shorter line is drawn as it is, without a running mean

Point = tuple[float, float]
Span = tuple[float, float]  # first and last pixel of a piece of a bar


def _tag(name: str, content: str | Iterable[str] = "", **attributes: object) -> Markup:
    """Returns an SVG element with escaped attributes and content.

    In a keyword, `_` becomes `-` and a trailing `_` is removed: `class_="a"` gives `class="a"`.
    An attribute whose value is None is left out.
    """
    rendered = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_rounded(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = content if isinstance(content, str) else Markup("").join(content)
    return Markup(f"<{name}{rendered}>{escape(inside)}</{name}>")


def _rounded(value: object) -> object:
    """Returns a float with at most one decimal place, and any other value unchanged."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def _text(x: float, y: float, text: str, class_: str = "label", anchor: str = "start") -> Markup:
    """Returns a text element whose baseline begins at (x, y), or is centered or ends there."""
    return _tag("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def _svg(
    content: Iterable[str], *, title: str, height: float, width: float, class_: str = "wide"
) -> Markup:
    """Returns the svg element of a whole chart; `title` is its description for screen readers."""
    return _tag(
        "svg",
        [_tag("title", title), *content],
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        aria_label=title,
        class_=f"chart {class_}",
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns round numbers within [low, high], approximately `count` of them.

    Their distance is 1, 2 or 5 times a power of ten.

    >>> ticks(0, 10)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    # 1e-9 of a step absorbs rounding errors, so a tick on the edge of the range is included.
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def short(value: float) -> str:
    """Returns a number as a short axis label.

    >>> short(1_500_000), short(0.0005), short(2.0), short(0)
    ('1.5M', '5e-4', '2', '0')
    """
    if value and abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _label_width(labels: Iterable[str]) -> float:
    """Returns the width in pixels of the longest label, by its number of characters."""
    return CHARACTER_WIDTH * max(map(len, labels))


def _hover(text: str | None) -> list[Markup]:
    """Returns the element that a browser shows as a tooltip, or nothing for None."""
    return [] if text is None else [_tag("title", text)]


# ------------------------------------------------------------------------------------------ lines


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Attributes:
      name: the label at its end.
      points: (x, y) in ascending order of x.
      class_: the CSS class of its color.
      smoothed: whether to draw its running mean, and the points themselves as a faint line.
    """

    name: str
    points: Sequence[Point]
    class_: str = "m0"
    smoothed: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The size of a line chart in pixels, and the texts outside the plot area."""

    width: float = WIDTH
    height: float = 300
    heading: str = ""
    x_label: str = ""

    @property
    def is_small(self) -> bool:
        """True if the chart has few ticks and no labels at the ends of its lines."""
        return self.width < WIDTH / 2


@dataclass(frozen=True, slots=True)
class Axes:
    """The plot area of a line chart: it maps data to pixels and draws the grid.

    Attributes:
      frame: the chart around the plot area.
      x_range, y_range: the least and the greatest value on each axis.
      top: the upper edge of the plot area in pixels.
    """

    frame: Frame
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    top: float

    @property
    def left(self) -> float:
        """The left edge of the plot area in pixels; the labels of the y axis are left of it."""
        return 46.0 if self.frame.is_small else 52.0

    @property
    def right(self) -> float:
        """The right edge of the plot area in pixels; the names of the lines are right of it."""
        return self.frame.width - (10.0 if self.frame.is_small else 96.0)

    @property
    def bottom(self) -> float:
        """The lower edge of the plot area in pixels; the labels of the x axis are below it."""
        return self.frame.height - (38.0 if self.frame.x_label else 20.0)

    def x(self, value: float) -> float:
        """Returns the horizontal pixel of a value; an empty range maps to the left edge."""
        low, high = self.x_range
        return self.left + (self.right - self.left) * ((value - low) / (high - low or 1))

    def y(self, value: float) -> float:
        """Returns the vertical pixel of a value. Pixels count downwards from the top."""
        low, high = self.y_range
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def grid(self) -> list[Markup]:
        """Returns the horizontal grid lines and the tick labels of both axes."""
        y_ticks, x_ticks = (3, 3) if self.frame.is_small else (5, 8)
        elements: list[Markup] = []
        for value in ticks(*self.y_range, y_ticks):
            y = self.y(value)
            elements.append(_tag("line", x1=self.left, x2=self.right, y1=y, y2=y, class_="grid"))
            elements.append(_text(self.left - 6, y + 4, short(value), "label", "end"))
        for value in ticks(*self.x_range, x_ticks):
            below = self.bottom + 15
            elements.append(_text(self.x(value), below, short(value), "label", "middle"))
        return elements

    def marks(self, marks: Iterable[tuple[float, str]]) -> list[Markup]:
        """Returns a vertical line with its name above it for each (x, name)."""
        elements: list[Markup] = []
        for value, name in marks:
            x = self.x(value)
            elements.append(_tag("line", x1=x, x2=x, y1=self.top, y2=self.bottom, class_="mark"))
            elements.append(_text(x, self.top - 7, name))
        return elements

    def line(self, points: Sequence[Point], class_: str) -> Markup:
        """Returns a polyline through at most MAX_POINTS of the points."""
        pixels = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in thin(points))
        return _tag("polyline", points=pixels, class_=class_)

    def dot(self, point: Point, class_: str) -> Markup:
        """Returns a small circle at a point."""
        return _tag("circle", cx=self.x(point[0]), cy=self.y(point[1]), r=2.5, class_=class_)


def thin(points: Sequence[Point]) -> list[Point]:
    """Reduces a line to at most MAX_POINTS points, each the mean of consecutive points."""
    if len(points) <= MAX_POINTS:
        return list(points)
    edges = [round(i * len(points) / MAX_POINTS) for i in range(MAX_POINTS + 1)]
    groups = [points[a:b] for a, b in pairwise(edges)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def running_mean(points: Sequence[Point]) -> list[Point]:
    """Returns the mean of y over a window around each point, 1/50 of the line on each side."""
    reach = len(points) // 50
    # sums[k] is the sum of the first k values, so the sum over [a, b) is sums[b] - sums[a].
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for i, (x, _) in enumerate(points):
        # Near the ends the window shrinks on both sides, so that a slope remains unbiased.
        n = min(reach, i, len(points) - 1 - i)
        smooth.append((x, (sums[i + n + 1] - sums[i - n]) / (2 * n + 1)))
    return smooth


def lines(
    series: Sequence[Line],
    *,
    title: str,
    marks: Sequence[tuple[float, str]] = (),
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    frame: Frame | None = None,
) -> Markup:
    """Returns a chart of lines over one x axis.

    Args:
      series: the lines.
      title: a description for screen readers.
      marks: (x, name) of vertical lines, such as the first step of a training stage.
      x_range: the least and the greatest x; None: those of the data.
      y_range: the least and the greatest y; None: those of the data with a margin of 4 %.
      frame: the size of the chart and its labels.
    """
    axes = _axes(series, marks, (x_range, y_range), frame or Frame())
    frame = axes.frame
    elements = axes.grid() + axes.marks(marks)
    if frame.x_label:
        middle = (axes.left + axes.right) / 2
        elements.append(_text(middle, frame.height - 4, frame.x_label, "label", "middle"))
    if frame.heading:
        elements.append(_text(0, 13, frame.heading, "heading"))
    ends: list[tuple[float, str]] = []
    for line in series:
        points = list(line.points)
        if line.smoothed and len(points) >= MIN_SMOOTHED_POINTS:
            elements.append(axes.line(points, f"line faint {line.class_}"))
            points = running_mean(points)
        elements.append(axes.line(points, f"line {line.class_}"))
        if len(points) == 1:  # a polyline through one point is invisible
            elements.append(axes.dot(points[0], f"fill {line.class_}"))
        ends.append((axes.y(points[-1][1]), line.name))
    if not frame.is_small:
        for y, name in _spread_labels(ends, 14):
            elements.append(_text(axes.right + 8, y + 4, name))
    return _svg(
        elements,
        title=title,
        height=frame.height,
        width=frame.width,
        class_="small" if frame.is_small else "wide",
    )


def _axes(
    series: Sequence[Line],
    marks: Sequence[tuple[float, str]],
    ranges: tuple[tuple[float, float] | None, tuple[float, float] | None],
    frame: Frame,
) -> Axes:
    """Returns axes that hold all points and marks, unless `ranges` (of x, of y) fixes them."""
    x_range, y_range = ranges
    xs = [x for line in series for x, _ in line.points] + [x for x, _ in marks]
    ys = [y for line in series for _, y in line.points]
    low, high = y_range or (min(ys), max(ys))
    if high <= low:  # a constant line is drawn in the middle of the plot area
        low, high = low - (abs(low) or 1) / 2, low + (abs(low) or 1) / 2
    elif y_range is None:
        low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    top = 38.0 if any(name for _, name in marks) else 26.0  # space for the names of the marks
    return Axes(frame, x_range or (min(xs), max(xs)), (low, high), top)


def _spread_labels(
    labels: Sequence[tuple[float, str]], min_distance: float
) -> list[tuple[float, str]]:
    """Moves labels (y, text) down until each is `min_distance` pixels below the one above it."""
    placed: list[tuple[float, str]] = []
    for y, name in sorted(labels):
        placed.append((max(y, placed[-1][0] + min_distance) if placed else y, name))
    return placed


# ------------------------------------------------------------------------------------------- flow


@dataclass(frozen=True, slots=True)
class FlowRow:
    """A stage of the flow chart.

    Attributes:
      name: the label of the stage.
      kept: number of documents or bytes that the stage kept, by source.
      lost: number that it removed.
      kept_label, lost_label: these numbers as text; the second is "" if nothing was removed.
      tooltips: text by source, shown on hovering over the source's piece of the bar.
    """

    name: str
    kept: dict[str, float]
    lost: float
    kept_label: str
    lost_label: str = ""
    tooltips: dict[str, str] = field(default_factory=dict)


_FLOW_BAR, _FLOW_GAP, _FLOW_TOP = 26.0, 30.0, 8.0  # height of a bar, of a gap, of the margin


def flow(rows: Sequence[FlowRow], classes: Mapping[str, str], *, title: str) -> Markup:
    """Returns a flow chart from top to bottom: one bar per stage, stacked by source.

    A grey piece at the end of a bar is what the stage removed. Bands join each source's piece of a
    bar to its piece of the next bar. `classes` gives each source its CSS class and their order.
    """
    left = 12 + _label_width(row.name for row in rows)
    right = 24 + _label_width(row.kept_label + row.lost_label for row in rows)
    largest = max(sum(row.kept.values()) + row.lost for row in rows) or 1
    scale = (WIDTH - left - right) / largest  # pixels per document or byte
    spans = [_stacked_spans(row.kept, classes, left, scale) for row in rows]
    elements: list[Markup] = []
    for i, (above, below) in enumerate(pairwise(spans)):
        y = _FLOW_TOP + i * (_FLOW_BAR + _FLOW_GAP) + _FLOW_BAR
        for source in (name for name in above if name in below):
            elements.append(_band(above[source], below[source], y, f"band {classes[source]}"))
    for i, (row, span) in enumerate(zip(rows, spans, strict=True)):
        y = _FLOW_TOP + i * (_FLOW_BAR + _FLOW_GAP)
        elements += _flow_bar(row, span, classes, (left, y, scale))
    height = _FLOW_TOP + len(rows) * (_FLOW_BAR + _FLOW_GAP) - _FLOW_GAP + 8
    return _svg(elements, title=title, height=height, width=WIDTH)


def _stacked_spans(
    values: Mapping[str, float], order: Iterable[str], left: float, scale: float
) -> dict[str, Span]:
    """Returns the span of each source's piece of a stacked bar that begins at `left`."""
    spans: dict[str, Span] = {}
    for source in order:
        if value := values.get(source, 0):
            spans[source] = (left, left + value * scale)
            left += value * scale
    return spans


def _band(above: Span, below: Span, y: float, class_: str) -> Markup:
    """Returns a curved band from the lower edge of a bar, at `y`, to the bar below it."""
    (a, b), (c, d) = above, below
    middle, end = y + _FLOW_GAP / 2, y + _FLOW_GAP
    # Two Bezier curves with vertical ends: a to c on the left side, d to b on the right side.
    shape = (
        f"M{a:.1f},{y} C{a:.1f},{middle} {c:.1f},{middle} {c:.1f},{end} "
        f"L{d:.1f},{end} C{d:.1f},{middle} {b:.1f},{middle} {b:.1f},{y} Z"
    )
    return _tag("path", d=shape, class_=class_)


def _flow_bar(
    row: FlowRow,
    spans: Mapping[str, Span],
    classes: Mapping[str, str],
    origin: tuple[float, float, float],
) -> list[Markup]:
    """Returns the bar of a stage with its labels; `origin`: left, top, pixels per document."""
    left, y, scale = origin
    baseline = y + _FLOW_BAR / 2 + 4
    elements = [_text(left - 12, baseline, row.name, "label strong", "end")]
    end = left
    for source, (a, b) in spans.items():
        hover = _hover(row.tooltips.get(source))
        width = max(b - a - 0.6, 0.4)  # a thin gap separates two pieces
        place = {"x": a, "y": y, "width": width, "height": _FLOW_BAR}
        elements.append(_tag("rect", hover, **place, class_=f"fill {classes[source]}"))
        end = b
    if row.lost > 0:
        width = max(row.lost * scale, 1.0)
        hover = _hover(f"{row.name}: {row.lost_label}")
        place = {"x": end, "y": y, "width": width, "height": _FLOW_BAR}
        elements.append(_tag("rect", hover, **place, class_="lost"))
        end += width
    labels = [_tag("tspan", row.kept_label, class_="strong")]
    if row.lost_label:
        labels.append(_tag("tspan", row.lost_label, dx=8))
    elements.append(_tag("text", labels, x=end + 8, y=baseline, class_="label"))
    return elements


# ----------------------------------------------------------------------------------------- stacked


@dataclass(frozen=True, slots=True)
class StackRow:
    """A stacked bar.

    Attributes:
      name: the label on its left.
      values: the length of each source's piece.
      label: the text on its right, such as the sum.
      tooltips: text by source, shown on hovering over the source's piece.
    """

    name: str
    values: dict[str, float]
    label: str
    tooltips: dict[str, str] = field(default_factory=dict)


def stacked(rows: Sequence[StackRow], classes: Mapping[str, str], *, title: str) -> Markup:
    """Returns horizontal bars on one scale, each stacked by source in the order of `classes`."""
    bar, step, top = 13.0, 21.0, 6.0
    left = 12 + _label_width(row.name for row in rows)
    right = 16 + _label_width(row.label for row in rows)
    scale = (WIDTH - left - right) / (max(sum(row.values.values()) for row in rows) or 1)
    elements: list[Markup] = []
    for i, row in enumerate(rows):
        y = top + i * step
        elements.append(_text(left - 12, y + bar - 2, row.name, "label strong", "end"))
        end = left
        for source in classes:
            if value := row.values.get(source, 0):
                hover = _hover(row.tooltips.get(source))
                width = max(value * scale - 0.6, 0.4)  # a thin gap separates two pieces
                place = {"x": end, "y": y, "width": width, "height": bar}
                elements.append(_tag("rect", hover, **place, class_=f"fill {classes[source]}"))
                end += value * scale
        elements.append(_text(end + 8, y + bar - 2, row.label))
    return _svg(elements, title=title, height=top + step * len(rows) + 4, width=WIDTH)


# ------------------------------------------------------------------------------------------ pairs


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two numbers with one label."""

    name: str
    first: float
    second: float


def pairs(rows: Sequence[PairRow], *, names: tuple[str, str], title: str) -> Markup:
    """Returns two bars per row on one scale, each with its number; `names` is their legend."""
    bar, step, top = 9.0, 28.0, 26.0
    left = 12 + _label_width(row.name for row in rows)
    largest = max(max(row.first, row.second) for row in rows) or 1
    scale = (WIDTH - left - 90) / largest
    elements: list[Markup] = []
    x = left
    for name, class_ in zip(names, ("m0", "m1"), strict=True):
        elements.append(_tag("rect", x=x, y=6.0, width=10.0, height=10.0, class_=f"fill {class_}"))
        elements.append(_text(x + 16, 15, name))
        x += 16 + CHARACTER_WIDTH * len(name) + 24
    for i, row in enumerate(rows):
        y = top + i * step
        elements.append(_text(left - 12, y + bar + 4, row.name, "label strong", "end"))
        for j, (value, class_) in enumerate(((row.first, "m0"), (row.second, "m1"))):
            width, bar_y = max(value * scale, 0.5), y + j * (bar + 1)
            hover = _hover(f"{row.name}: {value:,.0f} {names[j]}")
            place = {"x": left, "y": bar_y, "width": width, "height": bar}
            elements.append(_tag("rect", hover, **place, class_=f"fill {class_}"))
            elements.append(_text(left + width + 6, bar_y + bar, f"{value:,.0f}"))
    return _svg(elements, title=title, height=top + step * len(rows) + 4, width=WIDTH)


# ------------------------------------------------------------------------------------------- dots


@dataclass(frozen=True, slots=True)
class Dot:
    """A measured value with the error bar [value - spread, value + spread] and a tooltip."""

    value: float
    spread: float
    class_: str
    tooltip: str


@dataclass(frozen=True, slots=True)
class DotRow:
    """A row of dots; `mark`: x of a short vertical line, such as the accuracy of chance."""

    name: str
    dots: Sequence[Dot]
    mark: float | None = None


def dots(rows: Sequence[DotRow], *, title: str, x_label: str, percent: bool) -> Markup:
    """Returns a chart of values with error bars, one row per name, on one x axis.

    Args:
      rows: the rows from top to bottom.
      title: a description for screen readers.
      x_label: the label below the x axis.
      percent: whether the values are shares: error bars end at 0 and 1, and labels are in percent.
    """
    step, top, bottom, right = 30.0, 6.0, 40.0, 20.0
    left = 16 + _label_width(row.name for row in rows)
    floor, ceiling = (0.0, 1.0) if percent else (-math.inf, math.inf)

    def interval(dot: Dot) -> tuple[float, float]:
        return max(floor, dot.value - dot.spread), min(ceiling, dot.value + dot.spread)

    values = [value for row in rows for dot in row.dots for value in interval(dot)]
    values += [row.mark for row in rows if row.mark is not None]
    margin = 0.03 * (max(values) - min(values) or 1)
    low, high = min(values) - margin, max(values) + margin

    def x_of(value: float) -> float:
        return left + (WIDTH - left - right) * (value - low) / (high - low)

    foot = top + step * len(rows)  # the lower edge of the last row
    elements: list[Markup] = []
    for value in ticks(max(low, floor), min(high, ceiling), 8):
        label = f"{100 * value:.3g}%" if percent else short(value)
        x = x_of(value)
        elements.append(_tag("line", x1=x, x2=x, y1=top, y2=foot, class_="grid"))
        elements.append(_text(x, foot + 15, label, "label", "middle"))
    height = foot + bottom
    elements.append(_text((left + WIDTH - right) / 2, height - 4, x_label, "label", "middle"))
    for i, row in enumerate(rows):
        y = top + step * (i + 0.5)
        edge = top + step * (i + 1)
        elements.append(_tag("line", x1=0, x2=WIDTH - right, y1=edge, y2=edge, class_="grid"))
        elements.append(_text(left - 12, y + 4, row.name, "label strong", "end"))
        if row.mark is not None:
            x = x_of(row.mark)
            elements.append(_tag("line", x1=x, x2=x, y1=y - 12, y2=y + 12, class_="chance"))
        for j, dot in enumerate(row.dots):
            dot_y = y + 5.0 * (j - (len(row.dots) - 1) / 2)  # centered on the row
            a, b = map(x_of, interval(dot))
            whisker = {"x1": a, "x2": b, "y1": dot_y, "y2": dot_y}
            elements.append(_tag("line", "", **whisker, class_=f"whisker {dot.class_}"))
            place = {"cx": x_of(dot.value), "cy": dot_y, "r": 4.0}
            elements.append(
                _tag("circle", _hover(dot.tooltip), **place, class_=f"fill {dot.class_}")
            )
    return _svg(elements, title=title, height=height, width=WIDTH)
