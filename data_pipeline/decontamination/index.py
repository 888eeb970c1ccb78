"""The index of all benchmark items: their n-grams, and the self-information of their words.

It is built once for each n, saved as one .npz file, and loaded by every worker. It has three kinds
of tables:

- `grams`: the n-grams of all parts of at least n words, for the sample-share and absolute-hits
  rules;
- `seeds`: the short n-grams (5 words) of all parts that are distinctive enough to be found alone,
  for the item-share rule;
- `short`: what finds short parts in short documents (short_items.py).

An n-gram of more than `max_items_per_ngram` items is a phrase, and is in none of them.

The test and validation splits of MMLU, both ARC sets, TruthfulQA, Winogrande, HellaSwag and GSM8K
are 4 M n-grams and take about 300 MB in each worker.

Shape letters: K parts, W words of all parts, G distinct n-grams of a table, J (n-gram, part) pairs,
S n-grams looked up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.config import Decontamination
from data_pipeline.decontamination import short_items
from data_pipeline.decontamination.benchmarks import (
    OWN_BENCHMARKS,
    BenchmarkItem,
    is_option,
    is_whole,
)
from data_pipeline.decontamination.ngram_table import NgramTable, is_in_few_items
from data_pipeline.decontamination.word_information import F64, word_bits
from data_pipeline.storage.atomic import read_arrays, write_arrays
from data_pipeline.text.ngrams import I64, U64, Ngrams, Words, ngrams, words

# What a part needs to be found without the rest of its item: words, and bits of its seeds. Shorter
# texts occur in documents that have nothing to do with the item: a complete question hardly ever, a
# fragment more often ("The Federal Open Market Committee", "The Voting Rights Act of 1965" are
# questions of MMLU), an option of a multiple-choice question all the time. Such a part is still
# found together with the answer.
MIN_QUESTION_WORDS = 5
MIN_PART_WORDS = 7
MIN_OPTION_WORDS = 13
MIN_SEED_BITS = 9.5


@dataclass(slots=True)
class NgramIndex:
    """The n-grams of the parts of all items, for one n.

    `parts[k]` is (benchmark, item id, part name). `duplicates[k]` lists further items of the same
    benchmark that have this very text. `unindexed` counts, by benchmark, the items that are found
    only where they are a whole document.
    """

    n: int
    seed_n: int
    parts: list[tuple[str, str, str]]
    duplicates: dict[int, list[str]]
    unindexed: dict[str, int]
    absolute_K: NDArray[np.bool_]  # whether the absolute-hits rule applies
    words: Words  # of the parts
    grams: NgramTable
    seeds: NgramTable
    seed_bits_G: F64  # the mean self-information of the seed's words
    short: short_items.ShortItems
    is_option_K: NDArray[np.bool_] = field(init=False)
    total_seed_bits_K: F64 = field(init=False)  # of all seeds of a part

    def __post_init__(self) -> None:
        """Computes what follows from the other fields."""
        self.is_option_K = np.array([is_option(name) for _, _, name in self.parts], bool)
        self.total_seed_bits_K = _sum_by_part(self.seeds, self.seed_bits_G, len(self.parts))

    def words_of(self, part: int) -> U64:
        """Returns the hashes of the words of a part, in order."""
        return self.words.hashes_W[self.words.offsets_D[part] : self.words.offsets_D[part + 1]]

    def distinctive(self, texts: Sequence[str]) -> list[bool]:
        """Returns, for each text, whether it has an n-gram by which it is found in another text."""
        text_words = words(texts)
        is_distinctive = np.zeros(len(texts), bool)
        for table, n in ((self.grams, self.n), (self.seeds, self.seed_n)):
            grams = ngrams(text_words, n)
            s, _ = table.find(grams.hashes_S)
            is_distinctive[np.searchsorted(grams.offsets_D, s, "right") - 1] = True
        return [bool(value) for value in is_distinctive]

    def save(self, path: Path) -> str:
        """Writes an .npz file and returns its sha256; the same index gives the same bytes."""
        duplicates = list(self.duplicates.items())
        # As three columns, JSON is parsed in a third of the time that rows take.
        columns = list(zip(*self.parts, strict=True))
        names = json.dumps([self.n, self.seed_n, columns, duplicates, self.unindexed]).encode()
        return write_arrays(
            path,
            names=np.frombuffer(names, np.uint8),
            absolute=self.absolute_K,
            words=self.words.hashes_W,
            word_offsets=self.words.offsets_D,
            grams=self.grams.hashes_G,
            gram_offsets=self.grams.offsets_G,
            gram_parts=self.grams.parts_J,
            seeds=self.seeds.hashes_G,
            seed_offsets=self.seeds.offsets_G,
            seed_parts=self.seeds.parts_J,
            seed_bits=self.seed_bits_G,
            whole=self.short.whole.hashes_G,
            whole_offsets=self.short.whole.offsets_G,
            whole_parts=self.short.whole.parts_J,
            gapped=self.short.seeds.hashes_G,
            gapped_offsets=self.short.seeds.offsets_G,
            gapped_parts=self.short.seeds.parts_J,
            gapped_places=self.short.offset_J,
        )

    @classmethod
    def load(cls, path: Path) -> NgramIndex:
        """Returns the index that `save` has written.

        Raises ValueError if another version has written it.
        """
        a = read_arrays(path)
        names = json.loads(a["names"].tobytes())
        if len(names) != 5:
            raise ValueError(
                f"{path}: got an index of another version of this program; curate the data again"
            )
        n, seed_n, columns, duplicates, unindexed = names
        return cls(
            n,
            seed_n,
            list(zip(*columns, strict=True)),
            dict(duplicates),
            unindexed,
            a["absolute"],
            Words(a["words"], a["word_offsets"]),
            NgramTable(a["grams"], a["gram_offsets"], a["gram_parts"]),
            NgramTable(a["seeds"], a["seed_offsets"], a["seed_parts"]),
            a["seed_bits"],
            short_items.ShortItems(
                NgramTable(a["whole"], a["whole_offsets"], a["whole_parts"]),
                NgramTable(a["gapped"], a["gapped_offsets"], a["gapped_parts"]),
                a["gapped_places"],
            ),
        )


def build_index(
    items: Iterable[BenchmarkItem],
    n: int,
    config: Decontamination,
    templates: Mapping[int, U64] | None = None,
) -> NgramIndex:
    """Returns the index of the parts of all items.

    A text that a benchmark has several times is indexed once.

    Args:
      items: in any order; a decision names the first of several equally good items.
      n: number of words of the n-grams of the sample-share and absolute-hits rules.
      config: the thresholds.
      templates: n -> hashes, ascending, of n-grams that many documents have. They are no evidence
        for held-out documents and for the items made from them, because other pages made from the
        same template do not contain their text.
    """
    collected = _collect_parts(items)
    part_words = words(collected.texts)
    item_K, max_items = collected.item_K(), config.max_items_per_ngram
    own_K = np.array([benchmark in OWN_BENCHMARKS for benchmark, _, _ in collected.parts], bool)
    template_filter = _TemplateFilter(own_K, templates or {})
    grams = _NgramPairs.of(ngrams(part_words, n), n, template_filter).table(
        np.diff(part_words.offsets_D) >= n, item_K, max_items
    )
    seeds, seed_bits_G = _build_seeds(
        part_words, collected.min_words_K(), item_K, config, template_filter
    )
    short = _build_short_items(part_words, collected.parts, item_K, config)
    return NgramIndex(
        n,
        config.item_ngram_words,
        collected.parts,
        collected.duplicates,
        collected.count_unindexed((grams, seeds, short.seeds)),
        np.array(collected.absolute_hits, bool),
        part_words,
        grams,
        seeds,
        seed_bits_G,
        short,
    )


@dataclass(slots=True)
class _CollectedParts:
    """The distinct texts of all items, in the order of the items: entry k of each list is part k.

    `parts_of_item`: (benchmark, item id) -> its parts, those included whose text an earlier item of
    the benchmark has.
    """

    texts: list[str] = field(default_factory=list)
    parts: list[tuple[str, str, str]] = field(default_factory=list)
    absolute_hits: list[bool] = field(default_factory=list)
    duplicates: dict[int, list[str]] = field(default_factory=dict)
    parts_of_item: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def item_K(self) -> I64:
        """Returns the number of each part's item; items are numbered by their first parts."""
        number = {item: k for k, item in enumerate(self.parts_of_item)}
        return np.array([number[benchmark, item] for benchmark, item, _ in self.parts], np.int64)

    def min_words_K(self) -> I64:
        """Returns the number of words that each part needs to be found alone."""
        return np.array(
            [_min_words(name, t) for (_, _, name), t in zip(self.parts, self.texts, strict=True)],
            np.int64,
        )

    def count_unindexed(self, tables: Iterable[NgramTable]) -> dict[str, int]:
        """Returns, by benchmark, how many items have no part in any table; zeros are left out."""
        is_indexed_K = np.zeros(len(self.parts), bool)
        for table in tables:
            is_indexed_K[table.parts_J] = True
        unindexed: Counter[str] = Counter()
        for (benchmark, _), own in self.parts_of_item.items():
            unindexed[benchmark] += not is_indexed_K[own].any()
        return {name: count for name, count in sorted(unindexed.items()) if count}


def _collect_parts(items: Iterable[BenchmarkItem]) -> _CollectedParts:
    """Returns the parts of all items, each text of a benchmark once."""
    collected = _CollectedParts()
    part_of_text: dict[tuple[str, str], int] = {}
    for item in items:
        own = collected.parts_of_item.setdefault((item.benchmark, item.id), [])
        for name, text in item.parts.items():
            key = (item.benchmark, text)
            if key not in part_of_text:
                part_of_text[key] = len(collected.texts)
                collected.texts.append(text)
                collected.parts.append((item.benchmark, item.id, name))
                collected.absolute_hits.append(item.absolute_hits)
            elif collected.parts[part_of_text[key]][1] != item.id:
                collected.duplicates.setdefault(part_of_text[key], []).append(item.id)
            own.append(part_of_text[key])
    return collected


def _min_words(part: str, text: str) -> int:
    """Returns the number of words that a part needs to be found alone."""
    if is_option(part):
        return MIN_OPTION_WORDS
    return MIN_QUESTION_WORDS if text.rstrip().endswith("?") else MIN_PART_WORDS


@dataclass(slots=True)
class _TemplateFilter:
    """A filter for the n-grams that held-out texts share with templates of other documents."""

    own_K: NDArray[np.bool_]  # whether a part is of this run's own text, and not of a benchmark
    templates: Mapping[int, U64]

    def keeps(self, hashes_J: U64, part_J: I64, n: int) -> NDArray[np.bool_]:
        """Returns bool [J]: all pairs but template n-grams of this run's own texts."""
        if n not in self.templates:
            return np.ones(len(part_J), bool)
        return np.asarray(~self.own_K[part_J] | ~np.isin(hashes_J, self.templates[n]))


@dataclass(slots=True)
class _NgramPairs:
    """The distinct (n-gram, part) pairs, by n-gram, then by part."""

    hashes_J: U64
    part_J: I64

    @classmethod
    def of(cls, grams: Ngrams, n: int, template_filter: _TemplateFilter) -> _NgramPairs:
        """Returns the pairs of these n-grams, whose texts are the parts."""
        part_J = np.repeat(np.arange(len(grams.offsets_D) - 1), np.diff(grams.offsets_D))
        # A stable sort by hash leaves the parts of each hash in ascending order.
        order = np.argsort(grams.hashes_S, kind="stable")
        hashes_J, part_J = grams.hashes_S[order], part_J[order]
        # Repeats of an n-gram within one part are neighbors now: the first one is kept.
        kept = np.ones(len(part_J), bool)
        kept[1:] = (hashes_J[1:] != hashes_J[:-1]) | (part_J[1:] != part_J[:-1])
        kept &= template_filter.keeps(hashes_J, part_J, n)
        return cls(hashes_J[kept], part_J[kept])

    def table(self, is_indexed_K: NDArray[np.bool_], item_K: I64, max_items: int) -> NgramTable:
        """Returns the table of the chosen parts' n-grams that at most `max_items` items have."""
        chosen_J = is_indexed_K[self.part_J]
        hashes, part = self.hashes_J[chosen_J], self.part_J[chosen_J]
        kept = is_in_few_items(hashes, part, item_K, max_items)
        return NgramTable.from_sorted_pairs(hashes[kept], part[kept])


def _sum_by_part(table: NgramTable, bits_G: F64, num_parts: int) -> F64:
    """Returns float64 [K]: the sum of the bits of all n-grams that each part has in the table."""
    bits_J = np.repeat(bits_G, np.diff(table.offsets_G))
    return np.bincount(table.parts_J, bits_J, num_parts).astype(float)


def _build_seeds(
    part_words: Words,
    min_words_K: I64,
    item_K: I64,
    config: Decontamination,
    template_filter: _TemplateFilter,
) -> tuple[NgramTable, F64]:
    """Returns the table of the seeds of all parts that can be found alone, and each seed's bits."""
    n, max_items = config.item_ngram_words, config.max_items_per_ngram
    grams = ngrams(part_words, n)
    pairs = _NgramPairs.of(grams, n, template_filter)
    # bits_before_W[w] is the sum of the bits of words 0 .. w - 1, so that the bits of any run of
    # words are a difference.
    bits_before_W = np.concatenate([[0.0], np.cumsum(word_bits(part_words.hashes_W))])
    hashes, first = np.unique(grams.hashes_S, return_index=True)

    def mean_bits(table: NgramTable) -> F64:
        # The words of a seed, wherever it occurs first.
        start = grams.starts_S[first[np.searchsorted(hashes, table.hashes_G)]]
        return (bits_before_W[start + n] - bits_before_W[start]) / n

    def total_bits_K(table: NgramTable) -> F64:
        return _sum_by_part(table, mean_bits(table), len(item_K))

    is_indexed_K = np.diff(part_words.offsets_D) >= np.maximum(min_words_K, n)
    with_phrases_K = total_bits_K(pairs.table(is_indexed_K, item_K, len(item_K)))
    without_phrases_K = total_bits_K(pairs.table(is_indexed_K, item_K, max_items))
    # A part that consists mostly of phrases is not found alone: without them it must keep half of
    # its bits, or twice the evidence that the rule requires, and MIN_SEED_BITS in any case.
    is_indexed_K &= without_phrases_K >= np.maximum(
        MIN_SEED_BITS, np.minimum(with_phrases_K / 2, 2 * config.item_bits)
    )
    table = pairs.table(is_indexed_K, item_K, max_items)
    return table, mean_bits(table)


def _build_short_items(
    part_words: Words,
    parts: Sequence[tuple[str, str, str]],
    item_K: I64,
    config: Decontamination,
) -> short_items.ShortItems:
    """Returns the index of short parts; empty if the item-share rule is off.

    An option is no item. A question alone must be longer than a question with its answer.
    """
    num_words_K = np.diff(part_words.offsets_D)
    is_part_K = np.array([not is_option(name) for _, _, name in parts], bool)
    is_item_K = np.array([is_whole(name) for _, _, name in parts], bool)
    is_aligned_K = is_item_K | (is_part_K & (num_words_K >= short_items.MIN_QUESTION_WORDS))
    if not config.item_share:
        is_part_K, is_aligned_K = np.zeros_like(is_part_K), np.zeros_like(is_part_K)
    return short_items.build_short_items(
        part_words, is_part_K, is_aligned_K, item_K, config.max_items_per_ngram
    )
