"""D3 without a teacher: tasks in natural language from the structure of documents."""

from __future__ import annotations

from dataclasses import replace

from data_pipeline.books import Books, documents_of
from data_pipeline.config import NlpTasks, Recipe, Tier
from data_pipeline.curation import nlp_tasks
from data_pipeline.manifest import Directory, Ledger
from data_pipeline.runner import Runner, Task, one_task_a_shard


def write_tasks(recipe: Recipe, runner: Runner, documents: Directory) -> Directory:
    """D3: tasks in natural language, from the documents that may be trained on."""
    tiers = {recipe.nlp_tasks.source: Tier.D3.value}
    if clash := tiers.keys() & documents.counts().keys():
        raise ValueError(f"nlp_tasks.source: {clash.pop()!r} is the name of another source too")
    return runner.stage(
        "nlp_tasks",
        write_tasks_of_shard,
        [
            replace(task, tiers=task.tiers | tiers)
            for task in one_task_a_shard(documents, recipe.nlp_tasks)
        ],
        config=recipe.nlp_tasks,
        inputs=[documents],
    )


def write_tasks_of_shard(task: Task) -> Ledger:
    """D3: tasks in natural language, made from the documents of D1 and D2."""
    config: NlpTasks = task.config
    make = nlp_tasks.build(config)
    with Books(task, "nlp_tasks") as books:
        for document in documents_of(task):
            if task.tiers[document.source] == Tier.D3.value:
                continue
            for made in make(document):
                books.came(made)
                books.settle(made)
    return books.ledger
