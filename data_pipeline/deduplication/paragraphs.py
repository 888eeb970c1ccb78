r"""Removal of paragraphs that several documents have word for word: one copy is kept.

A paragraph ends at a blank line. Two are equal if they have the same words: layout, punctuation
and letter case do not matter (text/ngrams.py). Paragraphs of fewer than `min_words` words are
ignored. The copy that is kept is in the document of the earliest source, of these the longest, of
these the one whose id has the smallest hash, and there the first. This does not depend on the order
of documents and shards.

>>> remove_paragraphs("One.\n\nTwo.\n\nThree.", [1])
'One.\n\nThree.'

Memory of a worker, in bytes: 52 per paragraph of a shard while it is read, and on disk; 150 per
paragraph of a partition while equal ones are searched for; 12 per repeated one afterwards. English
text has one paragraph of 20 words or more per 500 bytes.

Shape letters: N paragraphs.
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
from data_pipeline.deduplication.candidate_groups import document_numbers
from data_pipeline.execution.shuffle_file import Arrays, partition_of, split_by_partition
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text.ngrams import U64, halves, words

REASON = "repeated_paragraphs"

_BREAK = re.compile(r"(\n\s*\n)")
_LENGTH_BITS = 48


def paragraphs(text: str) -> list[str]:
    r"""Returns the pieces of a text between blank lines.

    >>> paragraphs("One.\n \n\n  Two,\nstill two.")
    ['One.', '  Two,\nstill two.']
    """
    return _BREAK.split(text)[0::2]


def remove_paragraphs(text: str, numbers: Iterable[int]) -> str:
    """Returns the text without the paragraphs of these numbers and the blank lines after them."""
    pieces = _BREAK.split(text)  # paragraph, break, paragraph, break, ..., paragraph
    for number in numbers:
        own = slice(2 * number, 2 * number + 2)
        pieces[own] = [""] * len(pieces[own])
    return "".join(pieces).rstrip()


@dataclass(slots=True)
class Paragraphs:
    """The paragraphs of one shard that are long enough."""

    hash_N2: U64  # of the words
    order_N2: U64  # (source and length, hash of the id) of its document; the smallest is kept
    row_N: NDArray[np.uint32]  # of its document in the shard
    number_N: NDArray[np.uint32]  # of the paragraph in its document

    def by_partition(self, partitions: int) -> list[Arrays]:
        """Returns, for each partition, the paragraphs that belong to it."""
        names = ("hash", "order", "row", "place")
        columns = (self.hash_N2, self.order_N2, self.row_N, self.number_N)
        tables = split_by_partition(
            partition_of(self.hash_N2[:, 0], partitions), partitions, *columns
        )
        return [dict(zip(names, own, strict=True)) for own in tables]


def collect_paragraphs(
    documents: Iterable[Document | None], sources: Sequence[str], config: RepeatedParagraphs
) -> Paragraphs:
    """Returns the paragraphs of a shard.

    Args:
      documents: the documents of the shard, in its order; None for a document that is exempt.
      sources: the names of all sources, those with priority first.
      config: the least number of words.
    """
    priority = {name: k for k, name in enumerate(sources)}
    hashes: list[int] = []
    orders: list[tuple[int, int]] = []
    rows: list[int] = []
    numbers: list[int] = []
    for row, document in enumerate(documents):
        if document is None:
            continue
        order = _order(document, priority[document.source])
        paragraph_words = words(paragraphs(document.text))
        edges = paragraph_words.offsets_D.tolist()
        for number, (begin, end) in enumerate(pairwise(edges)):
            if end - begin >= config.min_words:
                content = paragraph_words.hashes_W[begin:end].tobytes()
                hashes.append(xxhash.xxh3_128_intdigest(content))
                orders.append(order)
                rows.append(row)
                numbers.append(number)
    return Paragraphs(
        halves(hashes),
        np.array(orders, np.uint64).reshape(-1, 2),
        np.array(rows, np.uint32),
        np.array(numbers, np.uint32),
    )


def _order(document: Document, priority: int) -> tuple[int, int]:
    """Returns the sort key of a document as two 64-bit integers.

    They are the source's priority above the inverted length, and the hash of the id.
    """
    length = min(len(document.text), (1 << _LENGTH_BITS) - 1)
    longest_first = (1 << _LENGTH_BITS) - 1 - length
    return priority << _LENGTH_BITS | longest_first, xxhash.xxh3_64_intdigest(document.id.encode())


def find_repeated(
    tables: Iterable[tuple[int, Arrays | None]],
) -> tuple[U64, NDArray[np.uint32]]:
    """Returns the paragraphs of a partition that are removed.

    `tables`: (number of a shard, what `Paragraphs.by_partition` gave for this partition).

    Returns (document, number in the document) of each. A document is shard << 32 | row.
    """
    known = [(document_numbers(shard, own["row"]), own) for shard, own in tables if own is not None]
    if not known:
        return np.empty(0, np.uint64), np.empty(0, np.uint32)
    document_N = np.concatenate([documents for documents, _ in known])
    hash_N2, order_N2, number_N = (
        np.concatenate([own[name] for _, own in known]) for name in ("hash", "order", "place")
    )
    # By hash, then by the order of documents, then by place; lexsort's last key is its first.
    keys = [number_N, document_N, order_N2[:, 1], order_N2[:, 0], hash_N2[:, 1], hash_N2[:, 0]]
    order = np.lexsort(keys)
    sorted_N2 = hash_N2[order]
    # All but the first paragraph of each run of equal hashes.
    repeated = order[1:][(sorted_N2[1:] == sorted_N2[:-1]).all(axis=1)]
    return document_N[repeated], number_N[repeated]


def remove(
    document: Document, numbers: Sequence[int], config: RepeatedParagraphs
) -> Document | Dropped:
    """Returns the document without these paragraphs; dropped if too few words are left."""
    if not numbers:
        return document
    text = remove_paragraphs(document.text, numbers)
    num_left = len(text.split())
    if num_left < config.min_words_left:
        first = " ".join(paragraphs(document.text)[min(numbers)].split())[:200]
        evidence = {"removed": len(numbers), "words_left": num_left, "first": first}
        return Dropped(document, REASON, evidence)
    return replace(document, text=text)
