"""Paragraphs that documents have in common stay in one of them: two stages a shard, one between.

paragraphs           a shard      the hashes of its paragraphs, by partition
repeated             a partition  which paragraph stays
repeated_paragraphs  a shard      without those that stay elsewhere
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipeline.config import CleaningProfile, Recipe, RepeatedParagraphs
from data_pipeline.deduplication import paragraphs
from data_pipeline.deduplication.candidate_groups import ROW_BITS
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner
from data_pipeline.execution.shard_output import ShardOutput, documents_of
from data_pipeline.execution.shuffle import (
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
      profiles: cleaning rules of each category, some of which are exempt.
      sources: names in the order of preference, the recipe's order.
    """

    repeated_paragraphs: RepeatedParagraphs
    profiles: dict[str, CleaningProfile]
    sources: tuple[str, ...]


Files = tuple[ShardFile, ...]  # one file per shard or partition of an earlier stage, in its order


def remove_repeated_paragraphs(
    recipe: Recipe, runner: Runner, before: Directory, suffix: str = ""
) -> Directory:
    """Without paragraphs that another document, or the same one before, has word for word.

    Documents whose category has an exempt profile (`recipe.cleaning.profiles`) stay as they are.
    """
    config = recipe.repeated_paragraphs
    paragraphs.check(config)
    partitions = num_partitions(config.partitions, text_bytes_of(before))
    sources = tuple(before.counts())  # as they first came: the recipe's order
    settings = ParagraphSettings(config, recipe.cleaning.profiles, sources)
    hashed = runner.stage(
        f"paragraphs{suffix}",
        hash_paragraphs,
        one_numbered_task_per_shard(before, settings, partitions),
        config=settings,
        inputs=[before],
    )
    found = runner.stage(
        f"repeated{suffix}",
        find_repeated,
        one_task_per_partition(hashed, None, partitions),
        config=config,
        inputs=[hashed],
    )
    places = tuple(found.files())
    return runner.stage(
        f"repeated_paragraphs{suffix}",
        remove_from_shard,
        [
            task.with_side(places)
            for task in one_numbered_task_per_shard(before, config, partitions)
        ],
        config=config,
        inputs=[before, found],
    )


def hash_paragraphs(task: PartitionedTask[ParagraphSettings, None]) -> Ledger:
    config, profiles = task.settings.repeated_paragraphs, task.settings.profiles

    def compared() -> Iterator[Document | None]:
        for document in documents_of(task):
            profile = profiles.get(document.category, CleaningProfile.PROSE)
            yield None if profile in config.exempt else document

    found = paragraphs.read(compared(), task.settings.sources, config)
    return write_shuffle_output(task, [pack_arrays(part) for part in found.parts(task.partitions)])


def find_repeated(task: PartitionedTask[None, Files]) -> Ledger:
    """`task.side`: the paragraphs of all shards. Writes a part for each class of shards."""
    number_N, place_N = paragraphs.repeated(read_partition(task.side, task.number))
    shard_N = number_N >> np.uint64(ROW_BITS)
    classes = (shard_N % np.uint64(task.partitions)).astype(np.int64)
    parts = [
        pack_arrays({"number": number, "place": place})
        for number, place in split_by_partition(classes, task.partitions, number_N, place_N)
    ]
    return write_shuffle_output(task, parts, repeated=len(place_N))


def remove_from_shard(task: PartitionedTask[RepeatedParagraphs, Files]) -> Ledger:
    """`task.side`: what every partition found."""
    places: dict[int, list[int]] = {}
    for _, arrays in read_partition(task.side, task.shard_class):
        if arrays is not None:
            shards, rows = np.divmod(arrays["number"], np.uint64(1 << ROW_BITS))
            own = shards == np.uint64(task.number)
            for row, place in zip(rows[own].tolist(), arrays["place"][own].tolist(), strict=True):
                places.setdefault(row, []).append(place)
    with ShardOutput(task, "repeated_paragraphs") as output:
        for row, document in enumerate(documents_of(task)):
            output.count_input(document)
            removed = sorted(places.get(row, []))
            answer = paragraphs.remove(document, removed, task.settings)
            if isinstance(answer, Document) and removed:
                output.ledger.of(document.source).changed["repeated_paragraph"] += len(removed)
            output.write(answer)
    return output.ledger
