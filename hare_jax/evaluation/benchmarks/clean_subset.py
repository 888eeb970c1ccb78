"""Scores of the clean items of a benchmark: those that no document of the raw data contained.

Decontamination removes documents that contain benchmark items, and lists these items:

    items = load_contaminated_items(decontamination_status.read_status(mixture), layout)
    items.contaminated                              # {"gsm8k": {"gsm8k/test/17"}}
    split_score({"gsm8k": {"gsm8k/test/0": 1.0, ...}}, items.contaminated["gsm8k"], by_items=True)

The model was not trained on those documents. It may still have seen their items, paraphrased in a
way that no rule matches: items that are copied often are also paraphrased often. Clean items do not
occur in the raw data at all, so their score does not depend on how well decontamination works. The
score of the contaminated items shows what the model would have gained from them.

Items are named BENCHMARK/SPLIT/ROW, where rows of the benchmark's own file are counted from 0. The
rows that configs/benchmarks.py writes carry these names, and its layout.json lists the source files
with their sha256. A score is split only if decontamination has indexed the very same file;
otherwise the names would not identify the items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hare_jax.evaluation.benchmarks.decontamination_status import DecontaminationStatus
from hare_jax.evaluation.benchmarks.statistics import combine, estimate

Estimate = dict[str, Any]  # statistics.estimate
CONTAMINATED_FILES = "contaminated/"  # in the folder of a decontaminate* stage, one per shard


@dataclass(slots=True)
class ContaminatedItems:
    """The benchmark items that the documents of a mixture contained.

    Attributes:
      contaminated: benchmark -> names of its contaminated items.
      indexed: benchmark -> "FILE SHA256" of each file, see DecontaminationStatus.files.
      layout: the content of layout.json; {} for data of the Hugging Face hub.
      unknown_because: why the items are not known; "" if they are.
    """

    contaminated: dict[str, set[str]] = field(default_factory=dict)
    indexed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    unknown_because: str = ""


def load_contaminated_items(
    status: DecontaminationStatus | None, layout: Mapping[str, Any]
) -> ContaminatedItems:
    """Reads which items decontamination has found in the documents of a mixture.

    Args:
      status: of the mixture; None if its stages cannot be read.
      layout: the content of layout.json; {} for data of the Hugging Face hub.
    """
    if status is None:
        return ContaminatedItems(
            unknown_because="the stages that made the training data cannot be read"
        )
    contaminated: dict[str, set[str]] = {}
    try:
        for stage in status.stages:
            for benchmark, item in _read_stage(stage):
                contaminated.setdefault(benchmark, set()).add(item)
    except (OSError, ValueError, KeyError) as error:
        return ContaminatedItems(unknown_because=str(error))
    return ContaminatedItems(contaminated, status.files, layout)


def _read_stage(stage: Path) -> Iterator[tuple[str, str]]:
    """Yields (benchmark, item) of a decontaminate* stage, some of them more than once.

    Raises:
      OSError: a file cannot be read.
      ValueError: an older version made the stage, or a file has changed since then.
    """
    manifest = json.loads((stage / "manifest.json").read_text("utf-8"))
    files = {
        name: sha256
        for shard in manifest["shards"]
        for name, sha256 in shard["files"].items()
        if name.startswith(CONTAMINATED_FILES)
    }
    if manifest["shards"] and not files:
        raise ValueError(f"{stage}: an older version made it, which did not list the items found")
    for name, sha256 in files.items():
        content = (stage / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(f"{stage / name} has changed since it was written")
        for line in content.decode("utf-8").splitlines():
            row = json.loads(line)
            yield row["benchmark"], row["item"]


def of_benchmark(
    items: ContaminatedItems,
    name: str,
    metric: str,
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    by_items: bool,
) -> dict[str, Any]:
    """Splits the score of a benchmark.

    Args:
      items: which items are contaminated.
      name: of the benchmark in decontamination.
      metric: "METRIC,FILTER" of lm-eval.
      samples: task -> its samples, each with "doc", "filter" and the metric.
      by_items: see `split_score`.

    Returns:
      {"state": "known", "all", "clean", "contaminated"}, or {"state": "unknown", "reason"}.
    """
    if items.unknown_because:
        return _unknown(items.unknown_because)
    if name not in items.indexed:
        return _unknown("not all of the training data was compared with this benchmark")
    measure, _, filter_ = metric.rpartition(",")
    values: dict[str, dict[str, float]] = {}
    for task, of_task in samples.items():
        values[task] = {}
        for sample in of_task:
            if sample["filter"] != filter_:
                continue
            item, value = sample["doc"].get("item"), sample[measure]
            if item is None:
                return _unknown("its items have no names, which configs/benchmarks.py adds to them")
            if not (isinstance(value, int | float) or hasattr(value, "item")):
                return _unknown(f"{metric} is not a mean over items")
            values[task][item] = float(value)
    files = items.layout.get(name, {}).get("files", {})
    split = _split_of_another_file(values, files, items.indexed[name])
    if split is not None:
        return _unknown(f"decontamination has indexed another {split} file than the one evaluated")
    contaminated = items.contaminated.get(name, set())
    return {"state": "known", **split_score(values, contaminated, by_items=by_items)}


def split_score(
    values: Mapping[str, Mapping[str, float]], contaminated: Collection[str], *, by_items: bool
) -> dict[str, Estimate | None]:
    """Computes the score of all, of the clean, and of the contaminated items.

    Args:
      values: task -> item -> its value, such as 1.0 for a right answer.
      contaminated: names of items.
      by_items: whether the mean over tasks weighs them by their items. A task without an item of
        a part is left out of it.

    Returns:
      {"all", "clean", "contaminated"}: statistics.estimate of each, None if it has no items.
    """

    def score_of(chosen: Callable[[str], bool]) -> Estimate | None:
        by_task = [[v for i, v in of_task.items() if chosen(i)] for of_task in values.values()]
        scores = [estimate(of_task) for of_task in by_task if of_task]
        if len(values) == 1 or not scores:
            return scores[0] if scores else None
        return combine(scores, by_items=by_items)

    return {
        "all": score_of(lambda item: True),
        "clean": score_of(lambda item: item not in contaminated),
        "contaminated": score_of(lambda item: item in contaminated),
    }


def _unknown(reason: str) -> dict[str, Any]:
    return {"state": "unknown", "reason": reason}


def _split_of_another_file(
    values: Mapping[str, Iterable[str]], files: Mapping[str, str], indexed: Collection[str]
) -> str | None:
    """Returns the first split whose evaluated file is not one that was indexed, or None."""
    for split in sorted({item.split("/")[1] for of_task in values.values() for item in of_task}):
        evaluated = {f"{n} {sha256}" for n, sha256 in files.items() if n.split(".")[0] == split}
        if not evaluated or not evaluated <= set(indexed):
            return split
    return None
