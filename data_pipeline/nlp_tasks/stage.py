"""Tasks from the structure of documents, without a teacher (tier D3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_pipeline.config import NlpTasks, Recipe, Tier
from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import Decision, ShardOutput, documents_of
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.mixture.tokenizer import open_tokenizer
from data_pipeline.nlp_tasks import from_structure
from data_pipeline.storage.document import Document, Dropped


@dataclass(frozen=True, slots=True)
class NlpTaskSettings:
    """The settings of a worker that writes tasks; `tokenizer` is a path, "" Mistral's."""

    nlp_tasks: NlpTasks
    tokenizer: str


def write_tasks(recipe: Recipe, runner: Runner, documents: Sequence[Directory]) -> Directory:
    """Returns the tasks that rules write from the training documents.

    Args:
      recipe: the recipe.
      runner: runs the stage.
      documents: the decontaminated documents of tiers D1 and D2.

    Raises:
      ValueError: the documents already have a source with the name of the tasks' source.
    """
    source = recipe.nlp_tasks.source
    tiers = {source: Tier.D3.value}
    if any(source in directory.counts() for directory in documents):
        raise ValueError(
            f"nlp_tasks.source: got {source!r}, but documents already have a source of this name; "
            "choose another name"
        )
    settings = NlpTaskSettings(recipe.nlp_tasks, recipe.baking.tokenizer)
    shards = [task for directory in documents for task in one_task_per_shard(directory, settings)]
    return runner.run(
        StageSpec(
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
    )


def write_tasks_of_shard(task: Task[NlpTaskSettings, None]) -> Ledger:
    """Writes the tasks of a shard; those with too many tokens are dropped.

    The ledger's extra counts the tasks by kind and by what became of them: "kept" or a reason.
    """
    config = task.settings.nlp_tasks
    make = from_structure.build(config)
    encode = open_tokenizer(task.settings.tokenizer).encode
    kinds: dict[str, Counter[str]] = {}
    with ShardOutput(task, "nlp_tasks") as output:
        for document in documents_of(task):
            if task.tiers[document.source] == Tier.D3.value:
                continue
            for nlp_task in make(document):
                output.count_input(nlp_task)
                decision: Decision = nlp_task
                if (tokens := len(encode(nlp_task.text))) > config.max_tokens:
                    evidence = {"tokens": tokens, "max_tokens": config.max_tokens}
                    decision = Dropped(nlp_task, "too_many_tokens", evidence)
                output.write(decision)
                outcome = "kept" if isinstance(decision, Document) else decision.reason
                kinds.setdefault(nlp_task.meta["task"], Counter())[outcome] += 1
        output.ledger.extra["kinds"] = {kind: dict(kinds[kind]) for kind in sorted(kinds)}
    return output.ledger
