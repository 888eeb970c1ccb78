"""Which passages a teacher is inspired by: chosen over all documents, cut from each shard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from data_pipeline.config import Recipe, Synthesis, Tier
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile, canonical
from data_pipeline.execution.progress import console
from data_pipeline.execution.runner import Runner
from data_pipeline.execution.shard_output import ShardOutput, add_file, documents_of, new_ledger
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.storage.shards import read_rows
from data_pipeline.synthesis import prompts, seeds


@dataclass(frozen=True, slots=True)
class SeedInputs:
    """The file that a worker reads besides its shard: the chosen documents of the shard."""

    chosen: ShardFile


def source_of(config: Synthesis, category: str) -> str:
    return f"{config.source}_{category}"


def tiers_of(config: Synthesis) -> dict[str, str]:
    """The tier of every source that synthesis may make."""
    return {source_of(config, category): Tier.D2.value for category in config.weights}


def draw_seeds(
    recipe: Recipe, runner: Runner, documents: Directory, topics: Directory
) -> Directory:
    """Passages of documents of tier D1, as documents of the sources that they will become.

    Args:
      topics: the table of the documents' topics (topics/stage.py).

    Raises ValueError where a source has the name of one that synthesis makes.
    """
    config = recipe.synthesis
    tiers = documents.tiers()
    if clash := sorted({config.source, *tiers_of(config)} & tiers.keys()):
        raise ValueError(f"synthesis.source: {clash[0]!r} is the name of another source too")
    length = [config.min_passage_words, config.max_passage_words]
    chosen = runner.stage(
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
    (told,) = chosen.ledgers()
    for category, wanted in told.extra["quota"].items():
        if (found := told.extra["drawn"].get(category, 0)) < wanted:
            console.print(
                f"  synthesis: {category} has {found:,} of the {wanted:,} passages that it is to "
                f"give; more text has more, or synthesis.per_document > {config.per_document}"
            )
    return runner.stage(
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


def choose(task: Task[Synthesis, None]) -> Ledger:
    """For each shard of documents, shards/NAME.json: [[id, topic, category, passages], ...].

    The ledger's extra tells by category what was asked for ("quota"), what there is ("passages",
    an estimate) and what was drawn.
    """
    config = task.settings
    by_topic: Counter[seeds.CategoryTopic] = Counter()
    for candidate in _candidates(task):
        by_topic[candidate.category, candidate.topic] += candidate.passages
    there: Counter[str] = Counter()
    for (category, _), passages in by_topic.items():
        there[category] += passages
    quota = seeds.quotas(config.weights, there, config.documents)
    limit = seeds.topic_limits(by_topic, quota)
    drawn = seeds.draw(_candidates(task), limit, quota, config.seed)
    rows: dict[str, list[list[object]]] = {file.name: [] for file in task.inputs}
    found: Counter[str] = Counter()
    for one in drawn:
        rows[one.shard].append([one.document, one.topic, one.category, one.count])
        found[one.category] += one.count
    ledger = new_ledger(task)
    for shard, some in rows.items():
        add_file(ledger, task.out, f"shards/{shard}.json", canonical(some))
    ledger.extra = {
        "quota": quota,
        "passages": dict(sorted(there.items())),
        "drawn": dict(sorted(found.items())),
        "topics": len({one.topic for one in drawn}),
    }
    ledger.write(task.out)
    return ledger


def _candidates(task: Task[Synthesis, None]) -> Iterator[seeds.Candidate]:
    config = task.settings
    for file in task.inputs:
        with file.verified() as path:
            for row in read_rows(path):
                count = seeds.passages_in(row["characters"], config)
                if count and task.tiers[row["source"]] == Tier.D1.value:
                    category = prompts.category_of(row["category"], config.categories)
                    yield seeds.Candidate(row["id"], file.name, row["topic"], category, count)


def cut_from_shard(task: Task[Synthesis, SeedInputs]) -> Ledger:
    """The passages; the ledger's extra counts those that a document turned out not to have."""
    config = task.settings
    with task.side.chosen.verified() as path:
        rows = json.loads(path.read_text(encoding="utf-8"))
    drawn = {row[0]: seeds.SelectedDocument(row[0], task.shard, *row[1:]) for row in rows}
    missing: Counter[str] = Counter()
    with ShardOutput(task, "seeds") as output:
        for document in documents_of(task) if drawn else ():
            if one := drawn.pop(document.id, None):
                source = source_of(config, one.category)
                made = list(seeds.cut(document, one, source, config))
                missing[one.category] += one.count - len(made)
                for seed in made:
                    output.count_input(seed)
                    output.write(seed)
        output.ledger.extra = {"missing": dict(sorted((+missing).items()))}
    return output.ledger
