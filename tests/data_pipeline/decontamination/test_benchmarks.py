"""Known benchmarks give their texts from original and hub rows alike; nothing is skipped."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest
import zstandard

from data_pipeline.config import Benchmark
from data_pipeline.decontamination.benchmarks import (
    DEFAULT_BENCHMARKS,
    LAYOUTS,
    BenchmarkItem,
    check_files,
    files,
    find_benchmarks,
    fingerprint,
    is_option,
    read_items,
    read_paraphrases,
    unprotected,
)
from data_pipeline.storage.atomic import write_text
from tests.builders import write_jsonl

CHOICES = ["a hare", "a fox", "an owl", "a mole"]
LABELLED = [{"text": t, "label": label} for t, label in zip(CHOICES, "ABCD", strict=True)]
HUB = {"text": CHOICES, "label": list("ABCD")}
CHOICE_PARTS = {f"choice_{k}": text for k, text in enumerate(CHOICES)}
ASKED = {"question": "Who runs?", **CHOICE_PARTS, "question_answer": "Who runs? an owl"}
TRUTHFUL = {
    "question": "Who runs?",
    "choice_0": "an owl",
    "choice_1": "a hare",
    "choice_2": "a fox",
    "question_answer": "Who runs? an owl",
}

# (benchmark, row, parts). One case for each shape that is published.
CASES: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (
        "gsm8k",
        {"question": "How many?", "answer": "2+2 = <<2+2=4>>4 hares.\n#### 4"},
        {
            "question": "How many?",
            "answer": "2+2 = 4 hares.\n",
            "annotated_answer": "2+2 = <<2+2=4>>4 hares.\n",
        },
    ),
    (
        "gsm8k",
        {"question": "How many?", "answer": "Four.\n#### 4"},
        {"question": "How many?", "answer": "Four.\n"},
    ),
    ("mmlu", {"subject": "s", "question": "Who runs?", "choices": CHOICES, "answer": "C"}, ASKED),
    ("mmlu", {"subject": "s", "question": "Who runs?", "choices": CHOICES, "answer": 2}, ASKED),
    (
        "arc_challenge",
        {"id": "1", "question": {"stem": "Who runs?", "choices": LABELLED}, "answerKey": "C"},
        ASKED,
    ),
    ("arc_easy", {"id": "1", "question": "Who runs?", "choices": HUB, "answerKey": "C"}, ASKED),
    (
        "openbookqa",
        {"id": "1", "question_stem": "Who runs?", "choices": HUB, "answerKey": "C"},
        ASKED,
    ),
    (
        "commonsenseqa",
        {"id": "1", "question": {"stem": "Who runs?", "choices": LABELLED}},
        {"question": "Who runs?", **CHOICE_PARTS},
    ),
    (
        "commonsenseqa",
        {"id": "1", "question": "Who runs?", "choices": HUB, "answerKey": ""},
        {"question": "Who runs?", **CHOICE_PARTS},
    ),
    (
        "truthfulqa",
        {
            "Question": "Who runs?",
            "Best Answer": "an owl",
            "Correct Answers": "an owl; a hare",
            "Incorrect Answers": "a fox",
        },
        TRUTHFUL,
    ),
    (
        "truthfulqa",
        {
            "question": "Who runs?",
            "best_answer": "an owl",
            "correct_answers": ["a hare"],
            "incorrect_answers": ["a fox"],
        },
        TRUTHFUL,
    ),
    (
        "truthfulqa",
        {
            "question": "Who runs?",
            "mc1_targets": {"an owl": 1, "a fox": 0},
            "mc2_targets": {"an owl": 1, "a hare": 1},
        },
        {
            "question": "Who runs?",
            "choice_0": "an owl",
            "choice_1": "a fox",
            "choice_2": "a hare",
            "question_answer": "Who runs? an owl",
        },
    ),
    (
        "truthfulqa",
        {
            "question": "Who runs?",
            "mc1_targets": {"choices": ["an owl", "a fox"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["an owl"], "labels": [1]},
        },
        {
            "question": "Who runs?",
            "choice_0": "an owl",
            "choice_1": "a fox",
            "question_answer": "Who runs? an owl",
        },
    ),
    (
        "winogrande",
        {"sentence": "It ran, so _ won.", "option1": "he", "option2": "she", "answer": "1"},
        {"with_option1": "It ran, so he won.", "with_option2": "It ran, so she won."},
    ),
    (
        "hellaswag",
        {"ctx": "A hare", "endings": ["runs.", "flies."], "label": 0, "activity_label": "Racing"},
        {
            "context": "A hare",
            "ending_0": "runs.",
            "ending_1": "flies.",
            "context_ending": "A hare runs.",
        },
    ),
    (
        "hellaswag",
        {"ctx": "[header] A hare", "endings": ["[step] runs.", "flies."], "label": "1"},
        {
            "context": "  A hare",
            "ending_0": "  runs.",
            "ending_1": "flies.",
            "context_ending": "  A hare flies.",
        },
    ),
    (
        "hellaswag",
        {"ctx": "A hare", "endings": ["runs."], "label": ""},
        {"context": "A hare", "ending_0": "runs."},
    ),
    (
        "boolq",
        {"question": "do hares run", "answer": True, "passage": "Hares run.", "title": "Hare"},
        {"question": "do hares run", "passage": "Hares run."},
    ),
    (
        "humaneval",
        {"task_id": "1", "prompt": "def f():\n", "canonical_solution": "  return 1\n", "test": ""},
        {"prompt": "def f():\n", "solution": "  return 1\n"},
    ),
    (
        "math",
        {"problem": "What is $x$?", "solution": "It is 1.", "level": "1", "type": "Algebra"},
        {"question": "What is $x$?", "answer": "It is 1."},
    ),
    (
        "bbh",
        {"task": "t", "input": "not True is", "target": "False"},
        {"question": "not True is", "question_answer": "not True is False"},
    ),
    (
        "socialiqa",
        {
            "context": "It ran.",
            "question": "Why?",
            "answerA": "fear",
            "answerB": "joy",
            "answerC": "no",
            "label": "1",
        },
        {
            "context": "It ran.",
            "context_question": "It ran. Why?",
            "choice_0": "fear",
            "choice_1": "joy",
            "choice_2": "no",
        },
    ),
    (
        "held_out_items",
        {"id": "1", "context": "A hare", "choices": [" sits.", " runs."], "answer": 1},
        {"context": "A hare", "context_answer": "A hare runs."},
    ),
    (
        "held_out_documents",
        {"id": "1", "text": "Hares run.", "source": "web", "category": "web", "meta": {}},
        {"document": "Hares run."},
    ),
]


@pytest.mark.parametrize(("name", "row", "parts"), CASES)
def test_a_row_gives_its_parts(
    name: str, row: dict[str, Any], parts: dict[str, str], tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "test.jsonl", [row])
    (item,) = read_items(Benchmark(name, str(tmp_path)))
    assert item == BenchmarkItem(f"{name}/test/0", name, parts)
    assert list(item.parts) == list(parts), "the first part is the question"


def test_every_known_benchmark_has_a_case() -> None:
    assert {name for name, _, _ in CASES} == set(LAYOUTS)


def test_all_splits_in_all_formats_are_read_in_order_of_name(tmp_path: Path) -> None:
    rows = [{"question": f"Question {k}?", "answer": f"{k}"} for k in range(3)]
    write_jsonl(tmp_path / "b.jsonl.gz", rows[:1])
    write_jsonl(tmp_path / "c.jsonl.zst", rows[1:])
    write_jsonl(tmp_path / "d.jsonl", rows[:2])
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    write_jsonl(tmp_path / "README.md", ["not a split"])
    ids = [item.id for item in read_items(Benchmark("gsm8k", str(tmp_path)))]
    expected = ["a/0", "a/1", "a/2", "b/0", "c/0", "c/1", "d/0", "d/1"]
    assert ids == [f"gsm8k/{rest}" for rest in expected]


def test_any_benchmark_by_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "trivia.jsonl"
    write_jsonl(path, [{"q": "Who?", "answers": ["he", "she"], "more": 1}])
    benchmark = Benchmark("trivia", str(path), parts=("q", "answers"), absolute_hits=False)
    parts = {"q": "Who?", "answers_0": "he", "answers_1": "she"}
    assert list(read_items(benchmark)) == [
        BenchmarkItem("trivia/trivia/0", "trivia", parts, absolute_hits=False)
    ]


def test_options_are_told_from_questions_and_answers() -> None:
    assert [name for name in ("question", "choice_0", "answer", "ending_3") if is_option(name)] == [
        "choice_0",
        "ending_3",
    ]


# ---- What cannot be read is an error: decontamination must not silently shrink.

GOOD = {"question": "How many?", "answer": "4"}


def damaged_zst(good: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(good * 100)[:-7]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("test.jsonl.gz", gzip.compress(json.dumps(GOOD).encode() * 50)[:-9], "test.jsonl.gz"),
        ("test.jsonl.zst", damaged_zst(json.dumps(GOOD).encode() + b"\n"), "test.jsonl.zst"),
        ("test.jsonl.gz", b"this is not gzip", "test.jsonl.gz"),
        ("test.jsonl", json.dumps(GOOD).encode() + b'\n{"question": "How', "line 2 is not JSON"),
        ("test.jsonl", b'{"question": "\xff", "answer": "4"}', "line 1"),
        ("test.jsonl", b"[1, 2]\n", r"expected an object, got \[1, 2\]"),
        ("test.jsonl", b"", "has no rows"),
        ("test.jsonl", b"\n\n", "has no rows"),
        ("test.jsonl", json.dumps(GOOD).encode() + b'\n{"question": "x"}', r"row 1.*'answer'"),
        ("test.jsonl", b'{"question": 7, "answer": "4"}', "expected text, got 7"),
        ("test.jsonl", b'{"question": "", "answer": ""}', "all parts are empty"),
        ("test.parquet", b"PAR1 and then nothing", "test.parquet|Parquet"),
    ],
)
def test_a_damaged_benchmark_is_an_error(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        list(read_items(Benchmark("gsm8k", str(tmp_path))))


def test_a_missing_or_unknown_benchmark_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        list(read_items(Benchmark("gsm8k", str(tmp_path / "nowhere"))))
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        list(read_items(Benchmark("gsm8k", str(tmp_path))))
    with pytest.raises(ValueError, match="did you mean gsm8k"):
        list(read_items(Benchmark("gsm8", str(tmp_path))))
    with pytest.raises(ValueError, match=r"parts=\(\.\.\.\)"):
        list(read_items(Benchmark("something else", str(tmp_path))))


def test_a_run_may_hold_out_nothing(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "items.jsonl", [])
    assert list(read_items(Benchmark("held_out_items", str(tmp_path / "items.jsonl")))) == []


# ---- Folders of benchmarks


def test_known_finds_what_lies_in_a_folder(tmp_path: Path) -> None:
    assert find_benchmarks("") == []
    with pytest.raises(ValueError, match="no benchmark in"):
        find_benchmarks(str(tmp_path))
    write_jsonl(tmp_path / "mmlu" / "test.jsonl", [])
    write_jsonl(tmp_path / "gsm8k.jsonl.gz", [])
    write_jsonl(tmp_path / "unknown" / "test.jsonl", [])
    assert find_benchmarks(str(tmp_path)) == [
        Benchmark("gsm8k", str(tmp_path / "gsm8k.jsonl.gz")),
        Benchmark("mmlu", str(tmp_path / "mmlu")),
    ]


def test_fingerprint_changes_with_content_and_names(tmp_path: Path) -> None:
    benchmark = Benchmark("gsm8k", str(tmp_path))
    write_jsonl(tmp_path / "test.jsonl", [GOOD])
    first = fingerprint(benchmark)
    assert len(first) == len(files(benchmark)) == 1
    write_jsonl(tmp_path / "train.jsonl", [GOOD])
    second = fingerprint(benchmark)
    assert second[0] == first[0]
    assert len(second) == 2
    write_jsonl(tmp_path / "test.jsonl", [GOOD, GOOD])
    assert fingerprint(benchmark)[0] != first[0]


# ---- Paraphrases, and what is not protected


def test_paraphrases_are_read_in_either_shape_and_are_no_items(tmp_path: Path) -> None:
    row = {"question": "How many hares?", "answer": "Four.\n#### 4"}
    told = {"question": "What number of hares?", "answer": "It is four.\n#### 4"}
    write_jsonl(tmp_path / "gsm8k" / "test.jsonl", [row])
    write_jsonl(tmp_path / "gsm8k" / "paraphrases" / "a.jsonl.gz", [told])
    both = row | {f"rewritten_{name}": text for name, text in told.items()}
    write_jsonl(tmp_path / "gsm8k" / "paraphrases" / "b.jsonl", [both])
    (benchmark,) = find_benchmarks(str(tmp_path))
    assert [Path(name).name for name in benchmark.paraphrases] == ["a.jsonl.gz", "b.jsonl"]
    parts = {"question": "What number of hares?", "answer": "It is four.\n"}
    found = list(read_paraphrases(benchmark))
    assert [item.id for item in found] == ["gsm8k/a/0", "gsm8k/b/0"]
    assert [item.parts for item in found] == [parts, parts]
    assert [item.id for item in read_items(benchmark)] == ["gsm8k/test/0"]
    before = fingerprint(benchmark)
    assert len(before) == 3
    write_jsonl(tmp_path / "gsm8k" / "paraphrases" / "b.jsonl", [told])
    assert fingerprint(benchmark) != before


def test_benchmarks_in_an_object_store_are_read_like_files(bucket: Path) -> None:
    row = {"question": "How many hares?", "answer": "Four.\n#### 4"}
    told = {"question": "What number of hares?", "answer": "It is four.\n#### 4"}
    write_text(bucket / "gsm8k" / "test.jsonl", json.dumps(row))
    write_text(bucket / "gsm8k" / "paraphrases" / "a.jsonl", json.dumps(told))
    paraphrases = (f"{bucket}/gsm8k/paraphrases/a.jsonl",)
    (benchmark,) = find_benchmarks(str(bucket))
    assert benchmark == Benchmark("gsm8k", f"{bucket}/gsm8k", paraphrases=paraphrases)
    check_files(benchmark)
    assert [item.id for item in read_items(benchmark)] == ["gsm8k/test/0"]
    assert [item.id for item in read_paraphrases(benchmark)] == ["gsm8k/a/0"]
    before = fingerprint(benchmark)
    assert [line.split()[0] for line in before] == ["test.jsonl", "a.jsonl"]
    write_text(bucket / "gsm8k" / "paraphrases" / "a.jsonl", json.dumps(row))
    after = fingerprint(benchmark)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_missing_paraphrases_are_an_error(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "gsm8k.jsonl", [GOOD])
    benchmark = Benchmark("gsm8k", str(tmp_path / "gsm8k.jsonl"), paraphrases=("nowhere.jsonl",))
    with pytest.raises(ValueError, match=r"paraphrases: nowhere.jsonl is not a file"):
        check_files(benchmark)
    check_files(Benchmark("gsm8k", str(tmp_path / "gsm8k.jsonl")))


def test_default_benchmarks_that_are_missing_are_named() -> None:
    assert set(DEFAULT_BENCHMARKS) <= set(LAYOUTS)
    named = [
        Benchmark(name, "x") for name in DEFAULT_BENCHMARKS if name not in ("arc_easy", "gsm8k")
    ]
    assert unprotected([*named, Benchmark("trivia", "x")]) == ["ARC-E", "GSM8K"]
    assert len(unprotected([])) == 7
