"""The section on lines that cleaning removed."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.execution.manifest import Directory
from data_pipeline.report import boilerplate
from data_pipeline.report.flow import ReportStage
from data_pipeline.storage.document import Document
from tests.data_pipeline.builders import report_page

from .test_page import make

ATTACK = "<script>alert('x')</script> \u202egnirts"


def cleaned(root: Path, lines: list[list[object]]) -> Directory:
    pages = [Document(f"web/{k}", "Hares are fast.", "web", "web") for k in range(3)]
    return make(
        root,
        "clean",
        pages,
        pages,
        changed={"repeated_line": 7},
        extra={"repeated_lines": {"web": lines}},
    )


def test_the_most_frequent_lines_of_each_source(tmp_path: Path) -> None:
    lines = [[f"Line {k}", 100 - k] for k in range(20)]
    (row,) = boilerplate.repeated_lines(
        ReportStage.all_of([cleaned(tmp_path, lines)]), {"web": "s0"}
    )
    assert (row["source"], row["count"]) == ("web", 7)
    assert row["lines"] == [(f"Line {k}", 100 - k) for k in range(boilerplate.MAX_LINES)]


def test_lines_are_escaped_on_the_page(tmp_path: Path) -> None:
    directory = cleaned(tmp_path, [["Skip to main content", 2223], [ATTACK, 5]])
    page = report_page(tmp_path, [directory])
    assert 'id="boilerplate"' in page and 'href="#boilerplate"' in page
    assert "Skip to main content" in page and "2,223" in page and "7 lines removed" in page
    assert "<script>alert" not in page and "\u202e" not in page


def test_section_is_empty_without_removed_lines(tmp_path: Path) -> None:
    pages = [Document("web/1", "Hares are fast.", "web", "web")]
    stages = ReportStage.all_of([make(tmp_path, "clean", pages, pages)])
    assert boilerplate.repeated_lines(stages, {"web": "s0"}) == []
