"""Topics of documents: clusters of a sample, and the nearest cluster of any document.

A sample of documents becomes TF-IDF vectors over its terms. A truncated SVD reduces them to some
hundred dimensions (latent semantic analysis, Deerwester et al. 1990). Spherical k-means (Dhillon
and Modha 2001, initialized by k-means++) finds the clusters. A document's topic is the centroid
with the largest cosine: a pure function of the fitted model and the text. Vectors of an embedding
endpoint can replace TF-IDF and SVD.

Words are those of text/ngrams.py. They are compared by their hashes, so that assigning a topic
takes no Python code per word. Of a long text three windows are read.

The same sample gives the same model: float64, one thread, ties by index. The stored model is
float32, and assignment uses the stored numbers. Cosines are rounded to nine digits before they are
compared, so that the last bits of a product, in which processors differ, decide about no topic.

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
    unit_vectors,
)

Embed = Callable[[Sequence[str]], F64]  # texts -> [D, E]

NO_TOPIC = NO_CLUSTER  # the topic of a text without any known term
NAMED_TERMS = 8  # terms in the name of a topic
_WINDOWS = 3
_WORD = re.compile(r"[^\W_]+")
_MIN_LETTERS = 3  # of a term
_MIN_DOCUMENTS, _MAX_SHARE = 2, 0.4  # documents that have a term: number, share of all
_TEXTS_AT_A_TIME = 256


@dataclass(slots=True)
class TopicModel:
    """A fitted model, which assigns topics.

    `terms_V`, `idf_V` and `projection_VE` are empty if an embedding endpoint gives the vectors.
    """

    terms_V: U64  # hashes of the terms, ascending
    idf_V: F64  # inverse document frequencies
    projection_VE: F64  # TF-IDF vector -> E dimensions
    centroids_KE: F64  # unit vectors

    def save(self, path: Path) -> str:
        """Writes an .npz file and returns its sha256; numbers are written as float32.

        The same model gives the same bytes.
        """
        return write_arrays(
            path,
            terms=self.terms_V,
            idf=self.idf_V.astype(np.float32),
            projection=self.projection_VE.astype(np.float32),
            centroids=self.centroids_KE.astype(np.float32),
        )

    @classmethod
    def load(cls, path: Path) -> TopicModel:
        """Returns the model that `save` has written."""
        arrays = read_arrays(path)
        return cls(
            arrays["terms"],
            *(arrays[name].astype(np.float64) for name in ("idf", "projection", "centroids")),
        )


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its most distinctive terms, and the sample's document nearest to its centroid."""

    number: int
    terms: tuple[str, ...]
    documents: int  # of the sample
    example: int  # row of the sample


# ---- texts to vectors


def read_windows(text: str, max_characters: int) -> str:
    r"""Returns at most `max_characters` of a text: all, or the beginning, the middle and the end.

    >>> read_windows("abcdefghijkl", 6)
    'ab\nfg\nkl'
    """
    if len(text) <= max_characters:
        return text
    size = max_characters // _WINDOWS
    step = (len(text) - size) // (_WINDOWS - 1)
    return "\n".join(
        text[k * step : k * step + size] if k < _WINDOWS - 1 else text[-size:]
        for k in range(_WINDOWS)
    )


def vocabulary(texts: Sequence[str]) -> dict[int, str]:
    """Returns hash -> term of the words that can name a topic: no numbers, no stop words."""
    all_words: set[str] = set()
    for text in texts:
        all_words.update(_WORD.findall(unicodedata.normalize("NFKC", text).lower()))
    terms = sorted(
        w for w in all_words if len(w) >= _MIN_LETTERS and w.isalpha() and w not in STOP_WORDS
    )
    hashed = words(terms)
    # A term that is no single word for text/ngrams.py would never be counted.
    single = np.flatnonzero(np.diff(hashed.offsets_D) == 1)
    hashes = hashed.hashes_W[hashed.offsets_D[single]]
    return {h: terms[row] for h, row in zip(hashes.tolist(), single.tolist(), strict=True)}


def count_terms(texts: Sequence[str], terms_V: U64) -> Sparse:
    """Returns sparse [D, V]: the number of occurrences of each term in each text."""
    from scipy import sparse

    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first in range(0, len(texts), _TEXTS_AT_A_TIME):
        chunk = words(texts[first : first + _TEXTS_AT_A_TIME])
        # The column of each word; a word beyond the last term is compared with the first one.
        at_W = np.searchsorted(terms_V, chunk.hashes_W)
        at_W[at_W == len(terms_V)] = 0
        known_W = np.flatnonzero(terms_V[at_W] == chunk.hashes_W) if len(terms_V) else at_W[:0]
        text_W = np.repeat(np.arange(len(chunk.offsets_D) - 1), np.diff(chunk.offsets_D)) + first
        rows.append(text_W[known_W])
        columns.append(at_W[known_W])
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = (len(texts), len(terms_V))
    counts = sparse.coo_array((np.ones(len(row)), (row, column)), shape=shape).tocsr()
    counts.sum_duplicates()  # sorts the indices too, which fixes the order of summation
    return counts


def tf_idf(counts_DV: Sparse, idf_V: F64) -> Sparse:
    """Returns sparse [D, V]: TF-IDF as unit vectors.

    The term frequency of a count c is 1 + ln c. A row without terms stays zero.
    """
    weights = counts_DV.copy()
    weights.data = (1 + np.log(weights.data)) * idf_V[weights.indices]
    length_D = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
    # Each stored entry is divided by the length of its row; 1e-300 avoids 0 / 0.
    weights.data /= np.repeat(np.maximum(length_D, 1e-300), np.diff(weights.indptr))
    return weights


# ---- fitting


def fit(
    texts: Sequence[str], config: Topics, embed: Embed | None = None
) -> tuple[TopicModel, list[Topic]]:
    """Returns the model and the topics of a sample, the largest topic first.

    There are `config.count` topics; if that is 0, sqrt(D / 2), at most `config.max_topics`. There
    are never more topics than different vectors.

    Args:
      texts: the sample.
      config: the section `topics` of a recipe.
      embed: a function from texts to vectors, which replaces TF-IDF and SVD; terms still name the
        topics.
    """
    import sklearn.cluster  # noqa: F401  # its thread pools can only be limited once it is loaded
    from threadpoolctl import threadpool_limits

    texts = [read_windows(text, config.max_characters) for text in texts]
    names = vocabulary(texts)
    # One thread: the order of summation does not depend on the number of processors.
    with threadpool_limits(1):
        terms_V, counts_DV = _select_terms(texts, names, config.max_terms)
        model, vectors_DE = (
            _fit_lsa(terms_V, counts_DV, config)
            if embed is None
            else (_model_without_terms(), unit_vectors(np.asarray(embed(texts), np.float64)))
        )
        rows = np.flatnonzero(vectors_DE.any(axis=1))  # texts with a known term
        num_different = len(np.unique(np.round(vectors_DE[rows], DIGITS), axis=0))
        count = config.count or min(config.max_topics, round((len(rows) / 2) ** 0.5))
        centroids_KE = spherical_k_means(
            vectors_DE[rows],
            max(min(count, num_different), min(1, num_different)),
            restarts=config.restarts,
            seed=config.seed,
        )
        topic_D, score_D = nearest(vectors_DE, centroids_KE)
        # Renumber by size: order[r] is the former number of the topic of rank r, rank its inverse.
        order = np.argsort(-np.bincount(topic_D[rows], minlength=len(centroids_KE)), kind="stable")
        model.centroids_KE = centroids_KE[order]
        rank = np.argsort(order, kind="stable")
        topic_D = np.where(topic_D == NO_TOPIC, NO_TOPIC, rank[topic_D] if len(rank) else topic_D)
        labels = _labels(counts_DV, topic_D, len(order), [names[int(h)] for h in terms_V])
    return model, _topics(topic_D, score_D, labels)


def _select_terms(
    texts: Sequence[str], names: dict[int, str], max_terms: int
) -> tuple[U64, Sparse]:
    """Returns (terms [V], counts [D, V]) of the terms in several texts, but not in most.

    Of these, the `max_terms` most frequent ones are taken.
    """
    all_V = np.array(sorted(names), np.uint64)
    counts_DV = count_terms(texts, all_V)
    num_texts_V = np.bincount(counts_DV.indices, minlength=len(all_V))
    max_texts = max(_MIN_DOCUMENTS, _MAX_SHARE * len(texts))
    kept = np.flatnonzero((num_texts_V >= _MIN_DOCUMENTS) & (num_texts_V <= max_texts))
    if not len(kept):  # a few texts that have no term in common
        kept = np.arange(len(all_V))
    kept = np.sort(kept[np.argsort(-num_texts_V[kept], kind="stable")][:max_terms])
    return all_V[kept], counts_DV[:, kept]


def _fit_lsa(terms_V: U64, counts_DV: Sparse, config: Topics) -> tuple[TopicModel, F64]:
    """Returns the model without its centroids, and the sample's vectors [D, E].

    The vectors are those of the stored model, which is rounded to float32.
    """
    num_texts_V = np.bincount(counts_DV.indices, minlength=len(terms_V))
    # Smoothed inverse document frequency: ln((1 + D) / (1 + documents with the term)) + 1.
    idf_V = np.log((1 + counts_DV.shape[0]) / (1 + num_texts_V)) + 1
    weights_DV = tf_idf(counts_DV, idf_V)
    dimensions = min(config.dimensions, *weights_DV.shape)
    projection_VE = leading_axes(weights_DV, dimensions, config.seed)
    model = TopicModel(
        terms_V,
        idf_V.astype(np.float32).astype(np.float64),
        projection_VE.astype(np.float32).astype(np.float64),
        np.empty((0, dimensions)),
    )
    return model, unit_vectors(tf_idf(counts_DV, model.idf_V) @ model.projection_VE)


def _model_without_terms() -> TopicModel:
    """Returns a model for the vectors of an embedding endpoint, without its centroids."""
    return TopicModel(np.empty(0, np.uint64), np.empty(0), np.empty((0, 0)), np.empty((0, 0)))


def _labels(
    counts_DV: Sparse, topic_D: I64, topics: int, terms: list[str]
) -> list[tuple[str, ...]]:
    """Returns the terms that distinguish each topic, by class-based TF-IDF.

    The weight of a term in a class is f(term, class) * ln(1 + A / f(term)) (arXiv 2203.05794, eq.
    2). Here f counts the documents that have the term, in the class and in all, and A is the mean
    over the classes of f(term, class) summed over the terms.

    Args:
      counts_DV: the number of occurrences of each term in each document.
      topic_D: the topic of each document.
      topics: the number of topics.
      terms: the names of the terms.
    """
    from scipy import sparse

    rows = np.flatnonzero(topic_D != NO_TOPIC)
    member_KD = sparse.csr_array(
        (np.ones(len(rows)), (topic_D[rows], rows)), (topics, len(topic_D))
    )
    # Documents are counted, not occurrences: one long document does not name a topic.
    has_term_DV = counts_DV.copy()
    has_term_DV.data = np.ones_like(has_term_DV.data)
    in_class_KV = (member_KD @ has_term_DV).tocsr()  # f(term, class)
    in_all_V = np.asarray(in_class_KV.sum(axis=0)).ravel()  # f(term)
    rarity_V = np.log1p(in_all_V.sum() / max(1, topics) / np.maximum(in_all_V, 1))
    labels = []
    for k in range(topics):
        row = in_class_KV[[k]]
        weight = np.round(row.data * rarity_V[row.indices], DIGITS)
        order = sorted(range(len(weight)), key=lambda i: (-weight[i], terms[row.indices[i]]))
        labels.append(tuple(terms[row.indices[i]] for i in order[:NAMED_TERMS]))
    return labels


def _topics(topic_D: I64, score_D: F64, labels: list[tuple[str, ...]]) -> list[Topic]:
    """Returns each topic with the document of its highest score as the example."""
    topics = []
    for k, terms in enumerate(labels):
        rows = np.flatnonzero(topic_D == k)
        example = int(rows[score_D[rows].argmax()]) if len(rows) else -1
        topics.append(Topic(k, terms, len(rows), example))
    return topics


# ---- assignment and diversity


def build_assign(
    model: TopicModel, config: Topics, embed: Embed | None = None
) -> Callable[[Sequence[str]], list[tuple[int, float]]]:
    """Returns a pure function from texts to (topic, cosine rounded to four digits) of each.

    Args:
      model: the fitted model.
      config: the number of characters that are read.
      embed: the function that `fit` was given.
    """
    from threadpoolctl import threadpool_limits

    def assign(texts: Sequence[str]) -> list[tuple[int, float]]:
        texts = [read_windows(text, config.max_characters) for text in texts]
        with threadpool_limits(1):
            vectors_DE = (
                tf_idf(count_terms(texts, model.terms_V), model.idf_V) @ model.projection_VE
                if embed is None
                else np.asarray(embed(texts), np.float64)
            )
            topic_D, score_D = nearest(unit_vectors(vectors_DE), model.centroids_KE)
        return [(t, round(s, 4)) for t, s in zip(topic_D.tolist(), score_D.tolist(), strict=True)]

    return assign


@dataclass(frozen=True, slots=True)
class Diversity:
    """The evenness of the distribution of documents over topics.

    Attributes:
      documents: number of documents that have a topic.
      entropy: H = -sum p ln p, in nats.
      effective: exp(H), the number of equally large topics of the same entropy.
      coverage: share of all topics that have enough documents.
    """

    documents: int
    entropy: float
    effective: float
    coverage: float


def diversity(sizes_K: Sequence[int], min_documents: int = 1) -> Diversity:
    """Returns the diversity of documents over topics of these sizes.

    `min_documents`: a topic of at least this many documents counts as covered.

    >>> even = diversity([5, 5, 0, 0])
    >>> even.documents, round(even.effective, 6), even.coverage
    (10, 2.0, 0.5)
    """
    sizes = np.asarray(sizes_K, np.float64)
    total = sizes.sum()
    share = sizes[sizes > 0] / max(total, 1)
    entropy = float(-(share * np.log(share)).sum()) + 0.0
    covered = float((sizes >= min_documents).mean()) if len(sizes) else 0.0
    return Diversity(int(total), entropy, float(np.exp(entropy)) if total else 0.0, covered)


def topics_to_json(topics: Sequence[Topic], examples: Sequence[dict[str, Any]]) -> str:
    """Returns one JSON line per topic: {"topic", "terms", "documents", "example": {...}}."""
    return "".join(
        json.dumps(
            {"topic": t.number, "terms": t.terms, "documents": t.documents, "example": example},
            ensure_ascii=False,
        )
        + "\n"
        for t, example in zip(topics, examples, strict=True)
    )
