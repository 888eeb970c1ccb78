"""Which sets of one group are connected by pairs of high Jaccard similarity: exactly, every pair.

    >>> a, b, c = (np.arange(k, k + 10, dtype=np.uint64) for k in (0, 1, 100))
    >>> unite([a, c, b], threshold=0.7).tolist()      # |a and b| / |a or b| = 9 / 11
    [0, 1, 0]

A small group is compared pair by pair, but for pairs whose sizes differ too much and pairs that are
connected already. In a large one the pairs are found by prefixes (Bayardo et al., Scaling up all
pairs similarity search, WWW 2007; Xiao et al., PPJoin, WWW 2008): with the elements of each set
ordered from the rarest of the group to the most frequent, two sets A and B, |A| <= |B|, of
similarity t or more share one of the first |A| - ceil(2t/(1 + t) |A|) + 1 elements of A and the
first |B| - ceil(t |B|) + 1 of B.

So a group of many pages of one template costs no comparison while the template is less than
2t/(1 + t) of a page (82 % at t = 0.7), since what pages begin with is then their own; and where it
is more, the pages are similar, and a page that is connected to all that it could be compared with
is done. A hundred thousand pages of 100 n-grams take 6 seconds where a quarter of each is its own
and 8 where a twentieth is, and 700 MB. In between, for pages that share rare n-grams without being
similar, the time grows with the number of such pairs: 10 microseconds each, and nothing is kept of
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipeline.deduplication.candidate_groups import roots
from data_pipeline.text.ngrams import I64, U64

F64 = NDArray[np.float64]

SMALL = 32  # sets; a group of as many is compared pair by pair


def connected_components(sets: Sequence[U64], threshold: float) -> I64:
    """For each set the smallest index of its connected group; sets are sorted and not empty."""
    joined = _UnionFind(sets, threshold)
    if len(sets) <= SMALL:
        for k in range(len(sets) - 1):
            joined.compare(k, np.arange(k + 1, len(sets)))
    else:
        _by_prefixes(joined, sets, threshold)
    return roots(joined.parent, np.arange(len(sets)))


def jaccard(one: U64, others: Sequence[U64]) -> F64:
    """Similarities of one sorted set to several, all of them not empty."""
    everything = np.concatenate(others)
    sizes = np.array([len(other) for other in others])
    at = np.minimum(np.searchsorted(one, everything), len(one) - 1)
    common = np.add.reduceat(one[at] == everything, np.cumsum(sizes) - sizes, dtype=np.int64)
    return common / (len(one) + sizes - common)


class _UnionFind:
    """Union-find over the sets; a root is the smallest index of its group."""

    def __init__(self, sets: Sequence[U64], threshold: float):
        self.sets, self.threshold = sets, threshold
        self.sizes = np.array([len(own) for own in sets])
        self.parent = np.arange(len(sets))

    def compare(self, k: int, others: I64) -> None:
        """Unites k with those of the others that are similar and not yet connected with it."""
        root = roots(self.parent, np.array([k]))[0]
        others = others[roots(self.parent, others) != root]
        # |A and B| <= min, |A or B| >= max: most different sizes need no look at the sets.
        small = np.minimum(self.sizes[others], self.sizes[k])
        large = np.maximum(self.sizes[others], self.sizes[k])
        others = others[small >= self.threshold * large]
        if not len(others):
            return
        similarity = jaccard(self.sets[k], [self.sets[other] for other in others.tolist()])
        found = roots(self.parent, others[similarity >= self.threshold])
        if len(found):
            self.parent[found] = self.parent[root] = min(int(root), int(found.min()))


def _by_prefixes(joined: _UnionFind, sets: Sequence[U64], threshold: float) -> None:
    """Compares each set, from the smallest to the largest, with smaller ones by common prefixes."""
    sizes = joined.sizes
    elements = _rarest_first(sets)
    # A float a hair too high would make a prefix too short and lose a pair.
    probe = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
    index = sizes - np.ceil(2 * threshold / (1 + threshold) * sizes - 1e-9).astype(np.int64) + 1
    order = np.argsort(sizes, kind="stable")
    lists = _InvertedIndex([elements[k][: index[k]] for k in order.tolist()])
    for k in order.tolist():
        seen = elements[k][: probe[k]]
        # First one of each list, which mostly connects k with all that the lists hold ...
        joined.compare(k, np.unique(lists.last(seen)))
        # ... then whoever is left in them.
        others = lists.candidates(seen, k, joined.parent)
        if len(others):
            joined.compare(k, others)
        lists.add(k, elements[k][: index[k]], joined.parent)


def _rarest_first(sets: Sequence[U64]) -> list[I64]:
    """Each set as numbers of its elements, ascending by how many sets have them.

    An element of one set alone matches nothing, but takes its place in the prefix: it is -1.
    """
    values, inverse, counts = np.unique(
        np.concatenate(sets), return_inverse=True, return_counts=True
    )
    rank = np.empty(len(values), np.int32)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(values), dtype=np.int32)
    rank -= np.count_nonzero(counts == 1)
    elements = np.maximum(rank[inverse], -1)
    ends = np.cumsum([len(own) for own in sets])[:-1]
    return [np.sort(own) for own in np.split(elements, ends)]


class _InvertedIndex:
    """For each element the sets that have it in their prefix, as far as they were added."""

    def __init__(self, prefixes: Sequence[I64]):
        everything = np.concatenate(prefixes)
        counts = np.bincount(everything[everything >= 0])
        self._begin = np.cumsum(counts) - counts
        self._filled = np.zeros(len(counts), np.int64)
        self._sets = np.empty(int(counts.sum()), np.int32)
        # One set of a list all of whose sets were found connected, -1 for the others.
        self._all_like = np.full(len(counts), -1)

    def _known(self, elements: I64) -> I64:
        elements = elements[(elements >= 0) & (elements < len(self._filled))]
        return elements[self._filled[elements] > 0]

    def last(self, elements: I64) -> I64:
        """The set that was added last, of each list."""
        known = self._known(elements)
        return self._sets[self._begin[known] + self._filled[known] - 1].astype(np.int64)

    def candidates(self, elements: I64, k: int, parent: I64) -> I64:
        """The sets of these lists that are not connected with set k, ascending."""
        known = self._known(elements)
        root = roots(parent, np.array([k]))[0]
        like = self._all_like[known]
        done = (like >= 0) & (roots(parent, np.maximum(like, 0)) == root)
        found = [np.empty(0, np.int64)]
        for element in known[~done].tolist():
            begin = self._begin[element]
            sets = self._sets[begin : begin + self._filled[element]].astype(np.int64)
            roots_of_list = roots(parent, sets)
            if (roots_of_list == roots_of_list[0]).all():
                self._all_like[element] = sets[0]
            found.append(sets[roots_of_list != root])
        return np.unique(np.concatenate(found))

    def add(self, k: int, elements: I64, parent: I64) -> None:
        """Appends set k to these lists."""
        elements = elements[elements >= 0]
        like = self._all_like[elements]
        new = self._filled[elements] == 0
        root = roots(parent, np.array([k]))[0]
        alike = new | ((like >= 0) & (roots(parent, np.maximum(like, 0)) == root))
        self._all_like[elements] = np.where(alike, k, -1)
        self._sets[self._begin[elements] + self._filled[elements]] = k
        self._filled[elements] += 1
