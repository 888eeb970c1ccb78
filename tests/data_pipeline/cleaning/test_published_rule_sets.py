from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.cleaning import published_rule_sets
from data_pipeline.cleaning.published_rule_sets import BrokenRule
from data_pipeline.cleaning.rules import build as build_cleaning
from data_pipeline.cleaning.stage import clean
from data_pipeline.config import (
    C4,
    Cleaning,
    CleaningProfile,
    FineWeb,
    GopherQuality,
    GopherRepetition,
    Recipe,
)
from data_pipeline.storage.document import Document, Dropped
from tests.data_pipeline.builders import (
    documents_of,
    dropped_documents,
    kept_documents,
    runner_at,
    stage_of_documents,
)

ARTICLE = """Hares are faster than rabbits and live alone. They rest in shallow forms by day.

They have to trust to their speed when a fox comes near, with all that this means. The young are
born with their eyes open, and can run within an hour of their birth over the open fields.

In spring the males chase each other and box, which is why people speak of mad March hares.
"""
LINE = "Hares are faster than rabbits."


def rule(rules: published_rule_sets.RuleSet, text: str) -> str | None:
    answer = published_rule_sets.build(rules)(text)
    return answer.rule if isinstance(answer, BrokenRule) else None


@pytest.mark.parametrize("rules", [C4(), GopherQuality(), GopherRepetition(), FineWeb()])
def test_prose_passes(rules: published_rule_sets.RuleSet) -> None:
    assert rule(rules, ARTICLE) is None


def test_the_constants_are_the_published_ones() -> None:
    assert (C4().min_words_per_line, C4().min_sentences) == (5, 3)
    quality = GopherQuality()
    assert (quality.min_words, quality.max_words) == (50, 100_000)
    assert (quality.min_mean_word_length, quality.max_mean_word_length) == (3, 10)
    assert (quality.max_symbols_per_word, quality.max_bullet_lines) == (0.1, 0.9)
    assert (quality.max_ellipsis_lines, quality.min_alphabetic_words) == (0.3, 0.8)
    assert quality.min_stop_words == 2
    repetition = GopherRepetition()
    assert repetition.max_top_ngram == {2: 0.20, 3: 0.18, 4: 0.16}
    assert list(repetition.max_duplicate_ngrams.values()) == [0.15, 0.14, 0.13, 0.12, 0.11, 0.10]
    assert (repetition.max_duplicate_lines, repetition.max_duplicate_paragraphs) == (0.3, 0.3)
    assert repetition.max_duplicate_line_characters == 0.2
    assert repetition.max_duplicate_paragraph_characters == 0.2
    web = FineWeb()
    assert (web.min_punctuated_lines, web.max_duplicate_line_characters) == (0.12, 0.1)
    assert (web.short_line_characters, web.max_short_lines) == (30, 0.67)


def test_c4_keeps_the_lines_that_end_as_sentences_do() -> None:
    lines = [
        LINE,
        "A line without an end mark goes",
        "Too few words.",
        "It is said to trail off...",
        'He said: "They live alone."',
        "Please enable JavaScript to read these pages.",
        "By reading on you accept our privacy policy.",
        "x" * 1001 + " is far too long a word.",
        "They rest in shallow forms[12] by day.[citation needed]",
    ]
    assert published_rule_sets.build(C4())("\n".join(lines)) == "\n".join(
        [LINE, 'He said: "They live alone."', "They rest in shallow forms by day."]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{LINE}\n{LINE}", "c4_few_sentences"),
        (f"{LINE} They live alone. {LINE}", None),
        (f"{ARTICLE}\nThis function ends with a {{ bracket.", "c4_curly_bracket"),
        (f"{ARTICLE}\nA line with {{ that is left out anyway", None),
        (f"{ARTICLE}\nLorem ipsum dolor sit amet.", "c4_lorem_ipsum"),
    ],
)
def test_c4_drops(text: str, expected: str | None) -> None:
    assert rule(C4(), text) == expected


def test_c4_bad_words_are_the_users(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("Fox\nmad march\n\n")
    assert rule(C4(bad_words=str(words)), ARTICLE) == "c4_bad_word"
    words.write_text("fo\nabbit\n")  # whole words only
    assert rule(C4(bad_words=str(words)), ARTICLE) is None
    words.write_text("\n")
    with pytest.raises(
        ValueError, match=r"C4\.bad_words: .*words\.txt is empty, expected one word"
    ):
        published_rule_sets.build(C4(bad_words=str(words)))
    with pytest.raises(ValueError, match=r"C4\.bad_words: nowhere\.txt cannot be read"):
        published_rule_sets.build(C4(bad_words="nowhere.txt"))


def test_an_edited_list_of_bad_words_is_applied_again(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    recipe = Recipe(cleaning=Cleaning(rule_sets=(C4(bad_words=str(words)),)))
    with runner_at(tmp_path / "run") as runner:
        before = stage_of_documents(runner, {"web": documents_of([ARTICLE])})
        words.write_text("rabbits\n")
        dropped = clean(recipe, runner, before)
        assert [row.reason for row in dropped_documents(dropped)] == ["c4_bad_word"]
        words.write_text("wolf\n")
        assert len(kept_documents(clean(recipe, runner, before))) == 1
        words.write_text("rabbits\n")
        assert clean(recipe, runner, before).path == dropped.path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("They rest with the hares to box. " * 7, "gopher_words"),  # 49
        (
            "They rest with the hares to box. " * 7 + "-- ** --",
            "gopher_words",
        ),  # signs are no words
        ("They rest with the hares to box. " * 7 + "Yes.", None),
        ("to be of it is " * 20, "gopher_word_length"),
        ("the incomprehensibilities " * 30, "gopher_word_length"),
        ("the hare # and that race is run " * 20, "gopher_symbols"),
        ("the hare and that race ... is run " * 20, "gopher_symbols"),
        ("- the hare and that race were run\n" * 20, "gopher_bullets"),
        ("the hare and that race was run at noon today ...\n" * 20, "gopher_ellipsis_lines"),
        ("the hare with number 1234 2345 1967 ran\n" * 20, "gopher_alphabetic_words"),
        ("Hasen laufen schneller als alle Kaninchen. " * 20, "gopher_stop_words"),
        ("THE HARES AND RABBITS RUN QUICKLY. " * 20, None),
    ],
)
def test_gopher_quality(text: str, expected: str | None) -> None:
    assert rule(GopherQuality(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ARTICLE + "\n" + "Home\n" * 4, "gopher_duplicate_lines"),  # lines, few characters
        (ARTICLE + "\n" + ARTICLE.split("\n")[-2], "gopher_duplicate_paragraphs"),  # characters
        (ARTICLE + "\nHome\n\nHome\n\nHome", "gopher_duplicate_paragraphs"),
        (ARTICLE + " ".join(f"and the hare {k}" for k in range(30)), "gopher_top_ngram"),
        (
            f"{ARTICLE}\nAs we know, they rest in shallow forms by day and so do we.\n"
            "And the young are born with their eyes open, and can run within an hour, he says.",
            "gopher_duplicate_ngrams",
        ),
    ],
)
def test_gopher_repetition(text: str, expected: str) -> None:
    assert rule(GopherRepetition(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A line of over thirty characters\n" * 22 + f"{LINE}\n" * 3, "fineweb_line_ends"),
        (ARTICLE + f"{LINE}\n{LINE}\n{LINE}", "fineweb_duplicate_lines"),
        ("\n".join(f"Line {k}." for k in range(9)), "fineweb_short_lines"),
        ("He said “they live all alone.”\n*In shallow forms they rest.*", None),
        ("ウサギは木の下で休んでいて、" * 3 + "とても速かったのです。", None),
    ],
)  # fmt: skip
def test_fineweb(text: str, expected: str | None) -> None:
    assert rule(FineWeb(), text) == expected


def test_a_limit_is_an_argument() -> None:
    assert rule(FineWeb(min_punctuated_lines=1.0), ARTICLE) == "fineweb_line_ends"
    assert rule(GopherQuality(min_words=90), ARTICLE) == "gopher_words"
    assert rule(GopherRepetition(max_duplicate_ngrams={}, max_top_ngram={2: 0.001}), ARTICLE * 2)


def test_in_cleaning_they_see_prose_alone_and_in_their_order() -> None:
    code = "def f(x):\n    return {x: 1}\n" * 9
    both = build_cleaning(Cleaning(rule_sets=(C4(), FineWeb(min_punctuated_lines=0.9))))
    for category in ("code", "law", "math", "qa"):
        kept = both(Document("a", code + ARTICLE, category, category))
        assert isinstance(kept, Document) and kept.text == (code + ARTICLE).strip(), category
    menu = "\n".join(f"Go to chapter number {k}" for k in range(5))
    kept = both(
        Document("a", f"{menu}\n\n{ARTICLE.replace(chr(10) + 'born', ' born')}", "web", "web")
    )
    assert isinstance(kept, Document) and "chapter" not in kept.text
    # C4 took out what FineWeb would drop for; the blank line that goes too is not counted
    assert kept.meta["replaced"]["published_line"] == 5
    alone = build_cleaning(Cleaning(rule_sets=(FineWeb(min_punctuated_lines=0.9),)))
    dropped = alone(Document("a", f"{menu}\n\n{ARTICLE}", "web", "web"))
    assert isinstance(dropped, Dropped) and dropped.reason == "fineweb_line_ends"
    everywhere = Cleaning(rule_sets=(C4(),), rule_set_profiles=(CleaningProfile.CODE,))
    dropped = build_cleaning(everywhere)(Document("a", code, "code", "code"))
    assert isinstance(dropped, Dropped) and dropped.reason.startswith("c4_")


def test_unknown_rule_sets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cleaning\.rule_sets: got 'C4', expected C4, Gopher"):
        build_cleaning(Cleaning(rule_sets=("C4",)))  # type: ignore[arg-type]
