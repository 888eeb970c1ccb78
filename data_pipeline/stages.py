"""The recipe, top to bottom: which stages run, on what, and what each depends on.

    read -> clean -> deduplicate -> hold out -> decontaminate -> NLP tasks -> decontaminate -> bake

Each stage's directory is named by the hash of all that made it (manifest.py), so running again does
only what a changed setting makes necessary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline import manifest, shard_work, shards
from data_pipeline.config import Benchmark, Recipe, Source, Tier
from data_pipeline.curation import clean, dedup, items, nlp_tasks, sources
from data_pipeline.decontamination import benchmarks, index, probe, rules
from data_pipeline.engine import LocalEngine
from data_pipeline.manifest import Directory
from data_pipeline.mixture import bake as baking
from data_pipeline.mixture.tokenizer import Tokenizer
from data_pipeline.progress import console
from data_pipeline.provenance import code_version
from data_pipeline.runner import Runner, Task
from data_pipeline.shards import read_shard


@dataclass(frozen=True, slots=True)
class Curated:
    """Where the data is: what main.py hands to training, evaluation and the report."""

    mixture: Path  # a baked directory: mixture.json, and what it lists
    held_out: Path  # the same for the held-out documents
    items: Path  # items.jsonl, multiple-choice items made from them
    prompts: list[dict[str, str]]  # {"source", "text"}: held-out documents to be continued
    directories: list[Directory]  # every stage, in order


def run(recipe: Recipe, root: Path) -> Curated:
    """Runs every stage whose result is not there yet; says where the results are.

    Raises ValueError or OSError, in words for the user, for input that cannot be used.
    """
    with LocalEngine(recipe.workers) as engine:
        runner = Runner(root, engine)
        current = clean_documents(recipe, runner, read(recipe, runner))
        if recipe.dedup.enabled:
            current = deduplicate(recipe, runner, current)
        candidates = draw(recipe, runner, current)
        held_out = hold_out(recipe, runner, candidates)
        questions = make_items(recipe, runner, candidates, held_out)
        protected = protect(recipe, runner, held_out, questions)
        documents = decontaminate("decontaminate", recipe, runner, current, held_out, protected)
        if protected is not None:
            measure_recall(recipe, runner, current, held_out, protected)
        training = [documents]
        if recipe.nlp_tasks.enabled:
            made = write_tasks(recipe, runner, documents)
            training.append(
                decontaminate("decontaminate_tasks", recipe, runner, made, held_out, protected)
            )
        return Curated(
            mixture=bake("bake", recipe, runner, training, recipe.mixtures),
            held_out=bake("bake_held_out", recipe, runner, [held_out], {}),
            items=questions.file("items.jsonl").path,
            prompts=prompts(held_out),
            directories=runner.directories,
        )


def read(recipe: Recipe, runner: Runner) -> Directory:
    """Raw input -> documents."""
    inputs = [
        (source, shard)
        for source in recipe.sources
        if source.name or source.path  # else a place for a folder that was not given
        for shard in sources.partition(source, recipe.reading)
    ]
    names = Counter(shard.name for _, shard in inputs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f"two sources have one name: both would write shard {twice[0]!r}. Give one of them a "
            f"`name`, or rename a file or folder in their paths."
        )
    for source in recipe.sources:
        if ignored := sources.not_read(source):
            what = ", ".join(
                f"{count} {suffix or 'without ending'}" for suffix, count in ignored.items()
            )
            console.print(f"  {source.path}: files of other kinds are not read: {what}")
    return runner.stage(
        "read",
        shard_work.read,
        [
            Task(shard.name, config=(source, recipe.reading, shard), size=shard.bytes)
            for source, shard in inputs
        ],
        config=[recipe.sources, recipe.reading],
        inputs=[],
        modules=[sources],
        extra=[[shard.name, shard.fingerprint] for _, shard in inputs],
    )


def clean_documents(recipe: Recipe, runner: Runner, before: Directory) -> Directory:
    """The rules of clean.py, a document at a time."""
    return runner.stage(
        "clean",
        shard_work.cleaning,
        one_task_a_shard(before, recipe.cleaning),
        config=recipe.cleaning,
        inputs=[before],
        modules=[clean],
    )


def deduplicate(recipe: Recipe, runner: Runner, before: Directory) -> Directory:
    """Signatures of each shard, decisions over all of them, then each shard again."""
    signatures = runner.stage(
        "signatures",
        shard_work.signatures,
        one_task_a_shard(before, recipe.dedup),
        config=recipe.dedup,
        inputs=[before],
        modules=[dedup],
    )
    source_order = list(before.counts())  # as they first came: the recipe's order
    documents = {file.name: file for file in before.files()}
    duplicates = runner.stage(
        "duplicates",
        shard_work.duplicates,
        [
            Task(
                "all",
                inputs=tuple(signatures.files()),
                config=(recipe.dedup, source_order),
                side=documents,
            )
        ],
        config=[recipe.dedup, source_order],
        inputs=[before, signatures],
        modules=[dedup],
    )
    return runner.stage(
        "deduplicate",
        shard_work.deduplicate,
        [
            replace(task, side={"decisions": duplicates.file(f"shards/{task.shard}.json")})
            for task in one_task_a_shard(before, recipe.dedup)
        ],
        config=None,
        inputs=[before, duplicates],
        modules=[dedup],
    )


def draw(recipe: Recipe, runner: Runner, before: Directory) -> Directory:
    """Documents that may be held out, by a hash of their ids: a sample of all."""
    return runner.stage(
        "candidates",
        shard_work.candidates,
        one_task_a_shard(before, recipe.held_out),
        config=recipe.held_out,
        inputs=[before],
        modules=[shards],
    )


def hold_out(recipe: Recipe, runner: Runner, candidates: Directory) -> Directory:
    """The documents that evaluation is made of: so many of each source."""
    return runner.stage(
        "held_out",
        shard_work.held_out,
        [all_in_one(candidates, recipe.held_out)],
        config=recipe.held_out,
        inputs=[candidates],
        modules=[shards],
    )


def make_items(
    recipe: Recipe, runner: Runner, candidates: Directory, held_out: Directory
) -> Directory:
    """Multiple-choice items from the held-out documents."""
    side = {file.name: file for file in candidates.files()}
    return runner.stage(
        "items",
        shard_work.make_items,
        [replace(all_in_one(held_out, recipe.held_out), side=side)],
        config=recipe.held_out,
        inputs=[held_out, candidates],
        modules=[items],
    )


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
        shard_work.make_index,
        [
            Task(str(n), inputs=tuple(files), config=(config, [*outside, *inside], n))
            for n in sorted(set(config.ngram_words.values()))
        ],
        config=config,
        inputs=[held_out, questions],
        modules=[index, benchmarks],
        extra=[[benchmark.name, benchmarks.fingerprint(benchmark)] for benchmark in outside],
    )
    return Protected([*outside, *inside], made_index)


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
        shard_work.measure,
        [replace(task, side=side)],
        config=recipe.decontamination,
        inputs=[before, held_out, protected.index],
        modules=[probe],
    )


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
        shard_work.decontaminate,
        [replace(task, side=side) for task in one_task_a_shard(before, recipe.decontamination)],
        config=recipe.decontamination,
        inputs=[before, held_out, *([protected.index] if protected is not None else [])],
        modules=[rules],
    )


def write_tasks(recipe: Recipe, runner: Runner, documents: Directory) -> Directory:
    """D3: tasks in natural language, from the documents that may be trained on."""
    tiers = {recipe.nlp_tasks.source: Tier.D3.value}
    if clash := tiers.keys() & documents.counts().keys():
        raise ValueError(f"nlp_tasks.source: {clash.pop()!r} is the name of another source too")
    return runner.stage(
        "nlp_tasks",
        shard_work.write_tasks,
        [
            replace(task, tiers=task.tiers | tiers)
            for task in one_task_a_shard(documents, recipe.nlp_tasks)
        ],
        config=recipe.nlp_tasks,
        inputs=[documents],
        modules=[nlp_tasks],
    )


def bake(
    name: str,
    recipe: Recipe,
    runner: Runner,
    documents: Sequence[Directory],
    mixtures: dict[str, dict[str, float]],
) -> Path:
    """Each source's documents as TFRecord, packed rows and spans, some shards to a part."""
    tasks = []
    for directory in documents:
        for source in directory.counts():
            shards = [
                (file, ledger.sources[source].bytes_kept)
                for file, ledger in zip(directory.files(), directory.ledgers(), strict=True)
                if source in ledger.sources and ledger.sources[source].kept
            ]
            parts = baking.group([size for _, size in shards], recipe.baking.part_bytes)
            for number, part in enumerate(parts):
                tasks.append(
                    Task(
                        f"{source}-{number:05d}",
                        inputs=tuple(file for file, _ in shards[part.start : part.stop]),
                        config=(recipe.baking, source),
                        size=sum(size for _, size in shards[part.start : part.stop]),
                    )
                )
    baked = runner.stage(
        name,
        shard_work.bake,
        tasks,
        config=recipe.baking,
        inputs=documents,
        modules=[baking],
        extra=Tokenizer(recipe.baking.tokenizer).sha256,
    )
    return mix(recipe, runner, documents, baked, mixtures)


def mix(
    recipe: Recipe,
    runner: Runner,
    documents: Sequence[Directory],
    baked: Directory,
    mixtures: dict[str, dict[str, float]],
) -> Path:
    """mixture.json over what is baked; in a folder of its own, so that new weights bake nothing."""
    address = manifest.digest([baked.address, mixtures, code_version([baking])])
    path = runner.root / f"mixture-{address[:12]}"
    if (path / "mixture.json").exists():
        return path
    named = {source.name: source for source in recipe.sources}
    sources = [
        Source(name, named[name].category if name in named else name, tier=Tier(counts.tier))
        for directory in documents
        for name, counts in directory.counts().items()
    ]
    relative = f"../{baked.path.name}/shards"
    parts = []
    for ledger in baked.ledgers():
        part = baking.Part(**ledger.extra)
        for key in ("file", "spans", "tfrecord"):
            setattr(part, key, f"{relative}/{getattr(part, key)}")
        parts.append(part)
    path.mkdir(parents=True, exist_ok=True)
    baking.write_manifest(path, sources, parts, mixtures, recipe.baking)
    return path


def prompts(held_out: Directory) -> list[dict[str, str]]:
    """The held-out documents, whose first words a trained model is to continue."""
    (file,) = held_out.files()
    return [{"source": d.source, "text": d.text} for d in read_shard(file.path)]


def one_task_a_shard(before: Directory, config: object) -> list[Task]:
    """A task for each shard of documents in `before`."""
    tiers = before.tiers()
    return [
        Task(
            file.name,
            inputs=(file,),
            config=config,
            tiers=tiers,
            size=file.path.stat().st_size,
        )
        for file in before.files()
    ]


def all_in_one(before: Directory, config: object) -> Task:
    """One task over all shards of `before`, for what is decided over all documents at once."""
    return Task("all", inputs=tuple(before.files()), config=config, tiers=before.tiers())
