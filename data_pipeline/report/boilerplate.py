"""The lines that cleaning took out because many documents of their source have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_pipeline.report import excerpts
from data_pipeline.report.flow import ReportStage

LINES = 8  # of each source


def repeated_lines(stages: Sequence[ReportStage], colors: dict[str, str]) -> list[dict[str, Any]]:
    """For each source its most frequent lines: {"source", "count", "lines": [(line, documents)]}.

    `count` is of all lines that were taken out of the source's documents. Shards name lines by how
    many documents of all shards have them, so the first of all are among the first of each.
    """
    rows = []
    for stage in stages:
        found: dict[str, dict[str, int]] = {}
        for ledger in stage.directory.ledgers():
            for source, lines in ledger.extra.get("repeated_lines", {}).items():
                found.setdefault(source, {}).update((line, number) for line, number in lines)
        rows += [
            {
                "source": source,
                "count": stage.sources[source].changed["repeated_line"],
                "lines": [
                    (excerpts.printable(line), number)
                    for line, number in sorted(found[source].items(), key=lambda i: (-i[1], i[0]))
                ][:LINES],
            }
            for source in colors
            if source in found
        ]
    return rows
