"""Selection of words for cloze items: the word to leave out and its distractors (wrong options)."""

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
    """Returns the class of words that can replace this one grammatically, or "" if it has none.

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
    """The words of some sentences, from which distractors are chosen.

    The first word of each sentence is left out, because its capital letter does not make it a name.

    Attributes:
      counts: shape -> word -> number of occurrences.
      predecessors: word -> the words that occur directly before it ("" at a sentence's start).
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    predecessors: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def from_sentences(cls, sentences: Iterable[str]) -> DistractorPool:
        """Collects the words of the sentences."""
        pool = cls()
        for sentence in sentences:
            before = ""
            for word in WORD.findall(sentence, 1):
                if word_shape := shape(word):
                    pool.counts.setdefault(word_shape, Counter())[word] += 1
                    pool.predecessors.setdefault(word, set()).add(before)
                before = word
        return pool

    def distractors(
        self,
        word: str,
        before: str,
        text: str,
        count: int,
        random_: random.Random,
        excluded: Set[str] = frozenset(),
    ) -> list[str]:
        """Chooses distractors for a word: other words of the same shape.

        A distractor does not occur in `text` and shares its stem neither with `word` nor with
        another distractor. Words that elsewhere follow `before` are preferred, then words of
        similar frequency, then words of similar length.

        Args:
          word: the word that is left out, which is the right option.
          before: the word before it in its sentence.
          text: the text that is shown.
          count: the number of distractors.
          random_: the random number generator that selects among the best candidates.
          excluded: words that are not used.

        Returns:
          `count` words, or [] if there are not enough.
        """
        counts = self.counts.get(shape(word), Counter())
        candidates = heapq.nsmallest(
            8 * count,
            (w for w in counts if w not in excluded and w != word and abs(len(w) - len(word)) <= 4),
            key=lambda other: (
                before not in self.predecessors[other],
                abs(counts[other] - counts[word]),
                abs(len(other) - len(word)),
                other,
            ),
        )
        # The halves are shuffled separately, so that a better candidate is chosen more often.
        better, worse = candidates[: len(candidates) // 2], candidates[len(candidates) // 2 :]
        random_.shuffle(better)
        random_.shuffle(worse)
        chosen: list[str] = []
        for other in better + worse:
            if not any(same_stem(other, one) for one in (word, *chosen)) and not contains_stem(
                other, text
            ):
                chosen.append(other)
            if len(chosen) == count:
                return chosen
        return []


def cloze_positions(sentence: str) -> Iterator[re.Match[str]]:
    """Yields the words of a sentence that may be left out: content words that occur only once.

    Words of code (in backticks or before a parenthesis) are left in place.
    """
    for match in WORD.finditer(sentence, 1):
        before, after = sentence[: match.start()], sentence[match.end() :]
        is_code = before.count("`") % 2 == 1 or after.startswith("(")
        if shape(match[0]) and not is_code and not contains_stem(match[0], f"{before} {after}"):
            yield match


def contains_stem(word: str, text: str) -> bool:
    """Returns whether the text contains the word, or another word that begins with its stem.

    >>> contains_stem("runners", "A runner"), contains_stem("running", "He runs.")
    (True, False)
    >>> contains_stem("art", "It starts.")
    False
    """
    stem, text = word.lower(), text.lower()
    is_short = len(stem) < 6  # a short word has to occur as a whole word
    stem = stem if is_short else stem[: max(5, len(stem) - 3)]
    start = text.find(stem)
    while start >= 0:
        end = start + len(stem)
        begins_word = start == 0 or not text[start - 1].isalnum()
        if begins_word and not (is_short and end < len(text) and text[end].isalnum()):
            return True
        start = text.find(stem, start + 1)
    return False


def same_stem(one: str, other: str) -> bool:
    """Returns whether two words are equal except for case or begin with the same five letters.

    Such words are no fair alternatives in a multiple-choice item.
    """
    one, other = one.lower(), other.lower()
    if one[0].isdigit():
        return one == other
    stem = min(5, len(one), len(other))
    return one == other or one[:stem] == other[:stem]
