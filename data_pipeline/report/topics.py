"""The section on topics: their sizes and sources, and how diverse the documents are."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.report import charts, excerpts
from data_pipeline.report.charts import StackRow
from data_pipeline.report.flow import ReportStage
from data_pipeline.topics.model import NO_TOPIC, diversity

CHART_TOPICS = 30  # the largest; the table lists all
LABEL_TERMS = 3  # terms that name a topic in the chart


def section(stages: Sequence[ReportStage], colors: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the values of the section, or None if no stage assigned topics."""
    table = next((stage for stage in stages if stage.name == "topics"), None)
    model = next((stage for stage in stages if stage.name == "topic_model"), None)
    if table is None or model is None:
        return None
    file = model.directory.file("topics.jsonl")
    file.verify()
    topics = [json.loads(line) for line in file.path.read_text(encoding="utf-8").splitlines()]
    sizes: dict[str, Counter[int]] = {}  # source -> topic -> documents
    for ledger in table.directory.ledgers():
        for source, counts in ledger.extra["sizes"].items():
            sizes.setdefault(source, Counter()).update({int(t): n for t, n in counts.items()})
    order = [source for source in colors if source in sizes]
    min_documents = _setting(model, "covered_documents", 1)
    rows = [_row(topic, order, sizes) for topic in topics]
    rows.sort(key=lambda row: (-row["documents"], row["topic"]))
    all_sources = Counter[int]()
    for counts in sizes.values():
        all_sources.update(counts)
    return {
        "rows": rows,
        "max_entropy": math.log(len(rows)) if rows else 0.0,
        "min_documents": min_documents,
        "sample": sum(ledger.extra.get("sample", 0) for ledger in model.directory.ledgers()),
        "by_embeddings": _setting(model, "features", "terms") == "embeddings",
        "no_topic": all_sources[NO_TOPIC],
        "all": _diversity(all_sources, len(topics), min_documents),
        "by_source": [(s, _diversity(sizes[s], len(topics), min_documents)) for s in order],
        "chart_topics": min(CHART_TOPICS, len(rows)),
        "svg": _chart(rows[:CHART_TOPICS], colors) if rows else None,
    }


def _setting(model: ReportStage, name: str, default: Any) -> Any:
    """Returns a setting of the topic model from its manifest, or `default` if it has none."""
    config = model.directory.manifest.get("config")
    topics = config[0] if isinstance(config, list) else config
    return topics.get(name, default) if isinstance(topics, dict) else default


def _diversity(counts: Counter[int], num_topics: int, min_documents: int) -> Any:
    """Returns the diversity of documents over all topics, documents without a topic left out."""
    return diversity([counts[topic] for topic in range(num_topics)], min_documents)


def _row(
    topic: Mapping[str, Any], order: Sequence[str], sizes: Mapping[str, Counter[int]]
) -> dict[str, Any]:
    """Returns the table row of a topic: its terms, its documents by source and its example."""
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


def _chart(rows: Sequence[Mapping[str, Any]], colors: Mapping[str, str]) -> str:
    """Returns a chart of the documents of each topic, by source."""
    bars = []
    for row in rows:
        name = excerpts.printable(", ".join(row["terms"][:LABEL_TERMS]) or f"topic {row['topic']}")
        tooltips = {source: f"{name}: {source}, {n:,}" for source, n in row["by_source"]}
        bars.append(StackRow(name, dict(row["by_source"]), f"{row['documents']:,}", tooltips))
    return charts.stacked(bars, colors, title="Documents of the largest topics, by source")
