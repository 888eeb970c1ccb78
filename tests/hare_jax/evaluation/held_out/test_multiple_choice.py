from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hare_jax.evaluation.held_out import multiple_choice
from hare_jax.evaluation.held_out.multiple_choice import EvalItem, ScoredItem, encode_pair
from hare_jax.inference.requests import Score, ScoreRequest

GOOD = {
    "id": "docs/7#0",
    "task": "cloze",
    "source": "docs",
    "context": "The hare is",
    "choices": [" fast.", " a stone."],
    "answer": 0,
}


def encode(text: str) -> list[int]:
    """As SentencePiece does: a space joins the word after it, and a text begins with a mark."""
    tokens, rest = [], text
    while rest:
        piece = rest[:2] if rest[0] == " " else rest[:1]
        mark = 10**9 if not tokens else 0
        tokens.append(mark + sum(ord(c) * 256**i for i, c in enumerate(piece)))
        rest = rest[len(piece) :]
    return tokens


def item(answer: int = 0, task: str = "cloze", source: str = "docs", **fields: Any) -> EvalItem:
    return EvalItem(
        **{**GOOD, "answer": answer, "task": task, "source": source, "line": 1, **fields}
    )


def write(path: Path, *lines: Any) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_items_are_read_with_their_line(tmp_path: Path) -> None:
    (one, two) = multiple_choice.read_items(write(tmp_path / "items.jsonl", GOOD, "", GOOD))
    assert (one.line, two.line) == (1, 3)
    assert one.choices == [" fast.", " a stone."]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 2}, "'answer' is 2, expected 0 to 1: there are 2 choices"),
        ({"answer": -1}, "'answer' is -1, expected 0 to 1"),
        ({"answer": True}, "'answer' is of type bool, expected int"),
        ({"answer": "0"}, "'answer' is of type str, expected int"),
        ({"choices": [" one"]}, "'choices' must be two texts or more"),
        ({"choices": [" one", 2]}, "'choices' must be two texts or more"),
        ({"context": None}, "'context' is of type NoneType, expected str"),
    ],
)
def test_a_wrong_item_is_refused_by_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "items.jsonl", GOOD, {**GOOD, **change})
    with pytest.raises(ValueError) as error:
        multiple_choice.read_items(path)
    assert str(error.value).startswith(f"{path}:2: {message}")


@pytest.mark.parametrize("missing", list(GOOD))
def test_a_missing_field_is_named(tmp_path: Path, missing: str) -> None:
    row = {name: value for name, value in GOOD.items() if name != missing}
    path = write(tmp_path / "items.jsonl", row)
    with pytest.raises(
        ValueError, match=f":1: the field '{missing}' is missing: expected id, task"
    ):
        multiple_choice.read_items(path)


def test_a_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"items.jsonl:2: Expecting value"):
        multiple_choice.read_items(write(tmp_path / "items.jsonl", GOOD, "no json"))
    with pytest.raises(ValueError, match=r"items.jsonl:1: got list, expected an object with id"):
        multiple_choice.read_items(write(tmp_path / "items.jsonl", "[]"))


def test_no_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"items.jsonl: no evaluation items"):
        multiple_choice.read_items(write(tmp_path / "items.jsonl", ""))


def test_context_and_continuation_are_tokenized_as_one_text() -> None:
    assert encode_pair(encode, "ab", " cd") == (encode("ab cd")[:2], encode("ab cd")[2:])


def test_trailing_white_space_moves_to_the_continuation() -> None:
    assert encode_pair(encode, "ab ", "cd") == encode_pair(encode, "ab", " cd")
    assert encode_pair(encode, " ", "cd") == ([], encode(" cd"))
    assert encode_pair(encode, "", "cd") == ([], encode("cd"))


def test_requests_begin_with_bos() -> None:
    _, requests, failed = multiple_choice.requests([item()], encode, bos_id=1, max_length=99)
    first, alone, second, _ = requests
    assert not failed
    context = encode("The hare is")
    assert first == ScoreRequest([1, *context], encode("The hare is fast.")[len(context) :])
    assert alone == ScoreRequest([1], first.continuation)
    assert second == ScoreRequest([1, *context], encode("The hare is a stone.")[len(context) :])


def test_items_that_cannot_be_scored_are_left_out_and_described() -> None:
    empty, long = item(choices=[" fast", ""]), item(choices=[" a", " fast" * 20])
    items = [empty, item(), long]
    kept, requests, failed = multiple_choice.requests(items, encode, bos_id=1, max_length=40)
    assert kept == [items[1]]
    assert requests == multiple_choice.requests([item()], encode, bos_id=1, max_length=40)[1]
    assert "'docs/7#0'): choice 1, '', adds 0 tokens to its context, expected 1 to 40" in failed[0]
    assert "choice 1" in failed[1]
    with pytest.raises(ValueError, match="no item can be scored; line 1 of the evaluation items"):
        multiple_choice.requests([empty], encode, bos_id=1, max_length=40)


def test_each_item_gets_the_scores_of_its_choices() -> None:
    items = [item(choices=[" a", " b", " c"]), item(choices=[" a", " b"])]
    scores = [Score(-float(n), False, 1) for n in range(10)]
    scored = multiple_choice.assign(items, scores)
    assert [s.log_likelihoods for s in scored] == [[0, -2, -4], [-6, -8]]
    assert [s.alone for s in scored] == [[-1, -3, -5], [-7, -9]]


def test_mutual_information_is_what_the_context_adds() -> None:
    """The second choice is common anywhere; the first one is likely here."""
    answered = ScoredItem(item(choices=[" rare", " the"]), [-5.0, -2.0], alone=[-9.0, -2.0])
    assert (answered.prediction, answered.prediction_mutual_info) == (1, 0)


def test_the_normalized_prediction_is_by_utf8_byte_without_the_joining_space() -> None:
    choices = [" abcd", " é"]  # 4 bytes; 2 bytes
    assert ScoredItem(item(choices=choices), [-4.4, -2.0], []).prediction == 1
    assert ScoredItem(item(choices=choices), [-4.4, -2.0], []).prediction_norm == 1  # -1.1, -1.0
    assert ScoredItem(item(choices=choices), [-3.6, -2.0], []).prediction_norm == 0  # -0.9, -1.0


def test_the_table_by_hand() -> None:
    """Four items; the long wrong choice wins in sum only where its log-likelihood is greater."""
    four = [" a", " b", " c", " d"]
    answered = [
        ScoredItem(item(0, "cloze", "docs"), [-1.0, -2.0], [-3.0, -3.0]),  # right
        ScoredItem(
            item(1, "cloze", "web"), [-5.0, -6.0], [-4.0, -6.0]
        ),  # wrong; right a byte: -1, -0.75
        ScoredItem(
            item(2, "cloze", "web", choices=four), [-4.0, -3.0, -1.0, -2.0], [-4.0] * 4
        ),  # right
        ScoredItem(
            item(3, "fact", "web", choices=four), [-1.0, -2.0, -3.0, -4.0], [0.0] * 4
        ),  # wrong
    ]
    rows = multiple_choice.table({"trained": answered}, by="task")
    cloze, fact, everything = rows
    assert [row["task"] for row in rows] == ["cloze", "fact", "all"]
    assert cloze == {
        "task": "cloze",
        "items": 3,
        "choices": pytest.approx(8 / 3),
        "chance": pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3),
        "accuracy": {"trained": pytest.approx(2 / 3)},
        "stderr": {"trained": pytest.approx(math.sqrt(2 / 3 * 1 / 3 / 2))},
        "accuracy_norm": {"trained": 1.0},
        "stderr_norm": {"trained": 0.0},
        "accuracy_mutual_info": {"trained": 1.0},
        "stderr_mutual_info": {"trained": 0.0},
        "gold_log_likelihood": {"trained": pytest.approx((-1 - 6 - 1) / 3)},
    }
    assert (fact["accuracy"], fact["stderr"]) == ({"trained": 0.0}, {"trained": None})
    assert (everything["items"], everything["accuracy"]) == (4, {"trained": 0.5})
    by_source = multiple_choice.table({"trained": answered}, by="source")
    assert [(row["source"], row["items"]) for row in by_source] == [
        ("docs", 1),
        ("web", 3),
        ("all", 4),
    ]
