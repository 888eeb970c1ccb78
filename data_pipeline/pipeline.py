"""The recipe, top to bottom: the steps of curation and what each of them reads.

    read -> clean -> deduplicate -> hold out -> decontaminate
         -> topics -> synthesize -> deduplicate -> decontaminate
         -> NLP tasks -> decontaminate -> bake

Each step is a folder of this package with a stage.py. A stage's directory is named by the hash of
everything that determines its result (execution/manifest.py), so a second run computes only what a
changed setting requires.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline import config
from data_pipeline.cleaning.repeated_lines_stage import find_repeated_lines
from data_pipeline.cleaning.stage import clean
from data_pipeline.config import Recipe
from data_pipeline.decontamination.stage import decontaminate, measure_recall, protect
from data_pipeline.deduplication.paragraphs_stage import remove_repeated_paragraphs
from data_pipeline.deduplication.stage import deduplicate
from data_pipeline.execution.local_engine import ExecutionEngine, LocalEngine
from data_pipeline.execution.manifest import Directory
from data_pipeline.execution.runner import Runner
from data_pipeline.held_out.stage import draw, hold_out, make_items, prompts
from data_pipeline.mixture.download import download_file, download_mixture
from data_pipeline.mixture.stage import bake
from data_pipeline.nlp_tasks.restructure_stage import restructure
from data_pipeline.nlp_tasks.stage import write_tasks
from data_pipeline.reading.stage import read
from data_pipeline.storage.object_store import storage_path
from data_pipeline.synthesis.stage import synthesize
from data_pipeline.topics.stage import find_topics
from data_pipeline.validate import validate


@dataclass(frozen=True, slots=True)
class Curated:
    """The results of curation, which training, evaluation and the report use."""

    mixture: Path  # a baked directory: mixture.json and the files that it lists
    held_out: Path  # the same for the held-out documents
    items: Path  # items.jsonl: multiple-choice items made from them
    prompts: list[dict[str, str]]  # {"source", "text"}: held-out documents to be continued
    directories: list[Directory]  # every stage, in order


def run(recipe: Recipe, folder: Path) -> Curated:
    """Checks the recipe, runs every stage that is not finished, and returns the results.

    Args:
      recipe: the settings.
      folder: where stages are written, unless `recipe.output` names a place, and where replies of
        teachers are cached.

    Raises:
      ValueError: a setting or an input cannot be used; the message is meant for the user.
      OSError: a file cannot be read or written.
    """
    replies = folder / "teacher"
    inputs = validate(recipe, replies)
    root = storage_path(recipe.output).resolve() if recipe.output else folder
    with engine_of(recipe) as engine:
        runner = Runner(root, engine)
        documents = read(recipe, runner, inputs)
        current = clean(recipe, runner, documents, find_repeated_lines(recipe, runner, documents))
        if recipe.dedup.enabled:
            current = deduplicate(recipe, runner, current)
        if recipe.repeated_paragraphs.enabled:
            current = remove_repeated_paragraphs(recipe, runner, current)
        candidates = draw(recipe, runner, current)
        held_out = hold_out(recipe, runner, candidates)
        items = make_items(recipe, runner, candidates, held_out)
        protected = protect(recipe, runner, held_out, items, candidates)

        def decontaminated(name: str, before: Directory) -> Directory:
            """Runs one of the stages that decontaminate."""
            return decontaminate(name, recipe, runner, before, held_out, protected)

        documents = decontaminated("decontaminate", current)
        if protected is not None:
            measure_recall(recipe, runner, current, held_out, protected)
        training = [documents]
        topics = None
        if recipe.topics.enabled:
            topics = find_topics(recipe, runner, documents, replies)
            if recipe.synthesis.enabled:
                synthetic = synthesize(recipe, runner, documents, topics, replies)
                if recipe.dedup.enabled:
                    synthetic = deduplicate(recipe, runner, synthetic, suffix="_synthetic")
                training.append(decontaminated("decontaminate_synthetic", synthetic))
        tasks = []
        if recipe.nlp_tasks.enabled:
            written = write_tasks(recipe, runner, training)
            tasks.append(decontaminated("decontaminate_tasks", written))
        if recipe.restructuring.enabled:
            written = restructure(recipe, runner, training, replies, topics)
            tasks.append(decontaminated("decontaminate_restructured", written))
        training += tasks
        return Curated(
            mixture=bake("bake", recipe, runner, training, recipe.mixtures),
            held_out=bake("bake_held_out", recipe, runner, [held_out], {}),
            items=items.file("items.jsonl").path,
            prompts=prompts(held_out),
            directories=runner.directories,
        )


def engine_of(recipe: Recipe) -> ExecutionEngine:
    """Returns the execution engine of a recipe."""
    if recipe.engine is config.EngineKind.BEAM:
        from data_pipeline.execution.beam_engine import BeamEngine

        return BeamEngine(recipe.beam_options)
    return LocalEngine(recipe.workers)


def local(curated: Curated, folder: Path) -> Curated:
    """Returns the results with the files for training and evaluation on this machine.

    Files in an object store are downloaded into `folder`.
    """
    return replace(
        curated,
        mixture=download_mixture(curated.mixture, folder),
        held_out=download_mixture(curated.held_out, folder),
        items=download_file(curated.items, folder / curated.items.parent.name / curated.items.name),
    )
