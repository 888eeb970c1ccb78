"""Results side by side: every number stands where it belongs, and what differs is said."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from hare_jax.config import ResultComparison
from hare_jax.evaluation import bar_chart
from hare_jax.evaluation.bar_chart import Bar, Mark, Panel
from hare_jax.evaluation.benchmarks import chart, compare, tables
from hare_jax.evaluation.benchmarks.registry import BENCHMARKS, SIX

SVG = "{http://www.w3.org/2000/svg}"


def score(value: float, items: int = 1200) -> dict[str, Any]:
    interval = [value - 0.02, value + 0.03]
    return {"value": value, "stderr": 0.0125, "interval": interval, "items": items}


def result(benchmarks: dict[str, float], **inputs: Any) -> dict[str, Any]:
    settings = {
        "checkpoint": "runs/small/training-12ab/checkpoints/400",
        "step": 400,
        "protocol": "leaderboard_v1",
        "lm_eval": "0.4.13",
        "limit": 0,
        "shots": -1,
        "max_length": 2048,
        "data": "hub",
    }
    rows = {
        name: {
            "title": BENCHMARKS[name].title,
            "score": score(value),
            "bits_per_byte": score(4 * value),
            "clean": {"state": "unknown", "reason": "nothing was compared"},
        }
        for name, value in benchmarks.items()
    }
    return {"fingerprint": "c0ffee12", "inputs": settings | inputs, "benchmarks": rows}


def cells(text: str, model: str, table: int = 0) -> dict[str, str]:
    """Column -> cell of a model's line in one of the tables."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[table]
    head, _, *lines = [[c.strip() for c in line.split("|")[1:-1]] for line in found.splitlines()]
    (line,) = [line for line in lines if line[0] == model]
    return dict(zip(head, line, strict=True))


def test_scores_stand_beside_the_papers() -> None:
    six = dict(zip(reversed(SIX), (0.11, 0.22, 0.33, 0.44, 0.55, 0.66), strict=True))
    text = tables.markdown([result(six)])
    mine = cells(text, "training-12ab, step 400")
    assert mine["MMLU"] == "66.00 ± 1.25" and mine["GSM8K"] == "11.00 ± 1.25"
    assert mine["average"] == "38.50 ± 0.51"
    # As the paper's Table 1 has it.
    assert cells(text, "HARE 1.1B (paper)") == {
        "model": "HARE 1.1B (paper)",
        "average": "40.17",
        "MMLU": "35.74",
        "ARC-C": "38.40",
        "TruthfulQA": "42.08",
        "Winogrande": "59.27",
        "HellaSwag": "57.46",
        "GSM8K": "8.04",
        "settings": "leaderboard_v1, all items",
    }
    assert cells(text, "training-12ab, step 400", table=1)["MMLU"] == "2.640 ± 0.013"
    assert "(!)" not in text
    one = tables.markdown([result({"hellaswag": 0.25})])
    assert cells(one, "TinyLlama (3T) 1.1B (paper)")["HellaSwag"] == "60.31"
    assert "average" not in one
    assert "(paper)" not in tables.markdown([result({"piqa": 0.5})])


def test_what_differs_is_said_beside_each_line() -> None:
    alike = tables.markdown([result({"piqa": 0.5}), result({"piqa": 0.6}, step=800)])
    assert "(!)" not in alike
    for name, (value, said) in {
        "protocol": ("current", "current (!)"),
        "limit": (200, "200 items of each task (!)"),
        "lm_eval": ("0.4.9", "lm-eval 0.4.9 (!)"),
        "shots": (3, "3-shot (!)"),
        "max_length": (512, "at most 512 tokens (!)"),
        "data": ("5f" * 32, "data 5f5f5f (!)"),
    }.items():
        other = result({"piqa": 0.6}, step=800, **{name: value})
        text = tables.markdown([result({"piqa": 0.5}), other])
        assert said in cells(text, "training-12ab, step 800")["settings"]
        assert "(!)" in cells(text, "training-12ab, step 400")["settings"]
        assert "(!)" in cells(text, "training-12ab, step 400", table=1)["settings"]
        assert "cannot be compared with each other" in text
        assert said in chart.svg([result({"piqa": 0.5}), other])
    # The paper is of the leaderboard's protocol, and of whole benchmarks.
    text = tables.markdown([result({"gsm8k": 0.1}, protocol="current", limit=50)])
    how = "leaderboard_v1 (!), all items (!)"
    assert cells(text, "HARE 1.1B (paper)")["settings"] == how
    assert "Not the same in all rows: protocol, items." in text


def test_clean_items_are_a_line_of_their_own() -> None:
    one = result({"gsm8k": 0.3, "piqa": 0.5, "hellaswag": 0.4})
    parts = {"all": score(0.3), "clean": score(0.2, 1160), "contaminated": score(0.9, 40)}
    one["benchmarks"]["gsm8k"]["clean"] = {"state": "known", **parts}
    nothing = {"all": score(0.4), "clean": score(0.4), "contaminated": None}
    one["benchmarks"]["hellaswag"]["clean"] = {"state": "known", **nothing}
    text = tables.markdown([one])
    clean = cells(text, "training-12ab, step 400, clean items")
    assert clean["GSM8K"] == "20.00 ± 1.25 (−40)" and clean["HellaSwag"] == "40.00 ± 1.25 (−0)"
    assert clean["PIQA"] == ""
    assert "Clean items unknown for PIQA: nothing was compared." in text
    everything = {"all": score(0.3), "clean": None, "contaminated": score(0.3, 40)}
    one["benchmarks"]["gsm8k"]["clean"] = {"state": "known", **everything}
    assert cells(tables.markdown([one]), clean["model"])["GSM8K"] == "none left (−40)"
    # Nothing known: no line, but the reason; nor is it hidden that a result is too old to tell.
    del one["benchmarks"]["gsm8k"]["clean"], one["benchmarks"]["hellaswag"]["clean"]
    text = tables.markdown([one])
    assert "clean items |" not in text
    assert "Clean items unknown for GSM8K, HellaSwag: evaluated by an earlier version." in text


def test_names_tell_results_apart() -> None:
    def named(*checkpoints: str) -> list[str]:
        return tables.labels([result({}, checkpoint=one) for one in checkpoints])

    assert named("runs/a/training-1", "runs/a/training-2/checkpoints/400") == [
        "training-1, step 400",
        "training-2, step 400",
    ]
    assert named("runs/a/training-1", "runs/b/training-1") == [
        "a/training-1, step 400",
        "b/training-1, step 400",
    ]
    assert named("runs/a/t", "runs/a/t") == ["t, step 400, c0ffee"] * 2


def shapes(svg: str, kind: str) -> list[dict[str, str]]:
    return [dict(element.attrib) for element in ET.fromstring(svg).iter(SVG + kind)]


def test_a_bar_is_as_long_as_its_score_with_its_interval_and_the_papers_lines() -> None:
    results = [result({"hellaswag": 0.2}), result({"hellaswag": 0.4}, step=800)]
    svg = chart.svg(results)
    colors = bar_chart.colors(2)
    widths = [
        [float(rect["width"]) for rect in shapes(svg, "rect") if rect.get("fill") == color][1:]
        for color in colors  # the first is the legend's
    ]
    assert widths[1][0] == pytest.approx(2 * widths[0][0], abs=0.2)
    scale = widths[0][0] / 0.2
    whiskers = [
        (float(line["x2"]) - float(line["x1"])) / scale
        for line in shapes(svg, "line")
        if line["y1"] == line["y2"]
    ]
    assert whiskers[:2] == pytest.approx([0.05, 0.05], abs=0.002)
    marks = {
        line[0].text: (float(line.attrib["x1"]) - bar_chart.LEFT) / scale
        for line in ET.fromstring(svg).iter(SVG + "line")
        if len(line)
    }
    assert len(marks) == 7
    assert marks["HARE 1.1B: 57.46"] == pytest.approx(0.5746, abs=0.002)
    said = [element.text for element in ET.fromstring(svg).iter(SVG + "text")]
    assert {"HellaSwag", "20.0", "40.0", "0.800", "1.600"} <= set(said)
    assert said.count("HellaSwag") == 2  # of both panels


def test_charts_of_odd_data_are_drawn() -> None:
    no_interval = {"value": 0.1, "stderr": None, "interval": [None, None], "items": 1}
    one = result({"piqa": 0.0, "gsm8k": 0.1})
    one["benchmarks"]["piqa"] |= {"score": no_interval, "bits_per_byte": None}
    ET.fromstring(chart.svg([one] * 12))
    assert len(set(bar_chart.colors(40))) == 40
    below = Panel("a < b", {"x": [Bar("#000", -0.2, -0.3, -0.1, "-20")]}, threshold=0.05)
    ET.fromstring(bar_chart.draw([below], {"&": "#000"}))
    for panel in (Panel("", {"x": [Bar("#000", 0.004, None, None, "")]}), Panel("", {})):
        ET.fromstring(bar_chart.draw([panel]))
    far = Panel("", {"x": [Bar("#000", 1, 1, 1, "")]}, marks={"x": [Mark("#111", 3, "far")]})
    ends = [float(line["x1"]) for line in shapes(bar_chart.draw([far]), "line")]
    assert max(ends) < bar_chart.WIDTH - bar_chart.RIGHT + 1


def test_the_job_reads_files_and_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for name, one in (
        ("scores-1", result({"piqa": 0.5})),
        ("scores-2", result({"sciq": 0.6}, step=800)),
    ):
        (runs / f"{name}.json").write_text(json.dumps(one), encoding="utf-8")
    config = ResultComparison([str(runs / "scores-2.json"), str(runs)])
    written = compare.run(config, tmp_path)
    assert written == {"table": tmp_path / "compare.md", "chart": tmp_path / "compare.svg"}
    text = written["table"].read_text("utf-8")
    assert capsys.readouterr().out == text + "\n"
    assert text.count("training-12ab, step 800 |") == 2  # once in each table
    assert cells(text, "training-12ab, step 800")["SciQ"] == "60.00 ± 1.25"
    assert cells(text, "training-12ab, step 800")["PIQA"] == ""
    ET.fromstring(written["chart"].read_text("utf-8"))

    with pytest.raises(ValueError, match="results: got none, expected files scores-"):
        compare.run(ResultComparison(), tmp_path)
    with pytest.raises(FileNotFoundError, match="got no results, expected a file scores-"):
        compare.run(ResultComparison([str(tmp_path)]), tmp_path)
    (runs / "scores-3.json").write_text('{"inputs": {}}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"scores-3.json: not what configs/evaluate.py writes"):
        compare.run(config, tmp_path)
