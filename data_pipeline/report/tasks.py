"""D3: the tasks by kind, who made them, what was wrong with the others, and examples."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_pipeline.execution.manifest import Directory
from data_pipeline.report import excerpts, teachers
from data_pipeline.report.flow import ReportStage
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_shard
from data_pipeline.text import seeded_random

# Stage -> who makes the tasks, and the stage that decontaminates them.
MAKERS = {
    "nlp_tasks": ("Rules", "decontaminate_tasks"),
    "restructured_tasks": ("Teacher", "decontaminate_restructured"),
}
EXAMPLES = 2  # of each kind of a maker
EXAMPLE_SHARDS = 20  # that are opened to find them
REASONS = 3  # of each kind


def section(stages: Sequence[ReportStage]) -> dict[str, Any] | None:
    """None where no tasks were made.

    `kinds`: rows by maker and kind, in alphabetical order, each with its count of what was asked
    for or found, what was kept, the most frequent reasons against the rest, and examples.
    `usage`: what the teacher took; None where there was none.
    """
    named = {stage.name: stage for stage in stages}
    rows = []
    for name, (maker, after) in MAKERS.items():
        if name not in named:
            continue
        kinds = _kinds(named[name].directory)
        examples = _examples(named.get(after, named[name]).directory) if kinds else {}
        for kind, became in sorted(kinds.items()):
            kept = became.pop("kept", 0)
            rows.append(
                {
                    "maker": maker,
                    "name": kind,
                    "made": kept + became.total(),
                    "kept": kept,
                    "reasons": sorted(became.items(), key=lambda i: (-i[1], i[0]))[:REASONS],
                    "examples": examples.get(kind, []),
                }
            )
    if not rows:
        return None
    made = [named[name] for name in MAKERS if name in named]
    final = [named.get(MAKERS[stage.name][1], stage) for stage in made]
    return {
        "kinds": rows,
        "kept": sum(row["kept"] for row in rows),
        "clean": sum(stage.total.kept for stage in final),
        "usage": _usage(named.get("restructure")),
    }


def _kinds(directory: Directory) -> dict[str, Counter[str]]:
    """Kind -> what became of it -> number, as the ledgers tell it."""
    found: dict[str, Counter[str]] = {}
    for ledger in directory.ledgers():
        for kind, became in ledger.extra.get("kinds", {}).items():
            found.setdefault(kind, Counter()).update(became)
    return found


def _examples(directory: Directory) -> dict[str, list[dict[str, Any]]]:
    """Of each kind those with the smallest hashes, the answer marked."""
    chosen: dict[str, list[tuple[int, int, Document]]] = {}
    for file in directory.files()[:EXAMPLE_SHARDS]:
        for number, document in enumerate(read_shard(file.path)):
            heap = chosen.setdefault(document.meta["task"], [])
            heapq.heappush(heap, (-seeded_random.hash64(0, document.id), number, document))
            if len(heap) > EXAMPLES:
                heapq.heappop(heap)
    return {
        kind: [_example(document) for _, _, document in sorted(heap, reverse=True)]
        for kind, heap in chosen.items()
    }


def _example(document: Document) -> dict[str, Any]:
    text, answer = document.text, document.meta["answer"]
    cut = len(text) - len(answer)
    prompt = excerpts.excerpt(text[:cut], size=3 * excerpts.SIZE)
    if cut > 3 * excerpts.SIZE:  # the end of a prompt says what is asked for
        prompt += excerpts.excerpt(text[cut - excerpts.SIZE : cut])
    said = [(piece, True) for piece, _ in excerpts.excerpt(answer, size=2 * excerpts.SIZE)]
    return {
        "id": document.id,
        "source": document.source,
        "from": document.meta["from"],
        "from_source": document.meta["from_source"],
        "segments": [*prompt, *said],
    }


def _usage(asked: ReportStage | None) -> dict[str, Any] | None:
    """What the answers took, and what the run that got them spent; None without a teacher."""
    rows = teachers.usage([asked.directory]) if asked else []
    return rows[0] if rows else None
