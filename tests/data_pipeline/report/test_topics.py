"""The section on topics: agrees with the tables and escapes texts."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline import pipeline
from data_pipeline.config import Recipe, Source, Topics
from data_pipeline.execution.manifest import Directory
from data_pipeline.report import charts, flow, topics
from data_pipeline.report.charts import StackRow
from data_pipeline.report.flow import ReportStage
from data_pipeline.report.results import Results
from data_pipeline.storage.shards import read_rows
from data_pipeline.topics.model import diversity
from data_pipeline.topics.stage import find_topics
from tests.builders import write_jsonl
from tests.data_pipeline.builders import report_page, runner_at

ATTACK = "<script>alert('x')</script> \u202egnirts\u202c"
FIELDS = {
    "sea": "tide harbour sailor anchor reef",
    "law": "court statute appeal verdict clause",
    "sky": "planet comet orbit eclipse galaxy",
}
SIZES = {"sea": 10, "law": 8, "sky": 5}


@pytest.fixture
def directories(tmp_path: Path) -> list[Directory]:
    folder = tmp_path / "raw"
    for source, words in FIELDS.items():
        rows = [
            {"id": str(k), "text": f"{ATTACK} {' '.join(words.split()[k % 5 :])} {words}"}
            for k in range(SIZES[source])
        ]
        rows.append({"id": "odd", "text": "?"})
        write_jsonl(folder / f"{source}.jsonl", rows)
    made = Recipe(
        sources=[Source(path=str(folder))],
        topics=Topics(count=3, dimensions=4, covered_documents=6),
    )
    with runner_at(tmp_path / "run") as runner:
        find_topics(made, runner, pipeline.read(made, runner), tmp_path / "cache")
        return runner.directories


def test_section_agrees_with_the_table(directories: list[Directory]) -> None:
    everything = ReportStage.all_of(directories)
    colors = flow.colors(everything, Results.read(None, None, None, None))
    section = topics.section(everything, colors)
    assert section is not None
    table = [row for file in directories[-1].files() for row in read_rows(file.path)]
    by_topic = Counter(row["topic"] for row in table)
    assert {row["topic"]: row["documents"] for row in section["rows"]} == {
        topic: number for topic, number in by_topic.items() if topic >= 0
    }
    assert [row["documents"] for row in section["rows"]] == [10, 8, 5]
    assert section["no_topic"] == by_topic[-1] == 3
    assert section["all"] == diversity([10, 8, 5], 6)
    assert dict(section["by_source"]) == {
        source: diversity([number, 0, 0], 6) for source, number in SIZES.items()
    }
    for row in section["rows"]:
        ((source, _),) = row["by_source"]
        assert set(row["terms"][:5]) == set(FIELDS[source].split())
        assert row["example"]["source"] == source
    assert (
        section["sample"] == 26 and section["min_documents"] == 6 and not section["by_embeddings"]
    )


def test_section_is_shown_and_escaped(directories: list[Directory], tmp_path: Path) -> None:
    html = report_page(tmp_path, directories)
    assert 'href="#topics"' in html and html.count('<section id="topics">') == 1
    section = re.search(r'<section id="topics">.*?</section>', html, re.S)
    assert section
    for tag in ("div", "table", "tr", "td", "p", "article", "details", "figure", "svg", "g"):
        opened = len(re.findall(rf"<{tag}[ >]", section[0]))
        assert opened == section[0].count(f"</{tag}>"), tag
    assert "23 documents are assigned to 3 topics" in section[0]
    assert "3 further documents have no topic" in section[0]
    assert "&lt;script&gt;alert(" in section[0] and "<script>alert(" not in html
    assert "\u202e" not in html
    assert 'href="#synthesis"' not in html


def test_without_topics_there_is_no_section(directories: list[Directory]) -> None:
    assert topics.section(ReportStage.all_of(directories[:1]), {}) is None


def test_bars_are_as_long_as_their_numbers() -> None:
    rows = [
        StackRow("tide, reef", {"sea": 30, "law": 10}, "40", {"sea": "sea: 30"}),
        StackRow("court", {"law": 20}, "20"),
    ]
    svg = charts.stacked(rows, {"sea": "s0", "law": "s1"}, title="t")
    bars = re.findall(
        r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" .*?class="fill (s\d)"', svg
    )
    widths = [float(width) + 0.6 for _, _, width, _ in bars]
    assert [source for *_, source in bars] == ["s0", "s1", "s1"]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01)
    assert widths[2] == pytest.approx(2 * widths[1], rel=0.01)
    assert float(bars[1][0]) == pytest.approx(float(bars[0][0]) + widths[0], abs=0.2)
    assert float(bars[0][1]) == float(bars[1][1]) < float(bars[2][1])
    assert "<title>sea: 30</title>" in svg and "tide, reef" in svg and ">40<" in svg
