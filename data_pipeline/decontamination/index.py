"""What the rules look up: the n-grams of all items, and what each of their words is worth.

Built once for each n, saved as one .npz file, loaded by every worker. Three kinds of tables:

- `grams`: the n-grams of all parts of n words and more, for the sample-share and absolute-hits
  rules;
- `seeds`: the short n-grams (5 words) of all parts worth looking for alone, for the item-share
  rule, unless they consist of phrases that many items have;
- `short`: what finds short parts in short documents (short_items.py).

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
from data_pipeline.decontamination.benchmarks import OWN, BenchmarkItem, is_option, is_whole
from data_pipeline.decontamination.lookup import NgramTable, few_items
from data_pipeline.decontamination.surprise import F64, word_bits
from data_pipeline.storage.atomic import read_arrays, write_arrays
from data_pipeline.text.ngrams import I64, U64, Ngrams, Words, ngrams, words

# What a part must have to be looked for alone, in words and in bits of its seeds. Less of it occurs
# in texts that have nothing to do with the item: a complete question hardly ever, a fragment more
# often ("The Federal Open Market Committee", "The Voting Rights Act of 1965" are questions of
# MMLU), an option to choose from all the time. It is still found together with the answer.
QUESTION_WORDS = 5
PART_WORDS = 7
OPTION_WORDS = 13
PART_BITS = 9.5


@dataclass(slots=True)
class Index:
    """`parts[k]` is (benchmark, item id, part name); `same[k]` further items of the same benchmark
    that have this very text.

    `unindexed` counts the items that are found only where they are a whole document.
    """

    n: int
    seed_n: int
    parts: list[tuple[str, str, str]]
    same: dict[int, list[str]]
    unindexed: dict[str, int]
    absolute_K: NDArray[np.bool_]  # whether the absolute-hits rule applies
    words: Words  # of the parts
    grams: NgramTable
    seeds: NgramTable
    bits_G: F64  # what each seed is worth: the mean surprise of its words
    short: short_items.ShortItems
    strict_K: NDArray[np.bool_] = field(init=False)  # an option: found where nearly all of it is
    evidence_K: F64 = field(init=False)  # what all seeds of a part are worth

    def __post_init__(self) -> None:
        self.strict_K = np.array([is_option(name) for _, _, name in self.parts], bool)
        bits_J = np.repeat(self.bits_G, np.diff(self.seeds.offsets_G))
        self.evidence_K = np.bincount(self.seeds.parts_J, bits_J, len(self.parts)).astype(float)

    def words_of(self, part: int) -> U64:
        return self.words.hashes_W[self.words.offsets_D[part] : self.words.offsets_D[part + 1]]

    def distinctive(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has a run of words by which it is found inside another text."""
        found = words(texts)
        own = np.zeros(len(texts), bool)
        for table, n in ((self.grams, self.n), (self.seeds, self.seed_n)):
            grams = ngrams(found, n)
            own[np.searchsorted(grams.offsets_D, table.find(grams.hashes_S)[0], "right") - 1] = True
        return [bool(value) for value in own]

    def save(self, path: Path) -> None:
        """Writes an .npz file, the same bytes for the same index."""
        same = list(self.same.items())
        columns = list(zip(*self.parts, strict=True))  # read in a third of the time that rows take
        names = json.dumps([self.n, self.seed_n, columns, same, self.unindexed]).encode()
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
            whole=self.short.whole.hashes_G,
            whole_offsets=self.short.whole.offsets_G,
            whole_parts=self.short.whole.parts_J,
            gapped=self.short.seeds.hashes_G,
            gapped_offsets=self.short.seeds.offsets_G,
            gapped_parts=self.short.seeds.parts_J,
            gapped_places=self.short.offset_J,
        )

    @classmethod
    def load(cls, path: Path) -> Index:
        """Raises ValueError for an index that another version has written."""
        a = read_arrays(path)
        names = json.loads(a["names"].tobytes())
        if len(names) != 5:
            raise ValueError(f"{path}: an index of another version; curate the data again")
        n, seed_n, columns, same, unindexed = names
        return cls(
            n,
            seed_n,
            list(zip(*columns, strict=True)),
            dict(same),
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
) -> Index:
    """Indexes the parts of all items; a text that a benchmark has several times counts once.

    Args:
      items: in any order; their order is that of the evidence.
      n: words of the n-grams of the sample-share and absolute-hits rules.
      templates: n -> hashes, ascending, of n-grams that many documents have. They are no evidence
        of held-out documents and of the items made from them: other pages made from the same
        template hold no text of theirs.

    Raises:
      ValueError: n or a threshold makes no sense.
    """
    check(n, config)
    texts: list[str] = []
    parts: list[tuple[str, str, str]] = []
    absolute: list[bool] = []
    first: dict[tuple[str, str], int] = {}
    same: dict[int, list[str]] = {}
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
            elif parts[first[key]][1] != item.id:
                same.setdefault(first[key], []).append(item.id)
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
    own_K = np.array([benchmark in OWN for benchmark, _, _ in parts], bool)
    own = _Own(own_K, templates or {})
    grams = _Occurrences.of(ngrams(found, n), n, own).table(num_words_K >= n, item_K, most)
    seeds = _seeds(found, least_words_K, item_K, config, own)
    short = _short(found, [name for _, _, name in parts], item_K, config)
    unindexed: Counter[str] = Counter()
    indexed_K = np.zeros(len(parts), bool)
    for table in (grams, seeds[0], short.seeds):
        indexed_K[table.parts_J] = True
    for (benchmark, _), mine in parts_of_item.items():
        unindexed[benchmark] += not indexed_K[mine].any()
    return Index(
        n,
        seed_n,
        parts,
        same,
        {name: count for name, count in sorted(unindexed.items()) if count},
        np.array(absolute, bool),
        found,
        grams,
        *seeds,
        short,
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
class _Own:
    """Tells what a held-out text has for itself from the template that it shares with others."""

    own_K: NDArray[np.bool_]  # whether a part is of this run's own text, and not of a benchmark
    templates: Mapping[int, U64]

    def __call__(self, hashes_J: U64, part_J: I64, n: int) -> NDArray[np.bool_]:
        if n not in self.templates:
            return np.ones(len(part_J), bool)
        return np.asarray(~self.own_K[part_J] | ~np.isin(hashes_J, self.templates[n]))


@dataclass(slots=True)
class _Occurrences:
    """All (n-gram, part) pairs, by n-gram, then by part."""

    hashes_J: U64
    part_J: I64

    @classmethod
    def of(cls, grams: Ngrams, n: int, own: _Own) -> _Occurrences:
        part_J = np.repeat(np.arange(len(grams.offsets_D) - 1), np.diff(grams.offsets_D))
        order = np.argsort(grams.hashes_S, kind="stable")
        hashes_J, part_J = grams.hashes_S[order], part_J[order]
        distinct = np.ones(len(part_J), bool)
        distinct[1:] = (hashes_J[1:] != hashes_J[:-1]) | (part_J[1:] != part_J[:-1])
        distinct &= own(hashes_J, part_J, n)
        return cls(hashes_J[distinct], part_J[distinct])

    def table(self, wanted_K: NDArray[np.bool_], item_K: I64, most_items: int) -> NgramTable:
        """The n-grams of the wanted parts that at most so many items have."""
        wanted_J = wanted_K[self.part_J]
        hashes, part = self.hashes_J[wanted_J], self.part_J[wanted_J]
        kept = few_items(hashes, part, item_K, most_items)
        return NgramTable.of(hashes[kept], part[kept])


def _least_words(part: str, text: str) -> int:
    if is_option(part):
        return OPTION_WORDS
    return QUESTION_WORDS if text.rstrip().endswith("?") else PART_WORDS


def _seeds(
    found: Words, least_words_K: I64, item_K: I64, config: Decontamination, own: _Own
) -> tuple[NgramTable, F64]:
    """The table of seeds, and the bits of each."""
    n, most_items = config.item_ngram_words, config.max_items_per_ngram
    grams = ngrams(found, n)
    occurrences = _Occurrences.of(grams, n, own)
    total_W = np.concatenate([[0.0], np.cumsum(word_bits(found.hashes_W))])
    hashes, first = np.unique(grams.hashes_S, return_index=True)

    def bits(table: NgramTable) -> F64:
        start = grams.starts_S[first[np.searchsorted(hashes, table.hashes_G)]]
        return (total_W[start + n] - total_W[start]) / n

    def worth_K(table: NgramTable) -> F64:
        bits_J = np.repeat(bits(table), np.diff(table.offsets_G))
        return np.bincount(table.parts_J, bits_J, len(item_K)).astype(float)

    wanted_K = np.diff(found.offsets_D) >= np.maximum(least_words_K, n)
    everything = worth_K(occurrences.table(wanted_K, item_K, len(item_K)))
    rest = worth_K(occurrences.table(wanted_K, item_K, most_items))
    # What a part has for itself, between phrases, is half of it or twice what evidence takes.
    wanted_K &= rest >= np.maximum(PART_BITS, np.minimum(everything / 2, 2 * config.item_bits))
    table = occurrences.table(wanted_K, item_K, most_items)
    return table, bits(table)


def _short(
    found: Words, names: list[str], item_K: I64, config: Decontamination
) -> short_items.ShortItems:
    """Options are no items; a question alone has to be longer than one with its answer."""
    num_words_K = np.diff(found.offsets_D)
    part_K = np.array([not is_option(name) for name in names], bool)
    item_part_K = np.array([is_whole(name) for name in names], bool)
    aligned_K = item_part_K | (part_K & (num_words_K >= short_items.QUESTION_WORDS))
    if not config.item_share:
        part_K, aligned_K = np.zeros_like(part_K), np.zeros_like(part_K)
    return short_items.build(found, part_K, aligned_K, item_K, config.max_items_per_ngram)
