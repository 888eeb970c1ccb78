"""The section on contamination: removed passages, and matches by benchmark."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from data_pipeline.execution.manifest import Ledger
from data_pipeline.report import charts, contamination
from data_pipeline.report.charts import PairRow
from data_pipeline.report.flow import ReportStage
from data_pipeline.report.page import _environment
from tests.data_pipeline.builders import report_stage

FOUND: dict[str, Any] = {
    "document": "web/<7>",
    "rule": "item_share",
    "benchmark": "gsm8k",
    "item": "gsm8k/test/3",
    "part": "question",
    "share": 0.9,
    "hits": 9,
    "span": "hares & foxes",
}


def cut() -> list[ReportStage]:
    index = report_stage("index", Ledger("13", extra={"items": {"gsm8k": 30, "mmlu": 9}}))
    ledgers = [
        Ledger("a", extra={"cut": {"gsm8k": 2, "mmlu": 1}, "examples": [FOUND] * 9}),
        Ledger("b", extra={"cut": {"gsm8k": 4}, "examples": [FOUND] * 9}),
        Ledger("c"),
    ]
    return [
        index,
        report_stage("decontaminate", *ledgers),
        report_stage("decontaminate_tasks", ledgers[1]),
    ]


def test_cut_passages_of_all_stages_are_counted_by_benchmark() -> None:
    said = contamination.contamination(cut())
    assert said is not None
    assert said["count"] == 0
    assert said["cut"]["count"] == 11
    assert said["cut"]["benchmarks"] == [("gsm8k", 10), ("mmlu", 1)]
    assert len(said["cut"]["examples"]) == contamination.MAX_EXAMPLES
    assert said["chart"] is None
    assert contamination.contamination(cut()[:1])["cut"] is None  # type: ignore[index]


def section(value: dict[str, Any]) -> str:
    source = "{% macro swatch(x) %}{% endmacro %}{% macro chips(x) %}{% endmacro %}"
    template = _environment({}).from_string(source + '{% include "_contamination.html.jinja" %}')
    return template.render(contamination=value)


def test_section_shows_removed_passages_flagged_documents_and_generic_questions() -> None:
    value = contamination.contamination(cut())
    assert value is not None
    row = {"kind": "verbatim", "benchmark": "gsm8k", "planted": 5, "found": 4, "recall": 0.8}
    alarms = {"documents": 50, "found": 1, "share": 0.02, "examples": [FOUND]}
    value["probe"] = {
        "benchmarks": ["gsm8k"],
        "rows": [{"kind": "verbatim", "cells": [row]}],
        "planted": 5,
        "found": 4,
        "generic": 3,
        "false_positives": alarms,
    }
    html = section(value)
    assert "11 passages: gsm8k 10, mmlu 1." in html
    assert "web/&lt;7&gt;" in html
    assert "hares &amp; foxes" in html
    assert "Flagged documents" in html
    assert "3 of the missed questions" in html
    assert "80%" in html
    alarms["examples"] = []
    value["probe"]["generic"] = 0
    html = section(value)
    assert "Flagged documents" not in html
    assert "of the missed questions" not in html


def test_pairs_of_bars_are_to_scale_and_escaped() -> None:
    rows = [PairRow("a<b", 10, 40), PairRow("none", 0, 20)]
    svg = ElementTree.fromstring(charts.pairs(rows, names=("items", "documents"), title="x & y"))
    bars = [r for r in svg.iter("rect") if r.get("height") == "9"]
    widths = [float(str(bar.get("width"))) for bar in bars]
    assert widths[1] / widths[0] == 4
    assert abs(widths[3] - widths[1] / 2) < 0.1
    assert widths[2] < 1
    assert [bar.get("class") for bar in bars] == ["fill m0", "fill m1"] * 2
    texts = [text.text for text in svg.iter("text")]
    assert {"a<b", "items", "documents", "40"} <= set(texts)
