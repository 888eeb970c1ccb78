"""Stages over all documents whose workers hold a part each: tasks and files of a global step.

A worker of such a stage reads its part of the files of all shards, or writes a part for every
partition (parts.py). Shards lie in as many classes as there are partitions, by their number, so
that a worker which writes for all shards writes one part for each class and not for each shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Task, one_task_per_shard
from data_pipeline.execution.shard_output import new_ledger
from data_pipeline.execution.shuffle_file import (
    Arrays,
    read_shuffle_partition,
    unpack_arrays,
    write_shuffle_file,
)


@dataclass(frozen=True, slots=True)
class PartitionedTask:
    """What a worker knows besides its files; `number` is that of its shard or partition."""

    config: Any
    partitions: int
    sources: tuple[str, ...]  # in the order of the recipe, the most wanted first
    number: int = 0

    @property
    def shard_class(self) -> int:
        return self.number % self.partitions


def text_bytes_of(directory: Directory) -> int:
    """Bytes of UTF-8."""
    return sum(counts.bytes_kept for counts in directory.counts().values())


def one_numbered_task_per_shard(before: Directory, setting: PartitionedTask) -> list[Task]:
    """A task for each shard of documents in `before`, which knows the shard's number."""
    return [
        replace(task, config=replace(setting, number=number))
        for number, task in enumerate(one_task_per_shard(before, None))
    ]


def one_task_per_partition(before: Directory, setting: PartitionedTask) -> list[Task]:
    """A task for each partition, which reads its part of every file of `before`.

    The files are no `inputs`, whose hashes each ledger would repeat: a reader checks its part.
    """
    files = files_by_name(before)
    return [
        Task(f"part-{number:05}", config=replace(setting, number=number), side=files)
        for number in range(setting.partitions)
    ]


def files_by_name(directory: Directory) -> dict[str, ShardFile]:
    return {file.name: file for file in directory.files()}


def read_partition(files: Iterable[ShardFile], part: int) -> Iterator[tuple[int, Arrays | None]]:
    """(number of the file, its part) for each file, in their order."""
    for number, file in enumerate(files):
        yield number, unpack_arrays(read_shuffle_partition(file.path, part))


def write_shuffle_output(task: Task, parts: Sequence[bytes], **extra: Any) -> Ledger:
    """Writes a task's file of parts, and then its ledger."""
    ledger = new_ledger(task)
    name = f"shards/{task.shard}.parts"
    ledger.files[name] = write_shuffle_file(task.out / name, parts)
    ledger.extra = extra
    ledger.write(task.out)
    return ledger
