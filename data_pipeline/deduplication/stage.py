"""Exact and near duplicates, over partitions of what is compared: six stages, none sees everything.

    signatures   a shard      its keys, by partition
    links        a partition  who shares a key with whom
    groups       all          who is to be compared with whom: integers only
    members      a shard      what is compared of those in a group, by partition
    duplicates   a partition  who survives
    deduplicate  a shard      without its duplicates

What each of them decides, and how much memory it takes, is in deduplication/signatures.py.
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

    `sources`: names in the order of preference, the recipe's order.
    """

    dedup: Deduplication
    sources: tuple[str, ...]


Files = tuple[ShardFile, ...]  # one file per shard or partition of an earlier stage, in its order


def deduplicate(recipe: Recipe, runner: Runner, before: Directory, suffix: str = "") -> Directory:
    """Without exact and near duplicates, and with an id of its own for every document.

    `suffix` is appended to the names of the stages, where a recipe deduplicates more than once.
    """
    config = recipe.dedup
    dedup.check(config)
    sources = tuple(before.counts())  # as they first came: the recipe's order
    partitions = num_partitions(config.partitions, text_bytes_of(before))
    shards = one_numbered_task_per_shard(before, config, partitions)
    signatures = runner.stage(
        f"signatures{suffix}", sign_shard, shards, config=config, inputs=[before]
    )
    links = runner.stage(
        f"links{suffix}",
        find_links,
        one_task_per_partition(signatures, config, partitions),
        config=config,
        inputs=[signatures],
    )
    connected = runner.stage(
        f"groups{suffix}",
        connect_groups,
        [PartitionedTask("all", config, tuple(links.files()), partitions=partitions, number=0)],
        config=config,
        inputs=[links],
    )
    (groups,) = connected.files()
    members = runner.stage(
        f"members{suffix}",
        gather_members,
        [task.with_side(groups) for task in shards],
        config=config,
        inputs=[before, connected],
    )
    duplicates = runner.stage(
        f"duplicates{suffix}",
        find_duplicates,
        one_task_per_partition(members, DecisionSettings(config, sources), partitions),
        config=config,
        inputs=[members],
        extra=sources,
    )
    decisions = tuple(duplicates.files())
    return runner.stage(
        f"deduplicate{suffix}",
        deduplicate_shard,
        [task.with_side(decisions) for task in shards],
        config=config,
        inputs=[before, duplicates],
    )


def sign_shard(task: PartitionedTask[Deduplication, None]) -> Ledger:
    signed = dedup.signatures(documents_of(task), task.settings)
    return write_shuffle_output(task, [pack_arrays(part) for part in signed.parts(task.partitions)])


def find_links(task: PartitionedTask[Deduplication, Files]) -> Ledger:
    """`task.side`: the signatures of all shards, in their order."""
    found = candidate_groups.find_links(read_partition(task.side, task.number))
    return write_shuffle_output(task, [pack_arrays(found.arrays())])


def connect_groups(task: PartitionedTask[Deduplication, Files]) -> Ledger:
    """`task.side`: the links of all partitions. Writes a part for each class of shards."""
    links = (candidate_groups.Links.of(arrays) for _, arrays in read_partition(task.side, 0))
    found = candidate_groups.connect(links)
    classes = found.shard_M() % task.partitions
    parts = [
        pack_arrays(found.where(index).arrays())
        for (index,) in split_by_partition(classes, task.partitions, np.arange(len(classes)))
    ]
    sizes = np.unique(found.candidate_root_M, return_counts=True)[1]
    return write_shuffle_output(
        task, parts, documents=len(classes), largest_group=int(sizes.max(initial=0))
    )


def gather_members(task: PartitionedTask[Deduplication, ShardFile]) -> Ledger:
    """`task.side`: the groups. Writes a part for each partition that has groups of this shard."""
    content = read_shuffle_partition(task.side.path, task.shard_class)
    everyone = candidate_groups.Groups.of(unpack_arrays(content))
    own = everyone.where(everyone.shard_M() == task.number)
    found = survivors.members(documents_of(task), own, task.settings)
    part_M = partition_of(own.decision_root_M, task.partitions)
    return write_shuffle_output(
        task,
        [
            pack_arrays(found.where(index).arrays()) if len(index) else b""
            for (index,) in split_by_partition(part_M, task.partitions, np.arange(len(part_M)))
        ],
    )


def find_duplicates(task: PartitionedTask[DecisionSettings, Files]) -> Ledger:
    """`task.side`: the members of all shards. Writes a part for each class of shards."""
    tables = (
        survivors.Members.of(arrays)
        for _, arrays in read_partition(task.side, task.number)
        if arrays is not None
    )
    decided = survivors.decide(tables, task.settings.sources, task.settings.dedup)
    classes: list[dict[int, Any]] = [{} for _ in range(task.partitions)]
    for shard in sorted(decided):
        classes[shard % task.partitions][shard] = decided[shard].to_json()
    return write_shuffle_output(task, [json.dumps(own).encode() for own in classes])


def deduplicate_shard(task: PartitionedTask[Deduplication, Files]) -> Ledger:
    """`task.side`: the decisions of all partitions."""
    decisions = dedup.Decisions()
    for file in task.side:
        own = json.loads(read_shuffle_partition(file.path, task.shard_class))
        if (decided := own.get(str(task.number))) is not None:
            decisions.add(dedup.Decisions.from_json(decided))
    decide_one = dedup.build(decisions)
    with ShardOutput(task, "deduplicate") as output:
        for row, document in enumerate(documents_of(task)):
            output.count_input(document)
            answer = decide_one(row, document)
            if isinstance(answer, Document) and "renamed_from" in answer.meta:
                output.ledger.of(answer.source).changed["duplicate_id"] += 1
            output.write(answer)
    return output.ledger
