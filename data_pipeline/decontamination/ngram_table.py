"""A table from n-gram hashes to the item parts that contain them, for millions of lookups.

Shape letters: G distinct hashes, ascending; J (hash, part) pairs, by hash; S hashes looked up; K
parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_pipeline.text.ngrams import I64, U64


def _top_bits(hashes: U64, bits: int) -> I64:
    """Returns the `bits` most significant bits of each hash."""
    return (hashes >> np.uint64(64 - bits)).view(np.int64)


@dataclass(slots=True)
class NgramTable:
    """Distinct n-grams, ascending, and the parts of each: `parts_J[offsets_G[g]:offsets_G[g + 1]]`.

    Besides the arrays it holds two tables by the most significant bits of a hash. They replace the
    some twenty steps of a binary search by two lookups.
    """

    hashes_G: U64
    offsets_G: I64  # [G + 1]
    parts_J: NDArray[np.int32]
    # Does any hash of the table have these bits (25 at most)? A filter: False is certain.
    _may_contain: NDArray[np.bool_] = field(init=False, repr=False)
    # Hashes with the top bits b are hashes_G[_bucket_begin[b]:_bucket_begin[b + 1]].
    _bucket_begin: NDArray[np.int32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Builds the two lookup tables."""
        bits = max(len(self.hashes_G), 1 << 8).bit_length()  # about one hash per bucket
        self._bucket_begin = np.zeros((1 << bits) + 1, np.int32)
        np.cumsum(
            np.bincount(_top_bits(self.hashes_G, bits), minlength=1 << bits),
            out=self._bucket_begin[1:],
        )
        filter_bits = min(bits + 3, 25)  # at most one entry in eight is set, 32 MiB at most
        self._may_contain = np.zeros(1 << filter_bits, bool)
        self._may_contain[_top_bits(self.hashes_G, filter_bits)] = True

    @classmethod
    def from_sorted_pairs(cls, hashes_J: U64, parts_J: I64) -> NgramTable:
        """Returns the table of (hash, part) pairs that are sorted by hash."""
        hashes_G, counts_G = np.unique(hashes_J, return_counts=True)
        offsets_G = np.concatenate([[0], np.cumsum(counts_G)]).astype(np.int64)
        return cls(hashes_G, offsets_G, parts_J.astype(np.int32))

    def find(self, hashes_S: U64) -> tuple[I64, I64]:
        """Returns (s, g) of all hashes that are in the table, in the order of s.

        `hashes_S[s] == hashes_G[g]` for each pair.
        """
        # Most hashes of running text are in no benchmark: the filter removes them in one step.
        s = np.flatnonzero(self._may_contain[_top_bits(hashes_S, _bits(self._may_contain))])
        query = hashes_S[s]
        bucket = _top_bits(query, _bits(self._bucket_begin))
        g, end = self._bucket_begin[bucket].astype(np.int64), self._bucket_begin[bucket + 1]
        is_match = np.zeros(len(s), bool)
        # All queries step through their buckets together; a bucket holds one hash on average.
        active = np.flatnonzero(g < end)
        while len(active):
            same = self.hashes_G[g[active]] == query[active]
            is_match[active[same]] = True
            active = active[~same]
            g[active] += 1
            active = active[g[active] < end[active]]
        return s[is_match], g[is_match]

    def pairs_of(self, g: I64) -> tuple[I64, I64]:
        """Returns (h, j) of all (hash, part) pairs of these n-grams; h counts the entries of g."""
        num_parts = self.offsets_G[g + 1] - self.offsets_G[g]
        h = np.repeat(np.arange(len(g)), num_parts)
        # 0, 1, ... for the pairs of one n-gram: their number less the number of those before it.
        within = np.arange(len(h)) - np.repeat(np.cumsum(num_parts) - num_parts, num_parts)
        return h, self.offsets_G[g][h] + within

    def parts_of(self, g: I64) -> tuple[I64, I64]:
        """Returns (h, part) of all parts of these n-grams; h counts the entries of g."""
        h, j = self.pairs_of(g)
        return h, self.parts_J[j].astype(np.int64)


def _bits(table: NDArray) -> int:
    """Returns b of a lookup table with 2^b (or 2^b + 1) entries."""
    return len(table).bit_length() - 1


def is_in_few_items(hashes_J: U64, part_J: I64, item_K: I64, max_items: int) -> NDArray[np.bool_]:
    """Returns bool [J]: the pair's hash occurs in at most `max_items` different items.

    Args:
      hashes_J: n-gram hashes, ascending.
      part_J: the part of each pair, ascending among the pairs of one hash.
      item_K: the item of each part. Items are numbered in the order of their parts, so that the
        pairs of one hash and item are neighbors.
      max_items: an n-gram of more items is a phrase.
    """
    is_new_gram, is_new_item = np.ones(len(part_J), bool), np.ones(len(part_J), bool)
    is_new_gram[1:] = hashes_J[1:] != hashes_J[:-1]
    is_new_item[1:] = is_new_gram[1:] | (item_K[part_J[1:]] != item_K[part_J[:-1]])
    gram_J = np.cumsum(is_new_gram) - 1
    num_items_of_gram = np.bincount(gram_J, is_new_item)
    return np.asarray((num_items_of_gram <= max_items)[gram_J])
