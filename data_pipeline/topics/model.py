"""Topics: what documents are about, found from their words alone.

A sample of documents becomes TF-IDF vectors over its terms, a truncated SVD brings them to some
hundred dimensions (latent semantic analysis, Deerwester et al. 1990), and spherical k-means
(Dhillon and Modha 2001, from k-means++ starts) finds the clusters. A document's topic is the
centroid with the largest cosine: a pure function of the fitted model and the text. Vectors of an
embedding endpoint can stand in for TF-IDF and SVD.

Words are those of ngrams.py, told apart by their hashes, so that finding the topic of a text costs
no Python for each word. Of a long text three windows are read.

The same sample gives the same model: float64, one thread, ties by index; what is stored is float32,
and assignment starts from what is stored. Cosines are rounded to nine digits before they are
compared, so that the last bits of a product, in which processors differ, choose no topic.

Shape letters: D documents, V terms, K topics, E dimensions.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.config import Topics
from data_pipeline.storage.atomic import read_arrays, write_arrays
from data_pipeline.text.ngrams import I64, U64, words
from data_pipeline.text.word_lists import STOP_WORDS
from data_pipeline.topics.clusters import (
    DIGITS,
    F64,
    NO_CLUSTER,
    Sparse,
    leading_axes,
    nearest,
    spherical_k_means,
    unit,
)

Embed = Callable[[Sequence[str]], F64]  # texts -> [D, E]

NO_TOPIC = NO_CLUSTER  # of a text without a single known term
NAMED_TERMS = 8  # that a topic is named by
_WINDOWS = 3
_WORD = re.compile(r"[^\W_]+")
_MIN_LETTERS = 3  # of a term
_MIN_DOCUMENTS, _MAX_SHARE = 2, 0.4  # a term is in so many documents, and in no more of them
_TEXTS_AT_A_TIME = 256


@dataclass(slots=True)
class TopicModel:
    """What assigns topics; the first three are empty where an endpoint gives the vectors."""

    terms_V: U64  # hashes of the terms, ascending
    idf_V: F64
    projection_VE: F64
    centroids_KE: F64  # unit vectors

    def save(self, path: Path) -> None:
        """Writes an .npz file, the same bytes for the same model; numbers as float32."""
        write_arrays(
            path,
            terms=self.terms_V,
            idf=self.idf_V.astype(np.float32),
            projection=self.projection_VE.astype(np.float32),
            centroids=self.centroids_KE.astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> TopicModel:
        arrays = read_arrays(path)
        return cls(
            arrays["terms"],
            *(arrays[name].astype(np.float64) for name in ("idf", "projection", "centroids")),
        )


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic by its most telling terms, and the sample's document nearest to its centroid."""

    number: int
    terms: tuple[str, ...]
    documents: int  # of the sample
    example: int  # row of the sample

    @property
    def name(self) -> str:
        return ", ".join(self.terms[:3]) or f"topic {self.number}"


# ---- texts to vectors


def window(text: str, most: int) -> str:
    """At most `most` characters: all, or the beginning, the middle and the end.

    >>> window("abcdefghijkl", 6)
    'ab\\nfg\\nkl'
    """
    if len(text) <= most:
        return text
    size = most // _WINDOWS
    step = (len(text) - size) // (_WINDOWS - 1)
    return "\n".join(
        text[k * step : k * step + size] if k < _WINDOWS - 1 else text[-size:]
        for k in range(_WINDOWS)
    )


def vocabulary(texts: Sequence[str]) -> dict[int, str]:
    """Hash -> term: the words of the texts that can say what something is about."""
    found: set[str] = set()
    for text in texts:
        found.update(_WORD.findall(unicodedata.normalize("NFKC", text).lower()))
    terms = sorted(
        w for w in found if len(w) >= _MIN_LETTERS and w.isalpha() and w not in STOP_WORDS
    )
    hashed = words(terms)
    single = np.flatnonzero(np.diff(hashed.offsets_D) == 1)
    hashes = hashed.hashes_W[hashed.offsets_D[single]]
    return {h: terms[row] for h, row in zip(hashes.tolist(), single.tolist(), strict=True)}


def count(texts: Sequence[str], terms_V: U64) -> Sparse:
    """[D, V]: how often each text has each term."""
    from scipy import sparse

    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first in range(0, len(texts), _TEXTS_AT_A_TIME):
        found = words(texts[first : first + _TEXTS_AT_A_TIME])
        at_W = np.searchsorted(terms_V, found.hashes_W)
        at_W[at_W == len(terms_V)] = 0
        known_W = np.flatnonzero(terms_V[at_W] == found.hashes_W) if len(terms_V) else at_W[:0]
        text_W = np.repeat(np.arange(len(found.offsets_D) - 1), np.diff(found.offsets_D)) + first
        rows.append(text_W[known_W])
        columns.append(at_W[known_W])
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = (len(texts), len(terms_V))
    counts = sparse.coo_array((np.ones(len(row)), (row, column)), shape=shape).tocsr()
    counts.sum_duplicates()  # sorts the indices too: one order of summation
    return counts


def weigh(counts_DV: Sparse, idf_V: F64) -> Sparse:
    """[D, V]: TF-IDF as unit vectors, each count c as 1 + ln c; a row without terms stays zero."""
    weighed = counts_DV.copy()
    weighed.data = (1 + np.log(weighed.data)) * idf_V[weighed.indices]
    length_D = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
    weighed.data /= np.repeat(np.maximum(length_D, 1e-300), np.diff(weighed.indptr))
    return weighed


# ---- fitting


def fit(
    texts: Sequence[str], config: Topics, embed: Embed | None = None
) -> tuple[TopicModel, list[Topic]]:
    """Topics of a sample of texts, in the order of their sizes, the largest first.

    There are `config.count` topics, or by rule sqrt(D / 2), and never more than different texts.
    Given `embed`, its vectors are clustered; terms still give the names.
    """
    from threadpoolctl import threadpool_limits

    texts = [window(text, config.max_characters) for text in texts]
    names = vocabulary(texts)
    with threadpool_limits(1):
        terms_V, counts_DV = _telling_terms(texts, names, config.max_terms)
        model, vectors_DE = (
            _latent(terms_V, counts_DV, config)
            if embed is None
            else (_no_terms(), unit(np.asarray(embed(texts), np.float64)))
        )
        some = np.flatnonzero(vectors_DE.any(axis=1))
        different = len(np.unique(np.round(vectors_DE[some], DIGITS), axis=0))
        wanted = config.count or min(config.most_topics, round((len(some) / 2) ** 0.5))
        centroids_KE = spherical_k_means(
            vectors_DE[some],
            max(min(wanted, different), min(1, different)),
            restarts=config.restarts,
            seed=config.seed,
        )
        topic_D, score_D = nearest(vectors_DE, centroids_KE)
        order = np.argsort(-np.bincount(topic_D[some], minlength=len(centroids_KE)), kind="stable")
        model.centroids_KE = centroids_KE[order]
        rank = np.argsort(order, kind="stable")
        topic_D = np.where(topic_D == NO_TOPIC, NO_TOPIC, rank[topic_D] if len(rank) else topic_D)
        labels = _labels(counts_DV, topic_D, len(order), [names[int(h)] for h in terms_V])
    return model, _topics(topic_D, score_D, labels)


def _telling_terms(texts: Sequence[str], names: dict[int, str], most: int) -> tuple[U64, Sparse]:
    """The terms of several texts but not of most, the most frequent ones; and their counts."""
    all_V = np.array(sorted(names), np.uint64)
    counts_DV = count(texts, all_V)
    texts_V = np.bincount(counts_DV.indices, minlength=len(all_V))
    at_most = max(_MIN_DOCUMENTS, _MAX_SHARE * len(texts))
    kept = np.flatnonzero((texts_V >= _MIN_DOCUMENTS) & (texts_V <= at_most))
    if not len(kept):  # a handful of texts that share nothing
        kept = np.arange(len(all_V))
    kept = np.sort(kept[np.argsort(-texts_V[kept], kind="stable")][:most])
    return all_V[kept], counts_DV[:, kept]


def _latent(terms_V: U64, counts_DV: Sparse, config: Topics) -> tuple[TopicModel, F64]:
    """The model without its centroids, and the sample's vectors as the stored model gives them."""
    texts_V = np.bincount(counts_DV.indices, minlength=len(terms_V))
    idf_V = np.log((1 + counts_DV.shape[0]) / (1 + texts_V)) + 1
    weighed_DV = weigh(counts_DV, idf_V)
    dimensions = min(config.dimensions, *weighed_DV.shape)
    projection_VE = leading_axes(weighed_DV, dimensions, config.seed)
    model = TopicModel(
        terms_V,
        idf_V.astype(np.float32).astype(np.float64),
        projection_VE.astype(np.float32).astype(np.float64),
        np.empty((0, dimensions)),
    )
    return model, unit(weigh(counts_DV, model.idf_V) @ model.projection_VE)


def _no_terms() -> TopicModel:
    return TopicModel(np.empty(0, np.uint64), np.empty(0), np.empty((0, 0)), np.empty((0, 0)))


def _labels(
    counts_DV: Sparse, topic_D: I64, topics: int, terms: list[str]
) -> list[tuple[str, ...]]:
    """The terms that tell each topic from the rest: class-based TF-IDF (arXiv 2203.05794, eq. 2).

    The weight of a term in a class is f(term, class) * ln(1 + A / f(term)): f counts documents
    that have the term, in the class and in all, and A is the mean of f(term, class) summed over
    the terms of a class.
    """
    from scipy import sparse

    rows = np.flatnonzero(topic_D != NO_TOPIC)
    member_KD = sparse.csr_array(
        (np.ones(len(rows)), (topic_D[rows], rows)), (topics, len(topic_D))
    )
    present_DV = counts_DV.copy()
    present_DV.data = np.ones_like(present_DV.data)
    in_class_KV = (member_KD @ present_DV).tocsr()
    in_all_V = np.asarray(in_class_KV.sum(axis=0)).ravel()
    rarity_V = np.log1p(in_all_V.sum() / max(1, topics) / np.maximum(in_all_V, 1))
    labels = []
    for k in range(topics):
        row = in_class_KV[[k]]
        weight = np.round(row.data * rarity_V[row.indices], DIGITS)
        order = sorted(range(len(weight)), key=lambda i: (-weight[i], terms[row.indices[i]]))
        labels.append(tuple(terms[row.indices[i]] for i in order[:NAMED_TERMS]))
    return labels


def _topics(topic_D: I64, score_D: F64, labels: list[tuple[str, ...]]) -> list[Topic]:
    found = []
    for k, terms in enumerate(labels):
        rows = np.flatnonzero(topic_D == k)
        example = int(rows[score_D[rows].argmax()]) if len(rows) else -1
        found.append(Topic(k, terms, len(rows), example))
    return found


# ---- assignment and figures


def build(
    model: TopicModel, config: Topics, embed: Embed | None = None
) -> Callable[[Sequence[str]], list[tuple[int, float]]]:
    """A pure function from texts to (topic, cosine to four digits) of each."""
    from threadpoolctl import threadpool_limits

    def assign(texts: Sequence[str]) -> list[tuple[int, float]]:
        texts = [window(text, config.max_characters) for text in texts]
        with threadpool_limits(1):
            vectors_DE = (
                weigh(count(texts, model.terms_V), model.idf_V) @ model.projection_VE
                if embed is None
                else np.asarray(embed(texts), np.float64)
            )
            topic_D, score_D = nearest(unit(vectors_DE), model.centroids_KE)
        return [(t, round(s, 4)) for t, s in zip(topic_D.tolist(), score_D.tolist(), strict=True)]

    return assign


@dataclass(frozen=True, slots=True)
class Diversity:
    """How evenly documents spread over topics.

    `entropy`: H = -sum p ln p in nats. `effective`: exp(H), the number of equally large topics
    that would be as diverse. `coverage`: the share of all topics with enough documents.
    """

    documents: int
    entropy: float
    effective: float
    coverage: float


def diversity(sizes_K: Sequence[int], least: int = 1) -> Diversity:
    """
    >>> even = diversity([5, 5, 0, 0])
    >>> even.documents, round(even.effective, 6), even.coverage
    (10, 2.0, 0.5)
    """
    sizes = np.asarray(sizes_K, np.float64)
    total = sizes.sum()
    share = sizes[sizes > 0] / max(total, 1)
    entropy = float(-(share * np.log(share)).sum()) + 0.0
    covered = float((sizes >= least).mean()) if len(sizes) else 0.0
    return Diversity(int(total), entropy, float(np.exp(entropy)) if total else 0.0, covered)


def topics_to_json(topics: Sequence[Topic], examples: Sequence[dict[str, Any]]) -> str:
    """One line a topic: {"topic", "terms", "documents", "example": {...}}."""
    return "".join(
        json.dumps(
            {"topic": t.number, "terms": t.terms, "documents": t.documents, "example": example},
            ensure_ascii=False,
        )
        + "\n"
        for t, example in zip(topics, examples, strict=True)
    )
