"""Results as Markdown tables beside the paper's, with every setting that forbids a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hare_jax.config import Protocol
from hare_jax.evaluation.benchmarks.registry import PAPER, SIX
from hare_jax.evaluation.benchmarks.statistics import six_average

Result = Mapping[str, Any]  # the content of scores-ID.json, see evaluate.run
DIFFERS = "(!)"
PAPER_SETTINGS = {"protocol": Protocol.LEADERBOARD_V1.value, "items": "all items"}


def markdown(results: Sequence[Result]) -> str:
    """Returns all tables: scores and those of clean items, the paper's rows, bits per byte."""
    names, row_labels = benchmark_names(results), labels(results)
    columns = columns_of(names)
    has_paper = bool(set(names) & set(SIX))
    settings_of, differing = settings(results, with_paper=has_paper)
    titles_of = titles(results)
    lines = _head([titles_of.get(name, name) for name in columns])
    for label, result, shown_settings in zip(row_labels, results, settings_of, strict=True):
        scores = scores_of(result)
        cells = [_percent(scores.get(name)) for name in columns]
        lines.append(_row(label, [*cells, shown_settings]))
        clean = [_clean(result["benchmarks"].get(name)) for name in columns]
        if any(clean):
            lines.append(_row(f"{label}, clean items", [*clean, shown_settings]))
    paper_settings = ", ".join(
        value + _mark(name in differing) for name, value in PAPER_SETTINGS.items()
    )
    for model, row in paper_rows().items() if has_paper else ():
        cells = [f"{row[name]:.2f}" if name in row else "" for name in columns]
        lines.append(_row(f"{model} (paper)", [*cells, paper_settings]))
    text = "Percent, ± standard error.\n\n" + "\n".join(lines) + "\n"
    if differing:
        text += f"\n{DIFFERS} Not the same in all rows: {', '.join(differing)}. "
        text += "Such scores cannot be compared with each other.\n"
    return text + _notes_on_clean(results) + _bits_table(results, row_labels, names, settings_of)


def scores_of(result: Result) -> dict[str, Mapping[str, Any]]:
    """Returns benchmark -> score, with "average" if all of the six were evaluated."""
    scores = {name: row["score"] for name, row in result["benchmarks"].items()}
    average = six_average(scores)
    return {**({"average": average} if average else {}), **scores}


def paper_rows() -> dict[str, dict[str, float]]:
    """Returns model -> benchmark -> percent, with "average"."""
    return {
        model: dict(zip(("average", *SIX), percents, strict=True))
        for model, percents in PAPER.items()
    }


def benchmark_names(results: Sequence[Result]) -> list[str]:
    """Returns the benchmarks of any of the results, the paper's first."""
    names = dict.fromkeys(name for result in results for name in result["benchmarks"])
    return [*(name for name in SIX if name in names), *(n for n in names if n not in SIX)]


def columns_of(names: Sequence[str]) -> list[str]:
    """Returns the benchmarks, after "average" if all of the six are among them."""
    return [*(["average"] if set(SIX) <= set(names) else []), *names]


def titles(results: Sequence[Result]) -> dict[str, str]:
    """Returns benchmark -> title."""
    return {n: row["title"] for r in results for n, row in r["benchmarks"].items()} | {
        "average": "average"
    }


def labels(results: Sequence[Result]) -> list[str]:
    """Returns a distinct label for each result, as short as possible.

    It is the name of the checkpoint, then more of its path, then the fingerprint of the result.

    >>> labels([{"inputs": {"checkpoint": "runs/a/training-12", "step": 7}}])
    ['training-12, step 7']
    """
    for num_parts in (1, 2, 3):
        candidates = [_label(result["inputs"], num_parts) for result in results]
        if len(set(candidates)) == len(candidates):
            return candidates
    return [f"{_label(r['inputs'], 1)}, {r['fingerprint'][:6]}" for r in results]


def settings(results: Sequence[Result], *, with_paper: bool) -> tuple[list[str], list[str]]:
    """Describes how each result was made.

    Args:
      results: the results.
      with_paper: whether the paper's rows are shown beside them.

    Returns:
      (one description per result, names of the settings that are not the same in all rows)
    """
    described = [_settings(result["inputs"]) for result in results]
    differing = []
    for name in described[0]:
        values = {one[name] for one in described}
        if with_paper and name in PAPER_SETTINGS:
            values.add(PAPER_SETTINGS[name])
        if len(values) > 1:
            differing.append(name)
    shown = {"protocol", "lm-eval", "items", *differing}
    texts = [
        ", ".join(value + _mark(name in differing) for name, value in one.items() if name in shown)
        for one in described
    ]
    return texts, differing


def _settings(inputs: Mapping[str, Any]) -> dict[str, str]:
    limit, shots, data = inputs["limit"], inputs["shots"], inputs["data"]
    return {
        "protocol": inputs["protocol"],
        "lm-eval": f"lm-eval {inputs['lm_eval']}",
        "items": f"{limit:,} items of each task" if limit else "all items",
        "examples": f"{shots}-shot" if shots >= 0 else "each benchmark's own examples",
        "length": f"at most {inputs['max_length']:,} tokens",
        "data": "data from the hub" if data == "hub" else f"data {data[:6]}",
    }


def _mark(differs: bool) -> str:
    return f" {DIFFERS}" if differs else ""


def _label(inputs: Mapping[str, Any], num_parts: int) -> str:
    path = Path(inputs["checkpoint"])
    if path.parent.name == "checkpoints":
        path = path.parent.parent
    return f"{'/'.join(path.parts[-num_parts:])}, step {inputs['step']}"


def _clean(row: Mapping[str, Any] | None) -> str:
    """Returns the score of the clean items and how many others there are; "" if unknown."""
    split = row.get("clean") if row is not None else None
    if split is None or split["state"] == "unknown":
        return ""
    contaminated = split["contaminated"]["items"] if split["contaminated"] else 0
    return f"{_percent(split['clean']) or 'none left'} (−{contaminated:,})"


def _notes_on_clean(results: Sequence[Result]) -> str:
    """Explains clean items if they are known, and names the benchmarks for which they are not."""
    rows = [row for result in results for row in result["benchmarks"].values()]
    text = ""
    if any(row.get("clean", {}).get("state") == "known" for row in rows):
        text += "\nClean items: those that decontamination found in no document of the raw data; "
        text += "in brackets, the number of contaminated items.\n"
    return text + "".join(f"\n{line}.\n" for line in clean_unknown(rows))


def clean_unknown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one line per reason for which the clean items of benchmarks are unknown."""
    titles_by_reason: dict[str, list[str]] = {}
    for row in rows:
        clean = row.get("clean") or {
            "state": "unknown",
            "reason": "evaluated by an earlier version",
        }
        if clean["state"] == "unknown":
            titles_by_reason.setdefault(clean["reason"], []).append(row["title"])
    return [
        f"Clean items unknown for {', '.join(dict.fromkeys(of_reason))}: {reason}"
        for reason, of_reason in titles_by_reason.items()
    ]


def _bits_table(
    results: Sequence[Result],
    row_labels: Sequence[str],
    names: Sequence[str],
    settings_of: Sequence[str],
) -> str:
    """Returns the table of bits per byte, or "" if no result has them."""
    columns = [
        n for n in names if any(r["benchmarks"].get(n, {}).get("bits_per_byte") for r in results)
    ]
    if not columns:
        return ""
    titles_of = titles(results)
    lines = _head([titles_of[name] for name in columns])
    for label, result, shown_settings in zip(row_labels, results, settings_of, strict=True):
        rows = [result["benchmarks"].get(name) for name in columns]
        cells = [_number(row["bits_per_byte"]) if row else "" for row in rows]
        lines.append(_row(label, [*cells, shown_settings]))
    return "\nBits per byte of the right answer, less is better.\n\n" + "\n".join(lines) + "\n"


def _head(column_titles: Sequence[str]) -> list[str]:
    alignment = "| --- |" + " ---: |" * len(column_titles) + " --- |"
    return [_row("model", [*column_titles, "settings"]), alignment]


def _row(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | " + " | ".join(cells) + " |"


def _number(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    error = "" if score["stderr"] is None else f" ± {score['stderr']:.3f}"
    return f"{score['value']:.3f}{error}"


def _percent(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    error = "" if score["stderr"] is None else f" ± {100 * score['stderr']:.2f}"
    return f"{100 * score['value']:.2f}{error}"
