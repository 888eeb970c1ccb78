"""Raw input to documents."""

from __future__ import annotations

from collections import Counter

from data_pipeline.books import Books
from data_pipeline.config import Reading, Recipe, Source
from data_pipeline.curation import sources
from data_pipeline.document import Bad
from data_pipeline.manifest import Directory, Ledger
from data_pipeline.progress import console
from data_pipeline.runner import Runner, Task


def read(recipe: Recipe, runner: Runner) -> Directory:
    """Raw input -> documents."""
    inputs = [
        (source, shard)
        for source in recipe.sources
        if source.name or source.path  # else a place for a folder that was not given
        for shard in sources.partition(source, recipe.reading)
    ]
    names = Counter(shard.name for _, shard in inputs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f"two sources have one name: both would write shard {twice[0]!r}. Give one of them a "
            f"`name`, or rename a file or folder in their paths."
        )
    for source in recipe.sources:
        if ignored := sources.not_read(source):
            what = ", ".join(
                f"{count} {suffix or 'without ending'}" for suffix, count in ignored.items()
            )
            console.print(f"  {source.path}: files of other kinds are not read: {what}")
    return runner.stage(
        "read",
        read_shard,
        [
            Task(shard.name, config=(source, recipe.reading, shard), size=shard.bytes)
            for source, shard in inputs
        ],
        config=[recipe.sources, recipe.reading],
        inputs=[],
        extra=[[shard.name, shard.fingerprint] for _, shard in inputs],
    )


def read_shard(task: Task) -> Ledger:
    """Raw input to documents; what cannot be read is quarantined with its place and reason.

    Raises ValueError where more than `max_bad_fraction` of the shard's rows are bad.
    """
    source: Source
    reading: Reading
    source, reading, shard = task.config
    good = bad = 0
    with Books(task, "read") as books:
        for row in sources.read(shard, source, reading):
            if isinstance(row, Bad):
                bad += 1
                books.quarantine(row, shard.source)
            else:
                good += 1
                books.task.tiers[row.source] = source.tier.value
                books.came(row)
                books.settle(row)
        if bad > reading.max_bad_fraction * (good + bad):
            reasons = {r: n for c in books.ledger.sources.values() for r, n in c.bad.items()}
            raise ValueError(
                f"shard {task.shard}: {bad} of {good + bad} rows are bad ({reasons}), more than "
                f"the allowed share of {reading.max_bad_fraction:g}. Mend the input, leave files "
                f"out with the source's `exclude`, or raise "
                f"--config.data.reading.max_bad_fraction"
            )
    return books.ledger
