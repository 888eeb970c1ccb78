"""The decision which document of each connected component survives.

A partition has whole groups (candidate_groups.py): all documents that may be similar, and all
documents of the same id. So it is decided without any information about the other partitions.

Shape letters: M members, G members of one group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.config import Deduplication
from data_pipeline.deduplication.candidate_groups import Groups
from data_pipeline.deduplication.jaccard import connected_components, jaccard
from data_pipeline.deduplication.signatures import (
    EXACT,
    NEAR,
    Decisions,
    exact_hashes,
    shingle_sets,
)
from data_pipeline.execution.shuffle_file import Arrays
from data_pipeline.storage.document import Document
from data_pipeline.text.ngrams import I64, U64, batches


@dataclass(slots=True)
class Members:
    """The documents of one shard that are in a group, as far as they are needed for a decision.

    `sets[k]` are the n-gram hashes of member k, sorted. It is empty for a copy, whose set is that
    of the document that it is a copy of, and for a document that is compared with no other.
    """

    groups: Groups
    exact_M2: U64  # equal for copies
    length_M: I64  # characters
    sets: list[U64]
    ids: list[str]
    sources: list[str]

    def to_arrays(self) -> Arrays:
        """Returns the members as named arrays, for a shuffle file."""
        names = json.dumps([self.ids, self.sources]).encode()
        return self.groups.to_arrays() | {
            "exact": self.exact_M2,
            "length": self.length_M,
            "set_sizes": np.array([len(own) for own in self.sets], np.int64),
            "sets": np.concatenate([np.empty(0, np.uint64), *self.sets]),
            "names": np.frombuffer(names, np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Members:
        """Returns the members of `to_arrays`."""
        ids, sources = json.loads(arrays["names"].tobytes())
        ends = np.cumsum(arrays["set_sizes"])[:-1]
        sets = np.split(arrays["sets"], ends)
        groups = Groups.from_arrays(arrays)
        return cls(groups, arrays["exact"], arrays["length"], sets, ids, sources)

    def select(self, chosen: I64) -> Members:
        """Returns the members of these indices."""
        index = chosen.tolist()
        return Members(
            self.groups.select(chosen),
            self.exact_M2[chosen],
            self.length_M[chosen],
            [self.sets[k] for k in index],
            [self.ids[k] for k in index],
            [self.sources[k] for k in index],
        )


@dataclass(slots=True)
class _Member:
    """A document that is in a group, and whether its n-grams are compared."""

    text: str
    document: Document
    needs_jaccard: bool


def collect_members(
    documents: Iterable[Document], groups: Groups, config: Deduplication
) -> Members:
    """Returns the members of one shard.

    Args:
      documents: the documents of the shard, in its order; read no further than the last member.
      groups: the documents of this shard that are in a group.
      config: the length of the n-grams.

    Raises:
      ValueError: the shard has too few documents.
    """
    needs_jaccard = dict(zip(groups.row_M().tolist(), groups.needs_jaccard_M.tolist(), strict=True))
    rows = range(max(needs_jaccard, default=-1) + 1)
    members = (
        _Member(document.text, document, needs_jaccard[row])
        for row, document in zip(rows, documents, strict=False)
        if row in needs_jaccard
    )
    table = Members(groups, np.empty((0, 2), np.uint64), np.empty(0, np.int64), [], [], [])
    exact, lengths = [table.exact_M2], list[int]()
    for batch in batches(members):
        exact.append(exact_hashes([member.text for member in batch]))
        lengths += [len(member.text) for member in batch]
        table.ids += [member.document.id for member in batch]
        table.sources += [member.document.source for member in batch]
        compared_texts = [member.text for member in batch if member.needs_jaccard]
        sets = iter(shingle_sets(compared_texts, config))
        table.sets += [next(sets) if member.needs_jaccard else _NO_SET for member in batch]
    if len(table.ids) != len(needs_jaccard):
        row = sorted(needs_jaccard)[len(table.ids)]
        raise ValueError(
            f"the shard has no row {row}: it has changed since its signatures were computed"
        )
    table.exact_M2, table.length_M = np.concatenate(exact), np.array(lengths, np.int64)
    return table


_NO_SET = np.empty(0, np.uint64)


def decide(
    tables: Iterable[Members], source_order: Sequence[str], config: Deduplication
) -> dict[int, Decisions]:
    """Returns the decisions about the members of one partition, by the number of their shard.

    Args:
      tables: the members in this partition, of each shard that has any.
      source_order: names of sources, those with priority first. Other sources follow, by name.
      config: the threshold.
    """
    ranked = _RankedMembers(list(tables), source_order)
    survivor_M = _survivors(ranked, config.threshold)
    id_of = _unique_ids(ranked.ids, survivor_M)
    decisions: dict[int, Decisions] = {}
    for rank, survivor in enumerate(survivor_M.tolist()):
        of_shard = decisions.setdefault(ranked.shard_M[rank], Decisions())
        row = ranked.row_M[rank]
        if rank != survivor:
            of_shard.dropped[row] = _reason(ranked, rank, survivor, id_of[survivor])
        elif id_of[rank] != ranked.ids[rank]:
            of_shard.renamed[row] = id_of[rank]
    return decisions


class _RankedMembers:
    """The members of a partition by priority: of two duplicates the one of lower rank survives.

    `set_of[k]` is the rank of the member that has the n-grams of member k: itself, or the document
    that it is a copy of.
    """

    def __init__(self, tables: Sequence[Members], source_order: Sequence[str]):
        """Sorts all members by source, length (longest first), id and content."""
        priority = {name: k for k, name in reversed(list(enumerate(source_order)))}
        keys: list[tuple[int, str, int, str, tuple[int, ...]]] = []
        for table in tables:
            lengths, exact = table.length_M.tolist(), map(tuple, table.exact_M2.tolist())
            keys += [
                (priority.get(source, len(priority)), source, -length, id, content)
                for source, length, id, content in zip(
                    table.sources, lengths, table.ids, exact, strict=True
                )
            ]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        sets = [own for table in tables for own in table.sets]
        self.ids = [keys[k][3] for k in order]
        self.exact = [keys[k][4] for k in order]
        self.sets = [sets[k] for k in order]
        self.candidate_root_M = _ordered([table.groups.candidate_root_M for table in tables], order)
        self.shard_M = _ordered([table.groups.shard_M() for table in tables], order).tolist()
        self.row_M = _ordered([table.groups.row_M() for table in tables], order).tolist()
        with_set = {self.exact[k]: k for k in range(len(order)) if len(self.sets[k])}
        self.set_of = [with_set.get(exact, k) for k, exact in enumerate(self.exact)]


def _ordered(arrays: Sequence[NDArray], order: list[int]) -> NDArray:
    """Returns the arrays of all tables as one, in this order."""
    return np.concatenate([np.empty(0, np.uint64), *arrays]).astype(np.uint64)[order]


def _survivors(ranked: _RankedMembers, threshold: float) -> I64:
    """Returns int64 [M]: the rank of the survivor of each member's component, possibly itself."""
    survivor_M = np.arange(len(ranked.ids))
    # A stable sort by group: ranks ascend within each group.
    by_group = np.argsort(ranked.candidate_root_M, kind="stable")
    _, begins = np.unique(ranked.candidate_root_M[by_group], return_index=True)
    for group in np.split(by_group, begins[1:]):
        if len(group) < 2:
            continue
        # Copies share one set, which is compared once: set_G is each member's place in the list.
        with_set, set_G = np.unique(
            [ranked.set_of[rank] for rank in group.tolist()], return_inverse=True
        )
        component_of_set = connected_components(
            [ranked.sets[rank] for rank in with_set.tolist()], threshold
        )
        # The first member of each component has the lowest rank, and survives.
        _, first, component_G = np.unique(
            component_of_set[set_G], return_index=True, return_inverse=True
        )
        survivor_M[group] = group[first[component_G]]
    return survivor_M


def _reason(
    ranked: _RankedMembers, rank: int, survivor: int, survivor_id: str
) -> tuple[str, dict[str, Any]]:
    """Returns the reason and the evidence of a document that is dropped."""
    if ranked.exact[rank] == ranked.exact[survivor]:
        return EXACT, {"kept": survivor_id, "jaccard": 1.0}
    one, other = (ranked.sets[ranked.set_of[k]] for k in (survivor, rank))
    return NEAR, {"kept": survivor_id, "jaccard": round(float(jaccard(one, [other])[0]), 4)}


def _unique_ids(ids: Sequence[str], survivor_M: I64) -> dict[int, str]:
    """Returns rank -> id of each survivor.

    The first survivor with an id keeps it. The others become "id~2", "id~3" ...
    """
    taken = set(ids)
    used: set[str] = set()
    id_of: dict[int, str] = {}
    for rank in np.flatnonzero(survivor_M == np.arange(len(survivor_M))).tolist():
        name = ids[rank]
        if name in used:
            name = next(n for k in count(2) if (n := f"{ids[rank]}~{k}") not in taken)
            taken.add(name)
        used.add(name)
        id_of[rank] = name
    return id_of
