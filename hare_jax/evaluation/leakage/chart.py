"""Bars with intervals as SVG: how much of a benchmark a model knows by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

WIDTH, LEFT, RIGHT, TOP = 860, 190, 130, 74  # pixels; TOP holds title and legend
BAR, GAP, GROUP_GAP = 16, 6, 18
COLOURS = {
    "accused": "#c2410c",
    "acquitted": "#15803d",
    "undecided": "#a16207",
    "control": "#6b7280",
}
SERIES = ("#c2410c", "#1d4ed8", "#15803d", "#a16207")
INK, SOFT = "#1f2937", "#d1d5db"


class Bar(NamedTuple):
    """`value` with its interval, in shares; `said` stands to the right."""

    colour: str
    value: float
    low: float
    high: float
    said: str


def of_results(results: Mapping[str, Any]) -> str:
    """The sets of leakage.json, a bar each, coloured by verdict."""
    sets = results["sets"]
    settings = results["inputs"]["config"]
    with_control = any(one["verdict"] == "control" for one in sets)
    measured = f"{settings['ngram']}-gram accuracy, original less rewritten"
    groups = {
        one["name"]: [
            Bar(
                COLOURS[one["verdict"]],
                **one["delta" if one["verdict"] == "control" else "excess"],
                said=one["verdict"],
            )
        ]
        for one in sets
    }
    title = measured + (", less the control's" if with_control else "")
    return bars(f"{title} (percentage points)", groups, threshold=settings["threshold"])


def bars(
    title: str,
    groups: Mapping[str, Sequence[Bar]],
    *,
    threshold: float,
    legend: Mapping[str, str] | None = None,
) -> str:
    """A group of bars for each label, on one scale; `legend`: what a colour stands for."""
    every = [bar for group in groups.values() for bar in group]
    low = min(0.0, *(bar.low for bar in every))
    high = max(threshold, 0.01, *(bar.high for bar in every))
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    drawn = [_text(16, 26, title, size=15)]
    at = 16.0
    for name, colour in (legend or {}).items():
        drawn.append(_rect(at, 40, 11, 11, colour))
        drawn.append(_text(at + 16, 50, name))
        at += 34 + 7 * len(name)
    y = float(TOP)
    for label, group in groups.items():
        height = len(group) * (BAR + GAP) - GAP
        drawn.append(_text(LEFT - 10, y + height / 2 + 4, label, anchor="end"))
        for bar in group:
            drawn += _bar(bar, x, y)
            y += BAR + GAP
        y += GROUP_GAP - GAP
    axes = [_line(x(0), TOP - 8, x(0), y, INK)]
    axes.append(_line(x(threshold), TOP - 8, x(threshold), y, INK, dashes="4 3"))
    for tick in _ticks(low, high):
        axes.append(_line(x(tick), TOP - 8, x(tick), y, SOFT))
        drawn.append(_text(x(tick), y + 16, f"{100 * tick:g}", anchor="middle"))
    drawn.append(_text(WIDTH - RIGHT + 12, y + 16, f"dashed: {100 * threshold:g}"))
    content = "\n".join([*reversed(axes), *drawn])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 30:.0f}" role="img" '
        f'font-family="system-ui, sans-serif">\n<title>{escape(title)}</title>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{content}\n</svg>\n'
    )


def _bar(bar: Bar, x: Any, y: float) -> list[str]:
    start, end = sorted((x(0.0), x(bar.value)))
    middle = y + BAR / 2
    whiskers = [
        _line(x(bar.low), middle, x(bar.high), middle, INK),
        *(_line(x(v), middle - 4, x(v), middle + 4, INK) for v in (bar.low, bar.high)),
    ]
    said = f"{100 * bar.value:+.1f} {bar.said}".strip()
    return [
        _rect(start, y, max(end - start, 1.0), BAR, bar.colour),
        *whiskers,
        _text(WIDTH - RIGHT + 12, middle + 4, said),
    ]


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 9)
    return [k * step for k in range(int(low / step), int(high / step) + 1)]


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
