"""Results as bars with 95 % intervals, a group for each benchmark, a color for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hare_jax.evaluation.bar_chart import INK, Bar, Mark, Panel, colors, drawing
from hare_jax.evaluation.benchmarks import tables
from hare_jax.evaluation.benchmarks.registry import SIX
from hare_jax.evaluation.benchmarks.tables import Result

OURS = "HARE 1.1B"  # of the paper's models the one that this project follows
OTHERS = "#9ca3af"


def of_results(results: Sequence[Result]) -> str:
    """Scores beside the paper's, as lines across, then bits per byte of the right answers."""
    names, titles = tables.names_of(results), tables.titles(results)
    shown = dict(zip(colors(len(results)), results, strict=True))
    columns = [*(["average"] if set(SIX) <= set(names) else []), *names]
    how, differing = tables.settings(results, with_paper=bool(set(names) & set(SIX)))
    legend = {
        label + (f" ({said})" if differing else ""): color
        for label, said, color in zip(tables.labels(results), how, shown, strict=True)
    }
    scores = Panel(
        "score (percent) and 95 % interval",
        _groups({n: titles[n] for n in columns}, shown, "score", 100, "{:.1f}"),
        unit=100,
        marks={titles[name]: _paper(name) for name in columns},
    )
    if any(scores.marks.values()):
        legend |= {f"line: {OURS} in the paper": INK, "its other models": OTHERS}
    bits = Panel(
        "bits per byte of the right answer (less is better)",
        _groups({n: titles[n] for n in names}, shown, "bits_per_byte", 1, "{:.3f}"),
    )
    return drawing([scores, *([bits] if bits.groups else [])], legend)


def _groups(
    titles: Mapping[str, str], shown: Mapping[str, Result], what: str, unit: float, said: str
) -> dict[str, list[Bar]]:
    """A bar of each result that has the benchmark; those that none has are left out."""
    groups: dict[str, list[Bar]] = {}
    for name, title in titles.items():
        for color, result in shown.items():
            score = _score(result, name, what)
            if score is not None:
                low, high = score["interval"]
                bar = Bar(color, score["value"], low, high, said.format(unit * score["value"]))
                groups.setdefault(title, []).append(bar)
    return groups


def _score(result: Result, name: str, what: str) -> Mapping[str, Any] | None:
    if what == "score":
        return tables.of_result(result).get(name)
    row = result["benchmarks"].get(name)
    return row[what] if row is not None else None


def _paper(name: str) -> list[Mark]:
    """The paper's, HARE last and so above the others."""
    rows = {m: of_model[name] for m, of_model in tables.paper_rows().items() if name in of_model}
    ordered = sorted(rows, key=lambda model: model == OURS)
    return [
        Mark(INK if model == OURS else OTHERS, rows[model] / 100, f"{model}: {rows[model]:g}")
        for model in ordered
    ]
