"""Short items are found with a word replaced, in their order, and only in short documents."""

import random

import numpy as np
import pytest

from data_pipeline.decontamination import short_items
from data_pipeline.decontamination.word_information import word_bits
from data_pipeline.text.ngrams import Words, words
from tests.data_pipeline.builders import nonsense

ITEM = "Which gas do plants take in from the air during photosynthesis? carbon dioxide"


def built(parts: list[str], most: int = 10) -> tuple[short_items.ShortItems, Words]:
    found = words(parts)
    everything = np.ones(len(parts), bool)
    items = np.arange(len(parts))
    return short_items.build_short_items(found, everything, everything, items, most), found


def search(
    texts: list[str], parts: list[str], share: float = short_items.MIN_SHARE
) -> dict[int, float]:
    short, found = built(parts)
    best: dict[int, float] = {}
    for alignment in short_items.search(words(texts), short, found, share):
        best[alignment.document] = max(best.get(alignment.document, 0.0), alignment.share)
    return best


def oracle(text: str, part: str) -> float:
    """The share of bits in the longest common subsequence, by the book."""
    one, other = words([text]).hashes_W, words([part]).hashes_W
    bits = word_bits(other)
    best = np.zeros((len(one) + 1, len(other) + 1))
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            match = best[i, j] + (bits[j] if a == b else 0.0)
            best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], match)
    return float(best[-1, -1] / bits.sum())


@pytest.mark.parametrize("place", range(len(ITEM.split())))
def test_any_one_word_may_be_replaced(place: int) -> None:
    changed = ITEM.split()
    changed[place] = "tomatoes"
    assert search([" ".join(changed)], [ITEM]).keys() == {0}


@pytest.mark.parametrize("place", range(1, 5))
def test_a_replaced_word_may_leave_no_run_of_four(place: int) -> None:
    item = "Pasteur developed vaccine against rabies, yes?"
    changed = item.split()
    changed[place] = "tomatoes"
    assert search([" ".join(changed)], [item]).keys() == {0}


def test_shares_are_those_of_the_longest_common_subsequence() -> None:
    rng = random.Random(1)
    parts = [nonsense(rng.randrange(6, 20), k) for k in range(30)]
    texts = []
    for part in parts:
        text = part.split()
        for _ in range(rng.randrange(3)):
            text[rng.randrange(len(text))] = nonsense(1, rng.randrange(10**6))
        if rng.random() < 0.5:
            text.insert(rng.randrange(len(text)), "inserted")
        texts.append(" ".join(text))
    found = search(texts, parts, share=0.3)
    assert len(found) > 20
    for d, share in found.items():
        assert share == pytest.approx(oracle(texts[d], parts[d]))


def test_the_words_in_another_order_are_no_item() -> None:
    reordered = "take in during photosynthesis dioxide carbon air the from plants do gas which"
    assert search([reordered], [ITEM]) == {}


def test_a_document_much_longer_than_the_item_is_not_looked_at() -> None:
    edited = ITEM.replace("plants", "flowers")
    assert search([f"{edited} {nonsense(20)}"], [ITEM]).keys() == {0}
    assert search([f"{edited} {nonsense(40)}"], [ITEM]) == {}


def test_a_document_that_is_a_short_question_and_nothing_else_is_found() -> None:
    question = "Can reindeer really fly?"
    texts = ["CAN reindeer -- really fly", f"{question} Yes.", "Can reindeer fly?", "Reindeer?"]
    assert search(texts, [question, "Reindeer?"]) == {0: 1.0}


def test_what_many_items_have_is_a_phrase() -> None:
    phrase = "Which of the following statements is true"
    texts = [phrase]
    assert search(texts, [phrase] * 10) == {0: 1.0}
    assert search(texts, [phrase] * 11) == {}


def test_documents_beside_each_other_are_kept_apart() -> None:
    first, second = " ".join(ITEM.split()[:6]), " ".join(ITEM.split()[6:])
    edited = ITEM.replace("plants", "flowers")
    assert search([first, second, edited, first], [ITEM]).keys() == {2}
    assert search([f"{first} {second}"], [ITEM]).keys() == {0}


def test_the_place_is_that_of_the_passage_in_the_batch() -> None:
    edited = ITEM.replace("plants", "flowers")
    short, found = built([ITEM])
    texts = [nonsense(100), "", f"{nonsense(5)} {edited}"]
    (alignment,) = short_items.search(words(texts), short, found, 0.8)
    assert (alignment.document, alignment.first) == (2, 105)
    assert alignment.length == len(ITEM.split())
