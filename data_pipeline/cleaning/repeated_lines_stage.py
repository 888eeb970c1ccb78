"""Lines of each shard, counted over all of them: which lines of a source are boilerplate."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from data_pipeline.cleaning import repeated_lines
from data_pipeline.config import CleaningProfile, Recipe, RepeatedLines
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile, file_sha256
from data_pipeline.execution.runner import Runner
from data_pipeline.execution.shard_output import add_file, documents_of, new_ledger
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.storage.document import Document


@dataclass(frozen=True, slots=True)
class LineSettings:
    """The settings of a worker that counts lines: `profiles` maps categories to rules."""

    repeated_lines: RepeatedLines
    profiles: dict[str, CleaningProfile]


@dataclass(frozen=True, slots=True)
class MergeSettings:
    """The smallest number of documents that makes a line boilerplate, by source."""

    min_documents: dict[str, int]


def find_repeated_lines(recipe: Recipe, runner: Runner, before: Directory) -> Directory | None:
    """Which lines many documents of one source have; None where that is switched off.

    Lines of each shard are counted, then summed in partitions of the hash space.
    """
    config = recipe.repeated_lines
    if not config.enabled:
        return None
    if config.partitions < 1:
        raise ValueError(
            f"repeated_lines.partitions: got {config.partitions}, expected 1 (one worker counts "
            f"all lines) or more"
        )
    # Which profile a category has is a setting of cleaning, and the only one that matters here.
    settings = LineSettings(config, recipe.cleaning.profiles)
    counted = runner.stage(
        "lines",
        count_shard,
        one_task_per_shard(before, settings),
        config=settings,
        inputs=[before],
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
    return runner.stage(
        "repeated_lines",
        merge_partition,
        [
            Task(number, MergeSettings(min_documents), None, inputs=tuple(files))
            for number, files in counts.items()
        ],
        config=[config, min_documents],
        inputs=[counted],
    )


def count_shard(task: Task[LineSettings, None]) -> Ledger:
    """A file of counts for each partition; `extra`: the documents of each source that count."""
    config = task.settings.repeated_lines
    documents: Counter[str] = Counter()

    def counted() -> Iterator[tuple[str, str]]:
        for document in documents_of(task):
            if applies(document, config, task.settings.profiles):
                documents[document.source] += 1
                yield document.text, document.source

    counts = repeated_lines.LineCounts.from_documents(counted())
    ledger = new_ledger(task)
    for number in range(config.partitions):
        name = f"shards/{task.shard}.{number:05d}.npz"
        counts.partition(number, config.partitions).save(task.out / name)
        ledger.files[name] = file_sha256(task.out / name)
    ledger.extra = {"documents": dict(sorted(documents.items()))}
    ledger.write(task.out)
    return ledger


def applies(
    document: Document, config: RepeatedLines, profiles: dict[str, CleaningProfile]
) -> bool:
    return profiles.get(document.category, CleaningProfile.PROSE) in config.profiles


def merge_partition(task: Task[MergeSettings, None]) -> Ledger:
    """{source: {hash: documents}} of the repeated lines in one partition, as JSON."""
    found = repeated_lines.merge(_counts_in(task.inputs), task.settings.min_documents)
    ledger = new_ledger(task)
    text = json.dumps({source: table for source, table in found.items() if table})
    add_file(ledger, task.out, f"shards/{task.shard}.json", text)
    ledger.extra = {"lines": {source: len(table) for source, table in found.items() if table}}
    ledger.write(task.out)
    return ledger


def _counts_in(files: Iterable[ShardFile]) -> Iterator[repeated_lines.LineCounts]:
    for file in files:
        with file.verified() as path:
            yield repeated_lines.LineCounts.load(path)


@cache
def load(files: tuple[ShardFile, ...]) -> dict[str, dict[int, int]]:
    """Source -> line hash -> documents; read once in a process."""
    repeated: dict[str, dict[int, int]] = {}
    for file in files:
        with file.verified() as path:
            tables = json.loads(path.read_text())
        for source, table in tables.items():
            found = repeated.setdefault(source, {})
            found.update((int(key), count) for key, count in table.items())
    return repeated
