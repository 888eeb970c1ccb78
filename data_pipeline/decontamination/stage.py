"""Whatever holds evaluation data goes; how much of it would be found is measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from data_pipeline.config import Benchmark, Decontamination, Recipe, Tier
from data_pipeline.decontamination import (
    benchmarks,
    cut_spans,
    index,
    lengths,
    paraphrases,
    planted_leaks,
    rules,
)
from data_pipeline.decontamination.benchmarks import BenchmarkItem
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile, file_sha256
from data_pipeline.execution.progress import console
from data_pipeline.execution.runner import Runner, Task, one_task_for_all, one_task_per_shard
from data_pipeline.execution.shard_output import (
    Decide,
    Decision,
    ShardOutput,
    add_file,
    chunks,
    documents_in,
    documents_of,
    ids_of,
    new_ledger,
)
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text import shared_ngrams

PARAPHRASES = "paraphrases"  # the index of the paraphrase rule, by the name of its shard
EXAMPLES = 12  # of passages that were cut, in a ledger
DOCUMENTS, ITEMS = "held_out_documents", "held_out_items"  # benchmarks of a run's own


@dataclass(frozen=True, slots=True)
class Protected:
    """What must not be in the training data, and the index of its n-grams.

    `made`: by name, the files of the held-out documents and of the items made from them.
    """

    benchmarks: list[Benchmark]
    made: dict[str, ShardFile]
    index: Directory


def check_benchmarks(recipe: Recipe) -> None:
    """Settings that make no sense and benchmarks that are not there: before any work.

    Raises ValueError.
    """
    config = recipe.decontamination.resolved()
    if not config.enabled:
        return
    tiers = {tier.value for tier in Tier}
    if missing := tiers - set(config.ngram_words):
        raise ValueError(
            f"decontamination.ngram_words: nothing for {', '.join(sorted(missing))}; expected n "
            f"for each tier, and for single sources where they differ"
        )
    for n in sorted(set(config.ngram_words.values())):
        index.check(n, config)
    lengths.check(config.max_tokens, tiers)
    if config.cut_spans.enabled:
        cut_spans.check(config.cut_spans)
    if config.paraphrases.enabled:
        paraphrases.check(config.paraphrases)
    for benchmark in [*config.benchmarks, *benchmarks.find_benchmarks(config.folder)]:
        benchmarks.check(benchmark)


def protect(
    recipe: Recipe, runner: Runner, held_out: Directory, questions: Directory, sample: Directory
) -> Protected | None:
    """Indexes all that is evaluated, once for each n; None where decontamination is off.

    `sample`: documents of all sources, which tell what a held-out document has from a template.
    """
    config = recipe.decontamination.resolved()
    if not config.enabled:
        return None
    outside = [*config.benchmarks, *benchmarks.find_benchmarks(config.folder)]
    if missing := benchmarks.unprotected(outside):
        where = config.folder or "decontamination.folder, which is not set"
        console.print(f"  [yellow]not protected:[/] {', '.join(missing)} (not in {where})")
    made: dict[str, ShardFile] = {}
    if config.held_out:
        (documents,) = held_out.files()
        made = {DOCUMENTS: documents, ITEMS: questions.file("items.jsonl")}
    side = made | {f"sample/{file.name}": file for file in sample.files() if config.held_out}
    names = [str(n) for n in sorted(set(config.ngram_words.values()))]
    if config.paraphrases.enabled:
        names.append(PARAPHRASES)
    made_index = runner.stage(
        "index",
        make_index,
        [Task(name, side=side, config=(config, outside)) for name in names],
        config=config,
        inputs=[held_out, questions, sample],
        extra=[[benchmark.name, benchmarks.fingerprint(benchmark)] for benchmark in outside],
    )
    return Protected(outside, made, made_index)


def items_of(outside: list[Benchmark], made: Mapping[str, ShardFile]) -> Iterator[BenchmarkItem]:
    """The items of all benchmarks, of a run's own last."""
    for benchmark in outside:
        yield from benchmarks.read_items(benchmark)
    for name in (DOCUMENTS, ITEMS):
        if name in made:
            with made[name].verified() as path:
                # A document is long: some n-grams of it are a phrase, not a leak.
                yield from benchmarks.read_items(
                    Benchmark(name, str(path), absolute_hits=name != DOCUMENTS)
                )


def make_index(task: Task) -> Ledger:
    """The n-grams of all benchmarks for one n, as a file that every worker loads."""
    config: Decontamination
    config, outside = task.config
    everything = list(items_of(outside, task.side))
    path = task.out / "shards" / f"{task.shard}.npz"
    ledger = new_ledger(task)
    ledger.extra = {"items": dict(Counter(item.benchmark for item in everything))}
    if task.shard == PARAPHRASES:
        paraphrases.build_index(everything, config.paraphrases).save(path)
    else:
        n = int(task.shard)
        sample = [file for name, file in sorted(task.side.items()) if name.startswith("sample/")]
        templates = {
            m: shared_ngrams.shared_ngrams(documents_in(sample), m)
            for m in {n, config.item_ngram_words}
        }
        built = index.build_index(everything, n, config, templates)
        built.save(path)
        ledger.extra["unindexed"] = built.unindexed
    ledger.files[f"shards/{path.name}"] = file_sha256(path)
    ledger.write(task.out)
    return ledger


@cache
def load_index(file: ShardFile) -> index.NgramIndex:
    """Checked and read once in a process: a worker looks through many shards with one index."""
    with file.verified() as path:
        return index.NgramIndex.load(path)


@cache
def load_paraphrase_index(file: ShardFile) -> paraphrases.ParaphraseIndex:
    """As `load_index`."""
    with file.verified() as path:
        return paraphrases.ParaphraseIndex.load(path)


def measure_recall(
    recipe: Recipe, runner: Runner, before: Directory, held_out: Directory, protected: Protected
) -> Directory:
    """Plants leaks and counts those that the rules find, so that every run measures itself."""
    config = recipe.decontamination.resolved()
    (kept_out,) = held_out.files()
    side = {"held_out": kept_out} | protected.made
    side |= {file.name: file for file in protected.index.files()}
    task = one_task_for_all(before, (config, protected.benchmarks))
    return runner.stage(
        "probe",
        measure,
        [replace(task, side=side)],
        config=config,
        inputs=[before, held_out, protected.index],
    )


def measure(task: Task) -> Ledger:
    """probe.json: what share of planted leaks the rules of this run find."""
    config: Decontamination
    config, outside = task.config
    n = config.ngram_words[Tier.D1.value]
    held_out = ids_of(task.side["held_out"])
    found = planted_leaks.measure_recall(
        items_of(outside, task.side),
        (document for document in documents_of(task) if document.id not in held_out),
        config,
        load_index(task.side[str(n)]),
        paraphrase_index=_paraphrase_index(task),
        paraphrases=[
            item for benchmark in outside for item in benchmarks.read_paraphrases(benchmark)
        ],
    )
    ledger = new_ledger(task)
    add_file(ledger, task.out, "probe.json", json.dumps({"n": n} | found, indent=1))
    ledger.write(task.out)
    return ledger


def _paraphrase_index(task: Task) -> paraphrases.ParaphraseIndex | None:
    file = task.side.get(PARAPHRASES)
    return load_paraphrase_index(file) if file is not None else None


def decontaminate(
    name: str,
    recipe: Recipe,
    runner: Runner,
    before: Directory,
    held_out: Directory,
    protected: Protected | None,
) -> Directory:
    """Without the held-out documents, and without documents that hold evaluation data."""
    config = recipe.decontamination.resolved()
    (kept_out,) = held_out.files()
    side = {"held_out": kept_out}
    if protected is not None:
        side |= {file.name: file for file in protected.index.files()}
    tokenizer = recipe.baking.tokenizer
    return runner.stage(
        name,
        decontaminate_shard,
        [replace(task, side=side) for task in one_task_per_shard(before, (config, tokenizer))],
        config=[config, tokenizer],
        inputs=[before, held_out, *([protected.index] if protected is not None else [])],
    )


def decontaminate_shard(task: Task) -> Ledger:
    """Takes out held-out documents, those that are too long, and whatever holds evaluation data.

    `task.side`: "held_out", and an index for each n, by its number of words.
    """
    config: Decontamination
    config, tokenizer = task.config
    held_out = ids_of(task.side["held_out"])
    decide_by_n: dict[int, Decide] = {}

    def first(document: Document) -> Decision:
        if document.id in held_out:
            return Dropped(document, "held_out")
        most = config.max_tokens.get(task.tiers[document.source], 0) if config.enabled else 0
        return lengths.too_long(document, most, tokenizer) or document

    def decide(documents: list[Document]) -> list[Decision]:
        answers = [first(document) for document in documents]
        if not config.enabled:
            return answers
        by_n: dict[int, list[int]] = {}
        for k, answer in enumerate(answers):
            if isinstance(answer, Document):
                source = answer.source
                n = config.ngram_words.get(source, config.ngram_words[task.tiers[source]])
                by_n.setdefault(n, []).append(k)
        for n, rows in by_n.items():
            if n not in decide_by_n:
                decide_by_n[n] = _decide(task, config, n)
            for k, answer in zip(rows, decide_by_n[n]([documents[k] for k in rows]), strict=True):
                answers[k] = answer
        return answers

    cut: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    with ShardOutput(task, "decontaminate") as output:
        for chunk in chunks(documents_of(task)):
            for document in chunk:
                output.count_input(document)
            for document, answer in zip(chunk, decide(chunk), strict=True):
                if isinstance(answer, Document) and answer is not document:
                    found = answer.meta["cut_spans"]
                    output.ledger.of(answer.source).changed["cut_span"] += len(found)
                    cut.update(evidence["benchmark"] for evidence in found)
                    examples += [{"document": answer.id} | evidence for evidence in found]
                output.write(answer)
        if cut:
            output.ledger.extra = {"cut": dict(cut), "examples": examples[:EXAMPLES]}
    return output.ledger


def _decide(task: Task, config: Decontamination, n: int) -> Decide:
    ngram_index, paraphrase_index = load_index(task.side[str(n)]), _paraphrase_index(task)
    if config.cut_spans.enabled:
        find = rules.build_find(config, ngram_index, paraphrase_index)
        return cut_spans.build_decide(config.cut_spans, find)
    return rules.build_decide(config, ngram_index, paraphrase_index)
