"""D3 without a teacher: tasks in natural language from the structure of documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_pipeline.config import NlpTasks, Recipe, Tier
from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.execution.runner import Runner
from data_pipeline.execution.shard_output import Decision, ShardOutput, documents_of
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.mixture.tokenizer import open_tokenizer
from data_pipeline.nlp_tasks import from_structure
from data_pipeline.storage.document import Document, Dropped


@dataclass(frozen=True, slots=True)
class NlpTaskSettings:
    """The settings of a worker that writes tasks; `tokenizer` is a path, "" the demo's own."""

    nlp_tasks: NlpTasks
    tokenizer: str


def write_tasks(recipe: Recipe, runner: Runner, documents: Sequence[Directory]) -> Directory:
    """D3: tasks in natural language, from the documents that may be trained on."""
    source = recipe.nlp_tasks.source
    tiers = {source: Tier.D3.value}
    if any(source in directory.counts() for directory in documents):
        raise ValueError(f"nlp_tasks.source: {source!r} is the name of another source too")
    settings = NlpTaskSettings(recipe.nlp_tasks, recipe.baking.tokenizer)
    shards = [task for directory in documents for task in one_task_per_shard(directory, settings)]
    return runner.stage(
        "nlp_tasks",
        write_tasks_of_shard,
        [
            replace(task, shard=f"{source}-{number:05d}", tiers=task.tiers | tiers)
            for number, task in enumerate(shards)
        ],
        config=recipe.nlp_tasks,
        inputs=documents,
        extra=open_tokenizer(recipe.baking.tokenizer).sha256,
    )


def write_tasks_of_shard(task: Task[NlpTaskSettings, None]) -> Ledger:
    """D3: tasks in natural language, made from the documents of D1 and D2."""
    config = task.settings.nlp_tasks
    make = from_structure.build(config)
    encode = open_tokenizer(task.settings.tokenizer).encode
    kinds: dict[str, Counter[str]] = {}
    with ShardOutput(task, "nlp_tasks") as output:
        for document in documents_of(task):
            if task.tiers[document.source] == Tier.D3.value:
                continue
            for made in make(document):
                output.count_input(made)
                answer: Decision = made
                if (tokens := len(encode(made.text))) > config.max_tokens:
                    evidence = {"tokens": tokens, "max_tokens": config.max_tokens}
                    answer = Dropped(made, "too_many_tokens", evidence)
                output.write(answer)
                became = "kept" if isinstance(answer, Document) else answer.reason
                kinds.setdefault(made.meta["task"], Counter())[became] += 1
        output.ledger.extra["kinds"] = {kind: dict(kinds[kind]) for kind in sorted(kinds)}
    return output.ledger
