"""The rules of curation/clean.py, a document at a time."""

from __future__ import annotations

from data_pipeline.books import Books, documents_of
from data_pipeline.config import Cleaning, Recipe
from data_pipeline.curation import clean as rules
from data_pipeline.document import Document
from data_pipeline.manifest import Directory, Ledger
from data_pipeline.runner import Runner, Task, one_task_a_shard


def clean(recipe: Recipe, runner: Runner, before: Directory) -> Directory:
    """The rules of clean.py, a document at a time."""
    return runner.stage(
        "clean",
        clean_shard,
        one_task_a_shard(before, recipe.cleaning),
        config=recipe.cleaning,
        inputs=[before],
    )


def clean_shard(task: Task) -> Ledger:
    config: Cleaning = task.config
    decide_one = rules.build(config)
    with Books(task, "clean") as books:
        for document in documents_of(task):
            books.came(document)
            answer = decide_one(document)
            if isinstance(answer, Document):
                changed = books.ledger.of(answer.source).changed
                changed.update(answer.meta.pop("replaced", {}))
            books.settle(answer)
    return books.ledger
