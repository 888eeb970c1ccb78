"""The recipe, top to bottom: which steps run, and on what.

    read -> clean -> deduplicate -> hold out -> decontaminate -> NLP tasks -> decontaminate -> bake

Each step is a file in steps/. A stage's directory is named by the hash of all that made it
(manifest.py), so running again does only what a changed setting makes necessary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_pipeline.config import Recipe
from data_pipeline.engine import LocalEngine
from data_pipeline.manifest import Directory
from data_pipeline.runner import Runner
from data_pipeline.steps.bake import bake
from data_pipeline.steps.clean import clean
from data_pipeline.steps.decontaminate import decontaminate, measure_recall, protect
from data_pipeline.steps.deduplicate import deduplicate
from data_pipeline.steps.hold_out import draw, hold_out, make_items, prompts
from data_pipeline.steps.nlp_tasks import write_tasks
from data_pipeline.steps.read import read


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
        current = clean(recipe, runner, read(recipe, runner))
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
