"""The stages that drop evaluation data from documents and measure recall on planted leaks.

    stage          one task per  writes
    index          n             the n-grams of all benchmarks
    decontaminate  shard         its documents without evaluation data
    probe          (one task)    probe.json: recall on planted leaks

Synthetic documents and tasks are decontaminated too, in stages whose names begin with
"decontaminate". decontamination/rules.py describes the rules.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.config import Benchmark, Decontamination, Recipe, Tier
from data_pipeline.decontamination import (
    benchmarks,
    contaminated_items,
    index,
    paraphrases,
    planted_leaks,
)
from data_pipeline.decontamination.benchmarks import (
    HELD_OUT_DOCUMENTS,
    HELD_OUT_ITEMS,
    BenchmarkItem,
)
from data_pipeline.decontamination.decider import Decider, cut_evidence
from data_pipeline.decontamination.index_files import PARAPHRASES, IndexFiles
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.progress import console
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import (
    ShardOutput,
    add_file,
    chunks,
    documents_in,
    documents_of,
    ids_of,
    new_ledger,
)
from data_pipeline.execution.task import Task, one_task_for_all, one_task_per_shard
from data_pipeline.storage.document import Document
from data_pipeline.text import shared_ngrams

MAX_EXAMPLES = 12  # of passages that were cut, in a ledger


@dataclass(frozen=True, slots=True)
class OwnItems:
    """Files of the evaluation data that a run makes itself."""

    documents: ShardFile  # the held-out documents
    items: ShardFile  # items.jsonl: multiple-choice items made from them


@dataclass(frozen=True, slots=True)
class Protected:
    """The evaluation data that must not be in the training data, and the index of its n-grams.

    `own`: None if the recipe does not protect its own held-out data.
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
    """The files that a worker indexes.

    `sample`: documents of all sources, which show the n-grams that many documents share.
    """

    own: OwnItems | None
    sample: tuple[ShardFile, ...] = ()


@dataclass(frozen=True, slots=True)
class RecallSettings:
    """The settings of the worker that measures recall."""

    decontamination: Decontamination
    benchmarks: tuple[Benchmark, ...]


@dataclass(frozen=True, slots=True)
class RecallInputs:
    """The files that the worker that measures recall reads besides the documents."""

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
    """The files that a worker reads besides its shard; `index`: None if decontamination is off."""

    held_out: ShardFile
    index: IndexFiles | None


def protect(
    recipe: Recipe, runner: Runner, held_out: Directory, questions: Directory, sample: Directory
) -> Protected | None:
    """Runs the stage that indexes all evaluation data, once for each n.

    Args:
      recipe: its section `decontamination`.
      runner: runs the stage.
      held_out: the held-out documents.
      questions: the multiple-choice items that were made from them.
      sample: documents of all sources, which show the n-grams that many documents share: a held-out
        document has them from a template.

    Returns:
      None if decontamination is off.
    """
    config = recipe.decontamination.resolved()
    if not config.enabled:
        return None
    all_benchmarks = (*config.benchmarks, *benchmarks.find_benchmarks(config.folder))
    if missing := benchmarks.unprotected(all_benchmarks):
        folder = config.folder or "decontamination.folder, which is not set"
        console.print(
            f"  [yellow]not decontaminated against:[/] {', '.join(missing)} (not in {folder})"
        )
    side = IndexInputs(None)
    if config.held_out:
        (documents,) = held_out.files()
        own = OwnItems(documents, questions.file("items.jsonl"))
        side = IndexInputs(own, tuple(sorted(sample.files(), key=lambda file: file.name)))
    sizes: list[int | None] = [*sorted(set(config.ngram_words.values()))]
    if config.paraphrases.enabled:
        sizes.append(None)
    directory = runner.run(
        StageSpec(
            "index",
            make_index,
            [
                Task(
                    PARAPHRASES if n is None else str(n),
                    IndexSettings(config, all_benchmarks, n),
                    side,
                )
                for n in sizes
            ],
            config=config,
            inputs=[held_out, questions, sample],
            extra=[
                [benchmark.name, benchmarks.fingerprint(benchmark)] for benchmark in all_benchmarks
            ],
        )
    )
    return Protected(all_benchmarks, side.own, directory)


def read_all_items(
    all_benchmarks: Sequence[Benchmark], own: OwnItems | None
) -> Iterator[BenchmarkItem]:
    """Yields the items of all benchmarks, those that the run made itself last."""
    for benchmark in all_benchmarks:
        yield from benchmarks.read_items(benchmark)
    if own is not None:
        for name, file in ((HELD_OUT_DOCUMENTS, own.documents), (HELD_OUT_ITEMS, own.items)):
            with file.verified() as path:
                # A document is long: some of its n-grams occur elsewhere without a leak.
                absolute_hits = name != HELD_OUT_DOCUMENTS
                yield from benchmarks.read_items(Benchmark(name, str(path), (), absolute_hits))


def make_index(task: Task[IndexSettings, IndexInputs]) -> Ledger:
    """Writes the index of all benchmarks for one n, or that of the paraphrase rule."""
    config, n = task.settings.decontamination, task.settings.ngram_words
    items = list(read_all_items(task.settings.benchmarks, task.side.own))
    path = task.out / "shards" / f"{task.shard}.npz"
    ledger = new_ledger(task)
    ledger.extra = {"items": dict(Counter(item.benchmark for item in items))}
    if n is None:
        sha256 = paraphrases.build_index(items, config.paraphrases).save(path)
    else:
        templates = {
            m: shared_ngrams.shared_ngrams(documents_in(task.side.sample), m)
            for m in {n, config.item_ngram_words}
        }
        ngram_index = index.build_index(items, n, config, templates)
        sha256 = ngram_index.save(path)
        ledger.extra["unindexed"] = ngram_index.unindexed
    ledger.files[f"shards/{path.name}"] = sha256
    ledger.write(task.out)
    return ledger


def measure_recall(
    recipe: Recipe, runner: Runner, before: Directory, held_out: Directory, protected: Protected
) -> Directory:
    """Runs the stage that measures recall on planted leaks and false positives.

    Args:
      recipe: its section `decontamination`.
      runner: runs the stage.
      before: the documents as they enter decontamination; leaks are planted in their text.
      held_out: the held-out documents, which are left out.
      protected: the evaluation data and its index.
    """
    config = recipe.decontamination.resolved()
    (held_out_file,) = held_out.files()
    side = RecallInputs(held_out_file, protected.own, IndexFiles.of(protected.index))
    task = one_task_for_all(before, RecallSettings(config, protected.benchmarks))
    return runner.run(
        StageSpec(
            "probe",
            measure,
            [task.with_side(side)],
            config=config,
            inputs=[before, held_out, protected.index],
        )
    )


def measure(task: Task[RecallSettings, RecallInputs]) -> Ledger:
    """Writes probe.json: the share of planted leaks that the rules of this run find."""
    config, all_benchmarks = task.settings.decontamination, task.settings.benchmarks
    n = config.ngram_words[Tier.D1.value]
    held_out_ids = ids_of(task.side.held_out)
    measured = planted_leaks.measure_recall(
        read_all_items(all_benchmarks, task.side.own),
        (document for document in documents_of(task) if document.id not in held_out_ids),
        config,
        task.side.index.load_ngrams(n),
        paraphrase_index=task.side.index.load_paraphrases(),
        paraphrases=[
            item for benchmark in all_benchmarks for item in benchmarks.read_paraphrases(benchmark)
        ],
    )
    ledger = new_ledger(task)
    add_file(ledger, task.out, "probe.json", json.dumps({"n": n} | measured, indent=1))
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
    """Runs a stage that drops held-out, too long and contaminated documents.

    Args:
      name: the name of the stage; it begins with "decontaminate".
      recipe: its sections `decontamination` and `baking`.
      runner: runs the stage.
      before: the documents.
      held_out: the held-out documents.
      protected: the evaluation data and its index; None if decontamination is off.
    """
    config = recipe.decontamination.resolved()
    (held_out_file,) = held_out.files()
    side = DecontaminationInputs(
        held_out_file, IndexFiles.of(protected.index) if protected is not None else None
    )
    settings = DecontaminationSettings(config, recipe.baking.tokenizer)
    return runner.run(
        StageSpec(
            name,
            decontaminate_shard,
            [task.with_side(side) for task in one_task_per_shard(before, settings)],
            config=[config, settings.tokenizer],
            inputs=[before, held_out, *([protected.index] if protected is not None else [])],
        )
    )


def decontaminate_shard(
    task: Task[DecontaminationSettings, DecontaminationInputs],
) -> Ledger:
    """Writes a shard without held-out, too long and contaminated documents.

    Writes the items that contaminated documents contained into contaminated/SHARD.jsonl, if
    decontamination is on.
    """
    config = task.settings.decontamination
    decider = Decider(
        config,
        task.side.index,
        held_out_ids=ids_of(task.side.held_out),
        tiers=task.tiers,
        tokenizer=task.settings.tokenizer,
    )
    num_cut: Counter[str] = Counter()  # passages, by benchmark
    examples: list[dict[str, Any]] = []
    with ShardOutput(task, "decontaminate") as output:
        for chunk in chunks(documents_of(task)):
            for document in chunk:
                output.count_input(document)
            for document, decision in zip(chunk, decider.decide(chunk), strict=True):
                output.write(decision)
                if isinstance(decision, Document) and (cut := cut_evidence(document, decision)):
                    output.ledger.of(document.source).changed["cut_span"] += len(cut)
                    num_cut.update(evidence["benchmark"] for evidence in cut)
                    examples += [{"document": document.id} | evidence for evidence in cut]
        if num_cut:
            output.ledger.extra = {"cut": dict(num_cut), "examples": examples[:MAX_EXAMPLES]}
        if config.enabled:
            name = f"{contaminated_items.FOLDER}/{task.shard}.jsonl"
            add_file(output.ledger, task.out, name, decider.items.to_jsonl())
    return output.ledger
