"""The stages that hold out documents and make multiple-choice items from them."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from dataclasses import dataclass

from data_pipeline.config import HeldOut, Recipe
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import (
    ShardOutput,
    add_file,
    documents_in,
    documents_of,
    new_ledger,
)
from data_pipeline.execution.task import Task, one_task_for_all, one_task_per_shard
from data_pipeline.held_out import multiple_choice
from data_pipeline.storage.document import Document
from data_pipeline.text import seeded_random


@dataclass(frozen=True, slots=True)
class ItemInputs:
    """The files that a worker reads besides the held-out documents.

    `candidates`: a sample of all documents, which shows which n-grams are boilerplate.
    """

    candidates: tuple[ShardFile, ...]


def draw(recipe: Recipe, runner: Runner, before: Directory) -> Directory:
    """Runs the stage that draws candidates to be held out; they are a sample of all documents."""
    return runner.run(
        StageSpec(
            "candidates",
            draw_from_shard,
            one_task_per_shard(before, recipe.held_out),
            config=recipe.held_out,
            inputs=[before],
        )
    )


def draw_from_shard(task: Task[HeldOut, None]) -> Ledger:
    """Writes the documents of a shard whose hash is below `fraction` of the hash space."""
    config = task.settings
    with ShardOutput(task, "candidates") as output:
        for document in documents_of(task):
            if seeded_random.hash64(config.seed, "held out", document.id) < config.fraction * 2**64:
                output.count_input(document)
                output.write(document)
    return output.ledger


def hold_out(recipe: Recipe, runner: Runner, candidates: Directory) -> Directory:
    """Runs the stage that chooses at most `max_documents` of each source for evaluation."""
    return runner.run(
        StageSpec(
            "held_out",
            choose,
            [one_task_for_all(candidates, recipe.held_out)],
            config=recipe.held_out,
            inputs=[candidates],
        )
    )


def choose(task: Task[HeldOut, None]) -> Ledger:
    """Writes, for each source, the `max_documents` candidates with the smallest hashes."""
    config = task.settings
    # By source a heap of (negative hash, number, document): its first entry has the largest hash.
    chosen: dict[str, list[tuple[int, int, Document]]] = {}
    for number, document in enumerate(documents_of(task)):
        heap = chosen.setdefault(document.source, [])
        hashed = seeded_random.hash64(config.seed, "held out", document.id)
        heapq.heappush(heap, (-hashed, number, document))
        if len(heap) > config.max_documents:
            heapq.heappop(heap)
    with ShardOutput(task, "held_out") as output:
        for source in sorted(chosen):
            for _, _, document in sorted(chosen[source], key=lambda entry: entry[2].id):
                output.count_input(document)
                output.write(document)
    return output.ledger


def make_items(
    recipe: Recipe, runner: Runner, candidates: Directory, held_out: Directory
) -> Directory:
    """Runs the stage that makes multiple-choice items from the held-out documents.

    Args:
      recipe: its section `held_out`.
      runner: runs the stage.
      candidates: a sample of all documents, which shows the texts that several documents share.
      held_out: the held-out documents.
    """
    side = ItemInputs(tuple(candidates.files()))
    return runner.run(
        StageSpec(
            "items",
            write_items,
            [one_task_for_all(held_out, recipe.held_out).with_side(side)],
            config=recipe.held_out,
            inputs=[held_out, candidates],
        )
    )


def write_items(task: Task[HeldOut, ItemInputs]) -> Ledger:
    """Writes items.jsonl: multiple-choice items from the held-out documents."""
    sample = documents_in(task.side.candidates)
    items = multiple_choice.make_items(documents_of(task), task.settings, sample=sample)
    ledger = new_ledger(task)
    lines = (json.dumps(item.to_json(), ensure_ascii=False) + "\n" for item in items)
    add_file(ledger, task.out, "items.jsonl", "".join(lines))
    ledger.extra = {"items": dict(Counter(item.task for item in items))}
    ledger.write(task.out)
    return ledger


def prompts(held_out: Directory) -> list[dict[str, str]]:
    """Returns {"source", "text"} of each held-out document; a model continues its first words."""
    (file,) = held_out.files()
    return [{"source": d.source, "text": d.text} for d in documents_in([file])]
