"""Results as Markdown tables, beside the paper's, with what keeps lines from being compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hare_jax.config import Protocol
from hare_jax.evaluation.benchmarks.registry import SIX
from hare_jax.evaluation.benchmarks.statistics import PAPER, six_average

Result = Mapping[str, Any]  # what scores.run writes
DIFFERS = "(!)"
PAPER_SETTINGS = {"protocol": Protocol.LEADERBOARD_V1.value, "items": "all items"}


def markdown(results: Sequence[Result]) -> str:
    """All tables: scores and those of clean items, the paper's lines, bits per byte."""
    names, shown = names_of(results), labels(results)
    columns = [*(["average"] if set(SIX) <= set(names) else []), *names]
    heads = [titles(results).get(name, name) for name in columns]
    how, differing = settings(results, with_paper=bool(set(names) & set(SIX)))
    lines = [_row("model", [*heads, "how"]), "| --- |" + " ---: |" * len(columns) + " --- |"]
    for label, result, said in zip(shown, results, how, strict=True):
        scores = of_result(result)
        lines.append(_row(label, [*(_percent(scores.get(name)) for name in columns), said]))
        clean = [_clean(result["benchmarks"].get(name)) for name in columns]
        if any(clean):
            lines.append(_row(f"{label}, clean items", [*clean, said]))
    paper = f"{PAPER_SETTINGS['protocol']}{_mark('protocol' in differing)}, all items"
    paper += _mark("items" in differing)
    for model, of_model in paper_rows().items() if set(names) & set(SIX) else ():
        numbers = [f"{of_model[n]:.2f}" if n in of_model else "" for n in columns]
        lines.append(_row(f"{model} (paper)", [*numbers, paper]))
    text = "Percent, ± a standard error.\n\n" + "\n".join(lines) + "\n"
    if differing:
        text += f"\n{DIFFERS} Not the same in all lines: {', '.join(differing)}. "
        text += "Such numbers cannot be compared with each other.\n"
    text += _notes_on_clean(results)
    return text + _bits(results, shown, names, how)


def of_result(result: Result) -> dict[str, Mapping[str, Any]]:
    """Benchmark -> score, "average" among them where the six are there."""
    scores = {name: row["score"] for name, row in result["benchmarks"].items()}
    average = six_average(scores)
    return {**({"average": average} if average else {}), **scores}


def paper_rows() -> dict[str, dict[str, float]]:
    """Model -> benchmark -> percent, "average" among them."""
    return {
        model: dict(zip(("average", *SIX), numbers, strict=True))
        for model, numbers in PAPER.items()
    }


def names_of(results: Sequence[Result]) -> list[str]:
    """The benchmarks of any of the results, the paper's first."""
    found = dict.fromkeys(name for result in results for name in result["benchmarks"])
    return [*(name for name in SIX if name in found), *(n for n in found if n not in SIX)]


def titles(results: Sequence[Result]) -> dict[str, str]:
    return {n: row["title"] for r in results for n, row in r["benchmarks"].items()} | {
        "average": "average"
    }


def labels(results: Sequence[Result]) -> list[str]:
    """A name for each: of its checkpoint; with more of the path, then its own, if need be.

    >>> labels([{"inputs": {"checkpoint": "runs/a/training-12", "step": 7}}])
    ['training-12, step 7']
    """
    for parts in (1, 2, 3):
        named = [_label(result["inputs"], parts) for result in results]
        if len(set(named)) == len(named):
            return named
    return [f"{_label(r['inputs'], 1)}, {r['fingerprint'][:6]}" for r in results]


def settings(results: Sequence[Result], *, with_paper: bool) -> tuple[list[str], list[str]]:
    """How each was made, in words, and the names of the settings that are not alike in all."""
    said = [_settings(result["inputs"]) for result in results]
    differing = []
    for name in said[0]:
        values = {one[name] for one in said}
        if with_paper and name in PAPER_SETTINGS:
            values.add(PAPER_SETTINGS[name])
        if len(values) > 1:
            differing.append(name)
    always = ("protocol", "lm-eval", "items")
    how = [
        ", ".join(v + _mark(n in differing) for n, v in one.items() if n in (*always, *differing))
        for one in said
    ]
    return how, differing


def _settings(inputs: Mapping[str, Any]) -> dict[str, str]:
    limit, shots, data = inputs["limit"], inputs["shots"], inputs["data"]
    return {
        "protocol": inputs["protocol"],
        "lm-eval": f"lm-eval {inputs['lm_eval']}",
        "items": f"{limit:,} items of each task" if limit else "all items",
        "examples": f"{shots}-shot" if shots >= 0 else "each benchmark's examples",
        "length": f"{inputs['max_length']:,} tokens at most",
        "data": "items of the hub" if data == "hub" else f"items of layout {data[:6]}",
    }


def _mark(differs: bool) -> str:
    return f" {DIFFERS}" if differs else ""


def _label(inputs: Mapping[str, Any], parts: int) -> str:
    path = Path(inputs["checkpoint"])
    if path.parent.name == "checkpoints":
        path = path.parent.parent
    return f"{'/'.join(path.parts[-parts:])}, step {inputs['step']}"


def _clean(row: Mapping[str, Any] | None) -> str:
    """The score without the touched items, and how many these are; "" where it is unknown."""
    known = row.get("clean") if row is not None else None
    if known is None or known["state"] == "unknown":
        return ""
    touched = known["touched"]["items"] if known["touched"] else 0
    return f"{_percent(known['clean']) or 'none left'} (−{touched:,})"


def _notes_on_clean(results: Sequence[Result]) -> str:
    """What clean items are, where they are known, and of which benchmarks they are not."""
    rows = [row for result in results for row in result["benchmarks"].values()]
    said = ""
    if any(row.get("clean", {}).get("state") == "known" for row in rows):
        said += "\nClean items: those that decontamination found in no document of the raw data; "
        said += "in brackets, how many it found.\n"
    return said + "".join(f"\n{line}.\n" for line in clean_unknown(rows))


def clean_unknown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a reason: of which benchmarks it is not known which items are clean, and why."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        clean = row.get("clean") or {"state": "unknown", "reason": "an earlier evaluation"}
        if clean["state"] == "unknown":
            reasons.setdefault(clean["reason"], []).append(row["title"])
    return [
        f"Clean items unknown of {', '.join(dict.fromkeys(names))}: {reason}"
        for reason, names in reasons.items()
    ]


def _bits(
    results: Sequence[Result], shown: Sequence[str], names: Sequence[str], how: Sequence[str]
) -> str:
    """Of the right answers: they tell small models apart where accuracy is chance."""
    columns = [
        n for n in names if any(r["benchmarks"].get(n, {}).get("bits_per_byte") for r in results)
    ]
    if not columns:
        return ""
    heads = [titles(results)[name] for name in columns]
    lines = [_row("model", [*heads, "how"]), "| --- |" + " ---: |" * len(columns) + " --- |"]
    for label, result, said in zip(shown, results, how, strict=True):
        rows = [result["benchmarks"].get(name) for name in columns]
        cells = [_number(row["bits_per_byte"]) if row else "" for row in rows]
        lines.append(_row(label, [*cells, said]))
    return "\nBits per byte of the right answer, less is better.\n\n" + "\n".join(lines) + "\n"


def _row(model: str, cells: Sequence[str]) -> str:
    return f"| {model} | " + " | ".join(cells) + " |"


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
