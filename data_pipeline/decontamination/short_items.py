"""Detection of short items whose words were partly replaced, in short documents.

A single replaced word can leave an item of ten words with at most one 5-gram in common. Therefore
short parts are also found by *gapped seeds*: four of five neighboring words, with any one of the
inner three left out. A document that has a seed of a part is aligned with that part. It matches
if the words that both have in the same order hold the share `MIN_SHARE` of the part's bits
(word_information.py):

    item        Which gas do plants take in during photosynthesis? carbon dioxide
    document    Which gas do flowers take in during photosynthesis? carbon dioxide
    seed                  do    -    take in during

Long texts contain such alignments by chance. Therefore only documents at most
`MAX_LENGTH_RATIO` times as long as the part are aligned: samples of instruction data, where such
items leak. A document that consists of a part of at most `MAX_WHOLE_WORDS` words and nothing else
matches that part, however short it is.

Shape letters: K parts, W words of all parts, J (seed, part) pairs, D documents, C candidates, M
words of the longest part, P words of the longest passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.decontamination.ngram_table import NgramTable, is_in_few_items
from data_pipeline.decontamination.word_information import F64, word_bits
from data_pipeline.text.ngrams import I64, U64, Words, ngrams

MIN_WORDS, MAX_WORDS = 6, 24  # of a part that is aligned
MIN_WHOLE_WORDS, MAX_WHOLE_WORDS = 3, 12  # of a part that is compared with whole documents
MIN_QUESTION_WORDS = 12  # a part that is no whole item: shorter ones are similar to any text
MAX_LENGTH_RATIO = 3  # words of a document / words of the part
MIN_SHARE = 0.8  # of the part's bits
MIN_SEED_BITS = 30.0  # about two rare words and two common ones

# Offsets of the four words of a gapped seed: the first pattern is a 4-gram, then each of the
# inner words of five is left out.
_PATTERNS = ((0, 1, 2, 3), (0, 1, 2, 4), (0, 1, 3, 4), (0, 2, 3, 4))
_ODD_MULTIPLIERS = tuple(
    np.uint64(k)
    for k in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
)
_ALIGNED_AT_ONCE = 4096  # candidates: some ten megabytes


class Alignment(NamedTuple):
    """A passage that holds the share `share` of a part's bits.

    The passage is words first .. first + length - 1 of the batch; `hits` counts the part's seeds.
    """

    document: int
    part: int
    share: float
    hits: int
    first: int
    length: int


@dataclass(slots=True)
class ShortItems:
    """The index of short parts: by all of their words, and by their gapped seeds."""

    whole: NgramTable  # short parts, by the hash of all their words
    seeds: NgramTable
    offset_J: NDArray[np.int32]  # the word of the part at which the seed of each pair begins


def build_short_items(
    parts: Words,
    whole_K: NDArray[np.bool_],
    aligned_K: NDArray[np.bool_],
    item_K: I64,
    max_items: int,
) -> ShortItems:
    """Returns the index of the parts that are short enough.

    Args:
      parts: the words of all parts.
      whole_K: parts that may be compared with whole documents.
      aligned_K: parts that may be aligned with documents.
      item_K: the item of each part.
      max_items: a seed or a text of more items than this is a phrase, and is left out.
    """
    num_words_K = np.diff(parts.offsets_D)
    is_whole_K = whole_K & (num_words_K >= MIN_WHOLE_WORDS) & (num_words_K <= MAX_WHOLE_WORDS)
    k = np.flatnonzero(is_whole_K)
    hashes = _hashes_of_all_words(parts, k)
    order = np.argsort(hashes, kind="stable")
    hashes, k = hashes[order], k[order]
    kept = is_in_few_items(hashes, k, item_K, max_items)
    whole = NgramTable.from_sorted_pairs(hashes[kept], k[kept])

    is_aligned_K = aligned_K & (num_words_K >= MIN_WORDS) & (num_words_K <= MAX_WORDS)
    hashes, part, offset = _seeds_of_parts(parts, is_aligned_K)
    # By hash, then by part: the order that NgramTable and is_in_few_items expect.
    order = np.lexsort((offset, part, hashes))
    hashes, part, offset = hashes[order], part[order], offset[order]
    kept = is_in_few_items(hashes, part, item_K, max_items)
    seeds = NgramTable.from_sorted_pairs(hashes[kept], part[kept])
    return ShortItems(whole, seeds, offset[kept].astype(np.int32))


def _seeds_of_parts(parts: Words, is_aligned_K: NDArray[np.bool_]) -> tuple[U64, I64, I64]:
    """Returns (hash, part, offset in the part) of all seeds with enough bits."""
    bits_W = word_bits(parts.hashes_W)
    part_W = np.repeat(np.arange(len(is_aligned_K)), np.diff(parts.offsets_D))
    columns: list[tuple[U64, I64, I64]] = []
    for number, pattern in enumerate(_PATTERNS):
        hashes = _gapped_seeds(parts.hashes_W, number)
        start = np.arange(len(hashes))
        part = part_W[start]
        bits = sum(bits_W[start + step] for step in pattern)
        ends_in_part = part_W[start + pattern[-1]] == part
        chosen = is_aligned_K[part] & ends_in_part & (bits >= MIN_SEED_BITS)
        start, part = start[chosen], part[chosen]
        columns.append((hashes[chosen], part, start - parts.offsets_D[part]))
    hashes, part, offset = (np.concatenate(column) for column in zip(*columns, strict=True))
    return hashes, part, offset


def search(
    text_words: Words, short: ShortItems, parts: Words, min_share: float
) -> Iterator[Alignment]:
    """Yields the alignments of each document with a share of at least `min_share`.

    Args:
      text_words: the words of a batch of documents.
      short: the index of the short parts.
      parts: the words of all parts.
      min_share: of the part's bits.
    """
    yield from _whole_documents(text_words, short)

    size_D = np.diff(text_words.offsets_D)
    size_K = np.diff(parts.offsets_D)
    # A seed has four words; no part allows a document longer than this.
    rows = np.flatnonzero((size_D > 3) & (size_D <= MAX_LENGTH_RATIO * MAX_WORDS))
    selected = _select(text_words, rows)
    part_C, document_C, start_C, hits_C = _candidates(selected, short, size_K)
    for begin in range(0, len(part_C), _ALIGNED_AT_ONCE):
        of = slice(begin, begin + _ALIGNED_AT_ONCE)
        share_C = _share_in_order(selected, document_C[of], start_C[of], parts, part_C[of])
        for c in (np.flatnonzero(share_C >= min_share) + begin).tolist():
            d, part = int(document_C[c]), int(part_C[c])
            low, high = selected.offsets_D[d : d + 2]
            # The passage is where the part would lie, as far as it is inside of the document.
            first = max(int(start_C[c]), int(low))
            last = min(int(start_C[c]) + int(size_K[part]), int(high))
            # From words of the selected documents to words of the whole batch.
            first_of_batch = int(text_words.offsets_D[rows[d]] - low) + first
            share, hits = float(share_C[c - begin]), int(hits_C[c])
            yield Alignment(int(rows[d]), part, share, hits, first_of_batch, last - first)


def _whole_documents(text_words: Words, short: ShortItems) -> Iterator[Alignment]:
    """Yields the documents that consist of a short part and nothing else."""
    size_D = np.diff(text_words.offsets_D)
    rows = np.flatnonzero((size_D >= MIN_WHOLE_WORDS) & (size_D <= MAX_WHOLE_WORDS))
    s, g = short.whole.find(_hashes_of_all_words(text_words, rows))
    h, part_H = short.whole.parts_of(g)
    for d, part in zip(rows[s[h]].tolist(), part_H.tolist(), strict=True):
        yield Alignment(d, part, 1.0, 1, int(text_words.offsets_D[d]), int(size_D[d]))


def _hashes_of_all_words(texts: Words, rows: I64) -> U64:
    """Returns one hash per chosen text, of all its words, at most MAX_WHOLE_WORDS."""
    # A text of at most n words has exactly one n-gram: all of its words (ngrams.py).
    return ngrams(_select(texts, rows), MAX_WHOLE_WORDS).hashes_S


def _select(texts: Words, rows: I64) -> Words:
    """Returns the words of the chosen texts, one after the other."""
    sizes = np.diff(texts.offsets_D)[rows]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    # Each word moves by the distance between the old and the new beginning of its text.
    at = np.arange(offsets[-1]) + np.repeat(texts.offsets_D[rows] - offsets[:-1], sizes)
    return Words(texts.hashes_W[at], offsets)


def _gapped_seeds(hashes_W: U64, number: int) -> U64:
    """Returns the hash of a pattern at every word that has enough words after it.

    It is mix(number + 1 + sum_i w_i * odd_i mod 2^64), so that the same words under two
    patterns have different hashes.
    """
    pattern: Sequence[int] = _PATTERNS[number]
    num = max(len(hashes_W) - pattern[-1], 0)
    x = np.full(num, np.uint64(number + 1))
    for multiplier, step in zip(_ODD_MULTIPLIERS, pattern, strict=True):
        x += hashes_W[step : step + num] * multiplier
    # Shift and multiply: the upper bits, by which tables find a hash, depend on all others.
    x ^= x >> np.uint64(29)
    x *= _ODD_MULTIPLIERS[0]
    return x ^ (x >> np.uint64(32))


def _candidates(
    selected: Words, short: ShortItems, size_K: I64
) -> tuple[I64, I64, I64, NDArray[np.int64]]:
    """Returns (part, document, start, hits) of distinct places where a part may lie.

    `start` is the word at which the part would begin if the seed lies as in the part; it may be
    outside of the document. `hits` counts the seeds that agree on this place.
    """
    document_W = np.repeat(np.arange(len(selected.offsets_D) - 1), np.diff(selected.offsets_D))
    columns = []
    for number, pattern in enumerate(_PATTERNS):
        hashes = _gapped_seeds(selected.hashes_W, number)
        s, g = short.seeds.find(hashes)
        # A seed that begins in one document and ends in the next is none.
        in_one_document = document_W[s] == document_W[s + pattern[-1]]
        s, g = s[in_one_document], g[in_one_document]
        h, j = short.seeds.pairs_of(g)
        part = short.seeds.parts_J[j].astype(np.int64)
        columns.append((part, document_W[s][h], s[h] - short.offset_J[j]))
    part, document, start = (np.concatenate(column) for column in zip(*columns, strict=True))
    is_short = np.diff(selected.offsets_D)[document] <= MAX_LENGTH_RATIO * size_K[part]
    places, hits = np.unique(
        np.stack([part[is_short], document[is_short], start[is_short]]),
        axis=1,
        return_counts=True,
    )
    return places[0], places[1], places[2], hits


def _share_in_order(
    selected: Words, document_C: I64, start_C: I64, parts: Words, part_C: I64
) -> F64:
    """Returns the share of each part's bits in the words that passage and part have in order.

    That is the longest common subsequence, weighted by bits, of the part and a passage that begins
    and ends some words before and after the part would. With best[m, p] for the first m words of
    the part and the first p words of the passage:

        best[m, p] = max(best[m - 1, p], best[m, p - 1],
                         best[m - 1, p - 1] + bits[m] if both words are the same)

    Args:
      selected: the words of the documents.
      document_C: the document of each candidate.
      start_C: the word at which the part would begin.
      parts: the words of all parts.
      part_C: the part of each candidate.

    Returns:
      float64 [C].
    """
    size_C = np.diff(parts.offsets_D)[part_C]
    margin_C = np.maximum(2, size_C // 5)  # room for inserted words
    low_C = np.maximum(start_C - margin_C, selected.offsets_D[document_C])
    high_C = np.minimum(start_C + size_C + margin_C, selected.offsets_D[document_C + 1])
    # Passages and parts as rectangles; words beyond the end of a row never match.
    at_CP = low_C[:, None] + np.arange(int((high_C - low_C).max()))
    in_passage_CP = at_CP < high_C[:, None]
    passage_CP = selected.hashes_W[np.minimum(at_CP, len(selected.hashes_W) - 1)]
    in_part_CM = np.arange(int(size_C.max())) < size_C[:, None]
    at_CM = parts.offsets_D[part_C][:, None] + np.arange(in_part_CM.shape[1])
    part_CM = parts.hashes_W[np.minimum(at_CM, len(parts.hashes_W) - 1)]
    bits_CM = np.where(in_part_CM, word_bits(part_CM), 0.0)  # padding adds nothing
    # best_CP[:, p] is row m of the recurrence, for all candidates at once.
    best_CP = np.zeros((len(part_C), at_CP.shape[1] + 1))
    for m in range(in_part_CM.shape[1]):
        same_CP = in_passage_CP & (passage_CP == part_CM[:, m, None])
        longer_CP = best_CP.copy()
        np.maximum(
            best_CP[:, 1:],
            best_CP[:, :-1] + np.where(same_CP, bits_CM[:, m, None], 0.0),
            out=longer_CP[:, 1:],
        )
        # The third case, best[m, p - 1], is a running maximum along the passage.
        best_CP = np.maximum.accumulate(longer_CP, axis=1)
    return np.asarray(best_CP[:, -1] / bits_CM.sum(axis=1))
