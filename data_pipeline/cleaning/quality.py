"""Quality rules that examine a whole document and return evidence against it, or None.

A rule takes a `Text` and its limit. The evidence is a small dict of the measured values. Sources:
Gopher (Rae et al., arXiv 2112.11446, appendix A.1), StarCoder (Li et al., arXiv 2305.06161, section
3.1), C4 (Raffel et al., arXiv 1910.10683, section 2.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from data_pipeline.cleaning.fences import may_have_fences
from data_pipeline.text.word_lists import FUNCTION_WORDS

Evidence = dict[str, Any]

_SENTENCE_ENDS = (".", "!", "?", "…", ":", ";", "。", "！", "？", "：", "।", "؟")
_CLOSERS = "\"'”’»)]}*_`>|~ "
_INNER_END = re.compile(r"[a-z0-9)][.!?][\"”’)]? +[\"“(]?[A-Z]")
# Glossaries and enumerations contain whole statements without a full stop. A line is one if it has
# at least this many words and this many function words.
_MIN_STATEMENT_WORDS, _MIN_FUNCTION_WORDS = 12, 3
_TAGS = re.compile(r"(?:<[^<>]*>\s*)+")
_INLINE_CODE = re.compile(r"`[^`]*`")
_ELLIPSIS = re.compile(r"\.{3,}(?:[ .]*\.)?")
_CODE_STARTS = " \t`>$"  # first characters of lines of code; tested before `_is_code` for speed
_MIN_PARAGRAPH_WORDS = 4  # fewer are a heading, such as "D.C. Law 5-196."
# Words and characters at which no sentence ends.
_UNFINISHED = re.compile(
    r"(?:,|[a-z]-|\b(?:a|an|and|are|as|at|be|because|been|but|by|for|from|his|if|into|is|its|my|nor|of|or|our|"
    r"than|that|the|their|to|was|were|whose|with|your))\Z"
)
_MIN_CUT_SHARE = 0.2  # of the text, in the sentence or paragraph that is cut off
_FENCED_CODE = re.compile(r"^[ \t]*(```|~~~)[^\n]*\n.*?^[ \t]*\1[ \t]*$", re.M | re.S)

# Limits for code. Characters per line and share of letters are those of StarCoder, section 3.1.
_MAX_CODE_LINE, _MAX_MEAN_CODE_LINE, _MIN_CODE_LETTERS = 1000, 100, 0.25
_MAX_IN_LONG_LINES = 0.67  # share of the characters that are in lines longer than _MAX_CODE_LINE
_MIN_LINE_LETTERS = 0.1  # share of letters in a line of code


class Text:
    """A text with properties that several rules use, each computed once and only if it is used."""

    def __init__(self, text: str):
        """Wraps a text."""
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        """The words of the text, split at white space."""
        return self.text.split()

    @cached_property
    def prose(self) -> str:
        """The text without fenced code."""
        return _FENCED_CODE.sub("", self.text) if may_have_fences(self.text) else self.text

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the prose, stripped and without empty ones."""
        return [stripped for line in self.prose.split("\n") if (stripped := line.strip())]


def too_few_words(text: Text, min_words: int) -> Evidence | None:
    """Flags a text of fewer than `min_words` words."""
    words = text.text.split(None, min_words)  # at most `min_words` words and the rest of the text
    return {"words": len(words)} if len(words) < min_words else None


def too_many_words(text: Text, max_words: int) -> Evidence | None:
    """Flags a text of more than `max_words` words."""
    if len(text.text) <= 2 * max_words:  # a word and the white space after it need two characters
        return None
    return {"words": len(text.words)} if len(text.words) > max_words else None


def symbols(text: Text, max_per_word: float) -> Evidence | None:
    """Flags a text with too many hash signs and ellipses per word (Gopher: 0.1).

    Hash signs of Markdown headings and symbols in inline code are not counted. A row of dots, as in
    a poem of which a part is lost, is one ellipsis.
    """
    if "#" not in text.prose and "..." not in text.prose and "…" not in text.prose:
        return None
    lines = [_INLINE_CODE.sub("", line).lstrip("#") for line in text.lines]
    num_symbols = sum(line.count("#") + line.count("…") for line in lines)
    num_symbols += sum(len(_ELLIPSIS.findall(line)) for line in lines if "..." in line)
    per_word = num_symbols / max(1, len(text.words))
    return {"symbols_per_word": round(per_word, 3)} if per_word > max_per_word else None


def few_alphabetic_words(text: Text, min_share: float) -> Evidence | None:
    """Flags a text in which too few words contain a letter (Gopher: 0.8 on web pages).

    Words of symbols only are not counted. Rows of Markdown tables that contain a letter are not
    counted either, because they are not tables of numbers.
    """
    words = text.words if text.prose is text.text else text.prose.split()
    encoded = text.prose.encode()
    num_digits = len(encoded) - len(encoded.translate(None, b"0123456789"))
    # A fast first test: every number has a digit, so there are at most `num_digits` numbers. The
    # factor 2 assumes that at most half of the words are symbols.
    if 2 * num_digits <= (1 - min_share) * len(words):
        return None
    if "|" in text.prose:
        rows = [s for s in text.lines if not (s[0] == "|" and any(map(str.isalpha, s)))]
        words = " ".join(rows).split()
    others = words_without_letter(words)
    numbers = [w for w in others if any(map(str.isalnum, w))]
    num_symbols = len(others) - len(numbers)
    share = 1 - len(numbers) / max(1, len(words) - num_symbols)
    if share >= min_share:
        return None
    return {"alphabetic_words": round(share, 3), "others": " ".join(numbers[:8])[:80]}


def words_without_letter(words: Iterable[str]) -> list[str]:
    """Returns the words that contain no letter: numbers and symbols."""
    # A fast first filter: most words end it at isalpha(), and upper() == lower() holds only if no
    # letter has a case.
    candidates = [w for w in words if not w.isalpha() and w.upper() == w.lower()]
    return [w for w in candidates if not any(map(str.isalpha, w))]


def duplicate_lines(text: Text, max_share: float) -> Evidence | None:
    """Flags a text with too large a share of its characters in repeated lines (Gopher: 0.2).

    Characters are counted, and not lines, because a play repeats the names of its speakers on lines
    of their own. Lines of HTML tags are ignored.
    """
    if len(set(text.lines)) == len(text.lines):
        return None
    lines = [line for line in text.lines if not (line[0] == "<" and _TAGS.fullmatch(line))]
    seen: set[str] = set()
    # set.add returns None, so a line is selected only if it was in `seen` before.
    repeated = [line for line in lines if line in seen or seen.add(line)]  # type: ignore[func-returns-value]
    share = sum(map(len, repeated)) / max(1, sum(map(len, lines)))
    if share <= max_share:
        return None
    return {"repeated": round(share, 3), "line": max(repeated, key=len)[:80]}


def fragments(text: Text, min_share: float) -> Evidence | None:
    """Flags a text, such as a menu or a table, with few of its characters in complete sentences.

    Code is ignored. A paragraph is complete up to the last line that ends like a sentence, so that
    hard-wrapped lines count.
    """
    total = complete = 0  # characters
    for paragraph in text.prose.split("\n\n"):
        lines = [
            line
            for line in paragraph.split("\n")
            if line[:1] not in _CODE_STARTS or not _is_code(line)
        ]
        total += sum(map(len, lines))
        while lines and not _is_statement(lines[-1]):
            lines.pop()
        # The split stops at the minimum, so equality means "at least".
        first_words = " ".join(lines).split(None, _MIN_PARAGRAPH_WORDS - 1)
        if len(first_words) == _MIN_PARAGRAPH_WORDS:
            complete += sum(map(len, lines))
    share = complete / max(1, total)
    return {"in_sentences": round(share, 3)} if total and share < min_share else None


def cut_off(text: Text) -> Evidence | None:
    """Flags a teaser: a text that ends in a sentence or paragraph that is a large part of it.

    A book that ends in the middle of a sentence is kept.
    """
    end = text.text.rstrip(_CLOSERS)
    if not _UNFINISHED.search(end[-20:]):
        return None
    cut = end[max(end.rfind(". "), end.rfind("\n\n"), 0) :]
    if len(cut) < _MIN_CUT_SHARE * len(end):
        return None
    return {"end": end[-60:]}


def _is_code(line: str) -> bool:
    """Returns whether a line is indented, quoted or prompted code, and no item of a list."""
    return line.startswith(("    ", "\t", "`", ">>>", "$ ")) and not line.lstrip().startswith(
        ("-", "*")
    )


def _is_statement(line: str) -> bool:
    """Returns whether a line contains the end of a sentence or has the words of a statement."""
    if line.rstrip(_CLOSERS).endswith(_SENTENCE_ENDS) or _INNER_END.search(line):
        return True
    words = line.split()
    if len(words) < _MIN_STATEMENT_WORDS:
        return False
    return sum(word in FUNCTION_WORDS for word in words) >= _MIN_FUNCTION_WORDS


def long_code_lines(text: Text) -> Evidence | None:
    """Flags data and minified code by the length of the lines.

    The limits are a mean of 100 characters per line (StarCoder), and two thirds of the text in
    lines longer than 1000 characters. StarCoder drops a file for one such line, but most of these
    files are programs with a long constant.
    """
    longest = max(map(len, text.lines), default=0)
    total = sum(map(len, text.lines))
    mean = total / max(1, len(text.lines))
    in_long_lines = sum(size for line in text.lines if (size := len(line)) > _MAX_CODE_LINE)
    if mean <= _MAX_MEAN_CODE_LINE and in_long_lines <= _MAX_IN_LONG_LINES * total:
        return None
    return {"longest_line": longest, "mean_line": round(mean, 1)}


def few_code_letters(text: Text) -> Evidence | None:
    """Flags tables of numbers in code files.

    In such a file, less than a quarter of all characters are letters (StarCoder), and less than a
    quarter of the characters are in lines of which at least a tenth are letters.
    """
    letters = sum(map(str.isalpha, text.text))
    if letters >= _MIN_CODE_LETTERS * len(text.text):
        return None
    in_code = sum(
        len(line)
        for line in text.lines
        if sum(map(str.isalpha, line)) >= _MIN_LINE_LETTERS * len(line)
    )
    share = in_code / max(1, sum(map(len, text.lines)))
    if share >= _MIN_CODE_LETTERS:
        return None
    return {"letters": round(letters / max(1, len(text.text)), 3), "in_code": round(share, 3)}
