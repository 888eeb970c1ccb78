"""Progress says share, rate and time left: live in a terminal, in plain lines elsewhere."""

from __future__ import annotations

import pytest
from rich.console import Console

from data_pipeline.execution import progress


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (12_345_678, "12.3 MB"), (3e12, "3.0 TB"), (-2000, "-2.0 kB")],
)
def test_bytes(count: float, text: str) -> None:
    assert progress.human_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3_725, "1:02:05")])
def test_time(seconds: float, text: str) -> None:
    assert progress.human_time(seconds) == text


def lines(monkeypatch: pytest.MonkeyPatch, terminal: bool, total: int, steps: list[int]) -> str:
    console = Console(force_terminal=terminal, record=True, width=100, soft_wrap=True)
    monkeypatch.setattr(progress, "console", console)
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with progress.progress("clean", total) as advance:
        for step in steps:
            advance(step)
    return console.export_text()


def test_plain_lines_have_share_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    said = lines(monkeypatch, False, 4_000_000, [1_000_000, 1_000_000, 2_000_000])
    assert "clean: 25%, 1.0 MB/s, 0:03 left" in said
    assert "clean: 50%, 1.0 MB/s, 0:02 left" in said
    assert "100%" not in said  # the stage's own line follows


def test_tasks_without_a_size_show_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "index: 50%, 0:01 left" in lines(monkeypatch, False, 2, [1, 1]).replace("clean", "index")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(progress, "console", Console(force_terminal=True, width=100))
        with progress.progress("clean", 10_000) as advance:
            advance(10_000)
