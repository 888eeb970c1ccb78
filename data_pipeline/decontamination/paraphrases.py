"""Detection of paraphrased items by rare words, names and numbers, which n-grams cannot find.

A paraphrase keeps what the item is about. Zoey and Sydney, watermelon seeds, 40, 35, 10 and 12 feet
occur in every version of their problem; "are competing" instead of "having a contest" does not
matter. So items and passages are compared as bags of word stems by their cosine. The weight of a
stem is its inverse document frequency, log(items / items with it):

    item       Zoey and Sydney are having a watermelon seed spitting contest. ...
    passage    Zoey and Sydney compete in a watermelon seed spitting challenge. ...     0.76

A word that no item has weighs as much as a word of a single item, so additional text makes a
passage less similar. The search has two steps. First, one sparse product for all items finds the
windows of a text that have enough of an item's rare words. Then passages of about the item's
length around each window are compared exactly.

False negatives: items of fewer than `min_words` words, since other questions of their kind are as
similar; paraphrases with other names and numbers; translations; and paraphrases of a few sentences
spread over a long text. False positives: other problems about the same people, things and numbers,
as in series of exercises.

Shape letters: K parts, V words of the vocabulary, J (part, word) pairs, D texts, W words of a
batch, N windows of a batch, U distinct words of a neighborhood, A passages, L words of a passage.
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

from data_pipeline.config import ParaphraseRule
from data_pipeline.decontamination.benchmarks import BenchmarkItem, is_option, is_whole
from data_pipeline.decontamination.word_information import F64
from data_pipeline.storage.atomic import read_arrays, write_arrays
from data_pipeline.text.ngrams import I64, U64, stems

F32 = NDArray[np.float32]

WINDOW, STRIDE = 96, 48  # words
MIN_CONTAINED = 0.3  # share of a part's squared weights that its rare words in a window must have
PARTS_PER_WINDOW = 4  # at most this many parts are compared exactly
MIN_COMMON = 10  # stems: a few rare words alone are as similar by chance
RELATIVE_LENGTHS = (0.8, 1.0, 1.25)  # of passages, in lengths of the part
STEPS_PER_LENGTH = 6  # beginnings of passages in one length of the part


class ParaphraseMatch(NamedTuple):
    """A passage that is similar to a part: words first .. first + length - 1 of text `document`."""

    document: int
    part: int
    similarity: float
    num_common: int  # different stems that both have
    first: int
    length: int


@dataclass(slots=True)
class ParaphraseIndex:
    """The stems of the parts of all items, with their weights.

    `parts[k]` is (benchmark, item id, part name). Its stems are
    `word_J[offsets_K[k]:offsets_K[k + 1]]`.
    """

    parts: list[tuple[str, str, str]]
    vocabulary_V: U64  # hashes of stems, ascending
    weight_V: F32  # inverse document frequencies
    items_V: I64  # number of items that have the stem
    length_K: I64  # in words
    offsets_K: I64  # [K + 1]
    word_J: NDArray[np.int32]  # rows of the vocabulary, ascending for each part
    max_weight: float = field(init=False)  # the weight of a word that no item has
    norm_K: F64 = field(init=False)  # of the part's vector of weights
    _squared_share_VK: Any = field(init=False, repr=False)  # sparse: w_v^2 / norm_k^2

    def __post_init__(self) -> None:
        """Computes the norms and the matrix of squared shares."""
        self.max_weight = float(self.weight_V.max(initial=0))
        squares_J = self.weight_V[self.word_J].astype(np.float64) ** 2
        # norm_k^2 is the sum over a run of pairs: a difference of two cumulative sums.
        sums = np.concatenate([[0.0], np.cumsum(squares_J)])
        squared_norm_K = sums[self.offsets_K[1:]] - sums[self.offsets_K[:-1]]
        self.norm_K = np.sqrt(squared_norm_K)
        part_J = np.repeat(np.arange(len(self.parts)), np.diff(self.offsets_K))
        self._squared_share_VK = sparse.csr_array(
            ((squares_J / squared_norm_K[part_J]).astype(np.float32), (self.word_J, part_J)),
            shape=(len(self.vocabulary_V), len(self.parts)),
        )

    def rare_squared_shares(self, max_items: int) -> Any:
        """Returns the squared shares, sparse [V, K], of the words of at most `max_items` items.

        The rows of more frequent words are empty.
        """
        is_rare = sparse.diags_array((self.items_V <= max_items).astype(np.float32))
        rare = sparse.csr_array(is_rare @ self._squared_share_VK)
        rare.eliminate_zeros()
        return rare

    def save(self, path: Path) -> str:
        """Writes an .npz file and returns its sha256; the same index gives the same bytes."""
        return write_arrays(
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
        """Returns the index that `save` has written."""
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


def build_index(items: Iterable[BenchmarkItem], config: ParaphraseRule) -> ParaphraseIndex:
    """Returns the index of the questions and whole items of at least `min_words` words.

    Items without the absolute-hits rule are whole documents. They are left out, because a passage
    is compared with a text of its own length.
    """
    part_of_text: dict[tuple[str, str], tuple[str, str, str]] = {}
    for item in items:
        if item.absolute_hits:
            for name, text in _compared_texts(item).items():
                part_of_text.setdefault((item.benchmark, text), (item.benchmark, item.id, name))
    part_words = stems([text for _, text in part_of_text])
    parts = list(part_of_text.values())
    item_number = {item: k for k, item in enumerate(dict.fromkeys(part[:2] for part in parts))}
    item_K = np.array([item_number[part[:2]] for part in parts], np.int64)
    vocabulary_V, word_W = np.unique(part_words.hashes_W, return_inverse=True)
    length_K = np.diff(part_words.offsets_D)
    part_W = np.repeat(np.arange(len(parts)), length_K)
    # Document frequency: a word counts once for an item, in however many parts it occurs.
    distinct = np.unique(np.stack([word_W, item_K[part_W]]), axis=1)
    items_V = np.bincount(distinct[0], minlength=len(vocabulary_V))
    weight_V = np.log((1 + len(item_number)) / np.maximum(items_V, 1)).astype(np.float32)

    # Frequencies count all parts; only those that are long enough are searched for.
    kept = np.flatnonzero(length_K >= config.min_words)
    pairs = np.unique(np.stack([part_W, word_W]), axis=1)  # by part, then by word
    pairs = pairs[:, np.isin(pairs[0], kept)]
    sizes = np.bincount(pairs[0], minlength=len(parts))[kept]
    return ParaphraseIndex(
        [parts[k] for k in kept],
        vocabulary_V,
        weight_V,
        items_V,
        length_K[kept],
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        pairs[1].astype(np.int32),
    )


def _compared_texts(item: BenchmarkItem) -> dict[str, str]:
    """Returns the texts of an item that are searched for: name -> text.

    They are the question, the whole item, and the question with its answer.
    """
    question, *_ = item.parts
    texts = {question: item.parts[question]}
    texts |= {name: text for name, text in item.parts.items() if is_whole(name)}
    rest = {name: text for name, text in item.parts.items() if not is_option(name)}
    if len(texts) == 1 and "answer" in rest:
        texts["question_and_answer"] = f"{item.parts[question]}\n{rest['answer']}"
    return texts


class ParaphraseSearch:
    """A search for paraphrased items in many texts at once."""

    def __init__(self, index: ParaphraseIndex, config: ParaphraseRule) -> None:
        """Prepares the search."""
        self.index, self.config = index, config
        self._rare_squared_share_VK = index.rare_squared_shares(config.max_items_per_word)

    def __call__(self, texts: Sequence[str]) -> Iterator[ParaphraseMatch]:
        """Yields the most similar part of each text that has one of at least `similarity`."""
        if not self.index.parts:
            return
        text_words = stems(texts)
        word_W = self._vocabulary_rows(text_words.hashes_W)
        best: dict[int, ParaphraseMatch] = {}
        for d, begin, part in self._candidates(word_W, text_words.offsets_D):
            of = slice(text_words.offsets_D[d], text_words.offsets_D[d + 1])
            match = self._best_passage(d, word_W[of], text_words.hashes_W[of], begin, part)
            if match and (d not in best or match.similarity > best[d].similarity):
                best[d] = match
        yield from best.values()

    def _vocabulary_rows(self, hashes_W: U64) -> I64:
        """Returns the row of each word in the vocabulary; -1 if it is not in it."""
        vocabulary = self.index.vocabulary_V
        at = np.minimum(np.searchsorted(vocabulary, hashes_W), len(vocabulary) - 1)
        return np.where(vocabulary[at] == hashes_W, at, -1)

    def _candidates(self, word_W: I64, offsets_D: I64) -> Iterator[tuple[int, int, int]]:
        """Yields (text, first word of a window in it, part) of windows with enough of a part.

        Enough is MIN_CONTAINED of the part's squared norm, in rare words. At most
        PARTS_PER_WINDOW parts of each window are yielded, the best contained first.
        """
        windows = [
            (d, begin)
            for d, size in enumerate(np.diff(offsets_D).tolist())
            for begin in range(0, max(size - WINDOW + STRIDE, 1), STRIDE)
        ]
        has_word_NV = self._words_of_windows(windows, word_W, offsets_D)
        # sum over the words v of a window of w_v^2 / norm_k^2, for all windows and parts
        contained_NK = (has_word_NV @ self._rare_squared_share_VK).tocoo()
        enough = contained_NK.data >= MIN_CONTAINED
        row, part = contained_NK.row[enough], contained_NK.col[enough]
        order = np.lexsort((part, -contained_NK.data[enough], row))
        num_yielded: dict[int, int] = {}
        for k in order.tolist():
            window = int(row[k])
            num_yielded[window] = num_yielded.get(window, 0) + 1
            if num_yielded[window] <= PARTS_PER_WINDOW:
                d, begin = windows[window]
                yield d, begin, int(part[k])

    def _words_of_windows(
        self, windows: Sequence[tuple[int, int]], word_W: I64, offsets_D: I64
    ) -> Any:
        """Returns sparse [N, V]: 1 for each word of the vocabulary that a window has.

        Args:
          windows: (text, first word in it) of each window.
          word_W: the words of all texts as rows of the vocabulary.
          offsets_D: where the words of each text begin.
        """
        text_N = np.array([d for d, _ in windows], np.int64)
        first_N = offsets_D[text_N] + np.array([begin for _, begin in windows], np.int64)
        last_N = np.minimum(first_N + WINDOW, offsets_D[text_N + 1])
        sizes_N = last_N - first_N
        # One entry per (window, word in it); windows overlap, so a word has several.
        window = np.repeat(np.arange(len(windows)), sizes_N)
        within = np.arange(len(window)) - np.repeat(np.cumsum(sizes_N) - sizes_N, sizes_N)
        word = word_W[np.repeat(first_N, sizes_N) + within]
        known = word >= 0
        has_word_NV = sparse.csr_array(
            (np.ones(int(known.sum()), np.float32), (window[known], word[known])),
            shape=(len(windows), len(self.index.vocabulary_V)),
        )
        # A bag of distinct words: repeats count once.
        has_word_NV.sum_duplicates()
        has_word_NV.data[:] = 1
        return has_word_NV

    def _best_passage(
        self, d: int, word_W: I64, hashes_W: U64, begin: int, part: int
    ) -> ParaphraseMatch | None:
        """Returns the passage around a window that is most similar to a part.

        With A the distinct stems of a passage and B those of the part, the cosine is
        sum over A and B of w^2 / (|A| |B|), where |A| is the root of the sum of w^2 over A.

        Args:
          d: the text.
          word_W: its words as rows of the vocabulary; -1 for words that no item has.
          hashes_W: its words.
          begin: the first word of the window in the text.
          part: the part.

        Returns:
          The match; None if no passage has `similarity` and MIN_COMMON words of the part.
        """
        index, min_similarity = self.index, self.config.similarity
        length = int(index.length_K[part])
        part_words = index.word_J[index.offsets_K[part] : index.offsets_K[part + 1]]
        # The neighborhood of the window: a passage may begin one length of the part before it.
        low, high = max(0, begin - length), min(len(word_W), begin + WINDOW + length)
        # id_W numbers the distinct words of the neighborhood; arrays [U] are indexed by it.
        _, one_of_each, id_W = np.unique(hashes_W[low:high], return_index=True, return_inverse=True)
        word_U = word_W[low:high][one_of_each]
        weight_U = np.where(
            word_U >= 0, index.weight_V[word_U].astype(np.float64), index.max_weight
        )
        square_U = weight_U**2
        is_common_U = np.isin(word_U, part_words)
        # The best passage conceivable has all common words and no others. Its cosine is
        # sqrt(sum of their squares) / norm, which bounds that of every passage.
        if (square_U * is_common_U).sum() < (min_similarity * index.norm_K[part]) ** 2:
            return None
        best: ParaphraseMatch | None = None
        for relative_length in RELATIVE_LENGTHS:
            size = min(max(1, int(relative_length * length)), high - low)
            last_first = high - low - size
            first_A = np.append(
                np.arange(0, last_first, max(1, length // STEPS_PER_LENGTH)), last_first
            )
            # All passages of this size at once; sorted, so that repeats are neighbors.
            id_AL = np.sort(id_W[first_A[:, None] + np.arange(size)], axis=1)
            is_first_AL = np.ones(id_AL.shape, bool)
            is_first_AL[:, 1:] = id_AL[:, 1:] != id_AL[:, :-1]
            square_AL = np.where(is_first_AL, square_U[id_AL], 0.0)
            common_A = np.where(is_common_U[id_AL], square_AL, 0.0).sum(axis=1)
            cosine_A = common_A / (index.norm_K[part] * np.sqrt(square_AL.sum(axis=1)))
            num_common_A = (is_common_U[id_AL] & is_first_AL).sum(axis=1)
            cosine_A[num_common_A < MIN_COMMON] = 0
            k = int(np.argmax(cosine_A))
            if cosine_A[k] >= min_similarity and (best is None or cosine_A[k] > best.similarity):
                first = low + int(first_A[k])
                similarity, num_common = float(cosine_A[k]), int(num_common_A[k])
                best = ParaphraseMatch(d, part, similarity, num_common, first, size)
        return best
