"""Vectors, their leading axes and their clusters: the numbers behind topics.

Written out in numpy, and not taken from a library of estimators, whose import alone would take
longer than the topics of a small corpus do. Random numbers come from numpy's legacy generator,
whose stream no version changes.

Shape letters: D vectors (documents), V terms, E dimensions, K clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.text import seeded_random
from data_pipeline.text.ngrams import I64

F64 = NDArray[np.float64]
Sparse = Any  # scipy.sparse.csr_array, which has no types

NO_CLUSTER = -1  # of a zero vector
DIGITS = 9  # to which cosines are rounded before they are compared
_MORE_AXES, _POWER_ITERATIONS = 10, 4  # of the randomised SVD
_SWEEPS = 50  # of k-means; it has settled long before


def unit(vectors_DE: F64) -> F64:
    """Each row at length one; a zero row stays zero."""
    length_D1 = np.linalg.norm(vectors_DE, axis=1, keepdims=True)
    return np.divide(
        vectors_DE, length_D1, out=np.zeros_like(vectors_DE), where=length_D1 > 10.0**-DIGITS
    )


def leading_axes(matrix_DV: Sparse, axes: int, seed: int) -> F64:
    """float64 [V, E]: the right singular vectors of the largest singular values.

    By random projection and power iterations (Halko et al., arXiv 0909.4061, algorithms 4.4 and
    5.1). The largest entry of each is positive, since the sign of a singular vector is open.
    """
    if not axes:
        return np.empty((matrix_DV.shape[1], 0))
    random = _random(seed, "svd")
    width = min(axes + _MORE_AXES, *matrix_DV.shape)
    basis_DW = np.linalg.qr(matrix_DV @ random.standard_normal((matrix_DV.shape[1], width)))[0]
    for _ in range(_POWER_ITERATIONS):
        basis_VW = np.linalg.qr(matrix_DV.T @ basis_DW)[0]
        basis_DW = np.linalg.qr(matrix_DV @ basis_VW)[0]
    left_VW = np.linalg.svd(matrix_DV.T @ basis_DW, full_matrices=False)[0]
    axes_VE = left_VW[:, :axes]
    largest_E = np.abs(np.round(axes_VE, DIGITS)).argmax(axis=0)
    return axes_VE * np.where(axes_VE[largest_E, np.arange(axes)] < 0, -1.0, 1.0)


def spherical_k_means(vectors_DE: F64, clusters: int, *, restarts: int, seed: int) -> F64:
    """float64 [K, E]: unit centroids of unit vectors, the best of some restarts.

    The best has the largest mean cosine of a vector to its centroid; of equal ones the first. A
    centroid that loses all its vectors takes the one that fits its own least.
    """
    if clusters == 0:
        return np.empty((0, vectors_DE.shape[1]))
    best, best_fit = vectors_DE[:clusters], -2.0
    for restart in range(restarts):
        centroids_KE = _starts(vectors_DE, clusters, _random(seed, "k-means", str(restart)))
        cluster_D, score_D = nearest(vectors_DE, centroids_KE)
        for _ in range(_SWEEPS):
            centroids_KE = _centres(vectors_DE, cluster_D, score_D, clusters)
            before = cluster_D
            cluster_D, score_D = nearest(vectors_DE, centroids_KE)
            if (cluster_D == before).all():
                break
        fitness = round(float(score_D.mean()), DIGITS)
        if fitness > best_fit:
            best, best_fit = centroids_KE, fitness
    return best


def nearest(vectors_DE: F64, centroids_KE: F64) -> tuple[I64, F64]:
    """The cluster of each vector and its cosine in [-1, 1]; NO_CLUSTER and 0 for a zero vector."""
    if not len(centroids_KE):
        return np.full(len(vectors_DE), NO_CLUSTER), np.zeros(len(vectors_DE))
    cosine_DK = np.round(vectors_DE @ centroids_KE.T, DIGITS)
    cluster_D = cosine_DK.argmax(axis=1)
    score_D = cosine_DK[np.arange(len(cluster_D)), cluster_D]
    nothing_D = ~vectors_DE.any(axis=1)
    return np.where(nothing_D, NO_CLUSTER, cluster_D), np.where(nothing_D, 0.0, score_D)


def _starts(vectors_DE: F64, clusters: int, random: np.random.RandomState) -> F64:
    """k-means++: each next start is a vector drawn by its distance from those that are there
    (Arthur and Vassilvitskii 2007); the squared distance of unit vectors is 2 - 2 cos."""
    chosen = [int(random.random_sample() * len(vectors_DE))]
    far_D = np.full(len(vectors_DE), 2.0)
    while len(chosen) < clusters:
        cosine_D = np.round(vectors_DE @ vectors_DE[chosen[-1]], DIGITS)
        far_D = np.minimum(far_D, np.maximum(1 - cosine_D, 0))
        until_D = np.cumsum(far_D)
        at = np.searchsorted(until_D, random.random_sample() * until_D[-1], "right")
        chosen.append(min(int(at), len(vectors_DE) - 1))
    return vectors_DE[chosen]


def _centres(vectors_DE: F64, cluster_D: I64, score_D: F64, clusters: int) -> F64:
    from scipy import sparse

    sizes_K = np.bincount(cluster_D, minlength=clusters)
    if not sizes_K.all():
        cluster_D = cluster_D.copy()
        loneliest = np.argsort(score_D, kind="stable").tolist()
        for empty in np.flatnonzero(sizes_K == 0).tolist():
            row = next(r for r in loneliest if sizes_K[cluster_D[r]] > 1)
            loneliest.remove(row)
            sizes_K[cluster_D[row]] -= 1
            sizes_K[empty] += 1
            cluster_D[row] = empty
    rows = np.arange(len(cluster_D))
    member_KD = sparse.csr_array((np.ones(len(rows)), (cluster_D, rows)), (clusters, len(rows)))
    return unit(member_KD @ vectors_DE)


def _random(seed: int, *names: str) -> np.random.RandomState:
    """The legacy generator, whose numbers no version of numpy changes."""
    return np.random.RandomState(seeded_random.hash64(seed, *names) % 2**32)
