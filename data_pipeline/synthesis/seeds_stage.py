"""Selection of seeds: documents are chosen over all shards, then passages are cut per shard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from data_pipeline.config import Recipe, Synthesis, Tier
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile, canonical
from data_pipeline.execution.progress import console
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import ShardOutput, add_file, documents_of, new_ledger
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.storage.shards import read_rows
from data_pipeline.synthesis import prompts, seeds


@dataclass(frozen=True, slots=True)
class SeedInputs:
    """The file that a worker reads besides its shard: the chosen documents of the shard."""

    chosen: ShardFile


def source_of(config: Synthesis, category: str) -> str:
    """Returns the source of the synthetic texts of a category."""
    return f"{config.source}_{category}"


def tiers_of(config: Synthesis) -> dict[str, str]:
    """Returns the tier of every source that synthesis can write."""
    return {source_of(config, category): Tier.D2.value for category in config.weights}


def draw_seeds(
    recipe: Recipe, runner: Runner, documents: Directory, topics: Directory
) -> Directory:
    """Returns passages of documents of tier D1, with the sources of the texts to be written.

    Args:
      recipe: the recipe.
      runner: runs the stages.
      documents: the decontaminated documents.
      topics: the table of the documents' topics (topics/stage.py).

    Raises:
      ValueError: a source of the documents has the name of a source that synthesis writes.
    """
    config = recipe.synthesis
    tiers = documents.tiers()
    if clash := sorted({config.source, *tiers_of(config)} & tiers.keys()):
        raise ValueError(
            f"synthesis.source: got {config.source!r}, but documents already have a source "
            f"{clash[0]!r}; choose another name"
        )
    length = [config.min_passage_words, config.max_passage_words]
    chosen = runner.run(
        StageSpec(
            "choose_seeds",
            choose,
            [Task("all", config, None, inputs=tuple(topics.files()), tiers=tiers)],
            config=[
                config.documents,
                config.weights,
                config.categories,
                config.per_document,
                length,
                config.seed,
            ],
            inputs=[topics],
        )
    )
    (ledger,) = chosen.ledgers()
    for category, quota in ledger.extra["quota"].items():
        if (available := ledger.extra["drawn"].get(category, 0)) < quota:
            console.print(
                f"  synthesis: {category} provides {available:,} of {quota:,} passages; add text "
                f"or increase synthesis.per_document={config.per_document}"
            )
    return runner.run(
        StageSpec(
            "seeds",
            cut_from_shard,
            [
                replace(task, tiers=task.tiers | tiers_of(config)).with_side(
                    SeedInputs(chosen.file(f"shards/{task.shard}.json"))
                )
                for task in one_task_per_shard(documents, config)
            ],
            config=[config.source, length, config.seed],
            inputs=[documents, chosen],
        )
    )


def choose(task: Task[Synthesis, None]) -> Ledger:
    """Writes shards/NAME.json for each shard of documents: [[id, topic, category, seeds], ...].

    The ledger's extra has, by category, the requested number of seeds ("quota"), an estimate of
    the available passages ("passages"), and the number of selected seeds ("drawn").
    """
    config = task.settings
    by_topic: Counter[seeds.CategoryTopic] = Counter()
    for candidate in _candidates(task):
        by_topic[candidate.category, candidate.topic] += candidate.passages
    available: Counter[str] = Counter()  # passages by category
    for (category, _), passages in by_topic.items():
        available[category] += passages
    quota = seeds.quotas(config.weights, available, config.documents)
    limit = seeds.topic_limits(by_topic, quota)
    selected = seeds.draw(_candidates(task), limit, quota, config.seed)
    rows_of: dict[str, list[list[object]]] = {file.name: [] for file in task.inputs}
    drawn: Counter[str] = Counter()  # seeds by category
    for one in selected:
        rows_of[one.shard].append([one.document, one.topic, one.category, one.count])
        drawn[one.category] += one.count
    ledger = new_ledger(task)
    for shard, rows in rows_of.items():
        add_file(ledger, task.out, f"shards/{shard}.json", canonical(rows))
    ledger.extra = {
        "quota": quota,
        "passages": dict(sorted(available.items())),
        "drawn": dict(sorted(drawn.items())),
        "topics": len({one.topic for one in selected}),
    }
    ledger.write(task.out)
    return ledger


def _candidates(task: Task[Synthesis, None]) -> Iterator[seeds.Candidate]:
    """Yields the documents of tier D1 that are long enough, from the tables of topics."""
    config = task.settings
    for file in task.inputs:
        with file.verified() as path:
            for row in read_rows(path):
                count = seeds.passages_in(row["characters"], config)
                if count and task.tiers[row["source"]] == Tier.D1.value:
                    category = prompts.category_of(row["category"], config.categories)
                    yield seeds.Candidate(row["id"], file.name, row["topic"], category, count)


def cut_from_shard(task: Task[Synthesis, SeedInputs]) -> Ledger:
    """Writes the passages of the selected documents.

    The ledger's extra counts the seeds that the estimate promised and a document did not have.
    """
    config = task.settings
    with task.side.chosen.verified() as path:
        rows = json.loads(path.read_text(encoding="utf-8"))
    selected = {row[0]: seeds.SelectedDocument(row[0], task.shard, *row[1:]) for row in rows}
    missing: Counter[str] = Counter()
    with ShardOutput(task, "seeds") as output:
        for document in documents_of(task) if selected else ():
            if one := selected.pop(document.id, None):
                source = source_of(config, one.category)
                passages = list(seeds.cut(document, one, source, config))
                missing[one.category] += one.count - len(passages)
                for seed in passages:
                    output.count_input(seed)
                    output.write(seed)
        output.ledger.extra = {"missing": dict(sorted((+missing).items()))}
    return output.ledger
