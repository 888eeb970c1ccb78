"""Groups of candidate duplicates: documents connected by shared keys.

A document's number is its shard's number << 32 | its row. Groups consist of such integers only, so
a group of a thousand documents costs as much here as five hundred groups of two. A *link* is a pair
of numbers: a document, and a smaller one of its group.

>>> groups = connect([Links(near_E2=np.array([[5, 2], [9, 5]], np.uint64)), Links()])
>>> groups.number_M.tolist(), groups.candidate_root_M.tolist()
([2, 5, 9], [2, 2, 2])

Shape letters: E links, C copies, M documents in groups, K keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_pipeline.execution.shuffle_file import Arrays
from data_pipeline.text.ngrams import I64, U64

ROW_BITS = 32


def _no_numbers() -> U64:
    """Returns an empty list of document numbers."""
    return np.empty(0, np.uint64)


def _no_links() -> U64:
    """Returns an empty list of links."""
    return np.empty((0, 2), np.uint64)


@dataclass(slots=True)
class Links:
    """The links that the keys of one partition make.

    `near_E2` joins documents that share an LSH band, `names_E2` documents whose ids are alike.
    `copies_C` are exact duplicates of another document of the same group.
    """

    near_E2: U64 = field(default_factory=_no_links)
    names_E2: U64 = field(default_factory=_no_links)
    copies_C: U64 = field(default_factory=_no_numbers)

    def to_arrays(self) -> Arrays:
        """Returns the links as named arrays, for a shuffle file."""
        return {"near": self.near_E2, "names": self.names_E2, "copies": self.copies_C}

    @classmethod
    def from_arrays(cls, arrays: Arrays | None) -> Links:
        """Returns the links of `to_arrays`; None gives no links."""
        return cls(arrays["near"], arrays["names"], arrays["copies"]) if arrays else cls()


@dataclass(slots=True)
class Groups:
    """The documents that are in a group, by ascending number.

    `candidate_root_M` is the smallest number of a document's group of candidate duplicates.
    `decision_root_M` is the smallest number of the documents that must be decided together: those
    groups, and documents whose ids are alike. `needs_jaccard_M`: the document is compared with
    others; it is not a copy, and not alone in its group of candidates.
    """

    number_M: U64
    candidate_root_M: U64
    decision_root_M: U64
    needs_jaccard_M: NDArray[np.bool_]

    def to_arrays(self) -> Arrays:
        """Returns the groups as named arrays, for a shuffle file."""
        return {
            "number": self.number_M,
            "near": self.candidate_root_M,
            "together": self.decision_root_M,
            "compared": self.needs_jaccard_M,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays | None) -> Groups:
        """Returns the groups of `to_arrays`; None gives no groups."""
        if arrays is None:
            return cls(_no_numbers(), _no_numbers(), _no_numbers(), np.empty(0, bool))
        return cls(*(arrays[name] for name in ("number", "near", "together", "compared")))

    def select(self, chosen: NDArray) -> Groups:
        """Returns the documents that a mask or an array of indices chooses."""
        return Groups(
            self.number_M[chosen],
            self.candidate_root_M[chosen],
            self.decision_root_M[chosen],
            self.needs_jaccard_M[chosen],
        )

    def shard_M(self) -> I64:
        """Returns the number of each document's shard."""
        return (self.number_M >> np.uint64(ROW_BITS)).astype(np.int64)

    def row_M(self) -> I64:
        """Returns the row of each document in its shard."""
        return (self.number_M & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64)


def document_numbers(shard: int, rows: NDArray) -> U64:
    """Returns the numbers of the documents in these rows of a shard."""
    return rows.astype(np.uint64) + np.uint64(shard << ROW_BITS)


def find_links(tables: Iterable[tuple[int, Arrays | None]]) -> Links:
    """Returns the links of one partition.

    `tables`: (number of a shard, what `Signatures.by_partition` gave for this partition).
    """
    keys: dict[str, list[NDArray]] = {"exact": [], "bands": [], "names": []}
    numbers: dict[str, list[NDArray]] = {"exact": [], "bands": [], "names": []}
    for shard, arrays in tables:
        if arrays is not None:
            for kind in keys:
                keys[kind].append(arrays[f"{kind}_keys"])
                numbers[kind].append(document_numbers(shard, arrays[f"{kind}_rows"]))
    if not keys["exact"]:
        return Links()
    # `pop` frees the keys of each kind before the next kind is sorted.
    copies_E2, near_E2, names_E2 = (
        _links_of_equal_keys(np.concatenate(keys.pop(kind)), np.concatenate(numbers.pop(kind)))
        for kind in ("exact", "bands", "names")
    )
    # Copies have the same words and so the same bands: they need no links of their own. Of each
    # component one link per document is enough, which makes the file smaller.
    return Links(components(near_E2), names_E2, np.sort(copies_E2[:, 0]))


def connect(partitions: Iterable[Links]) -> Groups:
    """Returns the groups that the links of all partitions make together."""
    near_components, name_components = _ComponentsOfStream(), _ComponentsOfStream()
    copies = [_no_numbers()]
    for links in partitions:
        near_components.add(links.near_E2)
        name_components.add(links.names_E2)
        copies.append(links.copies_C)
    near, names = near_components.result(), name_components.result()
    decided_together = components(np.concatenate([near, names])) if len(names) else near
    number_M = decided_together[:, 0]
    # A document that shares only its id with others is a group of candidates of its own.
    candidate_root_M = number_M.copy()
    at = np.searchsorted(number_M, near[:, 0])
    candidate_root_M[at] = near[:, 1]
    needs_jaccard_M = np.zeros(len(number_M), bool)
    needs_jaccard_M[at] = True
    needs_jaccard_M[np.searchsorted(number_M, np.concatenate(copies))] = False
    return Groups(number_M, candidate_root_M, decided_together[:, 1], needs_jaccard_M)


class _ComponentsOfStream:
    """Connected components of links that arrive in pieces.

    New links wait until they outnumber the links of the components so far. So at most about as many
    wait as are stored, and not every piece costs a pass over all links.
    """

    def __init__(self) -> None:
        """Starts without links."""
        self._components, self._waiting, self._num_waiting = _no_links(), list[U64](), 0

    def add(self, links_E2: U64) -> None:
        """Adds links."""
        self._waiting.append(links_E2)
        self._num_waiting += len(links_E2)
        if self._num_waiting > len(self._components):
            self.result()

    def result(self) -> U64:
        """Returns the components of all links so far, as `components`."""
        if self._num_waiting:
            links_E2 = np.concatenate([self._components, *self._waiting])
            self._components, self._waiting, self._num_waiting = _no_links(), [], 0
            self._components = components(links_E2)
        return self._components


def components(links_E2: U64) -> U64:
    """Returns [M, 2]: each number of a link, ascending, with the smallest of its component."""
    nodes_M = np.unique(links_E2)
    # Work on indices of nodes_M: they keep the order of the numbers and take half of the memory.
    index = np.int32 if len(nodes_M) < 1 << 31 else np.int64
    ends_E2 = np.searchsorted(nodes_M, links_E2).astype(index)
    parent_M = np.arange(len(nodes_M), dtype=index)
    while len(ends_E2):
        # Replace the ends of each link by their roots; a link within one component is done.
        ends_E2 = roots(parent_M, ends_E2)
        ends_E2 = ends_E2[ends_E2[:, 0] != ends_E2[:, 1]]
        # The larger root of each link joins the smallest root that it has a link to. A parent is
        # always smaller than its child, so there is no cycle.
        np.minimum.at(parent_M, ends_E2.max(axis=1), ends_E2.min(axis=1))
    smallest_M = nodes_M[roots(parent_M, np.arange(len(nodes_M), dtype=index))]
    return np.stack([nodes_M, smallest_M], axis=1)


def roots(parent: NDArray, nodes: NDArray) -> NDArray:
    """Returns the roots of nodes of a union-find forest, and compresses their paths.

    `parent[k]` is the parent of node k; a root is its own parent. Each node becomes a child of its
    root.
    """
    root = parent[nodes]
    while (parent[root] != root).any():
        root = parent[root]
    parent[nodes] = root
    return root


def _links_of_equal_keys(keys: U64, numbers_K: U64) -> U64:
    """Returns links between documents with the same key.

    For each document but the smallest of a key: (number, smallest number with the key).

    Args:
      keys: [K] or [K, 2].
      numbers_K: the document of each key.
    """
    # By key, then by number: the smallest number is the first of each run of equal keys.
    order = np.lexsort([numbers_K, *(keys.T if keys.ndim == 2 else [keys])])
    keys, numbers_K = keys[order], numbers_K[order]
    different = keys[1:] != keys[:-1]
    is_first_K = np.ones(len(keys), bool)
    is_first_K[1:] = different.any(axis=1) if keys.ndim == 2 else different
    # The index of the first key of each key's run.
    first_K = np.flatnonzero(is_first_K)[np.cumsum(is_first_K) - 1]
    return np.stack([numbers_K[~is_first_K], numbers_K[first_K[~is_first_K]]], axis=1)
