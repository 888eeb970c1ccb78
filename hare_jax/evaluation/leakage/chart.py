"""Bars with intervals as SVG: how much of a benchmark a model knows by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hare_jax.evaluation.bar_chart import Bar, Panel, drawing

COLORS = {
    "contaminated": "#c2410c",
    "clean": "#15803d",
    "inconclusive": "#a16207",
    "control": "#6b7280",
}


def of_results(results: Mapping[str, Any]) -> str:
    """The sets of leakage.json, a bar each, colored by verdict."""
    sets = results["sets"]
    settings = results["inputs"]["config"]
    with_control = any(one["verdict"] == "control" for one in sets)
    measured = f"{settings['ngram']}-gram accuracy, original less rewritten"
    groups = {
        one["name"]: [
            bar(
                COLORS[one["verdict"]],
                one["delta" if one["verdict"] == "control" else "excess"],
                said=one["verdict"],
            )
        ]
        for one in sets
    }
    title = measured + (", less the control's" if with_control else "")
    return bars(f"{title} (percentage points)", groups, threshold=settings["threshold"])


def bar(color: str, interval: Mapping[str, float], said: str) -> Bar:
    """Of {"value", "low", "high"} in shares."""
    value = interval["value"]
    return Bar(
        color, value, interval["low"], interval["high"], f"{100 * value:+.1f} {said}".strip()
    )


def bars(
    title: str,
    groups: Mapping[str, Sequence[Bar]],
    *,
    threshold: float,
    legend: Mapping[str, str] | None = None,
) -> str:
    """A group of bars for each label, on one scale; `legend`: what is said -> its color."""
    return drawing([Panel(title, groups, unit=100, threshold=threshold)], legend)
