"""Who is to be compared with whom: documents that share a key, connected into groups.

A document's number is its shard's number << 32 | its row: integers only, so that a group of a
thousand documents costs as much here as a thousand groups of two. A *link* is a pair of numbers
(document, a smaller one of its group).

>>> connect([Links(near_E2=np.array([[5, 2], [9, 5]], np.uint64)), Links()]).near_M.tolist()
[2, 2, 2]
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
    return np.empty(0, np.uint64)


def _no_links() -> U64:
    return np.empty((0, 2), np.uint64)


@dataclass(slots=True)
class Links:
    """What the keys of one partition connect.

    `near_E2` joins documents that share a band, `names_E2` those of like ids;
    `copies_C` are exact duplicates of another document, which is in the same group.
    """

    near_E2: U64 = field(default_factory=_no_links)
    names_E2: U64 = field(default_factory=_no_links)
    copies_C: U64 = field(default_factory=_no_numbers)

    def arrays(self) -> Arrays:
        return {"near": self.near_E2, "names": self.names_E2, "copies": self.copies_C}

    @classmethod
    def of(cls, arrays: Arrays | None) -> Links:
        return cls(arrays["near"], arrays["names"], arrays["copies"]) if arrays else cls()


@dataclass(slots=True)
class Groups:
    """The documents that are in a group, by ascending number.

    `near_M` is the smallest number of a document's group of candidates, `together_M` that of the
    documents that must be decided in one place, since their ids are alike too. `compared_M`: not a
    copy and not alone in its group of candidates.
    """

    number_M: U64
    candidate_root_M: U64
    decision_root_M: U64
    needs_jaccard_M: NDArray[np.bool_]

    def arrays(self) -> Arrays:
        return {
            "number": self.number_M,
            "near": self.candidate_root_M,
            "together": self.decision_root_M,
            "compared": self.needs_jaccard_M,
        }

    @classmethod
    def of(cls, arrays: Arrays | None) -> Groups:
        if arrays is None:
            return cls(_no_numbers(), _no_numbers(), _no_numbers(), np.empty(0, bool))
        return cls(*(arrays[name] for name in ("number", "near", "together", "compared")))

    def where(self, chosen: NDArray) -> Groups:
        """Those that a mask or an index chooses."""
        return Groups(
            self.number_M[chosen],
            self.candidate_root_M[chosen],
            self.decision_root_M[chosen],
            self.needs_jaccard_M[chosen],
        )

    def shard_M(self) -> I64:
        return (self.number_M >> np.uint64(ROW_BITS)).astype(np.int64)

    def row_M(self) -> I64:
        return (self.number_M & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64)


def numbers(shard: int, rows: NDArray) -> U64:
    return rows.astype(np.uint64) + np.uint64(shard << ROW_BITS)


def find_links(parts: Iterable[tuple[int, Arrays | None]]) -> Links:
    """The links of one partition, out of (number of a shard, its part of `Signatures.parts`)."""
    keys: dict[str, list[NDArray]] = {"exact": [], "bands": [], "names": []}
    rows: dict[str, list[NDArray]] = {"exact": [], "bands": [], "names": []}
    for shard, arrays in parts:
        if arrays is not None:
            for kind in keys:
                keys[kind].append(arrays[f"{kind}_keys"])
                rows[kind].append(numbers(shard, arrays[f"{kind}_rows"]))
    if not keys["exact"]:
        return Links()
    copies_E2, near_E2, names_E2 = (
        _links(np.concatenate(keys.pop(kind)), np.concatenate(rows.pop(kind)))
        for kind in ("exact", "bands", "names")
    )
    # Copies have the same words and so the same bands: they need no links of their own.
    return Links(components(near_E2), names_E2, np.sort(copies_E2[:, 0]))


def connect(partitions: Iterable[Links]) -> Groups:
    """The groups that the links of all partitions make together."""
    near_parts, names_parts, copies = _Components(), _Components(), [_no_numbers()]
    for links in partitions:
        near_parts.add(links.near_E2)
        names_parts.add(links.names_E2)
        copies.append(links.copies_C)
    near, names = near_parts.all(), names_parts.all()
    together = components(np.concatenate([near, names])) if len(names) else near
    number_M = together[:, 0]
    candidate_root_M = number_M.copy()
    at = np.searchsorted(number_M, near[:, 0])
    candidate_root_M[at] = near[:, 1]
    needs_jaccard_M = np.zeros(len(number_M), bool)
    needs_jaccard_M[at] = True
    needs_jaccard_M[np.searchsorted(number_M, np.concatenate(copies))] = False
    return Groups(number_M, candidate_root_M, together[:, 1], needs_jaccard_M)


class _Components:
    """Components of links that come bit by bit; as many wait as are already connected."""

    def __init__(self) -> None:
        self._found, self._waiting, self._num_waiting = _no_links(), list[U64](), 0

    def add(self, links_E2: U64) -> None:
        self._waiting.append(links_E2)
        self._num_waiting += len(links_E2)
        if self._num_waiting > len(self._found):
            self.all()

    def all(self) -> U64:
        if self._num_waiting:
            links_E2 = np.concatenate([self._found, *self._waiting])
            self._found, self._waiting, self._num_waiting = _no_links(), [], 0
            self._found = components(links_E2)
        return self._found


def components(links_E2: U64) -> U64:
    """[M, 2]: each number that is in a link, ascending, with the smallest of its component."""
    nodes_M = np.unique(links_E2)
    index = np.int32 if len(nodes_M) < 1 << 31 else np.int64
    ends_E2 = np.searchsorted(nodes_M, links_E2).astype(index)
    parent_M = np.arange(len(nodes_M), dtype=index)
    while len(ends_E2):
        ends_E2 = roots(parent_M, ends_E2)
        ends_E2 = ends_E2[ends_E2[:, 0] != ends_E2[:, 1]]
        # The root of the larger number joins the smallest root that it has a link to.
        np.minimum.at(parent_M, ends_E2.max(axis=1), ends_E2.min(axis=1))
    smallest_M = nodes_M[roots(parent_M, np.arange(len(nodes_M), dtype=index))]
    return np.stack([nodes_M, smallest_M], axis=1)


def roots(parent: NDArray, at: NDArray) -> NDArray:
    """The roots of these nodes of a union-find forest, whose paths become shorter."""
    found = parent[at]
    while (parent[found] != found).any():
        found = parent[found]
    parent[at] = found
    return found


def _links(keys: U64, numbers_K: U64) -> U64:
    """(number, smallest number with the same key) for each but the smallest; keys [K] or [K, 2]."""
    order = np.lexsort([numbers_K, *(keys.T if keys.ndim == 2 else [keys])])
    keys, numbers_K = keys[order], numbers_K[order]
    different = keys[1:] != keys[:-1]
    new = np.ones(len(keys), bool)
    new[1:] = different.any(axis=1) if keys.ndim == 2 else different
    first_K = np.flatnonzero(new)[np.cumsum(new) - 1]
    return np.stack([numbers_K[~new], numbers_K[first_K[~new]]], axis=1)
