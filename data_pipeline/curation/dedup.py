"""Exact and near duplicates across all sources, in two steps over shards and one over all of them.

    tables    = [signatures(read_shard(path), config) for path in paths]         # each shard apart
    decisions = find_duplicates(tables, shingles_of, order, config)              # once, global
    decide    = build(decisions[k])                                              # each shard apart
    for row, document in enumerate(read_shard(paths[k])): decide(row, document)  # -> or Dropped

- Two documents are *exact* duplicates if their texts are equal up to white space (128-bit hash).
- Two documents are *near* duplicates if the Jaccard similarity of their sets of word n-grams, exact
  and not estimated, is at least `threshold`. Pairs are proposed by MinHash LSH as datasketch
  defines it (scheme "affine32"): two signatures of `permutations` values agree in one of `bands`
  runs of `rows` values (Leskovec et al., Mining of Massive Datasets, 3.4).
- Duplicates of duplicates are duplicates: of each connected group one document survives, the one
  of the earliest source, of these the longest, of these the one with the smallest id. The result
  depends on the documents only, and not on their order or their division into shards.

Memory of the global step: about 700 bytes a document (112 of them band keys), and for each document
that shares a band with another 8 bytes a distinct n-gram, 1.3 bytes a byte of its text. 10 M
documents on one machine take 7 GB; on a cluster the pairs of a band are found by grouping on its
key, and each connected group is decided alone.

Shape letters: N documents, P permutations, B bands, R rows of a band, S n-grams.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_pipeline.config import Deduplication
from data_pipeline.curation.minhash import band_keys, minhash
from data_pipeline.disk import write_arrays
from data_pipeline.document import Document, Dropped
from data_pipeline.ngrams import I64, U64, batches, ngrams, words

F64 = NDArray[np.float64]

EXACT, NEAR = "exact_duplicate", "near_duplicate"


@dataclass(slots=True)
class Signatures:
    """What the global step knows of the documents of one shard, in the order of the shard."""

    exact_N2: U64  # 128-bit hash of the text up to white space
    bands_NB: U64  # a key for each band: equal bands have equal keys
    length_N: I64  # characters
    ids: list[str]
    sources: list[str]

    def save(self, path: Path) -> None:
        """Writes an .npz file, the same bytes for the same signatures."""
        names = json.dumps([self.ids, self.sources]).encode()
        write_arrays(
            path,
            exact=self.exact_N2,
            bands=self.bands_NB,
            length=self.length_N,
            names=np.frombuffer(names, np.uint8),
        )

    @classmethod
    def load(cls, path: Path) -> Signatures:
        with np.load(path) as arrays:
            ids, sources = json.loads(arrays["names"].tobytes())
            return cls(arrays["exact"], arrays["bands"], arrays["length"], ids, sources)


@dataclass(slots=True)
class Decisions:
    """What becomes of the documents of one shard; a row that is not mentioned is kept as it is.

    `dropped`: row -> (reason, {"kept": id of the survivor, "jaccard": similarity to it}).
    `renamed`: row -> new id, where two survivors with different texts had the same id.
    """

    dropped: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    renamed: dict[int, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "dropped": [[row, *self.dropped[row]] for row in sorted(self.dropped)],
            "renamed": [[row, self.renamed[row]] for row in sorted(self.renamed)],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Decisions:
        dropped = {row: (reason, evidence) for row, reason, evidence in value["dropped"]}
        return cls(dropped, dict(value["renamed"]))


def signatures(documents: Iterable[Document], config: Deduplication) -> Signatures:
    """The signatures of one shard; holds some hundred kilobytes of text at a time."""
    check(config)
    exact: list[tuple[int, int]] = []
    bands: list[U64] = []
    lengths: list[int] = []
    ids: list[str] = []
    sources: list[str] = []
    for batch in batches(documents):
        exact += [_exact_hash(d.text) for d in batch]
        lengths += [len(d.text) for d in batch]
        ids += [d.id for d in batch]
        sources += [d.source for d in batch]
        hashes_S, offsets_N = _shingles([d.text for d in batch], config)
        bands.append(band_keys(minhash(hashes_S, offsets_N, config), config))
    return Signatures(
        np.array(exact, np.uint64).reshape(-1, 2),
        np.concatenate(bands) if bands else np.empty((0, config.bands), np.uint64),
        np.array(lengths, np.int64),
        ids,
        sources,
    )


def shingles(
    documents: Iterable[Document], rows: Sequence[int], config: Deduplication
) -> list[U64]:
    """The sets of n-gram hashes, each sorted, of these rows (ascending) of a shard."""
    sets: list[U64] = []
    for batch in batches(_pick(documents, rows)):
        hashes_S, offsets_N = _shingles([d.text for d in batch], config)
        sets += [np.unique(h) for h in np.split(hashes_S, offsets_N[1:-1])]
    if len(sets) != len(rows):
        raise ValueError(
            f"the shard has no row {rows[len(sets)]}: it is not the one that was signed"
        )
    return sets


def check(config: Deduplication) -> None:
    """Raises ValueError for settings that cannot be computed."""
    if config.bands * config.rows > config.permutations or min(config.bands, config.rows) < 1:
        raise ValueError(
            f"dedup: {config.bands} bands of {config.rows} rows need at least "
            f"{config.bands * config.rows} permutations, got {config.permutations}"
        )
    if not 0 < config.threshold <= 1:
        raise ValueError(
            f"dedup.threshold: got {config.threshold}, expected more than 0, at most 1"
        )


def find_duplicates(
    tables: Sequence[Signatures],
    shingles_of: Callable[[int, list[int]], list[U64]],
    source_order: Sequence[str],
    config: Deduplication,
) -> list[Decisions]:
    """Decides over all shards at once; answers in their order.

    Args:
      tables: one a shard.
      shingles_of: (number of the shard, ascending rows) -> `shingles` of these rows. Called at most
        once a shard, for those rows only that share a band with another document.
      source_order: names of sources, the most wanted first. Others come after them, by name.
    """
    check(config)
    everything = _Everything(tables, source_order)
    # From here on a document's number is its rank, so the smallest of a group survives.
    first_N = _first_equal(everything.exact_N2)
    distinct = np.flatnonzero(first_N == np.arange(len(first_N)))
    neighbours = _Neighbours(everything.bands_NB[distinct])
    survivor_N = np.arange(len(first_N))
    members = distinct[neighbours.members]
    sets = everything.gather(shingles_of, members)
    survivor_N[members] = members[_unite(neighbours, sets, config.threshold)]
    survivor_N = survivor_N[first_N]
    set_of = dict(zip(members.tolist(), sets, strict=True))
    name_of = _unique_names(everything, survivor_N)
    decisions = [Decisions() for _ in tables]
    for rank in range(len(first_N)):
        shard, row = everything.place(rank)
        first, survivor = int(first_N[rank]), int(survivor_N[rank])
        if rank == survivor:
            if name_of.get(rank, "") != everything.ids[rank]:
                decisions[shard].renamed[row] = name_of[rank]
            continue
        if first == survivor:
            reason, similarity = EXACT, 1.0
        else:
            reason = NEAR
            similarity = float(_jaccard(set_of[survivor], [set_of[first]])[0])
        evidence = {"kept": name_of[survivor], "jaccard": round(similarity, 4)}
        decisions[shard].dropped[row] = (reason, evidence)
    return decisions


def build(decisions: Decisions) -> Callable[[int, Document], Document | Dropped]:
    """(row, document) -> the document, renamed where its id was taken, or why it goes."""

    def decide(row: int, document: Document) -> Document | Dropped:
        if row in decisions.dropped:
            reason, evidence = decisions.dropped[row]
            return Dropped(document, reason, evidence)
        if row in decisions.renamed:
            meta = {**document.meta, "renamed_from": document.id}
            return replace(document, id=decisions.renamed[row], meta=meta)
        return document

    return decide


class _Everything:
    """The documents of all shards, in the order of who survives whom."""

    def __init__(self, tables: Sequence[Signatures], source_order: Sequence[str]):
        sizes = [len(t.ids) for t in tables]
        ids = [i for t in tables for i in t.ids]
        sources = [s for t in tables for s in t.sources]
        lengths = [n for t in tables for n in t.length_N.tolist()]
        exact_N2 = np.concatenate([np.empty((0, 2), np.uint64), *(t.exact_N2 for t in tables)])
        exact = exact_N2.tolist()
        named = {name: k for k, name in reversed(list(enumerate(source_order)))}
        others = {name: k for k, name in enumerate(sorted(set(sources) - set(named)), len(named))}
        priority = named | others

        def rank(i: int) -> tuple[int, int, str, list[int]]:
            return priority[sources[i]], -lengths[i], ids[i], exact[i]

        order = sorted(range(len(ids)), key=rank)
        self.exact_N2 = exact_N2[order]
        self.bands_NB = np.concatenate([t.bands_NB for t in tables])[order] if tables else exact_N2
        self.ids = [ids[i] for i in order]
        self._shard_N = np.repeat(np.arange(len(tables)), sizes)[order]
        self._row_N = np.concatenate([np.empty(0, np.int64), *map(np.arange, sizes)])[order]

    def place(self, rank: int) -> tuple[int, int]:
        return int(self._shard_N[rank]), int(self._row_N[rank])

    def gather(self, shingles_of: Callable[[int, list[int]], list[U64]], ranks: I64) -> list[U64]:
        """The n-gram sets of these documents; each shard is asked once."""
        sets: dict[tuple[int, int], U64] = {}
        shards, rows = self._shard_N[ranks], self._row_N[ranks]
        for shard in np.unique(shards).tolist():
            wanted = np.sort(rows[shards == shard]).tolist()
            found = shingles_of(shard, wanted)
            sets |= {(shard, row): s for row, s in zip(wanted, found, strict=True)}
        return [sets[place] for place in zip(shards.tolist(), rows.tolist(), strict=True)]


class _Neighbours:
    """Which documents share a band: `members`, ascending, and `after(k)` for member k."""

    def __init__(self, bands_NB: U64):
        runs = [_runs(keys_N) for keys_N in bands_NB.T]
        shared = [np.concatenate([np.empty(0, np.int64), *band]) for band in runs]
        self.members = np.unique(np.concatenate([np.empty(0, np.int64), *shared]))
        self._groups: list[list[I64]] = [[] for _ in self.members]
        for run in (run for band in runs for run in band):
            run = np.searchsorted(self.members, run)
            for at, k in enumerate(run[:-1].tolist()):
                self._groups[k].append(run[at + 1 :])  # a view: no copy for each member

    def after(self, k: int) -> I64:
        """Members with a number above k that share a band with k, ascending."""
        groups = self._groups[k]
        return np.unique(np.concatenate(groups)) if groups else np.empty(0, np.int64)


def _runs(keys_N: U64) -> list[I64]:
    """Groups of two and more documents with equal keys; ascending within a group."""
    order = np.argsort(keys_N, kind="stable")
    ordered = keys_N[order]
    edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    long = np.flatnonzero(np.diff(edges) > 1).tolist()
    return [order[edges[k] : edges[k + 1]] for k in long]


def _unite(neighbours: _Neighbours, sets: list[U64], threshold: float) -> I64:
    """For each member the smallest member of its connected group.

    Every proposed pair is either verified or already connected, so the groups are the connected
    components of all pairs at or above the threshold, whatever the order.
    """
    num_members = len(neighbours.members)
    parent = np.arange(num_members)
    sizes = np.array([len(s) for s in sets])
    for k in range(num_members):
        others = neighbours.after(k)
        if not len(others):
            continue
        root = _roots(parent, np.array([k]))[0]
        others = others[_roots(parent, others) != root]
        # |A and B| <= min, |A or B| >= max: most different sizes need no look at the sets.
        small, large = np.minimum(sizes[others], sizes[k]), np.maximum(sizes[others], sizes[k])
        others = others[small >= threshold * large]
        if not len(others):
            continue
        similarity = _jaccard(sets[k], [sets[other] for other in others.tolist()])
        joined = _roots(parent, others[similarity >= threshold])
        if len(joined):
            parent[joined] = parent[root] = min(int(root), int(joined.min()))
    return _roots(parent, np.arange(num_members))


def _roots(parent: I64, at: I64) -> I64:
    roots = parent[at]
    while (parent[roots] != roots).any():
        roots = parent[roots]
    parent[at] = roots
    return roots


def _jaccard(one: U64, others: list[U64]) -> F64:
    """Similarities of one sorted set to several, all of them not empty."""
    everything = np.concatenate(others)
    sizes = np.array([len(o) for o in others])
    at = np.minimum(np.searchsorted(one, everything), len(one) - 1)
    common = np.add.reduceat(one[at] == everything, np.cumsum(sizes) - sizes, dtype=np.int64)
    return common / (len(one) + sizes - common)


def _first_equal(rows_N2: U64) -> I64:
    """[N] the first index with an equal row."""
    order = np.lexsort((rows_N2[:, 1], rows_N2[:, 0]))  # stable: ascending among equals
    ordered = rows_N2[order]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])[: len(order)]
    first = np.empty(len(order), np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first


def _unique_names(everything: _Everything, survivor_N: I64) -> dict[int, str]:
    """rank -> id for each survivor: the first of an id keeps it, the others become "id~2" ..."""
    taken = set(everything.ids)
    seen: set[str] = set()
    names: dict[int, str] = {}
    for rank in np.flatnonzero(survivor_N == np.arange(len(survivor_N))).tolist():
        name = everything.ids[rank]
        if name in seen:
            name = next(n for k in count(2) if (n := f"{everything.ids[rank]}~{k}") not in taken)
            taken.add(name)
        seen.add(name)
        names[rank] = name
    return names


def _pick(documents: Iterable[Document], rows: Sequence[int]) -> Iterator[Document]:
    wanted = set(rows)
    last = max(wanted, default=-1)
    for row, document in enumerate(documents):
        if row in wanted:
            yield document
        if row >= last:
            return


def _exact_hash(text: str) -> tuple[int, int]:
    value = xxhash.xxh3_128_intdigest(text.encode().translate(None, b" \t\n\v\f\r"))
    return value >> 64, value & 0xFFFFFFFFFFFFFFFF


def _shingles(texts: list[str], config: Deduplication) -> tuple[U64, I64]:
    """(hashes_S, offsets_N): n-grams of each text; a text without words is its own one n-gram."""
    found = ngrams(words(texts), config.ngram_words)
    hashes_S, offsets_N = found.hashes_S, found.offsets_D
    empty = np.flatnonzero(np.diff(offsets_N) == 0)
    if len(empty):
        own = np.array([_exact_hash(texts[k])[0] for k in empty.tolist()], np.uint64)
        hashes_S = np.insert(hashes_S, offsets_N[empty], own)
        offsets_N = offsets_N + np.searchsorted(empty, np.arange(len(offsets_N)))
    return hashes_S, offsets_N
