from __future__ import annotations

from types import SimpleNamespace

import pytest

from hare_jax import progress


def test_plain_lines_have_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 2.0, 3.0, 10.0, 20.0, 20.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with progress.progress("reading", 100, "rows") as advance:
        advance(10)  # after 2 s: too early for a line
        advance(10)
        advance(30)  # after 10 s
        advance(50)
    assert capsys.readouterr().out.splitlines() == [
        "  reading: 50 of 100 rows, 5 rows/s, 10 s left",
        "  reading: 100 rows in 20.0 s",
    ]


def test_no_line_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 60.0, 70.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with progress.progress("reading", 100, "rows") as advance:
        advance(0)  # what was asked for took a minute to prepare
    assert capsys.readouterr().out.splitlines() == ["  reading: 0 rows in 70.0 s"]


def test_a_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.progress("reading", 100, "rows") as advance:
        advance(100)
    out = capsys.readouterr().out
    assert "100/100" in out
    assert "reading: 100 rows in" in out
