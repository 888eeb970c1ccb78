"""The result of an audit as bars with intervals, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hare_jax.evaluation.bar_chart import Bar, Panel, draw

COLORS = {
    "contaminated": "#c2410c",
    "clean": "#15803d",
    "inconclusive": "#a16207",
    "control": "#6b7280",
}


def svg(results: Mapping[str, Any]) -> str:
    """Draws the excess of each set of leakage.json as a bar, colored by its verdict."""
    sets = results["sets"]
    settings = results["inputs"]["config"]
    with_control = any(one["verdict"] == "control" for one in sets)
    title = f"{settings['ngram']}-gram accuracy, original less paraphrased"
    if with_control:
        title += ", less the control's"
    groups = {
        one["name"]: [
            bar(
                COLORS[one["verdict"]],
                one["delta" if one["verdict"] == "control" else "excess"],
                text=one["verdict"],
            )
        ]
        for one in sets
    }
    return bars(f"{title} (percentage points)", groups, threshold=settings["threshold"])


def bar(color: str, interval: Mapping[str, float], text: str) -> Bar:
    """Returns a bar of an interval {"value", "low", "high"} in shares; `text` is its label."""
    value = interval["value"]
    return Bar(
        color, value, interval["low"], interval["high"], f"{100 * value:+.1f} {text}".strip()
    )


def bars(
    title: str,
    groups: Mapping[str, Sequence[Bar]],
    *,
    threshold: float,
    legend: Mapping[str, str] | None = None,
) -> str:
    """Draws groups of bars on one scale, in percentage points.

    Args:
      title: of the chart.
      groups: label -> bars.
      threshold: a dashed line.
      legend: text -> color.
    """
    return draw([Panel(title, groups, unit=100, threshold=threshold)], legend)
