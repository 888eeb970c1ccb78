"""The section on contamination: matches by benchmark with evidence, and recall on planted leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from data_pipeline.report import charts
from data_pipeline.report.drops import CONTAMINATED, example, iter_dropped, round_robin
from data_pipeline.report.flow import ReportStage, first_stage
from data_pipeline.report.results import probe
from data_pipeline.storage.document import Dropped

MAX_EXAMPLES = 12


@dataclass(slots=True)
class BenchmarkMatches:
    """The dropped documents that contain items of one benchmark."""

    documents: int = 0
    items: set[str] = field(default_factory=set)  # ids
    rules: Counter[str] = field(default_factory=Counter)  # documents by decontamination rule
    examples: list[Dropped] = field(default_factory=list)  # at most MAX_EXAMPLES

    def add(self, dropped: Dropped) -> None:
        """Counts a dropped document."""
        self.documents += 1
        self.items.add(dropped.evidence["item"])
        self.rules[dropped.evidence["rule"]] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(dropped)


def contamination(stages: Sequence[ReportStage]) -> dict[str, Any] | None:
    """Returns the values of the section, or None if decontamination was off.

    `written` counts the contaminated documents that a stage wrote, such as synthetic texts; the
    others were read.
    """
    if not any(stage.name == "index" for stage in stages):
        return None
    start = first_stage(stages)
    num_items = _num_indexed_items(stages)
    matches = {name: BenchmarkMatches() for name in num_items}
    written = 0
    for stage in stages:
        if stage.name.startswith("decontaminate") and stage.total.dropped[CONTAMINATED]:
            for dropped in iter_dropped(stage):
                if dropped.reason == CONTAMINATED:
                    benchmark = dropped.evidence["benchmark"]
                    matches.setdefault(benchmark, BenchmarkMatches()).add(dropped)
                    written += start is None or dropped.document.source not in start.sources
    examples = round_robin([matches[name].examples for name in sorted(matches)], MAX_EXAMPLES)
    return {
        "count": sum(one.documents for one in matches.values()),
        "written": written,
        "benchmarks": [
            {
                "name": name,
                "indexed": num_items[name],
                "items": len(one.items),
                "documents": one.documents,
                "rules": sorted(one.rules.items()),
            }
            for name, one in sorted(matches.items())
        ],
        "chart": _chart(matches),
        "cut": _cut_passages(stages),
        "examples": [_match_example(dropped) for dropped in examples],
        "probe": next((p for stage in stages if (p := probe(stage.directory.path))), None),
    }


def _num_indexed_items(stages: Sequence[ReportStage]) -> Counter[str]:
    """Returns the number of indexed items by benchmark."""
    number: Counter[str] = Counter()
    for stage in stages:
        if stage.name == "index":
            # One ledger per n-gram length, each of the same items: `|` takes the maximum.
            for ledger in stage.directory.ledgers():
                number |= Counter(ledger.extra.get("items", {}))
    return number


def _chart(matches: Mapping[str, BenchmarkMatches]) -> Markup | None:
    """Returns a chart of matched items and dropped documents by benchmark; None without any."""
    rows = [
        charts.PairRow(name.replace("_", " "), len(one.items), one.documents)
        for name, one in sorted(matches.items())
    ]
    if not any(row.first or row.second for row in rows):
        return None
    return charts.pairs(rows, names=("matched items", "documents dropped"), title="Contamination")


def _cut_passages(stages: Sequence[ReportStage]) -> dict[str, Any] | None:
    """Returns the number of passages cut out of kept documents, by benchmark, and examples."""
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
        "examples": examples[:MAX_EXAMPLES],
    }


def _match_example(dropped: Dropped) -> dict[str, Any]:
    """Returns an example with the id of the matched item, which its other evidence leaves out."""
    rest = {k: v for k, v in dropped.evidence.items() if k not in ("item", "benchmark")}
    return example(replace(dropped, evidence=rest)) | {"item": dropped.evidence["item"]}
