"""What was found of each benchmark, with its evidence, and what would have been found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from data_pipeline.report import charts
from data_pipeline.report.drops import CONTAMINATED, all_dropped, example, in_turns
from data_pipeline.report.flow import ReportStage, first
from data_pipeline.report.results import probe
from data_pipeline.storage.document import Dropped

HITS = 12  # shown with their evidence


@dataclass(slots=True)
class BenchmarkMatches:
    """What was found of one benchmark: ids of items, and the first documents as examples."""

    documents: int = 0
    items: set[str] = field(default_factory=set)
    rules: Counter[str] = field(default_factory=Counter)
    examples: list[Dropped] = field(default_factory=list)

    def add(self, dropped: Dropped) -> None:
        self.documents += 1
        self.items.add(dropped.evidence["item"])
        self.rules[dropped.evidence["rule"]] += 1
        if len(self.examples) < HITS:
            self.examples.append(dropped)


def contamination(stages: Sequence[ReportStage]) -> dict[str, Any] | None:
    """Hits by benchmark, some with their evidence, and the recall on planted leaks.

    None where decontamination was off. `written`: how many of the documents were not read but
    written by a stage.
    """
    if not any(stage.name == "index" for stage in stages):
        return None
    start = first(stages)
    indexed = _indexed(stages)
    found = {name: BenchmarkMatches() for name in indexed}
    written = 0
    for stage in stages:
        if stage.name.startswith("decontaminate") and stage.total.dropped[CONTAMINATED]:
            for dropped in all_dropped(stage):
                if dropped.reason == CONTAMINATED:
                    found.setdefault(dropped.evidence["benchmark"], BenchmarkMatches()).add(dropped)
                    written += start is None or dropped.document.source not in start.sources
    return {
        "count": sum(one.documents for one in found.values()),
        "written": written,
        "benchmarks": [
            {
                "name": name,
                "indexed": indexed[name],
                "items": len(one.items),
                "documents": one.documents,
                "rules": sorted(one.rules.items()),
            }
            for name, one in sorted(found.items())
        ],
        "chart": _chart(found),
        "cut": _cut(stages),
        "hits": [_hit(d) for d in in_turns([found[n].examples for n in sorted(found)], HITS)],
        "probe": next((p for stage in stages if (p := probe(stage.directory.path))), None),
    }


def _indexed(stages: Sequence[ReportStage]) -> Counter[str]:
    """Benchmark -> items that were looked for, as the ledgers of the index say it."""
    number: Counter[str] = Counter()
    for stage in stages:
        if stage.name == "index":
            for ledger in stage.directory.ledgers():  # one for each n, of the same items
                number |= Counter(ledger.extra.get("items", {}))
    return number


def _chart(found: dict[str, BenchmarkMatches]) -> Markup | None:
    """Items that were found in documents, and documents dropped, by benchmark."""
    rows = [
        charts.PairRow(name.replace("_", " "), len(one.items), one.documents)
        for name, one in sorted(found.items())
    ]
    if not any(row.first or row.second for row in rows):
        return None
    return charts.pairs(rows, names=("items found", "documents dropped"), title="Contamination")


def _cut(stages: Sequence[ReportStage]) -> dict[str, Any] | None:
    """Passages that were cut out of documents that stayed: how many of each benchmark, and some."""
    number: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    for stage in stages:
        if stage.name.startswith("decontaminate"):
            for ledger in stage.directory.ledgers():
                number += Counter(ledger.extra.get("cut", {}))
                examples += ledger.extra.get("examples", [])
    if not number:
        return None
    return {
        "count": number.total(),
        "benchmarks": sorted(number.items()),
        "examples": examples[:HITS],
    }


def _hit(dropped: Dropped) -> dict[str, Any]:
    """An example under the name of the item that it holds."""
    rest = {k: v for k, v in dropped.evidence.items() if k not in ("item", "benchmark")}
    return example(replace(dropped, evidence=rest)) | {"item": dropped.evidence["item"]}
