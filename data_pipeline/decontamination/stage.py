"""Whatever holds evaluation data goes; how much of it would be found is measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from data_pipeline.execution.runner import Runner
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
from data_pipeline.execution.task import Task, one_task_for_all, one_task_per_shard
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text import shared_ngrams

PARAPHRASES = "paraphrases"  # the index of the paraphrase rule, by the name of its shard
EXAMPLES = 12  # of passages that were cut, in a ledger
DOCUMENTS, ITEMS = "held_out_documents", "held_out_items"  # benchmarks of a run's own


@dataclass(frozen=True, slots=True)
class OwnItems:
    """Files of the evaluation data that a run makes itself."""

    documents: ShardFile  # the held-out documents
    items: ShardFile  # items.jsonl: multiple-choice items made from them


@dataclass(frozen=True, slots=True)
class Protected:
    """What must not be in the training data, and the index of its n-grams.

    `own`: None where the recipe does not protect its own held-out data.
    """

    benchmarks: tuple[Benchmark, ...]
    own: OwnItems | None
    index: Directory


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """The settings of a worker that builds one index of all benchmarks.

    `ngram_words`: words of an n-gram, or None for the index of the paraphrase rule.
    """

    decontamination: Decontamination
    benchmarks: tuple[Benchmark, ...]
    ngram_words: int | None


@dataclass(frozen=True, slots=True)
class IndexInputs:
    """The files that a worker indexes; `sample`: documents that show which n-grams are common."""

    own: OwnItems | None
    sample: tuple[ShardFile, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexFiles:
    """The files of a finished index."""

    by_ngram_words: dict[int, ShardFile]
    paraphrases: ShardFile | None = None

    @classmethod
    def of(cls, index: Directory) -> IndexFiles:
        """Returns the files of the stage "index"."""
        files = {file.name: file for file in index.files()}
        paraphrase_index = files.pop(PARAPHRASES, None)
        return cls({int(name): file for name, file in files.items()}, paraphrase_index)


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """The settings of the worker that measures recall."""

    decontamination: Decontamination
    benchmarks: tuple[Benchmark, ...]


@dataclass(frozen=True, slots=True)
class ProbeInputs:
    """The files that the worker which measures recall reads besides the documents."""

    held_out: ShardFile
    own: OwnItems | None
    index: IndexFiles


@dataclass(frozen=True, slots=True)
class DecontaminationSettings:
    """The settings of a worker that decontaminates; `tokenizer` counts tokens."""

    decontamination: Decontamination
    tokenizer: str


@dataclass(frozen=True, slots=True)
class DecontaminationInputs:
    """The files that a worker reads besides its shard; no `index` where decontamination is off."""

    held_out: ShardFile
    index: IndexFiles | None


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
    outside = (*config.benchmarks, *benchmarks.find_benchmarks(config.folder))
    if missing := benchmarks.unprotected(outside):
        where = config.folder or "decontamination.folder, which is not set"
        console.print(f"  [yellow]not protected:[/] {', '.join(missing)} (not in {where})")
    side = IndexInputs(None)
    if config.held_out:
        (documents,) = held_out.files()
        own = OwnItems(documents, questions.file("items.jsonl"))
        side = IndexInputs(own, tuple(sorted(sample.files(), key=lambda file: file.name)))
    sizes: list[int | None] = [*sorted(set(config.ngram_words.values()))]
    if config.paraphrases.enabled:
        sizes.append(None)
    made_index = runner.stage(
        "index",
        make_index,
        [
            Task(PARAPHRASES if n is None else str(n), IndexSettings(config, outside, n), side)
            for n in sizes
        ],
        config=config,
        inputs=[held_out, questions, sample],
        extra=[[benchmark.name, benchmarks.fingerprint(benchmark)] for benchmark in outside],
    )
    return Protected(outside, side.own, made_index)


def items_of(outside: Sequence[Benchmark], own: OwnItems | None) -> Iterator[BenchmarkItem]:
    """The items of all benchmarks, of a run's own last."""
    for benchmark in outside:
        yield from benchmarks.read_items(benchmark)
    if own is not None:
        for name, file in ((DOCUMENTS, own.documents), (ITEMS, own.items)):
            with file.verified() as path:
                # A document is long: some n-grams of it are a phrase, not a leak.
                yield from benchmarks.read_items(
                    Benchmark(name, str(path), absolute_hits=name != DOCUMENTS)
                )


def make_index(task: Task[IndexSettings, IndexInputs]) -> Ledger:
    """The n-grams of all benchmarks for one n, as a file that every worker loads."""
    config, n = task.settings.decontamination, task.settings.ngram_words
    everything = list(items_of(task.settings.benchmarks, task.side.own))
    path = task.out / "shards" / f"{task.shard}.npz"
    ledger = new_ledger(task)
    ledger.extra = {"items": dict(Counter(item.benchmark for item in everything))}
    if n is None:
        paraphrases.build_index(everything, config.paraphrases).save(path)
    else:
        templates = {
            m: shared_ngrams.shared_ngrams(documents_in(task.side.sample), m)
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
    side = ProbeInputs(kept_out, protected.own, IndexFiles.of(protected.index))
    task = one_task_for_all(before, ProbeSettings(config, protected.benchmarks))
    return runner.stage(
        "probe",
        measure,
        [task.with_side(side)],
        config=config,
        inputs=[before, held_out, protected.index],
    )


def measure(task: Task[ProbeSettings, ProbeInputs]) -> Ledger:
    """probe.json: what share of planted leaks the rules of this run find."""
    config, outside = task.settings.decontamination, task.settings.benchmarks
    n = config.ngram_words[Tier.D1.value]
    held_out = ids_of(task.side.held_out)
    found = planted_leaks.measure_recall(
        items_of(outside, task.side.own),
        (document for document in documents_of(task) if document.id not in held_out),
        config,
        load_index(task.side.index.by_ngram_words[n]),
        paraphrase_index=_paraphrase_index(task.side.index),
        paraphrases=[
            item for benchmark in outside for item in benchmarks.read_paraphrases(benchmark)
        ],
    )
    ledger = new_ledger(task)
    add_file(ledger, task.out, "probe.json", json.dumps({"n": n} | found, indent=1))
    ledger.write(task.out)
    return ledger


def _paraphrase_index(files: IndexFiles) -> paraphrases.ParaphraseIndex | None:
    return load_paraphrase_index(files.paraphrases) if files.paraphrases is not None else None


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
    side = DecontaminationInputs(
        kept_out, IndexFiles.of(protected.index) if protected is not None else None
    )
    settings = DecontaminationSettings(config, recipe.baking.tokenizer)
    return runner.stage(
        name,
        decontaminate_shard,
        [task.with_side(side) for task in one_task_per_shard(before, settings)],
        config=[config, settings.tokenizer],
        inputs=[before, held_out, *([protected.index] if protected is not None else [])],
    )


def decontaminate_shard(
    task: Task[DecontaminationSettings, DecontaminationInputs],
) -> Ledger:
    """Takes out held-out documents, those that are too long, and whatever holds evaluation data."""
    config, tokenizer = task.settings.decontamination, task.settings.tokenizer
    held_out = ids_of(task.side.held_out)
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
        assert task.side.index is not None, "decontamination is on and has no index"
        by_n: dict[int, list[int]] = {}
        for k, answer in enumerate(answers):
            if isinstance(answer, Document):
                source = answer.source
                n = config.ngram_words.get(source, config.ngram_words[task.tiers[source]])
                by_n.setdefault(n, []).append(k)
        for n, rows in by_n.items():
            if n not in decide_by_n:
                decide_by_n[n] = _decide(config, task.side.index, n)
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


def _decide(config: Decontamination, files: IndexFiles, n: int) -> Decide:
    ngram_index = load_index(files.by_ngram_words[n])
    paraphrase_index = _paraphrase_index(files)
    if config.cut_spans.enabled:
        find = rules.build_find(config, ngram_index, paraphrase_index)
        return cut_spans.build_decide(config.cut_spans, find)
    return rules.build_decide(config, ngram_index, paraphrase_index)
