"""The unit of work of a stage: one shard, with everything that a worker needs to make it.

A stage defines the types of what its workers receive beside its functions, so that a worker reads
`task.settings.profiles` and `task.side.index`, and the type checker knows both:

    @dataclass(frozen=True, slots=True)
    class CleanInputs:
        repeated_lines: tuple[ShardFile, ...]

    def clean_shard(task: Task[CleanSettings, CleanInputs]) -> Ledger: ...

A stage whose workers need one section of the recipe, or no further files, uses the section itself
and None: `Task[HeldOut, None]`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from data_pipeline.execution.manifest import Directory, ShardFile

SettingsT = TypeVar("SettingsT")
SettingsT_co = TypeVar("SettingsT_co", covariant=True)
SideT = TypeVar("SideT")
SideT_co = TypeVar("SideT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Task(Generic[SettingsT_co, SideT_co]):
    """Everything that a worker needs to make one shard; picklable.

    Attributes:
      shard: name of the shard, unique in its stage.
      settings: the part of the recipe that the worker uses.
      side: files that are not read as documents: an index, a decision table, a model.
      out: directory of the stage; filled in by the runner.
      inputs: the files that the shard is made from; the ledger lists their hashes.
      tiers: the tier of each source.
      size: bytes that progress counts.
    """

    shard: str
    settings: SettingsT_co
    side: SideT_co
    out: Path = Path()
    inputs: tuple[ShardFile, ...] = ()
    tiers: dict[str, str] = field(default_factory=dict)
    size: int = 1

    def with_side(self, side: SideT) -> Task[SettingsT_co, SideT]:
        """Returns this task with other side files."""
        return Task(self.shard, self.settings, side, self.out, self.inputs, self.tiers, self.size)


AnyTask = Task[object, object]


def one_task_per_shard(before: Directory, settings: SettingsT) -> list[Task[SettingsT, None]]:
    """Returns one task for each shard of documents in `before`."""
    tiers = before.tiers()
    text_bytes = {
        ledger.shard: sum(counts.bytes_kept for counts in ledger.sources.values())
        for ledger in before.ledgers()
    }
    return [
        Task(
            file.name,
            settings,
            None,
            inputs=(file,),
            tiers=tiers,
            size=max(1, text_bytes[file.name]),
        )
        for file in before.files()
    ]


def one_task_for_all(before: Directory, settings: SettingsT) -> Task[SettingsT, None]:
    """Returns one task over all shards of `before`, for a decision over all documents at once."""
    return Task("all", settings, None, inputs=tuple(before.files()), tiers=before.tiers())
