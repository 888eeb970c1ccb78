"""Exact connected components of the sets of one group whose Jaccard similarity is high.

    >>> a, b, c = (np.arange(k, k + 10, dtype=np.uint64) for k in (0, 1, 100))
    >>> connected_components([a, c, b], threshold=0.7).tolist()   # |a and b| / |a or b| = 9 / 11
    [0, 1, 0]

In a small group all pairs are compared, except pairs whose sizes differ too much and pairs that are
already connected. In a large one pairs are found by prefixes (Bayardo et al., Scaling up all pairs
similarity search, WWW 2007; Xiao et al., PPJoin, WWW 2008). The elements of each set are ordered
from the rarest of the group to the most frequent. Then two sets A and B, |A| <= |B|, of similarity
t or more share one of the first |A| - ceil(2t/(1 + t) |A|) + 1 elements of A and the first
|B| - ceil(t |B|) + 1 elements of B.

Many pages of one template cost no comparison while the template is less than 2t/(1 + t) of a page
(82 % at t = 0.7), because the prefixes then consist of the pages' own elements. If the template is
more, the pages are similar, and a page that is connected with all of its candidates needs no
further comparison. A hundred thousand pages of 100 n-grams take 6 seconds where a quarter of each
is its own, 8 seconds where a twentieth is, and 700 MB. In between, for pages that share rare
n-grams without being similar, time grows with the number of such pairs: 10 microseconds each. No
pair is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipeline.deduplication.candidate_groups import roots
from data_pipeline.text.ngrams import I64, U64

F64 = NDArray[np.float64]

SMALL = 32  # sets; in a group of at most this many all pairs are compared


def connected_components(sets: Sequence[U64], threshold: float) -> I64:
    """Returns, for each set, the smallest index of its connected component.

    Args:
      sets: sorted hashes without repeats; no set is empty.
      threshold: Jaccard similarity of two sets from which on they are connected.

    Returns:
      int64, one number per set.
    """
    union_find = _UnionFind(sets, threshold)
    if len(sets) <= SMALL:
        for k in range(len(sets) - 1):
            union_find.compare(k, np.arange(k + 1, len(sets)))
    else:
        _compare_by_prefixes(union_find, sets, threshold)
    return roots(union_find.parent, np.arange(len(sets)))


def jaccard(one: U64, others: Sequence[U64]) -> F64:
    """Returns the Jaccard similarities of one sorted set to several; no set is empty."""
    elements = np.concatenate(others)
    sizes = np.array([len(other) for other in others])
    # An element is common if it is found at its place in the sorted set.
    at = np.minimum(np.searchsorted(one, elements), len(one) - 1)
    common = np.add.reduceat(one[at] == elements, np.cumsum(sizes) - sizes, dtype=np.int64)
    return common / (len(one) + sizes - common)  # |A and B| / |A or B|


class _UnionFind:
    """Union-find over the sets of a group; a root is the smallest index of its component."""

    def __init__(self, sets: Sequence[U64], threshold: float):
        """Starts with each set as a component of its own."""
        self.sets, self.threshold = sets, threshold
        self.sizes = np.array([len(own) for own in sets])
        self.parent = np.arange(len(sets))

    def compare(self, k: int, others: I64) -> None:
        """Unites set k with those of `others` that are similar and not yet connected with it."""
        root = roots(self.parent, np.array([k]))[0]
        others = others[roots(self.parent, others) != root]
        # Since |A and B| <= min and |A or B| >= max, the similarity is at most min / max.
        small = np.minimum(self.sizes[others], self.sizes[k])
        large = np.maximum(self.sizes[others], self.sizes[k])
        others = others[small >= self.threshold * large]
        if not len(others):
            return
        similarity = jaccard(self.sets[k], [self.sets[other] for other in others.tolist()])
        similar_roots = roots(self.parent, others[similarity >= self.threshold])
        if len(similar_roots):
            smallest = min(int(root), int(similar_roots.min()))
            self.parent[similar_roots] = self.parent[root] = smallest


def _compare_by_prefixes(union_find: _UnionFind, sets: Sequence[U64], threshold: float) -> None:
    """Compares each set, from the smallest to the largest, with smaller ones by common prefixes."""
    sizes = union_find.sizes
    elements = _rarest_first(sets)
    # The lengths of the prefixes of the module's docstring: that of the larger set of a pair, which
    # is looked up, and that of the smaller one, which is indexed. 1e-9: a product that rounding
    # made a hair too high would shorten a prefix and lose a pair.
    lookup_size = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
    indexed_size = (
        sizes - np.ceil(2 * threshold / (1 + threshold) * sizes - 1e-9).astype(np.int64) + 1
    )
    order = np.argsort(sizes, kind="stable")
    index = _InvertedIndex([elements[k][: indexed_size[k]] for k in order.tolist()])
    for k in order.tolist():
        prefix = elements[k][: lookup_size[k]]
        # First one set of each list: that mostly connects k with all sets of the list.
        union_find.compare(k, np.unique(index.last(prefix)))
        # Then the sets of these lists that are still not connected with k.
        others = index.candidates(prefix, k, union_find.parent)
        if len(others):
            union_find.compare(k, others)
        index.add(k, elements[k][: indexed_size[k]], union_find.parent)


def _rarest_first(sets: Sequence[U64]) -> list[I64]:
    """Returns each set as the ranks of its elements, ascending by how many sets have them.

    An element of one set alone has rank -1: it matches nothing, but takes its place in the prefix.
    """
    values, inverse, counts = np.unique(
        np.concatenate(sets), return_inverse=True, return_counts=True
    )
    rank = np.empty(len(values), np.int32)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(values), dtype=np.int32)
    # The elements of one set alone have the lowest ranks; the others begin at 0.
    rank -= np.count_nonzero(counts == 1)
    elements = np.maximum(rank[inverse], -1)
    ends = np.cumsum([len(own) for own in sets])[:-1]
    return [np.sort(own) for own in np.split(elements, ends)]


class _InvertedIndex:
    """For each element a list of the sets that have it in their prefix, filled set by set."""

    def __init__(self, prefixes: Sequence[I64]):
        """Reserves the lists of all elements in one array; they are empty."""
        elements = np.concatenate(prefixes)
        counts = np.bincount(elements[elements >= 0])
        self._begin = np.cumsum(counts) - counts
        self._filled = np.zeros(len(counts), np.int64)
        self._sets = np.empty(int(counts.sum()), np.int32)
        # One set of each list whose sets are all known to be connected, -1 for other lists.
        self._connected_by = np.full(len(counts), -1)

    def _with_sets(self, elements: I64) -> I64:
        """Returns the elements whose lists are not empty."""
        elements = elements[(elements >= 0) & (elements < len(self._filled))]
        return elements[self._filled[elements] > 0]

    def last(self, elements: I64) -> I64:
        """Returns, of each list that is not empty, the set that was added last."""
        known = self._with_sets(elements)
        return self._sets[self._begin[known] + self._filled[known] - 1].astype(np.int64)

    def candidates(self, elements: I64, k: int, parent: I64) -> I64:
        """Returns the sets of these lists that are not connected with set k, ascending."""
        known = self._with_sets(elements)
        root = roots(parent, np.array([k]))[0]
        # A list whose sets are all connected with each other and with k is skipped.
        member = self._connected_by[known]
        is_done = (member >= 0) & (roots(parent, np.maximum(member, 0)) == root)
        candidates = [np.empty(0, np.int64)]
        for element in known[~is_done].tolist():
            begin = self._begin[element]
            sets = self._sets[begin : begin + self._filled[element]].astype(np.int64)
            roots_of_list = roots(parent, sets)
            if (roots_of_list == roots_of_list[0]).all():
                self._connected_by[element] = sets[0]
            candidates.append(sets[roots_of_list != root])
        return np.unique(np.concatenate(candidates))

    def add(self, k: int, elements: I64, parent: I64) -> None:
        """Appends set k to the lists of these elements."""
        elements = elements[elements >= 0]
        member = self._connected_by[elements]
        is_empty = self._filled[elements] == 0
        root = roots(parent, np.array([k]))[0]
        # A list stays connected if it was, and its sets are connected with k.
        is_connected = is_empty | ((member >= 0) & (roots(parent, np.maximum(member, 0)) == root))
        self._connected_by[elements] = np.where(is_connected, k, -1)
        self._sets[self._begin[elements] + self._filled[elements]] = k
        self._filled[elements] += 1
