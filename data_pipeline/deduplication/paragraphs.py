r"""Paragraphs that several documents have, word for word: one stays, and the others are taken out.

A paragraph ends at a blank line. Two are equal if they have the same words: layout, punctuation
and letter case do not matter (ngrams.py); of fewer than `min_words` none is looked at. The one that
stays is in the document of the earliest source, of these the longest, of these the one whose id has
the smallest hash, and there the first: whatever the order of documents and shards.

>>> without("One.\n\nTwo.\n\nThree.", [1])
'One.\n\nThree.'

Memory of a worker, in bytes: 52 a paragraph of a shard while it is read, and on disk; 150 a
paragraph of a partition while equal ones are looked for; 12 a repeated one afterwards. English text
has one paragraph of 20 words and more for each 500 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_pipeline.config import RepeatedParagraphs
from data_pipeline.deduplication.candidate_groups import numbers
from data_pipeline.execution.shuffle_file import Arrays, partition_of, split_by_partition
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text.ngrams import U64, words

REASON = "repeated_paragraphs"

_BREAK = re.compile(r"(\n\s*\n)")
_LENGTH_BITS = 48


def check(config: RepeatedParagraphs) -> None:
    """Raises ValueError for settings that make no sense."""
    for name in ("min_words", "min_words_left", "partitions"):
        least = 1 if name == "min_words" else 0
        if (value := getattr(config, name)) < least:
            raise ValueError(f"repeated_paragraphs.{name}: got {value}, expected {least} or more")


def paragraphs(text: str) -> list[str]:
    r"""The pieces of a text between blank lines.

    >>> paragraphs("One.\n \n\n  Two,\nstill two.")
    ['One.', '  Two,\nstill two.']
    """
    return _BREAK.split(text)[0::2]


def without(text: str, places: Iterable[int]) -> str:
    """The text without these paragraphs and the blank lines after them."""
    pieces = _BREAK.split(text)
    for place in places:
        pieces[2 * place : 2 * place + 2] = [""] * len(pieces[2 * place : 2 * place + 2])
    return "".join(pieces).rstrip()


@dataclass(slots=True)
class Paragraphs:
    """The paragraphs of the documents of one shard that are long enough.

    `order_N2`: (source and length, hash of the id) of its document; the smallest stays.
    """

    hash_N2: U64
    order_N2: U64
    row_N: NDArray[np.uint32]
    place_N: NDArray[np.uint32]

    def parts(self, partitions: int) -> list[Arrays]:
        names = ("hash", "order", "row", "place")
        columns = (self.hash_N2, self.order_N2, self.row_N, self.place_N)
        cut = split_by_partition(partition_of(self.hash_N2[:, 0], partitions), partitions, *columns)
        return [dict(zip(names, own, strict=True)) for own in cut]


def read(
    documents: Iterable[Document | None], sources: Sequence[str], config: RepeatedParagraphs
) -> Paragraphs:
    """The paragraphs of a shard; None stands for a document that is exempt.

    `sources`: all names of sources, the most wanted first.
    """
    check(config)
    priority = {name: k for k, name in enumerate(sources)}
    hashes: list[int] = []
    orders: list[tuple[int, int]] = []
    rows: list[int] = []
    places: list[int] = []
    for row, document in enumerate(documents):
        if document is None:
            continue
        order = _order(document, priority[document.source])
        found = words(paragraphs(document.text))
        edges = found.offsets_D.tolist()
        for place, (begin, end) in enumerate(pairwise(edges)):
            if end - begin >= config.min_words:
                hashes.append(xxhash.xxh3_128_intdigest(found.hashes_W[begin:end].tobytes()))
                orders.append(order)
                rows.append(row)
                places.append(place)
    low = 0xFFFFFFFFFFFFFFFF
    return Paragraphs(
        np.array([(h >> 64, h & low) for h in hashes], np.uint64).reshape(-1, 2),
        np.array(orders, np.uint64).reshape(-1, 2),
        np.array(rows, np.uint32),
        np.array(places, np.uint32),
    )


def _order(document: Document, priority: int) -> tuple[int, int]:
    length = min(len(document.text), (1 << _LENGTH_BITS) - 1)
    longest_first = (1 << _LENGTH_BITS) - 1 - length
    return priority << _LENGTH_BITS | longest_first, xxhash.xxh3_64_intdigest(document.id.encode())


def repeated(parts: Iterable[tuple[int, Arrays | None]]) -> tuple[U64, NDArray[np.uint32]]:
    """(number of the document, place) of all paragraphs of a partition that are taken out.

    `parts`: (number of a shard, its part of `Paragraphs.parts`). A document's number is its
    shard's << 32 | its row.
    """
    found = [(numbers(shard, own["row"]), own) for shard, own in parts if own is not None]
    if not found:
        return np.empty(0, np.uint64), np.empty(0, np.uint32)
    number_N = np.concatenate([number for number, _ in found])
    hash_N2, order_N2, place_N = (
        np.concatenate([own[name] for _, own in found]) for name in ("hash", "order", "place")
    )
    ranking = [place_N, number_N, order_N2[:, 1], order_N2[:, 0], hash_N2[:, 1], hash_N2[:, 0]]
    by_hash = np.lexsort(ranking)
    ordered = hash_N2[by_hash]
    again = by_hash[1:][(ordered[1:] == ordered[:-1]).all(axis=1)]
    return number_N[again], place_N[again]


def remove(
    document: Document, places: Sequence[int], config: RepeatedParagraphs
) -> Document | Dropped:
    """The document without these paragraphs; dropped where too few words are left."""
    if not places:
        return document
    text = without(document.text, places)
    left = len(text.split())
    if left < config.min_words_left:
        first = " ".join(paragraphs(document.text)[min(places)].split())[:200]
        evidence = {"removed": len(places), "words_left": left, "first": first}
        return Dropped(document, REASON, evidence)
    return replace(document, text=text)
