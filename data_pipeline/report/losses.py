"""Why documents went: reasons with examples, duplicates with their survivors, contamination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from data_pipeline.document import Dropped
from data_pipeline.report import excerpts
from data_pipeline.report.results import probe
from data_pipeline.report.way import Stage, first
from data_pipeline.shards import read_dropped

EXAMPLES = 3  # of each reason
PAIRS = 4  # of near duplicates, side by side
HITS = 12  # of contamination, with their evidence

# Reason -> what it means. Any other reason is shown as its name in words.
REASONS = {
    "too_short": "fewer words than the least allowed",
    "too_long": "more words than allowed",
    "empty": "nothing left after cleaning",
    "language": "not in the language asked for, or too uncertain",
    "cut_off": "ends in the middle of a sentence, with little before it",
    "symbols": "too many hash signs and ellipses for its words",
    "duplicate_lines": "too much of it repeats its own earlier lines",
    "not_words": "too few of its words hold a letter",
    "incomplete": "too little of it is complete sentences: menus, lists",
    "long_code_lines": "lines too long to have been written by hand",
    "data_not_code": "a table of numbers rather than code",
    "exact_duplicate": "equal to one that was kept, up to white space",
    "near_duplicate": "shares most of its word n-grams with one that was kept",
    "invalid_utf8": "bytes that are not UTF-8",
    "invalid_json": "a line that is not JSON",
    "not_an_object": "JSON, but not an object with fields",
    "nul_character": "NUL bytes: binary data or a damaged disk",
    "line_too_long": "longer than any document may be",
    "empty_file": "a file without a row",
    "no_main_text": "a web page without main text",
    "held_out": "kept for evaluation, so not trained on",
}


def reasons(stages: Sequence[Stage], colours: dict[str, str], kind: str) -> list[dict[str, Any]]:
    """For each stage the reasons of this kind (dropped or bad), the most frequent first."""
    return [
        {"stage": stage, "count": total.total(), "reasons": _reasons(stage, colours, kind)}
        for stage in stages
        if (total := getattr(stage.total, kind)).total()
    ]


def _reasons(stage: Stage, colours: dict[str, str], kind: str) -> list[dict[str, Any]]:
    total: Counter[str] = getattr(stage.total, kind)
    chosen = excerpts.choose(stage.directory, EXAMPLES, lambda counts: getattr(counts, kind))
    most = max(total.values())
    return [
        {
            "name": reason,
            "about": REASONS.get(reason, ""),
            "count": count,
            "share": count / max(1, stage.total.documents_in),
            "bars": [
                {"source": source, "count": number, "width": number / most}
                for source in colours
                if source in stage.sources
                and (number := getattr(stage.sources[source], kind)[reason])
            ],
            "examples": [_example(dropped) for dropped in chosen[reason]],
        }
        for reason, count in sorted(total.items(), key=lambda item: (-item[1], item[0]))
    ]


def _example(dropped: Dropped) -> dict[str, Any]:
    document, evidence = dropped.document, dropped.evidence
    spans = excerpts.evidence_spans(document.text, evidence)
    return {
        "id": document.id,
        "source": document.source,
        "characters": len(document.text),
        "evidence": excerpts.evidence_words(document.text, evidence),
        "segments": excerpts.excerpt(document.text, spans),
    }


def changes(stages: Sequence[Stage], colours: dict[str, str]) -> list[dict[str, Any]]:
    """What was replaced or mended inside documents that were kept."""
    return [
        {
            "stage": stage,
            "what": what,
            "count": count,
            "sources": [
                (source, number)
                for source in colours
                if source in stage.sources and (number := stage.sources[source].changed[what])
            ],
        }
        for stage in stages
        for what, count in sorted(stage.total.changed.items(), key=lambda i: (-i[1], i[0]))
    ]


def _all_dropped(stages: Sequence[Stage], name: str) -> Iterator[tuple[Stage, Dropped]]:
    """All that the stages whose names begin with `name` have dropped."""
    for stage in stages:
        if stage.name.startswith(name) and stage.loses:
            for file in stage.directory.files("dropped"):
                for _, dropped in read_dropped(file.path):
                    yield stage, dropped


# ---- duplicates


def duplicates(stages: Sequence[Stage], colours: dict[str, str]) -> dict[str, Any] | None:
    """Counts, a matrix of sources (of the dropped copy, of its survivor), and pairs of texts."""
    rows = list(_all_dropped(stages, "deduplicate"))
    if not rows:
        return None
    number: Counter[tuple[str, str]] = Counter(
        (dropped.document.source, dropped.evidence["kept_source"])
        for _, dropped in rows
        if "kept_source" in dropped.evidence
    )
    names = [source for source in colours if any(source in pair for pair in number)]
    return {
        "count": len(rows),
        "reasons": sorted(Counter(dropped.reason for _, dropped in rows).items()),
        "names": names,
        "most": max(number.values(), default=0),
        "across": sum(n for (copy, survivor), n in number.items() if copy != survivor),
        "matrix": [
            {
                "name": copy,
                "cells": [number[copy, survivor] for survivor in names],
                "total": sum(number[copy, survivor] for survivor in names),
            }
            for copy in names
        ],
        "pairs": _pairs(rows),
    }


def _pairs(rows: Sequence[tuple[Stage, Dropped]]) -> list[dict[str, Any]]:
    """Near duplicates beside their survivors, from less to more similar."""
    near = sorted(
        (row for row in rows if row[1].evidence.get("jaccard", 1) < 1),
        key=lambda row: (row[1].evidence["jaccard"], row[1].document.id),
    )
    chosen = near[:: max(1, len(near) // PAIRS)][:PAIRS]
    pairs = []
    for stage in {id(stage): stage for stage, _ in chosen}.values():
        here = [dropped for of, dropped in chosen if of is stage]
        kept = excerpts.survivors(stage.directory, {d.evidence["kept"] for d in here})
        for dropped in here:
            if survivor := kept.get(dropped.evidence["kept"]):
                one, other = excerpts.compare(survivor.text, dropped.document.text)
                sides = [("kept", survivor, one), ("dropped", dropped.document, other)]
                pairs.append({"jaccard": dropped.evidence["jaccard"], "sides": sides})
    return pairs


# ---- contamination


def contamination(stages: Sequence[Stage]) -> dict[str, Any] | None:
    """Hits by benchmark, some with their evidence, and the recall on planted leaks.

    `written`: how many of the documents were not read but written by a stage.
    """
    recall = next((p for stage in stages if (p := probe(stage.directory.path))), None)
    if recall is None and not any(stage.name.startswith("decontaminate") for stage in stages):
        return None
    start = first(stages)
    rows = [
        (stage, dropped)
        for stage, dropped in _all_dropped(stages, "decontaminate")
        if "benchmark" in dropped.evidence
    ]
    by_benchmark: dict[str, list[Dropped]] = {}
    for _, dropped in rows:
        by_benchmark.setdefault(dropped.evidence["benchmark"], []).append(dropped)
    return {
        "count": len(rows),
        "written": sum(d.document.source not in start.sources for _, d in rows) if start else 0,
        "benchmarks": [
            {
                "name": name,
                "items": len({dropped.evidence.get("item") for dropped in found}),
                "documents": len(found),
                "rules": sorted(Counter(_rule(dropped) for dropped in found).items()),
            }
            for name, found in sorted(by_benchmark.items())
        ],
        "hits": [_hit(dropped) for dropped in _in_turns(by_benchmark)],
        "probe": recall,
    }


def _rule(dropped: Dropped) -> str:
    return str(dropped.evidence.get("rule", dropped.reason))


def _in_turns(by_benchmark: dict[str, list[Dropped]]) -> list[Dropped]:
    """Some hits of every benchmark."""
    queues = [
        sorted(found, key=lambda d: (d.evidence.get("item", ""), d.document.id))
        for _, found in sorted(by_benchmark.items())
    ]
    return [queue[k] for k in range(HITS) for queue in queues if k < len(queue)][:HITS]


def _hit(dropped: Dropped) -> dict[str, Any]:
    """An example under the name of the item that it holds."""
    rest = {k: v for k, v in dropped.evidence.items() if k not in ("item", "benchmark")}
    item = dropped.evidence.get("item", dropped.evidence["benchmark"])
    return _example(replace(dropped, evidence=rest)) | {"item": item}
