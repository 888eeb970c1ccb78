from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.text import seeded_random
from data_pipeline.text.passages import Passage, draw, length

LINES = st.sampled_from(
    [
        "",
        "  ",
        "# The life of hares",
        "Hares are fast. They live in forms! Do they dig? Dr. Hare says that they do not.",
        "A hare",
        "    indented = True",
        "def run(hare):",
        "```python",
        "```",
        "~~~",
        "Runs:",
        "=====",
        "word " * 30,
    ]
)
TEXTS = st.lists(LINES, max_size=40).map("\n".join)


def rng(seed: int = 0) -> random.Random:
    return seeded_random.seeded(seed, "test")


@given(TEXTS, st.integers(1, 30), st.integers(0, 60), st.integers(1, 9), st.booleans())
def test_passages_lie_in_the_text_and_do_not_overlap(
    text: str, least: int, more: int, count: int, code: bool
) -> None:
    found = draw(text, (least, least + more), count, rng(), code)
    assert len(found) <= count
    end = 0
    for passage in found:
        assert passage.start >= end
        end = passage.start + len(passage.text)
        assert text[passage.start : end] == passage.text
        assert least <= length(passage.text) <= least + more
        # at a boundary: of a line or sentence, before and behind
        assert not text[: passage.start].strip(" ") or text[passage.start - 1] in "\n "
        assert re.search(r"\A[ \t]*(\Z|\n)", text[end:]) or passage.text[-1] in '.!?"'
        if code:
            assert not passage.text[0].isspace()
    assert draw(text, (least, least + more), count, rng(), code) == found


def test_long_paragraphs_are_cut_between_sentences_only() -> None:
    text = " ".join(f"Hare {k} ran over the field to the tree." for k in range(50))
    found = draw(text, (20, 40), 3, rng())
    assert len(found) == 3
    for passage in found:
        assert re.fullmatch(r"(Hare \d+ ran over the field to the tree\. ?){2,4}", passage.text)


def test_a_sentence_that_is_too_long_is_in_no_passage() -> None:
    giant = "A " + "very " * 200 + "long hare."
    text = f"One hare ran. {giant} Two hares ran."
    assert {p.text for p in draw(text, (2, 20), 9, rng())} == {"One hare ran.", "Two hares ran."}


def test_headings_open_passages_but_do_not_close_them() -> None:
    text = "# One\n\nA hare ran up the hill.\n\nTwo\n===\n\nA fox ran down the hill.\n\n## Three"
    for seed in range(20):
        (passage,) = draw(text, (4, 9), 1, rng(seed))
        assert passage.text in (
            "# One\n\nA hare ran up the hill.",
            "A hare ran up the hill.",
            "Two\n===\n\nA fox ran down the hill.",
            "A fox ran down the hill.",
        )


def test_a_fence_is_never_cut() -> None:
    text = "Hares run so:\n\n```\nrun(hare)\n\nrun(fox)\n```\n\nThat was the code of it."
    for seed in range(20):
        for passage in draw(text, (1, 40), 2, rng(seed)):
            assert passage.text.count("```") != 1


def test_code_is_counted_by_characters_too() -> None:
    line = "hares[i]=sum(values[j]*weights[j]for(j)in(range(len(values))))\n"
    assert length(line * 10) > 100 > 10 == len((line * 10).split())
    assert draw(line * 10, (1, 50), 1, rng(), code=True) == []


def test_chance_reaches_every_part() -> None:
    text = "\n\n".join(f"Paragraph {k} tells of hares and of their lives." for k in range(10))
    starts = {draw(text, (8, 9), 1, rng(seed))[0].start for seed in range(200)}
    assert len(starts) == 10


def test_passages_do_not_overlap() -> None:
    text = "\n\n".join(f"Paragraph {k} tells of hares and of their lives." for k in range(10))
    for seed in range(50):
        found = draw(text, (8, 30), 10, rng(seed))
        told = [k for passage in found for k in re.findall(r"\d+", passage.text)]
        assert len(told) == len(set(told)) and len(found) >= 4


def test_code_begins_at_a_line_that_is_not_indented() -> None:
    text = "\n\n".join(f"def run_{k}(hare):\n    first()\n\n    second()" for k in range(5))
    starts = [p.text[:5] for seed in range(30) for p in draw(text, (1, 8), 9, rng(seed), code=True)]
    assert set(starts) == {"def r"}
    assert any(p.text.startswith("    s") for p in draw(text, (1, 2), 9, rng()))


@pytest.mark.parametrize("words", [(0, 5), (6, 5), (-1, -1)])
def test_impossible_lengths_are_refused(words: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"words: got .*expected 0 < minimum <= maximum"):
        draw("A hare.", words, 1, rng())


def test_empty_text_has_no_prose() -> None:
    for text in ("", "\n\n\n", "   ", "\t\n \n"):
        assert draw(text, (1, 10), 3, rng()) == []
    assert draw("A hare.", (1, 10), 3, rng()) == [Passage("A hare.", 0)]
