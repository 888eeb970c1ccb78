"""The recipe, top to bottom: which steps run, and on what.

    read -> clean -> deduplicate -> hold out -> decontaminate
         -> topics -> synthesize -> deduplicate -> decontaminate
         -> tasks -> decontaminate -> bake

Each step is a file in steps/. A stage's directory is named by the hash of all that made it
(manifest.py), so running again does only what a changed setting makes necessary.
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
    """Where the data is: what main.py hands to training, evaluation and the report."""

    mixture: Path  # a baked directory: mixture.json, and what it lists
    held_out: Path  # the same for the held-out documents
    items: Path  # items.jsonl, multiple-choice items made from them
    prompts: list[dict[str, str]]  # {"source", "text"}: held-out documents to be continued
    directories: list[Directory]  # every stage, in order


def run(recipe: Recipe, folder: Path) -> Curated:
    """Runs every stage whose result is not there yet; says where the results are.

    They are written into `recipe.output`, or into `folder` where that is "".

    Raises ValueError or OSError, in words for the user, for input that cannot be used.
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
        questions = make_items(recipe, runner, candidates, held_out)
        protected = protect(recipe, runner, held_out, questions, candidates)

        def decontaminated(name: str, before: Directory) -> Directory:
            return decontaminate(name, recipe, runner, before, held_out, protected)

        documents = decontaminated("decontaminate", current)
        if protected is not None:
            measure_recall(recipe, runner, current, held_out, protected)
        training = [documents]
        topics = None
        if recipe.topics.enabled:
            topics = find_topics(recipe, runner, documents, replies)
            if recipe.synthesis.enabled:
                made = synthesize(recipe, runner, documents, topics, replies)
                if recipe.dedup.enabled:
                    made = deduplicate(recipe, runner, made, suffix="_synthetic")
                training.append(decontaminated("decontaminate_synthetic", made))
        tasks = []
        if recipe.nlp_tasks.enabled:
            made = write_tasks(recipe, runner, training)
            tasks.append(decontaminated("decontaminate_tasks", made))
        if recipe.restructuring.enabled:
            made = restructure(recipe, runner, training, replies, topics)
            tasks.append(decontaminated("decontaminate_restructured", made))
        training += tasks
        return Curated(
            mixture=bake("bake", recipe, runner, training, recipe.mixtures),
            held_out=bake("bake_held_out", recipe, runner, [held_out], {}),
            items=questions.file("items.jsonl").path,
            prompts=prompts(held_out),
            directories=runner.directories,
        )


def engine_of(recipe: Recipe) -> ExecutionEngine:
    """The engine that a recipe asks for."""
    if recipe.engine is config.EngineKind.BEAM:
        from data_pipeline.execution.beam_engine import BeamEngine

        return BeamEngine(recipe.beam_options)
    return LocalEngine(recipe.workers)


def local(curated: Curated, folder: Path) -> Curated:
    """What training and evaluation read, copied into `folder` where it lies in an object store."""
    return replace(
        curated,
        mixture=download_mixture(curated.mixture, folder),
        held_out=download_mixture(curated.held_out, folder),
        items=download_file(curated.items, folder / curated.items.parent.name / curated.items.name),
    )
