"""Files of training and evaluation, also after an interrupted run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.report.results import Results, probe, read_metrics


def test_last_row_of_a_step_logged_twice_is_used(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [(1, 9.0), (2, 8.0), (3, 7.0), (2, 8.5), (3, 7.5)]  # continued after step 1
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in rows]
    path.write_text("\n".join([*lines[:3], lines[2][:9], *lines[3:]]))
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [
        (1, 9.0),
        (2, 8.5),
        (3, 7.5),
    ]
    assert read_metrics(tmp_path / "not there") == []


def test_probe_is_a_table_of_kinds_by_benchmarks(tmp_path: Path) -> None:
    assert probe(tmp_path) is None
    row = {"kind": "verbatim", "benchmark": "a", "planted": 4, "found": 3, "recall": 0.75}
    other = row | {"kind": "edited", "benchmark": "b", "found": 1}
    value = {"results": [row, other], "false_positives": {"documents": 9, "found": 0}}
    (tmp_path / "probe.json").write_text(json.dumps(value))
    table = probe(tmp_path)
    assert table
    assert table["rows"] == [
        {"kind": "verbatim", "cells": [row, None]},
        {"kind": "edited", "cells": [None, other]},
    ]
    assert (table["planted"], table["found"]) == (8, 4)


def test_sources_with_too_many_epochs_are_listed() -> None:
    sources = [{"name": "web", "epochs": 4.0}, {"name": "qa", "epochs": 4.1}]
    results = Results(plan={"stages": [{"name": "stage2", "mixture": "m", "sources": sources}]})
    assert results.many_epochs == [("stage2", "qa", 4.1)]


def test_training_time_is_the_sum_over_speeds() -> None:
    rows = [
        {"step": 1, "tokens": 100, "tokens_per_second": 10.0},
        {"step": 2, "tokens": 200, "tokens_per_second": 50.0},
    ]
    assert Results(metrics=rows).seconds == pytest.approx(12.0)
