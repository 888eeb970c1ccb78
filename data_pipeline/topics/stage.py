"""The three stages that assign a topic to every document.

    stage         one task per  writes
    topic_sample  shard         a sample of its documents
    topic_model   (one task)    the clusters of the sample
    topics        shard         the topic of each of its documents

topics/model.py describes how clusters are found.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache as remember
from pathlib import Path

from data_pipeline.config import Features, Recipe, TeacherConfig, Topics
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import (
    ShardOutput,
    add_file,
    chunks,
    documents_of,
    new_ledger,
)
from data_pipeline.execution.task import Task, one_task_for_all, one_task_per_shard
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import RowWriter
from data_pipeline.teacher import wire
from data_pipeline.text import seeded_random
from data_pipeline.topics import model as topics

MODEL, NAMES = "model.npz", "topics.jsonl"
EXAMPLE_CHARACTERS = 600


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """The settings of a worker that draws a sample; `sizes`: documents of each source."""

    topics: Topics
    sizes: dict[str, int]


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """The settings of a worker that computes vectors; `cache`: folder of the embedder's vectors."""

    topics: Topics
    cache: Path


@dataclass(frozen=True, slots=True)
class TopicInputs:
    """The file that a worker reads besides its shard: the fitted model."""

    model: ShardFile


def find_topics(recipe: Recipe, runner: Runner, documents: Directory, cache: Path) -> Directory:
    """Runs the three stages; returns the table of every document's topic, one file per shard.

    The documents themselves are not changed.

    Args:
      recipe: its section `topics`.
      runner: runs the stages.
      documents: the documents.
      cache: folder of the embedder's vectors, unless its configuration names one.
    """
    config = recipe.topics
    uses_embedder = config.features is Features.EMBEDDINGS
    # Only the fields of the embedder that determine its vectors are part of the address.
    made_by = (
        replace(config, embedder=TeacherConfig()),
        wire.identity(config.embedder) if uses_embedder else None,
    )
    sizes = {source: counts.kept for source, counts in documents.counts().items()}
    sample = runner.run(
        StageSpec(
            "topic_sample",
            draw_sample,
            one_task_per_shard(documents, SampleSettings(config, sizes)),
            config=[config.sample_documents, config.seed],
            inputs=[documents],
        )
    )
    model = runner.run(
        StageSpec(
            "topic_model",
            fit_topics,
            [one_task_for_all(sample, TopicSettings(config, cache))],
            config=made_by,
            inputs=[sample],
        )
    )
    side = TopicInputs(model.file(MODEL))
    return runner.run(
        StageSpec(
            "topics",
            assign_topics,
            [
                task.with_side(side)
                for task in one_task_per_shard(documents, TopicSettings(config, cache))
            ],
            config=made_by,
            inputs=[documents, model],
            max_parallel=int(uses_embedder),
        )
    )


def draw_sample(task: Task[SampleSettings, None]) -> Ledger:
    """Writes a sample of a shard: about `sample_documents` of each source, by a hash of the id."""
    config, sizes = task.settings.topics, task.settings.sizes
    # A document is drawn if its hash is in the first sample_documents / n of the hash space.
    limit = {s: config.sample_documents / max(1, n) * 2**64 for s, n in sizes.items()}
    with ShardOutput(task, "topic_sample") as output:
        for document in documents_of(task):
            if seeded_random.hash64(config.seed, "topics", document.id) < limit[document.source]:
                output.count_input(document)
                output.write(document)
    return output.ledger


def fit_topics(task: Task[TopicSettings, None]) -> Ledger:
    """Writes model.npz, and topics.jsonl with the terms and an example of each topic."""
    config, cache = task.settings.topics, task.settings.cache
    sample = sorted(documents_of(task), key=lambda document: document.id)
    with embedder(config, cache) as embed:
        model, fitted = topics.fit([document.text for document in sample], config, embed)
    ledger = new_ledger(task)
    ledger.files[MODEL] = model.save(task.out / MODEL)
    examples = [_example(sample[topic.example]) if topic.documents else {} for topic in fitted]
    add_file(ledger, task.out, NAMES, topics.topics_to_json(fitted, examples))
    ledger.extra = {"sample": len(sample), "topics": len(fitted)}
    ledger.write(task.out)
    return ledger


def _example(document: Document) -> dict[str, str]:
    """Returns the beginning of a document, for the report."""
    text = document.text[:EXAMPLE_CHARACTERS]
    return {"id": document.id, "source": document.source, "text": text}


def assign_topics(task: Task[TopicSettings, TopicInputs]) -> Ledger:
    """Writes one row per document: {"id", "source", "category", "topic", "score", "characters"}.

    The ledger's `extra` has the number of documents by source and topic.
    """
    config, cache = task.settings.topics, task.settings.cache
    sizes: dict[str, Counter[int]] = {}
    ledger = new_ledger(task)
    with (
        embedder(config, cache) as embed,
        RowWriter(task.out / "shards" / f"{task.shard}.jsonl.zst") as table,
    ):
        assign = topics.build_assign(load_model(task.side.model), config, embed)
        for chunk in chunks(documents_of(task)):
            assigned = assign([document.text for document in chunk])
            for document, (topic, score) in zip(chunk, assigned, strict=True):
                sizes.setdefault(document.source, Counter())[topic] += 1
                table.write_row(
                    {
                        "id": document.id,
                        "source": document.source,
                        "category": document.category,
                        "topic": topic,
                        "score": score,
                        "characters": len(document.text),
                    }
                )
    ledger.files[f"shards/{table.path.name}"] = table.sha256
    ledger.extra = {
        "sizes": {s: {str(t): n for t, n in sorted(c.items())} for s, c in sorted(sizes.items())}
    }
    ledger.write(task.out)
    return ledger


@remember
def load_model(file: ShardFile) -> topics.TopicModel:
    """Returns a fitted model; each process verifies and reads a file once."""
    with file.verified() as path:
        return topics.TopicModel.load(path)


@contextlib.contextmanager
def embedder(config: Topics, cache: Path) -> Iterator[topics.Embed | None]:
    """Opens the embedding endpoint as a function; None if terms give the vectors."""
    if config.features is Features.TERMS:
        yield None
        return
    from data_pipeline.teacher.client import TeacherClient as Client

    with Client(config.embedder, cache) as client:
        yield client.embed
