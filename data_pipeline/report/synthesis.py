"""The section on synthetic text (tier D2): requests, output filters, and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.report import excerpts, teachers
from data_pipeline.report.flow import ReportStage, most_frequent
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_shard

NUM_EXAMPLES = 6
EXAMPLE_SHARDS = 20  # shards that are searched for examples
FILTER_STAGES = ("gates", "deduplicate_synthetic", "decontaminate_synthetic")


def section(stages: Sequence[ReportStage], colors: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the values of the section, or None if no text was synthesized."""
    by_name = {stage.name: stage for stage in stages}
    replies = by_name.get("synthesise")
    if replies is None:
        return None
    filters = [by_name[name] for name in FILTER_STAGES if name in by_name]
    (usage,) = teachers.usage([replies.directory])
    return {
        "model": usage["model"],
        "usage": usage,
        "seeds": _extra(by_name.get("choose_seeds")),
        "filters": [stage.title for stage in filters],
        "by_source": [_by_source(s, replies, filters) for s in colors if s in replies.sources],
        "reasons": _reasons([replies, *filters]),
        "kept": filters[-1].total.kept if filters else replies.total.kept,
        "examples": _examples(by_name.get("prompts"), filters[-1] if filters else replies),
    }


def _extra(stage: ReportStage | None) -> dict[str, Any]:
    """Returns the extra entries of a stage's first ledger; {} without a stage."""
    return stage.directory.ledgers()[0].extra if stage else {}


def _by_source(source: str, replies: ReportStage, filters: Sequence[ReportStage]) -> dict[str, Any]:
    """Returns the table row of a source: requests, replies, and texts kept by each filter."""
    counts = replies.sources[source]
    kept = [stage.sources[source].kept if source in stage.sources else 0 for stage in filters]
    return {
        "name": source,
        "requests": counts.documents_in,
        "replies": counts.kept,
        "kept_by": kept,
        "kept": kept[-1] if kept else counts.kept,
    }


def _reasons(stages: Sequence[ReportStage]) -> list[tuple[str, str, int]]:
    """Returns (stage, reason, count) in the order of the stages, the most frequent reason first."""
    return [
        (stage.title, reason, number)
        for stage in stages
        for reason, number in most_frequent(stage.total.dropped)
    ]


def _examples(prompts: ReportStage | None, final: ReportStage) -> list[dict[str, Any]]:
    """Returns kept texts, each beside the passage of its prompt."""
    documents = (
        document
        for file in final.directory.files()[:EXAMPLE_SHARDS]
        for document in read_shard(file.path)
    )
    chosen = {document.id: document for document in excerpts.sample(documents, NUM_EXAMPLES)}
    passages: dict[str, str] = {}
    for file in prompts.directory.files()[:EXAMPLE_SHARDS] if prompts else ():
        for prompt in read_shard(file.path):
            if prompt.id in chosen:
                start, end = prompt.meta["passage"]
                passages[prompt.id] = prompt.text[start:end]
    return [_example(document, passages.get(document.id, "")) for document in chosen.values()]


def _example(document: Document, passage: str) -> dict[str, Any]:
    """Returns the values that the page shows of a synthetic text."""
    return {
        "source": document.source,
        "id": document.id,
        "prompt": document.meta.get("prompt", ""),
        "from": document.meta.get("from", ""),
        "from_source": document.meta.get("from_source", ""),
        "passage": excerpts.excerpt(passage),
        "segments": excerpts.excerpt(document.text, size=2 * excerpts.SIZE),
    }
