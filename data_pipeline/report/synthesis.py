"""D2: what was asked of the teacher, what it took, what passed the gates, and examples."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from data_pipeline.report import excerpts, teachers
from data_pipeline.report.flow import ReportStage
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_shard
from data_pipeline.text import seeded_random

EXAMPLES = 6
EXAMPLE_SHARDS = 20  # that are opened to find them
AFTER = ("gates", "deduplicate_synthetic", "decontaminate_synthetic")


def section(stages: Sequence[ReportStage], colors: dict[str, str]) -> dict[str, Any] | None:
    """None where no teacher was asked."""
    named = {stage.name: stage for stage in stages}
    asked = named.get("synthesise")
    if asked is None:
        return None
    after = [named[name] for name in AFTER if name in named]
    (usage,) = teachers.usage([asked.directory])
    return {
        "model": usage["model"],
        "usage": usage,
        "seeds": _extra(named.get("choose_seeds")),
        "after": [stage.title for stage in after],
        "by_source": [_by_source(s, asked, after) for s in colors if s in asked.sources],
        "reasons": _reasons([asked, *after]),
        "kept": after[-1].total.kept if after else asked.total.kept,
        "examples": _examples(named.get("prompts"), after[-1] if after else asked),
    }


def _extra(stage: ReportStage | None) -> dict[str, Any]:
    return stage.directory.ledgers()[0].extra if stage else {}


def _by_source(source: str, asked: ReportStage, after: Sequence[ReportStage]) -> dict[str, Any]:
    counts = asked.sources[source]
    left = [stage.sources[source].kept if source in stage.sources else 0 for stage in after]
    return {
        "name": source,
        "asked": counts.documents_in,
        "answered": counts.kept,
        "left": left,
        "kept": left[-1] if left else counts.kept,
    }


def _reasons(stages: Sequence[ReportStage]) -> list[tuple[str, str, int]]:
    """(stage, reason, number), in the order of the gates' stages, the most frequent first."""
    return [
        (stage.title, reason, number)
        for stage in stages
        for reason, number in sorted(stage.total.dropped.items(), key=lambda i: (-i[1], i[0]))
    ]


def _examples(prompts: ReportStage | None, final: ReportStage) -> list[dict[str, Any]]:
    """Some texts that were kept, beside the passages that they were inspired by."""
    heap: list[tuple[int, int, Document]] = []
    for file in final.directory.files()[:EXAMPLE_SHARDS]:
        for number, document in enumerate(read_shard(file.path)):
            heapq.heappush(heap, (-seeded_random.hash64(0, document.id), number, document))
            if len(heap) > EXAMPLES:
                heapq.heappop(heap)
    chosen = {document.id: document for _, _, document in sorted(heap, reverse=True)}
    passages: dict[str, str] = {}
    for file in prompts.directory.files()[:EXAMPLE_SHARDS] if prompts else ():
        for prompt in read_shard(file.path):
            if prompt.id in chosen:
                start, end = prompt.meta["passage"]
                passages[prompt.id] = prompt.text[start:end]
    return [
        {
            "source": document.source,
            "id": document.id,
            "prompt": document.meta.get("prompt", ""),
            "from": document.meta.get("from", ""),
            "from_source": document.meta.get("from_source", ""),
            "passage": excerpts.excerpt(passages.get(document.id, "")),
            "segments": excerpts.excerpt(document.text, size=2 * excerpts.SIZE),
        }
        for document in chosen.values()
    ]
