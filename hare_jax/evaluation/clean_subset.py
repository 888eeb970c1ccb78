"""Scores of a benchmark's clean items: those that no document of the raw data touches.

Decontamination writes down why it took out a document: which item of which benchmark it holds.

    {"rule": "item_share", "benchmark": "gsm8k", "item": "gsm8k/test/17", "share": 1.0, ...}

An item of which there was such a document is one that the web repeats; where decontamination was
off, the model has read it, and where it was on, the model may still have read it told in a way that
no rule finds. What the model scores on the other items does not depend on either.

    touched = touched_items(evidence)               # {"gsm8k": {"gsm8k/test/17"}}
    split_scores(values, touched["gsm8k"])          # values: {"gsm8k/test/0": 1.0, ...}

Items are named BENCHMARK/SPLIT/ROW, rows of the benchmark's own file counted from 0. Evidence is
handed over as it is read, by data_pipeline.shards.read_dropped from the files that stages called
decontaminate* leave in dropped/, or of any documents by data_pipeline.decontamination.rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hare_jax.evaluation.results import estimate


def touched_items(evidence: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Benchmark -> its items that some document touches.

    `evidence`: of dropped documents; those without "item" were dropped for another reason.

    >>> touched_items([{"benchmark": "gsm8k", "item": "gsm8k/test/17"}, {"tokens": 5000}])
    {'gsm8k': {'gsm8k/test/17'}}
    """
    found: dict[str, set[str]] = {}
    for one in evidence:
        if "item" in one:
            found.setdefault(one["benchmark"], set()).add(one["item"])
    return found


def split_scores(
    values: Mapping[str, float], touched: Collection[str]
) -> dict[str, dict[str, Any] | None]:
    """{"all", "clean", "touched"}: each a score as results.estimate gives it, None of no items.

    `values`: item -> what it scored, such as 1.0 for a right answer. `touched`: of this benchmark.

    Raises ValueError where an item that is touched, of a split that was scored, was not scored:
    then the two number their items in different ways.
    """
    splits = {item.rpartition("/")[0] for item in values}
    lost = sorted(i for i in touched if i.rpartition("/")[0] in splits and i not in values)
    if lost:
        raise ValueError(
            f"got evidence of {lost[0]} and {len(lost) - 1} more items that were not scored, "
            f"expected names as {next(iter(values))}; score the whole split, and from the same "
            "file that decontamination has indexed"
        )
    parts = {
        "all": list(values.values()),
        "clean": [value for item, value in values.items() if item not in touched],
        "touched": [value for item, value in values.items() if item in touched],
    }
    return {name: estimate(part) if part else None for name, part in parts.items()}
