"""Truncated SVD and spherical k-means, deterministic: the numerical part of the topics.

They are written in numpy. A library of estimators takes longer to import than the topics of a small
corpus take to compute. Random numbers come from numpy's legacy generator, whose stream is the same
in every version.

Shape letters: D vectors (documents), V terms, E dimensions, K clusters, W dimensions of the random
projection.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.text import seeded_random
from data_pipeline.text.ngrams import I64

F64 = NDArray[np.float64]
Sparse = Any  # scipy.sparse.csr_array, which has no types

NO_CLUSTER = -1  # the cluster of a zero vector
DIGITS = 9  # decimal digits to which cosines are rounded before they are compared
_OVERSAMPLING, _POWER_ITERATIONS = 10, 4  # of the randomized SVD
_MAX_ITERATIONS = 50  # of k-means, which converges long before


def unit_vectors(vectors_DE: F64) -> F64:
    """Returns each row divided by its length; a zero row stays zero."""
    length_D1 = np.linalg.norm(vectors_DE, axis=1, keepdims=True)
    return np.divide(
        vectors_DE, length_D1, out=np.zeros_like(vectors_DE), where=length_D1 > 10.0**-DIGITS
    )


def leading_axes(matrix_DV: Sparse, axes: int, seed: int) -> F64:
    """Returns the right singular vectors of the largest singular values.

    They are computed by random projection and power iterations (Halko et al., arXiv 0909.4061,
    algorithms 4.4 and 5.1). The sign of a singular vector is arbitrary: here the entry of the
    largest absolute value is positive.

    Args:
      matrix_DV: sparse matrix.
      axes: number of vectors E, at most the smaller side of the matrix.
      seed: of the random projection.

    Returns:
      float64 [V, E].
    """
    if not axes:
        return np.empty((matrix_DV.shape[1], 0))
    random = _random(seed, "svd")
    width = min(axes + _OVERSAMPLING, *matrix_DV.shape)
    # An orthonormal basis of the range of (A A^T)^q A on random vectors, made orthonormal after
    # every product: otherwise the small singular values would be lost in rounding.
    basis_DW = np.linalg.qr(matrix_DV @ random.standard_normal((matrix_DV.shape[1], width)))[0]
    for _ in range(_POWER_ITERATIONS):
        basis_VW = np.linalg.qr(matrix_DV.T @ basis_DW)[0]
        basis_DW = np.linalg.qr(matrix_DV @ basis_VW)[0]
    # The SVD of the small matrix A^T Q has the right singular vectors of A on its left.
    left_VW = np.linalg.svd(matrix_DV.T @ basis_DW, full_matrices=False)[0]
    axes_VE = left_VW[:, :axes]
    largest_E = np.abs(np.round(axes_VE, DIGITS)).argmax(axis=0)
    return axes_VE * np.where(axes_VE[largest_E, np.arange(axes)] < 0, -1.0, 1.0)


def spherical_k_means(vectors_DE: F64, clusters: int, *, restarts: int, seed: int) -> F64:
    """Returns the unit centroids of the best of some runs of k-means on the sphere.

    The best run has the largest mean cosine of a vector and its centroid; of equal ones the first
    is taken. A centroid without vectors is moved to the vector of the lowest cosine with its own
    centroid.

    Args:
      vectors_DE: unit vectors.
      clusters: number of centroids K, at most D.
      restarts: number of runs, each with other initial centroids.
      seed: of the initial centroids.

    Returns:
      float64 [K, E].
    """
    if clusters == 0:
        return np.empty((0, vectors_DE.shape[1]))
    best, best_fit = vectors_DE[:clusters], -2.0
    for restart in range(restarts):
        random = _random(seed, "k-means", str(restart))
        centroids_KE = _initial_centroids(vectors_DE, clusters, random)
        cluster_D, score_D = nearest(vectors_DE, centroids_KE)
        for _ in range(_MAX_ITERATIONS):
            centroids_KE = _centroids(vectors_DE, cluster_D, score_D, clusters)
            before = cluster_D
            cluster_D, score_D = nearest(vectors_DE, centroids_KE)
            if (cluster_D == before).all():
                break
        fit = round(float(score_D.mean()), DIGITS)
        if fit > best_fit:
            best, best_fit = centroids_KE, fit
    return best


def nearest(vectors_DE: F64, centroids_KE: F64) -> tuple[I64, F64]:
    """Returns the cluster of each vector and its cosine with the centroid, [D] each.

    A zero vector gets NO_CLUSTER and 0. Of equal cosines the first cluster is taken.
    """
    if not len(centroids_KE):
        return np.full(len(vectors_DE), NO_CLUSTER), np.zeros(len(vectors_DE))
    # Rounded: the last bits of a product differ between processors and must not decide.
    cosine_DK = np.round(vectors_DE @ centroids_KE.T, DIGITS)
    cluster_D = cosine_DK.argmax(axis=1)
    score_D = cosine_DK[np.arange(len(cluster_D)), cluster_D]
    is_zero_D = ~vectors_DE.any(axis=1)
    return np.where(is_zero_D, NO_CLUSTER, cluster_D), np.where(is_zero_D, 0.0, score_D)


def _initial_centroids(vectors_DE: F64, clusters: int, random: np.random.RandomState) -> F64:
    """Returns float64 [K, E]: vectors chosen by k-means++ (Arthur and Vassilvitskii 2007).

    Each next vector is drawn with a probability proportional to its squared distance from the
    nearest one chosen so far. The squared distance of unit vectors is 2 - 2 cos.
    """
    chosen = [int(random.random_sample() * len(vectors_DE))]
    distance_D = np.full(len(vectors_DE), 2.0)  # half of the squared distance: 1 - cos
    while len(chosen) < clusters:
        cosine_D = np.round(vectors_DE @ vectors_DE[chosen[-1]], DIGITS)
        distance_D = np.minimum(distance_D, np.maximum(1 - cosine_D, 0))
        # Inverse transform sampling from the cumulative sum.
        cumulative_D = np.cumsum(distance_D)
        at = np.searchsorted(cumulative_D, random.random_sample() * cumulative_D[-1], "right")
        chosen.append(min(int(at), len(vectors_DE) - 1))
    return vectors_DE[chosen]


def _centroids(vectors_DE: F64, cluster_D: I64, score_D: F64, clusters: int) -> F64:
    """Returns float64 [K, E]: the normalized sum of the vectors of each cluster.

    An empty cluster takes the vector of the lowest score from a cluster of at least two.
    """
    from scipy import sparse

    sizes_K = np.bincount(cluster_D, minlength=clusters)
    if not sizes_K.all():
        cluster_D = cluster_D.copy()
        by_score = np.argsort(score_D, kind="stable").tolist()
        for empty in np.flatnonzero(sizes_K == 0).tolist():
            row = next(r for r in by_score if sizes_K[cluster_D[r]] > 1)
            by_score.remove(row)
            sizes_K[cluster_D[row]] -= 1
            sizes_K[empty] += 1
            cluster_D[row] = empty
    # A sparse product sums the vectors of all clusters, in one order.
    rows = np.arange(len(cluster_D))
    member_KD = sparse.csr_array((np.ones(len(rows)), (cluster_D, rows)), (clusters, len(rows)))
    return unit_vectors(member_KD @ vectors_DE)


def _random(seed: int, *names: str) -> np.random.RandomState:
    """Returns numpy's legacy generator, whose numbers are the same in every version."""
    return np.random.RandomState(seeded_random.hash64(seed, *names) % 2**32)
