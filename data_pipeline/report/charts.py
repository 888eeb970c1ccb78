"""The report's pictures as inline SVG: text stays text, and every color is a class of the page.

No color, font or size of the page is written here: an element carries a class (`s0` to `s8` for
sources, `m0` to `m2` for models, `ink`, `soft`), and the page's style sheet gives it a light and a
dark color. Numbers are rounded to a tenth of a pixel, so the same data give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 960  # of a full chart, in pixels of its own coordinates; the page scales it
MAX_POINTS = 400  # of one line: more cannot be told apart at this width
CHARACTER = 6.7  # mean width of a character of the 12-pixel labels


def _tag(name: str, content: str | Iterable[str] = "", **attributes: object) -> Markup:
    """<name a-b="...">content</name>; `a_b` becomes `a-b`, `class_` becomes `class`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = content if isinstance(content, str) else Markup("").join(content)
    return Markup(f"<{name}{given}>{escape(inside)}</{name}>")


def _number(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def _text(x: float, y: float, text: str, class_: str = "label", anchor: str = "start") -> Markup:
    return _tag("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def _svg(
    content: Iterable[str], *, title: str, height: float, width: float, class_: str = "wide"
) -> Markup:
    return _tag(
        "svg",
        [_tag("title", title), *content],
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="img",
        aria_label=title,
        class_=f"chart {class_}",
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], about so many.

    >>> ticks(0, 10)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def short(value: float) -> str:
    """A label of an axis.

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


# ------------------------------------------------------------------------------------------ lines


@dataclass(frozen=True, slots=True)
class Line:
    """`points` are (x, y) with x ascending; `faint` draws the raw line behind a running mean."""

    name: str
    points: Sequence[tuple[float, float]]
    class_: str = "m0"
    faint: bool = False


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS points, each the mean of its neighbors: x and y alike."""
    if len(points) <= MAX_POINTS:
        return list(points)
    edges = [round(i * len(points) / MAX_POINTS) for i in range(MAX_POINTS + 1)]
    groups = [points[a:b] for a, b in pairwise(edges)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def running_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean over the neighbors of each point, about a fiftieth of the line on each side."""
    reach = len(points) // 50
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for i, (x, _) in enumerate(points):
        n = min(reach, i, len(points) - 1 - i)  # symmetric, so that a slope stays unbiased
        smooth.append((x, (sums[i + n + 1] - sums[i - n]) / (2 * n + 1)))
    return smooth


def lines(
    series: Sequence[Line],
    *,
    title: str,
    x_label: str = "",
    marks: Sequence[tuple[float, str]] = (),
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    height: float = 300,
    width: float = WIDTH,
    heading: str = "",
) -> Markup:
    """Lines over one x axis; `marks` are (x, name) of vertical rules, such as a stage's begin."""
    small = width < WIDTH / 2
    left, right = (46.0, 10.0) if small else (52.0, 96.0)
    top = 38.0 if any(name for _, name in marks) else 26.0
    bottom = 38.0 if x_label else 20.0
    xs = [x for line in series for x, _ in line.points] + [x for x, _ in marks]
    ys = [y for line in series for _, y in line.points]
    x_low, x_high = x_range or (min(xs), max(xs))
    y_low, y_high = y_range or (min(ys), max(ys))
    if y_high <= y_low:  # a flat line lies in the middle of its picture
        y_low, y_high = y_low - (abs(y_low) or 1) / 2, y_low + (abs(y_low) or 1) / 2
    elif y_range is None:
        y_low, y_high = y_low - 0.04 * (y_high - y_low), y_high + 0.04 * (y_high - y_low)

    def at_x(x: float) -> float:
        return left + (width - left - right) * ((x - x_low) / (x_high - x_low or 1))

    def at_y(y: float) -> float:
        return height - bottom - (height - top - bottom) * (y - y_low) / (y_high - y_low)

    def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
        where = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in thin(points))
        return _tag("polyline", points=where, class_=class_)

    parts: list[Markup] = []
    for y in ticks(y_low, y_high, 3 if small else 5):
        parts.append(_tag("line", x1=left, x2=width - right, y1=at_y(y), y2=at_y(y), class_="grid"))
        parts.append(_text(left - 6, at_y(y) + 4, short(y), "label", "end"))
    for x in ticks(x_low, x_high, 3 if small else 8):
        parts.append(_text(at_x(x), height - bottom + 15, short(x), "label", "middle"))
    for x, name in marks:
        parts.append(
            _tag("line", x1=at_x(x), x2=at_x(x), y1=top, y2=height - bottom, class_="mark")
        )
        parts.append(_text(at_x(x), top - 7, name))
    if x_label:
        middle = (left + width - right) / 2
        parts.append(_text(middle, height - 4, x_label, "label", "middle"))
    if heading:
        parts.append(_text(0, 13, heading, "heading"))
    ends = []
    for line in series:
        if line.faint and len(line.points) >= 50:
            parts.append(path(line.points, f"line faint {line.class_}"))
            drawn = running_mean(line.points)
        else:
            drawn = list(line.points)
        parts.append(path(drawn, f"line {line.class_}"))
        if len(drawn) == 1:
            parts.append(
                _tag(
                    "circle",
                    cx=at_x(drawn[0][0]),
                    cy=at_y(drawn[0][1]),
                    r=2.5,
                    class_=f"fill {line.class_}",
                )
            )
        ends.append((at_y(drawn[-1][1]), line.name))
    if not small:
        for y, name in _apart(ends, 14):
            parts.append(_text(width - right + 8, y + 4, name))
    return _svg(parts, title=title, height=height, width=width, class_="small" if small else "wide")


def _apart(labels: Sequence[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Labels moved down so far that each is `least` pixels below the one above."""
    placed: list[tuple[float, str]] = []
    for y, name in sorted(labels):
        placed.append((max(y, placed[-1][0] + least) if placed else y, name))
    return placed


# ------------------------------------------------------------------------------------------- flow


@dataclass(frozen=True, slots=True)
class FlowRow:
    """One stage: `kept` by source (in the order of the colors), `lost`, and words for both."""

    name: str
    kept: dict[str, float]
    lost: float
    kept_label: str
    lost_label: str = ""
    titles: dict[str, str] = field(default_factory=dict)  # what hovering over a source says


def flow(rows: Sequence[FlowRow], classes: dict[str, str], *, title: str) -> Markup:
    """The way of a document, top to bottom: a bar a stage, stacked by source, what is lost in grey.

    Bands join each source's part of a bar to its part of the next one.
    """
    bar, gap, top = 26.0, 30.0, 8.0
    left = 12 + CHARACTER * max(len(row.name) for row in rows)
    right = 24 + CHARACTER * max(len(row.kept_label) + len(row.lost_label) for row in rows)
    most = max(sum(row.kept.values()) + row.lost for row in rows) or 1
    scale = (WIDTH - left - right) / most
    spans: list[dict[str, tuple[float, float]]] = []
    for row in rows:
        x, span = left, {}
        for source in classes:
            if value := row.kept.get(source, 0):
                span[source] = (x, x + value * scale)
                x += value * scale
        spans.append(span)

    parts: list[Markup] = []
    for i, (above, below) in enumerate(pairwise(spans)):
        y = top + i * (bar + gap) + bar
        for source in (name for name in above if name in below):
            (a, b), (c, d) = above[source], below[source]
            m = y + gap / 2
            shape = (
                f"M{a:.1f},{y} C{a:.1f},{m} {c:.1f},{m} {c:.1f},{y + gap} "
                f"L{d:.1f},{y + gap} C{d:.1f},{m} {b:.1f},{m} {b:.1f},{y} Z"
            )
            parts.append(_tag("path", d=shape, class_=f"band {classes[source]}"))
    for i, (row, span) in enumerate(zip(rows, spans, strict=True)):
        y = top + i * (bar + gap)
        middle = y + bar / 2 + 4
        parts.append(_text(left - 12, middle, row.name, "label strong", "end"))
        end = left
        for source, (a, b) in span.items():
            hover = [_tag("title", row.titles[source])] if source in row.titles else ""
            width = max(b - a - 0.6, 0.4)
            parts.append(
                _tag(
                    "rect",
                    hover,
                    x=a,
                    y=y,
                    width=width,
                    height=bar,
                    class_=f"fill {classes[source]}",
                )
            )
            end = b
        if row.lost > 0:
            width = max(row.lost * scale, 1.0)
            hover = _tag("title", f"{row.name}: {row.lost_label}")
            parts.append(_tag("rect", [hover], x=end, y=y, width=width, height=bar, class_="lost"))
            end += width
        said = [_tag("tspan", row.kept_label, class_="strong")]
        if row.lost_label:
            said.append(_tag("tspan", row.lost_label, dx=8))
        parts.append(_tag("text", said, x=end + 8, y=middle, class_="label"))
    height = top + len(rows) * (bar + gap) - gap + 8
    return _svg(parts, title=title, height=height, width=WIDTH)


# ----------------------------------------------------------------------------------------- stacked


@dataclass(frozen=True, slots=True)
class StackRow:
    """A bar: `parts` by source (in the order of the colors), and words for their sum."""

    name: str
    parts: dict[str, float]
    label: str
    titles: dict[str, str] = field(default_factory=dict)  # what hovering over a part says


def stacked(rows: Sequence[StackRow], classes: dict[str, str], *, title: str) -> Markup:
    """Horizontal bars on one scale, each stacked by source."""
    bar, step, top = 13.0, 21.0, 6.0
    left = 12 + CHARACTER * max(len(row.name) for row in rows)
    right = 16 + CHARACTER * max(len(row.label) for row in rows)
    scale = (WIDTH - left - right) / (max(sum(row.parts.values()) for row in rows) or 1)
    parts: list[Markup] = []
    for i, row in enumerate(rows):
        y, x = top + i * step, left
        parts.append(_text(left - 12, y + bar - 2, row.name, "label strong", "end"))
        for source in classes:
            if value := row.parts.get(source, 0):
                hover = [_tag("title", row.titles[source])] if source in row.titles else ""
                width = max(value * scale - 0.6, 0.4)
                parts.append(
                    _tag(
                        "rect",
                        hover,
                        x=x,
                        y=y,
                        width=width,
                        height=bar,
                        class_=f"fill {classes[source]}",
                    )
                )
                x += value * scale
        parts.append(_text(x + 8, y + bar - 2, row.label))
    return _svg(parts, title=title, height=top + step * len(rows) + 4, width=WIDTH)


# ------------------------------------------------------------------------------------------ pairs


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two numbers of one kind of thing."""

    name: str
    first: float
    second: float


def pairs(rows: Sequence[PairRow], *, names: tuple[str, str], title: str) -> Markup:
    """Two bars a row, on one scale, each with its number; the names stand above."""
    bar, step, top = 9.0, 28.0, 26.0
    left = 12 + CHARACTER * max(len(row.name) for row in rows)
    most = max(max(row.first, row.second) for row in rows) or 1
    scale = (WIDTH - left - 90) / most
    parts: list[Markup] = []
    at = left
    for name, class_ in zip(names, ("m0", "m1"), strict=True):
        parts.append(_tag("rect", x=at, y=6.0, width=10.0, height=10.0, class_=f"fill {class_}"))
        parts.append(_text(at + 16, 15, name))
        at += 16 + CHARACTER * len(name) + 24
    for i, row in enumerate(rows):
        y = top + i * step
        parts.append(_text(left - 12, y + bar + 4, row.name, "label strong", "end"))
        for j, (value, class_) in enumerate(((row.first, "m0"), (row.second, "m1"))):
            width, high = max(value * scale, 0.5), y + j * (bar + 1)
            hover = [_tag("title", f"{row.name}: {value:,.0f} {names[j]}")]
            bar_at = {"x": left, "y": high, "width": width, "height": bar}
            parts.append(_tag("rect", hover, **bar_at, class_=f"fill {class_}"))
            parts.append(_text(left + width + 6, high + bar, f"{value:,.0f}"))
    return _svg(parts, title=title, height=top + step * len(rows) + 4, width=WIDTH)


# ------------------------------------------------------------------------------------------- dots


@dataclass(frozen=True, slots=True)
class Dot:
    """A measured value: `spread` reaches as far on both sides, `label` is what hovering says."""

    value: float
    spread: float
    class_: str
    label: str


@dataclass(frozen=True, slots=True)
class DotRow:
    name: str
    dots: Sequence[Dot]
    mark: float | None = None  # a rule across this row, such as the accuracy of guessing


def dots(rows: Sequence[DotRow], *, title: str, x_label: str, percent: bool) -> Markup:
    """Values with error bars, one row a name, all on one x axis; `percent`: they lie in [0, 1]."""
    step, top, bottom, right = 30.0, 6.0, 40.0, 20.0
    left = 16 + CHARACTER * max(len(row.name) for row in rows)
    height = top + step * len(rows) + bottom
    floor, ceiling = (0.0, 1.0) if percent else (-math.inf, math.inf)

    def reach(dot: Dot) -> tuple[float, float]:
        return max(floor, dot.value - dot.spread), min(ceiling, dot.value + dot.spread)

    values = [value for row in rows for dot in row.dots for value in reach(dot)]
    values += [row.mark for row in rows if row.mark is not None]
    margin = 0.03 * (max(values) - min(values) or 1)
    low, high = min(values) - margin, max(values) + margin

    def at_x(x: float) -> float:
        return left + (WIDTH - left - right) * (x - low) / (high - low)

    foot = top + step * len(rows)
    parts: list[Markup] = []
    for x in ticks(max(low, floor), min(high, ceiling), 8):
        label = f"{100 * x:.3g}%" if percent else short(x)
        parts.append(_tag("line", x1=at_x(x), x2=at_x(x), y1=top, y2=foot, class_="grid"))
        parts.append(_text(at_x(x), foot + 15, label, "label", "middle"))
    parts.append(_text((left + WIDTH - right) / 2, height - 4, x_label, "label", "middle"))
    for i, row in enumerate(rows):
        y = top + step * (i + 0.5)
        line = top + step * (i + 1)
        parts.append(_tag("line", x1=0, x2=WIDTH - right, y1=line, y2=line, class_="grid"))
        parts.append(_text(left - 12, y + 4, row.name, "label strong", "end"))
        if row.mark is not None:
            x = at_x(row.mark)
            parts.append(_tag("line", x1=x, x2=x, y1=y - 12, y2=y + 12, class_="chance"))
        for j, dot in enumerate(row.dots):
            at_y = y + 5.0 * (j - (len(row.dots) - 1) / 2)
            a, b = map(at_x, reach(dot))
            parts.append(_tag("line", x1=a, x2=b, y1=at_y, y2=at_y, class_=f"whisker {dot.class_}"))
            hover = [_tag("title", dot.label)]
            cx = at_x(dot.value)
            parts.append(_tag("circle", hover, cx=cx, cy=at_y, r=4.0, class_=f"fill {dot.class_}"))
    return _svg(parts, title=title, height=height, width=WIDTH)
