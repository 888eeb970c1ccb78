from __future__ import annotations

import pytest

from data_pipeline.cleaning.language import detector, letters

ENGLISH = (
    "The hare rested under a tree and was sure that it would win the race against the tortoise. "
)
GERMAN = "Der Hase ruhte sich unter einem Baum aus und war sicher, das Rennen zu gewinnen. "
COMMANDS = (
    "# tar\n\n> Archiving utility.\n\n- [c]reate an archive and write it to a file:\n\n"
    "`tar cf {{ziel.tar}}`"
)
LATEX = (
    r"\begin{lemma}\label{lemma-stalk} Let $X$ be a topological space and $\mathcal{F}$ a sheaf on "
    r"it. Then the map $\mathcal{F}_x \to \mathcal{G}_x$ is injective for every point. \end{lemma}"
)
CAPITALS = f"{ENGLISH.upper()} {ENGLISH[: len(ENGLISH) // 12]}"


@pytest.fixture(scope="module")
def detect():  # type: ignore[no-untyped-def]
    return detector()


@pytest.mark.parametrize("text", [ENGLISH, ENGLISH * 300, COMMANDS, LATEX, CAPITALS])
def test_english(detect, text: str) -> None:  # type: ignore[no-untyped-def]
    assert detect(text)[0] == "en"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (GERMAN, "de"),
        ("Le lièvre se reposait sous un arbre et il était sûr de gagner la course.", "fr"),
        (
            "ウサギは木の下で休んでいて、自分が勝つと確信していました。とても速かったからです。",
            "ja",
        ),
        ("Заяц отдыхал под деревом и был уверен, что выиграет забег у черепахи.", "ru"),
        # English commands and addresses do not make a page English
        (GERMAN + "`git commit --amend --no-edit` " * 9 + "https://www.example.org/the/race", "de"),
    ],
)
def test_other_languages(detect, text: str, language: str) -> None:  # type: ignore[no-untyped-def]
    found = detect(text)
    assert found[0] == language and found[1] > 0.5


def test_sees_more_than_the_beginning(detect) -> None:  # type: ignore[no-untyped-def]
    assert detect(ENGLISH * 12 + GERMAN * 100)[0] == "de"


@pytest.mark.parametrize(
    "text", [ENGLISH, ENGLISH * 12 + GERMAN * 100, GERMAN * 9, LATEX, COMMANDS, "OK", ENGLISH[:60]]
)
def test_short_windows_give_the_same_language(detect, text: str) -> None:  # type: ignore[no-untyped-def]
    short, long = detector("en")(text), detect(text)
    assert (short and short[0]) == (long and long[0])


@pytest.mark.parametrize("text", ["".join(map(chr, range(128))), "a, b--c_9d\n\ne", " a1", ""])
def test_letters_of_ascii_and_of_any_text_are_the_same(text: str) -> None:
    assert letters(text) + "é" == letters(f"{text}é")


@pytest.mark.parametrize("text", ["", "OK", "12 + 3 = 15 " * 99, "`ls -la` `cd ..`" * 20])
def test_too_little_to_tell(detect, text: str) -> None:  # type: ignore[no-untyped-def]
    assert detect(text) is None
