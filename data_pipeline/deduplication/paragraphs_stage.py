"""The three stages that remove repeated paragraphs, each of which sees a part of the data.

    stage                one task per  writes
    paragraphs           shard         the hashes of its paragraphs, by partition
    repeated             partition     the paragraphs that are removed
    repeated_paragraphs  shard         its documents without them

deduplication/paragraphs.py describes which copy of a paragraph is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipeline.config import CleaningProfile, Recipe, RepeatedParagraphs
from data_pipeline.deduplication import paragraphs
from data_pipeline.deduplication.candidate_groups import ROW_BITS
from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import ShardOutput, documents_of
from data_pipeline.execution.shuffle import (
    Files,
    PartitionedTask,
    one_numbered_task_per_shard,
    one_task_per_partition,
    read_partition,
    text_bytes_of,
    write_shuffle_output,
)
from data_pipeline.execution.shuffle_file import num_partitions, pack_arrays, split_by_partition
from data_pipeline.storage.document import Document


@dataclass(frozen=True, slots=True)
class ParagraphSettings:
    """The settings of a worker that hashes paragraphs.

    Attributes:
      profiles: cleaning profile of each category, some of which are exempt.
      sources: names of sources by priority, which is the recipe's order.
    """

    repeated_paragraphs: RepeatedParagraphs
    profiles: dict[str, CleaningProfile]
    sources: tuple[str, ...]


def remove_repeated_paragraphs(recipe: Recipe, runner: Runner, before: Directory) -> Directory:
    """Runs the three stages; returns the documents without repeated paragraphs.

    A repeated paragraph is one that another document has word for word, or the same document
    before. Documents whose category has an exempt profile are not changed.

    Args:
      recipe: its section `repeated_paragraphs`, and `cleaning.profiles`.
      runner: runs the stages.
      before: the documents.
    """
    config = recipe.repeated_paragraphs
    partitions = num_partitions(config.partitions, text_bytes_of(before))
    sources = tuple(before.counts())  # in the order in which they were read: the recipe's
    settings = ParagraphSettings(config, recipe.cleaning.profiles, sources)
    hashed = runner.run(
        StageSpec(
            "paragraphs",
            hash_paragraphs,
            one_numbered_task_per_shard(before, settings, partitions),
            config=settings,
            inputs=[before],
        )
    )
    repeated = runner.run(
        StageSpec(
            "repeated",
            find_repeated,
            one_task_per_partition(hashed, None, partitions),
            config=config,
            inputs=[hashed],
        )
    )
    files = tuple(repeated.files())
    return runner.run(
        StageSpec(
            "repeated_paragraphs",
            remove_from_shard,
            [
                task.with_side(files)
                for task in one_numbered_task_per_shard(before, config, partitions)
            ],
            config=config,
            inputs=[before, repeated],
        )
    )


def hash_paragraphs(task: PartitionedTask[ParagraphSettings, None]) -> Ledger:
    """Writes the hashes of a shard's paragraphs, by partition of the hashes."""
    config, profiles = task.settings.repeated_paragraphs, task.settings.profiles

    def compared() -> Iterator[Document | None]:
        for document in documents_of(task):
            profile = profiles.get(document.category, CleaningProfile.PROSE)
            yield None if profile in config.exempt else document

    hashed = paragraphs.collect_paragraphs(compared(), task.settings.sources, config)
    tables = hashed.by_partition(task.partitions)
    return write_shuffle_output(task, [pack_arrays(table) for table in tables])


def find_repeated(task: PartitionedTask[None, Files]) -> Ledger:
    """Writes the repeated paragraphs of one partition of hashes, by class of shards.

    `task.side`: the paragraphs of all shards.
    """
    document_N, number_N = paragraphs.find_repeated(read_partition(task.side, task.number))
    shard_N = document_N >> np.uint64(ROW_BITS)
    class_N = (shard_N % np.uint64(task.partitions)).astype(np.int64)
    by_class = [
        pack_arrays({"number": document, "place": number})
        for document, number in split_by_partition(class_N, task.partitions, document_N, number_N)
    ]
    return write_shuffle_output(task, by_class, repeated=len(number_N))


def remove_from_shard(task: PartitionedTask[RepeatedParagraphs, Files]) -> Ledger:
    """Writes a shard without its repeated paragraphs.

    `task.side`: the repeated paragraphs of all partitions.
    """
    paragraphs_of_row: dict[int, list[int]] = {}
    for _, arrays in read_partition(task.side, task.shard_class):
        if arrays is not None:
            shards, rows = np.divmod(arrays["number"], np.uint64(1 << ROW_BITS))
            own = shards == np.uint64(task.number)
            numbers = arrays["place"][own].tolist()
            for row, number in zip(rows[own].tolist(), numbers, strict=True):
                paragraphs_of_row.setdefault(row, []).append(number)
    with ShardOutput(task, "repeated_paragraphs") as output:
        for row, document in enumerate(documents_of(task)):
            output.count_input(document)
            removed = sorted(paragraphs_of_row.get(row, []))
            decision = paragraphs.remove(document, removed, task.settings)
            if isinstance(decision, Document) and removed:
                output.ledger.of(document.source).changed["repeated_paragraph"] += len(removed)
            output.write(decision)
    return output.ledger
