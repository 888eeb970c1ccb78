"""Rules that look at a whole document and say what is wrong with it, or None.

A rule gets what it needs of a `Text` and its limit, and returns evidence: a small dict of what it
saw. Sources: Gopher (Rae et al., arXiv 2112.11446, appendix A.1), StarCoder (Li et al., arXiv
2305.06161, section 3.1), C4 (Raffel et al., arXiv 1910.10683, section 2.2).
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from data_pipeline.cleaning.fences import may_have_fences
from data_pipeline.text.word_lists import GRAMMAR

Evidence = dict[str, Any]

_SENTENCE_ENDS = (".", "!", "?", "…", ":", ";", "。", "！", "？", "：", "।", "؟")
_CLOSERS = "\"'”’»)]}*_`>|~ "
_INNER_END = re.compile(r"[a-z0-9)][.!?][\"”’)]? +[\"“(]?[A-Z]")
# Glossaries and enumerations have whole statements without a full stop.
_STATEMENT_WORDS, _STATEMENT_GRAMMAR = 12, 3
_TAGS = re.compile(r"(?:<[^<>]*>\s*)+")
_INLINE_CODE = re.compile(r"`[^`]*`")
_ELLIPSIS = re.compile(r"\.{3,}(?:[ .]*\.)?")
_CODE_STARTS = " \t`>$"  # looked at before `_is_code` is called: half its time
_MIN_PARAGRAPH = 4  # words: "D.C. Law 5-196." is a heading
# Words and signs on which no sentence ends.
_CUT = re.compile(
    r"(?:,|[a-z]-|\b(?:a|an|and|are|as|at|be|because|been|but|by|for|from|his|if|into|is|its|my|nor|of|or|our|"
    r"than|that|the|their|to|was|were|whose|with|your))\Z"
)
_MAX_CUT_SHARE = 0.2
_FENCED_CODE = re.compile(r"^[ \t]*(```|~~~)[^\n]*\n.*?^[ \t]*\1[ \t]*$", re.M | re.S)

_MAX_CODE_LINE, _MAX_MEAN_CODE_LINE, _MIN_CODE_LETTERS = 1000, 100, 0.25  # StarCoder, section 3.1
_MAX_IN_LONG_LINES, _MIN_LINE_LETTERS = 0.67, 0.1


class Text:
    """A text with what several rules ask of it, computed once, and only if one asks."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        """Split at white space."""
        return self.text.split()

    @cached_property
    def prose(self) -> str:
        """Without fenced code."""
        return _FENCED_CODE.sub("", self.text) if may_have_fences(self.text) else self.text

    @cached_property
    def lines(self) -> list[str]:
        """Of the prose, stripped; none empty."""
        return [stripped for line in self.prose.split("\n") if (stripped := line.strip())]


def too_few_words(text: Text, least: int) -> Evidence | None:
    first = text.text.split(None, least)  # and the rest, if there is any
    return {"words": len(first)} if len(first) < least else None


def too_many_words(text: Text, most: int) -> Evidence | None:
    if len(text.text) <= 2 * most:  # a word has a character and white space behind it
        return None
    return {"words": len(text.words)} if len(text.words) > most else None


def symbols(text: Text, most: float) -> Evidence | None:
    """Hash signs, those of Markdown headings aside, and ellipses for each word (Gopher: 0.1).

    Not those in `code`; and a row of dots, as in a poem that is lost in part, is one ellipsis.
    """
    if "#" not in text.prose and "..." not in text.prose and "…" not in text.prose:
        return None
    lines = [_INLINE_CODE.sub("", line).lstrip("#") for line in text.lines]
    found = sum(line.count("#") + line.count("…") for line in lines)
    found += sum(len(_ELLIPSIS.findall(line)) for line in lines if "..." in line)
    share = found / max(1, len(text.words))
    return {"symbols_per_word": round(share, 3)} if share > most else None


def few_alphabetic_words(text: Text, least: float) -> Evidence | None:
    """The share of words that hold a letter (Gopher: 0.8 on web pages).

    A sign alone is no word, and a row of a table that has a name in it is no row of numbers.
    """
    words = text.words if text.prose is text.text else text.prose.split()
    encoded = text.prose.encode()
    digits = len(encoded) - len(encoded.translate(None, b"0123456789"))
    if 2 * digits <= (1 - least) * len(words):
        return None  # a number has a digit, and at least half of the words are no signs
    if "|" in text.prose:
        rows = [s for s in text.lines if not (s[0] == "|" and any(map(str.isalpha, s)))]
        words = " ".join(rows).split()
    # upper() == lower() says cheaply that no letter has a case; most words stop at isalpha()
    others = [w for w in words if not w.isalpha() and w.upper() == w.lower()]
    others = [w for w in others if not any(map(str.isalpha, w))]
    numbers = [w for w in others if any(map(str.isalnum, w))]
    share = 1 - len(numbers) / max(1, len(words) - (len(others) - len(numbers)))
    if share >= least:
        return None
    return {"alphabetic_words": round(share, 3), "others": " ".join(numbers[:8])[:80]}


def duplicate_lines(text: Text, most: float) -> Evidence | None:
    """The share of the text, in characters, that lies in lines seen before (Gopher: 0.2).

    Characters and not lines: a play repeats the names of its speakers on lines of their own. Lines
    of HTML tags are no text.
    """
    if len(set(text.lines)) == len(text.lines):
        return None
    lines = [line for line in text.lines if not (line[0] == "<" and _TAGS.fullmatch(line))]
    seen: set[str] = set()
    repeated = [line for line in lines if line in seen or seen.add(line)]  # type: ignore[func-returns-value]
    share = sum(map(len, repeated)) / max(1, sum(map(len, lines)))
    return (
        {"repeated": round(share, 3), "line": max(repeated, key=len)[:80]} if share > most else None
    )


def fragments(text: Text, least: float) -> Evidence | None:
    """The share of the text, code aside, that belongs to whole sentences.

    Menus, tables and lists of names have few. In each paragraph everything up to the last line that
    ends as a sentence counts, so hard-wrapped lines do.
    """
    whole = complete = 0
    for paragraph in text.prose.split("\n\n"):
        lines = [
            line
            for line in paragraph.split("\n")
            if line[:1] not in _CODE_STARTS or not _is_code(line)
        ]
        whole += sum(map(len, lines))
        while lines and not _is_statement(lines[-1]):
            lines.pop()
        if len(" ".join(lines).split(None, _MIN_PARAGRAPH - 1)) == _MIN_PARAGRAPH:  # or more
            complete += sum(map(len, lines))
    share = complete / max(1, whole)
    return {"in_sentences": round(share, 3)} if whole and share < least else None


def cut_off(text: Text) -> Evidence | None:
    """A teaser: ends in the middle of a sentence, and what was cut is a good part of the text.

    A book that lost half a sentence at its end stays.
    """
    end = text.text.rstrip(_CLOSERS)
    if not _CUT.search(end[-20:]):
        return None
    cut = end[max(end.rfind(". "), end.rfind("\n\n"), 0) :]
    if len(cut) < _MAX_CUT_SHARE * len(end):
        return None
    return {"end": end[-60:]}


def _is_code(line: str) -> bool:
    return line.startswith(("    ", "\t", "`", ">>>", "$ ")) and not line.lstrip().startswith(
        ("-", "*")
    )


def _is_statement(line: str) -> bool:
    if line.rstrip(_CLOSERS).endswith(_SENTENCE_ENDS) or _INNER_END.search(line):
        return True
    words = line.split()
    if len(words) < _STATEMENT_WORDS:
        return False
    return sum(word in GRAMMAR for word in words) >= _STATEMENT_GRAMMAR


def long_code_lines(text: Text, most: int = _MAX_CODE_LINE) -> Evidence | None:
    """Data or minified code: lines of over 100 characters on average (StarCoder), or two thirds of
    the text in lines over 1000.

    StarCoder drops a file for one such line, but most of those are programs with a long constant.
    """
    longest = max(map(len, text.lines), default=0)
    whole = sum(map(len, text.lines))
    mean = whole / max(1, len(text.lines))
    in_long = sum(size for line in text.lines if (size := len(line)) > most)
    if mean <= _MAX_MEAN_CODE_LINE and in_long <= _MAX_IN_LONG_LINES * whole:
        return None
    return {"longest_line": longest, "mean_line": round(mean, 1)}


def few_code_letters(text: Text, least: float = _MIN_CODE_LETTERS) -> Evidence | None:
    """Tables of numbers: less than a quarter of the characters are letters (StarCoder), and less
    than a quarter of the characters are in lines of code, a tenth of which are letters."""
    letters = sum(map(str.isalpha, text.text))
    if letters >= least * len(text.text):
        return None
    code = sum(
        len(line)
        for line in text.lines
        if sum(map(str.isalpha, line)) >= _MIN_LINE_LETTERS * len(line)
    )
    share = code / max(1, sum(map(len, text.lines)))
    if share >= least:
        return None
    return {"letters": round(letters / max(1, len(text.text)), 3), "in_code": round(share, 3)}
