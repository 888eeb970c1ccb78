"""Files of items: as benbench has them, or others by their fields; mistakes are reported."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path
from typing import Any

import pytest

from hare_jax.config import LeakageAudit
from hare_jax.evaluation.leakage import audit, compare, items
from hare_jax.evaluation.leakage.items import AuditItem
from hare_jax.evaluation.leakage.ngrams import NgramAccuracy
from tests.builders import write_jsonl

ORIGINAL = [{"question": f"q{k}", "answer": f"a{k}"} for k in range(3)]
REWRITTEN = [
    {**row, "rewritten_question": f"Q{k}", "rewritten_answer": f"A{k}"}
    for k, row in reversed(list(enumerate(ORIGINAL)))
]


def _config(tmp_path: Path, original: list[Any], rewritten: list[Any], **f: Any) -> LeakageAudit:
    return LeakageAudit(
        original=str(write_jsonl(tmp_path / "original.jsonl.gz", original)),
        paraphrased=str(write_jsonl(tmp_path / "told.jsonl", rewritten)),
        **f,
    )


def _pair(config: LeakageAudit) -> items.Pair:
    (files,) = items.files_of(config)
    return items.pair(files, config)


def test_paraphrases_find_their_originals_by_text_in_any_order(tmp_path: Path) -> None:
    pair = _pair(_config(tmp_path, ORIGINAL, REWRITTEN))
    assert not pair.unpaired_because
    keys = {item.key: item.text for item in pair.original}
    assert {keys[item.key]: item.text for item in pair.paraphrased[0]} == {
        f"q{k} a{k}": f"Q{k} A{k}" for k in range(3)
    }


def test_paraphrases_find_their_originals_by_id(tmp_path: Path) -> None:
    original = [{"id": k, "question": f"q{k}", "answer": ""} for k in range(2)]
    told = [{"id": str(k), "question": f"Q{k}", "answer": ""} for k in (1, 0)]
    same = {"paraphrased_question": "question", "paraphrased_answer": "answer"}
    pair = _pair(_config(tmp_path, original, told, **same))
    assert [item.key for item in pair.paraphrased[0]] == ["1", "0"] and not pair.unpaired_because


def test_paraphrases_that_name_no_original_are_compared_as_sets(tmp_path: Path) -> None:
    told = [{"rewritten_question": "Q", "rewritten_answer": "A"}]
    pair = _pair(_config(tmp_path, ORIGINAL, [*REWRITTEN, *told]))
    assert pair.unpaired_because == "1 of 4 paraphrased items name no original"
    answers = [[[0.2, 1.0, []]] * 3, [[0.4, 2.0, []]] * 3 + [[0.0, 2.0, []]]]
    side = compare.sides(pair, answers)
    assert [m.accuracy for m in side.paraphrased] == [0.4, 0.4, 0.4, 0.0]
    (result,) = compare.judge_sets([pair], [answers], LeakageAudit(), has_control=False)
    assert result["delta"]["value"] == pytest.approx(-0.1) and not result["paired"]
    assert result["verdict"] == "inconclusive"  # of so few items


def test_versions_of_an_item_count_as_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "other.jsonl", REWRITTEN[:1])
    config = _config(tmp_path, ORIGINAL, REWRITTEN[:2])
    config.paraphrased = str(tmp_path / "x*.jsonl")
    with pytest.raises(FileNotFoundError, match="no such file; expected the paraphrased items"):
        items.files_of(config)
    config.paraphrased = str(tmp_path / "[ot]*.jsonl")
    pair = _pair(config)
    assert [len(version) for version in pair.paraphrased] == [1, 2]
    # Item 2 has two versions, item 1 one, item 0 none.
    side = compare.sides(
        pair, [[[1.0, 1.0, []]] * 3, [[0.2, 1.0, []]], [[0.4, 3.0, []], [0.6, 1.0, []]]]
    )
    assert side.keys == [pair.original[1].key, pair.original[2].key]
    assert side.paraphrased == [
        NgramAccuracy(0.6, 1.0, []),
        NgramAccuracy(pytest.approx(0.3), 2.0, []),  # type: ignore[arg-type]
    ]


def test_a_folder_is_several_sets(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_jsonl(tmp_path / f"{name}_original.jsonl.gz", ORIGINAL)
        for version in (1, 2):
            write_jsonl(tmp_path / f"{name}_rewritten_{version}.jsonl.gz", REWRITTEN)
    sets = items.files_of(LeakageAudit(folder=str(tmp_path)))
    assert [(one.name, len(one.paraphrased)) for one in sets] == [("test", 2), ("train", 2)]


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        (["a", "b", "c"], "B"),
        (["a", "b", "c"], 1),
        (["a", "b", "c"], "b"),
        ({"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "2"),
        ([{"text": t, "label": k} for k, t in zip("123", "abc", strict=True)], "2"),
    ],
)
def test_choices_of_every_usual_shape(tmp_path: Path, choices: Any, answer: Any) -> None:
    row = {"question": {"stem": "q", "choices": choices}, "answerKey": answer, "id": "x"}
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    fields: dict[str, Any] = {
        "question": "question.stem",
        "choices": "question.choices",
        "answer": "answerKey",
    }
    assert items.read_original(path, LeakageAudit(**fields)) == [
        AuditItem("x", "q", "b", ("a", "b", "c"))
    ]


def test_items_that_differ_in_their_choices_alone_are_two(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": 0, "choices": ["a", other]} for other in "bcb"]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    found = items.read_original(path, LeakageAudit(choices="choices"))
    assert [item.choices for item in found] == [("a", "b"), ("a", "c")]


def test_paraphrases_with_much_overlap_show_no_set_clean(tmp_path: Path) -> None:
    words = "one two three four five six seven eight nine ten eleven"
    rows = [{"question": f"{k} {words}", "answer": "a"} for k in range(30)]
    told = [row | {"rewritten_question": f"{words} {k}", "rewritten_answer": "a"}
            for k, row in enumerate(rows)]  # fmt: skip
    pair = _pair(_config(tmp_path, rows, told))
    answers = [[[0.2, 1.0, []]] * 30] * 2
    (result,) = compare.judge_sets([pair], [answers], LeakageAudit(), has_control=False)
    assert result["overlap"] == pytest.approx(7 / 9)  # 11 words and a number, which was in front
    assert result["verdict"] == "inconclusive"
    apart = dataclasses.replace(pair, unpaired_because="they name no original")
    (result,) = compare.judge_sets([apart], [answers], LeakageAudit(), has_control=False)
    assert (result["overlap"], result["verdict"]) == (0.0, "clean")


def test_the_same_item_twice_counts_once(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*ORIGINAL, ORIGINAL[0]])
    assert len(items.read_original(path, LeakageAudit())) == 3


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([{"problem": "q", "answer": "a"}], {}, r"line 1: got the fields answer, problem, expected "
         r"'question'; name the field with the question by --config.question=NAME"),
        ([{"question": "q", "answer": 7}], {}, r"got 7 for 'answer', expected text; for multiple"),
        ([{"question": "q", "answer": "D", "c": ["a", "b"]}], {"choices": "c"},
         r"got the answer 'D', expected one of the 2 choices"),
        ([{"question": "q", "answer": "a", "c": "ab"}], {"choices": "c"},
         r"got 'ab' for the choices, expected a list of texts"),
        (["text"], {}, r"line 1: got '\"text\"', expected a JSON object"),
        ([], {}, r"got no lines, expected items"),
        ([{"id": 1, "question": q, "answer": "a"} for q in "xy"], {},
         r"got two items of the id '1', expected one; name the field"),
    ],
)  # fmt: skip
def test_bad_items_are_refused(
    tmp_path: Path, rows: list[Any], fields: dict[str, Any], message: str
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        items.read_original(path, LeakageAudit(**fields))


def test_bad_files_are_refused(tmp_path: Path) -> None:
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(b'{"question": "q", "answer": "a"}\n' * 99)[:-20])
    with pytest.raises(ValueError, match=r"cannot be read to its end .*copy the file again"):
        items.read_original(torn, LeakageAudit())
    half = tmp_path / "half.jsonl"
    half.write_text('{"question": "q", "ans')
    with pytest.raises(ValueError, match=r"half\.jsonl, line 1: got no JSON"):
        items.read_original(half, LeakageAudit())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "got neither of original and folder, expected one"),
        ({"original": "a", "folder": "b"}, "got both of original and folder, expected one"),
        ({"original": "a.jsonl"}, "a.jsonl: no such file; expected items"),
        ({"folder": "."}, "got no .jsonl or .jsonl.gz file, expected NAME_original.jsonl"),
    ],
)
def test_sets_that_are_not_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message):
        items.files_of(LeakageAudit(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ngram": 0}, "ngram: got 0, expected at least 1"),
        ({"confidence": 95.0}, r"confidence: got 95.0, expected a share such as 0.95"),
        ({"threshold": 5.0}, r"threshold: got 5.0, expected a difference of shares such as 0.05"),
        ({}, "checkpoint: got nothing, expected a run's folder"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit.run(LeakageAudit(**fields), Path())


def test_a_set_to_which_no_rule_applies_is_refused(tmp_path: Path) -> None:
    config = LeakageAudit(original=str(write_jsonl(tmp_path / "a.jsonl", ORIGINAL)))
    (files,) = items.files_of(config)
    with pytest.raises(ValueError, match="got no item that the rules can paraphrase"):
        audit.read(files, config)


def test_texts_too_short_to_compare_are_refused(tmp_path: Path) -> None:
    pair = _pair(_config(tmp_path, ORIGINAL, REWRITTEN))
    with pytest.raises(ValueError, match="got no item to compare, expected texts of at least"):
        compare.sides(pair, [[None] * 3, [None] * 3])
