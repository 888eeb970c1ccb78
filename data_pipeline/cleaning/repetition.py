"""Shares of a text that are in repeated n-grams (MassiveText, arXiv 2112.11446, appendix A.1.2).

The computation is exact: words are numbered, pairs of numbers are numbered again, and so on, so
that equal n-grams have equal numbers and no hash can collide. Shares are fractions of the
characters of all words.

>>> words = "a b c d e f a b c d e g".split()
>>> list(duplicate_ngrams(words, {5: 0.3}))         # the second "a b c d e": 5 of 12 characters
[(5, 0.4166666666666667)]
>>> list(top_ngrams(words, {2: 0.3}))               # "a b" twice: 4 of 12
[(2, 0.3333333333333333, 'a b')]

Shape letters: W words, S n-grams in text order, N distinct n-grams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]


def top_ngrams(
    words: Sequence[str], max_shares: Mapping[int, float]
) -> Iterator[tuple[int, float, str]]:
    """Yields (n, share, n-gram) for each n whose most frequent n-gram exceeds `max_shares[n]`.

    The share of an n-gram is its length times its number of occurrences, which may overlap ("ha ha
    ha" contains "ha ha" twice); it is at most 1. An n-gram that occurs once is not a repetition.
    """
    if not max_shares or not words:
        return
    length_W = np.fromiter(map(len, words), np.int64, len(words))  # characters of each word
    total = int(length_W.sum())
    numbers = _NgramNumbers(words)
    for n in sorted(max_shares):
        ngram_S = numbers.of_length(n)
        if not len(ngram_S):
            return
        count_N = np.bincount(ngram_S)
        highest = int(count_N.max())
        if highest < 2:
            return  # if no n-gram repeats, no longer one does
        # An upper bound: even n-grams of n longest words would not exceed the limit.
        if highest * n * int(length_W.max()) <= max_shares[n] * total:
            continue
        # Of the equally frequent n-grams the longest is used, of equally long ones the first.
        first_N = np.full(len(count_N), len(words), np.int64)  # index of the first occurrence
        np.minimum.at(first_N, ngram_S, np.arange(len(ngram_S)))
        frequent = np.flatnonzero(count_N == highest)
        edges_W = np.concatenate([[0], np.cumsum(length_W)])  # characters before each word
        starts = first_N[frequent]
        characters = edges_W[starts + n] - edges_W[starts]
        best = int(np.lexsort((starts, -characters))[0])  # the last key is the primary one
        share = min(1.0, highest * int(characters[best]) / total)
        if share > max_shares[n]:
            yield n, share, " ".join(words[starts[best] : starts[best] + n])


def duplicate_ngrams(
    words: Sequence[str], max_shares: Mapping[int, float]
) -> Iterator[tuple[int, float]]:
    """Yields (n, share) for each n whose share of characters in duplicates exceeds `max_shares[n]`.

    A duplicate is an n-gram that occurred before in the text. A character in several duplicates is
    counted once.
    """
    if not max_shares or not words:
        return
    length_W = np.fromiter(map(len, words), np.int64, len(words))  # characters of each word
    total = int(length_W.sum())
    numbers = _NgramNumbers(words)
    lowest_limit = min(max_shares.values())
    for n in sorted(max_shares):
        ngram_S = numbers.of_length(n)
        first_S = np.unique(ngram_S, return_index=True)[1] if len(ngram_S) else ngram_S
        is_duplicate_S = np.ones(len(ngram_S), np.int64)
        is_duplicate_S[first_S] = 0
        starts = np.flatnonzero(is_duplicate_S)
        if not len(starts):
            return
        # +1 where a duplicate begins and -1 after its end: the running sum is the number of
        # duplicates that cover a word.
        change_W = np.zeros(len(words) + 1, np.int64)
        change_W[starts] += 1
        change_W[starts + n] -= 1
        share = int(length_W[np.cumsum(change_W)[:-1] > 0].sum()) / total
        if share > max_shares[n]:
            yield n, share
        if share <= lowest_limit:
            return  # words in longer duplicates are in duplicates of n words too


class _NgramNumbers:
    """Numbers of the n-grams of a text, equal exactly for equal n-grams.

    The numbers of long n-grams are composed of those of shorter ones.
    """

    def __init__(self, words: Sequence[str]):
        """Numbers the distinct words in the order of their first occurrence."""
        numbers: dict[str, int] = {}
        self._by_length = {
            1: np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int64)
        }

    def of_length(self, n: int) -> I64:
        """Returns the number of the n-gram at each word: int64 [S] with S = max(0, W - n + 1)."""
        if n not in self._by_length:
            # An n-gram is composed of the longest known shorter one and one for the other words.
            # They may not overlap, so the second is computed if none of its length is known.
            shorter = max(m for m in self._by_length if m < n)
            rest = max(m for m in self._by_length if m <= n - shorter)
            if shorter + rest < n:
                rest = n - shorter
            left, right = self.of_length(shorter), self.of_length(rest)
            if len(left) < n - shorter + 1:  # the text has fewer than n words
                return np.empty(0, np.int64)
            num_ngrams = len(self._by_length[1]) - n + 1
            # The pair (first, second) as one integer; renumbering the distinct pairs from 0 keeps
            # the products small.
            first, second = left[:num_ngrams], right[shorter : shorter + num_ngrams]
            pairs = first * (int(right.max()) + 1) + second
            self._by_length[n] = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        return self._by_length[n]
