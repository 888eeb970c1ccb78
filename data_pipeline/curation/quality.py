"""Rules that look at a whole document and say what is wrong with it, or None.

A rule gets what it needs of a `Text` and its limit, and returns evidence: a small dict of what it
saw. Sources: Gopher (Rae et al., arXiv 2112.11446, appendix A.1), StarCoder (Li et al., arXiv
2305.06161, section 3.1), C4 (Raffel et al., arXiv 1910.10683, section 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Evidence = dict[str, Any]

_SENTENCE_ENDS = (".", "!", "?", "…", ":", ";")
_CLOSERS = "\"'”’»)]}*_`>|~ "

_MAX_CODE_LINE, _MAX_MEAN_CODE_LINE, _MIN_CODE_LETTERS = 1000, 100, 0.25  # StarCoder, section 3.1


@dataclass(slots=True)
class Text:
    """A text with what several rules ask of it, computed once."""

    text: str
    words: list[str]  # split at white space
    lines: list[str]  # stripped; none empty

    @classmethod
    def of(cls, text: str) -> Text:
        return cls(text, text.split(), [s for line in text.split("\n") if (s := line.strip())])


def too_few_words(text: Text, least: int) -> Evidence | None:
    return {"words": len(text.words)} if len(text.words) < least else None


def too_many_words(text: Text, most: int) -> Evidence | None:
    return {"words": len(text.words)} if len(text.words) > most else None


def symbols(text: Text, most: float) -> Evidence | None:
    """Hash signs and ellipses for each word (Gopher: 0.1)."""
    found = text.text.count("#") + text.text.count("...") + text.text.count("…")
    share = found / max(1, len(text.words))
    return {"symbols_per_word": round(share, 3)} if share > most else None


def few_alphabetic_words(text: Text, least: float) -> Evidence | None:
    """The share of words that hold a letter (Gopher: 0.8 on web pages)."""
    # upper() == lower() says that no letter has a case; isalpha() rescues scripts without cases
    others = [word for word in text.words if not word.isalpha() and word.upper() == word.lower()]
    share = 1 - len(others) / max(1, len(text.words))
    if share >= least:
        return None
    return {"alphabetic_words": round(share, 3), "others": " ".join(others[:8])[:80]}


def duplicate_lines(text: Text, most: float) -> Evidence | None:
    """The share of the text, in characters, that lies in lines seen before (Gopher: 0.2).

    Characters and not lines: a play repeats the names of its speakers on lines of their own.
    """
    if len(set(text.lines)) == len(text.lines):
        return None
    seen: set[str] = set()
    repeated = [line for line in text.lines if line in seen or seen.add(line)]  # type: ignore[func-returns-value]
    share = sum(map(len, repeated)) / sum(map(len, text.lines))
    return (
        {"repeated": round(share, 3), "line": max(repeated, key=len)[:80]} if share > most else None
    )


def fragments(text: Text, least: float) -> Evidence | None:
    """The share of the text that belongs to sentences with an end: menus, tables and lists of names
    have none. In each paragraph everything up to the last line that ends as a sentence counts, so
    hard-wrapped lines do."""
    whole = complete = 0
    for paragraph in text.text.split("\n\n"):
        whole += len(paragraph)
        lines = paragraph.split("\n")
        while lines and not lines[-1].rstrip(_CLOSERS).endswith(_SENTENCE_ENDS):
            lines.pop()
        complete += sum(map(len, lines)) + len(lines)
    share = min(1.0, complete / max(1, whole))
    return {"in_sentences": round(share, 3)} if share < least else None


def long_code_lines(text: Text, most: int = _MAX_CODE_LINE) -> Evidence | None:
    """Data or minified code: a line over 1000 characters, or over 100 on average (StarCoder)."""
    longest = max(map(len, text.lines), default=0)
    mean = sum(map(len, text.lines)) / max(1, len(text.lines))
    if longest <= most and mean <= _MAX_MEAN_CODE_LINE:
        return None
    return {"longest_line": longest, "mean_line": round(mean, 1)}


def few_code_letters(text: Text, least: float = _MIN_CODE_LETTERS) -> Evidence | None:
    """Tables of numbers: less than a quarter of the characters are letters (StarCoder)."""
    letters = sum(map(str.isalpha, text.text))
    share = letters / max(1, len(text.text))
    return {"letters": round(share, 3)} if share < least else None
