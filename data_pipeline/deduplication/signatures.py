"""Exact and near duplicates across all sources, found in steps that each see a part of the data.

- Two documents are *exact* duplicates if they are the same words and, apart from white space, the
  same characters (128-bit hash).
- Two documents are *near* duplicates if the Jaccard similarity of their sets of word n-grams, exact
  and not estimated, is at least `threshold`. They are searched for in groups of candidates, which
  MinHash LSH connects as datasketch defines it (scheme "affine32"): two signatures of
  `permutations` values agree in one of `bands` runs of `rows` values (Leskovec et al., Mining of
  Massive Datasets, 3.4). So every pair above the threshold that datasketch's LSH finds is found.
- Duplicates of duplicates are duplicates: of each connected component one document survives, the
  one of the earliest source, of these the longest, of these the one with the smallest id. The
  result depends on the documents only, and not on their order, shards, partitions or workers.

The steps (deduplication/stage.py), with S shards and P partitions:

    S  sign         keys of every document, by partition              compute_signatures
    P  find_links   documents that share a key                        candidate_groups.find_links
    1  connect      groups of candidates, integers only               candidate_groups.connect
    S  members      n-grams and ids of the documents in groups        survivors.collect_members
    P  decide       exact similarity, components, survivors           survivors.decide
    S  apply        each shard again: keep, rename or drop            Decisions.apply

Memory of a worker, in bytes, for N documents, M of them in groups of candidates, and B bands. The
number of distinct word n-grams is about a sixth of the text's bytes:

    sign        12 B + 32 per document of its shard: 200 for B = 14; the same on disk
    find_links  (42 B + 100) N / P: 690 N / P for B = 14, while keys are sorted; on disk 16 for each
                document and partition in which it shares a key, 16 (B + 1) M at most
    connect     140 M, or 55 M with one partition; one worker
    members     8 per n-gram of the members in its shard; the same on disk
    decide      8 per n-gram and 300 per member of its partition; while a group of more than 32 is
                compared, 50 per n-gram of this group
    apply       200 per dropped document in the decisions of 1 / P of all shards

One group of candidates is never divided, whatever the number of partitions: a million pages of one
template that agree in a whole band are compared by one worker (jaccard.py states the cost).

Shape letters: N documents, P permutations, B bands, R rows of a band, S n-grams.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_pipeline.config import Deduplication
from data_pipeline.deduplication.minhash import band_keys, minhash
from data_pipeline.execution.shuffle_file import (
    Arrays,
    partition_of,
    split_by_partition,
)
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text.ngrams import I64, U64, Words, batches, halves, ngrams, words

U32 = NDArray[np.uint32]

EXACT, NEAR = "exact_duplicate", "near_duplicate"


@dataclass(slots=True)
class Signatures:
    """The keys of the documents of one shard, in the order of the shard.

    Documents with an equal row of `exact_N2` are copies, documents with a key of `bands_NB` in
    common are candidates, documents with an equal `names_N` have the same id up to the number that
    renaming appends.
    """

    exact_N2: U64
    bands_NB: U64
    names_N: U64

    def by_partition(self, partitions: int) -> list[Arrays]:
        """Returns, for each partition, the keys that belong to it and their rows (uint32)."""
        num_documents, bands = self.bands_NB.shape
        rows_N = np.arange(num_documents, dtype=np.uint32)
        # kind: (keys, the hash that decides about the partition, the row of each key)
        kinds = {
            "exact": (self.exact_N2, self.exact_N2[:, 0], rows_N),
            "bands": (self.bands_NB.ravel(), self.bands_NB.ravel(), np.repeat(rows_N, bands)),
            "names": (self.names_N, self.names_N, rows_N),
        }
        tables: list[Arrays] = [{} for _ in range(partitions)]
        for kind, (keys, hashes, rows) in kinds.items():
            for table, (own_keys, own_rows) in zip(
                tables,
                split_by_partition(partition_of(hashes, partitions), partitions, keys, rows),
                strict=True,
            ):
                table[f"{kind}_keys"], table[f"{kind}_rows"] = own_keys, own_rows
        return tables


@dataclass(slots=True)
class Decisions:
    """The decisions about the documents of one shard; all other rows are kept unchanged.

    `dropped`: row -> (reason, {"kept": id of the survivor, "jaccard": similarity to it}).
    `renamed`: row -> new id, where two survivors with different texts had the same id.
    """

    dropped: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    renamed: dict[int, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the decisions as JSON values, sorted by row."""
        return {
            "dropped": [[row, *self.dropped[row]] for row in sorted(self.dropped)],
            "renamed": [[row, self.renamed[row]] for row in sorted(self.renamed)],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Decisions:
        """Returns the decisions of `to_json`."""
        dropped = {row: (reason, evidence) for row, reason, evidence in value["dropped"]}
        return cls(dropped, dict(value["renamed"]))

    def add(self, other: Decisions) -> None:
        """Adds the decisions about other rows."""
        self.dropped |= other.dropped
        self.renamed |= other.renamed

    def apply(self, row: int, document: Document) -> Document | Dropped:
        """Returns the document of a row: unchanged, renamed, or dropped.

        A renamed document has its former id in `meta["renamed_from"]`.
        """
        if row in self.dropped:
            reason, evidence = self.dropped[row]
            return Dropped(document, reason, evidence)
        if row in self.renamed:
            meta = {**document.meta, "renamed_from": document.id}
            return replace(document, id=self.renamed[row], meta=meta)
        return document


def compute_signatures(documents: Iterable[Document], config: Deduplication) -> Signatures:
    """Returns the signatures of one shard; holds some hundred kilobytes of text at a time."""
    exact, bands, names = (
        [np.empty((0, 2), np.uint64)],
        [np.empty((0, config.bands), np.uint64)],
        [],
    )
    for batch in batches(documents):
        texts = [d.text for d in batch]
        text_words = words(texts)
        hashes_S, offsets_N = _shingles(texts, text_words, config)
        exact.append(_exact_hashes(texts, text_words))
        bands.append(_distinct_by_band(band_keys(minhash(hashes_S, offsets_N, config), config)))
        names += [xxhash.xxh3_64_intdigest(base_name(d.id).encode()) for d in batch]
    return Signatures(np.concatenate(exact), np.concatenate(bands), np.array(names, np.uint64))


def exact_hashes(texts: Sequence[str]) -> U64:
    """Returns uint64 [N, 2]: equal for equal words and, apart from white space, characters."""
    return _exact_hashes(texts, words(texts))


def shingle_sets(texts: Sequence[str], config: Deduplication) -> list[U64]:
    """Returns the set of n-gram hashes of each text, sorted."""
    hashes_S, offsets_N = _shingles(texts, words(texts), config)
    return [np.unique(own) for own in np.split(hashes_S, offsets_N[1:-1])]


def base_name(id: str) -> str:
    """Returns an id without the numbers that renaming appends.

    >>> base_name("web/7"), base_name("web/7~2"), base_name("web/7~2~3")
    ('web/7', 'web/7', 'web/7')
    """
    return _APPENDED_NUMBERS.sub("", id) if "~" in id else id


_APPENDED_NUMBERS = re.compile(r"(?:~[0-9]+)+\Z")


def _distinct_by_band(keys_NB: U64) -> U64:
    """Returns keys that differ between bands, so that one list can hold those of all bands."""
    return keys_NB + np.arange(keys_NB.shape[1], dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)


def _exact_hashes(texts: Sequence[str], text_words: Words) -> U64:
    """Returns `exact_hashes` of texts whose words are known.

    The hash of the words is the seed of the hash of the characters.
    """
    values = [
        xxhash.xxh3_128_intdigest(
            text.encode().translate(None, b" \t\n\v\f\r"),
            seed=xxhash.xxh3_64_intdigest(text_words.hashes_W[begin:end].tobytes()),
        )
        for text, begin, end in zip(
            texts,
            text_words.offsets_D[:-1].tolist(),
            text_words.offsets_D[1:].tolist(),
            strict=True,
        )
    ]
    return halves(values)


def _shingles(texts: Sequence[str], text_words: Words, config: Deduplication) -> tuple[U64, I64]:
    """Returns (hashes_S, offsets_N): the n-grams of each text.

    A text without words has one n-gram: the hash of the text.
    """
    grams = ngrams(text_words, config.ngram_words)
    hashes_S, offsets_N = grams.hashes_S, grams.offsets_D
    empty = np.flatnonzero(np.diff(offsets_N) == 0)
    if len(empty):
        own = exact_hashes([texts[k] for k in empty.tolist()])[:, 0]
        hashes_S = np.insert(hashes_S, offsets_N[empty], own)
        # Each offset moves by the number of n-grams that were inserted before it.
        offsets_N = offsets_N + np.searchsorted(empty, np.arange(len(offsets_N)))
    return hashes_S, offsets_N
