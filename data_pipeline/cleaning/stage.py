"""The stage "clean": removes repeated lines, then applies the cleaning rules to each document."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.cleaning import repeated_lines, rules
from data_pipeline.cleaning.repeated_lines_stage import load_repeated_lines, uses_repeated_lines
from data_pipeline.config import C4, Cleaning, Recipe, RepeatedLines
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile, file_sha256
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import ShardOutput, documents_of
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.storage.document import Document

MAX_EXAMPLES = 20  # of removed lines of each source in a shard's ledger: the most frequent ones


@dataclass(frozen=True, slots=True)
class CleanSettings:
    """The settings of a task that cleans a shard."""

    cleaning: Cleaning
    repeated_lines: RepeatedLines


@dataclass(frozen=True, slots=True)
class CleanInputs:
    """The files that a task reads besides its shard: tables of boilerplate lines."""

    repeated_lines: tuple[ShardFile, ...] = ()


def clean(
    recipe: Recipe, runner: Runner, before: Directory, repeated: Directory | None = None
) -> Directory:
    """Runs the stage "clean".

    Args:
      recipe: the recipe.
      runner: runs the stage.
      before: the documents.
      repeated: the stage "repeated_lines"; None to remove no lines.
    """
    settings = CleanSettings(recipe.cleaning, recipe.repeated_lines)
    side = CleanInputs(tuple(repeated.files()) if repeated is not None else ())
    bad_words = [
        file_sha256(Path(rules.bad_words))
        for rules in recipe.cleaning.rule_sets
        if isinstance(rules, C4) and rules.bad_words
    ]
    return runner.run(
        StageSpec(
            "clean",
            clean_shard,
            [task.with_side(side) for task in one_task_per_shard(before, settings)],
            config=settings if repeated is not None else recipe.cleaning,
            inputs=[before, *([repeated] if repeated is not None else [])],
            extra=bad_words or None,
        )
    )


def clean_shard(task: Task[CleanSettings, CleanInputs]) -> Ledger:
    """Cleans the documents of a shard.

    The ledger counts removed lines and replacements in `changed`, and lists the most frequent
    removed lines in `extra`.
    """
    cleaning = task.settings.cleaning
    repeated = load_repeated_lines(task.side.repeated_lines)
    clean_document = rules.build(cleaning)
    # source -> removed line -> number of documents that contain it, in all shards
    removed: dict[str, dict[str, int]] = {}
    with ShardOutput(task, "clean") as output:
        for document in documents_of(task):
            output.count_input(document)
            table = repeated.get(document.source)
            if table and uses_repeated_lines(
                document, task.settings.repeated_lines, cleaning.profiles
            ):
                text, lines = repeated_lines.remove_repeated_lines(
                    document.text, table, document.source
                )
                if lines:
                    document = replace(document, text=text)
                    output.ledger.of(document.source).changed["repeated_line"] += len(lines)
                    removed.setdefault(document.source, {}).update(lines)
            result = clean_document(document)
            if isinstance(result, Document):
                changed = output.ledger.of(result.source).changed
                changed.update(result.meta.pop("replaced", {}))
            output.write(result)
        if removed:
            output.ledger.extra = {
                "repeated_lines": {
                    source: sorted(counts.items(), key=lambda i: (-i[1], i[0]))[:MAX_EXAMPLES]
                    for source, counts in sorted(removed.items())
                }
            }
    return output.ledger
