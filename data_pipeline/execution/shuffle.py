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
from data_pipeline.execution.runner import Task, one_task_a_shard
from data_pipeline.execution.shard_output import account_of
from data_pipeline.execution.shuffle_file import Arrays, read_part, unpack, write_parts


@dataclass(frozen=True, slots=True)
class Setting:
    """What a worker knows besides its files; `number` is that of its shard or partition."""

    config: Any
    partitions: int
    sources: tuple[str, ...]  # in the order of the recipe, the most wanted first
    number: int = 0

    @property
    def shard_class(self) -> int:
        return self.number % self.partitions


def size_of_text(directory: Directory) -> int:
    """Bytes of UTF-8."""
    return sum(counts.bytes_kept for counts in directory.counts().values())


def numbered_tasks(before: Directory, setting: Setting) -> list[Task]:
    """A task for each shard of documents in `before`, which knows the shard's number."""
    return [
        replace(task, config=replace(setting, number=number))
        for number, task in enumerate(one_task_a_shard(before, None))
    ]


def task_a_partition(before: Directory, setting: Setting) -> list[Task]:
    """A task for each partition, which reads its part of every file of `before`.

    The files are no `inputs`, whose hashes each ledger would repeat: a reader checks its part.
    """
    files = by_name(before)
    return [
        Task(f"part-{number:05}", config=replace(setting, number=number), side=files)
        for number in range(setting.partitions)
    ]


def by_name(directory: Directory) -> dict[str, ShardFile]:
    return {file.name: file for file in directory.files()}


def parts_of(files: Iterable[ShardFile], part: int) -> Iterator[tuple[int, Arrays | None]]:
    """(number of the file, its part) for each file, in their order."""
    for number, file in enumerate(files):
        yield number, unpack(read_part(file.path, part))


def sign_off(task: Task, parts: Sequence[bytes], **extra: Any) -> Ledger:
    """Writes a task's file of parts, and then its ledger."""
    ledger = account_of(task)
    name = f"shards/{task.shard}.parts"
    ledger.files[name] = write_parts(task.out / name, parts)
    ledger.extra = extra
    ledger.write(task.out)
    return ledger
