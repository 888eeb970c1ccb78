"""The stages "lines" and "repeated_lines": find the boilerplate lines of each source."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from data_pipeline.cleaning import repeated_lines
from data_pipeline.config import CleaningProfile, Recipe, RepeatedLines
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import add_file, documents_of, new_ledger
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.storage.document import Document


@dataclass(frozen=True, slots=True)
class LineSettings:
    """The settings of a task that counts lines; `profiles` maps categories to cleaning profiles."""

    repeated_lines: RepeatedLines
    profiles: dict[str, CleaningProfile]


@dataclass(frozen=True, slots=True)
class MergeSettings:
    """The minimum number of documents from which on a line is repeated, by source."""

    min_documents: dict[str, int]


def find_repeated_lines(recipe: Recipe, runner: Runner, before: Directory) -> Directory | None:
    """Finds the lines that many documents of a source share; returns None if this is disabled.

    The lines of each shard are counted, then the counts are added in partitions of the hash space.
    """
    config = recipe.repeated_lines
    if not config.enabled:
        return None
    # The profiles of categories are the only settings of cleaning that matter here.
    settings = LineSettings(config, recipe.cleaning.profiles)
    counted = runner.run(
        StageSpec(
            "lines",
            count_shard,
            one_task_per_shard(before, settings),
            config=settings,
            inputs=[before],
        )
    )
    documents: Counter[str] = Counter()
    for ledger in counted.ledgers():
        documents.update(ledger.extra["documents"])
    counts: dict[str, list[ShardFile]] = {f"{k:05d}": [] for k in range(config.partitions)}
    for file in counted.files():
        counts[file.path.name.rsplit(".", 2)[1]].append(file)
    min_documents = {
        source: math.floor(max(config.min_documents, config.min_share * number)) + 1
        for source, number in documents.items()
    }
    return runner.run(
        StageSpec(
            "repeated_lines",
            merge_partition,
            [
                Task(number, MergeSettings(min_documents), None, inputs=tuple(files))
                for number, files in counts.items()
            ],
            config=[config, min_documents],
            inputs=[counted],
        )
    )


def count_shard(task: Task[LineSettings, None]) -> Ledger:
    """Counts the lines of a shard, and writes one file of counts per partition.

    `extra` of the ledger has the number of counted documents of each source.
    """
    config = task.settings.repeated_lines
    documents: Counter[str] = Counter()

    def texts() -> Iterator[tuple[str, str]]:
        for document in documents_of(task):
            if uses_repeated_lines(document, config, task.settings.profiles):
                documents[document.source] += 1
                yield document.text, document.source

    counts = repeated_lines.LineCounts.from_documents(texts())
    ledger = new_ledger(task)
    for number in range(config.partitions):
        name = f"shards/{task.shard}.{number:05d}.npz"
        own = counts.partition(number, config.partitions)
        ledger.files[name] = own.save(task.out / name)
    ledger.extra = {"documents": dict(sorted(documents.items()))}
    ledger.write(task.out)
    return ledger


def uses_repeated_lines(
    document: Document, config: RepeatedLines, profiles: dict[str, CleaningProfile]
) -> bool:
    """Returns whether repeated lines are counted in, and removed from, a document.

    Args:
      document: the document.
      config: has the profiles to which the removal applies.
      profiles: category -> profile.
    """
    return profiles.get(document.category, CleaningProfile.PROSE) in config.profiles


def merge_partition(task: Task[MergeSettings, None]) -> Ledger:
    """Writes the repeated lines of a partition as JSON: {source: {line hash: documents}}."""
    repeated = repeated_lines.merge(_load_counts(task.inputs), task.settings.min_documents)
    ledger = new_ledger(task)
    text = json.dumps({source: table for source, table in repeated.items() if table})
    add_file(ledger, task.out, f"shards/{task.shard}.json", text)
    ledger.extra = {"lines": {source: len(table) for source, table in repeated.items() if table}}
    ledger.write(task.out)
    return ledger


def _load_counts(files: Iterable[ShardFile]) -> Iterator[repeated_lines.LineCounts]:
    """Yields the counts in each file."""
    for file in files:
        with file.verified() as path:
            yield repeated_lines.LineCounts.load(path)


@cache
def load_repeated_lines(files: tuple[ShardFile, ...]) -> dict[str, dict[int, int]]:
    """Returns source -> line hash -> number of documents; read once per process."""
    repeated: dict[str, dict[int, int]] = {}
    for file in files:
        with file.verified() as path:
            tables = json.loads(path.read_text())
        for source, table in tables.items():
            merged = repeated.setdefault(source, {})
            merged.update((int(key), count) for key, count in table.items())
    return repeated
