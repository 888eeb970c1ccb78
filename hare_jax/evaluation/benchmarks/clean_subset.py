"""Scores of a benchmark's clean items: those that no document of the raw data touches.

Decontamination takes out documents that hold items of benchmarks, and what it took out tells which
items the raw data repeats:

    found = clean_subset.found(protection.checked(mixture), read_evidence, layout)
    found.touched                                   # {"gsm8k": {"gsm8k/test/17"}}
    parts({"gsm8k": {"gsm8k/test/0": 1.0, ...}}, found.touched["gsm8k"], by_items=True)

The model has not read those documents. It may still have read their items, told in a way that no
rule finds: what is copied often is also retold often. The clean items are those that not even the
raw data held, so their score does not depend on how well decontamination works; the touched ones
are what it would have been paid for.

Items are named BENCHMARK/SPLIT/ROW, rows of the benchmark's own file counted from 0. The rows that
configs/benchmarks.py lays out carry these names, and layout.json says of which files they are. A
score is split only where decontamination has indexed the very same file: else it is unknown which
item is which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hare_jax.evaluation.benchmarks.decontamination_status import DecontaminationStatus
from hare_jax.evaluation.benchmarks.statistics import combined, estimate

# The folder of a decontaminate* stage -> (benchmark, item) of all that its documents held.
ReadEvidence = Callable[[Path], Iterable[tuple[str, str]]]
Score = dict[str, Any]


@dataclass(slots=True)
class ContaminatedItems:
    """`indexed`: the `files` of protection.Checked. `layout`: what layout.json says, {} for the
    hub. `unknown`: why nothing is known, or ""."""

    contaminated: dict[str, set[str]] = field(default_factory=dict)
    indexed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    unknown: str = ""


def load_contaminated_items(
    checked: DecontaminationStatus | None,
    read_evidence: ReadEvidence | None,
    layout: Mapping[str, Any],
) -> ContaminatedItems:
    """What decontamination found in the documents of a mixture."""
    if checked is None or read_evidence is None:
        return ContaminatedItems(
            unknown="the stages that made the training data are not there to be read"
        )
    touched: dict[str, set[str]] = {}
    try:
        for stage in checked.stages:
            for benchmark, item in read_evidence(stage):
                touched.setdefault(benchmark, set()).add(item)
    except (OSError, ValueError) as error:
        return ContaminatedItems(unknown=str(error))
    return ContaminatedItems(touched, checked.files, layout)


def of_benchmark(
    found: ContaminatedItems,
    name: str,
    metric: str,
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    by_items: bool,
) -> dict[str, Any]:
    """{"state": "known", "all", "clean", "touched"}, or {"state": "unknown", "reason"}.

    `name`: the benchmark's in decontamination. `samples`: of each task, each with "doc", "filter"
    and the metric.
    """
    if found.unknown:
        return unknown(found.unknown)
    if name not in found.indexed:
        return unknown("not all of the training data was compared with this benchmark")
    measure, _, filter_ = metric.rpartition(",")
    values: dict[str, dict[str, float]] = {}
    for task, of_task in samples.items():
        values[task] = {}
        for sample in of_task:
            if sample["filter"] != filter_:
                continue
            item, value = sample["doc"].get("item"), sample[measure]
            if item is None:
                return unknown(
                    "its items have no names, as configs/benchmarks.py lays them out with"
                )
            if not (isinstance(value, int | float) or hasattr(value, "item")):
                return unknown(f"{metric} is no mean over items")
            values[task][item] = float(value)
    files = found.layout.get(name, {}).get("files", {})
    if (other := _other_file(values, files, found.indexed[name])) is not None:
        return unknown(f"decontamination has indexed another {other} file than the one evaluated")
    touched = found.contaminated.get(name, set())
    return {"state": "known", **parts(values, touched, by_items=by_items)}


def parts(
    values: Mapping[str, Mapping[str, float]], touched: Collection[str], *, by_items: bool
) -> dict[str, Score | None]:
    """{"all", "clean", "touched"}: each a score as results.estimate gives it, None of no items.

    `values`: task -> item -> what it scored, such as 1.0 for a right answer. Tasks are put together
    as in the benchmark's score, those without an item of the part left out.
    """

    def of(wanted: Callable[[str], bool]) -> Score | None:
        chosen = [[v for i, v in of_task.items() if wanted(i)] for of_task in values.values()]
        scores = [estimate(part) for part in chosen if part]
        if len(values) == 1 or not scores:
            return scores[0] if scores else None
        return combined(scores, by_items=by_items)

    return {
        "all": of(lambda item: True),
        "clean": of(lambda item: item not in touched),
        "touched": of(lambda item: item in touched),
    }


def unknown(reason: str) -> dict[str, Any]:
    return {"state": "unknown", "reason": reason}


def _other_file(
    values: Mapping[str, Iterable[str]], files: Mapping[str, str], indexed: Collection[str]
) -> str | None:
    """The split whose rows were not counted in the same file."""
    for split in sorted({item.split("/")[1] for of_task in values.values() for item in of_task}):
        evaluated = {f"{n} {sha256}" for n, sha256 in files.items() if n.split(".")[0] == split}
        if not evaluated or not evaluated <= set(indexed):
            return split
    return None
