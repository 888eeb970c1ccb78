"""Tasks of a shuffle: a decision over all documents, divided among workers by a hash.

A worker reads its partition of the files of all shards, or writes a file with a part for every
partition (shuffle_file.py). Results for shards are written by class: shard k is in class
k mod P for P partitions. So a worker writes P parts, however many shards there are.
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

Files = tuple[ShardFile, ...]  # one file per shard or partition of an earlier stage, in its order


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
    """Returns the bytes of all texts in UTF-8."""
    return sum(counts.bytes_kept for counts in directory.counts().values())


def one_numbered_task_per_shard(
    before: Directory, settings: SettingsT, partitions: int
) -> list[PartitionedTask[SettingsT, None]]:
    """Returns one task for each shard of documents, with the shard's number.

    Args:
      before: a directory of shards of documents.
      settings: the settings of each task.
      partitions: number of partitions of the shuffle.
    """
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
    """Returns one task for each partition, which reads its part of every file.

    The files are not `inputs`, whose hashes each ledger would repeat: a reader verifies its part.

    Args:
      before: a directory of shuffle files.
      settings: the settings of each task.
      partitions: number of partitions of the shuffle.
    """
    files = tuple(before.files())
    return [
        PartitionedTask(f"part-{number:05}", settings, files, partitions=partitions, number=number)
        for number in range(partitions)
    ]


def read_partition(files: Iterable[ShardFile], part: int) -> Iterator[tuple[int, Arrays | None]]:
    """Yields (number of the file, its arrays in partition `part`) for each file, in their order.

    The arrays are None if the partition of a file is empty.
    """
    for number, file in enumerate(files):
        yield number, unpack_arrays(read_shuffle_partition(file.path, part))


def write_shuffle_output(task: AnyTask, parts: Sequence[bytes], **extra: Any) -> Ledger:
    """Writes the shuffle file of a task, then its ledger.

    Args:
      task: the task.
      parts: the content of each partition.
      **extra: numbers for the ledger.

    Returns:
      The ledger.
    """
    ledger = new_ledger(task)
    name = f"shards/{task.shard}.parts"
    ledger.files[name] = write_shuffle_file(task.out / name, parts)
    ledger.extra = extra
    ledger.write(task.out)
    return ledger
