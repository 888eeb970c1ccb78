"""The six stages of deduplication, each of which sees a part of the data.

    stage        one task per  writes
    signatures   shard         the keys of its documents, by partition
    links        partition     pairs of documents that share a key
    groups       (one task)    groups of candidate duplicates: integers only
    members      shard         n-grams and ids of its documents in groups, by partition
    duplicates   partition     which document of each group survives
    deduplicate  shard         its documents without the duplicates

deduplication/signatures.py describes the decisions and the memory that each stage takes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipeline.config import Deduplication, Recipe
from data_pipeline.deduplication import candidate_groups, survivors
from data_pipeline.deduplication import signatures as dedup
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
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
from data_pipeline.execution.shuffle_file import (
    num_partitions,
    pack_arrays,
    partition_of,
    read_shuffle_partition,
    split_by_partition,
    unpack_arrays,
)
from data_pipeline.storage.document import Document


@dataclass(frozen=True, slots=True)
class DecisionSettings:
    """The settings of a worker that decides which documents survive.

    `sources`: names of sources by priority, which is the recipe's order.
    """

    dedup: Deduplication
    sources: tuple[str, ...]


def deduplicate(recipe: Recipe, runner: Runner, before: Directory, suffix: str = "") -> Directory:
    """Runs the six stages; returns the documents without duplicates, each with a unique id.

    Args:
      recipe: its section `dedup`.
      runner: runs the stages.
      before: the documents.
      suffix: is appended to the names of the stages if a recipe deduplicates more than once.
    """
    config = recipe.dedup
    sources = tuple(before.counts())  # in the order in which they were read: the recipe's
    partitions = num_partitions(config.partitions, text_bytes_of(before))
    shards = one_numbered_task_per_shard(before, config, partitions)
    signatures = runner.run(StageSpec(f"signatures{suffix}", sign_shard, shards, config, [before]))
    by_key = one_task_per_partition(signatures, config, partitions)
    links = runner.run(StageSpec(f"links{suffix}", find_links, by_key, config, [signatures]))
    all_links = PartitionedTask(
        "all", config, tuple(links.files()), partitions=partitions, number=0
    )
    connected = runner.run(
        StageSpec(f"groups{suffix}", connect_groups, [all_links], config, [links])
    )
    (groups,) = connected.files()
    in_groups = [task.with_side(groups) for task in shards]
    members = runner.run(
        StageSpec(f"members{suffix}", gather_members, in_groups, config, [before, connected])
    )
    by_group = one_task_per_partition(members, DecisionSettings(config, sources), partitions)
    duplicates = runner.run(
        StageSpec(f"duplicates{suffix}", find_duplicates, by_group, config, [members], sources)
    )
    decided = [task.with_side(tuple(duplicates.files())) for task in shards]
    return runner.run(
        StageSpec(f"deduplicate{suffix}", deduplicate_shard, decided, config, [before, duplicates])
    )


def sign_shard(task: PartitionedTask[Deduplication, None]) -> Ledger:
    """Writes the keys of a shard's documents, by partition of the keys."""
    signatures = dedup.compute_signatures(documents_of(task), task.settings)
    tables = signatures.by_partition(task.partitions)
    return write_shuffle_output(task, [pack_arrays(table) for table in tables])


def find_links(task: PartitionedTask[Deduplication, Files]) -> Ledger:
    """Writes the links of one partition of keys.

    `task.side`: the signatures of all shards, in their order.
    """
    links = candidate_groups.find_links(read_partition(task.side, task.number))
    return write_shuffle_output(task, [pack_arrays(links.to_arrays())])


def connect_groups(task: PartitionedTask[Deduplication, Files]) -> Ledger:
    """Writes the groups that all links make, by class of shards.

    `task.side`: the links of all partitions.
    """
    links = (
        candidate_groups.Links.from_arrays(arrays) for _, arrays in read_partition(task.side, 0)
    )
    groups = candidate_groups.connect(links)
    class_M = groups.shard_M() % task.partitions
    by_class = [
        pack_arrays(groups.select(index).to_arrays())
        for (index,) in split_by_partition(class_M, task.partitions, np.arange(len(class_M)))
    ]
    sizes = np.unique(groups.candidate_root_M, return_counts=True)[1]
    return write_shuffle_output(
        task, by_class, documents=len(class_M), largest_group=int(sizes.max(initial=0))
    )


def gather_members(task: PartitionedTask[Deduplication, ShardFile]) -> Ledger:
    """Writes the members of a shard, by partition of their groups.

    `task.side`: the groups.
    """
    content = read_shuffle_partition(task.side.path, task.shard_class)
    groups = candidate_groups.Groups.from_arrays(unpack_arrays(content))
    own = groups.select(groups.shard_M() == task.number)
    members = survivors.collect_members(documents_of(task), own, task.settings)
    # A group lies in the partition of its root, so that one worker has all of it.
    partition_M = partition_of(own.decision_root_M, task.partitions)
    rows_M = np.arange(len(partition_M))
    return write_shuffle_output(
        task,
        [
            pack_arrays(members.select(index).to_arrays()) if len(index) else b""
            for (index,) in split_by_partition(partition_M, task.partitions, rows_M)
        ],
    )


def find_duplicates(task: PartitionedTask[DecisionSettings, Files]) -> Ledger:
    """Writes the decisions about one partition of groups, by class of shards.

    `task.side`: the members of all shards.
    """
    tables = (
        survivors.Members.from_arrays(arrays)
        for _, arrays in read_partition(task.side, task.number)
        if arrays is not None
    )
    decisions = survivors.decide(tables, task.settings.sources, task.settings.dedup)
    by_class: list[dict[int, Any]] = [{} for _ in range(task.partitions)]
    for shard in sorted(decisions):
        by_class[shard % task.partitions][shard] = decisions[shard].to_json()
    return write_shuffle_output(task, [json.dumps(own).encode() for own in by_class])


def deduplicate_shard(task: PartitionedTask[Deduplication, Files]) -> Ledger:
    """Writes a shard without its duplicates.

    `task.side`: the decisions of all partitions.
    """
    decisions = dedup.Decisions()
    for file in task.side:
        by_shard = json.loads(read_shuffle_partition(file.path, task.shard_class))
        if (own := by_shard.get(str(task.number))) is not None:
            decisions.add(dedup.Decisions.from_json(own))
    with ShardOutput(task, "deduplicate") as output:
        for row, document in enumerate(documents_of(task)):
            output.count_input(document)
            decision = decisions.apply(row, document)
            if isinstance(decision, Document) and "renamed_from" in decision.meta:
                output.ledger.of(decision.source).changed["duplicate_id"] += 1
            output.write(decision)
    return output.ledger
