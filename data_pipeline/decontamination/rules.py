"""The three rules that tell whether a document holds evaluation data, applied to many at once.

A document that shares a few words with an item is common; one that holds the item is a leak. What
tells them apart depends on the shape of the leak, so three rules are joined by "or":

- `item_share`: somewhere in the document a passage no longer than one part of an item (and a fifth)
  holds at least `item_share` of what the part says, each word weighted by its surprise (14 bits for
  a rare word, 4 for "the"), and has 5-grams in common with it worth `item_bits` bits, or all the
  part has. Finds short, edited, re-wrapped and deeply embedded items.
- `absolute_hits`: at least so many different n-grams of one part occur in the document. Finds a
  piece of a long item.
- `sample_share`: more than this share of the document's n-grams occur in benchmarks. Finds
  patchworks of many items; it is the paper's rule (A.4), alone blind to an item inside 300 words.

Where `rewrites` is on, what none of them finds is looked at for items told in other words
(rewrites.py): `rewrite`, whose share is a cosine.

    {"rule": "item_share", "benchmark": "gsm8k", "item": "gsm8k/test/0", "part": "question",
     "share": 1.0, "hits": 47, "span": "Janet’s ducks lay 16 eggs per day ..."}

Adding items never acquits a document, except through an n-gram that becomes a phrase of more than
`max_items_per_ngram` items.

Shape letters: D documents, W words of all documents, H hits: (n-gram of a document, part) pairs.
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
from data_pipeline.decontamination.index import Index, check
from data_pipeline.decontamination.lookup import NgramTable
from data_pipeline.decontamination.paraphrases import ParaphraseIndex, Rewrite, Search
from data_pipeline.decontamination.surprise import word_bits
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text.ngrams import I64, Ngrams, Words, batches, excerpt, ngrams, words

CONTAMINATED = "contaminated"
OPTION_SHARE = 0.9  # law and economics say most of an option of thirteen words by chance
FEW_WORDS = 16


@dataclass(slots=True)
class Finding:
    """Why a document goes: `first` and `count` are the matching words, counted in the batch."""

    rule: str
    part: int
    share: float
    hits: int
    first: int
    count: int


@dataclass(slots=True)
class Hits:
    """Where n-grams of parts occur: the parts in each document, then the words, ascending."""

    document_H: I64
    part_H: I64
    start_H: I64  # the n-gram's first word
    gram_H: I64
    groups: I64  # hits of one document and part are groups[k] .. groups[k + 1] - 1


@dataclass(frozen=True, slots=True)
class Match:
    """Words first .. first + count - 1 of a text, and what they match."""

    first: int
    count: int
    evidence: dict[str, Any]


def build(
    config: Decontamination, index: Index, rewritten: ParaphraseIndex | None = None
) -> Callable[[Sequence[Document]], list[Document | Dropped]]:
    """A function from documents to what becomes of each, in order. Some hundreds at a time are
    fastest; the answer for a document does not depend on the others.
    """
    find = finder(config, index, rewritten)

    def decide(documents: Sequence[Document]) -> list[Document | Dropped]:
        answers: list[Document | Dropped] = []
        for batch in batches(documents):
            found = find([document.text for document in batch])
            for d, document in enumerate(batch):
                answers.append(
                    Dropped(document, CONTAMINATED, found[d].evidence) if d in found else document
                )
        return answers

    return decide


def finder(
    config: Decontamination, index: Index, rewritten: ParaphraseIndex | None = None
) -> Callable[[Sequence[str]], dict[int, Match]]:
    """A function from texts to {d: what was found} of the contaminated ones.

    `rewritten`: what items told in other words are looked up in; None goes without.
    """
    check(index.n, config)
    search = Search(rewritten, config.paraphrases) if rewritten is not None else None

    def find(texts: Sequence[str]) -> dict[int, Match]:
        found = _search(texts, config, index)
        if search is not None:
            rest = [d for d in range(len(texts)) if d not in found]
            for rewrite in search([texts[d] for d in rest]):
                d = rest[rewrite.document]
                found[d] = _rewrite(texts[d], rewrite, search.index)
        return found

    return find


def _search(texts: Sequence[str], config: Decontamination, index: Index) -> dict[int, Match]:
    """{d: match} of the contaminated texts; of several rules the first that found it."""
    found = words(texts)
    findings: dict[int, Finding] = {}
    if config.item_share:
        for rule in (_item_share, _short_item):
            findings = _best(rule(found, config, index), lambda f: f.share) | findings
    if config.absolute_hits or config.sample_share:
        grams = ngrams(found, index.n)
        s, g = index.grams.find(grams.hashes_S)
        hits = _hits(found, grams, index.grams, s, g)
        if config.absolute_hits:
            findings = _best(_absolute_hits(hits, config, index), lambda f: f.hits) | findings
        if config.sample_share:
            for d, finding in _sample_share(grams, s, hits, config, index):
                findings.setdefault(d, finding)
    return {d: _match(texts[d], int(found.offsets_D[d]), f, index) for d, f in findings.items()}


def items_in(found: Words, config: Decontamination, index: Index) -> list[set[tuple[str, str]]]:
    """(benchmark, item) of all that item_share and absolute_hits find in each text.

    A decision names the best of them only, and of equal ones the first.
    """
    items: list[set[tuple[str, str]]] = [set() for _ in found.offsets_D[1:]]
    everything: list[Iterator[tuple[int, Finding]]] = []
    if config.item_share:
        everything += [_item_share(found, config, index), _short_item(found, config, index)]
    if config.absolute_hits:
        grams = ngrams(found, index.n)
        hits = _hits(found, grams, index.grams, *index.grams.find(grams.hashes_S))
        everything.append(_absolute_hits(hits, config, index))
    for d, finding in itertools.chain(*everything):
        benchmark, item, _ = index.parts[finding.part]
        items[d] |= {(benchmark, one) for one in (item, *index.same.get(finding.part, ()))}
    return items


def _best(
    findings: Iterable[tuple[int, Finding]], worth: Callable[[Finding], float]
) -> dict[int, Finding]:
    """The first of the best of each document."""
    best: dict[int, Finding] = {}
    for d, finding in findings:
        if d not in best or worth(finding) > worth(best[d]):
            best[d] = finding
    return best


def _hits(found: Words, grams: Ngrams, table: NgramTable, s: I64, g: I64) -> Hits:
    h, part_H = table.expand(g)
    start_H = grams.starts_S[s][h]
    document_H = np.searchsorted(found.offsets_D, start_H, "right") - 1
    key_H = document_H * (int(part_H.max(initial=0)) + 1) + part_H
    order = np.argsort(key_H, kind="stable")
    key_H = key_H[order]
    new = np.flatnonzero(key_H[1:] != key_H[:-1]) + 1
    groups = np.concatenate([[0], new, [len(key_H)]]) if len(key_H) else np.zeros(1, np.int64)
    return Hits(document_H[order], part_H[order], start_H[order], g[h][order], groups)


def _item_share(
    found: Words, config: Decontamination, index: Index
) -> Iterator[tuple[int, Finding]]:
    """The parts that say enough of themselves, in each document."""
    seeds = ngrams(found, index.seed_n)
    hits = _hits(found, seeds, index.seeds, *index.seeds.find(seeds.hashes_S))
    if not len(hits.gram_H):
        return
    # Of a share s of a part's words, lying at random, s^n of its n-grams are left. Half of that is
    # asked for, so that a few phrases in common with a whole book are not looked into.
    everything_K = index.evidence_K * (1 - 1e-9)
    least = config.item_share**index.seed_n / 2
    needed_K = np.maximum(np.minimum(config.item_bits, everything_K), least * everything_K)
    bits_H = index.bits_G[hits.gram_H]
    # With repeats and over the whole document it is more than in any one passage.
    most = np.add.reduceat(bits_H, hits.groups[:-1])
    for k in np.flatnonzero(most >= needed_K[hits.part_H[hits.groups[:-1]]]).tolist():
        of = slice(hits.groups[k], hits.groups[k + 1])
        d, part = int(hits.document_H[of.start]), int(hits.part_H[of.start])
        first, last, distinct, bits = _richest_passage(
            hits.start_H[of].tolist(),
            hits.gram_H[of].tolist(),
            bits_H[of].tolist(),
            len(index.words_of(part)) * 6 // 5,
        )
        if bits < needed_K[part]:
            continue
        share = _containment(found, d, first, last + index.seed_n, index, part)
        if share >= _least_share(index, part, config):
            length = last + index.seed_n - first
            yield d, Finding("item_share", part, share, distinct, first, length)


def _least_share(index: Index, part: int, config: Decontamination) -> float:
    """More of an option than of a question, and of few words nearly all."""
    if index.strict_K[part]:
        return max(config.item_share, OPTION_SHARE)
    if len(index.words_of(part)) <= FEW_WORDS:
        return max(config.item_share, short_items.SHARE)
    return config.item_share


def _short_item(
    found: Words, config: Decontamination, index: Index
) -> Iterator[tuple[int, Finding]]:
    """The short parts that a short document says, word by word in their order."""
    least = max(config.item_share, short_items.SHARE)
    for a in short_items.search(found, index.short, index.words, least):
        yield a.document, Finding("item_share", a.part, a.share, a.hits, a.first, a.length)


def _richest_passage(
    starts: list[int], grams: list[int], bits: list[float], length: int
) -> tuple[int, int, int, float]:
    """(first start, last start, distinct n-grams, their bits) of the best passage so long."""
    inside: Counter[int] = Counter()
    worth = 0.0
    left = 0
    best = (starts[0], starts[0], 0, 0.0)
    for start, gram, value in zip(starts, grams, bits, strict=True):
        worth += value * (inside[gram] == 0)
        inside[gram] += 1
        while start - starts[left] > length:
            inside[grams[left]] -= 1
            if not inside[grams[left]]:
                del inside[grams[left]]
                worth -= bits[left]
            left += 1
        if worth > best[3]:
            best = (starts[left], start, len(inside), worth)
    return best


def _containment(found: Words, d: int, first: int, end: int, index: Index, part: int) -> float:
    """The share of the part's bits whose words occur around words first .. end - 1 of the batch.

    The passage is widened by what is missing to the part's length on both sides, since the part
    may begin or end outside the common n-grams; two more words allow for insertions.
    """
    wanted, wanted_counts = np.unique(index.words_of(part), return_counts=True)
    margin = max(int(wanted_counts.sum()) - (end - first), 0) + 2
    low = max(int(found.offsets_D[d]), first - margin)
    high = min(int(found.offsets_D[d + 1]), end + margin)
    passage, counts = np.unique(found.hashes_W[low:high], return_counts=True)
    at = np.minimum(np.searchsorted(passage, wanted), len(passage) - 1)
    there = np.where(passage[at] == wanted, np.minimum(counts[at], wanted_counts), 0)
    bits = word_bits(wanted)
    return float((there * bits).sum() / (wanted_counts * bits).sum())


def _absolute_hits(
    hits: Hits, config: Decontamination, index: Index
) -> Iterator[tuple[int, Finding]]:
    """The parts of which each document has enough different n-grams."""
    sizes = np.diff(hits.groups)
    for k in np.flatnonzero(sizes >= config.absolute_hits).tolist():
        of = slice(hits.groups[k], hits.groups[k + 1])
        d, part = int(hits.document_H[of.start]), int(hits.part_H[of.start])
        distinct = len(np.unique(hits.gram_H[of]))
        if not index.absolute_K[part] or distinct < config.absolute_hits:
            continue
        share = distinct / max(1, len(index.words_of(part)) - index.n + 1)
        starts = hits.start_H[of]
        span = int(starts[0]), int(starts[-1] - starts[0]) + index.n
        yield d, Finding("absolute_hits", part, min(share, 1.0), distinct, *span)


def _sample_share(
    grams: Ngrams, s: I64, hits: Hits, config: Decontamination, index: Index
) -> Iterator[tuple[int, Finding]]:
    """The share of each document's n-grams; evidence names the part with the most hits."""
    num_D = np.diff(grams.offsets_D)
    hits_D = np.bincount(np.searchsorted(grams.offsets_D, s, "right") - 1, minlength=len(num_D))
    group_document = hits.document_H[hits.groups[:-1]]
    for d in np.flatnonzero(hits_D > config.sample_share * num_D).tolist():
        mine = np.flatnonzero(group_document == d)
        k = mine[np.argmax(np.diff(hits.groups)[mine])]
        part = int(hits.part_H[hits.groups[k]])
        first = int(hits.start_H[hits.groups[k]])
        count = int(hits.start_H[hits.groups[k + 1] - 1]) - first + index.n
        yield (
            d,
            Finding("sample_share", part, hits_D[d] / num_D[d], int(hits_D[d]), first, count),
        )


def _match(text: str, first_word: int, finding: Finding, index: Index) -> Match:
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


def _rewrite(text: str, rewrite: Rewrite, index: ParaphraseIndex) -> Match:
    benchmark, item, part = index.parts[rewrite.part]
    evidence = {
        "rule": "rewrite",
        "benchmark": benchmark,
        "item": item,
        "part": part,
        "share": round(rewrite.similarity, 4),
        "hits": rewrite.common,
        "span": excerpt(text, rewrite.first, rewrite.length),
    }
    return Match(rewrite.first, rewrite.length, evidence)
