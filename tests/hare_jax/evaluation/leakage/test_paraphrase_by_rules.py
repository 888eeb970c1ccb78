"""Rules change the order of words and options, and nothing else."""

from __future__ import annotations

import re

import pytest

from hare_jax.evaluation.leakage.items import AuditItem
from hare_jax.evaluation.leakage.paraphrase_by_rules import paraphrase


def _told(question: str) -> str:
    items = paraphrase([AuditItem("1", question, "7")], seed=0)
    return items[0].question if items else question


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ("If it rains, the hares stay.", "The hares stay if it rains."),
        ("The hares stay because it rains.", "Because it rains, the hares stay."),
        ("In 7 days, Sofie will walk 9 miles.", "Sofie will walk 9 miles in 7 days."),
        ("Zoey and Sydney each have one.", "Sydney and Zoey each have one."),
        ("If he runs, how far is it?\nAnn ate.", "How far is it if he runs?\nAnn ate."),
        ("It costs $1.50 since Monday is dry.", "Since Monday is dry, it costs $1.50."),
        ("Gloria stays if it rains.", "If it rains, Gloria stays."),  # perhaps a name
    ],
)
def test_clauses_and_names_change_places(original: str, expected: str) -> None:
    assert _told(original) == expected


@pytest.mark.parametrize(
    "text",
    [
        "She has 40 seeds and spits one 10 feet.",
        "She asked him if it rains.",  # not a condition
        "He lives where pipes freeze if it is cold.",  # the condition of a part
        "It looks as if it rains.",
        "The ducks lay eggs, sleep, and swim.",
        "The And Of And For.",
    ],
)
def test_what_might_change_its_meaning_stays(text: str) -> None:
    assert _told(text) == text


def test_items_that_no_rule_changes_are_left_out() -> None:
    items = [AuditItem("1", "Hares run.", "7"), AuditItem("2", "If it rains, hares run.", "7")]
    assert [item.key for item in paraphrase(items, seed=0)] == ["2"]


def test_words_stay_the_same() -> None:
    text = "Ann and Bo met. If 3 pens cost $9, what do 5 pens cost? They paid because they had to."
    (item,) = paraphrase([AuditItem("1", text, "$15")], seed=0)
    words = [sorted(re.findall(r"[\w$]+", t.lower())) for t in (text, item.question)]
    assert words[0] == words[1]
    assert item.question != text


def test_options_are_shuffled_by_seed_and_the_right_one_stays_right() -> None:
    options = ("a snail", "a hare", "a mole", "an owl")
    items = [AuditItem(str(k), "Which is fast?", "a hare", options) for k in range(50)]
    once, again, other = (paraphrase(items, seed) for seed in (0, 0, 1))
    assert once == again != other
    assert len({item.choices for item in once}) > 10
    for item in once:
        assert item.choices != options
        assert sorted(item.choices) == sorted(options)
        assert item.answer == "a hare"
        letter = "ABCD"[item.choices.index("a hare")]
        assert item.text.endswith(f"Answer: {letter}. a hare")
    alone = [item for item in items if item.key == "17"]
    assert paraphrase(alone, 0) == [item for item in once if item.key == "17"]
