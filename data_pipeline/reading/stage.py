"""The stage "read": converts raw input to documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_pipeline.config import Reading, Recipe, Source
from data_pipeline.config_problems import Problems
from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import ShardOutput
from data_pipeline.execution.task import Task
from data_pipeline.reading import sources
from data_pipeline.reading.check import check
from data_pipeline.reading.input_shards import InputShard
from data_pipeline.storage.document import BadInput


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """The settings of a task that reads: a shard of input and how it is converted to documents."""

    source: Source
    reading: Reading
    shard: InputShard


def read(
    recipe: Recipe, runner: Runner, inputs: Sequence[tuple[Source, InputShard]] | None = None
) -> Directory:
    """Reads raw input into documents.

    Args:
      recipe: `sources`, `reading` and `allow_missing` are used.
      runner: runs the stage.
      inputs: the input shards of all sources, if `reading.check` has listed them already.

    Raises:
      ValueError: a source cannot be used, or too many rows of a shard are bad.
    """
    if inputs is None:
        problems = Problems("config.data")
        inputs = check(recipe, problems)
        problems.raise_if_any()
    directory = runner.run(
        StageSpec(
            "read",
            read_shard,
            [
                Task(
                    shard.name, ReadSettings(source, recipe.reading, shard), None, size=shard.bytes
                )
                for source, shard in inputs
            ],
            # `obtain` does not affect the documents of a source.
            config=[[replace(source, obtain="") for source in recipe.sources], recipe.reading],
            inputs=[],
            extra=[[shard.name, shard.fingerprint] for _, shard in inputs],
            list_all_failures=True,
        )
    )
    _check_tiers(directory)
    return directory


def _check_tiers(directory: Directory) -> None:
    """Raises ValueError if rows of two tiers name the same source; a source has one tier."""
    first: dict[str, tuple[str, str]] = {}  # source -> its tier in the first shard, that shard
    for ledger in directory.ledgers():
        for name, counts in ledger.sources.items():
            if not counts.tier:  # all rows of the source are bad
                continue
            tier, shard = first.setdefault(name, (counts.tier, ledger.shard))
            if tier != counts.tier:
                raise ValueError(
                    f"source {name!r} has tier {tier} in shard {shard} and tier {counts.tier} in "
                    f"shard {ledger.shard}: rows of both shards name it. Give one of the recipe's "
                    "sources a `name`, or set its `source_field` to another field"
                )


def read_shard(task: Task[ReadSettings, None]) -> Ledger:
    """Writes the documents of a shard; bad input is quarantined with its location and reason.

    Raises:
      ValueError: more than `max_bad_fraction` of the shard's rows are bad.
    """
    source, reading, shard = task.settings.source, task.settings.reading, task.settings.shard
    num_good = num_bad = 0
    with ShardOutput(task, "read") as output:
        for row in sources.read(shard, source, reading):
            if isinstance(row, BadInput):
                num_bad += 1
                output.quarantine(row, shard.source)
            else:
                num_good += 1
                output.task.tiers[row.source] = source.tier.value
                output.count_input(row)
                output.write(row)
        if num_bad > reading.max_bad_fraction * (num_good + num_bad):
            reasons = {r: n for c in output.ledger.sources.values() for r, n in c.bad.items()}
            raise ValueError(
                f"shard {task.shard}: {num_bad} of {num_good + num_bad} rows are bad ({reasons}), "
                f"more than the allowed share of {reading.max_bad_fraction:g}. Repair the input, "
                f"exclude files with the source's `exclude`, or raise "
                f"--config.data.reading.max_bad_fraction"
            )
    return output.ledger
