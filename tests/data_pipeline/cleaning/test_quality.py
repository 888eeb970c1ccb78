from __future__ import annotations

import pytest

from data_pipeline.cleaning import quality
from data_pipeline.cleaning.quality import Text

PROSE = (
    "Hares are faster than rabbits and live alone. They rest in shallow forms,\n"
    "which they scrape in the open, and trust to their speed when a fox comes\n"
    "near.\n\nYoung hares are born with their eyes open and can run within an hour."
)
MENU = "Home\nProducts\nAbout us\nContact\n\n* Ada\n* Android\n* Assembly\n* C - J. Doe (PDF)\n* Go"
TABLE = "\n".join(f"| {i} | {i * 7}.5 | {i}/12 | 3,{i:03d} |" for i in range(30))


def test_lengths() -> None:
    text = Text("one two three")
    assert quality.too_few_words(text, 3) is None
    assert quality.too_few_words(text, 4) == {"words": 3}
    assert quality.too_many_words(text, 3) is None
    assert quality.too_many_words(text, 2) == {"words": 3}
    assert quality.too_many_words(Text("a b c"), 2) == {"words": 3}
    assert quality.too_few_words(Text("\u3000a b \n"), 3) == {"words": 2}
    assert quality.too_few_words(Text(" \n"), 1) == {"words": 0}


def test_symbols() -> None:
    assert quality.symbols(Text("#### A heading\n\n" * 9 + PROSE), 0.1) is None
    assert quality.symbols(Text("Read more ... and more ... #fast #hare #win now…"), 0.1)
    assert (
        quality.symbols(Text(PROSE + "\n\n```c\n" + "#include <x.h>\n" * 99 + "```"), 0.1) is None
    )


def test_few_alphabetic_words() -> None:
    assert quality.few_alphabetic_words(Text(PROSE), 0.6) is None
    found = quality.few_alphabetic_words(Text(TABLE), 0.6)
    assert found is not None and found["alphabetic_words"] == 0
    assert quality.few_alphabetic_words(Text("यह एक हिन्दी वाक्य है। 日本語"), 0.9) is None
    assert quality.few_alphabetic_words(Text("|---|---|\n| a | word |"), 0.9) is None


def test_duplicate_lines() -> None:
    play = "\n".join(
        f"HAMLET:\nLine number {i} says something that no other line says." for i in range(20)
    )
    assert quality.duplicate_lines(Text(play), 0.3) is None  # half of the lines, few characters
    found = quality.duplicate_lines(Text(PROSE + "\n[HTML unavailable]" * 20), 0.3)
    assert found is not None and found["line"] == "[HTML unavailable]" and found["repeated"] > 0.3
    code = "```python\n" + "self.x = layer(x)\n" * 50 + "```"
    assert quality.duplicate_lines(Text(PROSE + "\n\n" + code), 0.3) is None


def test_fragments() -> None:
    assert quality.fragments(Text(PROSE), 0.99) is None  # hard-wrapped lines count
    assert quality.fragments(Text(MENU), 0.3) == {"in_sentences": 0.0}
    assert quality.fragments(Text(TABLE), 0.3) is not None
    glossary = (
        "- lateen sail a triangular sail that allows a boat to sail against the wind and to turn"
    )
    assert quality.fragments(Text(glossary), 0.3) is None
    recipe = "Install it with pip:\n\n```sh\npip install hare\n```\n\n    $ hare --run\n"
    assert quality.fragments(Text(recipe), 0.9) is None  # code is neither


@pytest.mark.parametrize(
    "end", ["which was built by the", "apples, pears,", "a new kind of", "inter-"]
)
def test_cut_off(end: str) -> None:
    assert quality.cut_off(Text(f"The senate has decided on a bridge {end}")) is not None
    assert quality.cut_off(Text(f"The senate has decided on a bridge {end} river.")) is None
    assert quality.cut_off(Text(PROSE * 5 + "\n\nIt is " + end)) is None  # little is lost


def test_code_rules() -> None:
    code = "def f(x):\n    return [y * 2 for y in x if y > 0]\n" * 5
    assert quality.long_code_lines(Text(code)) is None
    assert quality.few_code_letters(Text(code)) is None
    data = "X = [" + ", ".join(map(str, range(600))) + "]"
    assert quality.long_code_lines(Text(code + data)) is not None
    assert quality.few_code_letters(Text(data)) is not None


def test_a_program_with_a_table_in_it_is_a_program() -> None:
    code = "def area(radius):\n    return 3.14159 * radius**2\n" * 6
    grid = "08 02 22 97 38 15 00 40 00 75\n" * 20
    assert quality.few_code_letters(Text(code + f'GRID = """\n{grid}"""')) is None
    assert quality.few_code_letters(Text(code + grid * 6)) is not None
    constant = "PRIMES = '" + "7" * 1010 + "'\n"
    assert quality.long_code_lines(Text(code * 3 + constant)) is None
    assert quality.long_code_lines(Text(code + constant)) is not None


def test_dots_and_code_are_no_symbols() -> None:
    gap = "Gish opened his mouth and ................. spoke to the wild man ......... of it.\n"
    assert quality.symbols(Text(gap * 9), 0.1) is not None  # two for each fourteen words
    assert quality.symbols(Text(gap * 9), 0.15) is None
    assert quality.symbols(Text("Rename them:\n\n`mv '#1#2#3' '#4#5#6'` and so on."), 0.1) is None


def test_a_table_with_names_in_it_is_no_table_of_numbers() -> None:
    moons = "\n".join(f"| Moon {name} | {k} | 3.1 | 0.2 | 1 |" for k, name in enumerate("abcdef"))
    assert quality.few_alphabetic_words(Text(moons), 0.6) is None
    assert quality.few_alphabetic_words(Text(f"{moons}\n{TABLE}"), 0.6) is not None
    tokens = 'He said , " it is . " ( and so on ) ; - - : it is .'
    assert quality.few_alphabetic_words(Text(tokens), 0.9) is None  # signs are no words


def test_html_tags_are_no_repeated_text() -> None:
    cards = "".join(f'<div class="goal-card">\n<br> </div>\n{PROSE} {k}\n' for k in range(9))
    lines = "\n".join(f"The goal number {k} was reached by all." for k in range(9))
    assert quality.duplicate_lines(Text(lines.replace("\n", '\n<div class="a">\n')), 0.1) is None
    assert quality.duplicate_lines(Text(cards), 0.3) is not None  # the prose is repeated
