"""Bar charts with intervals as SVG: one group of bars per label, one scale per panel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT = 860, 190, 130  # pixels
TITLE, LEGEND, TICKS = 48, 26, 30  # heights
BAR, GAP, GROUP_GAP = 16, 6, 18
SERIES = (
    "#c2410c",
    "#1d4ed8",
    "#15803d",
    "#a16207",
    "#7e22ce",
    "#0e7490",
    "#be185d",
    "#4d7c0f",
)
INK, SOFT = "#1f2937", "#d1d5db"


class Bar(NamedTuple):
    """A value with its interval (None: it has none); `text` is written to the right."""

    color: str
    value: float
    low: float | None
    high: float | None
    text: str


class Mark(NamedTuple):
    """A line across a group of bars, for comparison; `text` is its tooltip."""

    color: str
    value: float
    text: str


@dataclass(slots=True)
class Panel:
    """Groups of bars with a common scale.

    Attributes:
      title: above the panel.
      groups: label -> bars.
      unit: what a value of 1 is written as on the axis: 100 for percent.
      marks: label -> lines across its group.
      threshold: a dashed line across the panel, or None.
    """

    title: str
    groups: Mapping[str, Sequence[Bar]]
    unit: float = 1.0
    marks: Mapping[str, Sequence[Mark]] = field(default_factory=dict)
    threshold: float | None = None


def colors(count: int) -> list[str]:
    """Returns `count` distinct colors."""
    if count <= len(SERIES):
        return list(SERIES[:count])
    return [f"hsl({360 * k / count:.0f} 65% 42%)" for k in range(count)]


def draw(panels: Sequence[Panel], legend: Mapping[str, str] | None = None) -> str:
    """Returns an SVG of the panels, one below the other; `legend`: text -> color."""
    drawn: list[str] = []
    y = _legend(drawn, legend or {})
    for panel in panels:
        y = _panel(drawn, panel, y)
    content = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" role="img" '
        f'font-family="system-ui, sans-serif">\n<title>{escape(panels[0].title)}</title>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{content}\n</svg>\n'
    )


def _legend(drawn: list[str], legend: Mapping[str, str]) -> float:
    """Draws the legend, in several lines if necessary; returns where it ends."""
    x, y = 16.0, 14.0
    for name, color in legend.items():
        width = 34 + 7 * len(name)
        if x > 16 and x + width > WIDTH:
            x, y = 16.0, y + LEGEND - 6
        drawn.append(_rect(x, y, 11, 11, color))
        drawn.append(_text(x + 16, y + 10, name))
        x += width
    return y + LEGEND - 14 if legend else 0.0


def _panel(drawn: list[str], panel: Panel, top: float) -> float:
    """Draws a panel that begins at `top`; returns where it ends."""
    low, high = _range(panel)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    drawn.append(_text(16, top + 26, panel.title, size=15))
    y = start = top + TITLE
    bars: list[str] = []
    for label, group in panel.groups.items():
        height = len(group) * (BAR + GAP) - GAP
        bars.append(_text(LEFT - 10, y + height / 2 + 4, label, anchor="end"))
        for k, bar in enumerate(group):
            bars += _bar(bar, x, y + k * (BAR + GAP))
        for mark in panel.marks.get(label, ()):
            bars.append(_mark(mark, x(mark.value), y - 5, y + height + 5))
        y += height + GROUP_GAP
    bottom = y - GROUP_GAP + GAP
    for tick in _ticks(low, high):
        drawn.append(_line(x(tick), start - 8, x(tick), bottom, SOFT))
        bars.append(_text(x(tick), bottom + 16, f"{panel.unit * tick:g}", anchor="middle"))
    if panel.threshold is not None:
        at = x(panel.threshold)
        drawn.append(_line(at, start - 8, at, bottom, INK, dashes="4 3"))
        text = f"dashed: {panel.unit * panel.threshold:g}"
        bars.append(_text(WIDTH - RIGHT + 12, bottom + 16, text))
    drawn.append(_line(x(0), start - 8, x(0), bottom, INK))
    drawn += bars  # after, and so above, the lines of the grid
    return bottom + TICKS


def _range(panel: Panel) -> tuple[float, float]:
    """Returns the lowest and the highest value of the axis."""
    bars = [bar for group in panel.groups.values() for bar in group]
    shown = [v for bar in bars for v in (bar.value, bar.low, bar.high) if v is not None]
    shown += [mark.value for label in panel.groups for mark in panel.marks.get(label, ())]
    low, high = min([0.0, *shown]), max([panel.threshold or 0.0, 0.01, *shown])
    margin = 0.03 * (high - low)
    # Wilson's interval of no right answer begins within rounding of 0, perhaps below.
    return (low - margin if low < -1e-9 else 0.0), high + margin


def _bar(bar: Bar, x: Callable[[float], float], y: float) -> list[str]:
    start, end = sorted((x(0.0), x(bar.value)))
    middle = y + BAR / 2
    drawn = [_rect(start, y, max(end - start, 1.0), BAR, bar.color)]
    if bar.low is not None and bar.high is not None:
        drawn.append(_line(x(bar.low), middle, x(bar.high), middle, INK))
        drawn += [_line(x(v), middle - 4, x(v), middle + 4, INK) for v in (bar.low, bar.high)]
    drawn.append(_text(WIDTH - RIGHT + 12, middle + 4, bar.text))
    return drawn


def _mark(mark: Mark, x: float, top: float, bottom: float) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" '
        f'stroke="{mark.color}" stroke-width="2"><title>{escape(mark.text)}</title></line>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Returns at most ten ticks: multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / 9))
    step = next(s * power for s in (1, 2, 5, 10) if (high - low) / (s * power) <= 9)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="{fill}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashed}/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">'
        f"{escape(text)}</text>"
    )
