"""Whatever holds evaluation data goes; how much of it would be found is measured."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

from data_pipeline.books import (
    Answer,
    Decide,
    account_of,
    add_file,
    documents_of,
    ids_of,
    transform,
)
from data_pipeline.config import Benchmark, Decontamination, Recipe, Tier
from data_pipeline.decontamination import benchmarks, index, probe, rules
from data_pipeline.document import Document, Dropped
from data_pipeline.manifest import Directory, Ledger, ShardFile, file_sha256
from data_pipeline.runner import Runner, Task, all_in_one, one_task_a_shard


@dataclass(frozen=True, slots=True)
class Protected:
    """What must not be in the training data, and the index of its n-grams."""

    benchmarks: list[Benchmark]
    index: Directory


def protect(
    recipe: Recipe, runner: Runner, held_out: Directory, questions: Directory
) -> Protected | None:
    """Indexes all that is evaluated, once for each n; None where decontamination is off."""
    config = recipe.decontamination
    if not config.enabled:
        return None
    outside = [*config.benchmarks, *benchmarks.known(config.folder)]
    inside, files = [], []
    if config.held_out:
        (documents,) = held_out.files()
        made = questions.file("items.jsonl")
        files = [documents, made]
        # A document is long: some n-grams of it are a phrase, not a leak.
        whole = Benchmark("held_out_documents", str(documents.path), absolute_hits=False)
        inside = [whole, Benchmark("held_out_items", str(made.path))]
    made_index = runner.stage(
        "index",
        make_index,
        [
            Task(str(n), inputs=tuple(files), config=(config, [*outside, *inside], n))
            for n in sorted(set(config.ngram_words.values()))
        ],
        config=config,
        inputs=[held_out, questions],
        extra=[[benchmark.name, benchmarks.fingerprint(benchmark)] for benchmark in outside],
    )
    return Protected([*outside, *inside], made_index)


def make_index(task: Task) -> Ledger:
    """The n-grams of all benchmarks for one n, as a file that every worker loads."""
    config: Decontamination
    config, protected, n = task.config
    for file in task.inputs:
        file.verify()
    everything = [item for benchmark in protected for item in benchmarks.read(benchmark)]
    built = index.build_index(everything, n, config)
    path = task.out / "shards" / f"{task.shard}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    built.save(path)
    ledger = account_of(task)
    ledger.files[f"shards/{path.name}"] = file_sha256(path)
    ledger.extra = {
        "items": dict(Counter(item.benchmark for item in everything)),
        "unindexed": built.unindexed,
    }
    ledger.write(task.out)
    return ledger


@cache
def load_index(file: ShardFile) -> index.Index:
    """Checked and read once in a process: a worker looks through many shards with one index."""
    file.verify()
    return index.Index.load(file.path)


def measure_recall(
    recipe: Recipe, runner: Runner, before: Directory, held_out: Directory, protected: Protected
) -> Directory:
    """Plants leaks and counts those that the rules find, so that every run measures itself."""
    n = recipe.decontamination.ngram_words[Tier.D1.value]
    (kept_out,) = held_out.files()
    side = {"held_out": kept_out} | {file.name: file for file in protected.index.files()}
    task = all_in_one(before, (recipe.decontamination, protected.benchmarks, n))
    return runner.stage(
        "probe",
        measure,
        [replace(task, side=side)],
        config=recipe.decontamination,
        inputs=[before, held_out, protected.index],
    )


def measure(task: Task) -> Ledger:
    """probe.json: what share of planted leaks the rules of this run find."""
    config: Decontamination
    config, protected, n = task.config
    held_out = ids_of(task.side["held_out"])
    everything = [item for benchmark in protected for item in benchmarks.read(benchmark)]
    rest = (document for document in documents_of(task) if document.id not in held_out)
    found = probe.measure(everything, rest, config, load_index(task.side[str(n)]))
    ledger = account_of(task)
    add_file(ledger, task.out, "probe.json", json.dumps({"n": n} | found, indent=1))
    ledger.write(task.out)
    return ledger


def decontaminate(
    name: str,
    recipe: Recipe,
    runner: Runner,
    before: Directory,
    held_out: Directory,
    protected: Protected | None,
) -> Directory:
    """Without the held-out documents, and without documents that hold evaluation data."""
    (kept_out,) = held_out.files()
    side = {"held_out": kept_out}
    if protected is not None:
        side |= {file.name: file for file in protected.index.files()}
    return runner.stage(
        name,
        decontaminate_shard,
        [replace(task, side=side) for task in one_task_a_shard(before, recipe.decontamination)],
        config=recipe.decontamination,
        inputs=[before, held_out, *([protected.index] if protected is not None else [])],
    )


def decontaminate_shard(task: Task) -> Ledger:
    """Takes out the held-out documents, and whatever holds evaluation data.

    `task.side`: "held_out", and an index for each n, by its number of words.
    """
    config: Decontamination = task.config
    held_out = ids_of(task.side["held_out"])
    decide_by_n: dict[int, Decide] = {}

    def decide(documents: list[Document]) -> list[Answer]:
        answers: list[Answer] = [
            Dropped(document, "held_out") if document.id in held_out else document
            for document in documents
        ]
        if not config.enabled:
            return answers
        by_n: dict[int, list[int]] = {}
        for k, answer in enumerate(answers):
            if isinstance(answer, Document):
                by_n.setdefault(config.ngram_words[task.tiers[answer.source]], []).append(k)
        for n, rows in by_n.items():
            if n not in decide_by_n:
                decide_by_n[n] = rules.build(config, load_index(task.side[str(n)]))
            for k, answer in zip(rows, decide_by_n[n]([documents[k] for k in rows]), strict=True):
                answers[k] = answer
        return answers

    return transform(task, "decontaminate", decide)
