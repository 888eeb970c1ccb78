"""Exact and near duplicates across all sources, in steps none of which sees everything.

- Two documents are *exact* duplicates if they are the same words and, apart from white space, the
  same characters (128-bit hash).
- Two documents are *near* duplicates if the Jaccard similarity of their sets of word n-grams, exact
  and not estimated, is at least `threshold`. They are looked for in groups of candidates, connected
  by MinHash LSH as datasketch defines it (scheme "affine32"): two signatures of `permutations`
  values agree in one of `bands` runs of `rows` values (Leskovec et al., Mining of Massive Datasets,
  3.4). So every pair above the threshold that datasketch's LSH finds is found.
- Duplicates of duplicates are duplicates: of each connected group one document survives, the one
  of the earliest source, of these the longest, of these the one with the smallest id. The result
  depends on the documents only, and not on their order, shards, partitions or workers.

The way (deduplication/stage.py), with S shards and P partitions:

    S  sign         keys of every document, sorted into P parts              signatures
    P  find_links   who shares a key: (document, smallest one with the key)  groups.find_links
    1  connect      groups of candidates, integers only                      groups.connect
    S  members      what is compared of those that are in a group            survivors.members
    P  decide       exact similarity, connected groups, survivors            survivors.decide
    S  build        each shard again: keep, rename or drop                   build

Memory of a worker, in bytes, for N documents, M of them in groups of candidates, B bands, whose
distinct word n-grams are about a sixth of the text's bytes in number:

    sign        12 B + 32 a document of its shard: 200 for B = 14; the same on disk
    find_links  (42 B + 100) N / P: 690 for B = 14, while keys are sorted; on disk 16 for each
                document and part in which it shares a key, 16 (B + 1) M at most
    connect     140 M, or 55 M with one partition; one worker
    members     8 an n-gram of the members in its shard; the same on disk
    decide      8 an n-gram of the members in its partition and 300 a member; while a group of more
                than 32 is compared, 50 an n-gram of this group
    build       200 a dropped document in the decisions of 1 / P of all shards

What no number of partitions divides is one group of candidates: a million pages of one template
that agree in a whole band are compared by one worker (similarity.py says at what cost).

Shape letters: N documents, P permutations, B bands, R rows of a band, S n-grams.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_pipeline.config import Deduplication
from data_pipeline.deduplication.minhash import band_keys, minhash
from data_pipeline.execution.shuffle_file import (
    PARTITION_BYTES,
    Arrays,
    partition_of,
    split_by_partition,
)
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text.ngrams import I64, U64, Words, batches, ngrams, words

U32 = NDArray[np.uint32]

EXACT, NEAR = "exact_duplicate", "near_duplicate"


@dataclass(slots=True)
class Signatures:
    """The keys of the documents of one shard, in the order of the shard.

    Documents that share a key of a kind: are copies (exact), candidates (bands), or have ids that
    are equal up to the number that a renamed one ends in (names).
    """

    exact_N2: U64
    bands_NB: U64
    names_N: U64

    def parts(self, partitions: int) -> list[Arrays]:
        """The keys and their rows (uint32), each key in the partition that is its own."""
        num_documents, bands = self.bands_NB.shape
        rows_N = np.arange(num_documents, dtype=np.uint32)
        kinds = {
            "exact": (self.exact_N2, self.exact_N2[:, 0], rows_N),
            "bands": (self.bands_NB.ravel(), self.bands_NB.ravel(), np.repeat(rows_N, bands)),
            "names": (self.names_N, self.names_N, rows_N),
        }
        parts: list[Arrays] = [{} for _ in range(partitions)]
        for kind, (keys, by, rows) in kinds.items():
            for part, (own_keys, own_rows) in zip(
                parts,
                split_by_partition(partition_of(by, partitions), partitions, keys, rows),
                strict=True,
            ):
                part[f"{kind}_keys"], part[f"{kind}_rows"] = own_keys, own_rows
        return parts


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

    def add(self, other: Decisions) -> None:
        self.dropped |= other.dropped
        self.renamed |= other.renamed


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
    if config.partitions < 0:
        raise ValueError(
            f"dedup.partitions: got {config.partitions}, expected 1 or more, or 0 for one for each "
            f"{PARTITION_BYTES >> 20} MiB of text"
        )


def signatures(documents: Iterable[Document], config: Deduplication) -> Signatures:
    """The signatures of one shard; holds some hundred kilobytes of text at a time."""
    check(config)
    exact, bands, names = (
        [np.empty((0, 2), np.uint64)],
        [np.empty((0, config.bands), np.uint64)],
        [],
    )
    for batch in batches(documents):
        texts = [d.text for d in batch]
        found = words(texts)
        hashes_S, offsets_N = _shingles(texts, found, config)
        exact.append(_exact_hashes(texts, found))
        bands.append(_apart(band_keys(minhash(hashes_S, offsets_N, config), config)))
        names += [xxhash.xxh3_64_intdigest(base_name(d.id).encode()) for d in batch]
    return Signatures(np.concatenate(exact), np.concatenate(bands), np.array(names, np.uint64))


def exact_hashes(texts: Sequence[str]) -> U64:
    """uint64 [N, 2]: equal for the same words in, apart from white space, the same characters."""
    return _exact_hashes(texts, words(texts))


def shingles(texts: Sequence[str], config: Deduplication) -> list[U64]:
    """The sets of n-gram hashes of the texts, each sorted."""
    hashes_S, offsets_N = _shingles(texts, words(texts), config)
    return [np.unique(own) for own in np.split(hashes_S, offsets_N[1:-1])]


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


def base_name(id: str) -> str:
    """An id without the numbers that renaming appends.

    >>> base_name("web/7"), base_name("web/7~2"), base_name("web/7~2~3")
    ('web/7', 'web/7', 'web/7')
    """
    return _NUMBERED.sub("", id) if "~" in id else id


_NUMBERED = re.compile(r"(?:~[0-9]+)+\Z")


def _apart(keys_NB: U64) -> U64:
    """Keys of different bands are different keys, so that one list holds all of them."""
    return keys_NB + np.arange(keys_NB.shape[1], dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)


def _exact_hashes(texts: Sequence[str], found: Words) -> U64:
    values = [
        xxhash.xxh3_128_intdigest(
            text.encode().translate(None, b" \t\n\v\f\r"),
            seed=xxhash.xxh3_64_intdigest(found.hashes_W[begin:end].tobytes()),
        )
        for text, begin, end in zip(
            texts, found.offsets_D[:-1].tolist(), found.offsets_D[1:].tolist(), strict=True
        )
    ]
    low = 0xFFFFFFFFFFFFFFFF
    return np.array([(v >> 64, v & low) for v in values], np.uint64).reshape(-1, 2)


def _shingles(texts: Sequence[str], found: Words, config: Deduplication) -> tuple[U64, I64]:
    """(hashes_S, offsets_N): n-grams of each text; a text without words is its own one n-gram."""
    grams = ngrams(found, config.ngram_words)
    hashes_S, offsets_N = grams.hashes_S, grams.offsets_D
    empty = np.flatnonzero(np.diff(offsets_N) == 0)
    if len(empty):
        own = exact_hashes([texts[k] for k in empty.tolist()])[:, 0]
        hashes_S = np.insert(hashes_S, offsets_N[empty], own)
        offsets_N = offsets_N + np.searchsorted(empty, np.arange(len(offsets_N)))
    return hashes_S, offsets_N
