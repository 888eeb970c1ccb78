"""Boilerplate goes, then the rules of cleaning/rules.py, a document at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from data_pipeline.cleaning import repeated_lines, rules
from data_pipeline.cleaning.repeated_lines_stage import applies, load
from data_pipeline.config import Cleaning, Recipe, RepeatedLines
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner
from data_pipeline.execution.shard_output import ShardOutput, documents_of
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.storage.document import Document

EXAMPLES = 20  # removed lines of each source that a shard's ledger names: the most frequent ones


@dataclass(frozen=True, slots=True)
class CleanSettings:
    """The settings of a worker that cleans."""

    cleaning: Cleaning
    repeated_lines: RepeatedLines


@dataclass(frozen=True, slots=True)
class CleanInputs:
    """The files that a worker reads besides its shard: tables of boilerplate lines."""

    repeated_lines: tuple[ShardFile, ...] = ()


def clean(
    recipe: Recipe, runner: Runner, before: Directory, repeated: Directory | None = None
) -> Directory:
    """The rules of cleaning, a document at a time.

    `repeated`: which lines are boilerplate (cleaning/repeated_lines_stage.py); None takes none out.
    """
    settings = CleanSettings(recipe.cleaning, recipe.repeated_lines)
    side = CleanInputs(tuple(repeated.files()) if repeated is not None else ())
    return runner.stage(
        "clean",
        clean_shard,
        [task.with_side(side) for task in one_task_per_shard(before, settings)],
        config=settings if repeated is not None else recipe.cleaning,
        inputs=[before, *([repeated] if repeated is not None else [])],
    )


def clean_shard(task: Task[CleanSettings, CleanInputs]) -> Ledger:
    """Lines that were taken out are counted in `changed`; `extra` names the most frequent ones."""
    cleaning = task.settings.cleaning
    repeated = load(task.side.repeated_lines)
    decide_one = rules.build(cleaning)
    gone: dict[str, dict[str, int]] = {}  # source -> line -> documents of all shards that have it
    with ShardOutput(task, "clean") as output:
        for document in documents_of(task):
            output.count_input(document)
            table = repeated.get(document.source)
            if table and applies(document, task.settings.repeated_lines, cleaning.profiles):
                text, lines = repeated_lines.remove_repeated_lines(
                    document.text, table, document.source
                )
                if lines:
                    document = replace(document, text=text)
                    output.ledger.of(document.source).changed["repeated_line"] += len(lines)
                    gone.setdefault(document.source, {}).update(lines)
            answer = decide_one(document)
            if isinstance(answer, Document):
                changed = output.ledger.of(answer.source).changed
                changed.update(answer.meta.pop("replaced", {}))
            output.write(answer)
        if gone:
            output.ledger.extra = {
                "repeated_lines": {
                    source: sorted(found.items(), key=lambda i: (-i[1], i[0]))[:EXAMPLES]
                    for source, found in sorted(gone.items())
                }
            }
    return output.ledger
