"""benchmarks/: each says what it does, and the cheap ones print their tables of small data."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import ROOT, prose, write_jsonl

pytestmark = pytest.mark.slow

RunBenchmark = Callable[[str, list[str]], str]

FOLDER = ROOT / "benchmarks"


def has_main(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in body)


RUNNABLE = sorted(path.stem for path in FOLDER.glob("*.py") if has_main(path))


@pytest.mark.parametrize("name", RUNNABLE)
def test_help_says_what_it_does(
    name: str, capsys: pytest.CaptureFixture[str], run_benchmark: RunBenchmark
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_benchmark(name, ["--help"])
    assert ended.value.code == 0
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    told = str(ast.get_docstring(ast.parse(source)))
    first = told.partition("\n")[0]
    usage, found, _ = " ".join(capsys.readouterr().out.split()).partition(first)
    assert found and len(first) > 40
    options = r"(?<![\w-])--[a-z-]+"
    assert set(re.findall(options, told)) <= set(re.findall(options, usage))


def test_there_are_benchmarks_to_look_at() -> None:
    assert {"cleaning", "dedup_recall", "formats"} < set(RUNNABLE)


def test_formats_counts_what_becomes_of_rows(tmp_path: Path, run_benchmark: RunBenchmark) -> None:
    asked: list[dict[str, object]] = [
        {"instruction": f"Add {k} and {k}.", "output": f"It is {2 * k}."} for k in range(3)
    ]
    write_jsonl(tmp_path / "alpaca.jsonl", [*asked, {"instruction": "And now?", "output": ""}])
    write_jsonl(tmp_path / "plain.jsonl", [{"text": prose("plain", 3)}])
    (tmp_path / "broken.jsonl").write_text('{"text": "cut\n', encoding="utf-8")
    lines = run_benchmark("formats", [str(tmp_path), "--show", "1"]).splitlines()
    assert lines[0].split() == ["file", "rows", "format", "or", "reason", "rendered", "refused"]
    table = [line.split() for line in lines[1:] if "|" not in line]
    assert table == [
        ["alpaca.jsonl", "4", "instruction_input_output", "3", "0"],
        ["no_answer", "0", "1"],
        ["broken.jsonl", "1", "invalid_json", "0", "1"],
        ["plain.jsonl", "1", "text", "as", "it", "is", "1", "0"],
    ]
    examples = "\n".join(line for line in lines if "|" in line)
    assert "Add 0 and 0." in examples and "Add 1 and 1." not in examples


def test_dedup_recall_finds_the_copies_that_are_near(
    tmp_path: Path, run_benchmark: RunBenchmark
) -> None:
    rng = random.Random(0)
    texts = [" ".join(f"word{rng.randrange(100_000)}" for _ in range(200)) for _ in range(12)]
    write_jsonl(tmp_path / "web.jsonl", [{"text": text} for text in texts])
    out = run_benchmark("dedup_recall", [str(tmp_path), "--documents", "8"])
    assert "12 documents" in out and "8 texts; 14 bands of 9 rows" in out
    rows = dict(re.findall(r"^  (.+?)  +((?:[\d.nan]+ +){5}\d+)$", out, re.MULTILINE))
    assert len(rows) == 13
    # same, theory, lsh, found, of same, missed
    assert rows["0 % of words edited"].split() == [*["1.000"] * 5, "0"]
    assert rows["re-wrapped, other case"].split() == [*["1.000"] * 5, "0"]
    far = rows["10 % of words edited"].split()
    assert float(far[0]) < 0.5 and far[3] <= far[0]
    assert "unrelated texts: 0 of 8 merged" in out


def test_cleaning_counts_by_rule_and_shows_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_benchmark: RunBenchmark
) -> None:
    raw = tmp_path / "raw"
    good: list[dict[str, object]] = [{"id": f"g{k}", "text": prose(f"g{k}", 6)} for k in range(6)]
    good[0]["text"] = f"{prose('mail', 6)} Write to jane.miller@northgate-valley.org today."
    write_jsonl(raw / "web.jsonl", [*good, {"id": "short", "text": "Too short by far."}])
    write_jsonl(
        raw / "code.jsonl", [{"id": "c", "text": f"# {prose('c', 3)}\nx = 1\n" + "y = x\n" * 9}]
    )
    common = [str(raw), "--workdir", str(tmp_path / "work"), "--workers", "1"]
    out = run_benchmark("cleaning", common)
    assert re.search(r"^dropped by\n +too_short +1  web 1$", out, re.MULTILINE)
    assert re.search(r"^replaced\n +email +1  web 1$", out, re.MULTILINE)
    speeds = re.findall(r"^  (web|code|all, the same of each) +([\d.]+)$", out, re.MULTILINE)
    assert {name for name, _ in speeds} == {"web", "code", "all, the same of each"}
    assert all(float(rate) > 0 for _, rate in speeds)

    out = run_benchmark("cleaning", [*common, "--rule", "too_short"])
    assert "too_short: 1 documents, 1 of them" in out and "Too short by far." in out
    out = run_benchmark("cleaning", [*common, "--rule", "email"])
    assert "email: 1 places" in out and "[[jane.miller@northgate-valley.org]]" in out
    with pytest.raises(SystemExit, match="2"):
        run_benchmark("cleaning", [*common, "--rule-sets", "C5"])
    assert "got ['C5'], expected some of GopherRepetition" in capsys.readouterr().err
