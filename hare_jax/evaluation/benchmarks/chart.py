"""Results as bars with 95 % intervals: one group per benchmark, one color per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hare_jax.evaluation.bar_chart import INK, Bar, Mark, Panel, colors, draw
from hare_jax.evaluation.benchmarks import tables
from hare_jax.evaluation.benchmarks.registry import SIX
from hare_jax.evaluation.benchmarks.tables import Result

HARE = "HARE 1.1B"  # the model of the paper that this project follows
OTHERS_COLOR = "#9ca3af"


def svg(results: Sequence[Result]) -> str:
    """Draws scores, with the paper's as lines across the groups, then bits per byte."""
    names, titles = tables.benchmark_names(results), tables.titles(results)
    by_color = dict(zip(colors(len(results)), results, strict=True))
    columns = tables.columns_of(names)
    settings_of, differing = tables.settings(results, with_paper=bool(set(names) & set(SIX)))
    legend = {
        label + (f" ({settings})" if differing else ""): color
        for label, settings, color in zip(
            tables.labels(results), settings_of, by_color, strict=True
        )
    }
    scores = Panel(
        "score (percent) and 95 % interval",
        _groups(by_color, {n: titles[n] for n in columns}, "score", 100, "{:.1f}"),
        unit=100,
        marks={titles[name]: _paper_marks(name) for name in columns},
    )
    if any(scores.marks.values()):
        legend |= {f"line: {HARE} in the paper": INK, "its other models": OTHERS_COLOR}
    bits = Panel(
        "bits per byte of the right answer (less is better)",
        _groups(by_color, {n: titles[n] for n in names}, "bits_per_byte", 1, "{:.3f}"),
    )
    return draw([scores, *([bits] if bits.groups else [])], legend)


def _groups(
    by_color: Mapping[str, Result],
    titles: Mapping[str, str],
    measure: str,
    unit: float,
    format_: str,
) -> dict[str, list[Bar]]:
    """Returns title -> one bar per result that has the benchmark; benchmarks of none are left out.

    Args:
      by_color: color -> result.
      titles: benchmark -> title.
      measure: "score" or "bits_per_byte".
      unit: what a value of 1 is written as.
      format_: of the written value.
    """
    groups: dict[str, list[Bar]] = {}
    for name, title in titles.items():
        for color, result in by_color.items():
            score = _score(result, name, measure)
            if score is not None:
                low, high = score["interval"]
                text = format_.format(unit * score["value"])
                groups.setdefault(title, []).append(Bar(color, score["value"], low, high, text))
    return groups


def _score(result: Result, name: str, measure: str) -> Mapping[str, Any] | None:
    if measure == "score":
        return tables.scores_of(result).get(name)
    row = result["benchmarks"].get(name)
    return row[measure] if row is not None else None


def _paper_marks(name: str) -> list[Mark]:
    """Returns the scores of the paper, HARE's last and so drawn above the others."""
    rows = {m: scores[name] for m, scores in tables.paper_rows().items() if name in scores}
    ordered = sorted(rows, key=lambda model: model == HARE)
    return [
        Mark(INK if model == HARE else OTHERS_COLOR, rows[model] / 100, f"{model}: {rows[model]:g}")
        for model in ordered
    ]
