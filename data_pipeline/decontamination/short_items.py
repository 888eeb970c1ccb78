"""Short items in documents that hold little else, found although words of them were replaced.

One replaced word cuts an item of ten words so that no run of five in common is left, or one. So a
short part is also looked up by *gapped seeds*: four of five neighboring words, any of the inner
three left out. A document that has one is aligned with the part, and goes when the words that both
have in the same order hold `SHARE` of what the part says:

    item        Which gas do plants take in during photosynthesis? carbon dioxide
    document    Which gas do flowers take in during photosynthesis? carbon dioxide
    seed                  do    -    take in during

By chance this happens in long texts, so only documents at most `TIMES` as long as the part are
looked at: samples of instruction data, where such items leak. And a document that is nothing but
a part of up to `WHOLE_WORDS` words is that part, however short it is.

Shape letters: K parts, W words of all parts, J (seed, part) pairs, D documents, C candidates, M
words of the longest part, P words of the longest passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.decontamination.lookup import NgramTable, few_items
from data_pipeline.decontamination.surprise import F64, word_bits
from data_pipeline.text.ngrams import I64, U64, Words, ngrams

LEAST_WORDS, MOST_WORDS = 6, 24  # of a part
WHOLE_LEAST, WHOLE_WORDS = 3, 12
QUESTION_WORDS = 12  # a part that is no whole item may have few words with any text
TIMES = 3
SHARE = 0.8
SEED_BITS = 30.0  # about two rare words and two common ones

_PATTERNS = ((0, 1, 2, 3), (0, 1, 2, 4), (0, 1, 3, 4), (0, 2, 3, 4))
_ODD = tuple(
    np.uint64(k)
    for k in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
)
_CHUNK = 4096  # candidates aligned at a time: some ten megabytes


class Alignment(NamedTuple):
    """Words first .. first + length - 1 of the batch hold `share` of what the part says."""

    document: int
    part: int
    share: float
    hits: int
    first: int
    length: int


@dataclass(slots=True)
class ShortItems:
    """`offset_J` is the place in the part at which each pair's seed begins."""

    whole: NgramTable  # short parts, by the hash of all their words
    seeds: NgramTable
    offset_J: NDArray[np.int32]


def build(
    parts: Words,
    whole_K: NDArray[np.bool_],
    aligned_K: NDArray[np.bool_],
    item_K: I64,
    most_items: int,
) -> ShortItems:
    """Of the parts that count as whole documents, and of those that are aligned.

    What more than `most_items` items have is a phrase, and left out.
    """
    num_words_K = np.diff(parts.offsets_D)
    whole_K = whole_K & (num_words_K >= WHOLE_LEAST) & (num_words_K <= WHOLE_WORDS)
    k = np.flatnonzero(whole_K)
    hashes = _whole(parts, k)
    order = np.argsort(hashes, kind="stable")
    hashes, k = hashes[order], k[order]
    kept = few_items(hashes, k, item_K, most_items)
    whole = NgramTable.of(hashes[kept], k[kept])

    aligned_K = aligned_K & (num_words_K >= LEAST_WORDS) & (num_words_K <= MOST_WORDS)
    bits_W = word_bits(parts.hashes_W)
    part_W = np.repeat(np.arange(len(num_words_K)), num_words_K)
    found: list[tuple[U64, I64, I64]] = []
    for number, pattern in enumerate(_PATTERNS):
        start, hashes = _gapped(parts.hashes_W, number)
        part = part_W[start]
        worth = sum(bits_W[start + step] for step in pattern)
        good = aligned_K[part] & (part_W[start + pattern[-1]] == part) & (worth >= SEED_BITS)
        start, part = start[good], part[good]
        found.append((hashes[good], part, start - parts.offsets_D[part]))
    hashes, part, offset = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((offset, part, hashes))
    hashes, part, offset = hashes[order], part[order], offset[order]
    kept = few_items(hashes, part, item_K, most_items)
    return ShortItems(whole, NgramTable.of(hashes[kept], part[kept]), offset[kept].astype(np.int32))


def search(found: Words, short: ShortItems, parts: Words, share: float) -> Iterator[Alignment]:
    """The alignments of each document, of at least `share`."""
    size_D = np.diff(found.offsets_D)
    few = np.flatnonzero((size_D >= WHOLE_LEAST) & (size_D <= WHOLE_WORDS))
    s, g = short.whole.find(_whole(found, few))
    h, part_H = short.whole.expand(g)
    for d, part in zip(few[s[h]].tolist(), part_H.tolist(), strict=True):
        yield Alignment(d, part, 1.0, 1, int(found.offsets_D[d]), int(size_D[d]))

    rows = np.flatnonzero((size_D > 3) & (size_D <= TIMES * MOST_WORDS))
    some = _select(found, rows)
    part_C, document_C, start_C, hits_C = _candidates(some, short, np.diff(parts.offsets_D))
    for begin in range(0, len(part_C), _CHUNK):
        of = slice(begin, begin + _CHUNK)
        share_C = _in_order(some, document_C[of], start_C[of], parts, part_C[of])
        for c in (np.flatnonzero(share_C >= share) + begin).tolist():
            d, part = int(document_C[c]), int(part_C[c])
            low, high = some.offsets_D[d : d + 2]
            first = max(int(start_C[c]), int(low))
            last = min(int(start_C[c]) + int(np.diff(parts.offsets_D)[part]), int(high))
            at = int(found.offsets_D[rows[d]] - low) + first
            found_share = float(share_C[c - begin])
            yield Alignment(int(rows[d]), part, found_share, int(hits_C[c]), at, last - first)


def _whole(found: Words, rows: I64) -> U64:
    """The hash of all words of these texts, of at most WHOLE_WORDS words each."""
    return ngrams(_select(found, rows), WHOLE_WORDS).hashes_S


def _select(found: Words, rows: I64) -> Words:
    sizes = np.diff(found.offsets_D)[rows]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    at = np.arange(offsets[-1]) + np.repeat(found.offsets_D[rows] - offsets[:-1], sizes)
    return Words(found.hashes_W[at], offsets)


def _gapped(hashes_W: U64, number: int) -> tuple[I64, U64]:
    """(start, hash) of a pattern at every word that has enough words after it."""
    pattern: Sequence[int] = _PATTERNS[number]
    num = max(len(hashes_W) - pattern[-1], 0)
    x = np.full(num, np.uint64(number + 1))
    for odd, step in zip(_ODD, pattern, strict=True):
        x += hashes_W[step : step + num] * odd
    x ^= x >> np.uint64(29)
    x *= _ODD[0]
    return np.arange(num), x ^ (x >> np.uint64(32))


def _candidates(
    some: Words, short: ShortItems, num_words_K: I64
) -> tuple[I64, I64, I64, NDArray[np.int64]]:
    """(part, document, start, hits): where the part would begin if the seed lies as in it."""
    document_W = np.repeat(np.arange(len(some.offsets_D) - 1), np.diff(some.offsets_D))
    columns = []
    for number, pattern in enumerate(_PATTERNS):
        _, hashes = _gapped(some.hashes_W, number)
        s, g = short.seeds.find(hashes)
        inside = document_W[s] == document_W[s + pattern[-1]]
        s, g = s[inside], g[inside]
        h, j = short.seeds.pairs(g)
        part = short.seeds.parts_J[j].astype(np.int64)
        columns.append((part, document_W[s][h], s[h] - short.offset_J[j]))
    part, document, start = (np.concatenate(column) for column in zip(*columns, strict=True))
    fits = np.diff(some.offsets_D)[document] <= TIMES * num_words_K[part]
    found, hits = np.unique(
        np.stack([part[fits], document[fits], start[fits]]), axis=1, return_counts=True
    )
    return found[0], found[1], found[2], hits


def _in_order(some: Words, document_C: I64, start_C: I64, parts: Words, part_C: I64) -> F64:
    """The share of each part's bits in its longest common subsequence with the passage.

    The passage begins and ends some words before and after the part would. Row by row: the best
    that ends at word p or earlier is the best before, or one word more where both have this word.
    """
    size_C = np.diff(parts.offsets_D)[part_C]
    margin_C = np.maximum(2, size_C // 5)
    low_C = np.maximum(start_C - margin_C, some.offsets_D[document_C])
    high_C = np.minimum(start_C + size_C + margin_C, some.offsets_D[document_C + 1])
    at_CP = low_C[:, None] + np.arange(int((high_C - low_C).max()))
    last = len(some.hashes_W) - 1
    inside_CP = at_CP < high_C[:, None]
    passage_CP = some.hashes_W[np.minimum(at_CP, last)]
    of_CM = np.arange(int(size_C.max())) < size_C[:, None]
    word_CM = np.minimum(
        parts.offsets_D[part_C][:, None] + np.arange(of_CM.shape[1]), len(parts.hashes_W) - 1
    )
    part_CM = parts.hashes_W[word_CM]
    bits_CM = np.where(of_CM, word_bits(part_CM), 0.0)
    best_CP = np.zeros((len(part_C), at_CP.shape[1] + 1))
    for m in range(of_CM.shape[1]):
        same_CP = inside_CP & (passage_CP == part_CM[:, m, None])
        longer_CP = best_CP.copy()
        np.maximum(
            best_CP[:, 1:],
            best_CP[:, :-1] + np.where(same_CP, bits_CM[:, m, None], 0.0),
            out=longer_CP[:, 1:],
        )
        best_CP = np.maximum.accumulate(longer_CP, axis=1)
    return np.asarray(best_CP[:, -1] / bits_CM.sum(axis=1))
