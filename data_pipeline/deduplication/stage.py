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
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from data_pipeline.config import Recipe
from data_pipeline.deduplication import candidate_groups, survivors
from data_pipeline.deduplication import signatures as dedup
from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.execution.runner import Runner, Task
from data_pipeline.execution.shard_output import ShardOutput, documents_of
from data_pipeline.execution.shuffle import (
    PartitionedTask,
    files_by_name,
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


def deduplicate(recipe: Recipe, runner: Runner, before: Directory, suffix: str = "") -> Directory:
    """Without exact and near duplicates, and with an id of its own for every document.

    `suffix` is appended to the names of the stages, where a recipe deduplicates more than once.
    """
    config = recipe.dedup
    dedup.check(config)
    sources = tuple(before.counts())  # as they first came: the recipe's order
    setting = PartitionedTask(
        config, num_partitions(config.partitions, text_bytes_of(before)), sources
    )
    shards = one_numbered_task_per_shard(before, setting)
    whole = partial(runner.stage, config=config)
    signatures = whole(f"signatures{suffix}", sign_shard, shards, inputs=[before])
    links = whole(
        f"links{suffix}",
        find_links,
        one_task_per_partition(signatures, setting),
        inputs=[signatures],
    )
    connected = whole(
        f"groups{suffix}",
        connect_groups,
        [Task("all", config=setting, side=files_by_name(links))],
        inputs=[links],
    )
    members = whole(
        f"members{suffix}",
        gather_members,
        [replace(task, side=files_by_name(connected)) for task in shards],
        inputs=[before, connected],
    )
    duplicates = whole(
        f"duplicates{suffix}",
        find_duplicates,
        one_task_per_partition(members, setting),
        inputs=[members],
        extra=sources,
    )
    decisions = files_by_name(duplicates)
    return whole(
        f"deduplicate{suffix}",
        deduplicate_shard,
        [replace(task, side=decisions) for task in shards],
        inputs=[before, duplicates],
    )


def sign_shard(task: Task) -> Ledger:
    setting: PartitionedTask = task.config
    signed = dedup.signatures(documents_of(task), setting.config)
    return write_shuffle_output(
        task, [pack_arrays(part) for part in signed.parts(setting.partitions)]
    )


def find_links(task: Task) -> Ledger:
    """`task.side`: the signatures of all shards, in their order."""
    setting: PartitionedTask = task.config
    found = candidate_groups.find_links(read_partition(task.side.values(), setting.number))
    return write_shuffle_output(task, [pack_arrays(found.arrays())])


def connect_groups(task: Task) -> Ledger:
    """`task.side`: the links of all partitions. Writes a part for each class of shards."""
    setting: PartitionedTask = task.config
    links = (
        candidate_groups.Links.of(arrays) for _, arrays in read_partition(task.side.values(), 0)
    )
    found = candidate_groups.connect(links)
    classes = found.shard_M() % setting.partitions
    parts = [
        pack_arrays(found.where(index).arrays())
        for (index,) in split_by_partition(classes, setting.partitions, np.arange(len(classes)))
    ]
    sizes = np.unique(found.candidate_root_M, return_counts=True)[1]
    return write_shuffle_output(
        task, parts, documents=len(classes), largest_group=int(sizes.max(initial=0))
    )


def gather_members(task: Task) -> Ledger:
    """`task.side`: the groups. Writes a part for each partition that has groups of this shard."""
    setting: PartitionedTask = task.config
    (file,) = task.side.values()
    content = read_shuffle_partition(file.path, setting.shard_class)
    everyone = candidate_groups.Groups.of(unpack_arrays(content))
    own = everyone.where(everyone.shard_M() == setting.number)
    found = survivors.members(documents_of(task), own, setting.config)
    part_M = partition_of(own.decision_root_M, setting.partitions)
    return write_shuffle_output(
        task,
        [
            pack_arrays(found.where(index).arrays()) if len(index) else b""
            for (index,) in split_by_partition(part_M, setting.partitions, np.arange(len(part_M)))
        ],
    )


def find_duplicates(task: Task) -> Ledger:
    """`task.side`: the members of all shards. Writes a part for each class of shards."""
    setting: PartitionedTask = task.config
    tables = (
        survivors.Members.of(arrays)
        for _, arrays in read_partition(task.side.values(), setting.number)
        if arrays is not None
    )
    decided = survivors.decide(tables, setting.sources, setting.config)
    classes: list[dict[int, Any]] = [{} for _ in range(setting.partitions)]
    for shard in sorted(decided):
        classes[shard % setting.partitions][shard] = decided[shard].to_json()
    return write_shuffle_output(task, [json.dumps(own).encode() for own in classes])


def deduplicate_shard(task: Task) -> Ledger:
    """`task.side`: the decisions of all partitions."""
    setting: PartitionedTask = task.config
    decisions = dedup.Decisions()
    for file in task.side.values():
        own = json.loads(read_shuffle_partition(file.path, setting.shard_class))
        if (decided := own.get(str(setting.number))) is not None:
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
