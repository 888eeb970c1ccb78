"""A teacher's paraphrases are used if they ask the same and have the same answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hare_jax.config import LeakageAudit, LeakageParaphrasing
from hare_jax.evaluation.leakage import items, paraphrase_by_teacher
from hare_jax.evaluation.leakage.items import AuditItem
from hare_jax.evaluation.leakage.paraphrase_by_teacher import (
    ParaphraseReply,
    ParaphraseRequest,
    RejectedParaphrase,
)
from tests.builders import read_jsonl, write_jsonl

QUESTION = (
    "Olga bought seventeen copper kettles from a merchant for $1,020. She lends 5 of them to the "
    "lighthouse keeper. How many kettles remain?"
)
ANSWER = "She had 17 kettles and lent 5 of them.\nSo 17 - 5 = <<17-5=12>>12 remain.\n#### 12"
NEW_QUESTION = (
    "A merchant sold 17 kettles of copper to Olga, who paid $1020. If the keeper of the lighthouse "
    "borrows five, what is the number of kettles that remain with her?"
)
NEW_ANSWER = "Of the 17 that Olga owned, 5 are lent, which leaves 17 - 5 = <<17-5=12>>12.\n#### 12"
WORKED = AuditItem("1", QUESTION, ANSWER)
CHOICE = AuditItem(
    "2", "Which animal of the meadow is fast?", "a hare", ("a snail", "a hare", "a mole")
)
SHORT = AuditItem("3", "In which town did the old painter live?", "in Delft")


def _answer(**fields: Any) -> ParaphraseReply:
    return ParaphraseReply([fields])


def test_an_open_item_is_told_anew_with_its_answer() -> None:
    told = paraphrase_by_teacher.read(
        WORKED, _answer(question=f" {NEW_QUESTION}\n", answer=NEW_ANSWER), seed=0
    )
    assert told == AuditItem("1", NEW_QUESTION, NEW_ANSWER)


def test_options_and_short_answers_stay_word_for_word() -> None:
    told = paraphrase_by_teacher.read(
        CHOICE, _answer(question="Of these animals, which is the fast one?"), seed=0
    )
    assert isinstance(told, AuditItem)
    assert told.answer == "a hare" and told.choices != CHOICE.choices
    assert sorted(told.choices) == sorted(CHOICE.choices)
    told = paraphrase_by_teacher.read(
        SHORT, _answer(question="The old painter lived in which town?"), seed=0
    )
    assert told == AuditItem("3", "The old painter lived in which town?", "in Delft")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ParaphraseReply([], "busy"), RejectedParaphrase("no_answer", {"error": "busy"})),
        (ParaphraseReply([]), RejectedParaphrase("no_object", {"objects": 0})),
        (
            ParaphraseReply([{"question": "a"}, {"question": "b"}]),
            RejectedParaphrase("no_object", {"objects": 2}),
        ),
        (_answer(question=NEW_QUESTION), "wrong_fields"),
        (_answer(question=NEW_QUESTION, answer=NEW_ANSWER, note="done"), "wrong_fields"),
        (_answer(question=NEW_QUESTION, answer=12), "wrong_fields"),
        (_answer(question=NEW_QUESTION, answer=" "), "wrong_fields"),
        (
            _answer(question=QUESTION, answer=NEW_ANSWER),
            RejectedParaphrase("overlap", {"share": 1.0}),
        ),
        (_answer(question=QUESTION.replace("merchant", "trader"), answer=NEW_ANSWER), "overlap"),
        (
            _answer(question=NEW_QUESTION.replace("five", "six"), answer=NEW_ANSWER),
            RejectedParaphrase("numbers", {"lost": [5.0], "added": [6.0]}),
        ),
        (
            _answer(question=NEW_QUESTION.replace(", who paid $1020", ""), answer=NEW_ANSWER),
            RejectedParaphrase("numbers", {"lost": [1020.0], "added": []}),
        ),
        (
            _answer(question=NEW_QUESTION, answer=NEW_ANSWER.replace("#### 12", "#### 13")),
            RejectedParaphrase("result", {"expected": "#### 12", "got": "#### 13"}),
        ),
        (_answer(question=NEW_QUESTION, answer=NEW_ANSWER.replace("####", "")), "result"),
        (_answer(question=NEW_QUESTION, answer="#### 12"), "length"),
        (_answer(question=NEW_QUESTION * 4, answer=NEW_ANSWER), "length"),
        (_answer(question=f"{'What of 17, 1020, and 5? ' * 3}", answer=NEW_ANSWER), "different"),
    ],
)
def test_what_is_no_rewriting_is_refused(
    answer: ParaphraseReply, expected: RejectedParaphrase | str
) -> None:
    found = paraphrase_by_teacher.read(WORKED, answer, seed=0)
    assert isinstance(found, RejectedParaphrase)
    assert found == expected or found.reason == expected


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("#### 1,200", "That is it.\n#### 1200", True),
        (r"so \boxed{\frac{1}{2}}", r"hence $\boxed{\frac{1}{2}}$.", True),
        (r"so \boxed{\frac{1}{2}}", r"hence \boxed{\frac{1}{3}}.", False),
        ("It takes 3 days, and 40 hours.", "40", True),
        ("It takes 3 days, and 40 hours.", "It is 40 hours or 3 days.", False),
        ("Because hares run faster.", "As hares are faster.", True),
    ],
)
def test_results_are_the_same_however_they_are_written(old: str, new: str, same: bool) -> None:
    assert (paraphrase_by_teacher.result(old) == paraphrase_by_teacher.result(new)) is same


class Teacher:
    """Answers some questions well at once, some at the second sample, the others never."""

    def __init__(self) -> None:
        self.asked: list[ParaphraseRequest] = []

    def __call__(self, questions: Sequence[ParaphraseRequest]) -> Iterator[ParaphraseReply]:
        self.asked += questions
        for question in questions:
            number = int(question.messages[-1][1].partition("keeper")[2].split()[0])
            good = number % 3 == 0 or (number % 3 == 1 and question.sample % 2 == 1)
            told = f"Who keeps hares by night, is it keeper {number}? ({question.sample})"
            yield _answer(question=told if good else _keeper(number))


def _keeper(number: int) -> str:
    return f"Tell us whether keeper {number} feeds the hares at night?"


def _rows() -> list[dict[str, Any]]:
    return [
        {"quiz": {"text": _keeper(k), "options": ["yes", "no", "at times"]}, "right": "B", "at": k}
        for k in (9, 10, 11, 12)
    ]


def _config(tmp_path: Path, **fields: Any) -> LeakageParaphrasing:
    path = tmp_path / "quiz_original.jsonl"
    write_jsonl(path, _rows())
    names = {"question": "quiz.text", "choices": "quiz.options", "answer": "right"}
    return LeakageParaphrasing(**({"original": str(path), "max_attempts": 2} | names | fields))


def test_what_is_refused_is_asked_for_again_and_then_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = Teacher()
    written = paraphrase_by_teacher.run(
        _config(tmp_path, versions=2), teacher, tmp_path, made_by="teacher-7b"
    )
    assert [path.name for path in written.values()] == [
        "quiz_rewritten_1.jsonl",
        "quiz_rejected.jsonl",
        "quiz_rewritten_2.jsonl",
    ]
    told = read_jsonl(written["version 1"])
    assert [row["at"] for row in told] == [9, 10, 12]  # in the items' order, and with their lines
    assert {row["paraphrased_by"] for row in told} == {"teacher-7b"}
    samples = [question.sample for question in teacher.asked]
    assert samples == [0] * 4 + [1] * 2 + [2] * 4 + [3] * 2
    refused = read_jsonl(written["rejected"])
    assert [(row["version"], row["attempt"], row["reason"]) for row in refused] == [
        (1, 1, "overlap"),
        (1, 1, "overlap"),
        (1, 2, "overlap"),
        (2, 1, "overlap"),
        (2, 1, "overlap"),
        (2, 2, "overlap"),
    ]
    assert refused[2]["answer"] == [{"question": _keeper(11)}]
    said = capsys.readouterr().out
    assert "quiz, version 1: 3 of 4 items paraphrased; 1 left out: 1 overlap" in said


def test_the_audit_finds_each_original(tmp_path: Path) -> None:
    config = _config(tmp_path, versions=2)
    paraphrase_by_teacher.run(config, Teacher(), tmp_path, made_by="teacher-7b")
    fields = {name: getattr(config, name) for name in ("question", "choices", "answer")}
    audited = LeakageAudit(folder=str(tmp_path), **fields)
    (files,) = items.files_of(audited)
    pair = items.pair(files, audited)
    assert not pair.unpaired_because and [len(version) for version in pair.paraphrased] == [3, 3]
    originals = {item.key: item for item in pair.original}
    for version in pair.paraphrased:
        for item in version:
            assert item.answer == originals[item.key].answer == "no"
            assert item.choices != originals[item.key].choices
            number = originals[item.key].question.split()[4]  # keeper 9
            assert f"keeper {number}" in item.question != originals[item.key].question


def test_what_is_asked_fits_the_item() -> None:
    def asked(item: AuditItem) -> ParaphraseRequest:
        seen: list[ParaphraseRequest] = []

        def ask(questions: Sequence[ParaphraseRequest]) -> list[ParaphraseReply]:
            seen.extend(questions)
            return [ParaphraseReply([])]

        paraphrase_by_teacher.paraphrase(
            [item], ask, LeakageParaphrasing(max_attempts=1, answer_tokens=99), version=1
        )
        return seen[0]

    question = asked(WORKED)
    text = question.messages[-1][1]
    assert QUESTION in text and ANSWER in text and "write #### 12 as it stands there" in text
    assert question.schema["required"] == ["question", "answer"]
    assert (question.id, question.max_tokens) == ("1", 99)
    question = asked(CHOICE)
    assert question.schema["required"] == ["question"]
    assert "- a snail\n- a hare\n- a mole" in question.messages[-1][1]
    assert SHORT.answer not in asked(SHORT).messages[-1][1]


def test_a_teacher_of_no_use_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no paraphrase that can be used, of 4 items \(4 no_o"):
        paraphrase_by_teacher.run(
            _config(tmp_path, max_attempts=1),
            lambda asked: [ParaphraseReply([])] * len(asked),
            tmp_path,
            "x",
        )
    assert len(read_jsonl(tmp_path / "quiz_rejected.jsonl")) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_attempts": 0}, r"items.max_attempts: got 0, expected at least 1"),
        ({"versions": 0}, r"items.versions: got 0, expected at least 1"),
        ({"original": "none.jsonl"}, r"none.jsonl: no such file; .* --config.items.original"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        paraphrase_by_teacher.run(
            _config(tmp_path, **fields), lambda asked: pytest.fail("asked"), tmp_path, "x"
        )
