"""The section on boilerplate: lines that cleaning removed because many documents share them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from data_pipeline.report import excerpts
from data_pipeline.report.flow import ReportStage, most_frequent

MAX_LINES = 8  # per source


def repeated_lines(stages: Sequence[ReportStage], sources: Iterable[str]) -> list[dict[str, Any]]:
    """Returns {"source", "count", "lines": [(line, documents)]} for each source with such lines.

    `lines` are the most frequent ones. `count` is the number of all lines that were removed from
    documents of the source. Each ledger lists the most frequent lines of its shard with their
    number of documents over all shards, so the most frequent lines of the source are among them.
    """
    rows = []
    for stage in stages:
        documents_of: dict[str, dict[str, int]] = {}  # source -> line -> documents
        for ledger in stage.directory.ledgers():
            for source, lines in ledger.extra.get("repeated_lines", {}).items():
                documents_of.setdefault(source, {}).update((line, count) for line, count in lines)
        for source in sources:
            if source in documents_of:
                rows.append(
                    {
                        "source": source,
                        "count": stage.sources[source].changed["repeated_line"],
                        "lines": [
                            (excerpts.printable(line), count)
                            for line, count in most_frequent(documents_of[source])[:MAX_LINES]
                        ],
                    }
                )
    return rows
