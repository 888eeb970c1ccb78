"""What the rules look up: the n-grams of all items, and what each of their words is worth.

Built once for each n, saved as one .npz file, loaded by every worker. Two tables:

- `grams`: the n-grams of all parts of n words and more, for the sample-share and absolute-hits
  rules;
- `seeds`: the short n-grams (5 words) of all parts worth looking for alone, for the item-share
  rule, unless they consist of phrases that many items have.

The test and validation splits of MMLU, both ARC sets, TruthfulQA, Winogrande, HellaSwag and GSM8K
are 4 M n-grams and take about 250 MB in each worker.

Shape letters: K parts, W words of all parts, G distinct n-grams of a table, J (n-gram, part) pairs,
S n-grams looked up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.config import Decontamination
from data_pipeline.decontamination.benchmarks import Item, is_option
from data_pipeline.disk import write_arrays
from data_pipeline.ngrams import I64, U64, Ngrams, Words, ngrams, words

F64 = NDArray[np.float64]

# What a part must have to be looked for alone, in words and in bits of its seeds. Less of it occurs
# in texts that have nothing to do with the item: a complete question hardly ever, a fragment more
# often ("The Federal Open Market Committee", "The Voting Rights Act of 1965" are questions of
# MMLU), an option to choose from all the time. It is still found together with the answer.
QUESTION_WORDS = 5
PART_WORDS = 7
OPTION_WORDS = 13
PART_BITS = 9.5

# Surprise of the commonest English words, -log2 of their share of running text (the median over
# fifteen corpora: books, news, government, law, medicine, textbooks, manuals). Any other word has
# RARE bits. The table is fixed so that what is found does not depend on what else is indexed.
RARE = 14.0
_COMMON = {
    4: "the",
    5: "a and of to",
    6: "in",
    7: "as for is that with",
    8: "an are at be by can from have it not on or s this we which",
    9: """1 about all also but has if more one other some than their there these they time was what
        who will you""",
    10: """10 2 3 after any been different do each first had how i into its like made make many may
        most new no number only our out over people see so such system them through two up us use
        way were when where would your""",
}


def word_bits(hashes: U64) -> F64:
    """The surprise of words given by their hashes, in bits."""
    common, bits = _common_words()
    at = np.minimum(np.searchsorted(common, hashes), len(common) - 1)
    return np.where(common[at] == hashes, bits[at], RARE)


@cache
def _common_words() -> tuple[U64, F64]:
    hashes = words(list(_COMMON.values()))
    bits = np.repeat(np.array(list(_COMMON), np.float64), np.diff(hashes.offsets_D))
    order = np.argsort(hashes.hashes_W)
    return hashes.hashes_W[order], bits[order]


def _upper(hashes: U64, bits: int) -> I64:
    return (hashes >> np.uint64(64 - bits)).view(np.int64)


@dataclass(slots=True)
class Table:
    """Distinct n-grams, ascending, and the parts that have each: `parts_J[offsets_G[g]:...]`."""

    hashes_G: U64
    offsets_G: I64  # [G + 1]
    parts_J: NDArray[np.int32]
    # Two lookups by the upper bits of a hash instead of twenty in a binary search: may it be here
    # at all, and where in `hashes_G` do those with these bits begin?
    _may_be: NDArray[np.bool_] = field(init=False, repr=False)
    _begin: NDArray[np.int32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        bits = max(len(self.hashes_G), 1 << 8).bit_length()
        self._begin = np.zeros((1 << bits) + 1, np.int32)
        np.cumsum(
            np.bincount(_upper(self.hashes_G, bits), minlength=1 << bits), out=self._begin[1:]
        )
        self._may_be = np.zeros(1 << min(bits + 3, 25), bool)
        self._may_be[_upper(self.hashes_G, min(bits + 3, 25))] = True

    def find(self, hashes_S: U64) -> tuple[I64, I64]:
        """(s, g) of all hashes that are in the table, in the order of s."""
        s = np.flatnonzero(self._may_be[_upper(hashes_S, len(self._may_be).bit_length() - 1)])
        wanted = hashes_S[s]
        bucket = _upper(wanted, len(self._begin).bit_length() - 1)
        g, end = self._begin[bucket].astype(np.int64), self._begin[bucket + 1]
        there = np.zeros(len(s), bool)
        left = np.flatnonzero(g < end)
        while len(left):
            same = self.hashes_G[g[left]] == wanted[left]
            there[left[same]] = True
            left = left[~same]
            g[left] += 1
            left = left[g[left] < end[left]]
        return s[there], g[there]

    def expand(self, g: I64) -> tuple[I64, I64]:
        """(h, part) of all parts of all these n-grams; h counts the entries of g."""
        repeats = self.offsets_G[g + 1] - self.offsets_G[g]
        h = np.repeat(np.arange(len(g)), repeats)
        within = np.arange(len(h)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        return h, self.parts_J[self.offsets_G[g][h] + within].astype(np.int64)


@dataclass(slots=True)
class Index:
    """`parts[k]` is (benchmark, item id, part name); `unindexed` counts items without any part."""

    n: int
    seed_n: int
    parts: list[tuple[str, str, str]]
    unindexed: dict[str, int]
    absolute_K: NDArray[np.bool_]  # whether the absolute-hits rule applies
    words: Words  # of the parts
    grams: Table
    seeds: Table
    bits_G: F64  # what each seed is worth: the mean surprise of its words
    evidence_K: F64 = field(init=False)  # what all seeds of a part are worth

    def __post_init__(self) -> None:
        bits_J = np.repeat(self.bits_G, np.diff(self.seeds.offsets_G))
        self.evidence_K = np.bincount(self.seeds.parts_J, bits_J, len(self.parts)).astype(float)

    def words_of(self, part: int) -> U64:
        return self.words.hashes_W[self.words.offsets_D[part] : self.words.offsets_D[part + 1]]

    def save(self, path: Path) -> None:
        """Writes an .npz file, the same bytes for the same index."""
        names = json.dumps([self.n, self.seed_n, self.parts, self.unindexed]).encode()
        write_arrays(
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
            seed_bits=self.bits_G,
        )

    @classmethod
    def load(cls, path: Path) -> Index:
        with np.load(path) as a:
            n, seed_n, parts, unindexed = json.loads(a["names"].tobytes())
            return cls(
                n,
                seed_n,
                [(benchmark, item, part) for benchmark, item, part in parts],
                unindexed,
                a["absolute"],
                Words(a["words"], a["word_offsets"]),
                Table(a["grams"], a["gram_offsets"], a["gram_parts"]),
                Table(a["seeds"], a["seed_offsets"], a["seed_parts"]),
                a["seed_bits"],
            )


def build_index(items: Iterable[Item], n: int, config: Decontamination) -> Index:
    """Indexes the parts of all items; a text that a benchmark has several times counts once.

    Args:
      items: in any order; their order is that of the evidence.
      n: words of the n-grams of the sample-share and absolute-hits rules.

    Raises:
      ValueError: n or a threshold makes no sense.
    """
    check(n, config)
    texts: list[str] = []
    parts: list[tuple[str, str, str]] = []
    absolute: list[bool] = []
    first: dict[tuple[str, str], int] = {}
    parts_of_item: dict[tuple[str, str], list[int]] = {}
    for item in items:
        mine = parts_of_item.setdefault((item.benchmark, item.id), [])
        for name, text in item.parts.items():
            key = (item.benchmark, text)
            if key not in first:
                first[key] = len(texts)
                texts.append(text)
                parts.append((item.benchmark, item.id, name))
                absolute.append(item.absolute_hits)
            mine.append(first[key])
    found = words(texts)
    num_words_K = np.diff(found.offsets_D)
    number = {item: k for k, item in enumerate(parts_of_item)}
    item_K = np.array([number[benchmark, item] for benchmark, item, _ in parts], np.int64)
    least_words_K = np.array(
        [_least_words(name, text) for (_, _, name), text in zip(parts, texts, strict=True)],
        np.int64,
    )

    seed_n, most = config.item_ngram_words, config.max_items_per_ngram
    grams = _Occurrences.of(ngrams(found, n)).table(num_words_K >= n, item_K, most)
    seeds = _seeds(found, least_words_K, item_K, seed_n, most)
    unindexed: Counter[str] = Counter()
    indexed_K = np.zeros(len(parts), bool)
    indexed_K[grams.parts_J] = indexed_K[seeds[0].parts_J] = True
    for (benchmark, _), mine in parts_of_item.items():
        unindexed[benchmark] += not indexed_K[mine].any()
    return Index(
        n,
        seed_n,
        parts,
        {name: count for name, count in sorted(unindexed.items()) if count},
        np.array(absolute, bool),
        found,
        grams,
        *seeds,
    )


def check(n: int, config: Decontamination) -> None:
    """Raises ValueError for settings that make no sense."""
    for name, value in (("sample_share", config.sample_share), ("item_share", config.item_share)):
        if not 0 <= value <= 1:
            raise ValueError(f"decontamination.{name}: got {value}, expected a share, 0 to 1")
    if n < 1 or config.item_ngram_words < 1 or config.absolute_hits < 0 or config.item_bits < 0:
        raise ValueError(
            f"decontamination: got n = {n}, item_ngram_words = {config.item_ngram_words}, "
            f"absolute_hits = {config.absolute_hits}, item_bits = {config.item_bits}; expected "
            f"n-grams of at least one word, and nothing below 0"
        )
    if config.max_items_per_ngram < 1:
        raise ValueError(
            f"decontamination.max_items_per_ngram: got {config.max_items_per_ngram}: with no item "
            f"for an n-gram nothing would be found"
        )
    if not (config.sample_share or config.item_share or config.absolute_hits):
        raise ValueError(
            "decontamination: all rules are switched off; to go without it say so: enabled = False"
        )


@dataclass(slots=True)
class _Occurrences:
    """All (n-gram, part) pairs, by n-gram, then by part."""

    hashes_J: U64
    part_J: I64

    @classmethod
    def of(cls, grams: Ngrams) -> _Occurrences:
        part_J = np.repeat(np.arange(len(grams.offsets_D) - 1), np.diff(grams.offsets_D))
        order = np.argsort(grams.hashes_S, kind="stable")
        hashes_J, part_J = grams.hashes_S[order], part_J[order]
        distinct = np.ones(len(part_J), bool)
        distinct[1:] = (hashes_J[1:] != hashes_J[:-1]) | (part_J[1:] != part_J[:-1])
        return cls(hashes_J[distinct], part_J[distinct])

    def table(self, wanted_K: NDArray[np.bool_], item_K: I64, most_items: int) -> Table:
        """The n-grams of the wanted parts that at most so many items have.

        Items are numbered in the order of their parts, so those of an n-gram stand together.
        """
        wanted_J = wanted_K[self.part_J]
        hashes, part = self.hashes_J[wanted_J], self.part_J[wanted_J]
        new_gram, new_item = np.ones(len(part), bool), np.ones(len(part), bool)
        new_gram[1:] = hashes[1:] != hashes[:-1]
        new_item[1:] = new_gram[1:] | (item_K[part[1:]] != item_K[part[:-1]])
        gram = np.cumsum(new_gram) - 1
        kept = (np.bincount(gram, new_item) <= most_items)[gram]
        hashes_G, counts_G = np.unique(hashes[kept], return_counts=True)
        offsets_G = np.concatenate([[0], np.cumsum(counts_G)]).astype(np.int64)
        return Table(hashes_G, offsets_G, part[kept].astype(np.int32))


def _least_words(part: str, text: str) -> int:
    if is_option(part):
        return OPTION_WORDS
    return QUESTION_WORDS if text.rstrip().endswith("?") else PART_WORDS


def _seeds(
    found: Words, least_words_K: I64, item_K: I64, n: int, most_items: int
) -> tuple[Table, F64]:
    """The table of seeds, and the bits of each."""
    grams = ngrams(found, n)
    occurrences = _Occurrences.of(grams)
    total_W = np.concatenate([[0.0], np.cumsum(word_bits(found.hashes_W))])
    hashes, first = np.unique(grams.hashes_S, return_index=True)

    def bits(table: Table) -> F64:
        start = grams.starts_S[first[np.searchsorted(hashes, table.hashes_G)]]
        return (total_W[start + n] - total_W[start]) / n

    def worth_K(table: Table) -> F64:
        bits_J = np.repeat(bits(table), np.diff(table.offsets_G))
        return np.bincount(table.parts_J, bits_J, len(item_K)).astype(float)

    wanted_K = np.diff(found.offsets_D) >= np.maximum(least_words_K, n)
    everything = worth_K(occurrences.table(wanted_K, item_K, len(item_K)))
    rest = worth_K(occurrences.table(wanted_K, item_K, most_items))
    wanted_K &= rest >= np.maximum(PART_BITS, everything / 2)
    table = occurrences.table(wanted_K, item_K, most_items)
    return table, bits(table)
