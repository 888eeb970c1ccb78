"""Stages over all documents whose workers hold a part each: tasks and files of a global step.

A worker of such a stage reads its part of the files of all shards, or writes a part for every
partition (parts.py). Shards lie in as many classes as there are partitions, by their number, so
that a worker which writes for all shards writes one part for each class and not for each shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.shard_output import new_ledger
from data_pipeline.execution.shuffle_file import (
    Arrays,
    read_shuffle_partition,
    unpack_arrays,
    write_shuffle_file,
)
from data_pipeline.execution.task import (
    AnyTask,
    SettingsT,
    SettingsT_co,
    SideT,
    SideT_co,
    Task,
    one_task_per_shard,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionedTask(Task[SettingsT_co, SideT_co]):
    """A task of a stage whose work is divided into partitions of a hash space.

    Attributes:
      partitions: number of partitions, at least 1.
      number: number of the task's shard or partition.
    """

    partitions: int
    number: int

    @property
    def shard_class(self) -> int:
        """The class of the task's shard: its number modulo the number of partitions."""
        return self.number % self.partitions

    def with_side(self, side: SideT) -> PartitionedTask[SettingsT_co, SideT]:
        """Returns this task with other side files."""
        return PartitionedTask(
            self.shard,
            self.settings,
            side,
            self.out,
            self.inputs,
            self.tiers,
            self.size,
            partitions=self.partitions,
            number=self.number,
        )


def text_bytes_of(directory: Directory) -> int:
    """Bytes of UTF-8."""
    return sum(counts.bytes_kept for counts in directory.counts().values())


def one_numbered_task_per_shard(
    before: Directory, settings: SettingsT, partitions: int
) -> list[PartitionedTask[SettingsT, None]]:
    """Returns one task for each shard of documents in `before`, with the shard's number."""
    return [
        PartitionedTask(
            task.shard,
            task.settings,
            None,
            inputs=task.inputs,
            tiers=task.tiers,
            size=task.size,
            partitions=partitions,
            number=number,
        )
        for number, task in enumerate(one_task_per_shard(before, settings))
    ]


def one_task_per_partition(
    before: Directory, settings: SettingsT, partitions: int
) -> list[PartitionedTask[SettingsT, tuple[ShardFile, ...]]]:
    """Returns one task for each partition, which reads its part of every file of `before`.

    The files are not `inputs`, whose hashes each ledger would repeat: a reader checks its part.
    """
    files = tuple(before.files())
    return [
        PartitionedTask(f"part-{number:05}", settings, files, partitions=partitions, number=number)
        for number in range(partitions)
    ]


def read_partition(files: Iterable[ShardFile], part: int) -> Iterator[tuple[int, Arrays | None]]:
    """(number of the file, its part) for each file, in their order."""
    for number, file in enumerate(files):
        yield number, unpack_arrays(read_shuffle_partition(file.path, part))


def write_shuffle_output(task: AnyTask, parts: Sequence[bytes], **extra: Any) -> Ledger:
    """Writes a task's file of parts, and then its ledger."""
    ledger = new_ledger(task)
    name = f"shards/{task.shard}.parts"
    ledger.files[name] = write_shuffle_file(task.out / name, parts)
    ledger.extra = extra
    ledger.write(task.out)
    return ledger
