"""Words that can stand for one another: what a blank hides, and what else could fill it."""

from __future__ import annotations

import heapq
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from functools import lru_cache

from data_pipeline.text.word_lists import STOP_WORDS

WORD = re.compile(
    r"(?<![\w'’.,-])(?:[A-Za-z][A-Za-z-]*[A-Za-z]|\d+(?:,\d{3})*(?:\.\d+)?)(?![\w'’-]|[.,]\d)"
)

_SUFFIXES = (
    "ing",
    "ed",
    "ly",
    "tion",
    "sion",
    "ment",
    "ness",
    "ity",
    "able",
    "ible",
    "ous",
    "ful",
    "ive",
    "ical",
)
_MIN_LETTERS = 4


@lru_cache(maxsize=1 << 16)
def shape(word: str) -> str:
    """The class of words that can stand in for this one without breaking the grammar, or "".

    >>> shape("Berlin"), shape("1984"), shape("7"), shape("running"), shape("hares"), shape("the")
    ('name', '4 digits', '1 digits', '-ing', '-s', '')
    """
    if word[0].isdigit():
        return f"{sum(map(str.isdigit, word))} digits{' .' if '.' in word else ''}"
    if word.lower() in STOP_WORDS or len(word) < _MIN_LETTERS:
        return ""
    if word[0].isupper():
        return "capitals" if word.isupper() else "name"
    if not word.islower() or "-" in word:
        return ""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) > len(suffix) + 2:
            return f"-{suffix}"
    return "-s" if word.endswith("s") and not word.endswith(("ss", "us", "is")) else "word"


@dataclass(slots=True)
class DistractorPool:
    """The words of some sentences by shape, with their counts and the words that they follow.

    The first word of a sentence is left out: it has a capital for no reason of its own.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    follows: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, sentences: Iterable[str]) -> DistractorPool:
        found = cls()
        for sentence in sentences:
            before = ""
            for word in WORD.findall(sentence, 1):
                if kind := shape(word):
                    found.counts.setdefault(kind, Counter())[word] += 1
                    found.follows.setdefault(word, set()).add(before)
                before = word
        return found

    def distractors(
        self,
        word: str,
        before: str,
        text: str,
        how_many: int,
        random_: random.Random,
        barred: Set[str] = frozenset(),
    ) -> list[str]:
        """`how_many` other words of the same shape, or [] where there are not enough.

        None occurs in the text, is barred, or resembles another. Those that elsewhere follow the
        same word as this one (`before`) come first, then those of similar frequency and length.
        """
        counts = self.counts.get(shape(word), Counter())
        near = heapq.nsmallest(
            8 * how_many,
            (w for w in counts if w not in barred and w != word and abs(len(w) - len(word)) <= 4),
            key=lambda other: (
                before not in self.follows[other],
                abs(counts[other] - counts[word]),
                abs(len(other) - len(word)),
                other,
            ),
        )
        # The first half stays before the second, so that the better ones are more often taken.
        better, rest = near[: len(near) // 2], near[len(near) // 2 :]
        random_.shuffle(better)
        random_.shuffle(rest)
        chosen: list[str] = []
        for other in better + rest:
            if not any(same_stem(other, one) for one in (word, *chosen)) and not contains_stem(
                other, text
            ):
                chosen.append(other)
            if len(chosen) == how_many:
                return chosen
        return []


def cloze_positions(sentence: str) -> Iterator[re.Match[str]]:
    """The words of a sentence that may be left out: not small, not code, not there twice."""
    for match in WORD.finditer(sentence, 1):
        before, after = sentence[: match.start()], sentence[match.end() :]
        is_code = before.count("`") % 2 == 1 or after.startswith("(")
        if shape(match[0]) and not is_code and not contains_stem(match[0], f"{before} {after}"):
            yield match


def contains_stem(word: str, text: str) -> bool:
    """Is the word, or one that begins with its stem, in the text?

    >>> occurs("runners", "A runner"), occurs("running", "He runs."), occurs("art", "It starts.")
    (True, False, False)
    """
    stem, text = word.lower(), text.lower()
    whole = len(stem) < 6
    stem = stem if whole else stem[: max(5, len(stem) - 3)]
    at = text.find(stem)
    while at >= 0:
        end = at + len(stem)
        begins = at == 0 or not text[at - 1].isalnum()
        if begins and not (whole and end < len(text) and text[end].isalnum()):
            return True
        at = text.find(stem, at + 1)
    return False


def same_stem(one: str, other: str) -> bool:
    """Equal but for case, or of one stem: no fair alternatives."""
    one, other = one.lower(), other.lower()
    if one[0].isdigit():
        return one == other
    stem = min(5, len(one), len(other))
    return one == other or one[:stem] == other[:stem]
