"""What the documents are about: topics with their sizes and sources, and how diverse they are."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_pipeline.report import charts, excerpts
from data_pipeline.report.charts import StackRow
from data_pipeline.report.flow import ReportStage
from data_pipeline.topics.model import NO_TOPIC, diversity

DRAWN = 30  # topics in the picture; the table has all
NAMED_BY = 3  # terms of a topic in the picture


def section(stages: Sequence[ReportStage], colors: dict[str, str]) -> dict[str, Any] | None:
    """None where there are no topics."""
    table = next((stage for stage in stages if stage.name == "topics"), None)
    model = next((stage for stage in stages if stage.name == "topic_model"), None)
    if table is None or model is None:
        return None
    file = model.directory.file("topics.jsonl")
    file.verify()
    named = [json.loads(line) for line in file.path.read_text(encoding="utf-8").splitlines()]
    sizes: dict[str, Counter[int]] = {}
    for ledger in table.directory.ledgers():
        for source, counts in ledger.extra["sizes"].items():
            sizes.setdefault(source, Counter()).update({int(t): n for t, n in counts.items()})
    order = [source for source in colors if source in sizes]
    least = _setting(model, "covered_documents", 1)
    rows = [_row(topic, order, sizes) for topic in named]
    rows.sort(key=lambda row: (-row["documents"], row["topic"]))
    together = Counter[int]()
    for counts in sizes.values():
        together.update(counts)
    return {
        "rows": rows,
        "most_entropy": math.log(len(rows)) if rows else 0.0,
        "least": least,
        "sample": sum(ledger.extra.get("sample", 0) for ledger in model.directory.ledgers()),
        "by_embeddings": _setting(model, "features", "terms") == "embeddings",
        "none": together[NO_TOPIC],
        "all": _diversity(together, len(named), least),
        "by_source": [(s, _diversity(sizes[s], len(named), least)) for s in order],
        "drawn": min(DRAWN, len(rows)),
        "svg": _picture(rows[:DRAWN], colors) if rows else None,
    }


def _setting(model: ReportStage, name: str, otherwise: Any) -> Any:
    made_by = model.directory.manifest.get("config")
    topics = made_by[0] if isinstance(made_by, list) else made_by
    return topics.get(name, otherwise) if isinstance(topics, dict) else otherwise


def _diversity(counts: Counter[int], topics: int, least: int) -> Any:
    return diversity([counts[topic] for topic in range(topics)], least)


def _row(topic: dict[str, Any], order: list[str], sizes: dict[str, Counter[int]]) -> dict[str, Any]:
    number = topic["topic"]
    example = topic["example"]
    by_source = [(source, sizes[source][number]) for source in order if sizes[source][number]]
    return {
        "topic": number,
        "terms": topic["terms"],
        "documents": sum(n for _, n in by_source),
        "by_source": by_source,
        "example": example and {**example, "segments": excerpts.excerpt(example["text"])},
    }


def _picture(rows: list[dict[str, Any]], colors: dict[str, str]) -> str:
    drawn = []
    for row in rows:
        name = excerpts.printable(", ".join(row["terms"][:NAMED_BY]) or f"topic {row['topic']}")
        hover = {source: f"{name}: {source}, {n:,}" for source, n in row["by_source"]}
        drawn.append(StackRow(name, dict(row["by_source"]), f"{row['documents']:,}", hover))
    title = "Documents of the largest topics, by source"
    return charts.stacked(drawn, colors, title=title)
