"""How much of a text lies in n-grams that it repeats (MassiveText, arXiv 2112.11446, A.1.2).

Exact: words become numbers, pairs of numbers become numbers again, and so on, so that equal n-grams
have equal numbers and no hash can collide. Shares are of the characters of the words.

>>> words = "a b c d e f a b c d e g".split()
>>> list(duplicate_ngrams(words, {5: 0.3}))         # the second "a b c d e": 5 of 12 characters
[(5, 0.4166666666666667)]
>>> list(top_ngrams(words, {2: 0.3}))               # "a b" twice: 4 of 12
[(2, 0.3333333333333333, 'a b')]

Shape letters: W words, S n-grams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]


def top_ngrams(words: Sequence[str], most: Mapping[int, float]) -> Iterator[tuple[int, float, str]]:
    """(n, share, n-gram) for each n whose most frequent n-gram has more than `most[n]` of all
    characters; one that occurs once is no repetition.

    Occurrences that overlap ("ha ha ha" has "ha ha" twice) are counted as often as they occur, and
    the share is at most 1.
    """
    if not most or not words:
        return
    length_W = np.fromiter(map(len, words), np.int64, len(words))
    total = int(length_W.sum())
    numbered = _Numbered(words)
    for n in sorted(most):
        ngram_S = numbered.of(n)
        if not len(ngram_S):
            return
        count_N = np.bincount(ngram_S)
        highest = int(count_N.max())
        if highest < 2:
            return  # nor is a longer one repeated
        if highest * n * int(length_W.max()) <= most[n] * total:
            continue
        # of the equally frequent ones the longest, of these the first
        first_N = np.full(len(count_N), len(words), np.int64)
        np.minimum.at(first_N, ngram_S, np.arange(len(ngram_S)))
        frequent = np.flatnonzero(count_N == highest)
        edges_W = np.concatenate([[0], np.cumsum(length_W)])
        at = first_N[frequent]
        characters = edges_W[at + n] - edges_W[at]
        best = int(np.lexsort((at, -characters))[0])
        share = min(1.0, highest * int(characters[best]) / total)
        if share > most[n]:
            yield n, share, " ".join(words[at[best] : at[best] + n])


def duplicate_ngrams(
    words: Sequence[str], most: Mapping[int, float]
) -> Iterator[tuple[int, float]]:
    """(n, share) for each n of which more than `most[n]` of all characters are in n-grams that
    stood before in the text; characters in two such n-grams count once."""
    if not most or not words:
        return
    length_W = np.fromiter(map(len, words), np.int64, len(words))
    total = int(length_W.sum())
    numbered = _Numbered(words)
    least = min(most.values())
    for n in sorted(most):
        ngram_S = numbered.of(n)
        first_S = np.unique(ngram_S, return_index=True)[1] if len(ngram_S) else ngram_S
        again_S = np.ones(len(ngram_S), np.int64)
        again_S[first_S] = 0
        starts = np.flatnonzero(again_S)
        if not len(starts):
            return
        # +1 where a repeated n-gram begins, -1 behind its end: above 0 is in one
        change_W = np.zeros(len(words) + 1, np.int64)
        change_W[starts] += 1
        change_W[starts + n] -= 1
        share = int(length_W[np.cumsum(change_W)[:-1] > 0].sum()) / total
        if share > most[n]:
            yield n, share
        if share <= least:
            return  # what lies in a repeated n-gram lies in repeated shorter ones


class _Numbered:
    """Numbers of the n-grams of a text, equal for equal n-grams, made of those of shorter ones."""

    def __init__(self, words: Sequence[str]):
        numbers: dict[str, int] = {}
        self._of = {
            1: np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int64)
        }

    def of(self, n: int) -> I64:
        """[S] with S = max(0, W - n + 1)."""
        if n not in self._of:
            shorter = max(m for m in self._of if m < n)
            rest = max(m for m in self._of if m <= n - shorter)
            if shorter + rest < n:
                rest = n - shorter
            left, right = self.of(shorter), self.of(rest)
            if len(left) < n - shorter + 1:
                return np.empty(0, np.int64)
            count = len(self._of[1]) - n + 1
            pairs = left[:count] * (int(right.max()) + 1) + right[shorter : shorter + count]
            self._of[n] = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        return self._of[n]
