"""The section on tasks (tier D3): counts by kind, reasons of dropped ones, and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_pipeline.execution.manifest import Directory
from data_pipeline.report import excerpts, teachers
from data_pipeline.report.flow import ReportStage, most_frequent
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_shard

# Stage that writes tasks -> (how it writes them, the stage that decontaminates them).
WRITERS = {
    "nlp_tasks": ("Rules", "decontaminate_tasks"),
    "restructured_tasks": ("Teacher", "decontaminate_restructured"),
}
NUM_EXAMPLES = 2  # per kind and writer
EXAMPLE_SHARDS = 20  # shards that are searched for examples
MAX_REASONS = 3  # per kind


def section(stages: Sequence[ReportStage]) -> dict[str, Any] | None:
    """Returns the values of the section, or None if no stage wrote tasks.

    `kinds` has one row per writer and kind, kinds in alphabetical order, with the number of tasks
    that were written and kept, the most frequent drop reasons, and examples. `usage` is the
    teacher's usage, None without a teacher.
    """
    by_name = {stage.name: stage for stage in stages}
    rows = []
    for name, (writer, after) in WRITERS.items():
        if name not in by_name:
            continue
        kinds = _counts_by_kind(by_name[name].directory)
        examples = _examples(by_name.get(after, by_name[name]).directory) if kinds else {}
        for kind, reasons in sorted(kinds.items()):
            kept = reasons.pop("kept", 0)
            rows.append(
                {
                    "writer": writer,
                    "name": kind,
                    "written": kept + reasons.total(),
                    "kept": kept,
                    "reasons": most_frequent(reasons)[:MAX_REASONS],
                    "examples": examples.get(kind, []),
                }
            )
    if not rows:
        return None
    writers = [by_name[name] for name in WRITERS if name in by_name]
    final = [by_name.get(WRITERS[stage.name][1], stage) for stage in writers]
    return {
        "kinds": rows,
        "kept": sum(row["kept"] for row in rows),
        "clean": sum(stage.total.kept for stage in final),
        "usage": _usage(by_name.get("restructure")),
    }


def _counts_by_kind(directory: Directory) -> dict[str, Counter[str]]:
    """Returns kind -> "kept" or a drop reason -> number of tasks, summed over shards."""
    kinds: dict[str, Counter[str]] = {}
    for ledger in directory.ledgers():
        for kind, counts in ledger.extra.get("kinds", {}).items():
            kinds.setdefault(kind, Counter()).update(counts)
    return kinds


def _examples(directory: Directory) -> dict[str, list[dict[str, Any]]]:
    """Returns examples of each kind: the tasks with the smallest hashes of their ids."""
    by_kind: dict[str, list[Document]] = {}
    for file in directory.files()[:EXAMPLE_SHARDS]:
        for document in read_shard(file.path):
            candidates = [*by_kind.get(document.meta["task"], []), document]
            by_kind[document.meta["task"]] = excerpts.sample(candidates, NUM_EXAMPLES)
    return {kind: [_example(document) for document in by_kind[kind]] for kind in by_kind}


def _example(document: Document) -> dict[str, Any]:
    """Returns the values that the page shows of a task; its answer is marked."""
    text, answer = document.text, document.meta["answer"]
    cut = len(text) - len(answer)
    prompt = excerpts.excerpt(text[:cut], size=3 * excerpts.SIZE)
    if cut > 3 * excerpts.SIZE:  # the instruction is often at the end of the prompt
        prompt += excerpts.excerpt(text[cut - excerpts.SIZE : cut])
    marked = [(piece, True) for piece, _ in excerpts.excerpt(answer, size=2 * excerpts.SIZE)]
    return {
        "id": document.id,
        "source": document.source,
        "from": document.meta["from"],
        "from_source": document.meta["from_source"],
        "segments": [*prompt, *marked],
    }


def _usage(replies: ReportStage | None) -> dict[str, Any] | None:
    """Returns the usage of the teacher that wrote tasks; None without a teacher."""
    rows = teachers.usage([replies.directory]) if replies else []
    return rows[0] if rows else None
