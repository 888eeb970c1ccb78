"""Items told in other words: what word n-grams cannot see, found by rare words, names and numbers.

A rewrite keeps what the item is about. Zoey and Sydney, watermelon seeds, 40, 35, 10 and 12 feet
stay in every version of their problem; that they "are competing" and no longer "having a contest"
does not matter. So items and passages are bags of word stems, each weighted by how few items have
it, log(items / items with it), and compared by their cosine:

    item       Zoey and Sydney are having a watermelon seed spitting contest. ...
    passage    Zoey and Sydney compete in a watermelon seed spitting challenge. ...     0.76

A word that no item has weighs as much as one that a single item has, so a passage that says other
things as well is less similar. First the windows of a text that have enough of an item's rare
words are found (one sparse product for all items), then passages of about the item's length around
each are measured exactly.

What this cannot find: items of fewer than `min_words` words, since other questions of their kind
are as similar; rewrites with other names and other numbers, translations, and rewrites of a few
sentences spread over a long text. What it takes for a rewrite and is none: another problem about
the same people, things and numbers, as series of exercises have.

Shape letters: K parts, V words of the vocabulary, J (part, word) pairs, W words of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from data_pipeline import config
from data_pipeline.decontamination.benchmarks import BenchmarkItem, is_option, is_whole
from data_pipeline.storage.atomic import read_arrays, write_arrays
from data_pipeline.text.ngrams import I64, U64, stems

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

WINDOW, STRIDE = 96, 48  # words
CONTAINED = 0.3  # of a part's squared weights: what its rare words in a window must have
BEST_PARTS = 4  # of one window, that are measured exactly
LEAST_COMMON = 10  # stems: few rare words alone are as similar by chance
LENGTHS = (0.8, 1.0, 1.25)  # of passages, in lengths of the part
STEPS = 6  # of a passage's beginning, in one length of the part


class Rewrite(NamedTuple):
    """Words first .. first + length - 1 of text `document` are like a part."""

    document: int
    part: int
    similarity: float
    common: int  # different stems that both have
    first: int
    length: int


@dataclass(slots=True)
class ParaphraseIndex:
    """`parts[k]` is (benchmark, item id, part name); its words are `word_J[offsets_K[k]:...]`."""

    parts: list[tuple[str, str, str]]
    vocabulary_V: U64  # ascending
    weight_V: F32
    items_V: I64  # that have the word
    length_K: I64  # in words
    offsets_K: I64  # [K + 1]
    word_J: NDArray[np.int32]  # ascending for each part
    rarest: float = field(init=False)  # weight of a word that no item has
    norm_K: F64 = field(init=False)
    _squares: Any = field(init=False, repr=False)  # sparse [V, K]: share of the part's norm

    def __post_init__(self) -> None:
        self.rarest = float(self.weight_V.max(initial=0))
        squares_J = self.weight_V[self.word_J].astype(np.float64) ** 2
        sums = np.concatenate([[0.0], np.cumsum(squares_J)])
        total_K = sums[self.offsets_K[1:]] - sums[self.offsets_K[:-1]]
        self.norm_K = np.sqrt(total_K)
        part_J = np.repeat(np.arange(len(self.parts)), np.diff(self.offsets_K))
        self._squares = sparse.csr_array(
            ((squares_J / total_K[part_J]).astype(np.float32), (self.word_J, part_J)),
            shape=(len(self.vocabulary_V), len(self.parts)),
        )

    def without_frequent(self, most_items: int) -> Any:
        """`_squares` with the rows of words that more items have left empty."""
        rare = sparse.diags_array((self.items_V <= most_items).astype(np.float32))
        found = sparse.csr_array(rare @ self._squares)
        found.eliminate_zeros()
        return found

    def save(self, path: Path) -> None:
        """Writes an .npz file, the same bytes for the same index."""
        write_arrays(
            path,
            names=np.frombuffer(json.dumps(self.parts).encode(), np.uint8),
            vocabulary=self.vocabulary_V,
            weights=self.weight_V,
            items=self.items_V,
            lengths=self.length_K,
            offsets=self.offsets_K,
            words=self.word_J,
        )

    @classmethod
    def load(cls, path: Path) -> ParaphraseIndex:
        a = read_arrays(path)
        parts = [(benchmark, item, part) for benchmark, item, part in json.loads(bytes(a["names"]))]
        return cls(
            parts,
            a["vocabulary"],
            a["weights"],
            a["items"],
            a["lengths"],
            a["offsets"],
            a["words"],
        )


def build_index(items: Iterable[BenchmarkItem], knobs: config.ParaphraseRule) -> ParaphraseIndex:
    """Indexes the questions and whole items of at least `min_words` words.

    Items without the absolute-hits rule, which are whole documents, are left out: a passage is
    compared with something of its own length.

    Raises:
      ValueError: the settings make no sense.
    """
    check(knobs)
    texts: dict[tuple[str, str], tuple[str, str, str]] = {}
    for item in items:
        for name, text in _told(item).items() if item.absolute_hits else ():
            texts.setdefault((item.benchmark, text), (item.benchmark, item.id, name))
    found = stems([text for _, text in texts])
    length_K = np.diff(found.offsets_D)
    names = list(texts.values())
    item_of = {key: number for number, key in enumerate(dict.fromkeys(n[:2] for n in names))}
    vocabulary, word_W = np.unique(found.hashes_W, return_inverse=True)
    part_W = np.repeat(np.arange(len(names)), length_K)
    item_K = np.array([item_of[name[:2]] for name in names], np.int64)
    having = np.unique(np.stack([word_W, item_K[part_W]]), axis=1)[0]
    items_V = np.bincount(having, minlength=len(vocabulary))
    weight_V = np.log((1 + len(item_of)) / np.maximum(items_V, 1)).astype(np.float32)

    kept = np.flatnonzero(length_K >= knobs.min_words)
    pairs = np.unique(np.stack([part_W, word_W]), axis=1)
    pairs = pairs[:, np.isin(pairs[0], kept)]
    sizes = np.bincount(pairs[0], minlength=len(names))[kept]
    return ParaphraseIndex(
        [names[k] for k in kept],
        vocabulary,
        weight_V,
        items_V,
        length_K[kept],
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        pairs[1].astype(np.int32),
    )


def check(knobs: config.ParaphraseRule) -> None:
    """Raises ValueError for settings that make no sense."""
    if not 0 < knobs.similarity <= 1:
        raise ValueError(
            f"decontamination.rewrites.similarity: got {knobs.similarity}, expected a cosine above "
            f"0 and at most 1; to go without, rewrites.enabled = False"
        )
    if knobs.min_words < 1 or knobs.max_items_per_word < 1:
        raise ValueError(
            f"decontamination.rewrites: got min_words = {knobs.min_words} and max_items_per_word = "
            f"{knobs.max_items_per_word}; expected at least 1 of each"
        )


def _told(item: BenchmarkItem) -> dict[str, str]:
    """What is told in other words: the question, the whole item, the question with its answer."""
    question, *_ = item.parts
    told = {question: item.parts[question]}
    told |= {name: text for name, text in item.parts.items() if is_whole(name)}
    rest = {name: text for name, text in item.parts.items() if not is_option(name)}
    if len(told) == 1 and "answer" in rest:
        told["question_and_answer"] = f"{item.parts[question]}\n{rest['answer']}"
    return told


class Search:
    """Looks for rewrites in texts, many at once."""

    def __init__(self, index: ParaphraseIndex, knobs: config.ParaphraseRule) -> None:
        check(knobs)
        self.index, self.knobs = index, knobs
        self._pointers = index.without_frequent(knobs.max_items_per_word)

    def __call__(self, texts: Sequence[str]) -> Iterator[Rewrite]:
        """The most similar part of each text that has one as similar as asked for."""
        if not self.index.parts:
            return
        found = stems(texts)
        word_W = self._words(found.hashes_W)
        best: dict[int, Rewrite] = {}
        for d, begin, part in self._candidates(word_W, found.offsets_D):
            of = slice(found.offsets_D[d], found.offsets_D[d + 1])
            rewrite = self._measure(d, word_W[of], found.hashes_W[of], begin, part)
            if rewrite and (d not in best or rewrite.similarity > best[d].similarity):
                best[d] = rewrite
        yield from best.values()

    def _words(self, hashes_W: U64) -> I64:
        """The place of each word in the vocabulary, -1 where it has none."""
        vocabulary = self.index.vocabulary_V
        at = np.minimum(np.searchsorted(vocabulary, hashes_W), len(vocabulary) - 1)
        return np.where(vocabulary[at] == hashes_W, at, -1)

    def _candidates(self, word_W: I64, offsets_D: I64) -> Iterator[tuple[int, int, int]]:
        """(text, first word of a window in it, part): the window has enough of the part."""
        windows = [
            (d, begin)
            for d, size in enumerate(np.diff(offsets_D).tolist())
            for begin in range(0, max(size - WINDOW + STRIDE, 1), STRIDE)
        ]
        text = np.array([d for d, _ in windows], np.int64)
        first = offsets_D[text] + np.array([begin for _, begin in windows], np.int64)
        last = np.minimum(first + WINDOW, offsets_D[text + 1])
        sizes = last - first
        row = np.repeat(np.arange(len(windows)), sizes)
        within = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        word = word_W[np.repeat(first, sizes) + within]
        known = word >= 0
        has = sparse.csr_array(
            (np.ones(int(known.sum()), np.float32), (row[known], word[known])),
            shape=(len(windows), len(self.index.vocabulary_V)),
        )
        has.sum_duplicates()
        has.data[:] = 1
        contained = (has @ self._pointers).tocoo()
        enough = contained.data >= CONTAINED
        rows, parts, shares = contained.row[enough], contained.col[enough], contained.data[enough]
        order = np.lexsort((parts, -shares, rows))
        taken: dict[int, int] = {}
        for k in order.tolist():
            taken[int(rows[k])] = number = taken.get(int(rows[k]), 0) + 1
            if number <= BEST_PARTS:
                d, begin = windows[int(rows[k])]
                yield d, begin, int(parts[k])

    def _measure(self, d: int, word_W: I64, hashes_W: U64, begin: int, part: int) -> Rewrite | None:
        """The most similar passage around a window, where it is similar enough."""
        index, least = self.index, self.knobs.similarity
        length = int(index.length_K[part])
        wanted = index.word_J[index.offsets_K[part] : index.offsets_K[part + 1]]
        low, high = max(0, begin - length), min(len(word_W), begin + WINDOW + length)
        _, one, id_W = np.unique(hashes_W[low:high], return_index=True, return_inverse=True)
        word = word_W[low:high][one]
        squares = np.where(word >= 0, index.weight_V[word].astype(np.float64), index.rarest) ** 2
        is_common = np.isin(word, wanted)
        # A passage holds all these words at most, and nothing else: then the cosine is a root.
        if (squares * is_common).sum() < (least * index.norm_K[part]) ** 2:
            return None
        best: Rewrite | None = None
        for times in LENGTHS:
            size = min(max(1, int(times * length)), high - low)
            first = np.append(
                np.arange(0, high - low - size, max(1, length // STEPS)), high - low - size
            )
            ids = np.sort(id_W[first[:, None] + np.arange(size)], axis=1)
            distinct = np.ones(ids.shape, bool)
            distinct[:, 1:] = ids[:, 1:] != ids[:, :-1]
            weights = np.where(distinct, squares[ids], 0.0)
            common = np.where(is_common[ids], weights, 0.0).sum(axis=1)
            cosine = common / (index.norm_K[part] * np.sqrt(weights.sum(axis=1)))
            number_of = (is_common[ids] & distinct).sum(axis=1)
            cosine[number_of < LEAST_COMMON] = 0
            k = int(np.argmax(cosine))
            number = int(number_of[k])
            if cosine[k] >= least and (best is None or cosine[k] > best.similarity):
                at = low + int(first[k])
                best = Rewrite(d, part, float(cosine[k]), number, at, size)
        return best
