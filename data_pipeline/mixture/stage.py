"""The stages that bake: they pack the documents of each source and describe the mixture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.config import Baking, Recipe, Source, Tier
from data_pipeline.execution.code_version import code_version
from data_pipeline.execution.manifest import Directory, Ledger, digest
from data_pipeline.execution.progress import console
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import documents_of, new_ledger
from data_pipeline.execution.task import Task
from data_pipeline.mixture import bake as baking
from data_pipeline.mixture.tokenizer import open_tokenizer
from data_pipeline.mixture.weights import resolve_weights, table
from data_pipeline.storage.shards import numbered


@dataclass(frozen=True, slots=True)
class BakeSettings:
    """Settings of a task that bakes documents of one source."""

    baking: Baking
    source: str


def bake(
    name: str,
    recipe: Recipe,
    runner: Runner,
    documents: Sequence[Directory],
    mixtures: dict[str, dict[str, float]],
) -> Path:
    """Bakes the documents of each source and writes the mixture over them.

    Args:
      name: the stage, "bake" or "bake_held_out".
      recipe: its fields `baking`, `budgets` and `allow_missing` apply.
      runner: runs the stage.
      documents: directories of shards, whose sources are disjoint.
      mixtures: name -> {source or tier: weight}; {} for held-out documents.

    Returns:
      The folder of mixture.json.
    """
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
                        numbered(source, number, len(parts)),
                        BakeSettings(recipe.baking, source),
                        None,
                        inputs=tuple(file for file, _ in shards[part.start : part.stop]),
                        size=sum(size for _, size in shards[part.start : part.stop]),
                    )
                )
    baked = runner.run(
        StageSpec(
            name,
            bake_shards,
            tasks,
            config=recipe.baking,
            inputs=documents,
            extra=open_tokenizer(recipe.baking.tokenizer).sha256,
        )
    )
    folder = "held_out_mixture" if name == "bake_held_out" else "mixture"
    return mix(folder, recipe, runner, documents, baked, mixtures)


def bake_shards(task: Task[BakeSettings, None]) -> Ledger:
    """Bakes one part of one source."""
    config, source = task.settings.baking, task.settings.source
    documents = (document for document in documents_of(task) if document.source == source)
    part = baking.bake_part(task.shard, source, documents, task.out / "shards", config)
    ledger = new_ledger(task)
    ledger.files = {
        f"shards/{part.file}": part.sha256,
        f"shards/{part.spans}": part.spans_sha256,
        f"shards/{part.tfrecord}": part.tfrecord_sha256,
    }
    ledger.extra = dataclasses.asdict(part)
    ledger.write(task.out)
    return ledger


def mix(
    name: str,
    recipe: Recipe,
    runner: Runner,
    documents: Sequence[Directory],
    baked: Directory,
    mixtures: dict[str, dict[str, float]],
) -> Path:
    """Writes mixture.json over baked files and prints weights and epochs.

    It lies in a folder of its own, so that changed weights bake nothing again.

    Args:
      name: beginning of the folder's name, which ends in an address.
      recipe: its fields `budgets` and `allow_missing` apply.
      runner: knows the root folder and the stages so far.
      documents: directories of shards that were baked.
      baked: the baked files.
      mixtures: name -> {source or tier: weight}.

    Returns:
      The folder of mixture.json.
    """
    lost = _lost(runner, documents) if mixtures else {}
    address = digest([baked.address, mixtures, lost, code_version(__name__)])
    path = runner.root / f"{name}-{address[:12]}"
    if not (path / "mixture.json").exists():
        _write(path, recipe, documents, baked, mixtures, lost)
    rows = json.loads((path / "mixture.json").read_text(encoding="utf-8"))["sources"]
    resolved = resolve_weights(mixtures, rows, allow_missing=recipe.allow_missing, note=_print_line)
    for line in table(resolved, rows, recipe.budgets):
        _print_line(line)
    return path


def _print_line(line: str) -> None:
    console.print(f"  {line}", markup=False)


def _lost(runner: Runner, documents: Sequence[Directory]) -> dict[str, str]:
    """Returns {source: tier} of sources all of whose documents were dropped."""
    left = {name for directory in documents for name in directory.counts()}
    return {
        name: tier
        for directory in runner.directories
        for name, tier in directory.tiers().items()
        if tier and name not in left
    }


def _category(name: str, recipe: Recipe) -> str:
    """Returns the category of a source of the recipe, or of one that the recipe generates."""
    named = {source.name: source.category for source in recipe.sources}
    if name in (recipe.nlp_tasks.source, recipe.restructuring.source):
        return "tasks"
    return named.get(name) or name.removeprefix(f"{recipe.synthesis.source}_")


def _write(
    path: Path,
    recipe: Recipe,
    documents: Sequence[Directory],
    baked: Directory,
    mixtures: dict[str, dict[str, float]],
    lost: dict[str, str],
) -> None:
    """Writes mixture.json, whose files are relative paths into the folder of the stage "bake"."""
    tiers = [pair for directory in documents for pair in directory.tiers().items()]
    sources = [
        Source(name, _category(name, recipe), tier=Tier(tier))
        for name, tier in [*tiers, *lost.items()]
        if tier
    ]
    relative = f"../{baked.path.name}/shards"
    parts = []
    for ledger in baked.ledgers():
        part = baking.BakedPart(**ledger.extra)
        for key in ("file", "spans", "tfrecord"):
            setattr(part, key, f"{relative}/{getattr(part, key)}")
        parts.append(part)
    path.mkdir(parents=True, exist_ok=True)
    baking.write_manifest(
        path,
        sources,
        parts,
        mixtures,
        recipe.baking,
        allow_missing=recipe.allow_missing,
        note=lambda _: None,  # `mix` prints the notes
    )
