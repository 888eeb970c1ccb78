"""The three rules that detect evaluation data in documents, applied to many documents at once.

Sharing a few words with an item is common; containing the item is a leak. The shape of a leak
decides which test separates the two, so three rules are joined by "or":

- `item_share`: a passage no longer than 1.2 times one part of an item holds at least `item_share`
  of the part's bits (each word weighted by its self-information: 14 bits for a rare word, 4 for
  "the"), and the 5-grams in common are worth `item_bits` bits, or all that the part has. Finds
  short, edited, re-wrapped and deeply embedded items.
- `absolute_hits`: at least this many different n-grams of one part occur in the document. Finds a
  piece of a long item.
- `sample_share`: more than this share of the document's n-grams occur in benchmarks. Finds
  patchworks of many items. This is the paper's rule (A.4); alone it misses an item inside 300
  words of other text.

If `paraphrases` is enabled, documents that pass all three are searched for paraphrased items
(paraphrases.py). The rule of such a match is `paraphrase`, its share is a cosine.

    {"rule": "item_share", "benchmark": "gsm8k", "item": "gsm8k/test/0", "part": "question",
     "share": 1.0, "hits": 47, "span": "Janet’s ducks lay 16 eggs per day ..."}

Adding items never un-flags a document, unless an n-gram then occurs in more than
`max_items_per_ngram` items and counts as a phrase.

Shape letters: D documents, W words of all documents, K parts, S n-grams of all documents, H hits:
(n-gram of a document, part) pairs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipeline.config import Decontamination
from data_pipeline.decontamination import short_items
from data_pipeline.decontamination.index import NgramIndex
from data_pipeline.decontamination.ngram_table import NgramTable
from data_pipeline.decontamination.paraphrases import (
    ParaphraseIndex,
    ParaphraseMatch,
    ParaphraseSearch,
)
from data_pipeline.decontamination.word_information import word_bits
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text.ngrams import I64, Ngrams, Words, batches, excerpt, ngrams, words

CONTAMINATED = "contaminated"
MIN_OPTION_SHARE = 0.9  # law and economics texts contain most of an option of 13 words by chance
FEW_WORDS = 16  # parts of at most this many words need the share of short items


@dataclass(slots=True)
class Finding:
    """A match of one rule; words `first` .. `first + count - 1` of the batch match."""

    rule: str
    part: int
    share: float
    hits: int
    first: int
    count: int


@dataclass(slots=True)
class Hits:
    """The n-grams of documents that occur in parts, sorted by document, then part, then word."""

    document_H: I64
    part_H: I64
    start_H: I64  # the n-gram's first word
    gram_H: I64  # its row in the table
    group_offsets: I64  # hits group_offsets[k] .. group_offsets[k + 1] - 1: one document and part


@dataclass(frozen=True, slots=True)
class Match:
    """A passage, words first .. first + count - 1 of a text, with the evidence of its match."""

    first: int
    count: int
    evidence: dict[str, Any]


def build_decide(
    config: Decontamination, index: NgramIndex, paraphrase_index: ParaphraseIndex | None = None
) -> Callable[[Sequence[Document]], list[Document | Dropped]]:
    """Returns a function that keeps or drops each of a list of documents, in order.

    The decision about a document does not depend on the others. Some hundreds at a time are
    fastest.

    Args:
      config: the rules and their thresholds.
      index: the n-grams of the benchmarks.
      paraphrase_index: where paraphrased items are looked up; None switches that rule off.
    """
    find = build_find(config, index, paraphrase_index)

    def decide(documents: Sequence[Document]) -> list[Document | Dropped]:
        decisions: list[Document | Dropped] = []
        for batch in batches(documents):
            matches = find([document.text for document in batch])
            for d, document in enumerate(batch):
                is_leak = d in matches
                decisions.append(
                    Dropped(document, CONTAMINATED, matches[d].evidence) if is_leak else document
                )
        return decisions

    return decide


def build_find(
    config: Decontamination, index: NgramIndex, paraphrase_index: ParaphraseIndex | None = None
) -> Callable[[Sequence[str]], dict[int, Match]]:
    """Returns a function from texts to {d: match} of the contaminated ones.

    Args:
      config: the rules and their thresholds.
      index: the n-grams of the benchmarks.
      paraphrase_index: where paraphrased items are looked up; None switches that rule off.
    """
    search = (
        None if paraphrase_index is None else ParaphraseSearch(paraphrase_index, config.paraphrases)
    )

    def find(texts: Sequence[str]) -> dict[int, Match]:
        matches = _find_by_ngrams(texts, config, index)
        if search is not None:
            rest = [d for d in range(len(texts)) if d not in matches]
            for match in search([texts[d] for d in rest]):
                d = rest[match.document]
                matches[d] = _paraphrase_match(texts[d], match, search.index)
        return matches

    return find


def _find_by_ngrams(
    texts: Sequence[str], config: Decontamination, index: NgramIndex
) -> dict[int, Match]:
    """Returns {d: match} of the contaminated texts; of several rules the first in their order."""
    text_words = words(texts)
    findings: dict[int, Finding] = {}
    if config.item_share:
        for rule in (_item_share, _short_item):
            best = _best(rule(text_words, config, index), lambda finding: finding.share)
            findings = best | findings  # what an earlier rule has found stays
    if config.absolute_hits or config.sample_share:
        grams = ngrams(text_words, index.n)
        s, g = index.grams.find(grams.hashes_S)
        hits = _hits(text_words, grams, index.grams, s, g)
        if config.absolute_hits:
            best = _best(_absolute_hits(hits, config, index), lambda finding: finding.hits)
            findings = best | findings
        if config.sample_share:
            for d, finding in _sample_share(grams, s, hits, config, index):
                findings.setdefault(d, finding)
    return {
        d: _match(texts[d], int(text_words.offsets_D[d]), finding, index)
        for d, finding in findings.items()
    }


def items_in(
    text_words: Words, config: Decontamination, index: NgramIndex
) -> list[set[tuple[str, str]]]:
    """Returns, for each text, (benchmark, item) of all that item_share and absolute_hits find.

    A decision names the best of them only, and the first of equally good ones.
    """
    items: list[set[tuple[str, str]]] = [set() for _ in text_words.offsets_D[1:]]
    findings: list[Iterator[tuple[int, Finding]]] = []
    if config.item_share:
        findings += [
            _item_share(text_words, config, index),
            _short_item(text_words, config, index),
        ]
    if config.absolute_hits:
        grams = ngrams(text_words, index.n)
        hits = _hits(text_words, grams, index.grams, *index.grams.find(grams.hashes_S))
        findings.append(_absolute_hits(hits, config, index))
    for d, finding in itertools.chain(*findings):
        benchmark, item, _ = index.parts[finding.part]
        same_text = index.duplicates.get(finding.part, ())
        items[d] |= {(benchmark, name) for name in (item, *same_text)}
    return items


def _best(
    findings: Iterable[tuple[int, Finding]], value: Callable[[Finding], float]
) -> dict[int, Finding]:
    """Returns the finding of the highest value of each document; of equal ones the first."""
    best: dict[int, Finding] = {}
    for d, finding in findings:
        if d not in best or value(finding) > value(best[d]):
            best[d] = finding
    return best


def _hits(text_words: Words, grams: Ngrams, table: NgramTable, s: I64, g: I64) -> Hits:
    """Returns the hits of the documents' n-grams, grouped by document and part.

    Args:
      text_words: the words of the documents.
      grams: their n-grams.
      table: the n-grams of the parts.
      s: the n-grams of the documents that are in the table ...
      g: ... and their rows in it.
    """
    h, part_H = table.parts_of(g)
    start_H = grams.starts_S[s][h]
    document_H = np.searchsorted(text_words.offsets_D, start_H, "right") - 1
    # One number per (document, part), ascending; the sort is stable, so words stay in order.
    key_H = document_H * (int(part_H.max(initial=0)) + 1) + part_H
    order = np.argsort(key_H, kind="stable")
    key_H = key_H[order]
    begin = np.flatnonzero(key_H[1:] != key_H[:-1]) + 1
    offsets = np.concatenate([[0], begin, [len(key_H)]]) if len(key_H) else np.zeros(1, np.int64)
    return Hits(document_H[order], part_H[order], start_H[order], g[h][order], offsets)


def _item_share(
    text_words: Words, config: Decontamination, index: NgramIndex
) -> Iterator[tuple[int, Finding]]:
    """Yields (document, finding) of the parts that a passage holds a large share of."""
    n = index.seed_n
    seeds = ngrams(text_words, n)
    hits = _hits(text_words, seeds, index.seeds, *index.seeds.find(seeds.hashes_S))
    if not len(hits.gram_H):
        return
    # If a share s of a part's words is left, at random places, s^n of its n-grams are left. Half of
    # that is required at least, so that a few phrases in common with a whole book are no candidate.
    total_K = index.total_seed_bits_K * (1 - 1e-9)  # all of a part is enough despite rounding
    min_share_of_seeds = config.item_share**n / 2
    required_K = np.maximum(np.minimum(config.item_bits, total_K), min_share_of_seeds * total_K)
    bits_H = index.seed_bits_G[hits.gram_H]
    # The sum over the whole document, with repeats, is at least that of any passage of it.
    upper_bound = np.add.reduceat(bits_H, hits.group_offsets[:-1])
    required = required_K[hits.part_H[hits.group_offsets[:-1]]]
    for k in np.flatnonzero(upper_bound >= required).tolist():
        of = slice(hits.group_offsets[k], hits.group_offsets[k + 1])
        d, part = int(hits.document_H[of.start]), int(hits.part_H[of.start])
        first, last, distinct, bits = _richest_passage(
            hits.start_H[of].tolist(),
            hits.gram_H[of].tolist(),
            bits_H[of].tolist(),
            len(index.words_of(part)) * 6 // 5,
        )
        if bits < required_K[part]:
            continue
        share = _containment(text_words, d, first, last + n, index, part)
        if share >= _min_share(index, part, config):
            yield d, Finding("item_share", part, share, distinct, first, last + n - first)


def _min_share(index: NgramIndex, part: int, config: Decontamination) -> float:
    """Returns the required share of a part's bits; it is higher for options and short parts."""
    if index.is_option_K[part]:
        return max(config.item_share, MIN_OPTION_SHARE)
    if len(index.words_of(part)) <= FEW_WORDS:
        return max(config.item_share, short_items.MIN_SHARE)
    return config.item_share


def _short_item(
    text_words: Words, config: Decontamination, index: NgramIndex
) -> Iterator[tuple[int, Finding]]:
    """Yields (document, finding) of the short parts that short documents hold in order."""
    min_share = max(config.item_share, short_items.MIN_SHARE)
    for a in short_items.search(text_words, index.short, index.words, min_share):
        yield a.document, Finding("item_share", a.part, a.share, a.hits, a.first, a.length)


def _richest_passage(
    starts: list[int], grams: list[int], bits: list[float], max_length: int
) -> tuple[int, int, int, float]:
    """Returns the passage of one document whose distinct n-grams have the most bits.

    A window slides over the hits; a repeated n-gram counts once.

    Args:
      starts: the first word of each hit, ascending.
      grams: the n-gram of each hit.
      bits: the bits of each hit.
      max_length: the largest distance, in words, between the first and the last hit of a passage.

    Returns:
      (start of the first hit, start of the last hit, number of distinct n-grams, their bits).
    """
    count_in_window: Counter[int] = Counter()
    bits_in_window = 0.0
    left = 0
    best = (starts[0], starts[0], 0, 0.0)
    for start, gram, value in zip(starts, grams, bits, strict=True):
        bits_in_window += value * (count_in_window[gram] == 0)
        count_in_window[gram] += 1
        while start - starts[left] > max_length:
            count_in_window[grams[left]] -= 1
            if not count_in_window[grams[left]]:
                del count_in_window[grams[left]]
                bits_in_window -= bits[left]
            left += 1
        if bits_in_window > best[3]:
            best = (starts[left], start, len(count_in_window), bits_in_window)
    return best


def _containment(
    text_words: Words, d: int, first: int, end: int, index: NgramIndex, part: int
) -> float:
    """Returns the share of a part's bits whose words occur in a passage.

    With c_w the count of word w in the part, p_w its count in the passage and b_w its bits, it is
    sum_w min(c_w, p_w) b_w / sum_w c_w b_w.

    Args:
      text_words: the words of the batch.
      d: the document.
      first: the first word of the passage, counted in the batch.
      end: the word after its last one. The passage is widened on both sides to the part's length,
        since the part may begin or end outside of the common n-grams, and by two more words for
        insertions.
      index: the n-grams of the benchmarks.
      part: the part.
    """
    part_words, part_counts = np.unique(index.words_of(part), return_counts=True)
    margin = max(int(part_counts.sum()) - (end - first), 0) + 2
    low = max(int(text_words.offsets_D[d]), first - margin)
    high = min(int(text_words.offsets_D[d + 1]), end + margin)
    passage, counts = np.unique(text_words.hashes_W[low:high], return_counts=True)
    # For each word of the part its count in the passage, at most its count in the part.
    at = np.minimum(np.searchsorted(passage, part_words), len(passage) - 1)
    common = np.where(passage[at] == part_words, np.minimum(counts[at], part_counts), 0)
    bits = word_bits(part_words)
    return float((common * bits).sum() / (part_counts * bits).sum())


def _absolute_hits(
    hits: Hits, config: Decontamination, index: NgramIndex
) -> Iterator[tuple[int, Finding]]:
    """Yields (document, finding) of the parts of which a document has enough different n-grams."""
    sizes = np.diff(hits.group_offsets)
    for k in np.flatnonzero(sizes >= config.absolute_hits).tolist():
        of = slice(hits.group_offsets[k], hits.group_offsets[k + 1])
        d, part = int(hits.document_H[of.start]), int(hits.part_H[of.start])
        distinct = len(np.unique(hits.gram_H[of]))
        if not index.absolute_K[part] or distinct < config.absolute_hits:
            continue
        share = distinct / max(1, len(index.words_of(part)) - index.n + 1)
        starts = hits.start_H[of]
        span = int(starts[0]), int(starts[-1] - starts[0]) + index.n
        yield d, Finding("absolute_hits", part, min(share, 1.0), distinct, *span)


def _sample_share(
    grams: Ngrams, s: I64, hits: Hits, config: Decontamination, index: NgramIndex
) -> Iterator[tuple[int, Finding]]:
    """Yields (document, finding) of the documents of which a large share is in benchmarks.

    The finding names the part with the most hits.

    Args:
      grams: the n-grams of the documents.
      s: those of them that are in the index.
      hits: their hits.
      config: the threshold.
      index: the n-grams of the benchmarks.
    """
    num_grams_D = np.diff(grams.offsets_D)
    document_of_hit = np.searchsorted(grams.offsets_D, s, "right") - 1
    num_hits_D = np.bincount(document_of_hit, minlength=len(num_grams_D))
    group_document = hits.document_H[hits.group_offsets[:-1]]
    for d in np.flatnonzero(num_hits_D > config.sample_share * num_grams_D).tolist():
        groups = np.flatnonzero(group_document == d)
        k = groups[np.argmax(np.diff(hits.group_offsets)[groups])]
        part = int(hits.part_H[hits.group_offsets[k]])
        first = int(hits.start_H[hits.group_offsets[k]])
        count = int(hits.start_H[hits.group_offsets[k + 1] - 1]) - first + index.n
        share = num_hits_D[d] / num_grams_D[d]
        yield d, Finding("sample_share", part, share, int(num_hits_D[d]), first, count)


def _match(text: str, first_word: int, finding: Finding, index: NgramIndex) -> Match:
    """Returns a finding as a match; `first_word` is the text's first word in the batch."""
    benchmark, item, part = index.parts[finding.part]
    first = finding.first - first_word
    evidence = {
        "rule": finding.rule,
        "benchmark": benchmark,
        "item": item,
        "part": part,
        "share": round(float(finding.share), 4),
        "hits": finding.hits,
        "span": excerpt(text, first, finding.count),
    }
    return Match(first, finding.count, evidence)


def _paraphrase_match(text: str, match: ParaphraseMatch, index: ParaphraseIndex) -> Match:
    """Returns a match of the paraphrase rule with its evidence."""
    benchmark, item, part = index.parts[match.part]
    evidence = {
        "rule": "paraphrase",
        "benchmark": benchmark,
        "item": item,
        "part": part,
        "share": round(match.similarity, 4),
        "hits": match.num_common,
        "span": excerpt(text, match.first, match.length),
    }
    return Match(match.first, match.length, evidence)
