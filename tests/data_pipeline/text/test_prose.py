from __future__ import annotations

import random

import pytest

from data_pipeline.text import distractors, prose


def test_sections_leave_out_what_is_no_prose() -> None:
    text = (
        "Title of it\n===========\n\nFirst sentence here. Second one *is* ``here``.\n\n"
        "- a list\n- of things\n\n    code = 1\n\n```\nfenced code.\n```\n\n| a | table |\n\n"
        "## Sub heading\n>>> doctest()\n\nWrapped prose that goes on\nto a second line.\n\n"
        "Lone Title\n\nName    Columns\n\nIt has a name, __init__, in it."
    )
    assert [(s.heading, s.paragraphs) for s in prose.sections(text)] == [
        ("Title of it", [["First sentence here.", "Second one is `here`."]]),
        ("Sub heading", [["Wrapped prose that goes on to a second line."]]),
        ("Lone Title", [["It has a name, __init__, in it."]]),
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. J. R. Hare of the U.S. team, e.g. No. 7, won in Jan. 2020.",
        "The price rose by 3.5 percent.",
        'He said "Run. Fast." and ran.',
    ],
)
def test_abbreviations_end_no_sentence(sentence: str) -> None:
    expected = [sentence, "Next one."]
    found = prose.sentences(sentence + " Next one.")
    assert found == expected or '"' in sentence  # inside a quotation either is right
    assert " ".join(found) == sentence + " Next one."


@pytest.mark.parametrize(
    ("sentence", "plain"),
    [
        ("The hare ran as fast as it could.", True),
        ("Set `x` to 3, and it (usually) works well.", True),
        ("the hare ran as fast as it could.", False),  # cut at its beginning
        ("The hare ran as fast as it", False),  # and at its end
        ("The hare ran (as fast as it could.", False),
        ("Mail <EMAIL> if the hare is too fast.", False),
        ("Let $x = y^2$ be the speed of it.", False),
        ("Hares run.", False),
        ("In 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 we trust.", False),
        ("Question: What does a hare eat in the winter?", False),
        ("P. These disclosures help to frame the case.", False),
    ],
)
def test_plain_sentences(sentence: str, plain: bool) -> None:
    assert prose.is_plain(sentence) is plain


def test_leaning_sentences() -> None:
    assert prose.stands_alone("Hares are fast.")
    assert not prose.stands_alone('"It is fast.')
    assert not prose.stands_alone("However, hares are fast.")


def test_stand_ins_are_of_the_same_shape_and_not_in_the_text() -> None:
    vocabulary = distractors.DistractorPool.from_sentences(
        [f"A {x} in {y} was {z} in {n}." for x, y, z, n in zip(
            ("tower", "house", "bridge", "tunnel", "castle", "garden"),
            ("Berlin", "Paris", "Madrid", "Vienna", "London", "Lisbon"),
            ("wanted", "started", "planned", "painted", "moved", "closed"),
            ("1907", "1958", "2004", "1989", "1977", "1966"), strict=True)]
    )  # fmt: skip
    for word, kind in (
        ("Berlin", "name"),
        ("wanted", "-ed"),
        ("1907", "4 digits"),
        ("tower", "word"),
    ):
        found = vocabulary.distractors(
            word, "in", "Paris, 1958, started, house", 3, random.Random(0)
        )
        assert len(set(found)) == 3 and word not in found
        assert all(distractors.shape(other) == kind for other in found)
        assert not {"Paris", "1958", "started", "house"} & set(found)
    assert vocabulary.distractors("Berlin", "in", "", 6, random.Random(0)) == []
    assert "Madrid" not in vocabulary.distractors(
        "Berlin", "in", "", 4, random.Random(0), excluded={"Madrid"}
    )


def test_blanks() -> None:
    sentence = "The hare and the tortoise saw a hare near `the fence` in 1907, in Berlin."
    assert [m[0] for m in distractors.cloze_positions(sentence)] == [
        "tortoise",
        "near",
        "1907",
        "Berlin",
    ]
