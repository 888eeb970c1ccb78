"""A table of hashes and the parts that have each, made for looking up millions of them.

Shape letters: G distinct hashes, ascending; J (hash, part) pairs, by hash; S hashes looked up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_pipeline.text.ngrams import I64, U64


def _upper(hashes: U64, bits: int) -> I64:
    return (hashes >> np.uint64(64 - bits)).view(np.int64)


@dataclass(slots=True)
class NgramTable:
    """Distinct n-grams, ascending, and the parts that have each: `parts_J[offsets_G[g]:...]`."""

    hashes_G: U64
    offsets_G: I64  # [G + 1]
    parts_J: NDArray[np.int32]
    # Two lookups by the upper bits of a hash instead of twenty in a binary search: may it be here
    # at all, and where in `hashes_G` do those with these bits begin?
    _may_be: NDArray[np.bool_] = field(init=False, repr=False)
    _begin: NDArray[np.int32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        bits = max(len(self.hashes_G), 1 << 8).bit_length()
        self._begin = np.zeros((1 << bits) + 1, np.int32)
        np.cumsum(
            np.bincount(_upper(self.hashes_G, bits), minlength=1 << bits), out=self._begin[1:]
        )
        self._may_be = np.zeros(1 << min(bits + 3, 25), bool)
        self._may_be[_upper(self.hashes_G, min(bits + 3, 25))] = True

    @classmethod
    def of(cls, hashes_J: U64, parts_J: I64) -> NgramTable:
        """Of (hash, part) pairs that are sorted by hash."""
        hashes_G, counts_G = np.unique(hashes_J, return_counts=True)
        offsets_G = np.concatenate([[0], np.cumsum(counts_G)]).astype(np.int64)
        return cls(hashes_G, offsets_G, parts_J.astype(np.int32))

    def find(self, hashes_S: U64) -> tuple[I64, I64]:
        """(s, g) of all hashes that are in the table, in the order of s."""
        s = np.flatnonzero(self._may_be[_upper(hashes_S, len(self._may_be).bit_length() - 1)])
        wanted = hashes_S[s]
        bucket = _upper(wanted, len(self._begin).bit_length() - 1)
        g, end = self._begin[bucket].astype(np.int64), self._begin[bucket + 1]
        there = np.zeros(len(s), bool)
        left = np.flatnonzero(g < end)
        while len(left):
            same = self.hashes_G[g[left]] == wanted[left]
            there[left[same]] = True
            left = left[~same]
            g[left] += 1
            left = left[g[left] < end[left]]
        return s[there], g[there]

    def pairs(self, g: I64) -> tuple[I64, I64]:
        """(h, j) of all pairs of all these n-grams; h counts the entries of g."""
        repeats = self.offsets_G[g + 1] - self.offsets_G[g]
        h = np.repeat(np.arange(len(g)), repeats)
        within = np.arange(len(h)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        return h, self.offsets_G[g][h] + within

    def expand(self, g: I64) -> tuple[I64, I64]:
        """(h, part) of all parts of all these n-grams; h counts the entries of g."""
        h, j = self.pairs(g)
        return h, self.parts_J[j].astype(np.int64)


def few_items(hashes_J: U64, part_J: I64, item_K: I64, most_items: int) -> NDArray[np.bool_]:
    """Which (hash, part) pairs, sorted, have a hash that at most so many items have.

    Items are numbered in the order of their parts, so those of a hash stand together.
    """
    new_gram, new_item = np.ones(len(part_J), bool), np.ones(len(part_J), bool)
    new_gram[1:] = hashes_J[1:] != hashes_J[:-1]
    new_item[1:] = new_gram[1:] | (item_K[part_J[1:]] != item_K[part_J[:-1]])
    gram_J = np.cumsum(new_gram) - 1
    return np.asarray((np.bincount(gram_J, new_item) <= most_items)[gram_J])
