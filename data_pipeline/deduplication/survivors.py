"""Of each connected group one document survives: decided where all that bears on it is at hand.

A partition has whole groups (groups.py): every document whose similarity or whose id bears on
another of the group. So it is decided without knowing anything of the rest.
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
from data_pipeline.deduplication.signatures import EXACT, NEAR, Decisions, exact_hashes, shingles
from data_pipeline.execution.shuffle_file import Arrays
from data_pipeline.storage.document import Document
from data_pipeline.text.ngrams import I64, U64, batches


@dataclass(slots=True)
class Members:
    """What is compared of the documents of one shard that are in a group.

    `sets[k]` are the n-gram hashes, sorted, of member k; none where another has the same.
    """

    groups: Groups
    exact_M2: U64
    length_M: I64
    sets: list[U64]
    ids: list[str]
    sources: list[str]

    def arrays(self) -> Arrays:
        names = json.dumps([self.ids, self.sources]).encode()
        return self.groups.arrays() | {
            "exact": self.exact_M2,
            "length": self.length_M,
            "set_sizes": np.array([len(own) for own in self.sets], np.int64),
            "sets": np.concatenate([np.empty(0, np.uint64), *self.sets]),
            "names": np.frombuffer(names, np.uint8),
        }

    @classmethod
    def of(cls, arrays: Arrays) -> Members:
        ids, sources = json.loads(arrays["names"].tobytes())
        ends = np.cumsum(arrays["set_sizes"])[:-1]
        sets = np.split(arrays["sets"], ends)
        return cls(Groups.of(arrays), arrays["exact"], arrays["length"], sets, ids, sources)

    def where(self, chosen: I64) -> Members:
        """Those of these indices."""
        index = chosen.tolist()
        return Members(
            self.groups.where(chosen),
            self.exact_M2[chosen],
            self.length_M[chosen],
            [self.sets[k] for k in index],
            [self.ids[k] for k in index],
            [self.sources[k] for k in index],
        )


@dataclass(slots=True)
class _Member:
    """A document that is in a group, and whether it is compared."""

    text: str
    document: Document
    compared: bool


def members(documents: Iterable[Document], groups: Groups, config: Deduplication) -> Members:
    """The members of one shard, whose groups these are; reads no further than the last of them."""
    compared = dict(zip(groups.row_M().tolist(), groups.needs_jaccard_M.tolist(), strict=True))
    rows = range(max(compared, default=-1) + 1)
    wanted = (
        _Member(document.text, document, compared[row])
        for row, document in zip(rows, documents, strict=False)
        if row in compared
    )
    found = Members(groups, np.empty((0, 2), np.uint64), np.empty(0, np.int64), [], [], [])
    exact, lengths = [found.exact_M2], list[int]()
    for batch in batches(wanted):
        exact.append(exact_hashes([member.text for member in batch]))
        lengths += [len(member.text) for member in batch]
        found.ids += [member.document.id for member in batch]
        found.sources += [member.document.source for member in batch]
        sets = iter(shingles([member.text for member in batch if member.compared], config))
        found.sets += [next(sets) if member.compared else _NO_SET for member in batch]
    if len(found.ids) != len(compared):
        row = sorted(compared)[len(found.ids)]
        raise ValueError(f"the shard has no row {row}: it is not the one that was signed")
    found.exact_M2, found.length_M = np.concatenate(exact), np.array(lengths, np.int64)
    return found


_NO_SET = np.empty(0, np.uint64)


def decide(
    tables: Iterable[Members], source_order: Sequence[str], config: Deduplication
) -> dict[int, Decisions]:
    """What becomes of the members of one partition, by the number of their shard.

    Args:
      tables: the members that lie in this partition, of each shard that has any.
      source_order: names of sources, the most wanted first. Others come after them, by name.
    """
    everything = _Ranked(list(tables), source_order)
    survivor_M = _survivors(everything, config.threshold)
    name_of = _unique_names(everything.ids, survivor_M)
    decisions: dict[int, Decisions] = {}
    for rank, survivor in enumerate(survivor_M.tolist()):
        decided = decisions.setdefault(everything.shard_M[rank], Decisions())
        row = everything.row_M[rank]
        if rank != survivor:
            decided.dropped[row] = _reason(everything, rank, survivor, name_of[survivor])
        elif name_of[rank] != everything.ids[rank]:
            decided.renamed[row] = name_of[rank]
    return decisions


class _Ranked:
    """The members of a partition in the order of who survives whom: a member's number is its rank.

    `set_of[k]` is the rank of the member whose set is that of member k: its own or a copy's.
    """

    def __init__(self, tables: Sequence[Members], source_order: Sequence[str]):
        priority = {name: k for k, name in reversed(list(enumerate(source_order)))}
        keys: list[tuple[int, str, int, str, tuple[int, ...]]] = []
        for table in tables:
            lengths, exact = table.length_M.tolist(), map(tuple, table.exact_M2.tolist())
            keys += [
                (priority.get(source, len(priority)), source, -length, id, own)
                for source, length, id, own in zip(
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
        own = {self.exact[k]: k for k in range(len(order)) if len(self.sets[k])}
        self.set_of = [own.get(exact, k) for k, exact in enumerate(self.exact)]


def _ordered(arrays: Sequence[NDArray], order: list[int]) -> NDArray:
    return np.concatenate([np.empty(0, np.uint64), *arrays]).astype(np.uint64)[order]


def _survivors(everything: _Ranked, threshold: float) -> I64:
    """For each member the rank of the one that survives it, which may be itself."""
    survivor_M = np.arange(len(everything.ids))
    by_group = np.argsort(everything.candidate_root_M, kind="stable")
    _, begins = np.unique(everything.candidate_root_M[by_group], return_index=True)
    for group in np.split(by_group, begins[1:]):
        if len(group) < 2:
            continue
        # Copies have one set: places in the list of sets that are compared, by member.
        with_set, place_G = np.unique(
            [everything.set_of[rank] for rank in group.tolist()], return_inverse=True
        )
        joined = connected_components(
            [everything.sets[rank] for rank in with_set.tolist()], threshold
        )
        # Ranks ascend in a group, so the first one of each connected group survives.
        _, first, connected = np.unique(joined[place_G], return_index=True, return_inverse=True)
        survivor_M[group] = group[first[connected]]
    return survivor_M


def _reason(everything: _Ranked, rank: int, survivor: int, name: str) -> tuple[str, dict[str, Any]]:
    if everything.exact[rank] == everything.exact[survivor]:
        return EXACT, {"kept": name, "jaccard": 1.0}
    one, other = (everything.sets[everything.set_of[k]] for k in (survivor, rank))
    return NEAR, {"kept": name, "jaccard": round(float(jaccard(one, [other])[0]), 4)}


def _unique_names(ids: Sequence[str], survivor_M: I64) -> dict[int, str]:
    """rank -> id for each survivor: the first of an id keeps it, the others become "id~2" ..."""
    taken = set(ids)
    seen: set[str] = set()
    names: dict[int, str] = {}
    for rank in np.flatnonzero(survivor_M == np.arange(len(survivor_M))).tolist():
        name = ids[rank]
        if name in seen:
            name = next(n for k in count(2) if (n := f"{ids[rank]}~{k}") not in taken)
            taken.add(name)
        seen.add(name)
        names[rank] = name
    return names
